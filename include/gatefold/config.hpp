// What a program names: the shape and the choices of one mixture-of-experts layer, as a value that is a template
// argument.
//
//     config ──> rules (one sentence each) ──> layer<config, T>        config ──> accounting (moe/accounting.hpp)
//
// Scalars, enums and nested plain structs only: such a value can be a template argument in g++, clang and nvcc, can be
// compared, printed and built at run time. Fields stand in the order in which a reader would say them; designated
// initialisers follow that order.
#pragma once

#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

// ---- the axes of a router (spec: routing semantics)

/// What the router reads: the tokens, the tokens scaled to unit RMS times a learned vector and H^-1/2, or unit length.
enum class router_input { tokens, rms_norm, unit_length };

/// How logits come from the router's input.
enum class projection { linear, two_layer, cosine, none };

/// What is added to the logits before scores are taken (training only, but for `normalised` and `residual`).
enum class logit_transform { none, noisy_top_k, gaussian, gumbel, normalised, residual };

/// The score of an expert, from which the weights of the chosen come.
enum class score {
    softmax,
    softmax_selected,
    sigmoid,
    sqrt_softplus,
    identity,
    relu,
    softmax_tokens,  ///< the softmax over the tokens of a group, for each expert (Mesh TensorFlow's expert choice)
};

/// Which experts a token gets, or which tokens an expert gets.
enum class selection {
    top_k,          ///< the k largest keys
    sparse_mixer,   ///< two sequential picks among masked logits (Phi-3.5-MoE)
    sampled,        ///< drawn without replacement from the softmax, by the counter generator
    top_p,          ///< the smallest prefix of sorted probabilities that reaches p
    positive,       ///< every expert with a positive score (ReMoE)
    all,            ///< every expert
    given,          ///< ids from outside: hash tables, replayed routing
    uniform,        ///< uniformly random experts
    sinkhorn,       ///< top-k of the doubly normalised matrix in training, of the logits otherwise
    balanced,       ///< assignment with exactly T/E tokens per expert in training, argmax otherwise (BASE)
    expert_choice,  ///< each expert takes its best tokens: not causal
};

/// What is added to the score (or the logit, for quantile) to form the selection key; it never enters the weights.
enum class key_bias { none, score, logit };

/// How a group of experts is scored in group-limited selection.
enum class group_key {
    none,
    max,
    top2_sum,
    share_sum,  ///< the sum of its top_k / kept_groups best keys (Megatron)
};

/// What the experts of a group that was not kept get as their key.
enum class group_mask { minus_infinity, zero };

/// What becomes of a token's second expert. The random ones act in training only.
enum class second_expert {
    always,
    threshold,     ///< stays if its weight is above the threshold
    random,        ///< stays with probability weight / threshold (GShard)
    random_score,  ///< stays with probability score / threshold, whatever the weights are divided by (NLLB)
    sampled,       ///< drawn from the softmax without the first (NLLB)
};

/// How the weights of the chosen experts are divided by their sum G: not, G, G + epsilon, max(G, epsilon); or by their
/// p-norm, p the field `power`.
enum class renormalise { none, sum, sum_plus, max_of, norm };

/// Where the scale acts: on the weights, or on the routed sum after the combine.
enum class scale_at { weights, output };

/// Whether a weight w multiplies what an expert returns, or what it is given, or the token too: w f(x) + (1 - w) x.
enum class weight_at { output, input, blend };

/// What noise without another use does to the router's input in training.
enum class input_noise {
    jitter,               ///< the router's copy times U(1 - noise, 1 + noise)
    shared_jitter,        ///< the tokens themselves, so that the experts see it too (transformers' Mixtral)
    shared_jitter_twice,  ///< the same, twice (transformers' Phi-3.5-MoE)
    dropout,              ///< the router's copy, each element zero with probability noise, else / (1 - noise) (Mesh)
};

/// What the router learns from.
enum class estimator {
    chosen,            ///< the experts that were chosen
    all_experts,       ///< all experts: backward runs the others too (DenseMixer)
    default_vectors,   ///< all experts: backward takes the running mean of an expert's output for the others' outputs
    straight_through,  ///< the chosen, whose weight is 1 in forward and their score in backward
};

/// The type in which a step is carried out: the layer's storage type, or single precision (double for double).
enum class precision { accumulate, storage };

/// How many rows an expert takes (routing semantics, §8).
enum class capacity_rule {
    none,
    mesh,
    flaxformer,
    megatron,
    deepspeed,
    nllb,
    hunyuan,
    fixed,  ///< a number of rows, `rows` (Switch in transformers)
    share,  ///< floor(tokens * factor / experts): how many tokens an expert chooses in expert choice
};

/// Who keeps a place when more rows arrive than an expert takes.
enum class priority {
    slot_major,      ///< all first choices in token order, then all second ones, ...
    probability,     ///< the largest weights
    importance,      ///< slot_major over tokens in descending order of their best score
    importance_sum,  ///< the same by the sum of their chosen scores
    position,        ///< the earliest tokens
};

/// Whether second choices queue behind all first choices or behind those that were kept.
enum class offset_by { all, kept };

/// Which tokens share a capacity.
enum class capacity_group { batch, sequence, fixed };

struct router_config {
    router_input input = router_input::tokens;
    projection logits = projection::linear;
    int projection_width = 0;
    precision weights = precision::storage;
    precision logits_in = precision::accumulate;
    precision scores_in = precision::accumulate;
    bool bias = false;
    logit_transform transform = logit_transform::none;
    selection select = selection::top_k;
    score from = score::softmax;
    key_bias selection_bias = key_bias::none;
    int groups = 1, kept_groups = 1;
    group_key group_by = group_key::none;
    group_mask masked = group_mask::minus_infinity;
    second_expert second = second_expert::always;
    renormalise renorm = renormalise::none;
    float epsilon = 0;
    float power = 0;  ///< the p of renormalise::norm
    double scale = 1;
    scale_at scaled = scale_at::weights;
    bool expert_scale = false;
    weight_at acts_on = weight_at::output;
    bool input_times_k = false;  ///< experts read the token times top_k (MoE++)
    estimator learns_from = estimator::chosen;
    /// Size of the noise that the transform or the sampling adds in training; the deviation of normalised logits; the
    /// tolerance of sparse_mixer; where none of these claims it, noise on the input: see noise_on.
    float noise = 0;
    input_noise noise_on = input_noise::jitter;
    /// The p of top_p, or the threshold of a second expert.
    float threshold = 0;
    bool allow_constant_weight = false;
    bool allow_future = false;
    bool operator==(const router_config&) const = default;
};

struct capacity_config {
    capacity_rule rule = capacity_rule::none;
    float factor = 0;  ///< for nllb the fraction at inference; for deepspeed not positive: as many as arrive
    int minimum = 0;
    int rows = 0;  ///< of the fixed rule
    int alignment = 1;
    priority keeps = priority::slot_major;
    offset_by behind = offset_by::all;
    capacity_group shared_by = capacity_group::batch;
    int group_size = 0;
    bool renormalise_kept = false;
    bool operator==(const capacity_config&) const = default;
};

// ---- experts

/// The function between an expert's projections (routing semantics, §10).
enum class activation {
    swiglu,          ///< silu(g) u
    geglu_tanh,      ///< gelu_tanh(g) u
    geglu_erf,       ///< gelu(g) u
    reglu,           ///< relu(g) u
    bilinear,        ///< g u
    clamped_swiglu,  ///< g s(1.702 g) (u + 1), g at most and u within the limit (gpt-oss, MiniMax-M3)
    limited_swiglu,  ///< silu(g) u, g at most and u within the limit (DeepSeek-V4)
    situ,            ///< 4 tanh(g/4) s(g) 25 tanh(u/25)
    relu,
    relu_squared,
    gelu_tanh,
    gelu_erf,
    silu,
    identity,
};

/// Whether an activation takes two projections of its input, a gate and an up half.
constexpr bool is_gated(activation a) { return a < activation::relu; }
/// Whether an activation clamps its inputs, so that a limit has a meaning.
constexpr bool is_limited(activation a) { return a == activation::clamped_swiglu || a == activation::limited_swiglu; }

/// An expert that every token visits, next to the chosen ones.
struct shared_config {
    int ffn = 0;
    bool gate = false;
    activation act = activation::swiglu;
    float limit = 0;
    bool bias = false;
    bool operator==(const shared_config&) const = default;
};

/// Experts that compute nothing: they follow the real ones in the router's numbering, in the order of these fields.
struct free_experts {
    int constant = 0, copy = 0, zero = 0;
    bool operator==(const free_experts&) const = default;
};

/// One layer. `experts` counts those with weights; one expert and no router is the dense FFN.
struct config {
    int hidden = 0, ffn = 0, experts = 1, top_k = 1;
    activation act = activation::swiglu;
    float limit = 0;
    bool bias = false;
    router_config router = {};
    capacity_config capacity = {};
    shared_config shared = {};
    free_experts free = {};
    int latent = 0;
    bool latent_norm = false;
    /// Probability with which an activation inside a routed expert (or the dense FFN) is zero in training; those that
    /// stay are divided by 1 - dropout.
    float dropout = 0;
    bool operator==(const config&) const = default;
};

static_assert(
    config{.top_k = 1}.experts == config{}.experts,
    "gatefold: this host compiler gives skipped fields the value 0 under nvcc; use g++ as nvcc's host compiler");

/// Experts that the router chooses among: those with weights and those that compute nothing.
constexpr int choices(const config& c) { return c.experts + c.free.constant + c.free.copy + c.free.zero; }
/// Whether the layer is a plain FFN: one expert, so nothing to route.
constexpr bool is_dense(const config& c) { return choices(c) == 1; }
/// Whether the number of experts per token depends on the token.
constexpr bool is_variable(const config& c) {
    return c.router.select == selection::top_p || c.router.select == selection::positive ||
           c.router.select == selection::all || c.router.select == selection::expert_choice;
}
/// Places for chosen experts in a token's row: top_k, or every expert where the choice has no bound.
constexpr int slots(const config& c) {
    return c.router.select == selection::all || c.router.select == selection::positive ||
                   c.router.select == selection::expert_choice
               ? choices(c)
               : c.top_k;
}
/// Width of an expert's input and output: hidden, or the latent width where experts work on a projection.
constexpr int expert_width(const config& c) { return c.latent > 0 ? c.latent : c.hidden; }
/// How many of a group's best keys are added up to judge it.
GATEFOLD_HD constexpr int group_terms(const config& c) {
    if (c.router.group_by == group_key::top2_sum) return 2;
    return c.router.group_by == group_key::share_sum ? c.top_k / c.router.kept_groups : 1;
}
/// Whether selection compares logits: scores make false ties, so they are compared only where something else than
/// their order matters: a bias, a sum over a group, a masked key of zero.
GATEFOLD_HD constexpr bool selects_by_logit(const config& c) {
    const router_config& r = c.router;
    if (r.from == score::softmax_selected || r.from == score::identity) return true;
    return r.selection_bias != key_bias::score &&
           (r.groups <= 1 || (group_terms(c) == 1 && r.masked != group_mask::zero));
}
/// Whether the router's input is disturbed in training: noise that nothing else claims.
constexpr bool has_jitter(const config& c) {
    return c.router.noise > 0 && c.router.transform == logit_transform::none && c.router.logits != projection::none &&
           c.router.select != selection::sampled;
}
/// Whether experts see the noise on the router's input too.
constexpr bool shares_jitter(const config& c) {
    return has_jitter(c) &&
           (c.router.noise_on == input_noise::shared_jitter || c.router.noise_on == input_noise::shared_jitter_twice);
}
/// Whether pairs beyond an expert's capacity are dropped; in expert choice an expert takes no more in the first place.
constexpr bool drops(const config& c) {
    return c.capacity.rule != capacity_rule::none && c.capacity.rule != capacity_rule::share;
}
/// Whether weights depend on the router's parameters, so that it can be trained by the layer's output.
constexpr bool has_constant_weight(const config& c) {
    return c.router.select == selection::top_k && c.top_k == 1 && c.router.renorm != renormalise::none;
}

/// A constant with some fields changed: with(routers::deepseek_v3, &router_config::scale, 2.827f).
template <class S>
constexpr S with(S s) {
    return s;
}
template <class S, class M, class V, class... Rest>
constexpr S with(S s, M S::*field, V value, Rest... rest) {
    s.*field = static_cast<M>(value);
    return with(s, rest...);
}

// ---- rules
//
// One list: sentences for the compiler (layer, static_assert) and texts for tools that read a configuration at run
// time.
#define GATEFOLD_CONFIG_RULES(RULE)                                                                                    \
    RULE(c.hidden >= 1, "gatefold::config: hidden must be at least 1; set .hidden to the width of a token")            \
    RULE(c.ffn >= 1, "gatefold::config: ffn must be at least 1; set .ffn to the inner width of an expert")             \
    RULE(c.experts >= 1, "gatefold::config: experts must be at least 1; leave .experts out for a dense layer")         \
    RULE(c.free.constant >= 0 && c.free.copy >= 0 && c.free.zero >= 0,                                                 \
         "gatefold::config: counts of free experts must not be negative; set .free to zero or more of each "           \
         "kind")                                                                                                       \
    RULE(c.top_k >= 1 && c.top_k <= choices(c),                                                                        \
         "gatefold::config: top_k must lie between 1 and experts; lower .top_k or raise .experts")                     \
    RULE(!is_dense(c) || c.router == router_config{},                                                                  \
         "gatefold::config: one expert has no router; leave .router out or set .experts to two or more")               \
    RULE(!is_dense(c) || c.capacity == capacity_config{},                                                              \
         "gatefold::config: one expert takes every row; leave .capacity out or set .experts to two or more")           \
    RULE(is_limited(c.act) ? c.limit > 0 : c.limit == 0,                                                               \
         "gatefold::config: limit belongs to clamped activations; set .limit above 0 for them and leave it "           \
         "out else")                                                                                                   \
    RULE(c.shared.ffn >= 0, "gatefold::config: shared.ffn must not be negative; leave .shared out for none")           \
    RULE(c.shared.ffn > 0 || c.shared == shared_config{},                                                              \
         "gatefold::config: shared settings without a shared expert; set .shared.ffn to its width")                    \
    RULE(c.shared.ffn == 0 || (is_limited(c.shared.act) ? c.shared.limit > 0 : c.shared.limit == 0),                   \
         "gatefold::config: shared.limit belongs to clamped activations; set it above 0 for them and leave "           \
         "it out else")                                                                                                \
    RULE(!is_dense(c) || c.shared.ffn == 0,                                                                            \
         "gatefold::config: a dense layer has no shared expert; widen .ffn instead")                                   \
    RULE(c.router.groups >= 1 && c.router.kept_groups >= 1 && c.router.kept_groups <= c.router.groups,                 \
         "gatefold::config: kept_groups must lie between 1 and groups; lower .router.kept_groups")                     \
    RULE(c.router.groups >= 1 && choices(c) % c.router.groups == 0,                                                    \
         "gatefold::config: experts must be a multiple of groups; change .experts or .router.groups")                  \
    RULE((c.router.groups > 1) == (c.router.group_by != group_key::none),                                              \
         "gatefold::config: groups need a group key; set .router.group_by exactly when .router.groups is "             \
         "above 1")                                                                                                    \
    RULE(c.router.groups <= 1 || c.top_k <= c.router.kept_groups * (choices(c) / c.router.groups),                     \
         "gatefold::config: top_k exceeds the experts of the kept groups; raise .router.kept_groups")                  \
    RULE(c.router.groups <= 1 || c.router.group_by != group_key::top2_sum || choices(c) / c.router.groups >= 2,        \
         "gatefold::config: a group scored by its two best needs two experts; lower .router.groups")                   \
    RULE(c.router.group_by != group_key::share_sum || c.top_k >= c.router.kept_groups,                                 \
         "gatefold::config: share_sum adds top_k / kept_groups keys of a group; raise .top_k to .router.kept_groups")  \
    RULE(c.router.groups <= 1 || c.router.select == selection::top_k,                                                  \
         "gatefold::config: groups limit a top-k choice only; set .router.select to selection::top_k")                 \
    RULE(!has_constant_weight(c) || is_dense(c) || c.router.allow_constant_weight,                                     \
         "gatefold::config: top_k 1 with renormalised weights gives weight 1 and no router gradient; set "             \
         ".router.renorm to none or .router.allow_constant_weight to true")                                            \
    RULE(c.router.renorm == renormalise::sum_plus || c.router.renorm == renormalise::max_of ? c.router.epsilon > 0     \
                                                                                            : c.router.epsilon == 0,   \
         "gatefold::config: epsilon belongs to renormalise::sum_plus and max_of; set .router.epsilon above "           \
         "0 for them")                                                                                                 \
    RULE((c.router.renorm == renormalise::norm) ? c.router.power > 0 : c.router.power == 0,                            \
         "gatefold::config: power belongs to renormalise::norm; set .router.power above 0 for it")                     \
    RULE(c.router.from != score::softmax_selected || c.router.renorm == renormalise::none,                             \
         "gatefold::config: softmax over the selected already sums to 1; set .router.renorm to none")                  \
    RULE(c.router.from != score::softmax_selected || c.router.selection_bias != key_bias::score,                       \
         "gatefold::config: softmax over the selected gives no score to bias; choose another .router.from")            \
    RULE(c.router.second == second_expert::always || (c.top_k == 2 && c.router.select == selection::top_k),            \
         "gatefold::config: a policy for the second expert needs a top-k choice of two; set .top_k to 2 and "          \
         ".router.select to selection::top_k")                                                                         \
    RULE(c.router.select != selection::sparse_mixer || c.top_k == 2,                                                   \
         "gatefold::config: sparse_mixer makes two picks; set .top_k to 2")                                            \
    RULE((c.router.logits == projection::two_layer || c.router.logits == projection::cosine)                           \
             ? c.router.projection_width >= 1                                                                          \
             : c.router.projection_width == 0,                                                                         \
         "gatefold::config: projection_width belongs to two_layer and cosine; set it above 0 for them")                \
    RULE(c.router.select != selection::expert_choice || c.router.allow_future,                                         \
         "gatefold::config: expert choice lets a token see later ones; set .router.allow_future to true to "           \
         "accept it")                                                                                                  \
    RULE((c.router.select != selection::sinkhorn && c.router.select != selection::balanced) || c.router.allow_future,  \
         "gatefold::config: assignment over the batch lets a token see later ones; set "                               \
         ".router.allow_future to true to accept it")                                                                  \
    RULE((c.capacity.rule == capacity_rule::none) == (c.capacity == capacity_config{}),                                \
         "gatefold::config: capacity settings without a capacity; set .capacity.rule")                                 \
    RULE(c.capacity.factor > 0 || c.capacity.rule == capacity_rule::none ||                                            \
             c.capacity.rule == capacity_rule::hunyuan || c.capacity.rule == capacity_rule::deepspeed ||               \
             c.capacity.rule == capacity_rule::nllb || c.capacity.rule == capacity_rule::fixed,                        \
         "gatefold::config: a capacity rule needs a factor above 0; set .capacity.factor")                             \
    RULE((c.capacity.rule == capacity_rule::fixed) ? c.capacity.rows > 0 : c.capacity.rows == 0,                       \
         "gatefold::config: capacity.rows belongs to the fixed rule; set it above 0 for it and leave it out else")     \
    RULE(c.capacity.shared_by != capacity_group::fixed || c.capacity.group_size >= 1,                                  \
         "gatefold::config: groups of fixed size need a size; set .capacity.group_size")                               \
    RULE(c.capacity.minimum == 0 || (c.capacity.minimum > 0 && c.capacity.rule == capacity_rule::megatron),            \
         "gatefold::config: capacity.minimum belongs to the megatron rule; leave it out else")                         \
    RULE(c.capacity.alignment == 1 || (c.capacity.alignment > 1 && c.capacity.rule == capacity_rule::deepspeed),       \
         "gatefold::config: capacity.alignment belongs to the deepspeed rule; leave it at 1 else")                     \
    RULE(!c.capacity.renormalise_kept || (c.router.renorm != renormalise::none && !c.router.expert_scale),             \
         "gatefold::config: renormalise_kept needs weights that are divided by their sum and no scale per expert; "    \
         "set .router.renorm")                                                                                         \
    RULE(c.router.selection_bias == key_bias::none || c.router.select == selection::top_k,                             \
         "gatefold::config: a selection bias steers a top-k choice only; set .router.select to selection::top_k")      \
    RULE((c.router.threshold > 0) ==                                                                                   \
             (c.router.select == selection::top_p || c.router.second == second_expert::threshold ||                    \
              c.router.second == second_expert::random || c.router.second == second_expert::random_score),             \
         "gatefold::config: threshold belongs to top_p and to the second expert; set .router.threshold above 0 for "   \
         "them and leave it out else")                                                                                 \
    RULE(c.router.noise >= 0 && (c.router.noise > 0 || (c.router.transform != logit_transform::normalised &&           \
                                                        c.router.select != selection::sparse_mixer)),                  \
         "gatefold::config: noise is the deviation of normalised logits and the tolerance of sparse_mixer; set "       \
         ".router.noise above 0 for them")                                                                             \
    RULE(c.router.transform == logit_transform::none ||                                                                \
             (c.router.select != selection::sparse_mixer && c.router.select != selection::sampled),                    \
         "gatefold::config: sparse_mixer and sampled bring their own noise; set .router.transform to "                 \
         "logit_transform::none")                                                                                      \
    RULE(c.router.select != selection::sparse_mixer ||                                                                 \
             (c.router.from == score::softmax && c.router.renorm == renormalise::none &&                               \
              c.router.scores_in == precision::accumulate && !c.router.expert_scale),                                  \
         "gatefold::config: sparse_mixer has weights of its own; leave .router.from, .renorm, .scores_in and "         \
         ".expert_scale out")                                                                                          \
    RULE(c.router.select != selection::top_p || c.router.from == score::softmax,                                       \
         "gatefold::config: top_p adds up probabilities; set .router.from to score::softmax")                          \
    RULE((c.router.select == selection::positive) == (c.router.from == score::relu),                                   \
         "gatefold::config: the positive choice and the relu score belong together; set both .router.select and "      \
         ".router.from or neither")                                                                                    \
    RULE(c.router.logits != projection::none || c.router.select == selection::given ||                                 \
             c.router.select == selection::uniform,                                                                    \
         "gatefold::config: without a projection there is nothing to choose by; set .router.select to "                \
         "selection::given or uniform")                                                                                \
    RULE(c.router.select != selection::balanced || c.top_k == 1,                                                       \
         "gatefold::config: balanced assignment gives a token one expert; set .top_k to 1")                            \
    RULE(c.router.select != selection::expert_choice || !drops(c),                                                     \
         "gatefold::config: expert choice is a capacity itself; leave .capacity out or set its rule to share")         \
    RULE(c.capacity.rule != capacity_rule::share || c.router.select == selection::expert_choice,                       \
         "gatefold::config: the share rule says how many tokens an expert chooses; set .router.select to "             \
         "selection::expert_choice")                                                                                   \
    RULE(c.router.from != score::softmax_tokens ||                                                                     \
             (c.router.select == selection::expert_choice && c.router.renorm == renormalise::none &&                   \
              c.router.scores_in == precision::accumulate && !c.router.expert_scale && c.free.zero == 0),              \
         "gatefold::config: softmax over tokens is a score of expert choice alone; set .router.select to "             \
         "selection::expert_choice and leave .renorm, .scores_in, .expert_scale and .free.zero out")                   \
    RULE(c.router.acts_on != weight_at::blend ||                                                                       \
             (c.top_k == 1 && slots(c) == 1 && c.latent == 0 && choices(c) == c.experts &&                             \
              c.router.scaled == scale_at::weights && !c.router.input_times_k),                                        \
         "gatefold::config: a blend is of one expert and its token; set .top_k to 1 and leave .latent, .free, "        \
         ".scaled and .input_times_k out")                                                                             \
    RULE(c.router.learns_from == estimator::chosen ||                                                                  \
             (c.router.select == selection::top_k && c.router.renorm == renormalise::none &&                           \
              c.router.from != score::softmax_selected && c.router.scores_in == precision::accumulate &&               \
              c.router.second == second_expert::always && !c.router.expert_scale &&                                    \
              c.router.scaled == scale_at::weights && c.router.acts_on == weight_at::output && !drops(c) &&            \
              c.latent == 0 && choices(c) == c.experts),                                                               \
         "gatefold::config: an estimator is about the plain scores of a dropless top-k choice; set "                   \
         ".router.learns_from to estimator::chosen")                                                                   \
    RULE(c.router.noise_on == input_noise::jitter || has_jitter(c),                                                    \
         "gatefold::config: noise_on is about noise on the input; set .router.noise above 0, and no other noise")      \
    RULE(c.router.noise_on != input_noise::dropout || c.router.noise < 1,                                              \
         "gatefold::config: dropout takes a probability; set .router.noise below 1")                                   \
    RULE(c.latent >= 0 && (c.latent > 0 || !c.latent_norm),                                                            \
         "gatefold::config: latent_norm without a latent width; set .latent to the width the experts work "            \
         "on")                                                                                                         \
    RULE(                                                                                                              \
        choices(c) == c.experts || (c.latent == 0 && (c.free.constant == 0 || c.router.acts_on == weight_at::output)), \
        "gatefold::config: free experts stand beside experts on hidden whose weights act on the output; leave "        \
        ".latent and .router.acts_on out")                                                                             \
    RULE(!is_dense(c) || c.latent == 0, "gatefold::config: a dense layer has no latent width; leave .latent out")      \
    RULE(c.dropout >= 0 && c.dropout < 1,                                                                              \
         "gatefold::config: dropout of experts is a probability; set .dropout to 0 or more, and below 1")
/// The first rule that a configuration breaks, as a sentence; nullptr where it breaks none.
constexpr const char* fault(const config& c) {
#define GATEFOLD_RULE(test, text) \
    if (!(test)) return text;
    GATEFOLD_CONFIG_RULES(GATEFOLD_RULE)
#undef GATEFOLD_RULE
    return nullptr;
}

namespace detail {

/// Stops the build with the sentence of each rule that the configuration breaks.
template <config C>
struct checked {
    static constexpr config c = C;
#define GATEFOLD_RULE(test, text) static_assert(test, text);
    GATEFOLD_CONFIG_RULES(GATEFOLD_RULE)
#undef GATEFOLD_RULE
    static constexpr bool value = true;
};

}  // namespace detail
}  // namespace gatefold::inline v0
