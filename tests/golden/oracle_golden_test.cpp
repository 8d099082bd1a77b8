// The oracle against reference implementations: one block alone with all gradients, losses, top-2 capacity routing, and
// the blocks of whole models whose routers have something of their own. Skipped with a message where the files are not
// at hand.
#include <string>
#include <utility>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <tests/oracle.hpp>
#include <tests/oracle/safetensors.hpp>

#include "golden_path.hpp"

namespace {

using namespace oracle;
using golden_data::golden_path;

/// max|a − b| ≤ tolerance · max|b| over the tensor.
void check_close(const values& got, const values& expected, const std::string& what, double tolerance = 1e-11) {
    BOOST_REQUIRE_MESSAGE(got.size() == expected.size(),
                          what << ": " << got.size() << " values, expected " << expected.size());
    double error = 0, scale = 0;
    for (natural i = 0; i < got.size(); ++i) {
        error = std::max(error, std::fabs(got[i] - expected[i]));
        scale = std::max(scale, std::fabs(expected[i]));
        if (std::isnan(got[i])) error = infinity;
    }
    BOOST_CHECK_MESSAGE(error <= tolerance * scale, what << ": error " << error << " of " << scale);
}

/// A block: the layer, how the file's names map to ours (for params and grads alike), and its inputs.
struct block {
    std::string name;
    oracle::layer layer;
    parameters (*load)(const oracle::layer&, const tensor_file&, const std::string& prefix) = nullptr;
    tensor_file file;

    natural dimension(const std::string& tensor, natural i) const { return file.at(tensor).shape.at(i); }
};

block open_block(const std::string& name) {
    block b;
    b.name = name;
    b.file = read_safetensors(golden_path("gradients/blocks/" + name + ".safetensors"));
    b.layer.hidden = b.dimension("x", 1);
    b.layer.experts = b.dimension("router.logits", 1);
    b.layer.router.top_k = b.dimension("router.ids", 1);
    b.layer.router.scale = b.file.number("routed_scaling_factor", 1);
    b.layer.router.groups = static_cast<natural>(b.file.number("n_group", 1));
    b.layer.router.top_groups = static_cast<natural>(b.file.number("topk_group", 1));
    return b;
}

values first_of(const tensor_file& f, const std::vector<std::string>& names) {
    for (const std::string& n : names)
        if (f.has(n)) return f.get(n);
    return {};
}

/// Hub names of most families: fused experts [E, 2F, H], shared experts as linear layers.
parameters load_fused(const layer& l, const tensor_file& f, const std::string& p) {
    parameters w;
    w.router = first_of(f, {p + "gate.weight", p + "router.weight", p + "router.classifier.weight"});
    w.selection_bias = first_of(f, {p + "gate.e_score_correction_bias", p + "gate.moe_statics.e_score_correction_bias",
                                    p + "router.e_score_correction_bias"});
    w.gate_up = first_of(f, {p + "experts.gate_up_proj", p + "experts.up_proj"});
    w.down = f.get(p + "experts.down_proj");
    w.gate_up.resize(l.experts * (l.gated ? 2 : 1) * l.ffn * l.expert_width());  // LongCat stores unused rows
    w.latent_down = f.get(p + "fc1_latent_proj.weight");
    w.latent_up = f.get(p + "fc2_latent_proj.weight");
    const std::string shared = f.has(p + "shared_expert.up_proj.weight") ? "shared_expert." : "shared_experts.";
    const values up = f.get(p + shared + "up_proj.weight"), gate = f.get(p + shared + "gate_proj.weight");
    w.shared_gate_up = gate.empty() ? up : stacked(gate, up, 1);
    w.shared_down = f.get(p + shared + "down_proj.weight");
    w.shared_gate = f.get(p + "shared_expert_gate.weight");
    return w;
}

/// gpt-oss: [E, H, 2F] with interleaved gate and up, biases everywhere.
parameters load_gpt_oss(const layer& l, const tensor_file& f, const std::string& p) {
    parameters w;
    w.router = f.get(p + "router.weight");
    w.router_bias = f.get(p + "router.bias");
    w.gate_up = gate_rows_first(transposed(f.get(p + "experts.gate_up_proj"), l.experts, l.hidden, 2 * l.ffn),
                                l.experts, l.ffn, l.hidden);
    w.gate_up_bias = gate_rows_first(f.get(p + "experts.gate_up_proj_bias"), l.experts, l.ffn, 1);
    w.down = transposed(f.get(p + "experts.down_proj"), l.experts, l.ffn, l.hidden);
    w.down_bias = f.get(p + "experts.down_proj_bias");
    return w;
}

/// Llama-4: [E, H, 2F], gate columns first.
parameters load_llama4(const layer& l, const tensor_file& f, const std::string& p) {
    parameters w = load_fused(l, f, p);
    w.gate_up = transposed(f.get(p + "experts.gate_up_proj"), l.experts, l.hidden, 2 * l.ffn);
    w.down = transposed(f.get(p + "experts.down_proj"), l.experts, l.ffn, l.hidden);
    return w;
}

/// DBRX: w1, v1 [E·F, H]; w2 [E·F, H] used transposed.
parameters load_dbrx(const layer& l, const tensor_file& f, const std::string& p) {
    parameters w;
    w.router = f.get(p + "router.layer.weight");
    w.gate_up = stacked(f.get(p + "experts.mlp.w1"), f.get(p + "experts.mlp.v1"), l.experts);
    w.down = transposed(f.get(p + "experts.mlp.w2"), l.experts, l.ffn, l.hidden);
    return w;
}

/// Switch: one linear layer pair per expert.
parameters load_switch(const layer& l, const tensor_file& f, const std::string& p) {
    parameters w;
    w.router = f.get(p + "router.classifier.weight");
    for (natural e = 0; e < l.experts; ++e) {
        const std::string name = p + "experts.expert_" + std::to_string(e);
        const values up = f.get(name + ".wi.weight"), down = f.get(name + ".wo.weight");
        w.gate_up.insert(w.gate_up.end(), up.begin(), up.end());
        w.down.insert(w.down.end(), down.begin(), down.end());
    }
    return w;
}

// ---- the nineteen blocks --------------------------------------------------------------------------------------------

natural shared_width(const block& b) {
    for (const char* name : {"param.shared_experts.up_proj.weight", "param.shared_expert.up_proj.weight"})
        if (b.file.has(name)) return b.dimension(name, 0);
    return 0;
}

block fused_block(const std::string& name) {
    block b = open_block(name);
    b.load = load_fused;
    b.layer.ffn = b.dimension("param.experts.down_proj", 2);
    b.layer.shared_ffn = shared_width(b);
    return b;
}

block softmax_block(const std::string& name, renormalise_kind renormalise) {
    block b = fused_block(name);
    b.layer.router.renormalise = renormalise;
    return b;
}

block bias_block(const std::string& name, score_kind score) {
    block b = fused_block(name);
    b.layer.router.score = score;
    b.layer.router.group_score = group_score_kind::top2_sum;
    b.layer.router.renormalise = renormalise_kind::sum_plus_epsilon;
    return b;
}

block deepseek_v2_block() {
    block b = softmax_block("deepseek_v2", renormalise_kind::none);
    b.layer.router.mask_zero = true;
    return b;
}

block deepseek_v4_block() {
    block b = bias_block("deepseek_v4", score_kind::sqrt_softplus);
    b.layer.activation = {.kind = activation_kind::clamped_silu, .limit = b.file.number("swiglu_limit", 10)};
    b.layer.shared_activation = b.layer.activation;
    return b;
}

block ernie_block() {
    block b = softmax_block("ernie4_5_moe", renormalise_kind::clamped_sum);
    b.layer.router.epsilon = b.file.number("moe_norm_min", 1e-12);
    return b;
}

block selected_block(const std::string& name) {
    block b = fused_block(name);
    b.layer.router.score = score_kind::softmax_selected;
    return b;
}

block gpt_oss_block() {
    block b = open_block("gpt_oss");
    b.load = load_gpt_oss;
    b.layer.ffn = b.dimension("param.experts.down_proj", 1);
    b.layer.router.score = score_kind::softmax_selected;
    b.layer.activation = {.kind = activation_kind::clamped_swiglu,
                          .alpha = b.file.number("swiglu_alpha", 1.702),
                          .limit = b.file.number("swiglu_limit", 7)};
    return b;
}

block llama4_block() {
    block b = open_block("llama4");
    b.load = load_llama4;
    b.layer.ffn = b.dimension("param.experts.down_proj", 1);
    b.layer.shared_ffn = shared_width(b);
    b.layer.router.score = score_kind::sigmoid;
    b.layer.weight_on_input = true;
    return b;
}

block longcat_block() {
    block b = fused_block("longcat_zero_experts");
    const auto zero = static_cast<natural>(b.file.number("zero_expert_num", 0));
    b.layer.experts -= zero;
    b.layer.router.identities = zero;
    return b;
}

block nemotron_block() {
    block b = bias_block("nemotron_h_latent", score_kind::sigmoid);
    b.layer.latent = b.dimension("param.fc1_latent_proj.weight", 0);
    b.layer.gated = b.layer.shared_gated = false;
    b.layer.activation.kind = b.layer.shared_activation.kind = activation_kind::relu_squared;
    return b;
}

block dbrx_block() {
    block b = open_block("dbrx");
    b.load = load_dbrx;
    b.layer.ffn = b.dimension("param.experts.mlp.w1", 0) / b.layer.experts;
    b.layer.router.renormalise = renormalise_kind::norm;
    return b;
}

block phi_block(const std::string& name) {
    block b = fused_block(name);
    b.layer.router.select = select_kind::sparse_mixer;
    b.layer.router.mixer_epsilon = b.file.number("router_jitter_noise", 0.01);
    return b;
}

block switch_block() {
    block b = open_block("switch_capacity");
    b.load = load_switch;
    b.layer.ffn = b.dimension("param.experts.expert_0.wi.weight", 0);
    b.layer.gated = false;
    b.layer.activation.kind = activation_kind::relu;
    b.layer.router.capacity.kind = capacity_kind::fixed;
    b.layer.router.capacity.fixed = static_cast<natural>(b.file.number("expert_capacity", 0));
    return b;
}

// ---- checks ---------------------------------------------------------------------------------------------------------

/// Ids and weights per token as sets; the reference's slot order is its own.
values as_matrix(const ints& ids, const values& weights, natural tokens, natural slots, natural choices) {
    values m(tokens * choices, 0.0);
    for (natural i = 0; i < ids.size(); ++i)
        if (ids[i] >= 0) m[i / slots * choices + to_index(ids[i])] += weights[i];
    return m;
}

/// Training-mode SparseMixer samples: the ids and c of the file are the draws.
batch batch_of(const block& b) {
    batch in;
    in.tokens = b.dimension("x", 0);
    in.x = b.file.get("x");
    if (b.file.has("router.c")) {
        in.training = true;
        in.chosen = b.file.at("router.ids").integers();
        for (double c : b.file.get("router.c")) in.uniform.push_back(c == 1 ? 1.0 : 0.0);
    }
    return in;
}

void check_block(const block& b) {
    const parameters p = b.load(b.layer, b.file, "param."), expected = b.load(b.layer, b.file, "grad.");
    const batch in = batch_of(b);
    const result r = forward(b.layer, p, in);
    const values dy = b.file.get("dy");
    const gradients g = backward(b.layer, p, in, r, dy);
    const natural slots = b.layer.slots(), choices = b.layer.choices();
    const auto matrix = [&](const values& w, const ints& ids) { return as_matrix(ids, w, in.tokens, slots, choices); };
    const ints ids = b.file.at("router.ids").integers();

    check_close(r.routing.logits, b.file.get("router.logits"), b.name + " logits");
    check_close(matrix(values(ids.size(), 1), r.routing.ids), matrix(values(ids.size(), 1), ids), b.name + " ids", 0);
    check_close(matrix(r.routing.weights, r.routing.ids), matrix(b.file.get("router.weights"), ids),
                b.name + " weights");
    if (b.file.has("router.q")) check_close(r.routing.base, b.file.get("router.q"), b.name + " q");
    if (b.file.has("router.c")) check_close(r.routing.factor, b.file.get("router.c"), b.name + " c", 0);
    check_close(r.y, b.file.get("y"), b.name + " y");
    check_close(g.x, b.file.get("dx"), b.name + " dx");
    check_close(g.logits, b.file.get("grad.router.logits"), b.name + " dlogits");
    check_close(matrix(g.weights, r.routing.ids), matrix(b.file.get("grad.router.weights"), ids), b.name + " dweights");
    for_each_parameter([&](const char* name, auto member) {
        if (!(p.*member).empty() && std::string(name) != "selection_bias")
            check_close(g.parameters.*member, expected.*member, b.name + " grad " + name);
    });
}

// ---- losses and top-2 capacity --------------------------------------------------------------------------------------

constexpr natural loss_tokens = 21, loss_experts = 6;

/// Layers stacked as more tokens; softmax probabilities and their top-k.
loss_input stacked_layers(const std::vector<values>& logits, natural k, const values& mask) {
    loss_input in;
    in.experts = loss_experts;
    in.k = k;
    for (const values& z : logits) {
        const values p = aux_probabilities(score_kind::softmax, z, loss_tokens, loss_experts);
        in.p.insert(in.p.end(), p.begin(), p.end());
        in.mask.insert(in.mask.end(), mask.begin(), mask.end());
        in.tokens += loss_tokens;
    }
    in.ids = top_k_rows(in.p, in.tokens, in.experts, k);
    return in;
}

void check_hf_loss(const tensor_file& f, natural k, bool masked) {
    const std::vector<values> logits = {f.get("logits.0"), f.get("logits.1")};
    const std::string name = "hf.k" + std::to_string(k) + (masked ? ".masked" : "");
    const loss out = hf_loss(stacked_layers(logits, k, masked ? f.get("mask") : values{}));
    check_close({out.value}, f.get(name + ".loss"), name);
    for (natural l = 0; l < 2; ++l) {
        const auto begin = out.dp.begin() + static_cast<std::ptrdiff_t>(l * loss_tokens * loss_experts);
        const values dp(begin, begin + static_cast<std::ptrdiff_t>(loss_tokens * loss_experts));
        check_close(to_logits(score_kind::softmax, logits[l], loss_tokens, loss_experts, dp),
                    f.get(name + ".grad." + std::to_string(l)), name + " gradient");
    }
}

/// The NLLB router on given logits: the router's weight is the identity.
void check_top2(const tensor_file& f, bool after, bool by_priority) {
    const natural experts = f.at("logits").shape[1];
    layer l{.hidden = experts, .ffn = 1, .experts = experts};
    l.router.top_k = 2;
    l.router.renormalise = renormalise_kind::clamped_sum;
    l.router.epsilon = std::numeric_limits<double>::epsilon();
    l.router.renormalise_after_drop = after;
    l.router.capacity = {.kind = capacity_kind::fixed, .fixed = static_cast<natural>(f.number("capacity", 0))};
    if (by_priority) l.router.capacity.priority = priority_kind::batch_top1;
    parameters p;
    p.router.assign(experts * experts, 0.0);
    for (natural e = 0; e < experts; ++e) p.router[e * experts + e] = 1;
    batch b{.tokens = f.at("logits").shape[0], .x = f.get("logits")};

    const routing r = route(l, p, b, b.x);
    const std::string name =
        std::string(after ? "normalise_after" : "normalise_before") + (by_priority ? ".priority" : ".arrival");
    check_close(as_matrix(r.ids, r.weights, b.tokens, 2, experts), f.get(name + ".gates"), name + " gates");
    values first(b.tokens * experts, 0.0);
    for (natural t = 0; t < b.tokens; ++t)
        if (r.ids[2 * t] >= 0) first[t * experts + to_index(r.ids[2 * t])] = 1;
    check_close(first, f.get(name + ".first"), name + " first", 0);
}

// ---- blocks of whole models, forward in float64 ---------------------------------------------------------------------

/// models/NAME: weights of the block under `prefix`, golden values, and the layer's shape so far.
struct model_block {
    tensor_file weights, golden;
    std::string prefix;
    oracle::layer layer;
    parameters p;

    values get(const std::string& name) const { return weights.at(prefix + name).data; }
};

model_block open_model(const std::string& name, const std::string& prefix, natural ffn) {
    const std::string folder = golden_path("models/" + name);
    model_block m{read_safetensors(folder + "/model.safetensors"),
                  read_safetensors(folder + "/golden.safetensors"),
                  prefix,
                  {},
                  {}};
    m.layer.ffn = ffn;
    m.layer.hidden = m.golden.at(m.golden.has("block.input64") ? "block.input64" : "experts.input64").shape[1];
    m.layer.experts = m.golden.at(m.golden.has("router.logits64") ? "router.logits64" : "router.probs64").shape[1];
    m.layer.router.top_k = m.golden.has("router.ids") ? m.golden.at("router.ids").shape[1] : 2;
    return m;
}

void append(values& to, const values& from) { to.insert(to.end(), from.begin(), from.end()); }

/// Per-expert tensors `experts.N` + names; an empty gate name is an expert without one.
void load_experts(model_block& m, const std::string& expert, const std::string& gate, const std::string& up,
                  const std::string& down, bool biases = false) {
    for (natural e = 0; e < m.layer.experts; ++e) {
        const std::string name = expert + std::to_string(e) + ".";
        if (!gate.empty()) append(m.p.gate_up, m.get(name + gate + ".weight"));
        append(m.p.gate_up, m.get(name + up + ".weight"));
        append(m.p.down, m.get(name + down + ".weight"));
        if (biases) append(m.p.gate_up_bias, m.get(name + up + ".bias"));
        if (biases) append(m.p.down_bias, m.get(name + down + ".bias"));
    }
}

void load_shared(model_block& m, natural width) {
    m.layer.shared_ffn = width;
    m.layer.shared_activation = m.layer.activation;
    m.p.shared_gate_up = stacked(m.get("shared_experts.gate_proj.weight"), m.get("shared_experts.up_proj.weight"), 1);
    m.p.shared_down = m.get("shared_experts.down_proj.weight");
}

void check_model(const model_block& m, const std::string& name, bool experts_alone = false) {
    batch b;
    const std::string side = experts_alone ? "experts" : "block";
    b.x = m.golden.get(side + ".input64");
    b.router_input = experts_alone ? m.golden.get("router.input64") : values{};
    b.tokens = b.x.size() / m.layer.hidden;
    const result r = forward(m.layer, m.p, b);
    check_close(r.y, m.golden.get(side + ".output64"), name + " y");
    if (m.golden.has("router.logits64"))
        check_close(r.routing.logits, m.golden.get("router.logits64"), name + " logits");
    if (m.golden.has("router.probs64")) check_close(r.routing.scores, m.golden.get("router.probs64"), name + " scores");
    const auto matrix = [&](const values& w, const ints& ids) {
        return as_matrix(ids, w, b.tokens, m.layer.slots(), m.layer.choices());
    };
    const values got = matrix(r.routing.weights, r.routing.ids);
    if (m.golden.has("router.dense_weights64")) {
        check_close(got, m.golden.get("router.dense_weights64"), name + " weights");
        return;
    }
    const ints ids = m.golden.at("router.ids").integers();
    check_close(got, matrix(m.golden.get("router.weights64"), ids), name + " weights");
    check_close(matrix(values(ids.size(), 1), r.routing.ids), matrix(values(ids.size(), 1), ids), name + " ids", 0);
}

/// Scale after the combine, split clamped SwiGLU, shared expert clamped too.
void check_minimax_m3() {
    model_block m = open_model("minimax_m3", "language_model.model.layers.1.block_sparse_moe.", 16);
    m.layer.activation.kind = activation_kind::clamped_swiglu;
    m.layer.router.score = score_kind::sigmoid;
    m.layer.router.renormalise = renormalise_kind::sum;
    m.layer.router.scale = 2;
    m.layer.router.scale_after_combine = true;
    m.p.router = m.get("gate.weight");
    m.p.selection_bias = m.get("e_score_correction_bias");
    load_experts(m, "experts.", "w1", "w3", "w2");
    load_shared(m, 20);
    check_model(m, "minimax_m3");
}

/// Negative keys: a group mask of 0.0 would choose other experts for every token.
void check_negative_keys() {
    model_block m = open_model("deepseek_v3_negative_keys", "model.layers.1.mlp.", 12);
    m.layer.router.score = score_kind::sigmoid;
    m.layer.router.renormalise = renormalise_kind::sum_plus_epsilon;
    m.layer.router.scale = 2.5;
    m.layer.router.groups = 4;
    m.layer.router.top_groups = 2;
    m.layer.router.group_score = group_score_kind::top2_sum;
    m.p.router = m.get("gate.weight");
    m.p.selection_bias = m.get("gate.e_score_correction_bias");
    load_experts(m, "experts.", "gate_proj", "up_proj", "down_proj");
    load_shared(m, 12);
    check_model(m, "deepseek_v3_negative_keys");
}

void check_lfm2() {
    model_block m = open_model("lfm2_moe", "model.layers.2.feed_forward.", 24);
    m.layer.router.score = score_kind::sigmoid;
    m.layer.router.renormalise = renormalise_kind::sum_plus_epsilon;
    m.layer.router.epsilon = 1e-6;
    m.layer.router.scale = 1.5;
    m.p.router = m.get("gate.weight");
    m.p.selection_bias = m.get("expert_bias");
    load_experts(m, "experts.", "w1", "w3", "w2");
    check_model(m, "lfm2_moe");
}

/// Normed and scaled router input of its own, a scale per expert.
void check_gemma4() {
    model_block m = open_model("gemma4", "model.layers.2.", 20);
    m.layer.activation.kind = activation_kind::gelu_tanh;
    m.layer.router.input = input_kind::rms_norm;
    m.layer.router.renormalise = renormalise_kind::sum;
    m.p.router = m.get("router.proj.weight");
    m.p.router_scale = m.get("router.scale");
    m.p.expert_scale = m.get("router.per_expert_scale");
    m.p.gate_up = m.get("experts.gate_up_proj");
    m.p.down = m.get("experts.down_proj");
    check_model(m, "gemma4", true);
}

/// Evaluation capacity ⌈0.42·T⌉, renormalised after dropping, outputs × 0.8.
void check_nllb() {
    model_block m = open_model("nllb_moe", "model.decoder.layers.1.ffn.", 40);
    m.layer.gated = false;
    m.layer.activation.kind = activation_kind::relu;
    m.layer.output_scale = 0.8;
    m.layer.router.renormalise = renormalise_kind::clamped_sum;
    m.layer.router.epsilon = std::numeric_limits<double>::epsilon();
    m.layer.router.renormalise_after_drop = true;
    m.layer.router.capacity = {.kind = capacity_kind::nllb, .eval_fraction = 0.42};
    m.p.router = m.get("router.classifier.weight");
    load_experts(m, "experts.expert_", "", "fc1", "fc2", true);
    check_model(m, "nllb_moe");
}

/// Capacity 5 in each batch row.
void check_switch() {
    model_block m = open_model("switch", "decoder.block.1.layer.2.mlp.", 0);
    m.layer.ffn = m.weights.at(m.prefix + "experts.expert_0.wi.weight").shape[0];
    m.layer.gated = false;
    m.layer.activation.kind = activation_kind::relu;
    m.layer.router.capacity = {
        .kind = capacity_kind::fixed, .fixed = 5, .group = m.golden.at("decoder_input_ids").shape[1]};
    m.p.router = m.get("router.classifier.weight");
    load_experts(m, "experts.expert_", "", "wi", "wo");
    check_model(m, "switch");
}

void run_model(const std::string& name, void (*check_one)()) {
    if (!golden_path("models/" + name + "/golden.safetensors").empty()) check_one();
}

template <class Make>
void run(const std::string& name, Make make) {
    if (!golden_path("gradients/blocks/" + name + ".safetensors").empty()) check_block(make());
}

}  // namespace

BOOST_AUTO_TEST_SUITE(golden)
BOOST_AUTO_TEST_SUITE(oracle_golden)
BOOST_AUTO_TEST_SUITE(blocks)

BOOST_AUTO_TEST_CASE(mixtral) {
    run("mixtral", [] { return softmax_block("mixtral", renormalise_kind::sum); });
}
BOOST_AUTO_TEST_CASE(mixtral_empty_experts) {
    run("mixtral_empty_experts", [] { return softmax_block("mixtral_empty_experts", renormalise_kind::sum); });
}
BOOST_AUTO_TEST_CASE(qwen3_moe) {
    run("qwen3_moe", [] { return softmax_block("qwen3_moe", renormalise_kind::sum); });
}
BOOST_AUTO_TEST_CASE(qwen3_next) {
    run("qwen3_next", [] { return softmax_block("qwen3_next", renormalise_kind::sum); });
}
BOOST_AUTO_TEST_CASE(olmoe) {
    run("olmoe", [] { return softmax_block("olmoe", renormalise_kind::none); });
}
BOOST_AUTO_TEST_CASE(jamba) {
    run("jamba", [] { return softmax_block("jamba", renormalise_kind::none); });
}
BOOST_AUTO_TEST_CASE(dbrx) {
    run("dbrx", [] { return dbrx_block(); });
}
BOOST_AUTO_TEST_CASE(granitemoe) {
    run("granitemoe", [] { return selected_block("granitemoe"); });
}
BOOST_AUTO_TEST_CASE(gpt_oss) {
    run("gpt_oss", [] { return gpt_oss_block(); });
}
BOOST_AUTO_TEST_CASE(deepseek_v2) {
    run("deepseek_v2", [] { return deepseek_v2_block(); });
}
BOOST_AUTO_TEST_CASE(deepseek_v3) {
    run("deepseek_v3", [] { return bias_block("deepseek_v3", score_kind::sigmoid); });
}
BOOST_AUTO_TEST_CASE(deepseek_v4) {
    run("deepseek_v4", [] { return deepseek_v4_block(); });
}
BOOST_AUTO_TEST_CASE(ernie4_5_moe) {
    run("ernie4_5_moe", [] { return ernie_block(); });
}
BOOST_AUTO_TEST_CASE(llama4) {
    run("llama4", [] { return llama4_block(); });
}
BOOST_AUTO_TEST_CASE(longcat_zero_experts) {
    run("longcat_zero_experts", [] { return longcat_block(); });
}
BOOST_AUTO_TEST_CASE(nemotron_h_latent) {
    run("nemotron_h_latent", [] { return nemotron_block(); });
}
BOOST_AUTO_TEST_CASE(phimoe_eval) {
    run("phimoe_eval", [] { return phi_block("phimoe_eval"); });
}
BOOST_AUTO_TEST_CASE(phimoe_train) {
    run("phimoe_train", [] { return phi_block("phimoe_train"); });
}
BOOST_AUTO_TEST_CASE(switch_capacity) {
    run("switch_capacity", [] { return switch_block(); });
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(models)

BOOST_AUTO_TEST_CASE(minimax_m3) { run_model("minimax_m3", check_minimax_m3); }
BOOST_AUTO_TEST_CASE(deepseek_v3_negative_keys) { run_model("deepseek_v3_negative_keys", check_negative_keys); }
BOOST_AUTO_TEST_CASE(lfm2_moe) { run_model("lfm2_moe", check_lfm2); }
BOOST_AUTO_TEST_CASE(gemma4) { run_model("gemma4", check_gemma4); }
BOOST_AUTO_TEST_CASE(nllb_moe) { run_model("nllb_moe", check_nllb); }
BOOST_AUTO_TEST_CASE(switch_rows) { run_model("switch", check_switch); }

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_CASE(losses) {
    if (golden_path("gradients/losses.safetensors").empty()) return;
    const tensor_file f = read_safetensors(golden_path("gradients/losses.safetensors"));
    for (natural k = 1; k <= 3; ++k)
        for (bool masked : {false, true}) check_hf_loss(f, k, masked);

    const values logits = f.get("logits.0");
    const loss z = z_loss(logits, loss_tokens, loss_experts, 1);
    check_close({z.value}, f.get("z_loss.loss"), "z loss");
    check_close(z.dp, f.get("z_loss.grad.0"), "z loss gradient");

    const loss grouped = flaxformer_loss(stacked_layers({logits}, 1, {}), 7);
    check_close({grouped.value}, f.get("switch_grouped.loss"), "grouped switch loss");
    check_close(to_logits(score_kind::softmax, logits, loss_tokens, loss_experts, grouped.dp),
                f.get("switch_grouped.grad.0"), "grouped switch loss gradient");
}

BOOST_AUTO_TEST_CASE(top2_capacity) {
    if (golden_path("gradients/top2_capacity.safetensors").empty()) return;
    const tensor_file f = read_safetensors(golden_path("gradients/top2_capacity.safetensors"));
    for (bool after : {false, true})
        for (bool by_priority : {false, true}) check_top2(f, after, by_priority);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
