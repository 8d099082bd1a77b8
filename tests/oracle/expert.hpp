// One feed-forward expert: activations of routing.md §10 with their derivatives, forward and backward of training.md
// §4.
#pragma once

#include <algorithm>

#include "config.hpp"

namespace oracle {

// ---- activations (routing.md §10) -----------------------------------------------------------------------------------

/// a = act(g, u) and its partial derivatives.
struct activated {
    double value = 0, by_gate = 0, by_up = 0;
};

/// φ(g) and φ'(g) of the functions of one argument.
inline activated activate_one(activation_kind kind, double g) {
    const double s = sigmoid(g);
    switch (kind) {
        case activation_kind::silu:  // silu' = σ(g)(1 + g(1 − σ(g)))
            return {g * s, s * (1 + g * (1 - s)), 0};
        case activation_kind::gelu_tanh: {
            const double c = std::sqrt(2 / std::numbers::pi), t = std::tanh(c * (g + 0.044715 * g * g * g));
            return {0.5 * g * (1 + t), 0.5 * (1 + t) + 0.5 * g * (1 - t * t) * c * (1 + 3 * 0.044715 * g * g), 0};
        }
        case activation_kind::gelu_erf:
            return {0.5 * g * (1 + std::erf(g / std::numbers::sqrt2)), normal_cdf(g) + g * normal_pdf(g), 0};
        case activation_kind::relu:
            return {std::max(g, 0.0), g > 0 ? 1.0 : 0.0, 0};
        case activation_kind::relu_squared:
            return {std::max(g, 0.0) * std::max(g, 0.0), 2 * std::max(g, 0.0), 0};
        case activation_kind::identity:
            return {g, 1, 0};
        default:
            throw std::invalid_argument("oracle: this activation needs a gate");
    }
}

/// g̃ = min(g, L), ũ = clamp(u, −L, L): g̃σ(αg̃)(ũ + 1). The gradient passes at equality.
inline activated clamped_swiglu(double g, double u, double alpha, double limit) {
    const double gc = std::min(g, limit), uc = std::clamp(u, -limit, limit), s = sigmoid(alpha * gc);
    return {gc * s * (uc + 1), g <= limit ? (uc + 1) * s * (1 + alpha * gc * (1 - s)) : 0.0,
            std::fabs(u) <= limit ? gc * s : 0.0};
}

/// silu(min(g, L)) · clamp(u, −L, L) (DeepSeek-V4).
inline activated clamped_silu(double g, double u, double limit) {
    const double gc = std::min(g, limit), uc = std::clamp(u, -limit, limit), s = sigmoid(gc);
    return {gc * s * uc, g <= limit ? uc * s * (1 + gc * (1 - s)) : 0.0, std::fabs(u) <= limit ? gc * s : 0.0};
}

/// β·tanh(g/β)·σ(g) · β_l·tanh(u/β_l) (Kimi-K3).
inline activated situ(double g, double u, double beta, double beta_linear) {
    const double tg = std::tanh(g / beta), tu = std::tanh(u / beta_linear), s = sigmoid(g);
    return {beta * tg * s * beta_linear * tu, ((1 - tg * tg) * s + beta * tg * s * (1 - s)) * beta_linear * tu,
            beta * tg * s * (1 - tu * tu)};
}

/// act(g, u) of a gated expert; the two-matrix forms are φ(g)·u.
inline activated activate(const activation& act, double g, double u) {
    switch (act.kind) {
        case activation_kind::clamped_swiglu:
            return clamped_swiglu(g, u, act.alpha, act.limit);
        case activation_kind::clamped_silu:
            return clamped_silu(g, u, act.limit);
        case activation_kind::situ:
            return situ(g, u, act.beta, act.beta_linear);
        default: {
            const activated phi = activate_one(act.kind, g);
            return {phi.value * u, phi.by_gate * u, phi.value};
        }
    }
}

// ---- feed-forward network -------------------------------------------------------------------------------------------

/// One expert as pointers into the stacked tensors; null biases are absent.
struct ffn_shape {
    natural width = 0, ffn = 0;
    bool gated = true;
    oracle::activation activation;

    natural rows() const { return gated ? 2 * ffn : ffn; }
};

template <class Pointer>
struct ffn_pointers {
    Pointer gate_up = nullptr, gate_up_bias = nullptr, down = nullptr, down_bias = nullptr;
};

/// h = W1 x + b1 (gate rows first, then up rows).
inline values ffn_hidden(const ffn_shape& s, const ffn_pointers<const double*>& w, const double* x) {
    values h(s.rows(), 0.0);
    if (w.gate_up_bias) h.assign(w.gate_up_bias, w.gate_up_bias + s.rows());
    multiply(w.gate_up, s.rows(), s.width, x, h.data());
    return h;
}

inline activated ffn_activate(const ffn_shape& s, const values& h, natural f) {
    return s.gated ? activate(s.activation, h[f], h[s.ffn + f]) : activate_one(s.activation.kind, h[f]);
}

/// o = W2 act(W1 x + b1) + b2. The bias of the down projection is weighted with the output later. `keep` [F], where
/// given, multiplies the activations (dropout).
inline values ffn_forward(const ffn_shape& s, const ffn_pointers<const double*>& w, const double* x,
                          const double* keep = nullptr) {
    const values h = ffn_hidden(s, w, x);
    values a(s.ffn), o(s.width, 0.0);
    for (natural f = 0; f < s.ffn; ++f) a[f] = ffn_activate(s, h, f).value * (keep ? keep[f] : 1);
    if (w.down_bias) o.assign(w.down_bias, w.down_bias + s.width);
    multiply(w.down, s.width, s.ffn, a.data(), o.data());
    return o;
}

/// Adds parameter gradients to `grad` and returns dx (training.md §4: down, activation, up/gate).
inline values ffn_backward(const ffn_shape& s, const ffn_pointers<const double*>& w, const ffn_pointers<double*>& grad,
                           const double* x, const values& d_out, const double* keep = nullptr) {
    const values h = ffn_hidden(s, w, x);
    values a(s.ffn), da(s.ffn, 0.0), dh(s.rows(), 0.0), dx(s.width, 0.0);
    for (natural f = 0; f < s.ffn; ++f) a[f] = ffn_activate(s, h, f).value * (keep ? keep[f] : 1);
    add_outer(grad.down, s.width, s.ffn, d_out.data(), a.data());
    if (grad.down_bias) add_scaled(grad.down_bias, 1, d_out.data(), s.width);
    multiply_transposed(w.down, s.width, s.ffn, d_out.data(), da.data());
    for (natural f = 0; f < s.ffn; ++f) {
        const activated act = ffn_activate(s, h, f);
        if (keep) da[f] *= keep[f];
        dh[f] = da[f] * act.by_gate;
        if (s.gated) dh[s.ffn + f] = da[f] * act.by_up;
    }
    add_outer(grad.gate_up, s.rows(), s.width, dh.data(), x);
    if (grad.gate_up_bias) add_scaled(grad.gate_up_bias, 1, dh.data(), s.rows());
    multiply_transposed(w.gate_up, s.rows(), s.width, dh.data(), dx.data());
    return dx;
}

// ---- views of the stacked tensors -----------------------------------------------------------------------------------

inline ffn_shape expert_shape(const layer& l) { return {l.expert_width(), l.ffn, l.gated, l.activation}; }
inline ffn_shape shared_shape(const layer& l) { return {l.hidden, l.shared_ffn, l.shared_gated, l.shared_activation}; }

template <class Pointer, class Values>
Pointer slice(Values& v, natural e, natural size) {
    return v.empty() ? nullptr : v.data() + e * size;
}

template <class Pointer, class Parameters>
ffn_pointers<Pointer> expert_pointers(const layer& l, Parameters& p, natural e) {
    const ffn_shape s = expert_shape(l);
    return {slice<Pointer>(p.gate_up, e, s.rows() * s.width), slice<Pointer>(p.gate_up_bias, e, s.rows()),
            slice<Pointer>(p.down, e, s.width * s.ffn), slice<Pointer>(p.down_bias, e, s.width)};
}

template <class Pointer, class Parameters>
ffn_pointers<Pointer> shared_pointers(Parameters& p) {
    return {slice<Pointer>(p.shared_gate_up, 0, 0), slice<Pointer>(p.shared_gate_up_bias, 0, 0),
            slice<Pointer>(p.shared_down, 0, 0), slice<Pointer>(p.shared_down_bias, 0, 0)};
}

// ---- zero-compute experts (routing.md §9, MoE++ and LongCat) --------------------------------------------------------

enum class compute_kind { ffn, constant, identity, zero };

inline compute_kind kind_of(const layer& l, natural e) {
    if (e < l.experts) return compute_kind::ffn;
    if (e < l.experts + l.router.constants) return compute_kind::constant;
    if (e < l.experts + l.router.constants + l.router.identities) return compute_kind::identity;
    return compute_kind::zero;
}

/// f = α1·x + α2·v, (α1, α2) = softmax(x W_c).
inline values constant_forward(const layer& l, const parameters& p, natural c, const double* x) {
    values z(2, 0.0), out(l.hidden);
    multiply(p.constant_weight.data() + c * 2 * l.hidden, 2, l.hidden, x, z.data());
    const values alpha = softmax(z);
    for (natural i = 0; i < l.hidden; ++i) out[i] = alpha[0] * x[i] + alpha[1] * p.constant_vector[c * l.hidden + i];
    return out;
}

inline values constant_backward(const layer& l, const parameters& p, parameters& grad, natural c, const double* x,
                                const values& d_out) {
    const double* weight = p.constant_weight.data() + c * 2 * l.hidden;
    const double* vector = p.constant_vector.data() + c * l.hidden;
    values z(2, 0.0), dx(l.hidden, 0.0);
    multiply(weight, 2, l.hidden, x, z.data());
    const values alpha = softmax(z);
    const values d_alpha = {dot(d_out.data(), x, l.hidden), dot(d_out.data(), vector, l.hidden)};
    const values dz = softmax_backward(alpha, d_alpha);
    add_scaled(dx.data(), alpha[0], d_out.data(), l.hidden);
    add_scaled(grad.constant_vector.data() + c * l.hidden, alpha[1], d_out.data(), l.hidden);
    add_outer(grad.constant_weight.data() + c * 2 * l.hidden, 2, l.hidden, dz.data(), x);
    multiply_transposed(weight, 2, l.hidden, dz.data(), dx.data());
    return dx;
}

/// f_e(x) for any id below layer::choices().
inline values expert_forward(const layer& l, const parameters& p, natural e, const double* x,
                             const double* keep = nullptr) {
    switch (kind_of(l, e)) {
        case compute_kind::ffn:
            return ffn_forward(expert_shape(l), expert_pointers<const double*>(l, p, e), x, keep);
        case compute_kind::constant:
            return constant_forward(l, p, e - l.experts, x);
        case compute_kind::identity:
            return values(x, x + l.expert_width());
        default:
            return values(l.expert_width(), 0.0);
    }
}

inline values expert_backward(const layer& l, const parameters& p, parameters& grad, natural e, const double* x,
                              const values& d_out, const double* keep = nullptr) {
    switch (kind_of(l, e)) {
        case compute_kind::ffn:
            return ffn_backward(expert_shape(l), expert_pointers<const double*>(l, p, e),
                                expert_pointers<double*>(l, grad, e), x, d_out, keep);
        case compute_kind::constant:
            return constant_backward(l, p, grad, e - l.experts, x, d_out);
        case compute_kind::identity:
            return d_out;
        default:
            return values(l.expert_width(), 0.0);
    }
}

}  // namespace oracle
