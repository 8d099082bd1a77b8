// ctest: heavy
// Causal attention against the formula, its gradients against finite differences, and its bits under every cut.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/nn/attention.hpp>

namespace gf = gatefold;

namespace {

/// Queries, keys, values and a gradient of the output with reproducible contents.
template <gf::attention_config C, class T>
struct problem {
    using A = gf::accumulate_t<T>;
    gf::index_t sequences, queries, keys;
    gf::tensor<T, gf::dyn, C.query_width()> q, out, d_out, d_q;
    gf::tensor<T, gf::dyn, C.key_width()> k, v, d_k, d_v;
    gf::tensor<A, gf::dyn, C.heads> log_sums;

    problem(gf::context<gf::cpu>& ctx, gf::index_t s, gf::index_t n, gf::index_t m)
        : sequences(s), queries(n), keys(m) {
        for (auto* t : {&q, &out, &d_out, &d_q}) *t = gf::make_tensor<T, gf::dyn, C.query_width()>(ctx, s * n);
        for (auto* t : {&k, &v, &d_k, &d_v}) *t = gf::make_tensor<T, gf::dyn, C.key_width()>(ctx, s * m);
        log_sums = gf::make_tensor<A, gf::dyn, C.heads>(ctx, s * n);
        double phase = 0.1;
        for (auto* t : {&q, &d_out}) fill(t->data(), t->size(), phase += 0.37);
        for (auto* t : {&k, &v}) fill(t->data(), t->size(), phase += 0.37);
    }
    static void fill(T* to, gf::index_t n, double phase) {
        for (gf::index_t i = 0; i < n; ++i)
            to[i] = static_cast<T>(static_cast<A>(1.5 * std::sin(phase * static_cast<double>(i * i % 9973))));
    }
    void forward(gf::context<gf::cpu>& ctx) { gf::attention<C, T>(ctx, q, k, v, out, log_sums, sequences); }
    void backward(gf::context<gf::cpu>& ctx) {
        gf::attention_backward<C, T>(ctx, q, k, v, log_sums, d_out, d_q, d_k, d_v, sequences);
    }
};

/// The formula, one output at a time.
template <gf::attention_config C, class T>
double expected(const problem<C, T>& p, gf::index_t s, gf::index_t i, int h, int c) {
    const int d = C.head_size, g = h / (C.heads / C.key_value_heads);
    const gf::index_t seen = p.keys - p.queries + i + 1;
    std::vector<double> z;
    double most = -1e300, sum = 0, value = 0;
    for (gf::index_t j = 0; j < seen; ++j) {
        double dot = 0;
        for (int l = 0; l < d; ++l)
            dot += static_cast<double>(p.q(s * p.queries + i, h * d + l)) *
                   static_cast<double>(p.k(s * p.keys + j, g * d + l));
        z.push_back(dot / std::sqrt(static_cast<double>(d)));
        most = std::max(most, z.back());
    }
    for (double& x : z) sum += x = std::exp(x - most);
    for (gf::index_t j = 0; j < seen; ++j)
        value += z[static_cast<std::size_t>(j)] / sum * static_cast<double>(p.v(s * p.keys + j, g * d + c));
    return value;
}

template <gf::attention_config C, class T>
void check_formula(gf::index_t sequences, gf::index_t queries, gf::index_t keys, double tolerance) {
    gf::context<gf::cpu> ctx;
    problem<C, T> p(ctx, sequences, queries, keys);
    p.forward(ctx);
    double worst = 0;
    for (gf::index_t s = 0; s < sequences; ++s)
        for (gf::index_t i = 0; i < queries; ++i)
            for (int h = 0; h < C.heads; ++h)
                for (int c = 0; c < C.head_size; ++c)
                    worst = std::max(worst, std::fabs(static_cast<double>(p.out(s * queries + i, h * C.head_size + c)) -
                                                      expected(p, s, i, h, c)));
    BOOST_TEST(worst < tolerance);
}

template <class T>
bool same_bits(const T& a, const T& b) {
    return a.size() == b.size() &&
           std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(*a.data())) == 0;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(attention)

BOOST_AUTO_TEST_CASE(follows_the_formula) {
    check_formula<gf::attention_config{4, 4, 8}, double>(2, 7, 7, 1e-13);
    check_formula<gf::attention_config{4, 2, 6}, double>(3, 5, 9, 1e-13);
    check_formula<gf::attention_config{3, 1, 5}, double>(1, 1, 130, 1e-13);
    check_formula<gf::attention_config{2, 1, 16}, double>(1, 150, 150, 1e-13);
    check_formula<gf::attention_config{4, 2, 20}, float>(2, 70, 70, 3e-6);
    check_formula<gf::attention_config{4, 2, 32}, gf::bf16>(2, 9, 9, 2e-2);
}

BOOST_AUTO_TEST_CASE(gradients_are_those_of_finite_differences) {
    constexpr gf::attention_config c{4, 2, 6};
    gf::context<gf::cpu> ctx;
    for (const gf::index_t queries : {5, 70}) {
        problem<c, double> p(ctx, 2, queries, queries + 3);
        p.forward(ctx);
        p.backward(ctx);
        const auto loss = [&] {
            p.forward(ctx);
            double sum = 0;
            for (gf::index_t i = 0; i < p.out.size(); ++i) sum += p.out.data()[i] * p.d_out.data()[i];
            return sum;
        };
        const auto check = [&](auto& x, const auto& d) {
            const double h = 1e-6;
            for (gf::index_t i = 0; i < x.size(); i += x.size() / 37 + 1) {
                const double old = x.data()[i];
                x.data()[i] = old + h;
                const double up = loss();
                x.data()[i] = old - h;
                const double down = loss();
                x.data()[i] = old;
                BOOST_TEST(std::fabs((up - down) / (2 * h) - d.data()[i]) < 1e-7);
            }
        };
        check(p.q, p.d_q);
        check(p.k, p.d_k);
        check(p.v, p.d_v);
    }
}

BOOST_AUTO_TEST_CASE(bits_do_not_depend_on_threads) {
    constexpr gf::attention_config c{4, 2, 12};
    gf::context<gf::cpu> one(1), three(3);
    problem<c, float> a(one, 3, 90, 100), b(three, 3, 90, 100);
    a.forward(one), a.backward(one);
    b.forward(three), b.backward(three);
    BOOST_TEST(same_bits(a.out, b.out));
    BOOST_TEST(same_bits(a.d_q, b.d_q));
    BOOST_TEST(same_bits(a.d_k, b.d_k));
    BOOST_TEST(same_bits(a.d_v, b.d_v));
}

BOOST_AUTO_TEST_CASE(a_query_has_the_same_bits_whether_others_follow_or_not) {
    constexpr gf::attention_config c{2, 1, 16};
    gf::context<gf::cpu> ctx;
    constexpr gf::index_t n = 140;
    problem<c, float> all(ctx, 1, n, n);
    all.forward(ctx);
    for (const gf::index_t count : {gf::index_t{1}, gf::index_t{63}, gf::index_t{64}, gf::index_t{65}, n - 1}) {
        problem<c, float> first(ctx, 1, count, count);
        std::memcpy(first.q.data(), all.q.data(), static_cast<std::size_t>(first.q.size()) * sizeof(float));
        std::memcpy(first.k.data(), all.k.data(), static_cast<std::size_t>(first.k.size()) * sizeof(float));
        std::memcpy(first.v.data(), all.v.data(), static_cast<std::size_t>(first.v.size()) * sizeof(float));
        first.forward(ctx);
        BOOST_TEST(std::memcmp(first.out.data(), all.out.data(),
                               static_cast<std::size_t>(first.out.size()) * sizeof(float)) == 0);

        // The last query alone, over keys from a cache.
        problem<c, float> last(ctx, 1, 1, count);
        std::memcpy(last.q.data(), &all.q(count - 1, 0), static_cast<std::size_t>(last.q.size()) * sizeof(float));
        std::memcpy(last.k.data(), all.k.data(), static_cast<std::size_t>(last.k.size()) * sizeof(float));
        std::memcpy(last.v.data(), all.v.data(), static_cast<std::size_t>(last.v.size()) * sizeof(float));
        last.forward(ctx);
        BOOST_TEST(std::memcmp(last.out.data(), &all.out(count - 1, 0),
                               static_cast<std::size_t>(last.out.size()) * sizeof(float)) == 0);
    }
}

BOOST_AUTO_TEST_CASE(refuses_extents_that_do_not_fit) {
    constexpr gf::attention_config c{2, 2, 4};
    gf::context<gf::cpu> ctx;
    problem<c, float> p(ctx, 2, 3, 3), longer(ctx, 2, 4, 4);
    const auto throws = [&](auto& q, auto& k, auto& v, auto& out, gf::index_t sequences) {
        BOOST_CHECK_THROW((gf::attention<c, float>(ctx, q, k, v, out, {}, sequences)), gf::argument_error);
    };
    throws(p.q, p.k, longer.v, p.out, 2);
    throws(p.q, p.k, p.v, longer.out, 2);
    throws(longer.q, p.k, p.v, longer.out, 2);
    throws(p.q, p.k, p.v, p.out, 4);
    throws(p.q, p.k, p.v, p.out, -1);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
