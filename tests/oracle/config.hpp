// What a reference layer is: run-time settings, parameters, and the inputs of one call.
//
// Every axis of routing.md §1 is a field here; noise and random draws are inputs (`batch`), never made inside.
#pragma once

#include "math.hpp"

namespace oracle {

// ---- router (routing.md §1) -----------------------------------------------------------------------------------------

enum class input_kind { plain, rms_norm, unit_norm };  // rms_norm: x/rms·scale·H^-½ (Gemma-4); unit_norm: x/‖x‖
enum class projection_kind { linear, tanh_mlp, cosine, none };
enum class score_kind { softmax, softmax_selected, sigmoid, sqrt_softplus, relu, identity, one };
enum class key_kind { automatic, logit, score };  // automatic: routing.md §3, see selection_keys()
enum class select_kind {
    top_k,
    top_p,         // smallest prefix of descending softmax with cumulative ≥ top_p, at most top_k (0: no cap)
    positive,      // every score > 0 (ReMoE)
    all,           // dense
    sparse_mixer,  // routing.md §6
    sinkhorn,      // keys d1·K·d0 in training, plain top-k at evaluation
    expert_choice  // column top-C, routing.md §9
};
enum class group_score_kind { maximum, top2_sum, share_sum };  // share_sum: top ⌊k/top_groups⌋ (Megatron)
enum class renormalise_kind { none, sum, sum_plus_epsilon, clamped_sum, norm };
enum class second_kind {
    all,
    none,
    threshold,     // mesh: keep if w2 > θ
    random,        // mesh/GShard: keep if u < w2/θ
    random_twice,  // NLLB: keep if 2·w2 > u
    sampling       // NLLB: second pick by logits + Gumbel noise (batch::key_noise) with the first masked
};
enum class capacity_kind { none, fixed, mesh, flaxformer, megatron, tutel, nllb, hunyuan };
enum class priority_kind { arrival, probability, batch_top1, batch_sum, position };
enum class offset_kind { kept, all };

/// Capacity (routing.md §8). `group` tokens are routed together, 0 means all tokens of the call.
struct capacity {
    capacity_kind kind = capacity_kind::none;
    double factor = 1.25;
    natural fixed = 0;
    natural minimum = 0;       // Megatron
    natural alignment = 1;     // Tutel
    double eval_fraction = 0;  // NLLB at evaluation
    natural group = 0;
    priority_kind priority = priority_kind::arrival;
    offset_kind offset = offset_kind::all;
};

struct router {
    natural top_k = 1;
    // Zero-compute experts follow the routed ones: constants, then identities, then zeros (routing.md §9).
    natural constants = 0, identities = 0, zeros = 0;

    input_kind input = input_kind::plain;
    double input_epsilon = 1e-6;
    projection_kind projection = projection_kind::linear;
    double minimum_temperature = 0.01;  // cosine: τ is clamped from below

    bool normalise_logits = false;  // (z−μ)/σ·λ per token
    double logit_lambda = 1;
    bool sample_deviation = false;  // σ with n−1 (MoE++) instead of n

    score_kind score = score_kind::softmax;
    key_kind key = key_kind::automatic;
    select_kind select = select_kind::top_k;
    double top_p = 0.4;
    double mixer_epsilon = 0.01;  // SparseMixer r

    natural groups = 1, top_groups = 1;
    group_score_kind group_score = group_score_kind::maximum;
    bool mask_zero = false;  // masked groups get key 0.0 instead of −inf (routing.md §4)

    renormalise_kind renormalise = renormalise_kind::none;
    double epsilon = 1e-20;
    double norm_p = 1;
    bool renormalise_after_drop = false;
    double scale = 1;
    bool scale_after_combine = false;  // MiniMax-M3

    second_kind second = second_kind::all;
    double threshold = 0.2;

    double choice_capacity = 2;       // expert choice: c of C = ⌊T·c/E⌋
    bool choice_over_tokens = false;  // mesh variant: softmax over tokens, ÷ number of experts that chose the token

    oracle::capacity capacity = {};
};

// ---- experts and layer (routing.md §10) -----------------------------------------------------------------------------

enum class activation_kind {
    silu,
    gelu_tanh,
    gelu_erf,
    relu,
    relu_squared,
    identity,
    clamped_swiglu,
    clamped_silu,
    situ
};

struct activation {
    activation_kind kind = activation_kind::silu;
    double alpha = 1.702, limit = 7;    // clamped_swiglu (gpt-oss, MiniMax-M3); clamped_silu (V4) uses limit
    double beta = 4, beta_linear = 25;  // situ (Kimi-K3)
};

struct layer {
    natural hidden = 0, ffn = 0, experts = 1;  // routed experts only
    bool gated = true;
    oracle::activation activation = {};
    natural shared_ffn = 0;
    bool shared_gated = true;
    oracle::activation shared_activation = {};
    natural latent = 0;  // width D of latent experts, 0: none
    bool latent_norm = false;
    double latent_epsilon = 1e-5;
    bool weight_on_input = false;      // Llama-4
    bool jitter_in_place = false;      // experts see x·jitter too
    bool multiply_input_by_k = false;  // MoE++
    bool base_mix = false;             // BASE: y = α f(x) + (1−α) x
    double output_scale = 1;           // NLLB evaluation: 1 − moe_token_dropout, on the routed sum
    bool dense_mixer = false;          // backward: dp_i = ⟨dy, f_i(x)⟩ for all i (training.md §5)
    bool default_vectors = false;      // backward: the same with default_vectors[i] for f_i(x) of experts not taken
    oracle::router router = {};

    natural choices() const { return experts + router.constants + router.identities + router.zeros; }
    natural expert_width() const { return latent > 0 ? latent : hidden; }
    bool unbounded() const {
        return router.select == select_kind::positive || router.select == select_kind::all ||
               router.select == select_kind::expert_choice ||
               (router.select == select_kind::top_p && router.top_k == 0);
    }
    natural slots() const { return unbounded() ? choices() : router.top_k; }
};

/// Parameters; an empty vector is an absent one. Rows are output features, as in the hub's layouts.
/// E = layer::choices() for router tensors, layer::experts for expert tensors; W = expert_width().
struct parameters {
    values router = {};            // [E, H]; cosine [E, P]; tanh MLP [E, P]
    values router_bias = {};       // [E]
    values router_hidden = {};     // [P, H] projection of cosine and tanh MLP
    values router_scale = {};      // [H] with input_kind::rms_norm
    values temperature = {};       // [1] cosine
    values noise_projection = {};  // [E, H] noisy top-k: W_n
    values previous_map = {};      // [E, E] MoE++ residual logits
    values selection_bias = {};    // [E] no gradient
    values default_vectors = {};   // [E, W] no gradient
    values expert_scale = {};      // [E]
    values gate_up = {};           // [E, 2F, W] gate rows first; [E, F, W] without a gate
    values gate_up_bias = {};      // [E, 2F] or [E, F]
    values down = {};              // [E, W, F]
    values down_bias = {};         // [E, W]
    values shared_gate_up = {}, shared_gate_up_bias = {}, shared_down = {},
           shared_down_bias = {};  // one wide expert of shared_ffn
    values shared_gate = {};       // [H]
    values latent_down = {};       // [D, H]
    values latent_norm = {};       // [D]
    values latent_up = {};         // [H, D]
    values constant_weight = {};   // [C, 2, H]
    values constant_vector = {};   // [C, H]
};

/// Calls f(name, member pointer) for every parameter.
template <class Function>
void for_each_parameter(Function&& f) {
    f("router", &parameters::router);
    f("router_bias", &parameters::router_bias);
    f("router_hidden", &parameters::router_hidden);
    f("router_scale", &parameters::router_scale);
    f("temperature", &parameters::temperature);
    f("noise_projection", &parameters::noise_projection);
    f("previous_map", &parameters::previous_map);
    f("selection_bias", &parameters::selection_bias);
    f("default_vectors", &parameters::default_vectors);
    f("expert_scale", &parameters::expert_scale);
    f("gate_up", &parameters::gate_up);
    f("gate_up_bias", &parameters::gate_up_bias);
    f("down", &parameters::down);
    f("down_bias", &parameters::down_bias);
    f("shared_gate_up", &parameters::shared_gate_up);
    f("shared_gate_up_bias", &parameters::shared_gate_up_bias);
    f("shared_down", &parameters::shared_down);
    f("shared_down_bias", &parameters::shared_down_bias);
    f("shared_gate", &parameters::shared_gate);
    f("latent_down", &parameters::latent_down);
    f("latent_norm", &parameters::latent_norm);
    f("latent_up", &parameters::latent_up);
    f("constant_weight", &parameters::constant_weight);
    f("constant_vector", &parameters::constant_vector);
}

/// Parameters of the same shapes, all zero.
inline parameters zeros_like(const parameters& p) {
    parameters out;
    for_each_parameter([&](const char*, auto member) { (out.*member).assign((p.*member).size(), 0.0); });
    return out;
}

/// Inputs of one call. Empty members are absent; S = layer::slots().
struct batch {
    natural tokens = 0;
    values x = {};                // [T, H]
    values router_input = {};     // [T, H] where the router reads something else (Gemma-4)
    values jitter = {};           // [T, H] factors on the router's copy (on x itself with jitter_in_place)
    values noise = {};            // [T, E] added to the logits; times softplus(x W_n) + 1e-2 with a noise_projection
    values previous_logits = {};  // [T, E] MoE++
    values key_noise = {};        // [T, E] added to the keys only (Gumbel); SparseMixer training: [T, 2, E]
    values uniform = {};          // [T] second-expert policies; SparseMixer training: [T, 2]
    values dropout = {};          // [T, E, F] factors on the activations inside routed experts
    ints chosen = {};  // [T, S] ids from outside (hash tables, another implementation's choice), −1 = empty
    bool training = false;
};

}  // namespace oracle
