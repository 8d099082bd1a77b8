// A row of logits on vectors against the plain functions of the semantics, bit for bit, with everything a row may hold:
// NaN, infinities, both zeros, equal logits, rows shorter than a register.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <boost/mpl/list.hpp>
#include <boost/test/unit_test.hpp>

#include <gatefold/cpu/draws.hpp>
#include <gatefold/cpu/router/choice.hpp>
#include <gatefold/cpu/router/groups.hpp>
#include <gatefold/cpu/router/row.hpp>
#include <gatefold/cpu/router/top_keys.hpp>

namespace {

namespace gf = gatefold;
namespace detail = gatefold::detail;
namespace on_cpu = gatefold::detail::on_cpu;
using sum_types = boost::mpl::list<float, double>;

const int lengths[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 60, 64, 100, 160, 256, 512};
constexpr int kinds = 6;

/// A row of logits: spread numbers, few different ones, zeros of both signs, and rows with what is unusual.
template <class A>
std::vector<A> row_of(int n, int kind, int seed) {
    const gf::counter_rng rng{static_cast<std::uint64_t>(seed), 0, 0};
    std::vector<A> z(static_cast<std::size_t>(n));
    for (int i = 0; i < n; ++i) {
        const A u = static_cast<A>(rng.uniform<float>(gf::purpose::initialisation, kind, i));
        A& to = z[static_cast<std::size_t>(i)];
        to = 8 * u - 4;
        if (kind == 1) to = static_cast<A>(static_cast<int>(4 * u));
        if (kind == 2) to = u < A(0.5) ? A(0) : -A(0);
        if (kind == 3 && u < A(0.3)) to = std::numeric_limits<A>::quiet_NaN();
        if (kind == 3 && u > A(0.8)) to = -std::numeric_limits<A>::infinity();
        if (kind == 4) to = u < A(0.5) ? std::numeric_limits<A>::quiet_NaN() : -std::numeric_limits<A>::infinity();
        if (kind == 5 && u > A(0.9)) to = std::numeric_limits<A>::infinity();
    }
    return z;
}

template <class A>
bool is_undecided(const A* z, int n) {
    return !(detail::largest(z, n) > -std::numeric_limits<A>::infinity());
}

template <class A>
bool same(A a, A b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
}

/// Calls body(z, n, name) for every length and kind of row; behind a row nothing may be read, so its end is that of the
/// memory.
template <class A, class Body>
void for_each_row(Body body) {
    for (const int n : lengths)
        for (int kind = 0; kind < kinds; ++kind) {
            const std::vector<A> z = row_of<A>(n, kind, 11);
            body(z.data(), n, std::to_string(n) + " logits of kind " + std::to_string(kind));
        }
}

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(router_row)

BOOST_AUTO_TEST_CASE_TEMPLATE(largest_and_softmax, A, sum_types) {
    for_each_row<A>([](const A* z, int n, const std::string& name) {
        const A m = detail::largest(z, n);
        BOOST_TEST(on_cpu::row_largest(z, n) == m, name);
        if (is_undecided(z, n)) return;
        const on_cpu::row_softmax<A> sum(z, n);
        const A total = detail::lane_sum<A>(n, [&](int i) { return detail::softmax_term(z[i], m); });
        BOOST_TEST(same(sum.total, total), name << ": " << sum.total << ", expected " << total);
    });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(sums_in_the_order_of_a_warp, A, sum_types) {
    for_each_row<A>([](const A* z, int n, const std::string& name) {
        const A expected = detail::lane_sum<A>(n, [&](int i) { return z[i]; });
        const A sum = on_cpu::row_sum<A>(n, [&](int i) { return on_cpu::load_first<A>(z + i, n - i); });
        BOOST_TEST((same(sum, expected) || (std::isnan(sum) && std::isnan(expected))), name);
    });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(best_keys, A, sum_types) {
    for_each_row<A>([](const A* z, int n, const std::string& name) {
        for (const int k : {1, 2, 4, 8, 10}) {
            if (k > n) continue;
            const auto size = static_cast<std::size_t>(k);
            std::vector<detail::order_word<A>> words(size), expected_words(size);
            std::vector<std::int32_t> ids(size), expected(size);
            detail::best_of(
                n, k, [&](int i) { return detail::order_key(z[i]); }, expected_words.data(), expected.data());
            on_cpu::best_keys(z, n, k, words.data(), ids.data());
            BOOST_TEST(ids == expected, name << ", the best " << k);
        }
    });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(best_keys_of_parts_of_a_row, A, sum_types) {
    // Two parts with a gap between them, as groups that are kept; more places than keys leave -1.
    for_each_row<A>([](const A* z, int n, const std::string& name) {
        const int first = n / 3, second = n - n / 4;
        for (const int k : {2, 40}) {
            const auto size = static_cast<std::size_t>(k);
            std::vector<detail::order_word<A>> words(size), expected_words(size);
            std::vector<std::int32_t> ids(size), expected(size);
            const auto word_of = [&](int i) {
                return i < first || i >= second ? detail::order_key(z[i]) : detail::order_word<A>(0);
            };
            detail::best_of(n, k, word_of, expected_words.data(), expected.data());
            on_cpu::top_keys<A> top(words.data(), ids.data(), k);
            top.offer(z, 0, first);
            top.offer(z, second, n);
            top.finish();
            BOOST_TEST(ids == expected, name << ", the best " << k);
        }
    });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(two_largest_of_a_group, A, sum_types) {
    for_each_row<A>([](const A* z, int n, const std::string& name) {
        A first = -std::numeric_limits<A>::infinity(), second = first;
        for (int i = 0; i < n; ++i) {
            const A low = z[i] > first ? first : z[i];
            first = z[i] > first ? z[i] : first;
            second = low > second ? low : second;
        }
        const on_cpu::two_largest<A> top(z, n);
        BOOST_TEST(top.first == first, name);
        BOOST_TEST(top.second == second, name);
    });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(best_tokens_of_an_expert, A, sum_types) {
    // More experts than a register has lanes, and not a whole number of registers.
    constexpr int N = 19, W = on_cpu::lanes<A>;
    for (const int count : {1, 5, 40})
        for (int kind = 0; kind < kinds; ++kind)
            for (const int limit : {0, 1, count / 2, count}) {
                const std::vector<A> scores = row_of<A>(count * N, kind, 14);
                std::vector<std::uint8_t> taken(scores.size(), 7);
                for (int e = 0; e < N; e += W)
                    on_cpu::take_best<N>(scores.data() + e, count, limit, N - e, taken.data() + e);
                for (int e = 0; e < N; ++e) {
                    const auto word_of = [&](int t) {
                        return detail::order_key(scores[static_cast<std::size_t>(t * N + e)]);
                    };
                    std::vector<detail::order_word<A>> words(static_cast<std::size_t>(count));
                    std::vector<std::int32_t> best(words.size());
                    if (limit > 0) detail::best_of(count, limit, word_of, words.data(), best.data());
                    for (int t = 0; t < count; ++t) {
                        const bool expected = std::find(best.begin(), best.begin() + limit, t) != best.begin() + limit;
                        BOOST_TEST(taken[static_cast<std::size_t>(t * N + e)] == (expected ? 1 : 0),
                                   "kind " << kind << ", token " << t << " of " << count << ", expert " << e
                                           << " that takes " << limit);
                    }
                }
            }
}

template <gf::config C, class T>
void check_keys() {
    using L = gf::layer<C, T>;
    using A = typename L::accumulate_type;
    constexpr int n = L::choices;
    for (int kind = 0; kind < kinds; ++kind) {
        const std::vector<A> z = row_of<A>(n, kind, 12), bias = row_of<A>(n, 0, 13);
        if (is_undecided(z.data(), n)) continue;
        A m = 0, total = 1;
        if constexpr (detail::router_traits<L>::softmax_keys) {
            m = detail::largest(z.data(), n);
            total =
                detail::lane_sum<A>(n, [&](int i) { return detail::softmax_term(z[static_cast<std::size_t>(i)], m); });
        }
        std::vector<A> keys(z.size());
        on_cpu::row_keys<L>(z.data(), bias.data(), keys.data());
        for (int i = 0; i < n; ++i) {
            const auto at = static_cast<std::size_t>(i);
            const A key = detail::key_of_logit<L>(z[at], m, total, bias.data(), i);
            BOOST_TEST(same(keys[at], key),
                       "kind " << kind << ", expert " << i << ": " << keys[at] << ", expected " << key);
        }
    }
}

constexpr gf::config with_router(gf::router_config r, int experts) {
    return {.hidden = 4, .ffn = 4, .experts = experts, .top_k = 4, .router = r};
}

BOOST_AUTO_TEST_CASE(selection_keys) {
    check_keys<with_router(gf::routers::deepseek_v3, 64), float>();
    check_keys<with_router(gf::routers::deepseek_v3, 64), double>();
    check_keys<with_router(gf::routers::ernie, 60), float>();
    check_keys<with_router(gf::routers::ernie, 60), gf::bf16>();
    check_keys<with_router(gf::routers::deepseek_v4, 50), gf::f16>();
    check_keys<with_router(gf::with(gf::routers::minimax_m2, &gf::router_config::scores_in, gf::precision::storage),
                           33),
               gf::bf16>();
    check_keys<with_router(gf::with(gf::routers::minimax_m2, &gf::router_config::scores_in, gf::precision::storage),
                           33),
               gf::f16>();
}

BOOST_AUTO_TEST_CASE_TEMPLATE(unusual_logits, A, sum_types) {
    struct report {
        gf::index_t nan_logits = 0, infinite_logits = 0, undecided = 0;
    };
    for_each_row<A>([](const A* z, int n, const std::string& name) {
        report found, expected;
        for (int i = 0; i < n; ++i) {
            expected.nan_logits += std::isnan(z[i]) ? 1 : 0;
            expected.infinite_logits += std::isinf(z[i]) ? 1 : 0;
        }
        const bool undecided = is_undecided(z, n);
        BOOST_TEST(on_cpu::count_unusual(z, n, found) == undecided, name);
        BOOST_TEST(on_cpu::row_undecided(z, n) == undecided, name);
        BOOST_TEST(found.nan_logits == expected.nan_logits, name);
        BOOST_TEST(found.infinite_logits == expected.infinite_logits, name);
        BOOST_TEST(found.undecided == (undecided ? 1 : 0), name);
    });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(draws_are_those_of_the_generator, A, sum_types) {
    // Registers from an index on that begins no counter, and counters whose first word wraps.
    const gf::counter_rng rng{0xfedcba9876543210u, 7, 3};
    constexpr int W = on_cpu::lanes<A>;
    for (const gf::index_t token : {gf::index_t{0}, gf::index_t{5}, (gf::index_t{1} << 40) + 3})
        for (const gf::index_t first : {gf::index_t{0}, gf::index_t{70}, gf::index_t{1} << 33}) {
            on_cpu::token_draws<A> draws(rng, gf::purpose::sampling, token), normals = draws;
            on_cpu::token_draws<A, on_cpu::lanes<float> / 2> few(rng, gf::purpose::sampling, token);
            for (gf::index_t i = first; i < first + 200; i += W) {
                const auto uniform = draws.uniform(i), from_zero = draws.uniform_from_zero(i), gumbel = draws.gumbel(i),
                           normal = normals.normal(i - first), from_few = few.uniform(i);
                for (int l = 0; l < W; ++l) {
                    BOOST_TEST(same(uniform[l], rng.uniform<A>(gf::purpose::sampling, token, i + l)));
                    BOOST_TEST(same(from_few[l], uniform[l]));
                    BOOST_TEST(same(from_zero[l], rng.uniform_from_zero<A>(gf::purpose::sampling, token, i + l)));
                    BOOST_TEST(same(gumbel[l], rng.gumbel<A>(gf::purpose::sampling, token, i + l)));
                    BOOST_TEST(same(normal[l], rng.normal<A>(gf::purpose::sampling, token, i - first + l)));
                }
            }
            on_cpu::token_draws<A> jitter(rng, gf::purpose::input_jitter, token);
            for (gf::index_t i = first; i < first + 100; i += W) {
                const auto factor = jitter.jitter(i, A(0.01));
                for (int l = 0; l < W; ++l) BOOST_TEST(same(factor[l], rng.jitter<A>(token, i + l, A(0.01))));
            }
        }
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()

}  // namespace
