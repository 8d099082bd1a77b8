// Families whose experts take a limited number of rows.
#include "family.hpp"

namespace hub_config {

namespace {

/// A number of rows whatever the tokens.
gf::capacity_config fixed_capacity(int rows) { return {.rule = gf::capacity_rule::fixed, .rows = rows}; }

}  // namespace

void switch_transformers(fields& f, block& b) {
    b.layers = f.one_of({"num_decoder_layers", "num_layers"});
    b.sparse = f.integer("num_sparse_decoder_layers", 0);
    f.ignore(
        std::initializer_list<const char*>{"num_layers", "decoder_sparse_step", "add_router_probs", "router_type"});
    b.c.hidden = f.integer("d_model");
    b.c.ffn = f.integer("d_ff");
    b.c.experts = f.integer("num_experts");
    b.c.top_k = 1;
    b.c.act = f.flag_or("is_gated_act", false) ? gated(f, "dense_act_fn") : plain(f, "dense_act_fn");
    if (f.has("feed_forward_proj"))  // what the other two were made of
        f.expect("feed_forward_proj", std::string(gf::is_gated(b.c.act) ? "gated-" : "") +
                                          (f.text("dense_act_fn") == "gelu_new" ? "gelu" : f.text("dense_act_fn")));
    f.expect("batch_prioritized_routing", false);
    f.expect("router_dtype", "float32");
    b.c.router = gf::routers::switch_transformer;
    b.c.router.bias = f.flag_or("router_bias", false);
    jitter(f, b);
    b.c.capacity = fixed_capacity(f.integer("expert_capacity"));
    b.c.capacity.shared_by = gf::capacity_group::sequence;
    b.per_sequence = true;
}

void nllb(fields& f, block& b) {
    b.layers = f.integer("decoder_layers");
    b.sparse = b.layers / f.integer("decoder_sparse_step");
    f.expect("num_hidden_layers", b.layers);
    f.ignore(std::initializer_list<const char*>{"router_type"});
    b.c.hidden = f.integer("d_model");
    b.c.ffn = f.integer("decoder_ffn_dim");
    f.expect("encoder_ffn_dim", b.c.ffn);
    b.c.experts = f.integer("num_experts");
    b.c.top_k = 2;
    b.c.act = plain(f, "activation_function");
    b.c.bias = true;
    f.expect("router_dtype", "float32");
    const std::string second = f.text("second_expert_policy");
    b.c.router = second == "sampling" ? gf::routers::nllb_sampling
                 : second == "random" ? gf::routers::nllb_random
                                      : gf::routers::nllb;
    if (second != "all" && second != "sampling" && second != "random")
        f.fault("second_expert_policy", "expected all, sampling or random, got " + second);
    b.c.router.bias = f.flag_or("router_bias", false);
    // What is dropped in training multiplies the output at inference.
    if (const double dropped = f.number_or("moe_token_dropout", 0); dropped > 0) {
        b.c.router.scale = 1 - dropped;
        b.c.router.scaled = gf::scale_at::output;
        b.notes.push_back(
            "moe_token_dropout: as the scale of inference; in training whole outputs are dropped instead");
    }
    b.c.capacity = {.rule = gf::capacity_rule::nllb,
                    .factor = static_cast<float>(f.number("moe_eval_capacity_token_fraction")),
                    .keeps = f.flag("batch_prioritized_routing") ? gf::priority::importance : gf::priority::slot_major,
                    .renormalise_kept = !f.flag("normalize_router_prob_before_dropping")};
    if (f.has("expert_capacity"))
        b.notes.push_back("expert_capacity: in training the type takes 2 ceil(tokens / experts) rows instead of " +
                          std::to_string(f.integer("expert_capacity")));
}

}  // namespace hub_config
