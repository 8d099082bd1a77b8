// ctest: heavy
// The contracts that a reference has to keep before others are compared with it: ties, NaN, order, capacity.
#include <cmath>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <tests/oracle.hpp>
#include <tests/oracle/finite_difference.hpp>
#include <tests/unit/oracle_checks.hpp>

using namespace oracle_tests;

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(oracle_contracts)

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

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
