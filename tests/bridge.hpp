// From the library's types to the oracle's: the same layer, the same numbers in double precision.
#pragma once

#include <gatefold/moe/call.hpp>
#include <gatefold/moe/tape.hpp>

#include "oracle.hpp"

namespace bridge {

namespace gf = gatefold;

inline oracle::activation activation_of(gf::activation a, double limit) {
    oracle::activation out;
    out.limit = limit;
    switch (a) {
        case gf::activation::swiglu:
        case gf::activation::silu:
            out.kind = oracle::activation_kind::silu;
            break;
        case gf::activation::geglu_tanh:
        case gf::activation::gelu_tanh:
            out.kind = oracle::activation_kind::gelu_tanh;
            break;
        case gf::activation::geglu_erf:
        case gf::activation::gelu_erf:
            out.kind = oracle::activation_kind::gelu_erf;
            break;
        case gf::activation::reglu:
        case gf::activation::relu:
            out.kind = oracle::activation_kind::relu;
            break;
        case gf::activation::relu_squared:
            out.kind = oracle::activation_kind::relu_squared;
            break;
        case gf::activation::bilinear:
        case gf::activation::identity:
            out.kind = oracle::activation_kind::identity;
            break;
        case gf::activation::clamped_swiglu:
            out.kind = oracle::activation_kind::clamped_swiglu;
            break;
        case gf::activation::limited_swiglu:
            out.kind = oracle::activation_kind::clamped_silu;
            break;
        case gf::activation::situ:
            out.kind = oracle::activation_kind::situ;
            break;
    }
    return out;
}

inline oracle::score_kind score_of(gf::score s) {
    switch (s) {
        case gf::score::softmax:
            return oracle::score_kind::softmax;
        case gf::score::softmax_selected:
            return oracle::score_kind::softmax_selected;
        case gf::score::sigmoid:
            return oracle::score_kind::sigmoid;
        case gf::score::sqrt_softplus:
            return oracle::score_kind::sqrt_softplus;
        case gf::score::identity:
            return oracle::score_kind::identity;
        case gf::score::relu:
            return oracle::score_kind::relu;
        case gf::score::softmax_tokens:  // the oracle's choice_over_tokens
            return oracle::score_kind::softmax;
    }
    return oracle::score_kind::softmax;
}

inline oracle::renormalise_kind renormalise_of(gf::renormalise r) {
    switch (r) {
        case gf::renormalise::none:
            return oracle::renormalise_kind::none;
        case gf::renormalise::sum:
            return oracle::renormalise_kind::sum;
        case gf::renormalise::sum_plus:
            return oracle::renormalise_kind::sum_plus_epsilon;
        case gf::renormalise::max_of:
            return oracle::renormalise_kind::clamped_sum;
        case gf::renormalise::norm:
            return oracle::renormalise_kind::norm;
    }
    return oracle::renormalise_kind::none;
}

inline oracle::capacity capacity_of(const gf::capacity_config& c) {
    oracle::capacity out;
    switch (c.rule) {
        case gf::capacity_rule::none:
            out.kind = oracle::capacity_kind::none;
            break;
        case gf::capacity_rule::mesh:
            out.kind = oracle::capacity_kind::mesh;
            break;
        case gf::capacity_rule::flaxformer:
            out.kind = oracle::capacity_kind::flaxformer;
            break;
        case gf::capacity_rule::megatron:
            out.kind = oracle::capacity_kind::megatron;
            break;
        case gf::capacity_rule::deepspeed:
            out.kind = oracle::capacity_kind::tutel;
            break;
        case gf::capacity_rule::nllb:
            out.kind = oracle::capacity_kind::nllb;
            break;
        case gf::capacity_rule::hunyuan:
            out.kind = oracle::capacity_kind::hunyuan;
            break;
        case gf::capacity_rule::fixed:
            out.kind = oracle::capacity_kind::fixed;
            break;
        case gf::capacity_rule::share:  // the oracle's choice_capacity
            out.kind = oracle::capacity_kind::none;
            break;
    }
    switch (c.keeps) {
        case gf::priority::slot_major:
            out.priority = oracle::priority_kind::arrival;
            break;
        case gf::priority::probability:
            out.priority = oracle::priority_kind::probability;
            break;
        case gf::priority::importance_sum:
            out.priority = oracle::priority_kind::batch_sum;
            break;
        case gf::priority::importance:
            out.priority = oracle::priority_kind::batch_top1;
            break;
        case gf::priority::position:
            out.priority = oracle::priority_kind::position;
            break;
    }
    out.offset = c.behind == gf::offset_by::all ? oracle::offset_kind::all : oracle::offset_kind::kept;
    out.factor = static_cast<double>(c.factor);
    out.fixed = static_cast<oracle::natural>(c.rows);
    out.minimum = static_cast<oracle::natural>(c.minimum);
    out.group = c.shared_by == gf::capacity_group::fixed ? static_cast<oracle::natural>(c.group_size) : 0;
    return out;
}

/// The oracle's layer for a configuration, with the configuration's own run-time numbers.
inline oracle::layer layer_of(const gf::config& c) {
    const auto natural = [](int n) { return static_cast<oracle::natural>(n); };
    oracle::layer l;
    l.hidden = natural(c.hidden);
    l.ffn = natural(c.ffn);
    l.experts = natural(c.experts);
    l.gated = gf::is_gated(c.act);
    l.activation = activation_of(c.act, static_cast<double>(c.limit));
    l.shared_ffn = natural(c.shared.ffn);
    l.shared_gated = gf::is_gated(c.shared.act);
    l.shared_activation = activation_of(c.shared.act, static_cast<double>(c.shared.limit));
    l.latent = natural(c.latent);
    l.latent_norm = c.latent_norm;
    l.weight_on_input = c.router.acts_on == gf::weight_at::input;
    l.base_mix = c.router.acts_on == gf::weight_at::blend;
    l.dense_mixer = c.router.learns_from == gf::estimator::all_experts;
    l.default_vectors = c.router.learns_from == gf::estimator::default_vectors;
    l.multiply_input_by_k = c.router.input_times_k;
    l.jitter_in_place = gf::shares_jitter(c);
    oracle::router& r = l.router;
    r.top_k = natural(c.top_k);
    r.constants = natural(c.free.constant);
    r.identities = natural(c.free.copy);
    r.zeros = natural(c.free.zero);
    r.score = score_of(c.router.from);
    switch (c.router.select) {
        case gf::selection::sparse_mixer:
            r.select = oracle::select_kind::sparse_mixer;
            break;
        case gf::selection::top_p:
            r.select = oracle::select_kind::top_p;
            break;
        case gf::selection::positive:
            r.select = oracle::select_kind::positive;
            break;
        case gf::selection::all:
            r.select = oracle::select_kind::all;
            break;
        case gf::selection::sinkhorn:
            r.select = oracle::select_kind::sinkhorn;
            break;
        case gf::selection::expert_choice:
            r.select = oracle::select_kind::expert_choice;
            break;
        default:
            r.select = oracle::select_kind::top_k;
            break;
    }
    r.groups = natural(c.router.groups);
    r.top_groups = natural(c.router.kept_groups);
    r.group_score = c.router.group_by == gf::group_key::top2_sum    ? oracle::group_score_kind::top2_sum
                    : c.router.group_by == gf::group_key::share_sum ? oracle::group_score_kind::share_sum
                                                                    : oracle::group_score_kind::maximum;
    r.mask_zero = c.router.masked == gf::group_mask::zero;
    r.renormalise = renormalise_of(c.router.renorm);
    r.epsilon = static_cast<double>(c.router.epsilon);
    r.norm_p = static_cast<double>(c.router.power);
    r.scale = c.router.scale;
    r.choice_over_tokens = c.router.from == gf::score::softmax_tokens;
    r.choice_capacity = c.capacity.rule == gf::capacity_rule::share ? static_cast<double>(c.capacity.factor) : c.top_k;
    r.scale_after_combine = c.router.scaled == gf::scale_at::output;
    r.renormalise_after_drop = c.capacity.renormalise_kept;
    r.capacity = capacity_of(c.capacity);
    return l;
}

template <class Tensor>
oracle::values values_of(const Tensor& t) {
    oracle::values out(static_cast<oracle::natural>(t.size()));
    for (gf::index_t i = 0; i < t.size(); ++i) out[static_cast<oracle::natural>(i)] = static_cast<double>(t.data()[i]);
    return out;
}

/// Weights, or gradients, as the oracle's parameters.
template <class Set>
oracle::parameters parameters_of(const Set& s) {
    oracle::parameters p;
    const auto copy = [](oracle::values& to, const auto& slot) {
        if constexpr (gf::is_present<std::remove_cvref_t<decltype(slot)>>) to = values_of(slot);
    };
    copy(p.router_hidden, s.router_projection);
    copy(p.router, s.router);
    copy(p.router, s.router_head);
    copy(p.temperature, s.router_temperature);
    copy(p.router_bias, s.router_bias);
    copy(p.router_scale, s.router_scale);
    copy(p.expert_scale, s.expert_scale);
    copy(p.noise_projection, s.router_noise);
    copy(p.previous_map, s.router_residual);
    copy(p.selection_bias, s.selection_bias);
    copy(p.default_vectors, s.default_vectors);
    copy(p.gate_up, s.gate_up);
    copy(p.gate_up, s.up);
    copy(p.down, s.down);
    copy(p.gate_up_bias, s.gate_up_bias);
    copy(p.down_bias, s.down_bias);
    copy(p.shared_gate_up, s.shared_gate_up);
    copy(p.shared_down, s.shared_down);
    copy(p.shared_gate_up_bias, s.shared_gate_up_bias);
    copy(p.shared_down_bias, s.shared_down_bias);
    copy(p.shared_gate, s.shared_gate);
    copy(p.latent_down, s.latent_down);
    copy(p.latent_up, s.latent_up);
    copy(p.latent_norm, s.latent_norm);
    copy(p.constant_weight, s.constant_gate);
    copy(p.constant_vector, s.constant_value);
    return p;
}

}  // namespace bridge
