#include "run.hpp"

#include <algorithm>
#include <cstring>

#include "../common/small_model.hpp"

namespace capacity {
namespace {

namespace gf = gatefold;
using small_model::decoder_with, small_model::sequences, small_model::context, small_model::tokens;

constexpr gf::config layer_with(gf::capacity_config c) {
    return {.ffn = 32, .experts = experts, .top_k = top_k, .router = gf::routers::olmoe, .capacity = c};
}
constexpr gf::capacity_config megatron(gf::priority keeps) {
    return {.rule = gf::capacity_rule::megatron, .factor = 1, .keeps = keeps};
}
using dropless = gf::decoder<decoder_with(layer_with({})), float>;
using arrival = gf::decoder<decoder_with(layer_with(megatron(gf::priority::slot_major))), float>;
using importance = gf::decoder<decoder_with(layer_with(megatron(gf::priority::importance))), float>;
using probability = gf::decoder<decoder_with(layer_with(megatron(gf::priority::probability))), float>;

template <class L>
inline constexpr bool has_capacity = L::c.capacity.rule != gf::capacity_rule::none;

std::vector<std::int32_t> held_out_text() { return language::text(1000, 16385); }

template <class D>
training_figures train_one(double factor, std::uint64_t seed, int steps, small_model::model<D>& m) {
    using L = typename D::layer_type;
    const auto text = language::text(seed, 200000);
    const gf::cosine_schedule schedule{.peak = 1e-2, .warm_up = steps / 20 + 1, .steps = steps, .floor = 0.1};
    gf::options<L> o{.training = true};
    training_figures f;
    if (has_capacity<L>) {
        o.capacity_factor = static_cast<float>(factor);
        f.capacity = gf::capacity_of(L::c.capacity, o.capacity_factor, tokens, experts, top_k, true, 0);
    }
    std::int64_t dropped[2] = {}, pairs[2] = {};
    for (int s = 0; s < steps; ++s) {
        m.train(language::draw(text, seed, s, sequences, context), schedule.rate(s), o, [&](auto& tape) {
            gf::add_loss(m.ctx, gf::losses::megatron{0.01}, tape);
            const auto plan = tape.plan();
            for (int e = 0; e < experts; ++e)
                f.most_rows = (std::max)(f.most_rows, std::int64_t{plan.offsets[e + 1]} - plan.offsets[e]);
            const int part = s < steps / 10 ? 0 : 1;
            if (part == 0 || s >= steps - steps / 10) {
                pairs[part] += tokens * top_k;
                dropped[part] += tokens * top_k - plan.offsets[experts];
            }
        });
    }
    f.first_dropped = static_cast<double>(dropped[0]) / static_cast<double>((std::max)(pairs[0], std::int64_t{1}));
    f.dropped = static_cast<double>(dropped[1]) / static_cast<double>(pairs[1]);
    f.capped_loss = m.held_out(held_out_text(), o, [](auto&) {});
    if (has_capacity<L>) o.capacity_factor = float{experts} / top_k;  // room for every token
    f.loss = m.held_out(held_out_text(), o, [](auto&) {});
    gf::for_each_parameter(
        [&](const char*, const auto& slot) {
            f.weights.insert(f.weights.end(), slot.data(), slot.data() + slot.size());
        },
        m.weights);
    return f;
}

/// Held-out loss and kept weight of trained weights under the priority of D, at half of the even load.
template <class D>
priority_figures keep(const char* name, const small_model::model<dropless>& trained, double all_weights) {
    using L = typename D::layer_type;
    small_model::model<D> m(1);
    gf::for_each_parameter(
        [](const char*, auto& to, const auto& from) { std::copy_n(from.data(), from.size(), to.data()); }, m.weights,
        trained.weights);
    gf::options<L> o;
    if (has_capacity<L>) o.capacity_factor = 0.5f;
    priority_figures f{name};
    double weight = 0;
    std::int64_t kept = 0, pairs = 0, untouched = 0;
    f.loss = m.held_out(held_out_text(), o, [&](auto& tape) {
        const auto routing = tape.routing();
        const auto plan = tape.plan();
        for (gf::index_t t = 0; t < tokens; ++t) {
            int places = 0;
            for (int s = 0; s < top_k; ++s) {
                ++pairs;
                if (plan.place[t * top_k + s] < 0) continue;
                ++places;
                weight += static_cast<double>(routing.weights(t, s));
            }
            kept += places;
            untouched += places == 0;
        }
    });
    f.kept_weight = all_weights > 0 ? weight / all_weights : weight;
    f.kept_pairs = static_cast<double>(kept) / static_cast<double>(pairs);
    f.untouched = static_cast<double>(untouched) * top_k / static_cast<double>(pairs);
    return f;
}

/// Outputs of a layer for tokens of which the later half may be others.
template <class L>
std::vector<float> outputs(gf::context<gf::cpu>& ctx, std::uint64_t seed, bool replace_later, gf::tape<L>& tape) {
    const auto w = gf::random_weights<L>(ctx, gf::seed{seed});
    auto x = gf::make_tensor<float, gf::dyn, L::hidden>(ctx, tokens),
         y = gf::make_tensor<float, gf::dyn, L::hidden>(ctx, tokens);
    const gf::counter_rng random{seed, 1};
    for (gf::index_t t = 0; t < tokens; ++t)
        for (int h = 0; h < L::hidden; ++h)
            x(t, h) = random.normal(gf::purpose::gaussian, replace_later && t >= tokens / 2 ? t + tokens : t, h);
    gf::forward(ctx, w, {.x = x.view()}, y.view(), tape);
    return {y.data(), y.data() + y.size()};
}

/// How many tokens of the first half change their output when the later half is replaced.
template <class L>
std::int64_t changed(std::uint64_t seed) {
    gf::context<gf::cpu> ctx(1);
    gf::tape<L> tape(ctx, tokens);
    const auto before = outputs<L>(ctx, seed, false, tape), after = outputs<L>(ctx, seed, true, tape);
    std::int64_t n = 0;
    constexpr std::size_t width = L::hidden;
    for (std::size_t t = 0; t < static_cast<std::size_t>(tokens / 2); ++t)
        n += std::memcmp(&before[t * width], &after[t * width], width * sizeof(float)) != 0;
    return n;
}

}  // namespace

training_figures train(double factor, std::uint64_t seed, int steps) {
    if (factor == 0) {
        small_model::model<dropless> m(seed);
        return train_one(factor, seed, steps, m);
    }
    small_model::model<arrival> m(seed);
    return train_one(factor, seed, steps, m);
}

std::array<priority_figures, 4> compare_priorities(std::uint64_t seed, int steps) {
    small_model::model<dropless> trained(seed);
    train_one(0, seed, steps, trained);
    priority_figures all = keep<dropless>("no capacity", trained, 0);
    const double weights = all.kept_weight;
    all.kept_weight = 1;
    return {all, keep<arrival>("arrival", trained, weights), keep<importance>("importance", trained, weights),
            keep<probability>("probability", trained, weights)};
}

choice_figures expert_choice(std::uint64_t seed) {
    constexpr gf::config shape{.hidden = 32, .ffn = 32, .experts = experts, .top_k = top_k};
    using by_experts = gf::layer<gf::with(shape, &gf::config::router, gf::routers::expert_choice), float>;
    using by_tokens = gf::layer<gf::with(shape, &gf::config::router, gf::routers::mixtral), float>;
    gf::context<gf::cpu> ctx(1);
    gf::tape<by_experts> tape(ctx, tokens);
    outputs<by_experts>(ctx, seed, false, tape);
    choice_figures f;
    gf::index_t counts[experts] = {};
    gf::add_expert_counts(tape.routing().ids, {counts, {experts}});
    f.violation = gf::balance_of(gf::view<const gf::index_t, gf::dyn>(counts, {experts})).max_violation;
    f.per_token.resize(experts + 1);
    for (gf::index_t t = 0; t < tokens; ++t)
        ++f.per_token[static_cast<std::size_t>(std::count_if(
            tape.routing().ids.row(t), tape.routing().ids.row(t) + experts, [](std::int32_t e) { return e >= 0; }))];
    f.earlier = tokens / 2;
    f.changed_by_choice = changed<by_experts>(seed);
    f.changed_by_top_k = changed<by_tokens>(seed);
    return f;
}

}  // namespace capacity
