// ctest: heavy
// The oracle against the numbers of spec/: golden vectors of routing.md §11, golden values of training.md §9.
#include <boost/test/unit_test.hpp>

#include <tests/oracle.hpp>
#include <tests/unit/oracle_checks.hpp>

using namespace oracle_tests;

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(oracle_vectors)

// ---- golden vectors of routing.md §11 -------------------------------------------------------------------------------

BOOST_AUTO_TEST_SUITE(routing_vectors)

const values z = {0.5, -1.25, 2.0, 0.75, -0.5, 1.5, 2.0, -3.0};

BOOST_AUTO_TEST_CASE(scores) {
    near(softmax(z),
         {0.068787447, 0.011953466, 0.308283950, 0.088324831, 0.025305488, 0.186983668, 0.308283950, 0.002077201});
    near(scores_of(score_kind::sigmoid, z),
         {0.622459331, 0.222700139, 0.880797078, 0.679178699, 0.377540669, 0.817574476, 0.880797078, 0.047425873});
    near(scores_of(score_kind::sqrt_softplus, z),
         {0.986953385, 0.501925374, 1.458399126, 1.066241533, 0.688532486, 1.304382336, 1.458399126, 0.220425388});
}

BOOST_AUTO_TEST_CASE(a_olmoe) {
    const routing r = route_logits(pass_through(8, 3), z);
    same(r.ids, {2, 6, 5});
    near(r.weights, {0.308283950, 0.308283950, 0.186983668});
}

BOOST_AUTO_TEST_CASE(b_mixtral_and_gpt_oss) {
    layer l = pass_through(8, 3);
    l.router.renormalise = renormalise_kind::sum;
    layer selected = pass_through(8, 3);
    selected.router.score = score_kind::softmax_selected;
    for (const layer& one : {l, selected}) {
        const routing r = route_logits(one, z);
        same(r.ids, {2, 6, 5});
        near(r.weights, {0.383651731, 0.383651731, 0.232696538});
    }
}

layer deepseek_v3(natural groups, natural top_groups) {
    layer l = pass_through(8, 3);
    l.router.score = score_kind::sigmoid;
    l.router.groups = groups;
    l.router.top_groups = top_groups;
    l.router.group_score = group_score_kind::top2_sum;
    l.router.renormalise = renormalise_kind::sum_plus_epsilon;
    l.router.scale = 2.5;
    return l;
}

const values bias = {0.30, 0, -0.20, 0.35, 0.10, -0.05, 0, 0};

BOOST_AUTO_TEST_CASE(c_deepseek_v3_one_group) {
    const routing r = route_logits(deepseek_v3(1, 1), z, bias);
    same(r.ids, {3, 0, 6});
    near(r.weights, {0.778005605, 0.713033035, 1.008961360});
}

BOOST_AUTO_TEST_CASE(d_deepseek_v3_four_groups) {
    const layer l = deepseek_v3(4, 2);
    const routing r = route_logits(l, z, bias);
    near(group_scores(l.router, r.keys), {1.145159470, 1.709975777, 1.245115145, 0.928222951});
    same(r.ids, {3, 5, 2});
    near(r.weights, {0.714158090, 0.859681594, 0.926160316});
}

BOOST_AUTO_TEST_CASE(e_deepseek_v2) {
    layer l = pass_through(8, 3);
    l.router.groups = 4;
    l.router.top_groups = 2;
    l.router.scale = 16;
    for (bool mask_zero : {false, true}) {
        l.router.mask_zero = mask_zero;
        const routing r = route_logits(l, z);
        same(r.ids, {2, 6, 3});
        near(r.weights, {4.932543202, 4.932543202, 1.413197288});
    }
}

BOOST_AUTO_TEST_CASE(f_llama4) {
    layer l = pass_through(8, 1);
    l.router.score = score_kind::sigmoid;
    const routing r = route_logits(l, z);
    same(r.ids, {2});
    near(r.weights, {0.880797078});
}

BOOST_AUTO_TEST_CASE(g_deepseek_v4) {
    layer l = deepseek_v3(1, 1);
    l.router.score = score_kind::sqrt_softplus;
    l.router.scale = 1.5;
    const routing r = route_logits(l, z);
    same(r.ids, {2, 6, 5});
    near(r.weights, {0.518243331, 0.518243331, 0.463513338});
}

BOOST_AUTO_TEST_CASE(h_sparse_mixer) {
    layer l = pass_through(8, 2);
    l.router.select = select_kind::sparse_mixer;
    same(route_logits(l, z).ids, {2, 6});
    near(route_logits(l, z).weights, {0.5, 1.0});
    layer four = pass_through(4, 2);
    four.router.select = select_kind::sparse_mixer;
    const routing r = route_logits(four, {1.00, 1.01, 0.5, 1.005});
    same(r.ids, {1, 3});
    near(r.weights, {0.335001382, 0.501249997});
}

BOOST_AUTO_TEST_CASE(i_ernie) {
    layer l = pass_through(8, 3);
    l.router.renormalise = renormalise_kind::clamped_sum;
    l.router.epsilon = 1e-12;
    const routing r = route_logits(l, z, {0.05, 0, -0.2, 0.1, 0, 0, 0, 0});
    same(r.ids, {6, 3, 5});
    near(r.weights, {0.528252124, 0.151346767, 0.320401109});
}

BOOST_AUTO_TEST_CASE(activations) {
    const activation gpt_oss{.kind = activation_kind::clamped_swiglu};
    near(activate(gpt_oss, 0.5, -0.25).value, 0.262791327);
    near(activate(gpt_oss, 9, 8).value, 55.999625026);
    near(activate(gpt_oss, -3, -9).value, 0.108427858);
    near(activate(gpt_oss, 1, 0).value, 0.845795766);
    near(activate({.kind = activation_kind::clamped_silu, .limit = 10}, 12, -11).value, -99.995460213);
    near(activate({.kind = activation_kind::situ}, 1.5, -2).value, -2.338883408);
    near(activate_one(activation_kind::silu, 1).value, 0.731058579);
    near(activate_one(activation_kind::gelu_erf, 1).value, 0.841344746);
    near(activate_one(activation_kind::gelu_tanh, 1).value, 0.841191991);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- golden values of training.md §9 --------------------------------------------------------------------------------

BOOST_AUTO_TEST_SUITE(training_vectors)

const values z = {1, 0, -1, 0, 2, 0, 0.5, 0.5, 1.5, 2, 1, 0};

loss_input input(natural k) {
    loss_input in{4, 3, k, aux_probabilities(score_kind::softmax, z, 4, 3), {}, {}};
    in.ids = top_k_rows(in.p, 4, 3, k);
    return in;
}

BOOST_AUTO_TEST_CASE(losses) {
    near(mean_probabilities(input(1)), {0.412232612, 0.372096135, 0.215671253});
    near(top1_counts(input(1)), {2, 1, 1});
    near(switch_loss(input(1), 1).value, 1.0591744590161118, 1e-14);
    near(hf_loss(input(1)).value, 1.0591744590161118, 1e-14);
    near(hf_loss(input(2)).value, 2.23566758025644, 1e-14);
    near(megatron_loss(input(2), 1).value, 1.11783379012822, 1e-14);
    near(z_loss(z, 4, 3, 1).value, 4.250476801349785, 1e-14);
    near(importance_loss(input(1).p, 4, 3, 1, variance_kind::population, 0).value, 0.06471604881500888, 1e-14);
}

BOOST_AUTO_TEST_CASE(metrics) {
    const values c = expert_counts(input(1).ids, 3);
    near(squared_variation(c, variance_kind::population, 0).value, 0.125, 1e-14);
    near(max_violation(c), 0.5, 1e-14);
    near(utilisation_entropy(input(1).p, 4, 3), 0.9684965506368809, 1e-14);
}

/// The column "value at perfect balance" of training.md §1.
BOOST_AUTO_TEST_CASE(perfect_balance) {
    const natural e = 4, t = 8, k = 2;
    loss_input in{t, e, k, values(t * e, 0.25), {}, {}};
    for (natural i = 0; i < t; ++i) {
        in.ids.push_back(to_int(i % e));
        in.ids.push_back(to_int((i + 1) % e));
        in.p[i * e + i % e] += 1e-12;  // argmax follows the first choice
    }
    const double tolerance = 1e-9;
    near(switch_loss(in, 0.01).value, 0.01, tolerance);
    near(gshard_loss(in, 4).value, 1, tolerance);
    near(gshard_loss(in).value + second_place_loss(in).value, 1.5, tolerance);
    near(flaxformer_loss(in, 4).value, 2, tolerance);
    near(hf_loss(in).value, 2, tolerance);
    near(megatron_loss(in, 0.3).value, 0.3, tolerance);
    near(expert_level_loss(in, 0.3).value, 0.3, tolerance);
    near(global_batch_loss(in, counts_of(in), 8).value, 2, tolerance);
    near(global_batch_loss(in, counts_of(in), 16).value, 1, tolerance);
    near(expert_selection_loss({t, e, 1, values(t * e, 1.0 / 8), {}, {}}).value, 1, tolerance);
    // α2 and α3: f' = 1 on every device and Σ P' = 1; every token meets M devices.
    near(device_level_loss(in, 2, 0.05).value, 0.05, tolerance);
    near(communication_loss(in, 4, 2, 0.02).value, 0.02, tolerance);
    loss_input cycle = in;  // top 2 of p itself, balanced inside each sequence
    for (natural i = 0; i < t; ++i) cycle.p[i * e + (i + 1) % e] += 5e-13;
    near(sequence_loss(cycle, {0, 4}, 0.1).value, 0.1, tolerance);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
