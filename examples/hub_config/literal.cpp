// A configuration as the C++ expression that makes it: named routers by their name, other fields where they differ from
// what they are when left out.
#include <charconv>
#include <string_view>

#include <gatefold/moe/routers.hpp>

#include "block.hpp"

namespace hub_config {
namespace {

namespace gf = gatefold;
using R = gf::router_config;

std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(int value) { return std::to_string(value); }
bool is_whole(double value) {
    return value > -1e6 && value < 1e6 && value == static_cast<double>(static_cast<int>(value));
}
/// The shortest number that is the same float.
std::string text_of(float value) {
    if (is_whole(value)) return std::to_string(static_cast<int>(value));
    char text[32];
    const auto result = std::to_chars(text, text + sizeof text, value);
    return std::string(text, result.ptr) + "f";
}

/// The shortest number that is the same double.
std::string text_of(double value) {
    if (is_whole(value)) return std::to_string(static_cast<int>(value));
    char text[32];
    return std::string(text, std::to_chars(text, text + sizeof text, value).ptr);
}

/// The enumerator at a value's place, under the name of its type.
template <class E, std::size_t N>
std::string enumerator(const char* type, E value, const char* const (&names)[N]) {
    return std::string("gf::") + type + "::" + names[static_cast<std::size_t>(value)];
}
std::string text_of(gf::router_input v) { return enumerator("router_input", v, {"tokens", "rms_norm", "unit_length"}); }
std::string text_of(gf::projection v) { return enumerator("projection", v, {"linear", "two_layer", "cosine", "none"}); }
std::string text_of(gf::logit_transform v) {
    return enumerator("logit_transform", v, {"none", "noisy_top_k", "gaussian", "gumbel", "normalised", "residual"});
}
std::string text_of(gf::score v) {
    return enumerator(
        "score", v, {"softmax", "softmax_selected", "sigmoid", "sqrt_softplus", "identity", "relu", "softmax_tokens"});
}
std::string text_of(gf::selection v) {
    return enumerator("selection", v,
                      {"top_k", "sparse_mixer", "sampled", "top_p", "positive", "all", "given", "uniform", "sinkhorn",
                       "balanced", "expert_choice"});
}
std::string text_of(gf::key_bias v) { return enumerator("key_bias", v, {"none", "score", "logit"}); }
std::string text_of(gf::group_key v) { return enumerator("group_key", v, {"none", "max", "top2_sum", "share_sum"}); }
std::string text_of(gf::group_mask v) { return enumerator("group_mask", v, {"minus_infinity", "zero"}); }
std::string text_of(gf::second_expert v) {
    return enumerator("second_expert", v, {"always", "threshold", "random", "random_score", "sampled"});
}
std::string text_of(gf::renormalise v) {
    return enumerator("renormalise", v, {"none", "sum", "sum_plus", "max_of", "norm"});
}
std::string text_of(gf::scale_at v) { return enumerator("scale_at", v, {"weights", "output"}); }
std::string text_of(gf::weight_at v) { return enumerator("weight_at", v, {"output", "input", "blend"}); }
std::string text_of(gf::input_noise v) {
    return enumerator("input_noise", v, {"jitter", "shared_jitter", "shared_jitter_twice", "dropout"});
}
std::string text_of(gf::estimator v) {
    return enumerator("estimator", v, {"chosen", "all_experts", "straight_through"});
}
std::string text_of(gf::precision v) { return enumerator("precision", v, {"accumulate", "storage"}); }
std::string text_of(gf::capacity_rule v) {
    return enumerator("capacity_rule", v,
                      {"none", "mesh", "flaxformer", "megatron", "deepspeed", "nllb", "hunyuan", "fixed", "share"});
}
std::string text_of(gf::priority v) {
    return enumerator("priority", v, {"slot_major", "probability", "importance", "importance_sum", "position"});
}
std::string text_of(gf::offset_by v) { return enumerator("offset_by", v, {"all", "kept"}); }
std::string text_of(gf::capacity_group v) { return enumerator("capacity_group", v, {"batch", "sequence", "fixed"}); }
std::string text_of(gf::activation v) {
    return enumerator("activation", v,
                      {"swiglu", "geglu_tanh", "geglu_erf", "reglu", "bilinear", "clamped_swiglu", "limited_swiglu",
                       "situ", "relu", "relu_squared", "gelu_tanh", "gelu_erf", "silu", "identity"});
}

/// Calls f(name, member) for every field of a router, in their order.
template <class F>
void each_router_field(F&& f) {
    f("input", &R::input);
    f("logits", &R::logits);
    f("projection_width", &R::projection_width);
    f("weights", &R::weights);
    f("logits_in", &R::logits_in);
    f("scores_in", &R::scores_in);
    f("bias", &R::bias);
    f("transform", &R::transform);
    f("select", &R::select);
    f("from", &R::from);
    f("selection_bias", &R::selection_bias);
    f("groups", &R::groups);
    f("kept_groups", &R::kept_groups);
    f("group_by", &R::group_by);
    f("masked", &R::masked);
    f("second", &R::second);
    f("renorm", &R::renorm);
    f("epsilon", &R::epsilon);
    f("power", &R::power);
    f("scale", &R::scale);
    f("scaled", &R::scaled);
    f("expert_scale", &R::expert_scale);
    f("acts_on", &R::acts_on);
    f("input_times_k", &R::input_times_k);
    f("learns_from", &R::learns_from);
    f("noise", &R::noise);
    f("noise_on", &R::noise_on);
    f("threshold", &R::threshold);
    f("allow_constant_weight", &R::allow_constant_weight);
    f("allow_future", &R::allow_future);
}

struct named_router {
    const char* name;
    R router;
    std::string_view family = "";  ///< the beginning of a model_type
};
constexpr named_router named[] = {
    {"mixtral", gf::routers::mixtral, "mixtral"},
    {"qwen3", gf::routers::qwen3, "qwen3"},
    {"qwen3_next", gf::routers::qwen3_next, "qwen3_next"},
    {"minimax_01", gf::routers::minimax_01, "minimax"},
    {"arctic", gf::routers::arctic, "arctic"},
    {"olmoe", gf::routers::olmoe, "olmoe"},
    {"qwen2_moe", gf::routers::qwen2_moe, "qwen2_moe"},
    {"jamba", gf::routers::jamba, "jamba"},
    {"deepseek_moe", gf::routers::deepseek_moe, "deepseek"},
    {"deepseek_v2", gf::routers::deepseek_v2, "deepseek_v2"},
    {"deepseek_v2_lite", gf::routers::deepseek_v2_lite, "deepseek_v2"},
    {"grok", gf::routers::grok, "grok"},
    {"dbrx", gf::routers::dbrx, "dbrx"},
    {"hunyuan", gf::routers::hunyuan, "hunyuan"},
    {"ernie", gf::routers::ernie, "ernie"},
    {"gemma4", gf::routers::gemma4, "gemma4"},
    {"longcat", gf::routers::longcat, "longcat"},
    {"granite", gf::routers::granite, "granite"},
    {"gpt_oss", gf::routers::gpt_oss, "gpt_oss"},
    {"deepseek_v3", gf::routers::deepseek_v3, "deepseek_v3"},
    {"glm4_moe", gf::routers::glm4_moe, "glm4_moe"},
    {"glm4_air", gf::routers::glm4_air, "glm4_moe"},
    {"mimo_v2", gf::routers::mimo_v2, "mimo_v2"},
    {"nemotron3", gf::routers::nemotron3, "nemotron"},
    {"nemotron3_super", gf::routers::nemotron3_super, "nemotron"},
    {"kimi_k2", gf::routers::kimi_k2, "kimi"},
    {"kimi_k3", gf::routers::kimi_k3, "kimi"},
    {"step3", gf::routers::step3, "step3"},
    {"minimax_m2", gf::routers::minimax_m2, "minimax_m2"},
    {"minimax_m3", gf::routers::minimax_m3, "minimax_m3"},
    {"lfm2", gf::routers::lfm2, "lfm2"},
    {"llama4", gf::routers::llama4, "llama4"},
    {"deepseek_v4", gf::routers::deepseek_v4, "deepseek_v4"},
    {"switch_transformer", gf::routers::switch_transformer, "switch"},
    {"nllb", gf::routers::nllb, "nllb"},
    {"nllb_sampling", gf::routers::nllb_sampling, "nllb"},
    {"nllb_random", gf::routers::nllb_random, "nllb"},
    {"phi_moe", gf::routers::phi_moe, "phimoe"},
};

/// The nearest named router and the fields in which this one differs.
std::string router_text(const R& router, const std::string& family) {
    const named_router* nearest = nullptr;
    int least = 0;
    for (const named_router& candidate : named) {
        int differences = 0;
        each_router_field([&](const char*, auto field) { differences += candidate.router.*field != router.*field; });
        // Of equally near ones that with the longest own name: qwen3_next and not qwen3.
        const bool is_own = !candidate.family.empty() && family.starts_with(candidate.family);
        const int distance = 64 * differences + (is_own ? 63 - static_cast<int>(candidate.family.size()) : 63);
        if (nearest != nullptr && distance >= least) continue;
        nearest = &candidate;
        least = distance;
    }
    const std::string name = std::string("gf::routers::") + nearest->name;
    if (nearest->router == router) return name;
    std::string changes;
    each_router_field([&](const char* field_name, auto field) {
        if (nearest->router.*field != router.*field)
            changes += std::string(", &gf::router_config::") + field_name + ", " + text_of(router.*field);
    });
    return "gf::with(" + name + changes + ")";
}

/// Designated initialisers of the fields that were not left out.
struct initialisers {
    std::string text;
    void put(const char* name, const std::string& value) {
        text += std::string(text.empty() ? "." : ", .") + name + " = " + value;
    }
    template <class T>
    void add(const char* name, const T& value, const T& when_left_out) {
        if (value != when_left_out) put(name, text_of(value));
    }
};

std::string capacity_text(const gf::capacity_config& c) {
    const gf::capacity_config plain{};
    initialisers i;
    i.add("rule", c.rule, plain.rule);
    i.add("factor", c.factor, plain.factor);
    i.add("minimum", c.minimum, plain.minimum);
    i.add("rows", c.rows, plain.rows);
    i.add("alignment", c.alignment, plain.alignment);
    i.add("keeps", c.keeps, plain.keeps);
    i.add("behind", c.behind, plain.behind);
    i.add("shared_by", c.shared_by, plain.shared_by);
    i.add("group_size", c.group_size, plain.group_size);
    i.add("renormalise_kept", c.renormalise_kept, plain.renormalise_kept);
    return "{" + i.text + "}";
}

std::string shared_text(const gf::shared_config& c) {
    const gf::shared_config plain{};
    initialisers i;
    i.add("ffn", c.ffn, plain.ffn);
    i.add("gate", c.gate, plain.gate);
    i.add("act", c.act, plain.act);
    i.add("limit", c.limit, plain.limit);
    i.add("bias", c.bias, plain.bias);
    return "{" + i.text + "}";
}

}  // namespace

std::string literal_of(const gf::config& c, const std::string& family) {
    const gf::config plain{};
    initialisers i;
    i.put("hidden", text_of(c.hidden));
    i.put("ffn", text_of(c.ffn));
    i.add("experts", c.experts, plain.experts);
    i.add("top_k", c.top_k, plain.top_k);
    i.add("act", c.act, plain.act);
    i.add("limit", c.limit, plain.limit);
    i.add("bias", c.bias, plain.bias);
    if (c.router != plain.router) i.put("router", router_text(c.router, family));
    if (c.capacity != plain.capacity) i.put("capacity", capacity_text(c.capacity));
    if (c.shared != plain.shared) i.put("shared", shared_text(c.shared));
    if (c.free != plain.free) {
        initialisers free;
        free.add("constant", c.free.constant, 0);
        free.add("copy", c.free.copy, 0);
        free.add("zero", c.free.zero, 0);
        i.put("free", "{" + free.text + "}");
    }
    i.add("latent", c.latent, plain.latent);
    i.add("latent_norm", c.latent_norm, plain.latent_norm);
    i.add("dropout", c.dropout, plain.dropout);
    return "gf::config{" + i.text + "}";
}

}  // namespace hub_config
