// ctest: heavy
// The oracle's own backward against central differences: layers and losses.
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <tests/oracle.hpp>
#include <tests/oracle/finite_difference.hpp>
#include <tests/unit/oracle_checks.hpp>

using namespace oracle_tests;

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(oracle_backward)

// ---- backward against central differences (training.md §8) ----------------------------------------------------------

BOOST_AUTO_TEST_SUITE(backward_differences)

layer small_layer() {
    layer l{.hidden = 5, .ffn = 4, .experts = 6};
    l.router.top_k = 3;
    l.router.renormalise = renormalise_kind::sum;
    return l;
}

void expect_exact(const std::string& name, const layer& l, const optional_parameters& with = {}, batch extras = {}) {
    random_source random{42};
    const parameters p = random_parameters(l, random, with);
    batch b = random_batch(l, random, 7);
    b.router_input = extras.router_input;
    b.jitter = extras.jitter;
    b.noise = extras.noise;
    b.previous_logits = extras.previous_logits;
    b.uniform = extras.uniform;
    const difference d = check_layer(l, p, b, random);
    BOOST_CHECK_MESSAGE(d.error <= 1e-6, name << ": " << d.tensor << " is off by " << d.error);
}

BOOST_AUTO_TEST_CASE(every_activation) {
    using enum activation_kind;
    for (activation_kind kind :
         {silu, gelu_tanh, gelu_erf, relu, relu_squared, identity, clamped_swiglu, clamped_silu, situ})
        for (bool gated : {true, false}) {
            if (!gated && (kind == clamped_swiglu || kind == clamped_silu || kind == situ)) continue;
            layer l = small_layer();
            // Low limits and small β, so that the clamps and the tanh bend.
            l.activation = {.kind = kind, .limit = 0.7, .beta = 1.5, .beta_linear = 2};
            l.shared_activation = l.activation;
            l.gated = l.shared_gated = gated;
            l.shared_ffn = 3;
            expect_exact("activation " + std::to_string(static_cast<int>(kind)), l, {.biases = true});
        }
}

BOOST_AUTO_TEST_CASE(every_score_and_renormalisation) {
    using enum renormalise_kind;
    for (score_kind score : {score_kind::softmax, score_kind::softmax_selected, score_kind::sigmoid,
                             score_kind::sqrt_softplus, score_kind::relu, score_kind::identity})
        for (renormalise_kind renormalise : {none, sum, sum_plus_epsilon, clamped_sum, norm}) {
            // Signed or zero scores have no meaningful quotient; a selected softmax already sums to 1.
            const bool plain =
                score == score_kind::identity || score == score_kind::relu || score == score_kind::softmax_selected;
            if (plain && renormalise != none) continue;
            layer l = small_layer();
            l.router.score = score;
            l.router.renormalise = renormalise;
            l.router.epsilon = 0.3;
            l.router.norm_p = 2;
            l.router.scale = 1.7;
            expect_exact("score " + std::to_string(static_cast<int>(score)) + " renormalise " +
                             std::to_string(static_cast<int>(renormalise)),
                         l, {.router_bias = true, .selection_bias = true});
        }
}

/// ε above the sum: the clamp passes no gradient.
BOOST_AUTO_TEST_CASE(clamped_renormalisation_below_the_clamp) {
    layer l = small_layer();
    l.router.renormalise = renormalise_kind::clamped_sum;
    l.router.epsilon = 1.5;
    expect_exact("clamped sum", l);
}

BOOST_AUTO_TEST_CASE(groups_shared_gate_and_scales) {
    layer l = small_layer();
    l.router.score = score_kind::sigmoid;
    l.router.groups = 3;
    l.router.top_groups = 2;
    l.router.group_score = group_score_kind::top2_sum;
    l.router.scale = 2.5;
    l.shared_ffn = 3;
    expect_exact("V3 with a gated shared expert", l,
                 {.selection_bias = true, .expert_scale = true, .shared_gate = true});
    l.router.scale_after_combine = true;
    l.output_scale = 0.8;
    expect_exact("scale after the combine", l, {.expert_scale = true, .biases = true});
}

BOOST_AUTO_TEST_CASE(weight_on_the_input) {
    layer l = small_layer();
    l.router.score = score_kind::sigmoid;
    l.router.renormalise = renormalise_kind::none;
    l.weight_on_input = true;
    l.shared_ffn = 4;
    expect_exact("weight on the input", l, {.biases = true});
}

BOOST_AUTO_TEST_CASE(capacity_drops) {
    for (priority_kind priority : {priority_kind::arrival, priority_kind::batch_top1, priority_kind::batch_sum,
                                   priority_kind::probability, priority_kind::position})
        for (bool after : {false, true}) {
            layer l = small_layer();
            l.router.capacity = {.kind = capacity_kind::fixed, .fixed = 2, .priority = priority};
            l.router.renormalise_after_drop = after;
            expect_exact("capacity", l);
            l.router.score = score_kind::softmax_selected;
            l.router.renormalise = renormalise_kind::none;
            expect_exact("capacity, softmax over the chosen", l);
        }
}

BOOST_AUTO_TEST_CASE(second_expert) {
    layer l = small_layer();
    l.router.top_k = 2;
    l.router.second = second_kind::random;
    l.router.threshold = 0.5;
    expect_exact("random second expert", l, {}, {.uniform = {0.1, 0.9, 0.3, 0.7, 0.5, 0.99, 0.01}});
}

BOOST_AUTO_TEST_CASE(latent_experts) {
    layer l = small_layer();
    l.latent = 3;
    l.shared_ffn = 4;
    l.router.scale_after_combine = true;
    l.router.scale = 2.5;
    expect_exact("latent", l);
    l.latent_norm = true;
    expect_exact("latent with norm", l, {.latent_norm = true});
}

BOOST_AUTO_TEST_CASE(router_inputs) {
    random_source random{3};
    layer l = small_layer();
    l.router.input = input_kind::rms_norm;
    expect_exact("normed router input", l, {.expert_scale = true, .router_scale = true},
                 {.router_input = random.normals(35)});
    l.router.input = input_kind::unit_norm;
    expect_exact("unit router input", l);
    l.router.input = input_kind::plain;
    values jitter = random.uniforms(35);
    for (double& j : jitter) j += 0.5;
    expect_exact("jitter on the router's copy", l, {}, {.jitter = jitter});
    l.jitter_in_place = true;
    l.shared_ffn = 3;
    expect_exact("jitter in place", l, {.shared_gate = true}, {.jitter = jitter});
}

BOOST_AUTO_TEST_CASE(projections_and_logit_transforms) {
    random_source random{5};
    layer l = small_layer();
    l.router.projection = projection_kind::tanh_mlp;
    expect_exact("tanh MLP", l, {.router_bias = true});
    l.router.projection = projection_kind::cosine;
    expect_exact("cosine", l);
    l.router.projection = projection_kind::linear;
    for (bool sample : {false, true}) {
        l.router.normalise_logits = true;
        l.router.sample_deviation = sample;
        l.router.logit_lambda = 1.3;
        expect_exact("normalised logits", l, {.previous_map = true}, {.previous_logits = random.normals(42)});
    }
    l.router.normalise_logits = false;
    l.router.score = score_kind::softmax_selected;
    l.router.renormalise = renormalise_kind::none;
    expect_exact("noisy top-k", l, {.noise_projection = true}, {.noise = random.normals(42)});
}

BOOST_AUTO_TEST_CASE(zero_compute_experts) {
    layer l = small_layer();
    l.experts = 3;
    l.router.constants = 2;
    l.router.identities = 1;
    l.router.zeros = 1;
    l.router.top_k = 5;
    l.multiply_input_by_k = true;
    expect_exact("MoE++", l);
    l.router.zeros = l.router.constants = 0;
    l.router.identities = 3;
    l.router.renormalise = renormalise_kind::none;
    l.multiply_input_by_k = false;
    expect_exact("LongCat", l, {.selection_bias = true});
}

BOOST_AUTO_TEST_CASE(variable_choices) {
    layer l = small_layer();
    l.router.renormalise = renormalise_kind::none;
    l.router.select = select_kind::all;
    expect_exact("dense", l);
    l.router.select = select_kind::top_p;
    l.router.top_k = 0;
    l.router.top_p = 0.6;
    expect_exact("top-p", l);
    l.router.select = select_kind::positive;
    l.router.score = score_kind::relu;
    expect_exact("ReMoE", l);
    l.router.select = select_kind::expert_choice;
    l.router.score = score_kind::softmax;
    expect_exact("expert choice", l);
    l.router.choice_over_tokens = true;
    expect_exact("expert choice over tokens", l);
}

BOOST_AUTO_TEST_CASE(base_mix) {
    layer l = small_layer();
    l.router.top_k = 1;
    l.router.score = score_kind::sigmoid;
    l.router.renormalise = renormalise_kind::none;
    l.base_mix = true;
    expect_exact("BASE", l);
}

BOOST_AUTO_TEST_CASE(sparse_mixer_in_evaluation) {
    layer l = small_layer();
    l.router.top_k = 2;
    l.router.select = select_kind::sparse_mixer;
    l.router.renormalise = renormalise_kind::none;
    l.router.mixer_epsilon = 0.3;
    expect_exact("SparseMixer", l);
}

/// training.md §6: c scales the forward and what follows it, never the gradient of the logits.
BOOST_AUTO_TEST_CASE(sparse_mixer_surrogate) {
    layer l = small_layer();
    l.router.top_k = 2;
    l.router.select = select_kind::sparse_mixer;
    l.router.renormalise = renormalise_kind::none;
    l.router.mixer_epsilon = 0.9;
    random_source random{11};
    const parameters p = random_parameters(l, random);
    batch b = random_batch(l, random, 9);
    b.training = true;
    b.key_noise = random.gumbels(9 * 2 * 6);
    b.uniform = values(18, 0.0);
    const values dy = random.normals(45);
    const result third = forward(l, p, b);
    b.uniform = values(18, 1.0);
    const result whole = forward(l, p, b);
    same(third.routing.ids, whole.routing.ids);
    natural scaled_down = 0;
    for (natural i = 0; i < 18; ++i) {
        near(third.routing.weights[i], third.routing.factor[i] * whole.routing.weights[i], 1e-15);
        scaled_down += third.routing.factor[i] == 0.3333 ? 1u : 0u;
    }
    BOOST_CHECK(scaled_down > 0 && scaled_down < 18);
    near(backward(l, p, b, third, dy).logits, backward(l, p, b, whole, dy).logits, 1e-15);
}

/// DenseMixer: sparse forward, but the router's gradient is that of the dense layer.
BOOST_AUTO_TEST_CASE(dense_mixer) {
    layer sparse = small_layer();
    sparse.router.renormalise = renormalise_kind::none;
    sparse.router.scale = 1.5;
    sparse.dense_mixer = true;
    layer dense = sparse;
    dense.router.select = select_kind::all;
    dense.dense_mixer = false;
    random_source random{13};
    const parameters p = random_parameters(sparse, random);
    const batch b = random_batch(sparse, random, 7);
    const values dy = random.normals(35);
    const gradients g = backward(sparse, p, b, forward(sparse, p, b), dy);
    near(g.logits, backward(dense, p, b, forward(dense, p, b), dy).logits, 1e-12);
}

BOOST_AUTO_TEST_CASE(degenerate_rows_pass_no_gradient_to_the_logits) {
    layer l = small_layer();
    random_source random{17};
    const parameters p = random_parameters(l, random, {.expert_scale = true});
    batch b = random_batch(l, random, 2);
    b.noise = values(12, 0.0);
    for (natural i = 0; i < 6; ++i) b.noise[i] = nan_value;
    const gradients g = backward(l, p, b, forward(l, p, b), random.normals(10));
    near(row(g.logits, 0, 6), values(6, 0.0), 0);
    BOOST_CHECK(dot(g.x.data(), g.x.data(), 5) > 0);
    BOOST_CHECK(std::isfinite(sum(g.parameters.router)));
}

BOOST_AUTO_TEST_SUITE_END()

// ---- losses against central differences -----------------------------------------------------------------------------

BOOST_AUTO_TEST_SUITE(loss_differences)

constexpr natural tokens = 8, experts = 6, k = 3;

/// Central differences of a loss of p, taken in the logits; the counts are held.
template <class Loss>
void expect_exact(const std::string& name, Loss one, score_kind score, const values& mask = {}) {
    random_source random{19};
    values z = random.normals(tokens * experts);
    const auto input = [&] {
        loss_input in{tokens, experts, k, aux_probabilities(score, z, tokens, experts), {}, mask};
        in.ids = top_k_rows(in.p, tokens, experts, k);
        return in;
    };
    const loss out = one(input());
    const values dz = to_logits(score, z, tokens, experts, out.dp);
    const difference d = central_difference(name, z, dz, [&] { return one(input()).value; });
    BOOST_CHECK_MESSAGE(d.error <= 1e-6, name << " is off by " << d.error);
}

BOOST_AUTO_TEST_CASE(balancing_losses) {
    const values mask = {1, 1, 0, 1, 1, 0, 1, 1};
    for (score_kind score : {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus})
        for (const values& m : {values{}, mask}) {
            expect_exact(
                "switch", [](const loss_input& in) { return switch_loss(in, 0.7); }, score, m);
            expect_exact(
                "gshard", [](const loss_input& in) { return gshard_loss(in, 4); }, score, m);
            expect_exact(
                "second place", [](const loss_input& in) { return second_place_loss(in, 4); }, score, m);
            expect_exact(
                "flaxformer", [](const loss_input& in) { return flaxformer_loss(in, 4); }, score, m);
            expect_exact(
                "hf", [](const loss_input& in) { return hf_loss(in); }, score, m);
            expect_exact(
                "megatron", [](const loss_input& in) { return megatron_loss(in, 0.7); }, score, m);
            expect_exact(
                "expert level", [](const loss_input& in) { return expert_level_loss(in, 0.7); }, score, m);
            expect_exact(
                "device", [](const loss_input& in) { return device_level_loss(in, 3, 0.7); }, score, m);
            expect_exact(
                "communication", [](const loss_input& in) { return communication_loss(in, 3, 2, 0.7); }, score, m);
            expect_exact(
                "sequence",
                [](const loss_input& in) {
                    return sequence_loss(in, {0, 3}, 0.7);
                },
                score, m);
            expect_exact(
                "global",
                [](const loss_input& in) {
                    return global_batch_loss(in, {1, 5, 2, 8, 0, 4}, 20);
                },
                score, m);
            expect_exact(
                "selection", [](const loss_input& in) { return expert_selection_loss(in); }, score, m);
            expect_exact(
                "entropy", [](const loss_input& in) { return entropy_loss(in, 0.7); }, score, m);
            expect_exact(
                "score variance", [](const loss_input& in) { return score_variance_loss(in, 0.7); }, score, m);
        }
}

BOOST_AUTO_TEST_CASE(losses_of_logits) {
    random_source random{23};
    values z = random.normals(tokens * experts), mask = {1, 0, 1, 1, 1, 0, 1, 1};
    const auto check_one = [&](const std::string& name, auto one) {
        const difference d = central_difference(name, z, one(z).dp, [&] { return one(z).value; });
        BOOST_CHECK_MESSAGE(d.error <= 1e-6, name << " is off by " << d.error);
    };
    check_one("z loss", [](const values& v) { return z_loss(v, tokens, experts, 0.7); });
    check_one("masked z loss", [&](const values& v) { return z_loss(v, tokens, experts, 0.7, mask); });
    check_one("ReLU", [](const values& v) { return relu_loss(v, tokens, 0.7); });
    check_one("orthogonality", [](const values& v) { return orthogonality_loss(v, tokens, experts); });
    for (variance_kind kind : {variance_kind::population, variance_kind::sample})
        check_one("importance", [&](const values& v) {
            values positive = v;
            for (double& a : positive) a += 2;
            return importance_loss(positive, tokens, experts, 0.7, kind, 0.1);
        });
}

BOOST_AUTO_TEST_CASE(load) {
    random_source random{29};
    values clean = random.normals(tokens * experts), sigma = random.uniforms(tokens * experts);
    for (double& s : sigma) s += 0.2;
    values noisy = clean;
    for (natural i = 0; i < noisy.size(); ++i) noisy[i] += sigma[i] * random.normal();
    for (bool v_moe : {false, true}) {
        const auto one = [&] { return load_loss(clean, noisy, sigma, tokens, experts, k, 0.7, v_moe); };
        const load_loss_result out = one();
        const auto value = [&] { return one().value; };
        for (const difference& d : {central_difference("clean", clean, out.d_clean, value),
                                    central_difference("noisy", noisy, out.d_noisy, value),
                                    central_difference("sigma", sigma, out.d_noise_scale, value)})
            BOOST_CHECK_MESSAGE(d.error <= 1e-6, "load loss, " << d.tensor << " is off by " << d.error);
    }
}

/// The probability of being chosen is right: re-drawing one expert's noise makes it enter the top k as often as Φ says.
BOOST_AUTO_TEST_CASE(load_is_a_probability) {
    random_source random{31};
    const values clean = random.normals(5), sigma(5, 0.8);
    values noisy = clean;
    for (double& v : noisy) v += 0.8 * random.normal();
    const std::vector<load_term> terms = load_terms(clean, noisy, sigma, 2, false);
    for (natural i = 0; i < 5; ++i) {
        double chosen = 0;
        for (int trial = 0; trial < 20000; ++trial) {
            values redrawn = noisy;
            redrawn[i] = clean[i] + sigma[i] * random.normal();
            for (int id : top_k(redrawn, 2)) chosen += id == to_int(i) ? 1.0 / 20000 : 0.0;
        }
        near(chosen, normal_cdf(terms[i].x), 0.015);
    }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
