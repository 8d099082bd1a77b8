// One router over the tokens that all of them share: what it chooses, how even that is, how long it takes.
#pragma once

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include <gatefold/gatefold.hpp>

namespace routers_example {

namespace gf = gatefold;

inline constexpr int hidden = 64, choices = 16;
inline constexpr gf::index_t tokens = 512;

struct row {
    std::string name;
    int top_k = 0, slots = 0;
    std::vector<int> ids;         ///< of token 0
    std::vector<double> weights;  ///< of them
    double per_token = 0;         ///< mean number of experts
    double violation = 0, entropy = 0, training_violation = 0;
    double nanoseconds = 0;  ///< per token, one thread
    bool by_logit = false;   ///< the first choice is the largest logit: no bias, group, noise or table comes between
    bool is_valid = true;    ///< ids in range and different from each other, weights finite
};

/// Experts that compute nothing are the last of the choices, so that every router sees the same logits.
template <gf::router_config R, int K, gf::free_experts Free>
constexpr gf::config config_of() {
    gf::config c{.hidden = hidden, .ffn = 1, .experts = choices - Free.constant - Free.copy - Free.zero, .top_k = K};
    c.router = R;
    c.free = Free;
    return c;
}

/// The same matrix for every router that has one of this shape; whatever else it learns is drawn from its own seed.
template <class W>
void set_router(W& w) {
    const gf::counter_rng random{11};
    if constexpr (gf::is_present<std::remove_reference_t<decltype(w.router)>>)
        if constexpr (std::remove_reference_t<decltype(w.router)>::rank == 2)
            if (w.router.extent(1) == hidden)
                for (gf::index_t e = 0; e < w.router.extent(0); ++e)
                    for (gf::index_t h = 0; h < hidden; ++h)
                        w.router(e, h) = 0.1f * random.normal(gf::purpose::initialisation, e, h);
    // What loss-free balancing might have made of it: half of the experts are a little preferred.
    if constexpr (gf::is_present<std::remove_reference_t<decltype(w.selection_bias)>>)
        for (int e = 0; e < choices; ++e) w.selection_bias(e) = e % 2 == 0 ? 0.02f : -0.02f;
}

template <gf::router_config R, int K, gf::free_experts Free>
row measure() {
    using L = gf::layer<config_of<R, K, Free>(), float>;
    gf::context<gf::cpu> ctx(1);
    auto w = gf::random_weights<L>(ctx, gf::seed{5});
    set_router(w);
    auto x = gf::make_tensor<float, gf::dyn, hidden>(ctx, tokens);
    const gf::counter_rng random{12};
    for (gf::index_t t = 0; t < tokens; ++t)
        for (int h = 0; h < hidden; ++h) x(t, h) = random.normal(gf::purpose::gaussian, t, h);
    auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, tokens),
         table = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, tokens);
    auto weights = gf::make_tensor<float, gf::dyn, L::slots>(ctx, tokens);
    auto logits = gf::make_tensor<float, gf::dyn, choices>(ctx, tokens);
    const gf::routing_view<L> out{ids.view(), weights.view(), logits.view()};
    gf::batch<L> in{.x = x.view()};
    if constexpr (R.select == gf::selection::given) {  // a table over 100 token ids
        for (gf::index_t t = 0; t < tokens; ++t)
            for (int s = 0; s < L::slots; ++s) table(t, s) = static_cast<std::int32_t>((t % 100 * 7 + s) % choices);
        in.chosen = table.view();
    }
    const auto balance = [&] {
        gf::index_t counts[choices] = {};
        gf::add_expert_counts(out.ids, {counts, {choices}});
        return gf::balance_of(gf::view<const gf::index_t, gf::dyn>(counts, {choices}));
    };

    row r;
    r.top_k = K;
    r.slots = L::slots;
    r.by_logit = R.select == gf::selection::top_k && R.selection_bias == gf::key_bias::none && R.groups == 1 &&
                 R.logits == gf::projection::linear && R.input == gf::router_input::tokens && !R.bias;
    gf::route(ctx, w, in, out, {.training = true});
    r.training_violation = balance().max_violation;

    std::vector<double> times;
    for (int i = -2; i < 11; ++i) {
        const auto began = std::chrono::steady_clock::now();
        gf::route(ctx, w, in, out);
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
        if (i >= 0) times.push_back(1e9 * seconds / static_cast<double>(tokens));
    }
    std::nth_element(times.begin(), times.begin() + 5, times.end());
    r.nanoseconds = times[5];
    const gf::balance_metrics b = balance();
    r.violation = b.max_violation;
    r.entropy = b.entropy;
    for (int s = 0; s < L::slots; ++s)
        if (ids(0, s) >= 0) {
            r.ids.push_back(ids(0, s));
            r.weights.push_back(static_cast<double>(weights(0, s)));
        }
    gf::index_t filled = 0;
    for (gf::index_t t = 0; t < tokens; ++t)
        for (int s = 0; s < L::slots; ++s) {
            const std::int32_t e = ids(t, s);
            filled += e >= 0;
            r.is_valid = r.is_valid && e >= -1 && e < choices && weights(t, s) - weights(t, s) == 0;
            for (int other = 0; other < s; ++other) r.is_valid = r.is_valid && (e < 0 || e != ids(t, other));
        }
    r.per_token = static_cast<double>(filled) / static_cast<double>(tokens);
    return r;
}

/// Collects rows: add<router, k>("name").
class table {
public:
    template <gf::router_config R, int K, gf::free_experts Free = gf::free_experts{}>
    void add(const char* name) {
        rows.push_back(measure<R, K, Free>());
        rows.back().name = name;
    }
    std::vector<row> rows;
};

void softmax_over_all(table&);
void softmax_over_chosen_and_sigmoid(table&);
void first_routers(table&);
void routers_of_papers(table&);

}  // namespace routers_example
