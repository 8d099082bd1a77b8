// ctest: heavy
// Invariants of the oracle, its other routers and its controllers.
#include <algorithm>
#include <cmath>

#include <boost/test/unit_test.hpp>

#include <tests/oracle.hpp>
#include <tests/oracle/finite_difference.hpp>
#include <tests/unit/oracle_checks.hpp>

using namespace oracle_tests;

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(oracle_invariants)

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
