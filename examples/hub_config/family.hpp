// What the readers of the families share, and the readers: each says which fields of a configuration name which part of
// gatefold::config.
//
// A field is either used, or stands in `elsewhere` (attention, embedding, rotation, text generation: nothing about the
// block), or is an error.
#pragma once

#include <initializer_list>
#include <string>

#include <gatefold/moe/routers.hpp>

#include "block.hpp"
#include "fields.hpp"

namespace hub_config {

namespace gf = gatefold;
using gf::activation;
using gf::key_bias;
using gf::renormalise;
using R = gf::router_config;

// ---- shared

/// The activation of gated experts under its name in configurations.
activation gated(fields& f, const std::string& name);
activation plain(fields& f, const std::string& name);
/// Blocks of the decoder and those with experts, however a family counts them. Several ways must agree.
void count_layers(fields& f, block& b, const char* layers = "num_hidden_layers");
/// Width, number and choice of the experts.
void shape(fields& f, block& b, const char* ffn, std::initializer_list<const char*> experts,
           std::initializer_list<const char*> top_k = {"num_experts_per_tok"});
/// Noise of the router's input in training.
void jitter(fields& f, block& b);
/// The same for blocks that jitter the tokens in place, so that the experts see it too.
void shared_jitter(fields& f, block& b);
void shared_experts(fields& f, block& b, const char* count, int width);
/// Groups of experts: one group is none.
void groups(fields& f, block& b, const char* count, gf::group_key key);
void scale(fields& f, block& b);

// ---- models without experts

void dense(fields& f, block& b);

// ---- softmax routers

void mixtral(fields& f, block& b);
void minimax_01(fields& f, block& b);
void arctic(fields& f, block& b);
void qwen(fields& f, block& b);
void olmoe(fields& f, block& b);
void jamba(fields& f, block& b);
void granite(fields& f, block& b);
void dbrx(fields& f, block& b);
void gpt_oss(fields& f, block& b);
void deepseek(fields& f, block& b);
void deepseek_v2(fields& f, block& b);
void ernie(fields& f, block& b);
void gemma4(fields& f, block& b);
void longcat(fields& f, block& b);
void hunyuan(fields& f, block& b);
void phimoe(fields& f, block& b);
void grok(fields& f, block& b);

// ---- sigmoid and its like

void deepseek_v3(fields& f, block& b);
void step3(fields& f, block& b);
void kimi_linear(fields& f, block& b);
void lfm2(fields& f, block& b);
void llama4(fields& f, block& b);
void minimax_m2(fields& f, block& b);
void minimax_m3(fields& f, block& b);
void deepseek_v4(fields& f, block& b);
void nemotron_h(fields& f, block& b);

// ---- capacities

void switch_transformers(fields& f, block& b);
void nllb(fields& f, block& b);

}  // namespace hub_config
