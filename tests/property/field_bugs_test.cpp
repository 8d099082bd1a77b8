// ctest: heavy timeout=600
// Kinds of faults that other implementations of mixtures of experts shipped: see tests/field_bugs.md, which says where
// each kind is tested. Here are those that no other file is about.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>
#include <sys/mman.h>

#include <gatefold/gatefold.hpp>
#include <tests/layer_comparison.hpp>

namespace {

namespace gf = gatefold;
using comparison::fill;

template <class L>
using rows = gf::view<typename L::value_type, gf::dyn, L::hidden>;
template <class L>
using const_rows = gf::view<const typename L::value_type, gf::dyn, L::hidden>;

/// A layer over random tokens, its gradients full of NaN beforehand.
template <class L>
struct subject {
    using T = typename L::value_type;
    gf::context<gf::cpu> ctx;
    gf::weights<L> w;
    gf::index_t tokens;
    gf::tensor<T, gf::dyn, gf::dyn> x, dy, y, dx;
    gf::tape<L> tape;
    gf::gradients<L> g;
    gf::batch<L> in;

    explicit subject(gf::index_t n, int threads = 2)
        : ctx(threads),
          w(gf::make_weights<L>(ctx)),
          tokens(n),
          x({n, L::hidden}),
          dy({n, L::hidden}),
          y({n, L::hidden}),
          dx({n, L::hidden}),
          tape(ctx, n),
          g(gf::make_gradients<L>(ctx)) {
        fill(w, 3);
        fill(x, 4);
        fill(dy, 5);
        poison(g);
        in.x = {x.data(), {n, L::hidden}};
    }
    template <class Set>
    void poison(Set& set) {
        gf::for_each_parameter(
            [](const char*, auto& slot) {
                for (gf::index_t i = 0; i < slot.size(); ++i)
                    slot.data()[i] =
                        std::numeric_limits<typename std::remove_reference_t<decltype(slot)>::value_type>::quiet_NaN();
            },
            set);
    }
    void forward() { gf::forward(ctx, w, in, rows<L>{y.data(), {tokens, L::hidden}}, tape); }
    void backward() {
        gf::backward(ctx, w, in, tape, const_rows<L>{dy.data(), {tokens, L::hidden}},
                     rows<L>{dx.data(), {tokens, L::hidden}}, g);
    }
    bool finite() {
        bool all = true;
        for (gf::index_t i = 0; i < tokens * L::hidden; ++i)
            all = all && std::isfinite(static_cast<double>(y.data()[i])) &&
                  std::isfinite(static_cast<double>(dx.data()[i]));
        gf::for_each_parameter(
            [&](const char*, auto& slot) {
                for (gf::index_t i = 0; i < slot.size(); ++i)
                    all = all && std::isfinite(static_cast<double>(slot.data()[i]));
            },
            g);
        return all;
    }
};

constexpr gf::config around(gf::router_config r, int experts = 6, int top_k = 2) {
    gf::config c{.hidden = 10, .ffn = 4, .experts = experts, .top_k = top_k};
    c.router = r;
    return c;
}

/// Weights of one configuration against the formula, in double, from the logits that the router returned.
template <gf::score From, gf::renormalise Renorm, class T>
void check_weights() {
    constexpr bool adds = Renorm == gf::renormalise::sum_plus;
    using L =
        gf::layer<around({.bias = true, .from = From, .renorm = Renorm, .epsilon = adds ? 0.5f : 0, .scale = 1.75}), T>;
    subject<L> s(9);
    // Logits of both signs, below zero too among the chosen.
    for (int e = 0; e < L::choices; ++e)
        s.w.router_bias.data()[e] =
            gf::from_accumulate<typename L::router_type>(typename L::accumulate_type(e % 2 == 0 ? -1.5 : 0.25));
    s.forward();
    for (gf::index_t t = 0; t < s.tokens; ++t) {
        const auto* z = s.tape.routing().logits.row(t);
        const auto* ids = s.tape.routing().ids.row(t);
        double v[2] = {}, total = 0, all = 0, chosen = 0;
        for (int e = 0; e < L::choices; ++e) all += std::exp(static_cast<double>(z[e]));
        for (int i = 0; i < 2; ++i) chosen += std::exp(static_cast<double>(z[ids[i]]));
        for (int i = 0; i < 2; ++i) {
            const auto x = static_cast<double>(z[ids[i]]);
            if (From == gf::score::softmax) v[i] = std::exp(x) / all;
            if (From == gf::score::softmax_selected) v[i] = std::exp(x) / chosen;
            if (From == gf::score::sigmoid) v[i] = 1 / (1 + std::exp(-x));
            if (From == gf::score::sqrt_softplus) v[i] = std::sqrt(std::log1p(std::exp(x)));
            total += v[i];
        }
        const double divisor = Renorm == gf::renormalise::none ? 1 : adds ? total + 0.5 : total;
        for (int i = 0; i < 2; ++i) {
            const double expected = 1.75 * v[i] / divisor, got = static_cast<double>(s.tape.routing().weights(t, i));
            BOOST_TEST(std::fabs(got - expected) <= 1e-5 * expected, "weight " << got << ", expected " << expected);
        }
    }
}

template <class T>
void check_scores_and_divisions() {
    using gf::renormalise, gf::score;
    check_weights<score::softmax, renormalise::none, T>();
    check_weights<score::softmax, renormalise::sum, T>();
    check_weights<score::softmax, renormalise::sum_plus, T>();
    check_weights<score::softmax_selected, renormalise::none, T>();
    check_weights<score::sigmoid, renormalise::none, T>();
    check_weights<score::sigmoid, renormalise::sum, T>();
    check_weights<score::sigmoid, renormalise::sum_plus, T>();
    check_weights<score::sqrt_softplus, renormalise::none, T>();
    check_weights<score::sqrt_softplus, renormalise::sum, T>();
}

/// The plan of given counts: every expert's rows are its pairs, in the order of the pairs.
template <int E>
void check_plan() {
    using L = gf::layer<gf::config{.hidden = 1, .ffn = 1, .experts = E, .top_k = 2}, float>;
    for (const int around_alignment : {0, 1, 15, 16, 17, 31, 33})
        for (const int threads : {1, 3}) {
            gf::context<gf::cpu> ctx(threads);
            // Expert e has around_alignment + e % 3 - 1 rows, those at the ends and every seventh none.
            std::vector<std::int32_t> ids;
            for (int round = 0; round <= around_alignment + 1; ++round)
                for (int e = 0; e < E; ++e)
                    if (e != 0 && e != E - 1 && e % 7 != 0 && round < around_alignment + e % 3 - 1) ids.push_back(e);
            while (ids.size() % 2 != 0 || ids.empty()) ids.push_back(-1);
            const auto tokens = static_cast<gf::index_t>(ids.size() / 2);
            gf::plan<L> plan(ctx, tokens);
            const auto out = plan.view(tokens);
            gf::make_plan<L>(ctx, gf::view<const std::int32_t, gf::dyn, 2>(ids.data(), {tokens, 2}), out);
            gf::index_t row = 0;
            bool right = out.offsets[0] == 0;
            for (int e = 0; e < E; ++e) {
                right = right && out.offsets[e] == row;
                for (std::size_t pair = 0; pair < ids.size(); ++pair)
                    if (ids[pair] == e) {
                        right = right && out.rows[row] == static_cast<std::int32_t>(pair) &&
                                out.place[static_cast<gf::index_t>(pair)] == row;
                        ++row;
                    }
            }
            right = right && out.offsets[E] == row;
            for (std::size_t pair = 0; pair < ids.size(); ++pair)
                right = right && (ids[pair] >= 0 || out.place[static_cast<gf::index_t>(pair)] == -1);
            BOOST_TEST(right, E << " experts, about " << around_alignment << " rows each");
        }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(property)
BOOST_AUTO_TEST_SUITE(field_bugs)

BOOST_AUTO_TEST_CASE(every_score_division_and_storage_type) {
    check_scores_and_divisions<float>();
    check_scores_and_divisions<gf::bf16>();
    check_scores_and_divisions<gf::f16>();
}

BOOST_AUTO_TEST_CASE(what_is_dropped_is_not_read) {
    // Expert 0 takes one row per group and is NaN throughout; every other token keeps its second expert only.
    constexpr gf::config c = gf::with(around({.bias = true, .renorm = gf::renormalise::sum}), &gf::config::capacity,
                                      gf::capacity_config{.rule = gf::capacity_rule::fixed, .rows = 1});
    using L = gf::layer<c, float>;
    subject<L> s(8);
    for (gf::index_t i = 0; i < s.w.router.size(); ++i) s.w.router.data()[i] *= 0.01f;
    for (int e = 0; e < 6; ++e) s.w.router_bias.data()[e] = e == 0 ? 5.0f : 0.0f;
    for (gf::index_t i = 0; i < s.w.expert(0).down.size(); ++i) s.w.expert(0).down.data()[i] = NAN;
    s.forward();
    s.backward();
    BOOST_TEST(s.ctx.report().dropped >= 7);
    BOOST_TEST(std::isnan(s.y.data()[0]));
    for (gf::index_t i = L::hidden; i < s.tokens * L::hidden; ++i) {
        BOOST_TEST(std::isfinite(s.y.data()[i]));
        BOOST_TEST(std::isfinite(s.dx.data()[i]));
    }
}

BOOST_AUTO_TEST_CASE(experts_without_rows) {
    // Rows for some, for all but one, for none; garbage in gradients and workspace beforehand.
    constexpr gf::config c =
        gf::with(around({.select = gf::selection::given}), &gf::config::shared, gf::shared_config{.ffn = 3});
    using L = gf::layer<c, float>;
    for (const int missing : {0, 1, 3, 5, 6})
        for (const gf::index_t tokens : {1, 13}) {
            subject<L> s(tokens);
            // The workspace of the calls, poisoned.
            const std::size_t bytes = gf::training_workspace_bytes<L>(tokens, 2);
            std::memset(s.ctx.workspace(bytes), 0xff, bytes);
            std::vector<std::int32_t> ids(static_cast<std::size_t>(2 * tokens), -1);
            for (std::size_t i = 0; i < ids.size() && missing < 6; ++i)
                ids[i] = static_cast<std::int32_t>(static_cast<int>(i) % (6 - missing)) + missing;
            s.in.chosen = {ids.data(), {tokens, 2}};
            s.forward();
            s.backward();
            BOOST_TEST(s.finite(), missing << " experts without rows, " << tokens << " tokens");
            for (int e = 0; e < 6; ++e) {
                bool has = false, zero = true;
                for (const std::int32_t id : ids) has = has || id == e;
                for (gf::index_t i = 0; i < s.g.expert(e).down.size(); ++i)
                    zero = zero && s.g.expert(e).down.data()[i] == 0;
                for (gf::index_t i = 0; i < s.g.expert(e).gate_up.size(); ++i)
                    zero = zero && s.g.expert(e).gate_up.data()[i] == 0;
                BOOST_TEST(zero != has, "expert " << e);
            }
        }
}

BOOST_AUTO_TEST_CASE(a_mean_does_not_scale_with_the_batch) {
    // Losses that are means over tokens: half the sum of two halves is the whole, its gradient too.
    using L = gf::layer<around(gf::routers::mixtral), double>;
    subject<L> whole(20), half(10);
    whole.forward();
    const auto check = [&](auto loss) {
        auto dz = whole.tape.logit_gradients();
        for (gf::index_t i = 0; i < dz.size(); ++i) dz.data()[i] = 0;
        const double all = gf::add_loss(whole.ctx, loss, whole.tape);
        double sum = 0;
        for (gf::index_t part = 0; part < 2; ++part) {
            half.in.x = {whole.x.data() + part * 10 * L::hidden, {10, L::hidden}};
            half.forward();
            sum += gf::add_loss(half.ctx, loss, half.tape) / 2;
            for (gf::index_t i = 0; i < half.tape.logit_gradients().size(); ++i) {
                const double mine = half.tape.logit_gradients().data()[i] / 2,
                             theirs = dz.data()[part * 10 * L::choices + i];
                BOOST_TEST(std::fabs(mine - theirs) <= 1e-14);
            }
        }
        BOOST_TEST(std::fabs(sum - all) <= 1e-13 * std::fabs(all));
        BOOST_TEST(all != 0);
        auto twice = loss;
        twice.coefficient *= 2;
        BOOST_TEST(std::fabs(gf::add_loss(whole.ctx, twice, whole.tape) - 2 * all) <= 1e-13 * std::fabs(all));
    };
    check(gf::losses::z_loss{0.3});
    check(gf::losses::entropy{0.3});
    check(gf::losses::relu_sparsity{0.3});
    check(gf::losses::gshard{0.3, 5});
    check(gf::losses::flaxformer{0.3, 10});
}

BOOST_AUTO_TEST_CASE(clamps_and_scale_of_shared_and_routed_experts) {
    // Limits far inside the range of the pre-activations, other ones for the shared expert, biases across both; the
    // scale is that of the routed experts alone, and acts once.
    constexpr gf::config routed{
        .hidden = 24,
        .ffn = 10,
        .experts = 5,
        .top_k = 2,
        .act = gf::activation::clamped_swiglu,
        .limit = 0.25f,
        .bias = true,
        .router = gf::with(gf::routers::mixtral, &gf::router_config::scale, 1.75),
        .shared = {.ffn = 7, .act = gf::activation::limited_swiglu, .limit = 1.5f, .bias = true}};
    constexpr gf::config swapped = gf::with(
        routed, &gf::config::act, gf::activation::limited_swiglu, &gf::config::limit, 1.5f, &gf::config::shared,
        gf::shared_config{.ffn = 7, .act = gf::activation::clamped_swiglu, .limit = 0.25f, .bias = true});
    comparison::compare<gf::layer<routed, double>>(17, 1);
    comparison::compare<gf::layer<swapped, double>>(17, 2);
    comparison::compare<gf::layer<routed, float>>(3, 3);
}

BOOST_AUTO_TEST_CASE(positions_at_the_boundaries_of_experts) {
    check_plan<2>();
    check_plan<255>();
    check_plan<256>();
    check_plan<257>();
    check_plan<512>();
    check_plan<1023>();
    check_plan<1025>();
}

BOOST_AUTO_TEST_CASE(offsets_beyond_32_bits) {
    // 256 experts of DeepSeek-V3's width: an address range without memory behind it.
    using L = gf::layer<gf::config{.hidden = 7168, .ffn = 2048, .experts = 256, .top_k = 8}, gf::bf16>;
    constexpr gf::index_t each = gf::index_t{2} * 2048 * 7168;
    const auto bytes = static_cast<std::size_t>(each * 256) * sizeof(gf::bf16);
    void* range = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) return;
    const auto* first = static_cast<const gf::bf16*>(range);
    gf::weights_view<L> w;
    w.gate_up = {first, {256, 4096, 7168}};
    w.down = {first, {256, 7168, 2048}};
    BOOST_TEST((w.expert(255).gate_up.data() - first == 255 * each));
    BOOST_TEST((w.expert(255).down.data() - first == 255 * each / 2));
    BOOST_TEST((&w.gate_up(255, 4095, 7167) - first == 256 * each - 1));
    const gf::view<const gf::bf16, gf::dyn, 7168> tall{first, {256 * 4096, 7168}};
    BOOST_TEST((tall.row(256 * 4096 - 1) - first == 256 * each - 7168));
    munmap(range, bytes);
    static_assert(gf::largest_index(L::c, 4096) > 0x7fffffff);
}

BOOST_AUTO_TEST_CASE(twenty_runs_have_the_same_bytes) {
    using L = gf::layer<around(gf::with(gf::routers::glm4_moe, &gf::router_config::scale, 1.5)), float>;
    std::vector<float> before;
    for (int i = 0; i < 20; ++i) {
        subject<L> s(67, 1 + i % 5);
        s.forward();
        s.backward();
        std::vector<float> now(s.dx.data(), s.dx.data() + s.dx.size());
        gf::for_each_parameter(
            [&](const char*, auto& slot) { now.insert(now.end(), slot.data(), slot.data() + slot.size()); }, s.g);
        BOOST_TEST((i == 0 || std::memcmp(now.data(), before.data(), now.size() * sizeof(float)) == 0), "run " << i);
        before = now;
    }
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
