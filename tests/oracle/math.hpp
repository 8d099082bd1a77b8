// Small mathematics of the reference layer: plain double precision, nothing clever.
//
// Everything in tests/oracle follows spec/routing.md and spec/training.md formula by formula and shares no code with
// the library, so that a mistake has to be made twice to go unseen. Matrices are flat row-major vectors.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numbers>
#include <stdexcept>
#include <vector>

namespace oracle {

using natural = std::size_t;  // an index or an extent (strings.h owns the name `index`)
using values = std::vector<double>;
using ints = std::vector<int>;

inline constexpr double infinity = std::numeric_limits<double>::infinity();

inline void check(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
}

inline natural to_index(int i) {
    check(i >= 0, "oracle: negative index");
    return static_cast<natural>(i);
}

inline int to_int(natural i) { return static_cast<int>(i); }

inline double to_double(natural i) { return static_cast<double>(i); }

/// y += W x, W [rows, columns].
inline void multiply(const double* w, natural rows, natural columns, const double* x, double* y) {
    for (natural r = 0; r < rows; ++r)
        for (natural c = 0; c < columns; ++c) y[r] += w[r * columns + c] * x[c];
}

/// x += Wᵀ y.
inline void multiply_transposed(const double* w, natural rows, natural columns, const double* y, double* x) {
    for (natural r = 0; r < rows; ++r)
        for (natural c = 0; c < columns; ++c) x[c] += w[r * columns + c] * y[r];
}

/// W += y xᵀ.
inline void add_outer(double* w, natural rows, natural columns, const double* y, const double* x) {
    for (natural r = 0; r < rows; ++r)
        for (natural c = 0; c < columns; ++c) w[r * columns + c] += y[r] * x[c];
}

inline void add_scaled(double* y, double factor, const double* x, natural n) {
    for (natural i = 0; i < n; ++i) y[i] += factor * x[i];
}

inline double dot(const double* a, const double* b, natural n) {
    double sum = 0;
    for (natural i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

inline double sum(const values& v) {
    double total = 0;
    for (double a : v) total += a;
    return total;
}

/// Row t of a [T, n] matrix.
inline values row(const values& matrix, natural t, natural n) {
    values out(n);
    for (natural i = 0; i < n; ++i) out[i] = matrix[t * n + i];
    return out;
}

inline void set_row(values& matrix, natural t, const values& v) {
    for (natural i = 0; i < v.size(); ++i) matrix[t * v.size() + i] = v[i];
}

/// Values of any arithmetic type as doubles.
template <class Element>
values to_values(const Element* data, natural n) {
    values out(n);
    for (natural i = 0; i < n; ++i) out[i] = static_cast<double>(data[i]);
    return out;
}

/// max|got − expected| / max|expected|; infinite for a NaN or another size, absolute where expected is all zero.
inline double relative_error(const values& got, const values& expected) {
    if (got.size() != expected.size()) return infinity;
    double error = 0, scale = 0;
    for (natural i = 0; i < got.size(); ++i) {
        const double d = std::fabs(got[i] - expected[i]);
        error = std::isnan(d) ? infinity : (d > error ? d : error);
        scale = std::fabs(expected[i]) > scale ? std::fabs(expected[i]) : scale;
    }
    return scale > 0 ? error / scale : error;
}

inline double sigmoid(double z) { return z >= 0 ? 1 / (1 + std::exp(-z)) : std::exp(z) / (1 + std::exp(z)); }

inline double softplus(double z) { return std::log1p(std::exp(-std::fabs(z))) + (z > 0 ? z : 0); }

inline double maximum(const values& v) {
    double m = -infinity;
    for (double a : v) m = a > m ? a : m;
    return m;
}

inline double log_sum_exp(const values& z) {
    const double m = maximum(z);
    if (std::isinf(m)) return m;
    double total = 0;
    for (double a : z) total += std::exp(a - m);
    return m + std::log(total);
}

/// Softmax. Entries of +inf share the whole (routing.md §3); a row of −inf is all zero.
inline values softmax(const values& z) {
    const double m = maximum(z);
    values p(z.size(), 0.0);
    for (natural i = 0; i < z.size(); ++i)
        p[i] = m == infinity ? (z[i] == infinity ? 1.0 : 0.0) : (m == -infinity ? 0.0 : std::exp(z[i] - m));
    const double total = sum(p);
    for (double& a : p) a = total > 0 ? a / total : 0.0;
    return p;
}

/// dz = p ⊙ (dp − ⟨p, dp⟩), training.md §1.
inline values softmax_backward(const values& p, const values& dp) {
    double mean = 0;
    for (natural i = 0; i < p.size(); ++i) mean += p[i] == 0 ? 0.0 : p[i] * dp[i];
    values dz(p.size(), 0.0);
    for (natural i = 0; i < p.size(); ++i) dz[i] = p[i] == 0 ? 0.0 : p[i] * (dp[i] - mean);
    return dz;
}

/// Standard normal distribution function and density.
inline double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }
inline double normal_pdf(double x) { return std::exp(-0.5 * x * x) * std::numbers::inv_sqrtpi / std::numbers::sqrt2; }

inline double sign(double x) { return x > 0 ? 1.0 : (x < 0 ? -1.0 : 0.0); }

}  // namespace oracle
