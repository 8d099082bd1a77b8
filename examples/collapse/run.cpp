#include "run.hpp"

#include "../common/small_model.hpp"

namespace collapse {
namespace {

namespace gf = gatefold;
using small_model::decoder_with;

using top1 =
    gf::decoder<decoder_with({.ffn = 32,
                              .experts = experts,
                              .router = {.weights = gf::precision::accumulate, .selection_bias = gf::key_bias::score}}),
                float>;
using noisy =
    gf::decoder<decoder_with({.ffn = 32, .experts = experts, .top_k = 2, .router = gf::routers::noisy_top_k}), float>;

/// The load of some steps.
struct load {
    gf::index_t counts[experts] = {};
    gf::view<gf::index_t, gf::dyn> view() { return {counts, {experts}}; }
    gf::balance_metrics balance() { return gf::balance_of(gf::view<const gf::index_t, gf::dyn>(counts, {experts})); }
};

template <class D>
figures train(const plan& p, std::uint64_t seed, int steps) {
    small_model::model<D> m(seed, p.noise || D::layer_type::top_k > 1 ? 0 : 0.1);
    const auto text = language::text(seed, 200000), held_out = language::text(1000, 16385);
    const gf::cosine_schedule schedule{.peak = 1e-2, .warm_up = steps / 20 + 1, .steps = steps, .floor = 0.1};
    const int last = steps - steps / 5, early = steps / 20 + 1, part = steps / 20 + 1;
    load first, end;
    figures f;
    for (int s = 0; s < steps; ++s) {
        load now;
        gf::options<typename D::layer_type> o;
        o.training = p.noise;  // noise is all that training changes in these routers
        o.seed = seed;
        o.step = static_cast<std::uint32_t>(s);
        const auto batch = language::draw(text, seed, s, small_model::sequences, small_model::context);
        m.train(batch, schedule.rate(s), o, [&](auto& tape) {
            if (p.coefficient > 0) gf::add_loss(m.ctx, gf::losses::megatron{p.coefficient}, tape);
            gf::add_expert_counts(tape.routing().ids, now.view());
        });
        if constexpr (D::layer_type::c.router.selection_bias != gf::key_bias::none)
            if (p.rate > 0) gf::update(gf::sign_bias{p.rate}, m.layer().selection_bias.view(), now.view());

        const double violation = now.balance().max_violation;
        if (s % part == 0) f.course.push_back(0);
        f.course.back() += violation / ((s / part + 1) * part <= steps ? part : steps % part);
        for (int e = 0; e < experts; ++e) {
            if (s < early) first.counts[e] += now.counts[e];
            if (s >= last) end.counts[e] += now.counts[e];
        }
        if (s >= last) f.step_violation += violation / (steps - last);
    }
    const gf::balance_metrics balance = end.balance();
    f.violation = balance.max_violation;
    f.entropy = balance.entropy;
    f.dead = balance.dead;
    f.starved = balance.starved;
    f.early_entropy = first.balance().entropy;
    f.loss = m.held_out(held_out, {}, [](auto&) {});
    return f;
}

}  // namespace

figures train_top1(const plan& p, std::uint64_t seed, int steps) { return train<top1>(p, seed, steps); }
figures train_noisy(const plan& p, std::uint64_t seed, int steps) { return train<noisy>(p, seed, steps); }

}  // namespace collapse
