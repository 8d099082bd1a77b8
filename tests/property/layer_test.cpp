// What a layer promises whatever its numbers are: the same bits for any thread count, batch split and form of the
// weights; permuted tokens give permuted outputs; empty experts, all tokens on one, no tokens at all.
#include <cstring>
#include <limits>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>
#include <tests/layer_comparison.hpp>
#include <tests/layers.hpp>

namespace gf = gatefold;
using comparison::fill;

namespace {

using mixtral = gf::layer<test_layers::mixtral, float>;
using shared = gf::layer<test_layers::deepseek, float>;
using narrow =
    gf::layer<gf::config{.hidden = 70, .ffn = 33, .experts = 5, .top_k = 3, .router = gf::routers::gpt_oss}, gf::bf16>;
using half =
    gf::layer<gf::config{.hidden = 33, .ffn = 70, .experts = 6, .top_k = 1, .router = gf::routers::olmoe}, gf::f16>;
using dense = gf::layer<gf::config{.hidden = 33, .ffn = 51}, float>;

template <class L>
using rows = gf::view<typename L::value_type, gf::dyn, L::hidden>;
template <class L>
using const_rows = gf::view<const typename L::value_type, gf::dyn, L::hidden>;

/// One forward and backward pass; everything that comes out, as bytes.
template <class L>
struct run {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    std::vector<T> y, dx;
    std::vector<A> gradients;

    run(const gf::weights<L>& w, const T* x, const T* dy, gf::index_t tokens, int threads) {
        gf::context<gf::cpu> ctx(threads);
        y.resize(static_cast<std::size_t>(tokens * L::hidden));
        dx.resize(y.size());
        gf::tape<L> tape(ctx, tokens);
        auto g = gf::make_gradients<L>(ctx);
        gf::batch<L> in;
        in.x = {x, {tokens, L::hidden}};
        gf::forward(ctx, w, in, rows<L>{y.data(), {tokens, L::hidden}}, tape);
        gf::backward(ctx, w, in, tape, const_rows<L>{dy, {tokens, L::hidden}}, rows<L>{dx.data(), {tokens, L::hidden}},
                     g);
        gf::for_each_parameter(
            [&](const char*, const auto& slot) {
                for (gf::index_t i = 0; i < slot.size(); ++i) gradients.push_back(static_cast<A>(slot.data()[i]));
            },
            g);
    }
    bool operator==(const run& other) const {
        return same(y, other.y) && same(dx, other.dx) && same(gradients, other.gradients);
    }

private:
    template <class V>
    static bool same(const V& a, const V& b) {
        return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0);
    }
};

template <class L>
struct subject {
    using T = typename L::value_type;
    gf::context<gf::cpu> ctx{1};
    gf::weights<L> w;
    gf::index_t tokens;
    gf::tensor<T, gf::dyn, gf::dyn> x, dy;

    explicit subject(gf::index_t n, std::uint64_t seed = 3)
        : w(gf::make_weights<L>(ctx)), tokens(n), x({n, L::hidden}), dy({n, L::hidden}) {
        fill(w, seed);
        fill(x, seed + 1);
        fill(dy, seed + 2);
    }
    template <class W>
    std::vector<T> forward(const W& weights, const T* from, gf::index_t n, int threads = 1) const {
        gf::context<gf::cpu> own(threads);
        std::vector<T> y(static_cast<std::size_t>(n * L::hidden));
        gf::forward(own, weights, const_rows<L>{from, {n, L::hidden}}, rows<L>{y.data(), {n, L::hidden}});
        return y;
    }
};

template <class V>
bool same_bits(const V& a, const V& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0);
}

using layers = std::tuple<mixtral, shared, narrow, half, dense>;

}  // namespace

BOOST_AUTO_TEST_SUITE(property)
BOOST_AUTO_TEST_SUITE(layer)

BOOST_AUTO_TEST_CASE_TEMPLATE(the_same_bits_for_any_thread_count, L, layers) {
    for (const gf::index_t tokens : {1, 2, 13, 130}) {
        const subject<L> s(tokens);
        const run<L> one(s.w, s.x.data(), s.dy.data(), tokens, 1);
        for (const int threads : {2, 3, 5, 16})
            BOOST_TEST((run<L>(s.w, s.x.data(), s.dy.data(), tokens, threads) == one),
                       threads << " threads, " << tokens);
        BOOST_TEST((run<L>(s.w, s.x.data(), s.dy.data(), tokens, 1) == one));
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_same_bits_for_any_batch_split, L, layers) {
    const gf::index_t tokens = 131;
    const subject<L> s(tokens);
    const auto whole = s.forward(s.w, s.x.data(), tokens);
    for (const gf::index_t part : {1, 2, 7, 64}) {
        std::vector<typename L::value_type> parts;
        for (gf::index_t t = 0; t < tokens; t += part) {
            const gf::index_t n = std::min(part, tokens - t);
            const auto y = s.forward(s.w, s.x.data() + t * L::hidden, n, 2);
            parts.insert(parts.end(), y.begin(), y.end());
        }
        BOOST_TEST(same_bits(parts, whole), "parts of " << part);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(packed_weights_give_the_same_bits, L, layers) {
    for (const gf::index_t tokens : {1, 3, 9, 100}) {
        subject<L> s(tokens);
        const auto p = gf::pack(s.ctx, s.w);
        BOOST_TEST(same_bits(s.forward(p, s.x.data(), tokens, 2), s.forward(s.w, s.x.data(), tokens)));
        auto one_by_one = gf::make_packed<L>(s.ctx);
        for (int e = 0; e < L::experts; ++e)
            gf::pack_expert(s.ctx, one_by_one, e, s.w.expert(e).gate_up, s.w.expert(e).down);
        if constexpr (L::shared_ffn > 0)
            gf::pack_shared_expert(s.ctx, one_by_one, s.w.shared_gate_up.view(), s.w.shared_down.view());
        BOOST_TEST(std::memcmp(one_by_one.matrices.data(), p.matrices.data(),
                               static_cast<std::size_t>(p.matrices.size())) == 0);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(borrowed_weights_give_the_same_bits, L, layers) {
    const subject<L> s(20);
    BOOST_TEST(same_bits(s.forward(gf::weights_view<L>(s.w), s.x.data(), 20), s.forward(s.w, s.x.data(), 20)));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(permuted_tokens_give_permuted_outputs, L, layers) {
    const gf::index_t tokens = 61;
    const subject<L> s(tokens);
    const auto y = s.forward(s.w, s.x.data(), tokens);
    std::vector<typename L::value_type> x(y.size()), expected(y.size());
    for (gf::index_t t = 0; t < tokens; ++t) {
        const gf::index_t from = (t * 17 + 5) % tokens;
        std::memcpy(&x[static_cast<std::size_t>(t * L::hidden)], s.x.data() + from * L::hidden,
                    sizeof(x[0]) * L::hidden);
        std::memcpy(&expected[static_cast<std::size_t>(t * L::hidden)], &y[static_cast<std::size_t>(from * L::hidden)],
                    sizeof(x[0]) * L::hidden);
    }
    BOOST_TEST(same_bits(s.forward(s.w, x.data(), tokens), expected));
}

BOOST_AUTO_TEST_CASE(no_tokens_write_nothing) {
    subject<mixtral> s(0);
    auto g = gf::make_gradients<mixtral>(s.ctx);
    gf::tape<mixtral> tape(s.ctx, 0);
    float guard = 7;
    gf::batch<mixtral> in;
    in.x = {nullptr, {0, 37}};
    gf::forward(s.ctx, s.w, in, rows<mixtral>{&guard, {0, 37}}, tape);
    gf::backward(s.ctx, s.w, in, tape, const_rows<mixtral>{nullptr, {0, 37}}, rows<mixtral>{&guard, {0, 37}}, g);
    BOOST_TEST(guard == 7);
    for (gf::index_t i = 0; i < g.down.size(); ++i) BOOST_TEST(g.down.data()[i] == 0);
}

BOOST_AUTO_TEST_CASE(all_tokens_on_one_expert_and_others_empty) {
    const gf::index_t tokens = 50;
    subject<half> s(tokens);
    for (gf::index_t i = 0; i < s.w.router.size(); ++i) s.w.router.data()[i] = gf::f16(0.0f);
    gf::tape<half> tape(s.ctx, tokens);
    auto g = gf::make_gradients<half>(s.ctx);
    const auto poison = [](const char*, auto& slot) {
        for (gf::index_t i = 0; i < slot.size(); ++i) slot.data()[i] = std::numeric_limits<float>::quiet_NaN();
    };
    gf::for_each_parameter(poison, g);
    std::vector<gf::f16> y(static_cast<std::size_t>(tokens * 33)), dx(y.size());
    gf::batch<half> in;
    in.x = {s.x.data(), {tokens, 33}};
    gf::forward(s.ctx, s.w, in, rows<half>{y.data(), {tokens, 33}}, tape);
    gf::backward(s.ctx, s.w, in, tape, const_rows<half>{s.dy.data(), {tokens, 33}}, rows<half>{dx.data(), {tokens, 33}},
                 g);
    // Equal logits choose the lowest expert.
    for (gf::index_t t = 0; t < tokens; ++t) BOOST_TEST(tape.routing().ids(t, 0) == 0);
    for (int e = 1; e < 6; ++e)
        for (gf::index_t i = 0; i < 33 * 70; ++i) BOOST_TEST(g.expert(e).down.data()[i] == 0.0f);
    float largest = 0;
    for (gf::index_t i = 0; i < 33 * 70; ++i) largest = std::max(largest, std::fabs(g.expert(0).down.data()[i]));
    BOOST_TEST(largest > 0);
}

BOOST_AUTO_TEST_CASE(identical_experts_are_the_dense_layer) {
    const gf::index_t tokens = 30;
    subject<mixtral> s(tokens);
    using twin = gf::layer<gf::config{.hidden = 37, .ffn = 45}, float>;
    auto d = gf::make_weights<twin>(s.ctx);
    std::memcpy(d.gate_up.data(), s.w.expert(0).gate_up.data(), sizeof(float) * 2 * 45 * 37);
    std::memcpy(d.down.data(), s.w.expert(0).down.data(), sizeof(float) * 45 * 37);
    for (int e = 1; e < 8; ++e) {
        std::memcpy(s.w.expert(e).gate_up.data(), d.gate_up.data(), sizeof(float) * 2 * 45 * 37);
        std::memcpy(s.w.expert(e).down.data(), d.down.data(), sizeof(float) * 45 * 37);
    }
    const auto y = s.forward(s.w, s.x.data(), tokens);
    std::vector<float> z(y.size());
    gf::forward(s.ctx, d, const_rows<twin>{s.x.data(), {tokens, 37}}, rows<twin>{z.data(), {tokens, 37}});
    for (std::size_t i = 0; i < y.size(); ++i) BOOST_TEST(std::fabs(y[i] - z[i]) <= 2e-6f * (1 + std::fabs(z[i])));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(accumulating_adds_the_result, L, layers) {
    using T = typename L::value_type;
    const gf::index_t tokens = 11;
    subject<L> s(tokens);
    const auto y = s.forward(s.w, s.x.data(), tokens);
    std::vector<T> sum(y.size(), T(2.0f));
    gf::options<L> o;
    o.accumulate = true;
    gf::forward(s.ctx, s.w, const_rows<L>{s.x.data(), {tokens, L::hidden}}, rows<L>{sum.data(), {tokens, L::hidden}},
                o);
    for (std::size_t i = 0; i < y.size(); ++i) {
        const float expected = static_cast<float>(y[i]) + 2, size = 1 + std::fabs(expected);
        BOOST_TEST(std::fabs(static_cast<float>(sum[i]) - expected) <= (sizeof(T) == 4 ? 1e-6f : 2e-2f) * size);
    }
}

BOOST_AUTO_TEST_CASE(strided_rows_are_read_and_written_in_place) {
    const gf::index_t tokens = 9, stride = 50;
    subject<mixtral> s(tokens);
    std::vector<float> x(static_cast<std::size_t>(tokens * stride), -3), y(x.size(), 5);
    for (gf::index_t t = 0; t < tokens; ++t)
        std::memcpy(&x[static_cast<std::size_t>(t * stride)], s.x.data() + t * 37, sizeof(float) * 37);
    gf::forward(s.ctx, s.w, const_rows<mixtral>{x.data(), {tokens, 37}, stride},
                rows<mixtral>{y.data(), {tokens, 37}, stride});
    const auto expected = s.forward(s.w, s.x.data(), tokens);
    for (gf::index_t t = 0; t < tokens; ++t)
        for (gf::index_t h = 0; h < stride; ++h)
            BOOST_TEST(y[static_cast<std::size_t>(t * stride + h)] ==
                       (h < 37 ? expected[static_cast<std::size_t>(t * 37 + h)] : 5.0f));
}

BOOST_AUTO_TEST_CASE(nan_and_infinite_logits_route_and_are_counted) {
    const gf::index_t tokens = 4;
    subject<mixtral> s(tokens);
    for (gf::index_t i = 0; i < 37; ++i) {
        s.x.data()[1 * 37 + i] = std::numeric_limits<float>::quiet_NaN();
        s.x.data()[2 * 37 + i] = i == 0 ? std::numeric_limits<float>::infinity() : 0.0f;
    }
    gf::tape<mixtral> tape(s.ctx, tokens);
    std::vector<float> y(static_cast<std::size_t>(tokens * 37));
    gf::batch<mixtral> in;
    in.x = {s.x.data(), {tokens, 37}};
    s.ctx.clear_report();
    gf::forward(s.ctx, s.w, in, rows<mixtral>{y.data(), {tokens, 37}}, tape);
    BOOST_TEST(tape.routing().ids(1, 0) == 0);
    BOOST_TEST(tape.routing().ids(1, 1) == 1);
    BOOST_TEST(tape.routing().weights(1, 0) == 0.5f);
    BOOST_TEST(s.ctx.report().undecided >= 1);
    BOOST_TEST(s.ctx.report().nan_logits >= 8);
    BOOST_TEST(s.ctx.report().tokens == tokens);
    // The other tokens do not notice.
    const subject<mixtral> clean(tokens);
    const auto expected = clean.forward(clean.w, clean.x.data(), tokens);
    for (std::size_t i = 0; i < 37; ++i) BOOST_TEST(y[i] == expected[i]);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
