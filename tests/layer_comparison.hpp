// One layer against the double-precision oracle: output, ids, plan and every gradient.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>

#include "bridge.hpp"

namespace comparison {

namespace gf = gatefold;

/// max |a - b| / max |b| over a tensor.
inline double relative_error(const oracle::values& a, const oracle::values& b) {
    double difference = 0, largest = 0;
    for (std::size_t i = 0; i < b.size(); ++i) {
        const double d = std::fabs(a[i] - b[i]);
        if (!(d <= difference)) difference = d;
        largest = (std::max)(largest, std::fabs(b[i]));
    }
    return largest > 0 ? difference / largest : difference;
}

/// 1 - cosine, for storage types of few bits.
inline double frobenius_error(const oracle::values& a, const oracle::values& b) {
    double difference = 0, length = 0;
    for (std::size_t i = 0; i < b.size(); ++i) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        length += b[i] * b[i];
    }
    return length > 0 ? std::sqrt(difference / length) : std::sqrt(difference);
}

template <class T>
double tolerance_of(int hidden, int top_k) {
    const double scale = std::sqrt((std::max)(1.0, hidden * top_k / 1024.0));
    if constexpr (std::is_same_v<T, double>) return 1e-11 * scale;
    if constexpr (std::is_same_v<T, float>) return 1e-5 * scale;
    return 1e-2;
}

/// Gradients of narrow types pass through pre-activations that the tape holds in 8 (bf16) or 11 bits, and weights'
/// gradients are dot products of them in which terms cancel: a few times the error of the output.
template <class T>
double gradient_tolerance_of(int hidden, int top_k) {
    return (sizeof(T) == 2 ? 3 : 1) * tolerance_of<T>(hidden, top_k);
}

/// Fills every parameter, biases and controller state included, so that none is tested at its neutral value.
template <class L>
void fill(gf::weights<L>& w, std::uint64_t seed) {
    std::uint64_t state = seed * 0x9E3779B97F4A7C15ull + 1;
    const auto next = [&] {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        return static_cast<double>(state >> 11) * 0x1p-53 * 2 - 1;
    };
    const auto each = [&](const char*, auto& slot) {
        using T = typename std::remove_reference_t<decltype(slot)>::value_type;
        const gf::index_t columns = slot.extent(std::remove_reference_t<decltype(slot)>::rank - 1);
        const double size = std::remove_reference_t<decltype(slot)>::rank == 1 ? 0.5 : 1.7 / std::sqrt(double(columns));
        for (gf::index_t i = 0; i < slot.size(); ++i)
            slot.data()[i] = gf::from_accumulate<T>(static_cast<gf::accumulate_t<T>>(size * next()));
    };
    gf::for_each_parameter(each, w);
    gf::for_each_buffer(each, w);
    const auto around_one = [&](auto& slot) {
        if constexpr (gf::is_present<std::remove_reference_t<decltype(slot)>>) {
            using T = typename std::remove_reference_t<decltype(slot)>::value_type;
            for (gf::index_t i = 0; i < slot.size(); ++i)
                slot.data()[i] = gf::from_accumulate<T>(static_cast<gf::accumulate_t<T>>(1 + 0.3 * next()));
        }
    };
    around_one(w.expert_scale);
    around_one(w.router_scale);
    around_one(w.latent_norm);
    around_one(w.router_temperature);
}

template <class T>
void fill(gf::tensor<T, gf::dyn, gf::dyn>& t, std::uint64_t seed, double size = 1) {
    std::uint64_t state = seed * 0x9E3779B97F4A7C15ull + 7;
    for (gf::index_t i = 0; i < t.size(); ++i) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        t.data()[i] = gf::from_accumulate<T>(
            static_cast<gf::accumulate_t<T>>(size * (static_cast<double>(state >> 11) * 0x1p-53 * 2 - 1) * 1.7));
    }
}

/// [T, E, F] what dropout in a layer's experts multiplies activations by.
template <class L>
oracle::values dropout_factors(const gf::options<L>& o, gf::index_t first_token, gf::index_t tokens) {
    using A = typename L::accumulate_type;
    const gf::counter_rng draw{o.seed, o.step, static_cast<int>(o.layer)};
    oracle::values factors;
    for (gf::index_t t = 0; t < tokens; ++t)
        for (gf::index_t i = 0; i < gf::index_t{L::experts} * L::ffn; ++i)
            factors.push_back(draw.template uniform_from_zero<A>(gf::purpose::expert_dropout, first_token + t, i) <
                                      static_cast<A>(o.dropout)
                                  ? 0.0
                                  : 1 / (1 - static_cast<double>(o.dropout)));
    return factors;
}

/// Runs layer L forward and backward over `tokens` random tokens and compares everything with the oracle, which is
/// given the layer's own choice of experts (compared before with the oracle's own where T is double).
template <class L>
void compare(gf::index_t tokens, std::uint64_t seed, int threads = 2) {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    constexpr bool narrow = sizeof(T) == 2;
    double tolerance = tolerance_of<T>(L::hidden, L::slots);
    gf::context<gf::cpu> ctx(threads);
    auto w = gf::make_weights<L>(ctx);
    fill(w, seed);
    const gf::index_t extents[2] = {tokens, L::hidden};
    gf::tensor<T, gf::dyn, gf::dyn> x(extents), y(extents), dy(extents), dx(extents);
    fill(x, seed + 1);
    fill(dy, seed + 2);
    gf::tape<L> tape(ctx, tokens + 3);
    auto g = gf::make_gradients<L>(ctx);
    // Garbage from before must not shine through.
    const auto poison = [](const char*, auto& slot) {
        for (gf::index_t i = 0; i < slot.size(); ++i)
            slot.data()[i] =
                std::numeric_limits<typename std::remove_reference_t<decltype(slot)>::value_type>::quiet_NaN();
    };
    gf::for_each_parameter(poison, g);
    gf::batch<L> in;
    in.x = {x.data(), {tokens, L::hidden}};
    const gf::view<T, gf::dyn, L::hidden> out{y.data(), {tokens, L::hidden}}, grad_x{dx.data(), {tokens, L::hidden}};
    const gf::view<const T, gf::dyn, L::hidden> grad_y{dy.data(), {tokens, L::hidden}};

    gf::options<L> o;
    if constexpr (L::c.dropout > 0) {
        o.training = true;
        o.seed = seed;
        o.step = 3;
        o.layer = 2;
        in.first_token = 500;
    }
    gf::forward(ctx, w, in, out, tape, o);

    oracle::layer layer = bridge::layer_of(L::c);
    const oracle::parameters p = bridge::parameters_of(w);
    oracle::batch b;
    b.tokens = static_cast<oracle::natural>(tokens);
    b.x = bridge::values_of(x);
    if constexpr (L::c.dropout > 0) b.dropout = dropout_factors<L>(o, in.first_token, tokens);
    oracle::gradients expected;
    if constexpr (!L::is_dense) {
        if constexpr (std::is_same_v<T, double>) {
            const oracle::result own = oracle::forward(layer, p, b);
            for (gf::index_t i = 0; i < tokens * L::slots; ++i)
                BOOST_TEST(tape.routing().ids.data()[i] == own.routing.chosen[static_cast<std::size_t>(i)]);
        }
        for (gf::index_t i = 0; i < tokens * L::slots; ++i) b.chosen.push_back(tape.routing().ids.data()[i]);
    }
    if constexpr (L::is_dense) {
        layer.experts = 1;
        layer.router.top_k = 1;
        b.chosen.assign(b.tokens, 0);
        layer.router.score = oracle::score_kind::one;
        layer.router.projection = oracle::projection_kind::none;
    }
    const oracle::result r = oracle::forward(layer, p, b);
    const auto close = [&](const char* what, const oracle::values& mine, const oracle::values& theirs) {
        const double error = narrow ? frobenius_error(mine, theirs) : relative_error(mine, theirs);
        BOOST_TEST(error <= tolerance, what << ": error " << error << " above " << tolerance);
    };
    close("y", bridge::values_of(y), r.y);
    if constexpr (!L::is_dense) {
        oracle::values weights;
        for (gf::index_t i = 0; i < tokens * L::slots; ++i)
            weights.push_back(static_cast<double>(tape.routing().weights.data()[i]));
        close("weights", weights, r.routing.weights);
        for (std::size_t e = 0; e < r.plan.offsets.size(); ++e)
            BOOST_TEST(tape.plan().offsets[static_cast<gf::index_t>(e)] == r.plan.offsets[e]);
        for (gf::index_t i = 0; i < tokens * L::slots; ++i)
            BOOST_TEST(tape.plan().place[i] == r.plan.place[static_cast<std::size_t>(i)]);
        for (gf::index_t i = 0; i < tokens * L::choices; ++i) tape.logit_gradients().data()[i] = A{0};
    }

    gf::backward(ctx, w, in, tape, grad_y, grad_x, g, o);

    tolerance = gradient_tolerance_of<T>(L::hidden, L::slots);
    expected = oracle::backward(layer, p, b, r, bridge::values_of(dy));
    close("dx", bridge::values_of(dx), expected.x);
    const oracle::parameters mine = bridge::parameters_of(g);
    oracle::for_each_parameter([&](const char* name, auto member) {
        if (std::string(name) == "selection_bias" || std::string(name) == "default_vectors") return;
        if ((mine.*member).empty()) return;
        close(name, mine.*member, expected.parameters.*member);
    });
}

}  // namespace comparison
