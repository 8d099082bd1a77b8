// From the router's input to its logits and back: input transform, projection, logit transform (routing.md §1, §7, §9).
#pragma once

#include "select.hpp"

namespace oracle {

/// What the router computed for one call. S slots per token, E = layer::choices().
struct routing {
    natural tokens = 0, choices = 0, slots = 0;
    values source;       // [T, H] what the router reads, jitter included
    values input;        // [T, H] after the input transform
    values hidden;       // [T, P] tanh MLP: tanh(W x); cosine: W x
    values raw_logits;   // [T, E] after bias and previous-layer logits, before normalisation and noise
    values noise_scale;  // [T, E] softplus(x W_n) + 1e-2
    values logits;       // [T, E] final
    values scores;       // [T, E]
    values keys;         // [T, E]
    values mixer;        // [T, 2, E] masked softmax of each SparseMixer pick
    values factor;       // [T, S] c of the SparseMixer multiplier, 1 elsewhere
    ints chosen;         // [T, S] before second-expert policy and capacity, −1 = empty
    ints ids;            // [T, S] after them, −1 = empty or dropped
    ints kept;           // [T, S] 1 where ids is not −1
    values base;         // [T, S] unbiased scores of the chosen
    values weights;      // [T, S] combine weights; 0 where dropped
    ints degenerate;     // [T] 1: no logit above −inf; weights are the constant 1/k
    natural degenerate_rows = 0;
    natural capacity = 0;  // C of the last group
};

// ---- input transform ------------------------------------------------------------------------------------------------

/// rms_norm: x/√(mean x² + ε)·scale·H^-½ (Gemma-4). unit_norm: x/‖x‖.
inline values transform_input(const router& r, const parameters& p, const values& x) {
    const double n = to_double(x.size()), square = dot(x.data(), x.data(), x.size());
    values u = x;
    for (natural i = 0; i < x.size(); ++i) {
        if (r.input == input_kind::unit_norm) u[i] = x[i] / std::max(std::sqrt(square), 1e-12);
        if (r.input == input_kind::rms_norm)
            u[i] = x[i] / std::sqrt(square / n + r.input_epsilon) * (p.router_scale.empty() ? 1.0 : p.router_scale[i]) /
                   std::sqrt(n);
    }
    return u;
}

inline values transform_input_backward(const router& r, const parameters& p, parameters& grad, const values& x,
                                       const values& du) {
    if (r.input == input_kind::plain) return du;
    const natural n = x.size();
    const double square = dot(x.data(), x.data(), n), h = to_double(n);
    values scaled = du, dx(n);
    if (r.input == input_kind::unit_norm) {
        const double norm = std::max(std::sqrt(square), 1e-12), along = dot(du.data(), x.data(), n);
        for (natural i = 0; i < n; ++i) dx[i] = du[i] / norm - x[i] * along / (norm * norm * norm);
        return dx;
    }
    const double rms = std::sqrt(square / h + r.input_epsilon);
    for (natural i = 0; i < n; ++i) {
        if (!p.router_scale.empty()) {
            grad.router_scale[i] += du[i] * x[i] / rms / std::sqrt(h);
            scaled[i] *= p.router_scale[i];
        }
        scaled[i] /= std::sqrt(h);
    }
    const double along = dot(scaled.data(), x.data(), n);
    for (natural i = 0; i < n; ++i) dx[i] = scaled[i] / rms - x[i] * along / (h * rms * rms * rms);
    return dx;
}

// ---- projection -----------------------------------------------------------------------------------------------------

inline double norm2(const double* v, natural n) { return std::sqrt(dot(v, v, n)); }

inline values project_hidden(const layer& l, const parameters& p, const values& u) {
    values hidden(p.router_hidden.size() / l.hidden, 0.0);
    if (l.router.projection == projection_kind::linear || l.router.projection == projection_kind::none) return {};
    multiply(p.router_hidden.data(), hidden.size(), l.hidden, u.data(), hidden.data());
    if (l.router.projection == projection_kind::tanh_mlp)
        for (double& a : hidden) a = std::tanh(a);
    return hidden;
}

inline double clamped_temperature(const router& r, const parameters& p) {
    return std::max(p.temperature.empty() ? 1.0 : p.temperature[0], r.minimum_temperature);
}

/// z of one token; `features` is the input itself or the hidden projection.
inline values project(const layer& l, const parameters& p, const values& features) {
    const natural e = l.choices(), n = features.size();
    values z(e, 0.0);
    if (l.router.projection == projection_kind::none) return z;
    multiply(p.router.data(), e, n, features.data(), z.data());
    if (l.router.projection == projection_kind::cosine)  // z = (E·h)/(‖E‖‖h‖τ)
        for (natural i = 0; i < e; ++i)
            z[i] /= norm2(p.router.data() + i * n, n) * norm2(features.data(), n) * clamped_temperature(l.router, p);
    if (!p.router_bias.empty()) add_scaled(z.data(), 1, p.router_bias.data(), e);
    return z;
}

/// Cosine of expert row i with h, and its gradients for one incoming dz.
inline void cosine_backward(const layer& l, const parameters& p, parameters& grad, natural i, const values& h,
                            double dz, values& dh) {
    const natural n = h.size();
    const double* w = p.router.data() + i * n;
    const double tau = clamped_temperature(l.router, p), nw = norm2(w, n), nh = norm2(h.data(), n);
    const double cosine = dot(w, h.data(), n) / (nw * nh);
    for (natural j = 0; j < n; ++j) {
        grad.router[i * n + j] += dz / tau * (h[j] / (nw * nh) - cosine * w[j] / (nw * nw));
        dh[j] += dz / tau * (w[j] / (nw * nh) - cosine * h[j] / (nh * nh));
    }
    if (!p.temperature.empty() && p.temperature[0] >= l.router.minimum_temperature)
        grad.temperature[0] -= dz * cosine / (tau * tau);
}

/// Gradient of the features for dz (training.md §4, router linear).
inline values project_backward(const layer& l, const parameters& p, parameters& grad, const values& features,
                               const values& dz) {
    const natural e = l.choices(), n = features.size();
    values d_features(n, 0.0);
    if (!p.router_bias.empty()) add_scaled(grad.router_bias.data(), 1, dz.data(), e);
    if (l.router.projection == projection_kind::cosine) {
        for (natural i = 0; i < e; ++i) cosine_backward(l, p, grad, i, features, dz[i], d_features);
        return d_features;
    }
    add_outer(grad.router.data(), e, n, dz.data(), features.data());
    multiply_transposed(p.router.data(), e, n, dz.data(), d_features.data());
    return d_features;
}

inline values project_hidden_backward(const layer& l, const parameters& p, parameters& grad, const values& u,
                                      const values& hidden, values d_hidden) {
    values du(l.hidden, 0.0);
    if (l.router.projection == projection_kind::tanh_mlp)
        for (natural i = 0; i < hidden.size(); ++i) d_hidden[i] *= 1 - hidden[i] * hidden[i];
    add_outer(grad.router_hidden.data(), hidden.size(), l.hidden, d_hidden.data(), u.data());
    multiply_transposed(p.router_hidden.data(), hidden.size(), l.hidden, d_hidden.data(), du.data());
    return du;
}

// ---- logit transform ------------------------------------------------------------------------------------------------

struct moments {
    double mean = 0, deviation = 0, divisor = 0;
};

inline moments moments_of(const router& r, const values& z) {
    moments m;
    m.mean = sum(z) / to_double(z.size());
    m.divisor = to_double(z.size()) - (r.sample_deviation ? 1.0 : 0.0);
    for (double a : z) m.deviation += (a - m.mean) * (a - m.mean) / m.divisor;
    m.deviation = std::sqrt(m.deviation);
    return m;
}

/// (z − μ)/σ·λ per token (routing.md §1).
inline values normalise_logits(const router& r, values z) {
    if (!r.normalise_logits) return z;
    const moments m = moments_of(r, z);
    for (double& a : z) a = (a - m.mean) / m.deviation * r.logit_lambda;
    return z;
}

inline values normalise_logits_backward(const router& r, const values& z, const values& dn) {
    if (!r.normalise_logits) return dn;
    const moments m = moments_of(r, z);
    double along = 0;
    for (natural i = 0; i < z.size(); ++i) along += dn[i] * (z[i] - m.mean) / m.deviation;
    values dz(z.size());
    for (natural i = 0; i < z.size(); ++i)
        dz[i] = r.logit_lambda / m.deviation *
                (dn[i] - sum(dn) / to_double(z.size()) - (z[i] - m.mean) / m.deviation * along / m.divisor);
    return dz;
}

/// Scale of the logit noise: softplus(x W_n) + 1e-2 with a noise projection (Shazeer), else 1.
inline values noise_scale(const layer& l, const parameters& p, const values& u) {
    values scale(l.choices(), 1.0);
    if (p.noise_projection.empty()) return scale;
    values pre(l.choices(), 0.0);
    multiply(p.noise_projection.data(), l.choices(), l.hidden, u.data(), pre.data());
    for (natural e = 0; e < pre.size(); ++e) scale[e] = softplus(pre[e]) + 1e-2;
    return scale;
}

// ---- all logits of a call -------------------------------------------------------------------------------------------

inline void compute_logits(const layer& l, const parameters& p, const batch& b, routing& r) {
    const natural h = l.hidden, e = l.choices();
    r.input.resize(b.tokens * h);
    r.raw_logits.resize(b.tokens * e);
    r.noise_scale.resize(b.tokens * e);
    r.logits.resize(b.tokens * e);
    for (natural t = 0; t < b.tokens; ++t) {
        const values u = transform_input(l.router, p, row(r.source, t, h)), hidden = project_hidden(l, p, u);
        values z = project(l, p, hidden.empty() ? u : hidden);
        if (!b.previous_logits.empty())
            multiply(p.previous_map.data(), e, e, b.previous_logits.data() + t * e, z.data());
        set_row(r.input, t, u);
        set_row(r.raw_logits, t, z);
        r.hidden.insert(r.hidden.end(), hidden.begin(), hidden.end());
        z = normalise_logits(l.router, z);
        const values scale = noise_scale(l, p, u);
        if (!b.noise.empty())
            for (natural i = 0; i < e; ++i) z[i] += b.noise[t * e + i] * scale[i];
        set_row(r.noise_scale, t, scale);
        set_row(r.logits, t, z);
    }
}

/// From the gradient of the final logits to that of the router's source; `d_scale` [T, E] is an extra gradient of the
/// noise scale (load losses), empty if none. Returns [T, H].
inline values logits_backward(const layer& l, const parameters& p, const batch& b, const routing& r,
                              const values& d_logits, const values& d_scale, parameters& grad, values& d_previous) {
    const natural h = l.hidden, e = l.choices();
    values d_source(b.tokens * h, 0.0);
    if (!b.previous_logits.empty()) d_previous.assign(b.tokens * e, 0.0);
    for (natural t = 0; t < b.tokens; ++t) {
        const values u = row(r.input, t, h), dz = row(d_logits, t, e);
        values du(h, 0.0);
        if (!p.noise_projection.empty()) {
            values pre(e, 0.0), d_pre(e, 0.0);
            multiply(p.noise_projection.data(), e, h, u.data(), pre.data());
            for (natural i = 0; i < e; ++i) {
                if (!b.noise.empty()) d_pre[i] += dz[i] * b.noise[t * e + i] * sigmoid(pre[i]);
                if (!d_scale.empty()) d_pre[i] += d_scale[t * e + i] * sigmoid(pre[i]);
            }
            add_outer(grad.noise_projection.data(), e, h, d_pre.data(), u.data());
            multiply_transposed(p.noise_projection.data(), e, h, d_pre.data(), du.data());
        }
        const values d_raw = normalise_logits_backward(l.router, row(r.raw_logits, t, e), dz);
        if (!b.previous_logits.empty()) {
            add_outer(grad.previous_map.data(), e, e, d_raw.data(), b.previous_logits.data() + t * e);
            multiply_transposed(p.previous_map.data(), e, e, d_raw.data(), d_previous.data() + t * e);
        }
        if (l.router.projection != projection_kind::none) {
            const natural width = r.hidden.size() / b.tokens;
            const values hidden = width > 0 ? row(r.hidden, t, width) : values{};
            const values d_features = project_backward(l, p, grad, hidden.empty() ? u : hidden, d_raw);
            const values through =
                hidden.empty() ? d_features : project_hidden_backward(l, p, grad, u, hidden, d_features);
            add_scaled(du.data(), 1, through.data(), h);
        }
        const values dx = transform_input_backward(l.router, p, grad, row(r.source, t, h), du);
        set_row(d_source, t, dx);
    }
    return d_source;
}

}  // namespace oracle
