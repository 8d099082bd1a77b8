// Grouped products: equal to the plain chain bit for bit, for every type, extent, gather and thread count.
#include <cstdint>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/core/context.hpp>
#include <gatefold/cpu/gemm/products.hpp>

namespace {

namespace gf = gatefold;
namespace k = gatefold::detail::on_cpu;
using gf::bf16;
using gf::f16;
using gf::index_t;

// Numbers of both signs over a few binades, the same on every run.
struct numbers {
    std::uint32_t state = 12345;
    double operator()() {
        state = state * 1664525u + 1013904223u;
        const double unit = static_cast<double>(state >> 8) * 0x1p-24 - 0.5;
        return (state & 3u) == 0 ? unit * 8 : unit;
    }
    template <class T>
    std::vector<T> many(index_t n) {
        std::vector<T> v(static_cast<std::size_t>(n));
        for (auto& x : v) x = static_cast<T>((*this)());
        return v;
    }
};

template <class Sum>
Sum step(Sum a, Sum b, Sum c) {
#if GATEFOLD_HARDWARE_FMA
    return std::is_same_v<Sum, float>
               ? static_cast<Sum>(__builtin_fmaf(static_cast<float>(a), static_cast<float>(b), static_cast<float>(c)))
               : static_cast<Sum>(__builtin_fma(a, b, c));
#else
    volatile Sum product = a * b;
    return product + c;
#endif
}

template <class T>
std::vector<std::uint8_t> bytes(const std::vector<T>& v) {
    std::vector<std::uint8_t> b(v.size() * sizeof(T));
    if (!b.empty()) std::memcpy(b.data(), v.data(), b.size());
    return b;
}

struct scratch_memory {
    std::vector<std::byte> memory;
    std::byte* aligned;
    explicit scratch_memory(int threads) : memory(k::product_scratch_bytes(threads) + 64) {
        aligned = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
    }
};

template <class A, class B, class Out>
void check(std::vector<std::int32_t> offsets, int n, int depth, bool gather, bool accumulate) {
    using sum = k::sum_of<A, B>;
    const int experts = static_cast<int>(offsets.size()) - 1;
    constexpr int slots = 2;
    const index_t rows = offsets.back();
    numbers next;
    std::vector<std::int32_t> pairs(static_cast<std::size_t>(rows));
    for (index_t r = 0; r < rows; ++r)
        pairs[static_cast<std::size_t>(r)] = static_cast<std::int32_t>((r * 7 + 3) % rows);
    const auto a = next.many<A>(rows * depth), b = next.many<A>(rows * depth);
    const auto w = next.many<B>(index_t{experts} * n * depth);
    const auto factor = next.many<gf::accumulate_t<A>>(rows);
    const auto old = next.many<Out>(rows * n), old_tn = next.many<Out>(index_t{experts} * depth * n);
    const auto rows_b = next.many<B>(rows * n);

    k::rows_of<A> source{a.data(), depth, gather ? pairs.data() : nullptr, slots, gather ? factor.data() : nullptr};
    const auto element = [&](index_t r, index_t c) {
        [[maybe_unused]] const auto p = static_cast<index_t>(pairs[static_cast<std::size_t>(r)]);
        if (!gather) return static_cast<sum>(a[static_cast<std::size_t>(r * depth + c)]);
        volatile sum product = static_cast<sum>(a[static_cast<std::size_t>(p / slots * depth + c)]) *
                               static_cast<sum>(factor[static_cast<std::size_t>(p)]);
        return static_cast<sum>(product);
    };
    auto nt = old, nn = old, tn = old_tn;
    for (int e = 0; e < experts; ++e) {
        const index_t r0 = offsets[static_cast<std::size_t>(e)], r1 = offsets[static_cast<std::size_t>(e) + 1];
        const B* we = w.data() + index_t{e} * n * depth;
        for (index_t r = r0; r < r1; ++r)
            for (index_t j = 0; j < n; ++j) {
                auto& out_nt = nt[static_cast<std::size_t>(r * n + j)];
                auto& out_nn = nn[static_cast<std::size_t>(r * n + j)];
                sum s = accumulate ? static_cast<sum>(out_nt) : 0, t = s;
                for (index_t c = 0; c < depth; ++c) {
                    s = step<sum>(element(r, c), static_cast<sum>(we[j * depth + c]), s);
                    t = step<sum>(element(r, c), static_cast<sum>(we[c * n + j]), t);
                }
                out_nt = static_cast<Out>(s);
                out_nn = static_cast<Out>(t);
            }
        for (index_t c = 0; c < depth; ++c)
            for (index_t j = 0; j < n; ++j) {
                auto& out = tn[static_cast<std::size_t>((index_t{e} * depth + c) * n + j)];
                sum s = accumulate ? static_cast<sum>(out) : 0;
                for (index_t r = r0; r < r1; ++r)
                    s = step<sum>(element(r, c), static_cast<sum>(rows_b[static_cast<std::size_t>(r * n + j)]), s);
                if (!accumulate || r1 > r0) out = static_cast<Out>(s);
            }
    }
    for (const int threads : {1, 3}) {
        gf::context<gf::cpu> ctx(threads);
        scratch_memory scratch(threads);
        const k::grouping groups{experts, offsets.data(), rows};
        auto got = old;
        k::product_nt(ctx, scratch.aligned, groups, source, k::weights_of<B>{w.data(), depth, index_t{n} * depth}, n,
                      depth, k::matrix<Out>{got.data(), n}, accumulate);
        BOOST_TEST((bytes(got) == bytes(nt)));
        got = old;
        k::product_nn(ctx, scratch.aligned, groups, source, k::weights_of<B>{w.data(), n, index_t{n} * depth}, n, depth,
                      k::matrix<Out>{got.data(), n}, accumulate);
        BOOST_TEST((bytes(got) == bytes(nn)));
        auto got_tn = old_tn;
        k::product_tn(ctx, scratch.aligned, groups, source, k::rows_of<B>{rows_b.data(), n}, depth, n,
                      k::matrix<Out>{got_tn.data(), n, index_t{n} * depth}, accumulate);
        BOOST_TEST((bytes(got_tn) == bytes(tn)));
    }
}

// Few columns: the same chains, whichever operand lies across the lanes.
template <class A, class B, class Out>
void check_narrow(index_t rows, int n, int depth) {
    using sum = k::sum_of<A, B>;
    numbers next;
    const auto a = next.many<A>(rows * depth);
    const auto w = next.many<B>(index_t{n} * depth);
    const index_t stride = n + 3;
    const auto old = next.many<Out>(rows * stride);
    auto expected = old;
    for (index_t r = 0; r < rows; ++r)
        for (index_t j = 0; j < n; ++j) {
            sum s = 0;
            for (index_t c = 0; c < depth; ++c)
                s = step<sum>(static_cast<sum>(a[static_cast<std::size_t>(r * depth + c)]),
                              static_cast<sum>(w[static_cast<std::size_t>(j * depth + c)]), s);
            expected[static_cast<std::size_t>(r * stride + j)] = static_cast<Out>(s);
        }
    for (const int threads : {1, 3}) {
        gf::context<gf::cpu> ctx(threads);
        scratch_memory scratch(threads);
        auto got = old;
        k::product_nt_narrow(ctx, scratch.aligned, rows, k::rows_of<A>{a.data(), depth},
                             k::weights_of<B>{w.data(), depth}, n, depth, k::matrix<Out>{got.data(), stride});
        BOOST_TEST((bytes(got) == bytes(expected)));
    }
}
template <class A, class B, class Out>
void check_narrow_all() {
    for (const index_t rows : {0, 1, 5, 31, 32, 33, 130, 700})
        for (const int n : {1, 8, 20, 32, 60}) check_narrow<A, B, Out>(rows, n, 21);
    check_narrow<A, B, Out>(70, 9, 1100);
    check_narrow<A, B, Out>(600, 130, 5);
    check_narrow<A, B, Out>(40, 3, 0);
}

template <class A, class B, class Out>
void check_all() {
    check<A, B, Out>({0, 5}, 3, 7, false, false);
    check<A, B, Out>({0, 0, 17, 17, 48}, 37, 70, true, false);
    check<A, B, Out>({0, 2, 3, 131, 131}, 33, 19, true, true);
    check<A, B, Out>({0, 31}, 64, 530, false, true);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(products)

BOOST_AUTO_TEST_CASE(float_rows) { check_all<float, float, float>(); }
BOOST_AUTO_TEST_CASE(double_rows) { check_all<double, double, double>(); }
BOOST_AUTO_TEST_CASE(bf16_rows) { check_all<bf16, bf16, bf16>(); }
BOOST_AUTO_TEST_CASE(f16_rows) { check_all<f16, f16, f16>(); }
BOOST_AUTO_TEST_CASE(mixed_rows) {
    check_all<float, bf16, float>();
    check_all<bf16, float, float>();
    check_all<float, f16, bf16>();
    check_all<double, float, double>();
}
BOOST_AUTO_TEST_CASE(few_columns) {
    check_narrow_all<float, float, float>();
    check_narrow_all<double, double, double>();
    check_narrow_all<bf16, bf16, float>();
    check_narrow_all<bf16, float, float>();
}
BOOST_AUTO_TEST_CASE(no_rows) { check<float, float, float>({0, 0, 0}, 5, 6, false, false); }
BOOST_AUTO_TEST_CASE(many_columns) {
    check<float, float, float>({0, 3, 120}, 1100, 20, false, false);
    check<float, float, float>({0, 3, 20}, 20, 1100, false, false);
}
// Weights are multiplied as they lie or packed, by the number of rows and the length of theirs.
template <class A, class B, class Out>
void check_unpacked() {
    check<A, B, Out>({0, 1, 3, 6, 10, 15, 29}, 100, 45, true, false);
    check<A, B, Out>({0, 1, 3, 6, 10, 15, 29}, 64, 9, false, true);
    check<A, B, Out>({0, 1, 3, 6, 10}, 2100, 17, false, false);
    check<A, B, Out>({0, 40, 45, 60}, 1024, 21, false, false);
    check<A, B, Out>({0, 3, 20}, 70, 1100, false, false);
    check<A, B, Out>({0, 3, 3, 20}, 70, 0, false, false);
}
BOOST_AUTO_TEST_CASE(weights_as_they_lie) {
    check_unpacked<float, float, float>();
    check_unpacked<double, double, double>();
    check_unpacked<bf16, bf16, bf16>();
    check_unpacked<float, bf16, float>();
    check_unpacked<float, f16, f16>();
}
// Results larger than the caches are written past them, whole tiles and the rest alike.
BOOST_AUTO_TEST_CASE(large_results) {
    const std::vector<std::int32_t> offsets{0, 5, 5, 25};
    constexpr int experts = 3, m = 2100, n = 1520;
    static_assert(std::size_t{experts} * m * n * sizeof(float) > k::kept_in_caches);
    numbers next;
    const auto a = next.many<float>(index_t{offsets.back()} * m), b = next.many<float>(index_t{offsets.back()} * n);
    for (const int threads : {1, 3}) {
        gf::context<gf::cpu> ctx(threads);
        scratch_memory scratch(threads);
        gf::buffer<float> out(index_t{experts} * m * n);
        for (index_t i = 0; i < out.size(); ++i) out.data()[i] = -1;
        k::product_tn(ctx, scratch.aligned, {experts, offsets.data(), 0}, k::rows_of<float>{a.data(), m},
                      k::rows_of<float>{b.data(), n}, m, n, k::matrix<float>{out.data(), n, index_t{m} * n});
        index_t wrong = 0;
        for (int e = 0; e < experts; ++e)
            for (index_t i = 0; i < m; ++i)
                for (index_t j = 0; j < n; ++j) {
                    float s = 0;
                    for (index_t r = offsets[static_cast<std::size_t>(e)]; r < offsets[static_cast<std::size_t>(e) + 1];
                         ++r)
                        s = step(a[static_cast<std::size_t>(r * m + i)], b[static_cast<std::size_t>(r * n + j)], s);
                    wrong += out.data()[(e * m + i) * n + j] != s;
                }
        BOOST_TEST(wrong == 0);
    }
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
