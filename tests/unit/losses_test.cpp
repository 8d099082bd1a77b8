// Losses of a router: against the oracle, published values, masks, groups, several layers, and what they refuse.
#include "loss_routing.hpp"

using namespace loss_routing;
namespace losses = gf::losses;

namespace {

using softmax_two = gf::layer<around<6, 2>(gf::routers::olmoe), double>;
using sigmoid_two =
    gf::layer<around<6, 2>(gf::with(gf::routers::glm4_air, &gf::router_config::epsilon, 1e-6f)), double>;

const std::vector<std::uint8_t> mask = {1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0};
const std::vector<double> mask_numbers(mask.begin(), mask.end());
const std::vector<double> bias = {0.3, -0.2, 0.1, 0.4, -0.5, 0.2};

/// One loss against the oracle's value and gradient.
template <class L, class Loss, class Expected>
void compare(routed<L>& r, const Loss& loss, Expected expected, const char* what) {
    r.zero_gradients();
    const double value = gf::add_loss(r.ctx, loss, r.tape, r.in);
    const oracle::loss theirs = expected(r.input(r.in.mask.data() ? mask_numbers : std::vector<double>{}));
    check_close({value}, {theirs.value}, std::string(what) + " value");
    check_close(r.gradients(), r.to_logits(theirs), std::string(what) + " gradient");
}

oracle::loss times(oracle::loss l, double factor) {
    l.value *= factor;
    l.dp = oracle::scaled(l.dp, factor);
    return l;
}

template <class L>
void compare_all(routed<L>& r) {
    using in = const oracle::loss_input&;
    compare(
        r, losses::switch_balance{0.01}, [](in i) { return oracle::switch_loss(i, 0.01); }, "switch");
    compare(
        r, losses::gshard{0.3}, [](in i) { return times(oracle::gshard_loss(i), 0.3); }, "gshard");
    compare(
        r, losses::gshard{0.3, 7}, [](in i) { return times(oracle::gshard_loss(i, 7), 0.3); }, "gshard groups");
    compare(
        r, losses::gshard{0.3, 8}, [](in i) { return times(oracle::gshard_loss(i, 8), 0.3); }, "gshard odd");
    compare(
        r, losses::second_place{0.3}, [](in i) { return times(oracle::second_place_loss(i), 0.3); }, "second");
    compare(
        r, losses::second_place{1, 7}, [](in i) { return oracle::second_place_loss(i, 7); }, "second groups");
    compare(
        r, losses::flaxformer{0.7, 7}, [](in i) { return times(oracle::flaxformer_loss(i, 7), 0.7); }, "flaxformer");
    compare(
        r, losses::hugging_face{2}, [](in i) { return times(oracle::hf_loss(i), 2); }, "hugging_face");
    compare(
        r, losses::megatron{0.01}, [](in i) { return oracle::megatron_loss(i, 0.01); }, "megatron");
    compare(
        r, losses::expert_level{0.1}, [](in i) { return oracle::expert_level_loss(i, 0.1); }, "expert_level");
    compare(
        r, losses::device_level{0.05, 3}, [](in i) { return oracle::device_level_loss(i, 3, 0.05); }, "device");
    compare(
        r, losses::communication{0.02, 3, 2}, [](in i) { return oracle::communication_loss(i, 3, 2, 0.02); },
        "communication");
    compare(
        r, losses::sequence_wise{1e-4}, [](in i) { return oracle::sequence_loss(i, {0}, 1e-4); }, "sequence");
    const std::vector<gf::index_t> counts = {30, 12, 0, 7, 5, 46};
    const oracle::values numbers(counts.begin(), counts.end());
    compare(
        r, losses::global_batch{0.5, {counts.data(), {6}}},
        [&](in i) { return times(oracle::global_batch_loss(i, numbers, 100), 0.5); }, "global");
    compare(
        r, losses::entropy{0.2}, [](in i) { return oracle::entropy_loss(i, 0.2); }, "entropy");
    compare(
        r, losses::score_variance{0.7}, [](in i) { return oracle::score_variance_loss(i, 0.7); }, "score variance");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(losses)

BOOST_AUTO_TEST_CASE(published_values) {
    // The rows of the specification's golden vectors; the tie of the second choice goes to the lower expert.
    const std::vector<double> z = {1, 0, -1, 0, 2, 0, 0.5, 0.5, 1.5, 2, 1, 0};
    routed<gf::layer<around<3, 1>(gf::routers::olmoe), double>> one(z);
    routed<gf::layer<around<3, 2>(gf::routers::olmoe), double>> two(z);
    const auto near = [](double a, double b) { return std::fabs(a - b) < 1e-14 * b; };
    BOOST_TEST(near(gf::add_loss(one.ctx, ::losses::switch_balance{1}, one.tape), 1.0591744590161118));
    BOOST_TEST(near(gf::add_loss(one.ctx, ::losses::hugging_face{1}, one.tape), 1.0591744590161118));
    BOOST_TEST(near(gf::add_loss(two.ctx, ::losses::hugging_face{1}, two.tape), 2.23566758025644));
    BOOST_TEST(near(gf::add_loss(two.ctx, ::losses::megatron{1}, two.tape), 1.11783379012822));
    BOOST_TEST(near(gf::add_loss(two.ctx, ::losses::z_loss{1}, two.tape), 4.250476801349785));
    // CV² without the epsilon of the denominator: 1e-10 of it is seen from the tenth digit.
    BOOST_TEST(std::fabs(gf::add_loss(one.ctx, ::losses::importance{1}, one.tape) - 0.06471604881500888) < 1e-10);
}

BOOST_AUTO_TEST_CASE(every_loss_is_the_oracles) {
    routed<softmax_two> r(random_logits(21, 6, 1));
    compare_all(r);
    routed<sigmoid_two> s(random_logits(21, 6, 2), 1, {}, bias);
    compare_all(s);
}

BOOST_AUTO_TEST_CASE(padding_is_left_out) {
    routed<softmax_two> r(random_logits(21, 6, 3));
    r.in.mask = {mask.data(), {21}};
    compare_all(r);
    routed<sigmoid_two> s(random_logits(21, 6, 4), 1, {}, bias);
    s.in.mask = {mask.data(), {21}};
    compare_all(s);
}

BOOST_AUTO_TEST_CASE(what_stands_in_the_padding_does_not_matter) {
    const auto value_of = [](std::vector<double> z, double padding) {
        for (std::size_t t = 0; t < 21; ++t)
            for (std::size_t i = 0; mask[t] == 0 && i < 6; ++i) z[6 * t + i] = padding * static_cast<double>(i);
        routed<softmax_two> r(z);
        r.in.mask = {mask.data(), {21}};
        std::vector<double> values;
        const auto add = [&](auto loss) { values.push_back(gf::add_loss(r.ctx, loss, r.tape, r.in)); };
        add(::losses::hugging_face{});
        add(::losses::z_loss{});
        add(::losses::importance{});
        add(::losses::gate_importance{});
        add(::losses::entropy{});
        add(::losses::score_variance{});
        add(::losses::expert_selection{});
        add(::losses::relu_sparsity{1});
        add(::losses::second_place{1, 7});
        const auto g = r.gradients();
        for (std::size_t t = 0; t < 21; ++t)
            for (std::size_t i = 0; mask[t] == 0 && i < 6; ++i) BOOST_TEST(g[6 * t + i] == 0);
        return values;
    };
    const auto z = random_logits(21, 6, 5);
    BOOST_TEST(value_of(z, 1) == value_of(z, -3), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(sequences_are_groups) {
    routed<softmax_two> r(random_logits(21, 6, 6));
    const std::vector<std::int32_t> starts = {0, 4, 5, 16};
    r.in.sequence_starts = {starts.data(), {4}};
    using in = const oracle::loss_input&;
    compare(
        r, ::losses::sequence_wise{1},
        [](in i) {
            return oracle::sequence_loss(i, {0, 4, 5, 16}, 1);
        },
        "starts");
    compare(
        r, ::losses::gshard{1},
        [](in i) {
            return oracle::mean_over_parts(i, {0, 4, 5, 16}, [](in part) { return oracle::gshard_loss(part); });
        },
        "gshard starts");
    compare(
        r, ::losses::gshard{1, 7}, [](in i) { return oracle::gshard_loss(i, 7); }, "a size goes before starts");
}

BOOST_AUTO_TEST_CASE(losses_of_logits) {
    routed<softmax_two> r(random_logits(21, 6, 7));
    const auto check = [&](auto loss, const oracle::loss& theirs, const char* what) {
        r.zero_gradients();
        check_close({gf::add_loss(r.ctx, loss, r.tape, r.in)}, {theirs.value}, what);
        check_close(r.gradients(), theirs.dp, what);
    };
    check(::losses::z_loss{0.1}, oracle::z_loss(r.logits(), 21, 6, 0.1), "z");
    check(::losses::relu_sparsity{0.3}, oracle::relu_loss(r.logits(), 21, 0.3), "relu");
    r.in.mask = {mask.data(), {21}};
    check(::losses::z_loss{0.1}, oracle::z_loss(r.logits(), 21, 6, 0.1, mask_numbers), "masked z");
}

BOOST_AUTO_TEST_CASE(importance_of_probabilities_and_of_gates) {
    for (const auto kind : {::losses::variance::population, ::losses::variance::sample}) {
        const auto theirs =
            kind == ::losses::variance::sample ? oracle::variance_kind::sample : oracle::variance_kind::population;
        routed<softmax_two> r(random_logits(21, 6, 8));
        auto in = r.input();
        compare(
            r, ::losses::importance{0.4, kind},
            [&](const auto& i) { return oracle::importance_loss(i.p, 21, 6, 0.4, theirs); }, "importance");
        // Gates that are the probabilities of the chosen.
        r.zero_gradients();
        std::vector<double> gates(in.p.size(), 0.0);
        for (std::size_t i = 0; i < in.ids.size(); ++i) {
            const auto at = i / 2 * 6 + static_cast<std::size_t>(in.ids[i]);
            gates[at] = in.p[at];
        }
        oracle::loss gate = oracle::importance_loss(gates, 21, 6, 0.4, theirs);
        for (std::size_t i = 0; i < gates.size(); ++i) gate.dp[i] = gates[i] == 0 ? 0 : gate.dp[i];
        const double value = gf::add_loss(r.ctx, ::losses::gate_importance{0.4, kind}, r.tape, r.in);
        check_close({value}, {gate.value}, "gates");
        check_close(r.gradients(), r.to_logits(gate), "gates gradient");
    }
}

BOOST_AUTO_TEST_CASE(load_under_normal_noise) {
    using L = gf::layer<around<6, 2>(gf::with(gf::routers::v_moe, &gf::router_config::noise, 1.5f)), double>;
    gf::options<L> call;
    call.training = true;
    call.seed = 5;
    call.step = 3;
    const auto clean = random_logits(21, 6, 9);
    routed<L> r(clean, 1, call);
    const double value = gf::add_loss(r.ctx, ::losses::load{0.7}, r.tape, r.in, call);
    const auto theirs =
        oracle::load_loss(clean, r.logits(), std::vector<double>(clean.size(), 0.25), 21, 6, 2, 0.7, true);
    check_close({value}, {theirs.value}, "load", 1e-10);
    std::vector<double> d(clean.size());
    for (std::size_t i = 0; i < d.size(); ++i) d[i] = theirs.d_clean[i] + theirs.d_noisy[i];
    check_close(r.gradients(), d, "load gradient", 1e-10);

    // Without noise: counts [2, 1, 1] of the golden vectors, CV² 0.125, nothing to learn.
    using plain = gf::layer<around<3, 1>(gf::routers::v_moe), double>;
    routed<plain> still({1, 0, -1, 0, 2, 0, 0.5, 0.5, 1.5, 2, 1, 0});
    BOOST_TEST(std::fabs(gf::add_loss(still.ctx, ::losses::load{1}, still.tape, still.in, {}) - 0.125) < 1e-9);
    for (double g : still.gradients()) BOOST_TEST(g == 0);
}

BOOST_AUTO_TEST_CASE(load_under_learned_noise) {
    using L = gf::layer<around<6, 2>(gf::routers::noisy_top_k), double>;
    gf::options<L> call;
    call.training = true;
    call.seed = 5;
    call.step = 3;
    const auto clean = random_logits(21, 6, 19);
    routed<L> r(clean, 2, call);
    const auto pre = random_logits(6, 6, 20, 0.8);
    for (std::size_t i = 0; i < pre.size(); ++i) r.w.router_noise.data()[i] = pre[i];
    r.forward();
    const gf::counter_rng draw{call.seed, call.step, 0};
    std::vector<double> sigma(clean.size()), noise(clean.size());
    for (std::size_t t = 0; t < 21; ++t)
        for (std::size_t e = 0; e < 6; ++e) {
            double x = 0;
            for (std::size_t h = 0; h < 6; ++h) x += clean[6 * t + h] * pre[6 * e + h];
            sigma[6 * t + e] = oracle::softplus(x) + 1e-2;
            noise[6 * t + e] =
                draw.normal<double>(gf::purpose::gaussian, static_cast<gf::index_t>(t), static_cast<gf::index_t>(e));
        }
    check_close(bridge::values_of(r.tape.deviations()), sigma, "deviations");
    for (const bool masked : {false, true}) {
        r.zero_gradients();
        for (gf::index_t i = 0; i < 126; ++i) r.tape.deviation_gradients().data()[i] = 0;
        std::vector<double> z = clean, noisy = r.logits(), s = sigma, n = noise;
        std::size_t tokens = 21;
        if (masked) {
            // The loss of the tokens without the padding.
            r.in.mask = {mask.data(), {21}};
            tokens = 0;
            for (std::size_t t = 0; t < 21; ++t) {
                if (mask[t] == 0) continue;
                for (std::size_t e = 0; e < 6; ++e)
                    for (auto* v : {&z, &noisy, &s, &n}) (*v)[6 * tokens + e] = (*v)[6 * t + e];
                ++tokens;
            }
            for (auto* v : {&z, &noisy, &s, &n}) v->resize(6 * tokens);
        }
        const double value = gf::add_loss(r.ctx, ::losses::load{0.7}, r.tape, r.in, call);
        const auto theirs = oracle::load_loss(z, noisy, s, tokens, 6, 2, 0.7);
        check_close({value}, {theirs.value}, "load", 1e-10);
        std::vector<double> d, d_sigma, mine, mine_sigma;
        for (std::size_t i = 0; i < z.size(); ++i) {
            d.push_back(theirs.d_clean[i] + theirs.d_noisy[i]);
            d_sigma.push_back(theirs.d_noise_scale[i] - theirs.d_clean[i] * n[i]);
        }
        for (std::size_t i = 0; i < clean.size(); ++i) {
            const double g = r.gradients()[i], gs = r.tape.deviation_gradients().data()[i];
            if (masked && mask[i / 6] == 0) {
                BOOST_TEST((g == 0 && gs == 0));
                continue;
            }
            mine.push_back(g);
            mine_sigma.push_back(gs);
        }
        check_close(mine, d, "load gradient", 1e-10);
        check_close(mine_sigma, d_sigma, "load gradient of the deviations", 1e-10);
    }

    // Every expert chosen: counts, nothing to learn.
    using all = gf::layer<around<3, 3>(gf::routers::noisy_top_k), double>;
    routed<all> every({1, 0, -1, 0, 2, 0}, 1, {.training = true});
    BOOST_TEST(gf::add_loss(every.ctx, ::losses::load{1}, every.tape, every.in, every.call) == 0);
    for (double g : every.gradients()) BOOST_TEST(g == 0);
}

BOOST_AUTO_TEST_CASE(experts_that_choose_tokens) {
    using L = gf::layer<around<4, 1>(gf::routers::expert_choice), double>;
    routed<L> r(random_logits(8, 4, 10));
    oracle::loss_input in;
    in.tokens = 8;
    in.experts = 4;
    in.p.resize(32);
    const auto z = r.logits();
    for (std::size_t i = 0; i < 4; ++i) {
        oracle::values column(8);
        for (std::size_t t = 0; t < 8; ++t) column[t] = z[4 * t + i];
        const auto p = oracle::softmax(column);
        for (std::size_t t = 0; t < 8; ++t) in.p[4 * t + i] = p[t];
    }
    const oracle::loss theirs = oracle::expert_selection_loss(in);
    check_close({gf::add_loss(r.ctx, ::losses::expert_selection{1}, r.tape)}, {theirs.value}, "expert_selection");
    std::vector<double> d(32);
    for (std::size_t i = 0; i < 4; ++i) {
        double along = 0;
        for (std::size_t t = 0; t < 8; ++t) along += in.p[4 * t + i] * theirs.dp[4 * t + i];
        for (std::size_t t = 0; t < 8; ++t) d[4 * t + i] = in.p[4 * t + i] * (theirs.dp[4 * t + i] - along);
    }
    check_close(r.gradients(), d, "expert_selection gradient");
}

BOOST_AUTO_TEST_CASE(orthogonality_of_the_router) {
    gf::context<gf::cpu> ctx(1);
    auto w = gf::random_weights<softmax_two>(ctx, gf::seed{3});
    auto g = gf::make_gradients<softmax_two>(ctx);
    for (gf::index_t i = 0; i < g.router.size(); ++i) g.router.data()[i] = 1;
    const oracle::loss theirs = oracle::orthogonality_loss(bridge::values_of(w.router), 6, 6);
    check_close({gf::add_loss(ctx, ::losses::orthogonality{0.5}, w, g)}, {0.5 * theirs.value}, "orthogonality");
    std::vector<double> d;
    for (double v : theirs.dp) d.push_back(1 + 0.5 * v);
    check_close(bridge::values_of(g.router), d, "orthogonality gradient");
}

BOOST_AUTO_TEST_CASE(several_layers_are_one_batch) {
    routed<softmax_two> a(random_logits(21, 6, 11)), b(random_logits(21, 6, 12));
    auto in = a.input();
    const auto more = b.input();
    in.p.insert(in.p.end(), more.p.begin(), more.p.end());
    in.ids.insert(in.ids.end(), more.ids.begin(), more.ids.end());
    in.tokens = 42;
    const oracle::loss theirs = oracle::hf_loss(in);
    gf::tape<softmax_two>* const tapes[] = {&a.tape, &b.tape};
    check_close({gf::add_loss(a.ctx, ::losses::hugging_face{1}, tapes)}, {theirs.value}, "layers");
    auto z = a.logits(), g = a.gradients();
    for (double v : b.logits()) z.push_back(v);
    for (double v : b.gradients()) g.push_back(v);
    check_close(g, oracle::to_logits(oracle::score_kind::softmax, z, 42, 6, theirs.dp), "layers gradient");
}

BOOST_AUTO_TEST_CASE(several_losses_at_once) {
    routed<softmax_two> r(random_logits(21, 6, 13));
    double sum = gf::add_loss(r.ctx, ::losses::sequence_wise{}, r.tape, r.in);
    sum += gf::add_loss(r.ctx, ::losses::z_loss{}, r.tape, r.in);
    const auto g = r.gradients();
    r.zero_gradients();
    BOOST_TEST(gf::add_losses(r.ctx, r.tape, r.in, ::losses::sequence_wise{}, ::losses::z_loss{}) == sum);
    BOOST_TEST(r.gradients() == g, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_skewed_load_costs_more_than_an_even_one) {
    std::vector<double> even(36, 0.0), skewed(36, 0.0);
    for (std::size_t t = 0; t < 6; ++t) {
        even[6 * t + t] = 3;
        even[6 * t + (t + 1) % 6] = 2;
        skewed[6 * t + 4] = 3;
        skewed[6 * t + 5] = 2;
    }
    routed<softmax_two> e(even), s(skewed);
    std::vector<gf::index_t> balanced(6, 2), tilted = {0, 0, 0, 0, 6, 6};
    const auto check = [&](auto loss, auto same, double at_balance) {
        const double value = gf::add_loss(e.ctx, loss, e.tape);
        BOOST_TEST(std::fabs(value - at_balance) < 1e-8);
        BOOST_TEST(gf::add_loss(s.ctx, same, s.tape) > value + 0.1);
    };
    const auto both = [&](auto loss, double at_balance) { check(loss, loss, at_balance); };
    both(::losses::switch_balance{1}, 1);
    both(::losses::gshard{1}, 1);
    both(::losses::second_place{1}, 0.5);
    both(::losses::flaxformer{1}, 2);
    both(::losses::hugging_face{1}, 2);
    both(::losses::megatron{1}, 1);
    both(::losses::device_level{1, 3}, 1);
    both(::losses::sequence_wise{1}, 1);
    both(::losses::importance{1}, 0);
    both(::losses::gate_importance{1}, 0);
    check(::losses::global_batch{1, {balanced.data(), {6}}}, ::losses::global_batch{1, {tilted.data(), {6}}}, 1);
}

BOOST_AUTO_TEST_CASE(halves_of_a_batch_share_their_counts) {
    const auto z = random_logits(20, 6, 14);
    routed<softmax_two> whole(z), first({z.begin(), z.begin() + 60}), second({z.begin() + 60, z.end()});
    auto counts = gf::make_tensor<gf::index_t, gf::dyn>(whole.ctx, 6);
    for (gf::index_t& c : counts.view()) c = 0;
    gf::add_expert_counts(first.tape.routing().ids, counts.view());
    gf::add_expert_counts(second.tape.routing().ids, counts.view());
    const ::losses::global_batch loss{1, {counts.data(), {6}}};
    const double halves = gf::add_loss(first.ctx, loss, first.tape) + gf::add_loss(second.ctx, loss, second.tape);
    const double one = gf::add_loss(whole.ctx, ::losses::megatron{1}, whole.tape);
    check_close({halves / 2}, {one}, "halves");
    auto g = first.gradients();
    for (double v : second.gradients()) g.push_back(v);
    for (double& v : g) v /= 2;
    check_close(g, whole.gradients(), "halves gradient");
}

BOOST_AUTO_TEST_CASE(threads_change_no_bit) {
    const auto run = [](int threads) {
        routed<sigmoid_two> r(random_logits(21, 6, 15), threads, {}, bias);
        r.in.mask = {mask.data(), {21}};
        const double value = gf::add_losses(r.ctx, r.tape, r.in, ::losses::switch_balance{}, ::losses::sequence_wise{},
                                            ::losses::second_place{1, 7}, ::losses::entropy{}, ::losses::importance{},
                                            ::losses::score_variance{});
        auto g = r.gradients();
        g.push_back(value);
        return g;
    };
    const auto one = run(1);
    for (int threads : {2, 3, 8, 32}) BOOST_TEST(run(threads) == one, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(rows_without_a_finite_logit_have_no_gradient) {
    auto z = random_logits(3, 6, 16);
    for (std::size_t i = 6; i < 12; ++i) z[i] = -std::numeric_limits<double>::infinity();
    // The products of a layer make NaN of infinite inputs: set the logits on the tape.
    routed<softmax_two> r(random_logits(3, 6, 16));
    for (std::size_t i = 0; i < z.size(); ++i) r.tape.routing().logits.data()[i] = z[i];
    const double value = gf::add_losses(r.ctx, r.tape, r.in, ::losses::switch_balance{}, ::losses::z_loss{},
                                        ::losses::entropy{}, ::losses::importance{}, ::losses::gate_importance{},
                                        ::losses::second_place{}, ::losses::score_variance{});
    BOOST_TEST(std::isfinite(value));
    const auto g = r.gradients();
    for (std::size_t i = 0; i < g.size(); ++i) {
        BOOST_TEST(std::isfinite(g[i]));
        if (i >= 6 && i < 12) BOOST_TEST(g[i] == 0);
    }
}

BOOST_AUTO_TEST_CASE(no_tokens_and_only_padding) {
    routed<softmax_two> none(std::vector<double>{});
    BOOST_TEST(gf::add_losses(none.ctx, none.tape, none.in, ::losses::switch_balance{}, ::losses::z_loss{},
                              ::losses::importance{}, ::losses::expert_selection{}) == 0);
    routed<softmax_two> padded(random_logits(2, 6, 17));
    const std::vector<std::uint8_t> nothing = {0, 0};
    padded.in.mask = {nothing.data(), {2}};
    BOOST_TEST(gf::add_losses(padded.ctx, padded.tape, padded.in, ::losses::switch_balance{}, ::losses::z_loss{},
                              ::losses::entropy{}, ::losses::second_place{}, ::losses::importance{},
                              ::losses::score_variance{}, ::losses::relu_sparsity{},
                              ::losses::expert_selection{}) == 0);
    for (double g : padded.gradients()) BOOST_TEST(g == 0);
}

BOOST_AUTO_TEST_CASE(numbers_that_do_not_fit_are_refused) {
    routed<softmax_two> r(random_logits(4, 6, 18));
    const auto refuses = [&](auto loss, const char* argument) {
        try {
            gf::add_loss(r.ctx, loss, r.tape, r.in);
        } catch (const gf::argument_error& e) {
            BOOST_TEST(std::string(e.what()).find(argument) != std::string::npos, e.what());
            for (double g : r.gradients()) BOOST_TEST(g == 0);
            return true;
        }
        return false;
    };
    const std::vector<gf::index_t> five(5, 1), negative = {1, 1, 1, 1, 1, -1};
    BOOST_TEST(refuses(::losses::device_level{1, 4}, "devices"));
    BOOST_TEST(refuses(::losses::device_level{1, 0}, "devices"));
    BOOST_TEST(refuses(::losses::communication{1, 3, 4}, "most_devices"));
    BOOST_TEST(refuses(::losses::gshard{1, -1}, "group"));
    BOOST_TEST(refuses(::losses::second_place{1, -1}, "group"));
    BOOST_TEST(refuses(::losses::global_batch{1}, "chosen"));
    BOOST_TEST(refuses(::losses::global_batch{1, {five.data(), {5}}}, "chosen"));
    BOOST_TEST(refuses(::losses::global_batch{1, {negative.data(), {6}}}, "chosen"));
    const std::vector<std::uint8_t> three(3, 1);
    r.in.mask = {three.data(), {3}};
    BOOST_TEST(refuses(::losses::z_loss{}, "mask"));
    routed<softmax_two> other(random_logits(5, 6, 19));
    gf::tape<softmax_two>* const tapes[] = {&r.tape, &other.tape};
    BOOST_CHECK_THROW(gf::add_loss(r.ctx, ::losses::hugging_face{}, tapes), gf::argument_error);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
