// Checks of a backward by central differences, and random layers to check it on (training.md §8).
#pragma once

#include <string>

#include "balance.hpp"
#include "special.hpp"

namespace oracle {

// ---- random values --------------------------------------------------------------------------------------------------

/// SplitMix64: small, seeded, the same everywhere.
struct random_source {
    std::uint64_t state = 0;

    std::uint64_t next() {
        std::uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    /// In (0, 1).
    double uniform() { return (static_cast<double>(next() >> 11) + 0.5) / 9007199254740992.0; }
    double normal() {
        const double u = uniform();
        return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * uniform());
    }
    double gumbel() { return -std::log(-std::log(uniform())); }

    values uniforms(natural n) {
        values v(n);
        for (double& a : v) a = uniform();
        return v;
    }
    values normals(natural n, double deviation = 1) {
        values v(n);
        for (double& a : v) a = deviation * normal();
        return v;
    }
    values gumbels(natural n) {
        values v(n);
        for (double& a : v) a = gumbel();
        return v;
    }
};

/// Which optional parameters a random layer has; the layer's fields decide the rest.
struct optional_parameters {
    bool router_bias = false, selection_bias = false, expert_scale = false, noise_projection = false;
    bool previous_map = false, router_scale = false, biases = false, shared_gate = false, latent_norm = false;
    natural projection_width = 4;  // cosine and tanh MLP
};

inline parameters random_parameters(const layer& l, random_source& random, const optional_parameters& with = {}) {
    const natural h = l.hidden, e = l.choices(), w = l.expert_width();
    const ffn_shape expert = expert_shape(l), shared = shared_shape(l);
    const bool two_layers =
        l.router.projection == projection_kind::cosine || l.router.projection == projection_kind::tanh_mlp;
    const auto maybe = [&](bool present, natural n, double deviation) {
        return present ? random.normals(n, deviation) : values{};
    };
    const double narrow = 1 / std::sqrt(to_double(h));
    parameters p;
    p.router =
        maybe(l.router.projection != projection_kind::none, e * (two_layers ? with.projection_width : h), narrow);
    p.router_hidden = maybe(two_layers, with.projection_width * h, narrow);
    p.router_bias = maybe(with.router_bias, e, 0.5);
    p.router_scale = maybe(with.router_scale, h, 2.0);
    p.temperature = l.router.projection == projection_kind::cosine ? values{0.3} : values{};
    p.noise_projection = maybe(with.noise_projection, e * h, narrow);
    p.previous_map = maybe(with.previous_map, e * e, 0.3);
    p.selection_bias = maybe(with.selection_bias, e, 0.3);
    p.expert_scale = maybe(with.expert_scale, e, 0.3);
    for (double& s : p.expert_scale) s += 1;
    p.gate_up = random.normals(l.experts * expert.rows() * w, 1.5 * narrow);
    p.gate_up_bias = maybe(with.biases, l.experts * expert.rows(), 0.5);
    p.down = random.normals(l.experts * w * l.ffn, 0.5);
    p.down_bias = maybe(with.biases, l.experts * w, 0.5);
    p.shared_gate_up = random.normals(shared.rows() * h, narrow);
    p.shared_gate_up_bias = maybe(with.biases && l.shared_ffn > 0, shared.rows(), 0.5);
    p.shared_down = random.normals(h * l.shared_ffn, 0.5);
    p.shared_down_bias = maybe(with.biases && l.shared_ffn > 0, h, 0.5);
    p.shared_gate = maybe(with.shared_gate && l.shared_ffn > 0, h, narrow);
    p.latent_down = random.normals(l.latent * h, narrow);
    p.latent_norm = maybe(with.latent_norm, l.latent, 1);
    p.latent_up = random.normals(h * l.latent, 0.5);
    p.constant_weight = random.normals(l.router.constants * 2 * h, narrow);
    p.constant_vector = random.normals(l.router.constants * h);
    return p;
}

inline batch random_batch(const layer& l, random_source& random, natural tokens) {
    batch b;
    b.tokens = tokens;
    b.x = random.normals(tokens * l.hidden);
    return b;
}

// ---- central differences --------------------------------------------------------------------------------------------

/// Largest |numeric − analytic| of a tensor, relative to the tensor's largest gradient.
struct difference {
    double error = 0;
    std::string tensor = {};
};

/// Central differences of `objective` in every element of `variable`, against `analytic`.
template <class Objective>
difference central_difference(const std::string& name, values& variable, const values& analytic, Objective objective,
                              double h = 1e-6) {
    if (variable.empty()) return {0, name};
    check(analytic.size() == variable.size(), "oracle: a gradient of the wrong size");
    double error = 0, scale = 1e-3;
    for (natural i = 0; i < variable.size(); ++i) {
        const double kept = variable[i];
        variable[i] = kept + h;
        const double above = objective();
        variable[i] = kept - h;
        const double below = objective();
        variable[i] = kept;
        error = std::max(error, std::fabs((above - below) / (2 * h) - analytic[i]));
        if (!(analytic[i] == analytic[i])) error = infinity;
        scale = std::max(scale, std::fabs(analytic[i]));
    }
    return {error / scale, name};
}

/// The worst tensor of a layer for the objective Σ y·dy + extra(result); `objective(p, b)` must be that number.
template <class Objective>
difference check_backward(parameters p, batch b, const gradients& g, Objective objective) {
    difference worst;
    const auto look = [&](const std::string& name, values& variable, const values& analytic) {
        const difference d = central_difference(name, variable, analytic, [&] { return objective(p, b); });
        if (!(d.error <= worst.error)) worst = d;
    };
    for_each_parameter([&](const char* name, auto member) {
        // The selection bias moves the choice alone, which is held fixed.
        if (std::string(name) != "selection_bias" && std::string(name) != "default_vectors")
            look(name, p.*member, g.parameters.*member);
    });
    look("x", b.x, g.x);
    look("router_input", b.router_input, g.router_input);
    look("previous_logits", b.previous_logits, g.previous_logits);
    return worst;
}

/// Forward with the choice held, backward, and central differences of Σ y·dy in every parameter and input.
inline difference check_layer(const layer& l, const parameters& p, batch b, random_source& random) {
    const result r = forward(l, p, b);
    const values dy = random.normals(r.y.size());
    b.chosen = r.routing.chosen;
    const gradients g = backward(l, p, b, forward(l, p, b), dy);
    return check_backward(p, b, g, [&](const parameters& q, const batch& c) {
        const result moved = forward(l, q, c);
        check(moved.routing.ids == r.routing.ids, "oracle: a capacity decision flipped under the finite difference");
        return dot(moved.y.data(), dy.data(), dy.size());
    });
}

}  // namespace oracle
