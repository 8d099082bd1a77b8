// The whole layer, forward and backward (routing.md §10, training.md §4).
//
//     x ── route ──> ids, weights ── plan ──> experts ── combine (ascending id) ──> + shared ──> y
#pragma once

#include "route.hpp"

namespace oracle {

/// Rows sorted by expert: rows[offsets[e] … offsets[e+1]) are token·S+slot of expert e in ascending order.
struct plan {
    ints offsets;  // [E+1], E = layer::choices(), zero-compute experts last
    ints rows;     // [offsets[E]]
    ints place;    // [T·S] inverse of rows, −1 = empty
};

inline plan make_plan(const ints& ids, natural choices) {
    plan out;
    out.place.assign(ids.size(), -1);
    for (natural e = 0; e < choices; ++e) {
        out.offsets.push_back(to_int(out.rows.size()));
        for (natural i = 0; i < ids.size(); ++i)
            if (ids[i] == to_int(e)) {
                out.place[i] = to_int(out.rows.size());
                out.rows.push_back(to_int(i));
            }
    }
    out.offsets.push_back(to_int(out.rows.size()));
    return out;
}

struct result {
    oracle::routing routing;
    oracle::plan plan;
    values x;              // [T, H] x as the experts' side sees it (jitter in place)
    values expert_input;   // [T, W] after ×k and the latent projection
    values dropout;        // [T, E, F] factors on activations, empty: none
    values expert_output;  // [rows, W] o of each plan row, not weighted
    values combined;       // [T, W] Σ w·o before scale, latent norm and up-projection
    values routed;         // [T, H] routed part of y
    values shared;         // [T, H] shared expert before its gate
    values shared_gate;    // [T] γ, 1 without a gate
    values y;              // [T, H]
};

struct gradients {
    oracle::parameters parameters;
    values x;                // [T, H]
    values router_input;     // [T, H] where the batch has one
    values logits;           // [T, E] final logits, losses included
    values weights;          // [T, S]
    values previous_logits;  // [T, E]
};

// ---- pieces ---------------------------------------------------------------------------------------------------------

inline values product(values a, const values& b) {
    for (natural i = 0; i < a.size(); ++i) a[i] *= b[i];
    return a;
}

/// The experts' side of the input: jitter only if it is applied in place.
inline values layer_input(const layer& l, const batch& b) {
    return l.jitter_in_place && !b.jitter.empty() ? product(b.x, b.jitter) : b.x;
}

/// The router's copy.
inline values router_source(const layer& l, const batch& b, const values& x) {
    const values& source = b.router_input.empty() ? x : b.router_input;
    return b.jitter.empty() || l.jitter_in_place ? source : product(source, b.jitter);
}

inline double input_factor(const layer& l) { return l.multiply_input_by_k ? to_double(l.router.top_k) : 1.0; }

/// ×k, then W_down of latent experts.
inline values expert_inputs(const layer& l, const parameters& p, const values& x, natural tokens) {
    values scaled = x;
    for (double& a : scaled) a *= input_factor(l);
    if (l.latent == 0) return scaled;
    values out(tokens * l.latent, 0.0);
    for (natural t = 0; t < tokens; ++t)
        multiply(p.latent_down.data(), l.latent, l.hidden, scaled.data() + t * l.hidden, out.data() + t * l.latent);
    return out;
}

/// What the expert of pair i reads: x, or w·x (Llama-4).
inline values pair_input(const layer& l, const result& r, natural i) {
    const natural w = l.expert_width();
    values x = row(r.expert_input, i / r.routing.slots, w);
    if (l.weight_on_input)
        for (double& a : x) a *= r.routing.weights[i];
    return x;
}

/// The factors on the activations of expert e for token t.
inline const double* kept_by(const layer& l, const result& r, natural t, natural e) {
    return r.dropout.empty() || e >= l.experts ? nullptr : r.dropout.data() + (t * l.experts + e) * l.ffn;
}

inline double pair_weight(const layer& l, const result& r, natural i) {
    return l.weight_on_input ? 1.0 : r.routing.weights[i];
}

/// Factor on the routed sum: a scale that acts after the combine, and NLLB's evaluation factor.
inline double routed_factor(const layer& l) {
    return (l.router.scale_after_combine ? l.router.scale : 1.0) * l.output_scale;
}

/// RMSNorm with weight on the latent sum (Kimi-K3).
inline values latent_norm(const layer& l, const parameters& p, const values& v) {
    if (!l.latent_norm) return v;
    const double rms = std::sqrt(dot(v.data(), v.data(), v.size()) / to_double(v.size()) + l.latent_epsilon);
    values out = v;
    for (natural i = 0; i < v.size(); ++i) out[i] *= (p.latent_norm.empty() ? 1.0 : p.latent_norm[i]) / rms;
    return out;
}

inline values latent_norm_backward(const layer& l, const parameters& p, parameters& grad, const values& v,
                                   const values& d_out) {
    if (!l.latent_norm) return d_out;
    const double n = to_double(v.size()), rms = std::sqrt(dot(v.data(), v.data(), v.size()) / n + l.latent_epsilon);
    values scaled = d_out, dv(v.size());
    for (natural i = 0; i < v.size() && !p.latent_norm.empty(); ++i) {
        grad.latent_norm[i] += d_out[i] * v[i] / rms;
        scaled[i] *= p.latent_norm[i];
    }
    const double along = dot(scaled.data(), v.data(), v.size());
    for (natural i = 0; i < v.size(); ++i) dv[i] = scaled[i] / rms - v[i] * along / (n * rms * rms * rms);
    return dv;
}

/// The routed part of token t from its combined sum.
inline values routed_part(const layer& l, const parameters& p, const result& r, natural t) {
    values v = row(r.combined, t, l.expert_width());
    for (double& a : v) a *= routed_factor(l);
    if (l.latent > 0) {
        const values n = latent_norm(l, p, v);
        v.assign(l.hidden, 0.0);
        multiply(p.latent_up.data(), l.hidden, l.latent, n.data(), v.data());
    }
    if (l.base_mix)  // y = α f(x) + (1 − α) x; the first term is already weighted by α
        for (natural s = 0; s < r.routing.slots; ++s) {
            const natural i = t * r.routing.slots + s;
            if (r.routing.ids[i] >= 0)
                add_scaled(v.data(), 1 - r.routing.weights[i], r.x.data() + t * l.hidden, l.hidden);
        }
    return v;
}

inline double shared_gate_of(const layer& l, const parameters& p, const double* x) {
    return p.shared_gate.empty() ? 1.0 : sigmoid(dot(p.shared_gate.data(), x, l.hidden));
}

// ---- forward --------------------------------------------------------------------------------------------------------

/// The stages after routing, for given ids and weights.
inline void run_experts(const layer& l, const parameters& p, result& r) {
    const natural w = l.expert_width();
    r.combined.assign(r.routing.tokens * w, 0.0);
    for (natural e = 0; e < l.choices(); ++e)  // ascending expert id
        for (int n = r.plan.offsets[e]; n < r.plan.offsets[e + 1]; ++n) {
            const natural i = to_index(r.plan.rows[to_index(n)]);
            const values o = expert_forward(l, p, e, pair_input(l, r, i).data(), kept_by(l, r, i / r.routing.slots, e));
            r.expert_output.insert(r.expert_output.end(), o.begin(), o.end());
            add_scaled(r.combined.data() + i / r.routing.slots * w, pair_weight(l, r, i), o.data(), w);
        }
}

inline void run_shared(const layer& l, const parameters& p, result& r) {
    if (l.shared_ffn == 0) return;
    for (natural t = 0; t < r.routing.tokens; ++t) {
        const double* x = r.x.data() + t * l.hidden;
        const values o = ffn_forward(shared_shape(l), shared_pointers<const double*>(p), x);
        r.shared.insert(r.shared.end(), o.begin(), o.end());
        r.shared_gate.push_back(shared_gate_of(l, p, x));
    }
}

/// All stages of the layer.
inline result forward(const layer& l, const parameters& p, const batch& b) {
    result r;
    r.x = layer_input(l, b);
    r.routing = route(l, p, b, router_source(l, b, r.x));
    r.plan = make_plan(r.routing.ids, l.choices());
    r.expert_input = expert_inputs(l, p, r.x, b.tokens);
    r.dropout = b.dropout;
    run_experts(l, p, r);
    run_shared(l, p, r);
    r.routed.resize(b.tokens * l.hidden);
    for (natural t = 0; t < b.tokens; ++t) set_row(r.routed, t, routed_part(l, p, r, t));
    r.y = r.routed;
    for (natural t = 0; t < b.tokens && l.shared_ffn > 0; ++t)
        add_scaled(r.y.data() + t * l.hidden, r.shared_gate[t], r.shared.data() + t * l.hidden, l.hidden);
    return r;
}

/// A dense feed-forward network of the same expert shape (the one-expert layer).
inline values dense_forward(const layer& l, const parameters& p, const values& x, natural tokens) {
    values y(tokens * l.hidden);
    for (natural t = 0; t < tokens; ++t)
        set_row(y, t, ffn_forward(expert_shape(l), expert_pointers<const double*>(l, p, 0), x.data() + t * l.hidden));
    return y;
}

// ---- backward -------------------------------------------------------------------------------------------------------

/// Gradients in flight. dx is that of result::x.
struct backward_state {
    gradients grad;
    values d_combined;      // [T, W]
    values d_expert_input;  // [T, W]
    values dx;              // [T, H]
    values dw;              // [T, S]
};

/// From dy to the combined sum: latent up-projection, norm, factors, BASE mix.
inline void routed_backward(const layer& l, const parameters& p, const result& r, const values& dy, backward_state& s) {
    const natural w = l.expert_width();
    s.d_combined.assign(r.routing.tokens * w, 0.0);
    for (natural t = 0; t < r.routing.tokens; ++t) {
        values d = row(dy, t, l.hidden), v = row(r.combined, t, w);
        if (l.base_mix)
            for (natural n = 0; n < r.routing.slots; ++n) {
                const natural i = t * r.routing.slots + n;
                if (r.routing.ids[i] < 0) continue;
                add_scaled(s.dx.data() + t * l.hidden, 1 - r.routing.weights[i], d.data(), l.hidden);
                s.dw[i] -= dot(d.data(), r.x.data() + t * l.hidden, l.hidden);
            }
        if (l.latent > 0) {
            for (double& a : v) a *= routed_factor(l);
            const values n = latent_norm(l, p, v);
            values dn(w, 0.0);
            add_outer(s.grad.parameters.latent_up.data(), l.hidden, w, d.data(), n.data());
            multiply_transposed(p.latent_up.data(), l.hidden, w, d.data(), dn.data());
            d = latent_norm_backward(l, p, s.grad.parameters, v, dn);
        }
        for (double& a : d) a *= routed_factor(l);
        set_row(s.d_combined, t, d);
    }
}

/// combine and experts: do = w·dy, dw = ⟨dy, o⟩; Llama-4: dw = ⟨dx', x⟩, dx += w·dx'.
inline void experts_backward(const layer& l, const parameters& p, const result& r, backward_state& s) {
    const natural w = l.expert_width();
    for (natural n = 0; n < r.plan.rows.size(); ++n) {
        const natural i = to_index(r.plan.rows[n]), t = i / r.routing.slots, e = to_index(r.routing.ids[i]);
        const values dy = row(s.d_combined, t, w), x = pair_input(l, r, i);
        values d_out = dy;
        for (double& a : d_out) a *= pair_weight(l, r, i);
        const values dx = expert_backward(l, p, s.grad.parameters, e, x.data(), d_out, kept_by(l, r, t, e));
        if (l.weight_on_input)
            s.dw[i] += dot(dx.data(), r.expert_input.data() + t * w, w);
        else
            s.dw[i] += dot(dy.data(), r.expert_output.data() + n * w, w);
        add_scaled(s.d_expert_input.data() + t * w, l.weight_on_input ? r.routing.weights[i] : 1.0, dx.data(), w);
    }
}

/// dp_i = ⟨dy, f_i(x)⟩ for the experts a token did not take (training.md §5, DenseMixer); with default vectors ⟨dy,
/// v_i⟩.
inline values dense_mixer_scores(const layer& l, const parameters& p, const result& r, const backward_state& s) {
    if (!l.dense_mixer && !l.default_vectors) return {};
    const natural w = l.expert_width(), e = l.choices();
    values d_scores(r.routing.tokens * e, 0.0);
    for (natural t = 0; t < r.routing.tokens; ++t)
        for (natural i = 0; i < e; ++i) {
            bool taken = false;
            for (natural n = 0; n < r.routing.slots; ++n)
                taken |= r.routing.chosen[t * r.routing.slots + n] == to_int(i);
            if (taken) continue;
            const values o = l.default_vectors
                                 ? row(p.default_vectors, i, w)
                                 : expert_forward(l, p, i, r.expert_input.data() + t * w, kept_by(l, r, t, i));
            d_scores[t * e + i] = l.router.scale * dot(s.d_combined.data() + t * w, o.data(), w);
        }
    return d_scores;
}

/// y += γ·shared, γ = σ(x·w_g): dγ = ⟨dy, shared⟩, dw_g = dγ γ(1−γ) x, dx += dγ γ(1−γ) w_g.
inline void shared_backward(const layer& l, const parameters& p, const result& r, const values& dy, backward_state& s) {
    if (l.shared_ffn == 0) return;
    const natural h = l.hidden;
    for (natural t = 0; t < r.routing.tokens; ++t) {
        const double* x = r.x.data() + t * h;
        const double gamma = r.shared_gate[t];
        values d_out = row(dy, t, h);
        const double d_gamma = dot(d_out.data(), r.shared.data() + t * h, h) * gamma * (1 - gamma);
        for (double& a : d_out) a *= gamma;
        const values dx = ffn_backward(shared_shape(l), shared_pointers<const double*>(p),
                                       shared_pointers<double*>(s.grad.parameters), x, d_out);
        add_scaled(s.dx.data() + t * h, 1, dx.data(), h);
        if (p.shared_gate.empty()) continue;
        add_scaled(s.grad.parameters.shared_gate.data(), d_gamma, x, h);
        add_scaled(s.dx.data() + t * h, d_gamma, p.shared_gate.data(), h);
    }
}

/// Back through W_down of latent experts and the factor k.
inline void expert_inputs_backward(const layer& l, const parameters& p, const result& r, backward_state& s) {
    const natural h = l.hidden;
    for (natural t = 0; t < r.routing.tokens; ++t) {
        values d = row(s.d_expert_input, t, l.expert_width());
        if (l.latent > 0) {
            values x = row(r.x, t, h), dx(h, 0.0);
            for (double& a : x) a *= input_factor(l);
            add_outer(s.grad.parameters.latent_down.data(), l.latent, h, d.data(), x.data());
            multiply_transposed(p.latent_down.data(), l.latent, h, d.data(), dx.data());
            d = dx;
        }
        add_scaled(s.dx.data() + t * h, input_factor(l), d.data(), h);
    }
}

/// Gradients the losses add to the router before its backward; empty members are none.
struct extra_gradients {
    values logits;       // [T, E]
    values noise_scale;  // [T, E]
};

/// All gradients of Σ y·dy (+ losses through `extra`).
inline gradients backward(const layer& l, const parameters& p, const batch& b, const result& r, const values& dy,
                          const extra_gradients& extra = {}) {
    backward_state s;
    s.grad.parameters = zeros_like(p);
    s.dx.assign(b.tokens * l.hidden, 0.0);
    s.dw.assign(r.routing.weights.size(), 0.0);
    s.d_expert_input.assign(b.tokens * l.expert_width(), 0.0);
    routed_backward(l, p, r, dy, s);
    experts_backward(l, p, r, s);
    shared_backward(l, p, r, dy, s);
    expert_inputs_backward(l, p, r, s);
    s.grad.logits = route_backward(l, p, r.routing, s.dw, dense_mixer_scores(l, p, r, s), s.grad.parameters);
    if (!extra.logits.empty()) add_scaled(s.grad.logits.data(), 1, extra.logits.data(), s.grad.logits.size());
    values d_source = logits_backward(l, p, b, r.routing, s.grad.logits, extra.noise_scale, s.grad.parameters,
                                      s.grad.previous_logits);
    if (!b.jitter.empty() && !l.jitter_in_place) d_source = product(d_source, b.jitter);
    if (b.router_input.empty())
        add_scaled(s.dx.data(), 1, d_source.data(), d_source.size());
    else
        s.grad.router_input = d_source;
    s.grad.x = !b.jitter.empty() && l.jitter_in_place ? product(s.dx, b.jitter) : s.dx;
    s.grad.weights = s.dw;
    return s.grad;
}

/// Gradients of Σ y·dy of dense_forward; routing members are empty.
inline gradients dense_backward(const layer& l, const parameters& p, const values& x, natural tokens,
                                const values& dy) {
    gradients g;
    g.parameters = zeros_like(p);
    g.x.resize(tokens * l.hidden);
    for (natural t = 0; t < tokens; ++t)
        set_row(
            g.x, t,
            ffn_backward(expert_shape(l), expert_pointers<const double*>(l, p, 0),
                         expert_pointers<double*>(l, g.parameters, 0), x.data() + t * l.hidden, row(dy, t, l.hidden)));
    return g;
}

}  // namespace oracle
