// Block-sparse experts: the bits of the packed layer whatever is zero, on any number of threads, for rows and weights
// that are infinite, NaN or so small that sums become -0; what is zero is not read; pruning takes the least blocks.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>
#include <gatefold/moe/sparse.hpp>
#include <tests/layer_comparison.hpp>

namespace gf = gatefold;
using comparison::fill;

namespace {

using gf::bf16;
using gf::index_t;

template <int H, int F, gf::activation Act, class T, bool Bias = false>
using mixture = gf::layer<
    gf::config{
        .hidden = H, .ffn = F, .experts = 4, .top_k = 2, .act = Act, .bias = Bias, .router = gf::routers::mixtral},
    T>;
template <int H, int F, gf::activation Act, class T>
using dense = gf::layer<gf::config{.hidden = H, .ffn = F, .act = Act}, T>;
using shared = gf::layer<gf::config{.hidden = 70,
                                    .ffn = 40,
                                    .experts = 8,
                                    .top_k = 2,
                                    .act = gf::activation::relu_squared,
                                    .router = gf::routers::olmoe,
                                    .shared = {.ffn = 90, .gate = true, .act = gf::activation::relu}},
                         float>;

constexpr float infinite = std::numeric_limits<float>::infinity(),
                not_a_number = std::numeric_limits<float>::quiet_NaN();

template <class L>
struct subject {
    using T = typename L::value_type;
    gf::order sums;
    gf::context<gf::cpu> ctx{gf::context_options{.threads = 1}};
    gf::weights<L> w = gf::make_weights<L>(ctx);
    gf::tensor<T, gf::dyn, gf::dyn> x;

    explicit subject(index_t tokens, gf::order o = gf::order::fastest) : sums(o), x({tokens, L::hidden}) {
        fill(w, 3);
        fill(x, 4);
    }
    gf::view<const T, gf::dyn, L::hidden> view() const { return {x.data(), {x.extent(0), L::hidden}}; }
    /// The output as bytes.
    template <class W>
    std::vector<unsigned char> forward(const W& weights, int threads) const {
        gf::context<gf::cpu> own(gf::context_options{.threads = threads, .sums = sums});
        gf::tensor<T, gf::dyn, L::hidden> y({x.extent(0), L::hidden});
        gf::forward(own, weights, view(), y.view());
        std::vector<unsigned char> bytes(static_cast<std::size_t>(y.size()) * sizeof(T));
        if (!bytes.empty()) std::memcpy(bytes.data(), y.data(), bytes.size());
        return bytes;
    }
    void check(const std::string& what = "") {
        const auto packed = gf::pack(ctx, w);
        gf::context<gf::cpu> two(2);
        const auto s = gf::pack_sparse(two, w);
        const auto expected = forward(packed, 1);
        for (const int threads : {1, 2, 3})
            BOOST_TEST((forward(s, threads) == expected), what << " hidden " << L::hidden << " ffn " << L::ffn
                                                               << " tokens " << x.extent(0) << " threads " << threads
                                                               << " order " << static_cast<int>(sums));
    }
};

template <class L>
void check_fractions(gf::order sums) {
    for (const index_t tokens : {0, 1, 5, 64})
        for (const double fraction : {0.0, 0.5, 0.9, 1.0}) {
            subject<L> s(tokens, sums);
            gf::prune_blocks(s.ctx, s.w, fraction);
            s.check("fraction " + std::to_string(fraction));
        }
}

template <class T>
using gated = mixture<37, 29, gf::activation::swiglu, T, true>;
template <class T>
using squared = mixture<70, 131, gf::activation::relu_squared, T, true>;
template <class T>
using rectified = dense<600, 40, gf::activation::relu, T>;

template <class T>
void check_shapes(gf::order sums) {
    check_fractions<gated<T>>(sums);
    check_fractions<squared<T>>(sums);
    check_fractions<rectified<T>>(sums);
}

/// Features whose bias keeps their activation at zero: so many that their weights are skipped.
bool is_off(index_t f) { return f % 16 >= 2; }

/// The number of stored steps.
template <class L>
index_t stored_steps(const gf::sparse<L>& s) {
    index_t steps = 0;
    for (const auto& e : s.experts)
        for (index_t i = 0; i < e.runs.size(); ++i) steps += e.runs.data()[i].steps;
    return steps;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(property)
BOOST_AUTO_TEST_SUITE(sparse)

BOOST_AUTO_TEST_CASE(the_bits_of_the_packed_layer_in_float) { check_shapes<float>(gf::order::fastest); }
BOOST_AUTO_TEST_CASE(the_bits_of_the_packed_layer_in_bf16_portable) { check_shapes<bf16>(gf::order::portable); }
BOOST_AUTO_TEST_CASE(the_bits_of_the_packed_layer_in_bf16_dot) { check_shapes<bf16>(gf::order::dot); }
BOOST_AUTO_TEST_CASE(the_bits_of_the_packed_layer_in_other_types) {
    check_fractions<dense<37, 70, gf::activation::relu_squared, double>>(gf::order::fastest);
    check_fractions<dense<37, 70, gf::activation::reglu, gf::f16>>(gf::order::fastest);
    check_fractions<dense<1, 1, gf::activation::gelu_erf, float>>(gf::order::fastest);
}
BOOST_AUTO_TEST_CASE(shared_experts) { check_fractions<shared>(gf::order::fastest); }

BOOST_AUTO_TEST_CASE(one_expert_of_zeros_and_one_of_a_single_block) {
    using L = squared<float>;
    for (const index_t tokens : {1, 5, 64}) {
        subject<L> s(tokens);
        const auto zero = [](const auto& view) {
            for (index_t i = 0; i < view.size(); ++i) view.data()[i] = 0;
        };
        for (const int e : {0, 1}) zero(s.w.expert(e).gate_up), zero(s.w.expert(e).down);
        s.w.expert(1).gate_up.data()[50 * 70 + 40] = 2;
        s.w.expert(1).down.data()[69 * 131 + 89] = 3;
        s.check("single block");
        const auto p = gf::pack_sparse(s.ctx, s.w);
        BOOST_TEST(p.experts[0].summary[0].stored == 0);
        BOOST_TEST(p.experts[0].summary[1].stored == 0);
        BOOST_TEST(p.bytes(0) < 1000);
        BOOST_TEST(p.bytes(1) > p.bytes(0));
        BOOST_TEST(p.bytes(2) >= 2 * 131 * 70 * index_t{sizeof(float)});
        BOOST_TEST(p.bytes() == p.bytes(0) + p.bytes(1) + p.bytes(2) + p.bytes(3));
        BOOST_CHECK_THROW((void)p.bytes(4), gf::argument_error);
        BOOST_CHECK_THROW((void)p.bytes(-1), gf::argument_error);
    }
}

using types = std::tuple<float, bf16>;

BOOST_AUTO_TEST_CASE_TEMPLATE(rows_that_are_not_finite, T, types) {
    using L = squared<T>;
    for (const gf::order sums : {gf::order::portable, gf::order::dot})
        for (const float bad : {not_a_number, infinite, -infinite})
            for (const index_t tokens : {1, 5, 40}) {
                subject<L> s(tokens, sums);
                gf::prune_blocks(s.ctx, s.w, 0.7);
                // A NaN must not decide which experts are chosen.
                for (index_t i = 0; i < s.w.router.size(); ++i) s.w.router.data()[i] = {};
                for (index_t t = 0; t < tokens; t += 3) s.x(t, t % L::hidden) = T(bad);
                s.check("bad row");
            }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(weights_that_are_not_finite, T, types) {
    using L = squared<T>;
    for (const gf::order sums : {gf::order::portable, gf::order::dot})
        for (const float bad : {not_a_number, infinite})
            for (const index_t tokens : {1, 5}) {
                subject<L> s(tokens, sums);
                gf::prune_blocks(s.ctx, s.w, 0.7);
                // Activations that are zero meet them.
                for (int e = 0; e < 4; ++e)
                    for (int f = 0; f < L::ffn; ++f)
                        if (is_off(f)) s.w.gate_up_bias.data()[e * L::ffn + f] = T(-1000.0f);
                for (int e = 0; e < 4; ++e)
                    for (int f = 0; f < L::ffn; ++f) s.w.expert(e).down.data()[(7 + e) * L::ffn + f] = T(bad);
                s.check("bad weight");
                s.w.expert(2).gate_up.data()[5] = T(bad);
                s.check("bad weight in the first projection");
            }
}

// A product below every number makes a sum -0; x · 0 then decides whether it stays so.
BOOST_AUTO_TEST_CASE_TEMPLATE(sums_that_become_minus_zero, T, types) {
    using L = rectified<T>;
    for (const gf::order sums : {gf::order::portable, gf::order::dot})
        for (const float others : {-1.0f, 1.0f}) {
            subject<L> s(1, sums);
            for (index_t i = 0; i < s.w.up.size(); ++i) s.w.up.data()[i] = {};
            for (index_t i = 0; i < s.w.down.size(); ++i) s.w.down.data()[i] = {};
            for (int h = 0; h < L::hidden; ++h) s.x(0, h) = T(others);
            for (int h = 0; h < 2; ++h) s.x(0, h) = T(-1e-30f);
            for (int f = 0; f < L::ffn; ++f)
                for (int h = 0; h < 2; ++h) s.w.up.data()[f * L::hidden + h] = T(1e-30f);
            s.check("tiny first projection");
            // The second: features 0 and 1 tiny, the others zero or not.
            for (int h = 0; h < L::hidden; ++h) s.x(0, h) = T(h == 0 ? 1e-20f : 1.0f);
            for (int f = 0; f < L::ffn; ++f) {
                s.w.up.data()[f * L::hidden] = T(f < 2 ? 1e-10f : 0.0f);
                s.w.up.data()[f * L::hidden + 1] = T(f > 35 ? others : 0.0f);
            }
            for (int h = 0; h < L::hidden; ++h)
                for (int f = 0; f < L::ffn; ++f) s.w.down.data()[h * L::ffn + f] = T(f < 2 ? -1e-20f : 0.0f);
            s.check("tiny second projection");
        }
}

BOOST_AUTO_TEST_CASE(minus_zeros_are_stored) {
    using L = rectified<float>;
    subject<L> s(1);
    for (index_t i = 0; i < s.w.up.size(); ++i) s.w.up.data()[i] = 0;
    const auto without = gf::pack_sparse(s.ctx, s.w);
    s.w.up.data()[3] = -0.0f;
    const auto with = gf::pack_sparse(s.ctx, s.w);
    BOOST_TEST(stored_steps(with) == stored_steps(without) + 32);
    s.check();
}

// Where activations are zero, numbers that must not be read are put in place of the weights after packing.
BOOST_AUTO_TEST_CASE_TEMPLATE(weights_of_zero_activations_are_not_read, T, types) {
    using L = squared<T>;
    for (const gf::order sums : {gf::order::portable, gf::order::dot}) {
        for (const index_t tokens : {1, 2, 3, 4}) {
            // Rows that need more than one tile on this target read everything.
            namespace k = gf::detail::on_cpu;
            if (tokens > (sizeof(T) == 4 ? k::chain<float>::max_rows
                                         : (std::min)(k::portable_form::max_rows, k::dot_form::max_rows)))
                continue;
            subject<L> s(tokens, sums);
            for (int e = 0; e < 4; ++e)
                for (int f = 0; f < L::ffn; ++f)
                    if (is_off(f)) s.w.gate_up_bias.data()[e * L::ffn + f] = T(-1000.0f);
            auto p = gf::pack_sparse(s.ctx, s.w);
            const auto expected = s.forward(gf::pack(s.ctx, s.w), 1);
            BOOST_TEST((s.forward(p, 1) == expected));
            constexpr int W = gf::detail::on_cpu::lanes<float>, step = sizeof(T) == 2 ? 2 : 1;
            for (const auto& e : p.experts) {
                T* weights = reinterpret_cast<T*>(e.matrices.data());
                const auto* first = e.panels.data() + e.summary[1].panel;
                for (index_t panel = 0; panel < (L::width + 2 * W - 1) / (2 * W); ++panel)
                    for (index_t r = first[panel]; r < first[panel + 1]; ++r) {
                        const auto run = e.runs.data()[r];
                        const index_t stream = gf::detail::on_cpu::stream_of(e.runs.data() + first[panel],
                                                                             first[panel + 1] - first[panel], W * step);
                        for (int half = 0; half < 2; ++half)
                            for (index_t k = 0; k < run.steps; ++k)
                                for (int i = 0; i < W * step; ++i)
                                    if (is_off((run.step + k) * step))
                                        weights[run.offset + half * stream + k * W * step + i] = T(not_a_number);
                    }
            }
            for (const int threads : {1, 2}) BOOST_TEST((s.forward(p, threads) == expected), threads);
        }
    }
}

BOOST_AUTO_TEST_CASE(experts_can_be_handed_over_one_by_one) {
    using L = shared;
    subject<L> s(20);
    gf::prune_blocks(s.ctx, s.w, 0.5);
    const auto whole = gf::pack_sparse(s.ctx, s.w);
    auto p = gf::make_sparse<L>(s.ctx);
    BOOST_TEST(stored_steps(p) == 0);
    // The small parameters come from the weights; an expert that is not packed is one of zeros.
    gf::for_each_parameter(
        [](const char*, auto& to, const auto& from) {
            std::memcpy(to.data(), from.data(), static_cast<std::size_t>(to.size()) * sizeof(*to.data()));
        },
        p, s.w);
    auto without = s.w.expert(7);
    const auto copy = [](const auto& view) { return std::vector<float>(view.data(), view.data() + view.size()); };
    const std::vector<float> up = copy(without.gate_up), down = copy(without.down);
    for (index_t i = 0; i < without.gate_up.size(); ++i) without.gate_up.data()[i] = 0;
    for (index_t i = 0; i < without.down.size(); ++i) without.down.data()[i] = 0;
    const auto hand_over = [&](int e) {
        const auto one = s.w.expert(e);
        gf::pack_expert(s.ctx, p, e, one.gate_up, one.down);
    };
    const gf::view<float, gf::dyn, gf::dyn> shared_up{s.w.shared_gate_up.data(), {90, 70}},
        shared_down{s.w.shared_down.data(), {70, 90}};
    gf::pack_shared_expert(s.ctx, p, shared_up, shared_down);
    for (const int e : {6, 0, 3, 1, 5, 2, 4}) hand_over(e);
    BOOST_TEST((s.forward(p, 2) == s.forward(gf::pack(s.ctx, s.w), 1)));
    std::memcpy(without.gate_up.data(), up.data(), up.size() * sizeof(float));
    std::memcpy(without.down.data(), down.data(), down.size() * sizeof(float));
    hand_over(7);
    BOOST_TEST((s.forward(p, 2) == s.forward(whole, 1)));
    for (int e = 0; e <= 8; ++e) BOOST_TEST(p.bytes(e) == whole.bytes(e));
    hand_over(7);  // again, in place of what was there
    BOOST_TEST(p.bytes() == whole.bytes());

    const auto one = s.w.expert(0);
    BOOST_CHECK_THROW(gf::pack_expert(s.ctx, p, 8, one.gate_up, one.down), gf::argument_error);
    BOOST_CHECK_THROW(gf::pack_expert(s.ctx, p, -1, one.gate_up, one.down), gf::argument_error);
    BOOST_CHECK_THROW(gf::pack_expert(s.ctx, p, 0, one.down, one.gate_up), gf::argument_error);
    BOOST_CHECK_THROW(gf::pack_shared_expert(s.ctx, p, one.gate_up, one.down), gf::argument_error);
    gf::sparse<L> empty;
    BOOST_CHECK_THROW(gf::pack_expert(s.ctx, empty, 0, one.gate_up, one.down), gf::argument_error);
    BOOST_CHECK_THROW(gf::pack_shared_expert(s.ctx, empty, shared_up, shared_down), gf::argument_error);
    BOOST_TEST((s.forward(p, 1) == s.forward(whole, 1)));
}

BOOST_AUTO_TEST_CASE(stages_and_tape) {
    using L = squared<float>;
    subject<L> s(9);
    gf::prune_blocks(s.ctx, s.w, 0.5);
    const auto p = gf::pack(s.ctx, s.w);
    const auto q = gf::pack_sparse(s.ctx, s.w);
    gf::tape<L> a(s.ctx, 9), b(s.ctx, 9);
    gf::tensor<float, gf::dyn, 70> y({9, 70}), z({9, 70});
    gf::forward(s.ctx, p, {.x = s.view()}, y.view(), a);
    gf::forward(s.ctx, q, {.x = s.view()}, z.view(), b);
    BOOST_TEST(std::memcmp(y.data(), z.data(), 9 * 70 * sizeof(float)) == 0);
    BOOST_TEST(std::memcmp(a.gate_up().data(), b.gate_up().data(), 18 * 131 * sizeof(float)) == 0);
    gf::tensor<float, gf::dyn, 70> of_packed({18, 70}), of_sparse({18, 70});
    gf::experts(s.ctx, p, {.x = s.view()}, a.plan(), a.routing(), of_packed.view());
    gf::experts(s.ctx, q, {.x = s.view()}, a.plan(), a.routing(), of_sparse.view());
    BOOST_TEST(std::memcmp(of_packed.data(), of_sparse.data(), 18 * 70 * sizeof(float)) == 0);
}

BOOST_AUTO_TEST_CASE(pruning_takes_the_blocks_of_least_norm) {
    using L = dense<70, 40, gf::activation::swiglu, float>;  // 3 × 3 blocks of gate_up, 3 × 2 of down
    subject<L> s(1);
    for (int r = 0; r < 80; ++r)
        for (int c = 0; c < 70; ++c)
            s.w.gate_up.data()[r * 70 + c] = static_cast<float>(1 + (r % 40 / 16 * 3 + c / 32 + 4) % 9);
    for (index_t i = 0; i < s.w.down.size(); ++i) s.w.down.data()[i] = 1;
    gf::prune_blocks(s.ctx, s.w, 4.0 / 9);
    // Of gate_up, the sums of squares per block, worked out by hand from value² × elements.
    std::vector<std::pair<double, int>> order;
    for (int b = 0; b < 9; ++b) {
        const int rows = 2 * (b / 3 == 2 ? 8 : 16), columns = b % 3 == 2 ? 6 : 32, value = 1 + (b + 4) % 9;
        order.emplace_back(rows * columns * value * value, b);
    }
    std::sort(order.begin(), order.end());
    for (int i = 0; i < 9; ++i)
        for (int r = 0; r < 80; ++r)
            for (int c = 0; c < 70; ++c)
                if (r % 40 / 16 * 3 + c / 32 == order[static_cast<std::size_t>(i)].second)
                    BOOST_TEST((s.w.gate_up.data()[r * 70 + c] == 0) == (i < 4));
    // Of down round(4/9 · 6) = 3: those with fewest elements, the earliest of equals.
    int zeros = 0;
    for (index_t i = 0; i < s.w.down.size(); ++i) zeros += s.w.down.data()[i] == 0;
    BOOST_TEST(zeros == 6 * 8 + 6 * 32 + 32 * 8);
}

BOOST_AUTO_TEST_CASE(pruning_is_the_same_on_any_number_of_threads_and_is_what_is_left_out) {
    using L = mixture<128, 96, gf::activation::swiglu, float>;
    subject<L> s(1), other(1);
    gf::context<gf::cpu> three(3);
    gf::prune_blocks(s.ctx, s.w, 0.75);
    gf::prune_blocks(three, other.w, 0.75);
    BOOST_TEST(std::memcmp(s.w.gate_up.data(), other.w.gate_up.data(),
                           static_cast<std::size_t>(s.w.gate_up.size()) * sizeof(float)) == 0);
    const auto all = gf::pack_sparse(s.ctx, subject<L>(1).w), quarter = gf::pack_sparse(s.ctx, s.w);
    BOOST_TEST(4 * stored_steps(quarter) == stored_steps(all));
    BOOST_TEST(quarter.bytes() < all.bytes() * 26 / 100);
}

BOOST_AUTO_TEST_CASE(fractions_outside_are_refused) {
    using L = rectified<float>;
    subject<L> s(1);
    const float before = s.w.up.data()[0];
    for (const double bad : {-0.01, 1.01, std::nan(""), HUGE_VAL})
        BOOST_CHECK_THROW(gf::prune_blocks(s.ctx, s.w, bad), gf::argument_error);
    BOOST_TEST(s.w.up.data()[0] == before);
    gf::weights<L> empty;
    BOOST_CHECK_THROW(gf::prune_blocks(s.ctx, empty, 0.5), gf::argument_error);
    BOOST_CHECK_THROW(gf::pack_sparse(s.ctx, empty), gf::argument_error);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
