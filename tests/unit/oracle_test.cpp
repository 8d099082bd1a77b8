// ctest: heavy
// The oracle against the numbers of spec/ (routing.md §11, training.md §9), its own backward against central
// differences, and the contracts and invariants a reference has to keep before others are compared with it.
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <tests/oracle.hpp>
#include <tests/oracle/finite_difference.hpp>

namespace {

using namespace oracle;

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();

/// |a − b| ≤ tolerance for every element; the golden vectors have nine digits.
void near(const values& got, const values& expected, double tolerance = 1e-9) {
    BOOST_REQUIRE_EQUAL(got.size(), expected.size());
    for (natural i = 0; i < got.size(); ++i)
        BOOST_CHECK_MESSAGE(std::fabs(got[i] - expected[i]) <= tolerance,
                            "element " << i << ": " << got[i] << ", expected " << expected[i]);
}

void near(double got, double expected, double tolerance = 1e-9) { near(values{got}, values{expected}, tolerance); }

void same(const ints& got, const ints& expected) {
    BOOST_CHECK_EQUAL_COLLECTIONS(got.begin(), got.end(), expected.begin(), expected.end());
}

/// A layer whose router passes x through: logits = x, E = H.
layer pass_through(natural experts, natural k) {
    layer l{.hidden = experts, .ffn = 1, .experts = experts};
    l.router.top_k = k;
    return l;
}

parameters pass_through_parameters(natural experts) {
    parameters p;
    p.router.assign(experts * experts, 0.0);
    for (natural e = 0; e < experts; ++e) p.router[e * experts + e] = 1;
    return p;
}

/// Routes given logits [T, E].
routing route_logits(const layer& l, const values& logits, const values& bias = {}, batch b = {}) {
    const natural e = l.choices();
    parameters p = pass_through_parameters(e);
    p.selection_bias = bias;
    b.tokens = logits.size() / e;
    b.x = logits;
    return route(l, p, b, b.x);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(oracle)

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

// ---- contracts ------------------------------------------------------------------------------------------------------

BOOST_AUTO_TEST_SUITE(contracts)

BOOST_AUTO_TEST_CASE(ties_nan_and_infinity) {
    same(top_k({1, 3, 3, 2}, 3), {1, 2, 3});
    same(top_k({nan_value, -5, nan_value, -infinity}, 3), {1, 0, 2});
    same(top_k({1, infinity, 2, infinity}, 3), {1, 3, 2});
    near(softmax({1, infinity, infinity}), {0, 0.5, 0.5}, 0);
}

BOOST_AUTO_TEST_CASE(rows_without_a_finite_logit) {
    for (score_kind score : {score_kind::softmax, score_kind::softmax_selected, score_kind::sigmoid}) {
        layer l = pass_through(4, 2);
        l.router.score = score;
        l.router.scale = 3;
        // Rows are logits here: 0·NaN would spoil a row, so NaN goes in as noise.
        batch b;
        b.noise = {nan_value, nan_value, nan_value, nan_value, -infinity, -infinity, nan_value, -infinity, 0, 0, 0, 0};
        const routing r = route_logits(l, values(12, 1.0), {}, b);
        same(r.ids, {0, 1, 0, 1, 0, 1});
        near(row(r.weights, 0, 2), {1.5, 1.5}, 0);
        near(row(r.weights, 1, 2), {1.5, 1.5}, 0);
        BOOST_CHECK_EQUAL(r.degenerate_rows, 2u);
    }
}

BOOST_AUTO_TEST_CASE(a_nan_logit_is_never_preferred) {
    layer l = pass_through(4, 2);
    batch b;
    b.noise = {nan_value, 0, 0, 0};
    const routing r = route_logits(l, {9, 1, 2, 3}, {5, 0, 0, 0}, b);
    same(r.ids, {3, 2});
    near(r.weights[0] + r.weights[1] + r.scores[1], 1, 1e-15);
}

BOOST_AUTO_TEST_CASE(keys_are_logits_where_scores_tie) {
    layer l = pass_through(3, 1);
    l.router.score = score_kind::sigmoid;
    same(route_logits(l, {40, 50, 45}).ids, {1});  // all three sigmoids are 1
    l.router.key = key_kind::score;
    same(route_logits(l, {40, 50, 45}).ids, {0});
}

BOOST_AUTO_TEST_CASE(group_mask_of_zero_lets_a_masked_expert_in) {
    layer l = pass_through(4, 2);
    l.router.score = score_kind::sigmoid;
    l.router.groups = 2;
    l.router.group_score = group_score_kind::top2_sum;
    const values z = {1, 0, -1, -2}, bias(4, -0.9);
    same(route_logits(l, z, bias).ids, {0, 1});
    l.router.mask_zero = true;
    same(route_logits(l, z, bias).ids, {2, 3});  // keys −0.17 and −0.4 lose against 0.0
}

BOOST_AUTO_TEST_CASE(ties_of_groups_go_to_the_lower) {
    layer l = pass_through(6, 2);
    l.router.groups = 3;
    same(route_logits(l, {1, 0, 1, 5e-1, 1, 9e-1}).ids, {0, 1});
}

BOOST_AUTO_TEST_CASE(top_p_prefix) {
    layer l = pass_through(4, 0);
    l.router.select = select_kind::top_p;
    l.router.top_p = 0.6;
    const values z = {std::log(0.2), std::log(0.5), std::log(0.25), std::log(0.05)};
    same(route_logits(l, z).ids, {1, 2, -1, -1});
    l.router.top_p = 0.5 - 1e-12;
    same(route_logits(l, z).ids, {1, -1, -1, -1});
    l.router.top_p = 0.99;
    l.router.top_k = 3;
    same(route_logits(l, z).ids, {1, 2, 0});
}

BOOST_AUTO_TEST_CASE(relu_takes_the_positive) {
    layer l = pass_through(4, 0);
    l.router.select = select_kind::positive;
    l.router.score = score_kind::relu;
    const routing r = route_logits(l, {-1, 2, 0, 3, -1, -2, -3, 0});
    same(r.ids, {3, 1, -1, -1, -1, -1, -1, -1});
    near(row(r.weights, 0, 4), {3, 2, 0, 0}, 0);
    near(sparsity(r.scores), 0.75, 0);
}

BOOST_AUTO_TEST_CASE(second_expert_policies) {
    layer l = pass_through(3, 2);
    l.router.renormalise = renormalise_kind::sum_plus_epsilon;
    l.router.epsilon = 1e-9;
    const values z = {std::log(0.6), std::log(0.3), std::log(0.1)};  // w2 = 1/3
    batch b;
    const auto second_kept = [&](second_kind kind, double threshold, double u) {
        l.router.second = kind;
        l.router.threshold = threshold;
        b.uniform = {u};
        const routing r = route_logits(l, z, {}, b);
        near(r.weights[0], 2.0 / 3, 1e-8);  // normalised before the policy
        return r.ids[1] == 1;
    };
    BOOST_CHECK(second_kept(second_kind::all, 0.9, 0.9));
    BOOST_CHECK(!second_kept(second_kind::none, 0, 0));
    BOOST_CHECK(second_kept(second_kind::threshold, 0.3, 0) && !second_kept(second_kind::threshold, 0.34, 0));
    BOOST_CHECK(second_kept(second_kind::random, 0.5, 0.66) && !second_kept(second_kind::random, 0.5, 0.67));
    BOOST_CHECK(second_kept(second_kind::random_twice, 0, 0.59) && !second_kept(second_kind::random_twice, 0, 0.61));
    l.router.second = second_kind::sampling;
    b.key_noise = {9, 0, 2};
    same(route_logits(l, z, {}, b).ids, {0, 2});
}

BOOST_AUTO_TEST_CASE(plan_is_stable_by_expert) {
    const plan p = make_plan({2, 0, 0, -1, 2, 1}, 3);
    same(p.offsets, {0, 2, 3, 5});
    same(p.rows, {1, 2, 5, 0, 4});
    same(p.place, {3, 0, 1, -1, 4, 2});
}

BOOST_AUTO_TEST_CASE(margins_of_the_choice) {
    layer l = pass_through(4, 2);
    near(choice_margins(l, route_logits(l, {1, 4, 2, 1.5, 7, 7, 7, 0})), {0.5, 0}, 1e-15);
    l.router.groups = 2;
    near(choice_margins(l, route_logits(l, {1, 4, 2, 1.5, 7, 7, 7.25, 0})), {2, 0.25}, 1e-15);
    l.router.top_k = 1;
    near(choice_margins(l, route_logits(l, {1, 4, 2, 1.5, 7, 6.5, 3, 0})), {2, 0.5}, 1e-15);
}

BOOST_AUTO_TEST_CASE(chosen_from_outside) {
    layer l = pass_through(4, 2);
    l.router.renormalise = renormalise_kind::sum;
    batch b;
    b.chosen = {3, 0};
    const routing r = route_logits(l, {0, 5, 5, 0}, {}, b);
    same(r.ids, {3, 0});
    near(r.weights, {0.5, 0.5}, 1e-15);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- capacity (routing.md §8) ---------------------------------------------------------------------------------------

BOOST_AUTO_TEST_SUITE(capacities)

natural limit(capacity c, natural tokens, natural experts, natural k = 2, bool training = true, natural load = 0) {
    return capacity_of(c, tokens, experts, k, training, load);
}

BOOST_AUTO_TEST_CASE(formulas) {
    using enum capacity_kind;
    BOOST_CHECK_EQUAL(limit({.kind = mesh, .factor = 1.25}, 100, 8), 15u);
    BOOST_CHECK_EQUAL(limit({.kind = mesh, .factor = 1.25}, 8, 8), 4u);
    BOOST_CHECK_EQUAL(limit({.kind = mesh, .factor = 9}, 10, 2), 10u);
    BOOST_CHECK_EQUAL(limit({.kind = flaxformer, .factor = 1.0}, 50, 4), 12u);  // 12.5 to even
    BOOST_CHECK_EQUAL(limit({.kind = flaxformer, .factor = 1.0}, 54, 4), 14u);  // 13.5 to even
    BOOST_CHECK_EQUAL(limit({.kind = flaxformer, .factor = 1.25}, 8, 8), 4u);
    BOOST_CHECK_EQUAL(limit({.kind = megatron, .factor = 1.0}, 10, 8), 3u);  // ⌈2.5⌉
    BOOST_CHECK_EQUAL(limit({.kind = megatron, .factor = 1.0, .minimum = 5}, 10, 8), 5u);
    BOOST_CHECK_EQUAL(limit({.kind = tutel, .factor = 1.25}, 10, 4), 6u);  // 2·⌊1.25·3⌋
    BOOST_CHECK_EQUAL(limit({.kind = tutel, .factor = 1.25, .alignment = 4}, 10, 4), 8u);
    BOOST_CHECK_EQUAL(limit({.kind = tutel, .factor = 0}, 10, 4, 2, true, 7), 7u);
    BOOST_CHECK_EQUAL(limit({.kind = tutel, .factor = -1}, 10, 4, 2, true, 7), 6u);
    BOOST_CHECK_EQUAL(limit({.kind = nllb}, 31, 6), 12u);
    BOOST_CHECK_EQUAL(limit({.kind = nllb, .eval_fraction = 0.42}, 31, 6, 2, false), 14u);
    BOOST_CHECK_EQUAL(limit({.kind = nllb, .eval_fraction = 0.42}, 31, 6, 2, true), 12u);
    BOOST_CHECK_EQUAL(limit({.kind = hunyuan}, 100, 64, 8), 12u);
    BOOST_CHECK_EQUAL(limit({.kind = hunyuan}, 10, 64, 8), 8u);
    BOOST_CHECK_EQUAL(expert_choice_capacity(2, 10, 4), 5u);
}

/// Three tokens, two slots, C = 2 for both experts 0 and 1.
pairs three_tokens() { return {3, 2, 2, {0, 1, 1, 0, 0, 1}, {.9, .1, .6, .4, .8, .2}, {.9, .6, .8}}; }

ints as_ints(const std::vector<bool>& v) { return {v.begin(), v.end()}; }

BOOST_AUTO_TEST_CASE(priorities) {
    const pairs p = three_tokens();
    const auto kept = [&](priority_kind priority) {
        return as_ints(keep_pairs(p, 2, {.kind = capacity_kind::fixed, .priority = priority}));
    };
    same(kept(priority_kind::arrival), {1, 1, 1, 0, 1, 0});      // expert 0: t0, t2 | t1; expert 1: t1 | t0, t2
    same(kept(priority_kind::batch_top1), {1, 1, 1, 0, 1, 0});   // second choices in the order t0, t2, t1
    same(kept(priority_kind::probability), {1, 0, 1, 0, 1, 1});  // expert 1: .6, .2 | .1
    same(kept(priority_kind::position), {1, 1, 1, 1, 0, 0});     // earliest tokens
}

BOOST_AUTO_TEST_CASE(importance_permutes_the_tokens) {
    const pairs p{3, 1, 1, {0, 0, 0}, {.2, .9, .5}, {.2, .9, .5}};
    capacity c{.kind = capacity_kind::fixed, .priority = priority_kind::batch_top1};
    same(as_ints(keep_pairs(p, 2, c)), {0, 1, 1});
    c.priority = priority_kind::arrival;
    same(as_ints(keep_pairs(p, 2, c)), {1, 1, 0});
}

/// Whether later slots start after all or only the kept pairs, the same pairs survive: a full expert is full.
BOOST_AUTO_TEST_CASE(both_offsets_keep_the_same_pairs) {
    random_source random{7};
    for (int trial = 0; trial < 50; ++trial) {
        pairs p{12, 3, 4, {}, values(36, 0.0), values(12, 0.0)};
        for (natural t = 0; t < 12; ++t)
            for (int id : top_k(random.normals(4), 3)) p.ids.push_back(id);
        capacity c{.kind = capacity_kind::fixed, .offset = offset_kind::kept};
        const ints kept = as_ints(keep_pairs(p, 5, c));
        c.offset = offset_kind::all;
        same(as_ints(keep_pairs(p, 5, c)), kept);
    }
}

BOOST_AUTO_TEST_CASE(groups_are_routed_apart) {
    layer l = pass_through(2, 1);
    l.router.capacity = {.kind = capacity_kind::fixed, .fixed = 1, .group = 2};
    const routing r = route_logits(l, {1, 0, 1, 0, 1, 0, 0, 1, 1, 0});
    same(r.ids, {0, -1, 0, 1, 0});
    near(drop_rate(r.chosen, r.ids), 0.2, 1e-15);
    near(r.weights[1], 0, 0);
}

/// Overflow leaves the survivors' weights alone, unless normalised after dropping.
BOOST_AUTO_TEST_CASE(weights_after_dropping) {
    layer l = pass_through(2, 2);
    l.router.renormalise = renormalise_kind::sum;
    l.router.capacity = {.kind = capacity_kind::fixed, .fixed = 1};
    const values z = {1, 0, 2, 0};
    same(route_logits(l, z).ids, {0, 1, -1, -1});
    near(route_logits(l, z).weights, {sigmoid(1), sigmoid(-1), 0, 0}, 1e-15);
    const values crossed = {1, 0, 0, 2};
    same(route_logits(l, crossed).ids, {0, -1, 1, -1});
    near(route_logits(l, crossed).weights, {sigmoid(1), 0, sigmoid(2), 0}, 1e-15);
    l.router.renormalise_after_drop = true;
    near(route_logits(l, crossed).weights, {1, 0, 1, 0}, 1e-15);
}

BOOST_AUTO_TEST_SUITE_END()

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

// ---- invariants (training.md §8) ------------------------------------------------------------------------------------

BOOST_AUTO_TEST_SUITE(invariants)

struct fixture {
    layer l{.hidden = 6, .ffn = 5, .experts = 8};
    random_source random{37};
    fixture() {
        l.router.top_k = 3;
        l.router.renormalise = renormalise_kind::sum;
    }
};

BOOST_FIXTURE_TEST_CASE(permuting_tokens_permutes_outputs, fixture) {
    const parameters p = random_parameters(l, random);
    const batch b = random_batch(l, random, 9);
    batch moved = b;
    for (natural t = 0; t < 9; ++t) set_row(moved.x, (t * 4 + 2) % 9, row(b.x, t, 6));
    const values y = forward(l, p, b).y, moved_y = forward(l, p, moved).y;
    for (natural t = 0; t < 9; ++t) near(row(moved_y, (t * 4 + 2) % 9, 6), row(y, t, 6), 0);
}

BOOST_FIXTURE_TEST_CASE(permuting_experts_permutes_indices_only, fixture) {
    l.router.score = score_kind::sigmoid;
    const parameters p = random_parameters(l, random, {.selection_bias = true, .biases = true});
    const batch b = random_batch(l, random, 9);
    const auto target = [](natural e) { return (e * 3 + 1) % 8; };
    parameters moved = p;
    for (auto member : {&parameters::router, &parameters::selection_bias, &parameters::gate_up,
                        &parameters::gate_up_bias, &parameters::down, &parameters::down_bias}) {
        const natural size = (p.*member).size() / 8;
        for (natural e = 0; e < 8; ++e) set_row(moved.*member, target(e), row(p.*member, e, size));
    }
    const result r = forward(l, p, b), s = forward(l, moved, b);
    for (natural i = 0; i < r.routing.ids.size(); ++i)
        BOOST_CHECK_EQUAL(s.routing.ids[i], to_int(target(to_index(r.routing.ids[i]))));
    near(s.y, r.y, 1e-13);
}

/// Copies of one expert with weights that sum to 1 are the dense network, gradients included.
BOOST_FIXTURE_TEST_CASE(identical_experts_are_the_dense_network, fixture) {
    parameters p = random_parameters(l, random, {.biases = true});
    for (auto member : {&parameters::gate_up, &parameters::gate_up_bias, &parameters::down, &parameters::down_bias}) {
        const natural size = (p.*member).size() / 8;
        for (natural e = 1; e < 8; ++e) set_row(p.*member, e, row(p.*member, 0, size));
    }
    const batch b = random_batch(l, random, 9);
    const result r = forward(l, p, b);
    near(r.y, dense_forward(l, p, b.x, 9), 1e-13);

    const values dy = random.normals(54);
    const gradients g = backward(l, p, b, r, dy);
    const gradients dense = dense_backward(l, p, b.x, 9, dy);
    near(g.x, dense.x, 1e-12);
    for (auto member : {&parameters::gate_up, &parameters::gate_up_bias, &parameters::down, &parameters::down_bias}) {
        const natural size = (p.*member).size() / 8;
        values total(size, 0.0);
        for (natural e = 0; e < 8; ++e) add_scaled(total.data(), 1, (g.parameters.*member).data() + e * size, size);
        near(total, row(dense.parameters.*member, 0, size), 1e-12);
    }
    near(g.logits, values(72, 0.0), 1e-12);  // every choice is as good
}

BOOST_FIXTURE_TEST_CASE(enough_capacity_is_dropless, fixture) {
    const parameters p = random_parameters(l, random);
    const batch b = random_batch(l, random, 9);
    const result dropless = forward(l, p, b);
    l.router.capacity = {.kind = capacity_kind::fixed, .fixed = 27};
    near(forward(l, p, b).y, dropless.y, 0);
}

BOOST_FIXTURE_TEST_CASE(dropped_tokens_give_zero, fixture) {
    l.router.capacity = {.kind = capacity_kind::fixed, .fixed = 0};
    const parameters p = random_parameters(l, random);
    const batch b = random_batch(l, random, 4);
    const result r = forward(l, p, b);
    near(r.y, values(24, 0.0), 0);
    const gradients g = backward(l, p, b, r, random.normals(24));
    near(g.x, values(24, 0.0), 0);
    near(g.parameters.gate_up, values(p.gate_up.size(), 0.0), 0);
}

/// softmax over E → top-k → ÷Σ is top-k of logits → softmax over S.
BOOST_FIXTURE_TEST_CASE(two_ways_to_renormalise, fixture) {
    const parameters p = random_parameters(l, random);
    const batch b = random_batch(l, random, 9);
    const values dy = random.normals(54);
    const result sum_first = forward(l, p, b);
    const gradients g = backward(l, p, b, sum_first, dy);
    l.router.score = score_kind::softmax_selected;
    l.router.renormalise = renormalise_kind::none;
    const result selected = forward(l, p, b);
    near(selected.routing.weights, sum_first.routing.weights, 1e-14);
    near(backward(l, p, b, selected, dy).logits, g.logits, 1e-13);
}

/// Without a bias every monotone score selects as the logits do.
BOOST_FIXTURE_TEST_CASE(monotone_scores_select_the_same, fixture) {
    const parameters p = random_parameters(l, random);
    const batch b = random_batch(l, random, 20);
    const ints ids = forward(l, p, b).routing.ids;
    for (score_kind score : {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus})
        for (key_kind key : {key_kind::logit, key_kind::score}) {
            l.router.score = score;
            l.router.key = key;
            same(forward(l, p, b).routing.ids, ids);
        }
}

BOOST_FIXTURE_TEST_CASE(experts_without_rows_have_no_gradient, fixture) {
    const parameters p = random_parameters(l, random);
    const batch b = random_batch(l, random, 1);
    const result r = forward(l, p, b);
    const gradients g = backward(l, p, b, r, random.normals(6));
    for (natural e = 0; e < 8; ++e) {
        const values d = row(g.parameters.gate_up, e, 60);
        BOOST_CHECK_EQUAL(dot(d.data(), d.data(), 60) > 0, r.plan.offsets[e + 1] > r.plan.offsets[e]);
    }
}

BOOST_AUTO_TEST_SUITE_END()

// ---- other routers and controllers ----------------------------------------------------------------------------------

BOOST_AUTO_TEST_SUITE(other_routers)

BOOST_AUTO_TEST_CASE(expert_choice_fills_every_expert) {
    layer l = pass_through(4, 0);
    l.router.select = select_kind::expert_choice;
    l.router.choice_capacity = 2;
    random_source random{41};
    const routing r = route_logits(l, random.normals(40));
    near(expert_counts(r.ids, 4), values(4, 5.0), 0);
    l.router.choice_over_tokens = true;
    near(sum(route_logits(l, random.normals(40)).scores), 4, 1e-13);
}

BOOST_AUTO_TEST_CASE(sinkhorn_balances) {
    random_source random{43};
    const values pi = sinkhorn(random.normals(12 * 4), 12, 4, 1e-6);
    for (natural t = 0; t < 12; ++t) near(sum(row(pi, t, 4)), 1.0 / 12, 1e-5);
    for (natural e = 0; e < 4; ++e) {
        double total = 0;
        for (natural t = 0; t < 12; ++t) total += pi[t * 4 + e];
        near(total, 0.25, 1e-5);
    }
    layer l = pass_through(2, 1);
    l.router.select = select_kind::sinkhorn;
    l.router.score = score_kind::sigmoid;
    const values z = {1, 0, 1, 0.5, 1, 0.1, 1, 0.9};  // plain top-1 sends all to expert 0
    batch b;
    same(route_logits(l, z, {}, b).ids, {0, 0, 0, 0});
    b.training = true;
    const routing r = route_logits(l, z, {}, b);
    near(expert_counts(r.ids, 2), {2, 2}, 0);
    near(r.weights[1], sigmoid(0.5), 1e-15);
}

BOOST_AUTO_TEST_CASE(balanced_assignment_is_optimal) {
    random_source random{47};
    for (int trial = 0; trial < 20; ++trial) {
        const values a = random.normals(6 * 3);
        const ints owner = balanced_assignment(a, 6, 3);
        near(expert_counts(owner, 3), values(3, 2.0), 0);
        double best = -infinity, found = 0;
        for (natural t = 0; t < 6; ++t) found += a[t * 3 + to_index(owner[t])];
        for (int code = 0; code < 729; ++code) {
            double total = 0;
            values load(3, 0.0);
            for (natural t = 0, rest = to_index(code); t < 6; ++t, rest /= 3) {
                total += a[t * 3 + rest % 3];
                load[rest % 3] += 1;
            }
            if (load == values(3, 2.0)) best = std::max(best, total);
        }
        near(found, best, 1e-12);
    }
}

BOOST_AUTO_TEST_CASE(soft_moe_mixes) {
    layer l{.hidden = 5, .ffn = 4, .experts = 3};
    random_source random{53};
    parameters p = random_parameters(l, random);
    const values x = random.normals(35);
    const soft_moe_result r = soft_moe_forward(l, p, random.normals(30), 2, 2, x, 7);
    for (natural t = 0; t < 7; ++t) near(sum(row(r.combine, t, 6)), 1, 1e-14);
    near(sum(r.dispatch), 6, 1e-13);
    // One token is every slot, and identical experts then give f(x).
    for (natural e = 1; e < 3; ++e) {
        set_row(p.gate_up, e, row(p.gate_up, 0, 40));
        set_row(p.down, e, row(p.down, 0, 20));
    }
    const values one = row(x, 0, 5);
    near(soft_moe_forward(l, p, random.normals(30), 2, 2, one, 1).y, dense_forward(l, p, one, 1), 1e-13);
    near(merged_forward(l, p, {0.2, 0.3, 0.5}, one.data()), dense_forward(l, p, one, 1), 1e-13);
}

BOOST_AUTO_TEST_CASE(hash_tables) {
    layer l = pass_through(4, 2);
    l.router.score = score_kind::one;
    batch b;
    b.chosen = table_ids({0, 1, 2, 3, 3, 1}, 2, {2, 0});
    const routing r = route_logits(l, values(8, 0.5), {}, b);
    same(r.ids, {3, 1, 0, 1});
    near(r.weights, values(4, 1.0), 0);
}

BOOST_AUTO_TEST_CASE(base_mixes_the_features) {
    layer l{.hidden = 3, .ffn = 2, .experts = 2};
    l.router.score = score_kind::sigmoid;
    l.base_mix = true;
    random_source random{59};
    const parameters p = random_parameters(l, random);
    const batch b = random_batch(l, random, 4);
    const result r = forward(l, p, b);
    for (natural t = 0; t < 4; ++t) {
        const double alpha = sigmoid(maximum(row(r.routing.logits, t, 2)));
        const natural e = to_index(r.routing.ids[t]);
        values y = expert_forward(l, p, e, b.x.data() + t * 3);
        for (natural h = 0; h < 3; ++h) y[h] = alpha * y[h] + (1 - alpha) * b.x[t * 3 + h];
        near(row(r.y, t, 3), y, 1e-14);
    }
}

BOOST_AUTO_TEST_CASE(controllers) {
    near(sign_bias_update({0, 0, 1}, {1, 2, 3}, 0.1), {0.1, 0, 0.9}, 1e-15);
    near(additive_bias_update({0, 0, 1}, {1, 2, 3}, 0.1), {0.1, 0, 0.9}, 1e-15);
    near(additive_bias_update({0, 0}, {4, 0}, 0.1), {-0.2, 0.2}, 1e-15);
    near(relu_coefficient_update(1e-8, 1.2, 0.75, 0.5), 1.2e-8, 1e-20);
    near(relu_coefficient_update(1e-8, 1.2, 0.75, 0.9), 1e-8 / 1.2, 1e-20);
    // T = 4, E = 2, k = 1: β0 is the third largest of z0, so that two tokens prefer expert 0 and one is on the edge.
    const values z = {4, 0, 3, 0, 2, 0, 1, 0};
    const values beta = quantile_bias_update({0, 0}, z, 4, 1);
    near(beta, {2, 0}, 0);
    near(quantile_bias_update(beta, z, 4, 1), beta, 0);
}

BOOST_AUTO_TEST_CASE(metrics) {
    const values c = {4, 0, 2, 2};
    near({max_violation(c), min_violation(c), mean_violation(c)}, {1, 1, 0.5}, 1e-15);
    near(variation(c), std::sqrt(0.5), 1e-15);
    near(effective_experts(c), std::exp(1.5 * std::log(2)), 1e-14);
    near(load_entropy(c), 0.75, 1e-15);
    near(participation_ratio(c), 64.0 / 24, 1e-15);
    BOOST_CHECK_EQUAL(dead_experts(c), 1u);
    BOOST_CHECK_EQUAL(dead_experts({100, 0.9, 100, 199.1}, 0.01), 1u);
    near(drop_rate({0, 1, 2, 3}, {0, -1, 2, 3}), 0.25, 0);
    near(expert_usage({0, -1, 2, 3}, 4, 2), 3.0 / 8, 0);
    near(co_activation({0, 1, 0, 2}, 2, 3), {0, 0.5, 0.5, 1, 0, 0, 1, 0, 0}, 1e-15);
    near(saturation({0, 1, 2, 3}, {1, 0, 2, 0}, 2), 0.75, 1e-15);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
