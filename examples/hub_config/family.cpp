// What several families say in the same fields.
#include "family.hpp"

#include <algorithm>

namespace hub_config {

namespace {

/// Counts the layers whose entry in a list of one entry per layer stands for experts.
template <class Test>
int count_in(fields& f, const char* name, int layers, Test&& is_sparse) {
    int sparse = 0;
    for (const auto& entry : f.list(name)) sparse += is_sparse(entry) ? 1 : 0;
    if (static_cast<int>(f.list(name).size()) != layers)
        f.fault(name, "expected one entry per layer, got " + std::to_string(f.list(name).size()));
    return sparse;
}

}  // namespace

activation gated(fields& f, const std::string& name) {
    const std::string act = f.text(name);
    if (act == "silu" || act == "swish") return activation::swiglu;
    if (act == "gelu_pytorch_tanh" || act == "gelu_new") return activation::geglu_tanh;
    if (act == "gelu") return activation::geglu_erf;
    if (act == "relu") return activation::reglu;
    if (act == "situ") {
        f.expect("activation_situ_beta", 4.0);
        f.expect("activation_situ_linear_beta", 25.0);
        return activation::situ;
    }
    if (!act.empty()) f.fault(name, "no gated activation of the library is called " + act);
    return activation::swiglu;
}

activation plain(fields& f, const std::string& name) {
    const std::string act = f.text(name);
    if (act == "relu") return activation::relu;
    if (act == "relu2") return activation::relu_squared;
    if (act == "gelu") return activation::gelu_erf;
    if (act == "gelu_new" || act == "gelu_pytorch_tanh") return activation::gelu_tanh;
    if (act == "silu") return activation::silu;
    if (!act.empty()) f.fault(name, "no activation of the library is called " + act);
    return activation::relu;
}

void count_layers(fields& f, block& b, const char* layers) {
    b.layers = f.integer(layers);
    b.sparse = b.layers;
    std::string first;
    const auto set = [&](const char* name, int sparse) {
        if (!first.empty() && sparse != b.sparse)
            f.fault(name, "counts " + std::to_string(sparse) + " blocks with experts, " + first + " " +
                              std::to_string(b.sparse));
        if (sparse < 0 || sparse > b.layers) f.fault(name, "contradicts " + std::string(layers));
        first = name;
        b.sparse = sparse;
    };
    const auto set_each = [&](const char* name, auto&& is_sparse) {
        int sparse = 0;
        for (int l = 0; l < b.layers; ++l) sparse += is_sparse(l) ? 1 : 0;
        set(name, sparse);
    };
    for (const char* name : {"first_k_dense_replace", "num_dense_layers"})
        if (f.has(name)) set(name, b.layers - f.integer_or(name, 0));
    if (f.has("mlp_layer_types"))
        set("mlp_layer_types",
            count_in(f, "mlp_layer_types", b.layers, [](const auto& type) { return type != "dense"; }));
    if (f.has("moe_layers")) set("moe_layers", static_cast<int>(f.list("moe_layers").size()));
    if (f.has("interleave_moe_layer_step"))
        set("interleave_moe_layer_step", b.layers / f.integer("interleave_moe_layer_step"));
    if (f.has("expert_layer_period")) {
        const int period = f.integer("expert_layer_period"), offset = f.integer("expert_layer_offset", 0);
        set_each("expert_layer_period", [&](int l) { return l % period == offset; });
    }
    if (f.has("moe_layer_interval")) {
        const int interval = f.integer("moe_layer_interval"), start = f.integer("moe_layer_start_index", 0),
                  end = f.integer_or("moe_layer_end_index", b.layers - 1, -1);
        set_each("moe_layer_interval",
                 [&](int l) { return (l + 1) % interval == 0 && l >= start && (l <= end || end < 0); });
    }
    if (f.has("moe_layer_freq") && f.at("moe_layer_freq").is_array())
        set("moe_layer_freq", count_in(f, "moe_layer_freq", b.layers, [](const auto& entry) { return entry != 0; }));
    else
        f.expect("moe_layer_freq", 1);
    if (f.has("decoder_sparse_step") || f.has("mlp_only_layers")) {
        const int step = f.integer_or("decoder_sparse_step", 1, 1);
        const auto& dense = f.list("mlp_only_layers");
        set_each("decoder_sparse_step",
                 [&](int l) { return (l + 1) % step == 0 && std::find(dense.begin(), dense.end(), l) == dense.end(); });
    }
}

void shape(fields& f, block& b, const char* ffn, std::initializer_list<const char*> experts,
           std::initializer_list<const char*> top_k) {
    b.c.hidden = f.integer("hidden_size");
    b.c.ffn = f.integer(ffn);
    b.c.experts = f.one_of(experts);
    b.c.top_k = f.one_of(top_k);
    if (f.is_sound() && b.c.top_k > b.c.experts) f.fault(*top_k.begin(), "more experts per token than there are");
}

void jitter(fields& f, block& b) {
    if (f.has("router_jitter_noise")) b.c.router.noise = static_cast<float>(f.number("router_jitter_noise"));
    if (b.c.router.noise < 0) f.fault("router_jitter_noise", "expected zero or more");
}

void shared_jitter(fields& f, block& b) {
    jitter(f, b);
    if (b.c.router.noise > 0) b.c.router.noise_on = gf::input_noise::shared_jitter;
}

void shared_experts(fields& f, block& b, const char* count, int width) {
    const int n = f.integer_or(count, 0);
    if (n > most / width) return f.fault(count, "too many of this width");
    if (n > 0) b.c.shared = {.ffn = n * width, .act = b.c.act, .limit = b.c.limit};
}

void groups(fields& f, block& b, const char* count, gf::group_key key) {
    const int n = f.integer_or(count, 1, 1), kept = f.integer_or("topk_group", 1, 1);
    R& r = b.c.router;
    r.groups = n;
    r.kept_groups = n > 1 ? kept : 1;
    r.group_by = n > 1 ? key : gf::group_key::none;
    if (kept > n) f.fault("topk_group", "more groups kept than " + std::string(count));
    if (b.c.experts % n != 0) f.fault(count, "the experts are no multiple of it");
}

void scale(fields& f, block& b) { b.c.router.scale = f.number("routed_scaling_factor"); }

}  // namespace hub_config
