// What the tests of the oracle share: comparisons, and a layer whose logits are its input.
#pragma once

#include <cmath>
#include <limits>

#include <boost/test/unit_test.hpp>

#include <tests/oracle.hpp>

namespace oracle_tests {

using namespace oracle;

inline constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();

/// |a − b| ≤ tolerance for every element; the golden vectors have nine digits.
inline void near(const values& got, const values& expected, double tolerance = 1e-9) {
    BOOST_REQUIRE_EQUAL(got.size(), expected.size());
    for (natural i = 0; i < got.size(); ++i)
        BOOST_CHECK_MESSAGE(std::fabs(got[i] - expected[i]) <= tolerance,
                            "element " << i << ": " << got[i] << ", expected " << expected[i]);
}

inline void near(double got, double expected, double tolerance = 1e-9) {
    near(values{got}, values{expected}, tolerance);
}

inline void same(const ints& got, const ints& expected) {
    BOOST_CHECK_EQUAL_COLLECTIONS(got.begin(), got.end(), expected.begin(), expected.end());
}

/// A layer whose router passes x through: logits = x, E = H.
inline layer pass_through(natural experts, natural k) {
    layer l{.hidden = experts, .ffn = 1, .experts = experts};
    l.router.top_k = k;
    return l;
}

inline parameters pass_through_parameters(natural experts) {
    parameters p;
    p.router.assign(experts * experts, 0.0);
    for (natural e = 0; e < experts; ++e) p.router[e * experts + e] = 1;
    return p;
}

/// Routes given logits [T, E].
inline routing route_logits(const layer& l, const values& logits, const values& bias = {}, batch b = {}) {
    const natural e = l.choices();
    parameters p = pass_through_parameters(e);
    p.selection_bias = bias;
    b.tokens = logits.size() / e;
    b.x = logits;
    return route(l, p, b, b.x);
}

}  // namespace oracle_tests
