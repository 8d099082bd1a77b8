// The router of one configuration against the double-precision oracle: ids, weights, kept pairs, gradients.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/cpu/router/router.hpp>
#include <gatefold/moe/capacity.hpp>

#include "bridge.hpp"

namespace routing_comparison {

namespace gf = gatefold;
namespace on_cpu = gf::detail::on_cpu;

inline constexpr double infinite = std::numeric_limits<double>::infinity(),
                        not_a_number = std::numeric_limits<double>::quiet_NaN();

/// A small layer around a router.
constexpr gf::config with_router(int experts, int top_k, gf::router_config router, gf::capacity_config capacity = {},
                                 gf::free_experts free = {}) {
    gf::config c{.hidden = 6, .ffn = 1, .experts = experts, .top_k = top_k};
    c.router = router;
    c.capacity = capacity;
    c.free = free;
    return c;
}

/// The oracle's layer with what the bridge leaves to the caller: inputs, projections, policies of the second expert.
inline oracle::layer layer_of(const gf::config& c, bool training) {
    oracle::layer l = bridge::layer_of(c);
    oracle::router& r = l.router;
    r.input = c.router.input == gf::router_input::rms_norm      ? oracle::input_kind::rms_norm
              : c.router.input == gf::router_input::unit_length ? oracle::input_kind::unit_norm
                                                                : oracle::input_kind::plain;
    r.projection = c.router.logits == gf::projection::two_layer ? oracle::projection_kind::tanh_mlp
                   : c.router.logits == gf::projection::cosine  ? oracle::projection_kind::cosine
                   : c.router.logits == gf::projection::none    ? oracle::projection_kind::none
                                                                : oracle::projection_kind::linear;
    if (c.router.selection_bias == gf::key_bias::logit) r.key = oracle::key_kind::logit;
    r.normalise_logits = c.router.transform == gf::logit_transform::normalised;
    switch (c.router.second) {
        case gf::second_expert::always:
            r.second = oracle::second_kind::all;
            break;
        case gf::second_expert::threshold:
            r.second = oracle::second_kind::threshold;
            break;
        case gf::second_expert::random:
            r.second = training ? oracle::second_kind::random : oracle::second_kind::all;
            break;
        case gf::second_expert::random_score:
            r.second = training ? oracle::second_kind::random_twice : oracle::second_kind::all;
            break;
        case gf::second_expert::sampled:
            r.second = training ? oracle::second_kind::sampling : oracle::second_kind::all;
            break;
    }
    r.capacity.factor = gf::detail::decimal_of(c.capacity.factor);
    r.capacity.alignment = static_cast<oracle::natural>(c.capacity.alignment);
    return l;
}

/// Numbers in (-1, 1).
struct source {
    std::uint64_t state;
    double operator()() {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        return static_cast<double>(state >> 11) * 0x1p-52 - 1;
    }
};

/// What is wrong with the logits of a case.
enum class trouble { none, ties, not_numbers, infinities, hopeless };

/// A case inside one type: everything that is known at run time only.
struct variation {
    std::uint64_t seed = 1;
    gf::index_t tokens = 8;
    trouble with = trouble::none;
    bool training = false;
    int threads = 2;
    double size = 1;  ///< of the logits
};

template <class L>
gf::weights<L> make_router(gf::context<gf::cpu>& ctx, const variation& v) {
    using A = typename L::accumulate_type;
    auto w = gf::make_weights<L>(ctx);
    source next{v.seed * 77 + 5};
    const auto fill = [&](double around, double size, auto& slot) {
        using slot_type = std::remove_reference_t<decltype(slot)>;
        if constexpr (gf::is_present<slot_type>)
            for (gf::index_t i = 0; i < slot.size(); ++i)
                slot.data()[i] = gf::from_accumulate<typename slot_type::value_type>(A(around + size * next()));
    };
    fill(0, v.size, w.router_projection);
    fill(0, 1.5 * v.size, w.router);
    fill(0, 2.0, w.router_head);
    fill(0.4, 0.2, w.router_temperature);
    fill(0, 0.7, w.router_bias);
    fill(1, 0.3, w.router_scale);
    fill(1, 0.5, w.expert_scale);
    fill(0, 1, w.router_noise);
    fill(0, 0.4, w.router_residual);
    fill(0, 0.4, w.selection_bias);
    if constexpr (gf::is_present<decltype(w.router)>)
        if (v.with == trouble::ties)
            for (int e = 2; e < L::choices; ++e)
                for (int h = 0; h < L::hidden; ++h) w.router(e, h) = w.router(e % 2, h);
    if constexpr (gf::is_present<decltype(w.router_bias)>) {
        using R = typename L::router_type;
        const A inf = std::numeric_limits<A>::infinity();
        if (v.with == trouble::ties)
            for (int e = 0; e < L::choices; ++e) w.router_bias.data()[e] = gf::from_accumulate<R>(A(0));
        if (v.with == trouble::not_numbers)
            for (int e = 0; e < L::choices; e += 2)
                w.router_bias.data()[e] = gf::from_accumulate<R>(std::numeric_limits<A>::quiet_NaN());
        if (v.with == trouble::infinities)
            for (int e = 0; e < L::choices; ++e)
                if (next() > 0.3) w.router_bias.data()[e] = gf::from_accumulate<R>(next() > 0.2 ? inf : -inf);
        if (v.with == trouble::hopeless)
            for (int e = 0; e < L::choices; ++e)
                w.router_bias.data()[e] =
                    gf::from_accumulate<R>(e % 2 == 0 ? -inf : std::numeric_limits<A>::quiet_NaN());
    }
    return w;
}

/// The draws of a call as the oracle takes them.
template <class L>
void fill_noise(oracle::batch& b, const gf::options<L>& o, gf::index_t tokens, gf::index_t first_token) {
    using A = typename L::accumulate_type;
    constexpr gf::router_config r = L::c.router;
    const gf::counter_rng draw{o.seed, o.step, static_cast<int>(o.layer)};
    b.training = o.training;
    if (!o.training) return;
    const A size = A(o.noise);
    for (gf::index_t i = 0; i < tokens; ++i) {
        const gf::index_t t = first_token + i;
        if constexpr (gf::has_jitter(L::c))
            for (int h = 0; h < L::hidden; ++h) {
                double factor = double(draw.template jitter<A>(t, h, size));
                if (r.noise_on == gf::input_noise::shared_jitter_twice)
                    factor *= double(draw.template jitter<A>(t, L::hidden + h, size));
                if (r.noise_on == gf::input_noise::dropout)
                    factor = double(draw.template uniform_from_zero<A>(gf::purpose::dropout, t, h)) < double(size)
                                 ? 0.0
                                 : 1 / (1 - double(size));
                b.jitter.push_back(factor);
            }
        for (int e = 0; e < L::choices; ++e) {
            if constexpr (r.transform == gf::logit_transform::noisy_top_k)
                b.noise.push_back(double(draw.template normal<A>(gf::purpose::gaussian, t, e)));
            if constexpr (r.transform == gf::logit_transform::gaussian)
                b.noise.push_back(double(draw.template normal<A>(gf::purpose::gaussian, t, e)) * double(size) /
                                  L::choices);
            if constexpr (r.transform == gf::logit_transform::gumbel)
                b.noise.push_back(double(draw.template gumbel<A>(gf::purpose::gumbel, t, e)) * double(size));
            if constexpr (r.select == gf::selection::sampled)
                b.key_noise.push_back(double(draw.template gumbel<A>(gf::purpose::sampling, t, e)) * double(size));
            if constexpr (r.second == gf::second_expert::sampled)
                b.key_noise.push_back(double(draw.template gumbel<A>(gf::purpose::gumbel, t, e)));
        }
        if constexpr (r.select == gf::selection::sparse_mixer) {
            for (int e = 0; e < 2 * L::choices; ++e)
                b.key_noise.push_back(double(draw.template gumbel<A>(gf::purpose::gumbel, t, e)));
            for (int s = 0; s < 2; ++s)
                b.uniform.push_back(double(draw.template uniform_from_zero<A>(gf::purpose::sampling, t, s)));
        } else {
            b.uniform.push_back(double(draw.template uniform_from_zero<A>(gf::purpose::second_expert, t, 0)));
        }
    }
}

inline double error_of(const oracle::values& mine, const oracle::values& theirs) {
    if (mine.size() != theirs.size()) return infinite;
    double difference = 0, largest = 0;
    for (std::size_t i = 0; i < theirs.size(); ++i) {
        const bool same = mine[i] == theirs[i] || (std::isnan(mine[i]) && std::isnan(theirs[i]));
        const double d = same ? 0 : std::fabs(mine[i] - theirs[i]);
        if (!(d <= difference)) difference = std::isnan(d) ? infinite : d;
        if (std::isfinite(theirs[i])) largest = (std::max)(largest, std::fabs(theirs[i]));
    }
    return largest > 1e-3 ? difference / largest : difference;  // a gradient of nothing but rounding errors
}

inline int& cases_compared() {
    static int count = 0;
    return count;
}

/// Routes random tokens, applies capacity, goes back, and compares every number.
template <class L>
void compare(const variation& v) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    constexpr gf::router_config r = L::c.router;
    constexpr bool limited = gf::drops(L::c), exact = std::is_same_v<T, double>;
    const double tolerance = exact ? 1e-11 : 2e-5;
    const gf::index_t tokens = v.tokens, first_token = 1000 + static_cast<gf::index_t>(v.seed);
    gf::context<gf::cpu> ctx(v.threads);
    const auto w = make_router<L>(ctx, v);
    source next{v.seed + 99};
    auto x = gf::make_tensor<T, gf::dyn, L::hidden>(ctx, tokens);
    for (gf::index_t i = 0; i < x.size(); ++i) x.data()[i] = T(2 * next());
    // A token whose logits are all NaN beside ordinary ones.
    if (v.with == trouble::not_numbers && tokens > 2) x(2, 0) = T(not_a_number);
    auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, tokens);
    auto weights = gf::make_tensor<A, gf::dyn, L::slots>(ctx, tokens),
         dw = gf::make_tensor<A, gf::dyn, L::slots>(ctx, tokens);
    auto logits = gf::make_tensor<A, gf::dyn, L::choices>(ctx, tokens),
         dz = gf::make_tensor<A, gf::dyn, L::choices>(ctx, tokens);
    auto kept = gf::make_tensor<std::uint8_t, gf::dyn>(ctx, tokens * L::slots);
    gf::batch<L> in{.x = x.view()};
    in.first_token = first_token;
    gf::options<L> o;
    o.training = v.training;
    o.seed = v.seed;
    o.step = 3;
    o.layer = 2;
    oracle::layer layer = layer_of(L::c, v.training);
    layer.router.top_p = layer.router.threshold = double(o.threshold);
    layer.router.mixer_epsilon = layer.router.logit_lambda = double(o.noise);
    layer.router.capacity.eval_fraction = layer.router.capacity.factor;

    oracle::batch b;
    b.tokens = static_cast<oracle::natural>(tokens);
    b.x = bridge::values_of(x);
    fill_noise(b, o, tokens, first_token);
    if constexpr (r.select == gf::selection::given) {
        for (gf::index_t i = 0; i < ids.size(); ++i)
            ids.data()[i] = static_cast<std::int32_t>((i * 7 + i / 5) % (L::choices + 1)) - 1;
        in.chosen = ids.view();
    }
    auto below = gf::make_tensor<A, gf::dyn, L::choices>(ctx, tokens),
         d_below = gf::make_tensor<A, gf::dyn, L::choices>(ctx, tokens);
    d_below.set_zero();
    if constexpr (r.transform == gf::logit_transform::residual) {
        for (gf::index_t i = 0; i < below.size(); ++i) below.data()[i] = A(next());
        in.previous_logits = below.view();
        in.previous_logit_gradients = d_below.view();
        b.previous_logits = bridge::values_of(below);
    }
    auto chosen = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, tokens);
    const gf::routing_view<L> routing{chosen.view(), weights.view(), logits.view()};
    gf::route(ctx, w, in, routing, o);
    if constexpr (limited) gf::apply_capacity(ctx, in, routing, kept.view(), o);

    const oracle::parameters p = bridge::parameters_of(w);
    oracle::values source_rows = b.x;
    for (std::size_t i = 0; i < b.jitter.size(); ++i) source_rows[i] *= b.jitter[i];
    // Float may choose otherwise where keys are close, and uniform choices are the library's own: the rest is compared
    // for the same choice.
    if (!exact || r.select == gf::selection::given || r.select == gf::selection::uniform ||
        r.select == gf::selection::balanced)
        for (gf::index_t i = 0; i < ids.size(); ++i) b.chosen.push_back(chosen.data()[i]);
    const oracle::routing theirs = oracle::route(layer, p, b, source_rows);
    bool same_ids = true, same_kept = true;
    for (gf::index_t i = 0; i < ids.size(); ++i) {
        const auto at = static_cast<std::size_t>(i);
        const bool stays = limited ? kept.data()[i] != 0 : chosen.data()[i] >= 0;
        same_ids = same_ids && (chosen.data()[i] < 0 || chosen.data()[i] == theirs.chosen[at]) &&
                   (chosen.data()[i] >= 0 || theirs.ids[at] < 0);
        same_kept = same_kept && stays == (theirs.kept[at] != 0);
    }
    BOOST_TEST(same_ids, "other experts");
    if (exact) BOOST_TEST(same_kept, "other pairs kept");
    BOOST_TEST(error_of(bridge::values_of(logits), theirs.logits) <= tolerance, "logits");
    oracle::values their_weights = theirs.weights;
    // Where all chosen experts return nothing, the oracle divides 0 by 0.
    for (std::size_t i = 0; L::c.free.zero > 0 && i < their_weights.size(); ++i)
        if (std::isnan(their_weights[i])) their_weights[i] = 0;
    BOOST_TEST(error_of(bridge::values_of(weights), their_weights) <= tolerance, "weights");
    BOOST_TEST(ctx.report().undecided == static_cast<gf::index_t>(theirs.degenerate_rows));

    // Backward, from random gradients of weights and logits.
    oracle::values d_weights, d_logits;
    for (gf::index_t i = 0; i < ids.size(); ++i) {
        dw.data()[i] = theirs.kept[static_cast<std::size_t>(i)] != 0 ? A(next()) : A(0);
        d_weights.push_back(double(dw.data()[i]));
    }
    for (gf::index_t i = 0; i < dz.size(); ++i) {
        dz.data()[i] = A(0.3 * next());
        d_logits.push_back(double(dz.data()[i]));
    }
    auto grad = gf::make_gradients<L>(ctx);
    gf::for_each_parameter(
        [](const char*, auto& slot) {
            for (gf::index_t i = 0; i < slot.size(); ++i) slot.data()[i] = A(not_a_number);
        },
        grad);
    auto dx = gf::make_tensor<A, gf::dyn, L::hidden>(ctx, tokens);
    dx.set_zero();
    std::vector<std::byte> memory(on_cpu::route_backward_scratch_bytes<L>(tokens, v.threads) + 64);
    std::byte* scratch = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64);
    on_cpu::route_backward(ctx, w, in, o, routing, dw.view(), dz.view());
    if constexpr (r.expert_scale) on_cpu::expert_scale_backward(ctx, w, in, o, routing, dw.view(), grad, false);
    on_cpu::route_parameters_backward(ctx, w, in, o, dz.view(), dx.view(), grad, false, scratch);

    oracle::parameters expected = oracle::zeros_like(p);
    const oracle::values through = oracle::route_backward(layer, p, theirs, d_weights, {}, expected);
    for (std::size_t i = 0; i < d_logits.size(); ++i) d_logits[i] += through[i];
    BOOST_TEST(error_of(bridge::values_of(dz), d_logits) <= tolerance, "gradient of the logits");
    if (v.with != trouble::none && v.with != trouble::ties) return;
    oracle::values d_previous;
    oracle::values d_source = oracle::logits_backward(layer, p, b, theirs, d_logits, {}, expected, d_previous);
    for (std::size_t i = 0; i < b.jitter.size(); ++i) d_source[i] *= b.jitter[i];
    BOOST_TEST(error_of(bridge::values_of(dx), d_source) <= tolerance, "gradient of the input");
    const oracle::parameters mine = bridge::parameters_of(grad);
    const auto same = [&](const char* name, oracle::values oracle::parameters::*member) {
        if (!(p.*member).empty() && !(expected.*member).empty())
            BOOST_TEST(error_of(mine.*member, expected.*member) <= tolerance,
                       "gradient of " << name << ": " << (mine.*member)[0] << ", expected " << (expected.*member)[0]);
    };
    same("router", &oracle::parameters::router);
    same("router_bias", &oracle::parameters::router_bias);
    same("router_projection", &oracle::parameters::router_hidden);
    same("router_temperature", &oracle::parameters::temperature);
    same("router_scale", &oracle::parameters::router_scale);
    same("router_noise", &oracle::parameters::noise_projection);
    same("router_residual", &oracle::parameters::previous_map);
    if (!d_previous.empty())
        BOOST_TEST(error_of(bridge::values_of(d_below), d_previous) <= tolerance, "gradient of the logits below");
    same("expert_scale", &oracle::parameters::expert_scale);
}

/// Whether the oracle's plain formulas have an answer for such logits: they form 0/0 or infinity minus infinity where
/// the library does not, or order tokens by sums that are equal but for their rounding.
constexpr bool is_comparable(const gf::config& c, trouble with) {
    if (with == trouble::none || with == trouble::ties) return true;
    if (with == trouble::hopeless) return c.router.from != gf::score::softmax_tokens;
    return c.router.from != gf::score::identity && c.router.from != gf::score::softmax_tokens &&
           c.capacity.keeps != gf::priority::importance_sum &&
           (with == trouble::not_numbers ||
            (c.router.select != gf::selection::sinkhorn && !c.capacity.renormalise_kept));
}

/// Every run-time variation of one configuration in double, and one in float.
template <gf::config C>
void compare_all() {
    const trouble troubles[] = {trouble::none, trouble::ties, trouble::not_numbers, trouble::infinities,
                                trouble::hopeless};
    const gf::index_t token_counts[] = {1, 7, 40, 23};
    std::uint64_t seed = 0;
    for (const trouble with : troubles)
        for (int i = 0; i < (with == trouble::none ? 4 : 2); ++i) {
            ++seed;
            if (!is_comparable(C, with)) continue;
            variation v;
            v.seed = seed;
            v.tokens = C.router.select == gf::selection::balanced ? 3 * C.experts : token_counts[seed % 4];
            v.with = with;
            v.training = seed % 2 == 0;
            v.threads = 1 + static_cast<int>(seed % 3);
            v.size = seed % 5 == 0 ? 20.0 : 1.0;
            BOOST_TEST_CONTEXT("case " << cases_compared() << ", seed " << seed << ", experts " << C.experts
                                       << ", score " << static_cast<int>(C.router.from) << ", select "
                                       << static_cast<int>(C.router.select)) {
                compare<gf::layer<C, double>>(v);
            }
            ++cases_compared();
        }
    // A second expert that was turned away in float is not among the ids that the oracle is given.
    if constexpr (C.router.second == gf::second_expert::always) BOOST_TEST_CONTEXT("float, experts " << C.experts) {
            compare<gf::layer<C, float>>({.seed = 2, .tokens = 33});
        }
}

}  // namespace routing_comparison
