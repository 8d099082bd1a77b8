// The fields of a config.json that say nothing about its block, whatever the family.
#pragma once

namespace hub_config {

inline constexpr const char* elsewhere[] = {
    // The model and its text.
    "_name_or_path", "architectures", "auto_map", "bos_token_id", "chunk_size_feed_forward", "decoder_start_token_id",
    "dtype", "eos_token_id", "id2label", "init_std", "initializer_factor", "initializer_range", "is_decoder",
    "is_encoder_decoder", "label2id", "model_max_length", "model_type", "num_logits_to_keep", "output_attentions",
    "output_hidden_states", "output_router_logits", "pad_token_id", "pretraining_tp", "problem_type", "return_dict",
    "tie_word_embeddings", "torch_dtype", "transformers_version", "use_cache", "vocab_size", "word_embed_proj_dim",
    // How text is made with it.
    "bad_words_ids", "begin_suppress_tokens", "calc_logits_for_entire_prompt", "cross_attention_hidden_size",
    "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty", "finetuning_task", "forced_bos_token_id", "forced_eos_token_id",
    "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams",
    "num_return_sequences", "output_past", "output_scores", "prefix", "pruned_heads", "remove_invalid_values",
    "repetition_penalty", "return_dict_in_generate", "sep_token_id", "suppress_tokens", "task_specific_params",
    "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class", "top_k", "top_p", "torchscript",
    "typical_p", "use_bfloat16",
    // Attention, rotation, recurrent mixers.
    "_sliding_window_pattern", "add_cross_attention", "add_full_attention_sink_bias", "add_swa_attention_sink_bias",
    "attention_bias", "attention_head_dim", "attention_output_gate", "output_gate_type", "time_step_rank",
    "attention_chunk_size", "attention_dropout", "attention_k_eq_v", "attention_method", "attention_multiplier",
    "attention_other_setting", "attention_value_scale", "attn_config", "attn_layer_offset", "attn_layer_period",
    "attn_logit_softcapping", "attn_output_gate", "attn_res_block_size", "attn_scale", "attn_temperature_tuning",
    "attn_type_list", "attn_window_size", "block_size", "chunk_size", "clip_qkv", "compress_rates", "compress_ratios",
    "compress_rope_theta", "conv_L_cache", "conv_bias", "conv_kernel", "d_kv", "decoder_attention_heads",
    "encoder_attention_heads", "expand", "floor_scale", "full_attention_interval", "full_attn_alpha_factor",
    "full_attn_beta_factor", "global_head_dim", "head_dim", "hybrid_layer_pattern", "index_block_size",
    "index_head_dim", "index_local_blocks", "index_n_heads", "index_share_for_mtp_iteration", "index_skip_topk_offset",
    "index_topk", "index_topk_blocks", "index_topk_freq", "index_topk_pattern", "indexer_rope_interleave",
    "indexer_types", "kv_lora_rank", "layer_types", "linear_attn_alpha_factor", "linear_attn_beta_factor",
    "linear_attn_config", "linear_conv_kernel_dim", "linear_head_dim", "linear_key_head_dim", "linear_num_heads",
    "linear_num_key_heads", "linear_num_value_heads", "linear_value_head_dim", "mamba_conv_bias", "mamba_d_conv",
    "mamba_d_state", "mamba_dt_rank", "mamba_expand", "mamba_head_dim", "mamba_hidden_act", "mamba_inner_layernorms",
    "mamba_num_heads", "mamba_proj_bias", "mamba_ssm_cache_dtype", "mamba_ssm_dtype", "max_position_embeddings",
    "max_seq_len", "max_window_layers", "mla_use_nope", "mla_use_output_gate", "n_groups", "n_heads", "n_positions",
    "no_rope_layer_interval", "no_rope_layers", "num_attention_groups", "num_attention_heads",
    "num_global_key_value_heads", "num_heads", "num_key_value_heads", "num_kv_heads", "num_kv_shared_layers",
    "o_groups", "o_lora_rank", "original_max_position_embeddings", "partial_rotary_factor", "per_layer_config",
    "q_lora_rank", "qk_head_dim", "qk_nope_head_dim", "qk_norm_type", "qk_rope_head_dim", "qkv_bias",
    "query_pre_attn_scalar", "relative_attention_max_distance", "relative_attention_num_buckets", "rope_interleave",
    "rope_parameters", "rope_scaling", "rope_scaling_type", "rope_theta", "rotary_dim", "sliding_window",
    "sliding_window_size", "sparse_attention_config", "ssm_state_size", "swa_head_dim", "swa_num_attention_heads",
    "swa_num_key_value_heads", "swa_rope_theta", "swa_v_head_dim", "time_step_floor", "time_step_limit",
    "time_step_max", "time_step_min", "use_associative_scan", "use_bidirectional_attention", "use_conv_bias",
    "use_head_wise_attn_gate", "use_mamba_kernels", "use_mambapy", "use_qk_norm", "use_sliding_window", "v_head_dim",
    "yarn_only_types",
    // Residual stream, embedding, norms, dense layers, dropout, extra prediction layers.
    "activation_dropout", "cla_share_factor", "decoder_layerdrop", "dropout", "dropout_rate", "emb_pdrop",
    "embedding_multiplier", "encoder_layerdrop", "encoder_layers", "encoder_sparse_step", "final_logit_softcapping",
    "hc_eps", "hc_mult", "hc_sinkhorn_iters", "hidden_dropout", "hidden_size_per_layer_input", "layer_norm_epsilon",
    "layernorm_epsilon", "layernorm_full_attention_alpha", "layernorm_full_attention_beta",
    "layernorm_linear_attention_alpha", "layernorm_linear_attention_beta", "layernorm_mlp_alpha", "layernorm_mlp_beta",
    "lm_head_bias", "logits_scaling", "mlp_alpha_factor", "mlp_beta_factor", "mtp_hybrid_override_pattern",
    "mtp_layers_block_type", "mtp_num_hidden_layers", "mtp_transformer_layers", "mtp_use_dedicated_embeddings",
    "norm_eps", "num_mtp_modules", "num_nextn_predict_layers", "num_sparse_encoder_layers", "postnorm",
    "rescale_prenorm_residual", "resid_pdrop", "residual_in_fp32", "residual_multiplier", "rms_norm_eps",
    "scale_embedding", "use_cla", "use_double_wide_mlp", "use_gemma_norm", "use_mtp", "vocab_size_per_layer_input",
    // Losses are arguments of a call, storage is the file's.
    "aux_loss_alpha", "expert_dtype", "moe_loss_weight", "quantization_config", "router_aux_loss_coef",
    "router_ignore_padding_tokens", "router_z_loss_coef", "seq_aux"};

}  // namespace hub_config
