// The expert stage: equal bit for bit to the sums written out one by one, for every type, order of sums, shape,
// activation, packed and unpacked, any number of rows and threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/core/context.hpp>
#include <gatefold/cpu/experts/experts.hpp>

namespace {

namespace gf = gatefold;
namespace k = gatefold::detail::on_cpu;
using gf::activation;
using gf::bf16;
using gf::f16;
using gf::index_t;
using gf::order;

struct numbers {
    std::uint32_t state = 4711;
    double operator()() {
        state = state * 1664525u + 1013904223u;
        return static_cast<double>(state >> 8) * 0x1p-24 - 0.5;
    }
    template <class T>
    std::vector<T> many(index_t n) {
        std::vector<T> v(static_cast<std::size_t>(n));
        for (auto& x : v) x = static_cast<T>((*this)());
        return v;
    }
};

struct aligned_bytes {
    std::vector<std::byte> memory;
    explicit aligned_bytes(std::size_t n) : memory(n + 64) {}
    std::byte* data() { return memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64; }
};

template <class A>
A multiply_add(A a, A b, A c) {
#if GATEFOLD_HARDWARE_FMA
    if constexpr (std::is_same_v<A, float>)
        return __builtin_fmaf(a, b, c);
    else
        return __builtin_fma(a, b, c);
#else
    volatile A product = a * b;
    return product + c;
#endif
}

float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

// One sum in the order that the type and the order of sums prescribe.
template <class T, class A = gf::accumulate_t<T>>
A sum_of_products(const std::vector<A>& a, const std::vector<A>& b, order sums) {
    const std::size_t n = a.size();
    A total = 0;
    if constexpr (std::is_same_v<T, bf16>) {
        const auto at = [&](const std::vector<A>& v, std::size_t i) { return i < n ? flushed(v[i]) : 0.0f; };
        const auto step = [](float x, float y, float z) { return flushed(multiply_add(x, y, z)); };
        for (std::size_t i = 0; i < n; i += 32) {
            if (gf::resolve(sums) == order::dot) {
                for (std::size_t j = i; j < i + 32; j += 2) {
                    total = step(at(a, j + 1), at(b, j + 1), total);
                    total = step(at(a, j), at(b, j), total);
                }
            } else {
                float even = 0, odd = 0;
                for (std::size_t j = i; j < i + 32; j += 2) {
                    even = step(at(a, j), at(b, j), even);
                    odd = step(at(a, j + 1), at(b, j + 1), odd);
                }
                total = flushed(total + flushed(even + odd));
            }
        }
    } else {
        for (std::size_t i = 0; i < n; ++i) total = multiply_add(a[i], b[i], total);
    }
    return total;
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

template <int H, int F, activation Act, class T, bool Bias, class X = T>
void check(const std::vector<std::int32_t>& offsets, order sums, bool input_weights = false, double scale = 1) {
    using E = k::expert<H, F, Act, T, Bias>;
    using A = typename E::sum_type;
    const int experts = static_cast<int>(offsets.size()) - 1;
    const index_t rows = offsets.back();
    constexpr int slots = 2;
    const index_t tokens = (rows + 1) / 2;
    numbers next;
    auto x = next.many<X>(tokens * H);
    auto up = next.many<T>(index_t{experts} * E::up_rows * H), down = next.many<T>(index_t{experts} * H * F);
    if (scale < 1)
        for (auto* v : {&up, &down})
            for (auto& w : *v) w = static_cast<T>(static_cast<A>(static_cast<double>(static_cast<A>(w)) * scale));
    const auto up_bias = next.many<T>(index_t{experts} * E::up_rows), down_bias = next.many<T>(index_t{experts} * H);
    const auto weights = next.many<A>(tokens * slots), factor = next.many<A>(tokens * slots);
    std::vector<std::int32_t> pairs;
    for (index_t r = 0; r < rows; ++r)
        pairs.push_back(static_cast<std::int32_t>(tokens * slots > 0 ? (r * 5 + 1) % (tokens * slots) : 0));
    const A limit = static_cast<A>(0.25);

    // Written out.
    const auto at = [](const auto& v, index_t i) { return static_cast<A>(v[static_cast<std::size_t>(i)]); };
    std::vector<T> pre(static_cast<std::size_t>(rows * E::up_rows)), activated(static_cast<std::size_t>(rows * F));
    std::vector<A> z(static_cast<std::size_t>(rows * H)), combined(static_cast<std::size_t>(tokens * H), A{0});
    for (int e = 0; e < experts; ++e)
        for (index_t r = offsets[static_cast<std::size_t>(e)]; r < offsets[static_cast<std::size_t>(e) + 1]; ++r) {
            const index_t pair = pairs[static_cast<std::size_t>(r)];
            std::vector<A> row(H), w(H), sums_of_row(static_cast<std::size_t>(E::up_rows));
            for (index_t c = 0; c < H; ++c) {
                A value = at(x, pair / slots * H + c);
                if (input_weights) value = gf::mul(value, at(factor, pair));
                if (std::is_same_v<T, bf16>) value = static_cast<A>(static_cast<T>(value));
                row[static_cast<std::size_t>(c)] = value;
            }
            for (index_t f = 0; f < E::up_rows; ++f) {
                for (index_t c = 0; c < H; ++c)
                    w[static_cast<std::size_t>(c)] = at(up, (index_t{e} * E::up_rows + f) * H + c);
                A s = sum_of_products<T>(row, w, sums);
                if (Bias) s += at(up_bias, index_t{e} * E::up_rows + f);
                sums_of_row[static_cast<std::size_t>(f)] = s;
                pre[static_cast<std::size_t>(r * E::up_rows + f)] = static_cast<T>(s);
            }
            std::vector<A> a(F), v(F);
            for (index_t f = 0; f < F; ++f) {
                A value;
                if constexpr (E::gated)
                    value = gf::activate<Act>(at(sums_of_row, f), at(sums_of_row, F + f), limit);
                else
                    value = gf::activate<Act>(at(sums_of_row, f), limit);
                activated[static_cast<std::size_t>(r * F + f)] = static_cast<T>(value);
                a[static_cast<std::size_t>(f)] = at(activated, r * F + f);
            }
            for (index_t c = 0; c < H; ++c) {
                for (index_t f = 0; f < F; ++f) v[static_cast<std::size_t>(f)] = at(down, (index_t{e} * H + c) * F + f);
                A s = sum_of_products<T>(a, v, sums);
                if (Bias) s += at(down_bias, index_t{e} * H + c);
                z[static_cast<std::size_t>(r * H + c)] = s;
                A& y = combined[static_cast<std::size_t>(pair / slots * H + c)];
                y = gf::fma(at(weights, pair), s, y);
            }
        }

    aligned_bytes packed(k::packed_bytes<E>() * static_cast<std::size_t>(experts));
    for (int e = 0; e < experts; ++e)
        k::pack_expert<E>(up.data() + index_t{e} * E::up_rows * H, down.data() + index_t{e} * H * F,
                          packed.data() + static_cast<std::size_t>(e) * k::packed_bytes<E>());
    aligned_bytes around(k::packed_bytes<E>());
    k::pack_expert<E, true>(up.data(), down.data(), around.data());
    BOOST_TEST(std::memcmp(around.data(), packed.data(), k::packed_bytes<E>()) == 0);
    for (const int threads : {1, 2, 3, 7}) {
        gf::context<gf::cpu> ctx(threads);
        aligned_bytes scratch(k::expert_scratch_bytes<E>(threads, rows));
        const k::expert_input<X> in{{experts, offsets.data(), rows},
                                    {x.data(), H, pairs.data(), slots, input_weights ? factor.data() : nullptr}};
        const auto run = [&](const auto& w) {
            auto got_pre = pre, got_activated = activated;
            for (auto* v : {&got_pre, &got_activated})
                for (auto& value : *v) value = T{};
            std::vector<A> got(combined.size(), A{7}), got_z(z.size(), A{7});
            k::run_experts<E>(ctx, scratch.data(), in, w, limit, sums, {got_pre.data(), got_activated.data()},
                              k::combine_into<A>{got.data(), H, tokens, weights.data(), pairs.data(), slots, true});
            BOOST_TEST(same(got_pre, pre));
            BOOST_TEST(same(got_activated, activated));
            BOOST_TEST(same(got, combined));
            k::run_experts<E>(ctx, scratch.data(), in, w, limit, sums, {}, k::rows_into<A>{got_z.data(), H});
            BOOST_TEST(same(got_z, z));
        };
        run(k::hub_weights<T>{up.data(), down.data(), up_bias.data(), down_bias.data()});
        run(k::packed_weights<T>{packed.data(), up_bias.data(), down_bias.data()});
    }
}

template <class T>
void check_shapes(order sums) {
    check<32, 64, activation::swiglu, T, false>({0, 1, 4, 4, 9}, sums);
    check<37, 29, activation::swiglu, T, true>({0, 2, 2, 35}, sums);
    check<70, 33, activation::clamped_swiglu, T, true>({0, 5, 12}, sums);
    check<83, 59, activation::swiglu, T, true>({0, 1, 3, 6, 10}, sums);
    check<59, 115, activation::relu, T, false>({0, 4, 5, 7}, sums);
    check<5, 7, activation::relu, T, false>({0, 3}, sums);
    check<64, 130, activation::relu, T, true>({0, 0, 14, 29}, sums);
    check<1, 1, activation::swiglu, T, false>({0, 1}, sums);
}

/// Experts of many and of few rows, more of them than caches hold, so that they take turns.
template <class T, order Sums, bool Bias>
void check_turns() {
    using form = k::form_for<T, Sums>;
    using blocks = k::turn_blocks<form>;
    constexpr int H = 520, F = blocks::cached > 16 << 20 ? 520 : 260;
    std::vector<std::int32_t> offsets{0};
    // With one expert of more tiles than a block has, and lighter ones where the ridge is low.
    const int many[] = {260, 40, 1}, lower[] = {24, 30, 15};
    for (int e = 0; e < 36; ++e) {
        const int rows = e % 12 == 5 ? (k::ridge_of<form> > 4 ? many : lower)[e / 12] : e % 7 == 3 ? 0 : 1 + e % 2;
        offsets.push_back(offsets.back() + rows);
    }
    BOOST_TEST(k::worth_merging({36, offsets.data(), offsets.back()}, k::ridge_of<form>));
    using E = k::expert<H, F, activation::swiglu, T, Bias>;
    BOOST_TEST(30 * k::packed_bytes<E>() > static_cast<std::size_t>(blocks::cached));
    check<H, F, activation::swiglu, T, Bias>(offsets, Sums);
}

// The matrix unit's sweep, on its twin in plain code, against the vector kernels.
template <int H, int F, activation Act, bool Bias>
void check_tiles([[maybe_unused]] const std::vector<std::int32_t>& offsets) {
    // Panels are as wide as the tier's registers; the unit wants 16 outputs.
    if constexpr (k::lanes<float> == 16) {
        using E = k::expert<H, F, Act, bf16, Bias>;
        const int experts = static_cast<int>(offsets.size()) - 1;
        const index_t rows = offsets.back();
        numbers next;
        const auto x = next.many<bf16>(rows * H), up = next.many<bf16>(index_t{experts} * E::up_rows * H),
                   down = next.many<bf16>(index_t{experts} * H * F), up_bias = next.many<bf16>(experts * E::up_rows),
                   down_bias = next.many<bf16>(index_t{experts} * H);
        aligned_bytes packed(k::packed_bytes<E>() * static_cast<std::size_t>(experts));
        for (int e = 0; e < experts; ++e)
            k::pack_expert<E>(up.data() + index_t{e} * E::up_rows * H, down.data() + index_t{e} * H * F,
                              packed.data() + static_cast<std::size_t>(e) * k::packed_bytes<E>());
        const k::expert_input<bf16> in{{experts, offsets.data(), rows}, {x.data(), H}};
        for (const int threads : {1, 3}) {
            gf::context<gf::cpu> ctx(threads);
            using tile_form = k::tile_form<k::software_tiles>;
            aligned_bytes scratch((std::max)(k::expert_scratch_bytes<E>(threads, rows),
                                             k::expert_scratch_bytes_for<E, tile_form>(threads, rows)));
            k::panels_of<bf16, 16, E::gated> panels{nullptr,        up.data(),        down.data(),
                                                    up_bias.data(), down_bias.data(), k::shape_of<E>};
            std::vector<float> vectors(static_cast<std::size_t>(rows * H)), tiles[2] = {vectors, vectors};
            const auto run = [&]<class Form>(std::type_identity<Form>, std::vector<float>& out) {
                k::run_stage<Form, Act, bf16, Bias>(ctx, scratch.data(), k::shape_of<E>, in, panels, 0.25f, {},
                                                    k::rows_into<float>{out.data(), H});
            };
            run(std::type_identity<k::portable_form>{}, vectors);
            run(std::type_identity<tile_form>{}, tiles[0]);
            panels.packed = reinterpret_cast<const bf16*>(packed.data());
            run(std::type_identity<tile_form>{}, tiles[1]);
            BOOST_TEST(same(tiles[0], vectors));
            BOOST_TEST(same(tiles[1], vectors));
        }
    }
}

// Packed past the caches and into them: the same bytes.
template <int H, int F, activation Act, class T>
void check_packing_around() {
    using E = k::expert<H, F, Act, T>;
    numbers next;
    const auto up = next.many<T>(index_t{E::up_rows} * H), down = next.many<T>(index_t{H} * F);
    aligned_bytes kept(k::packed_bytes<E>()), around(k::packed_bytes<E>());
    k::pack_expert<E, false>(up.data(), down.data(), kept.data());
    k::pack_expert<E, true>(up.data(), down.data(), around.data());
    BOOST_TEST(std::memcmp(kept.data(), around.data(), k::packed_bytes<E>()) == 0, H << " " << F);
}
template <class T>
void check_packing_around() {
    check_packing_around<64, 96, activation::swiglu, T>();
    check_packing_around<37, 29, activation::swiglu, T>();
    check_packing_around<101, 70, activation::relu, T>();
    check_packing_around<3, 5, activation::swiglu, T>();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(experts)

BOOST_AUTO_TEST_CASE(float_experts) { check_shapes<float>(order::fastest); }
BOOST_AUTO_TEST_CASE(double_experts) { check_shapes<double>(order::fastest); }
BOOST_AUTO_TEST_CASE(f16_experts) { check_shapes<f16>(order::fastest); }
BOOST_AUTO_TEST_CASE(bf16_experts_in_the_portable_order) { check_shapes<bf16>(order::portable); }
BOOST_AUTO_TEST_CASE(bf16_experts_in_the_dot_order) { check_shapes<bf16>(order::dot); }
BOOST_AUTO_TEST_CASE(float_rows_of_narrow_experts) {
    check<37, 29, activation::swiglu, bf16, true, float>({0, 2, 2, 35}, order::portable);
    check<37, 29, activation::swiglu, bf16, true, float>({0, 2, 2, 35}, order::dot);
    check<37, 29, activation::swiglu, f16, true, float>({0, 2, 2, 35}, order::fastest);
}
BOOST_AUTO_TEST_CASE(weights_on_the_input) {
    check<37, 29, activation::swiglu, bf16, false>({0, 2, 2, 19}, order::portable, true);
    check<37, 29, activation::swiglu, bf16, false>({0, 2, 2, 19}, order::dot, true);
    check<37, 29, activation::swiglu, float, false>({0, 2, 2, 19}, order::fastest, true);
}
BOOST_AUTO_TEST_CASE(subnormal_products_of_bf16) {
    check<37, 29, activation::relu, bf16, false>({0, 2, 19}, order::portable, false, 0x1p-124);
    check<37, 29, activation::relu, bf16, false>({0, 2, 19}, order::dot, false, 0x1p-124);
}
BOOST_AUTO_TEST_CASE(many_rows_and_long_sums) {
    check<40, 36, activation::swiglu, float, false>({0, 300}, order::fastest);
    check<2100, 34, activation::swiglu, float, false>({0, 1, 30}, order::fastest);
    check<34, 2100, activation::swiglu, float, false>({0, 1, 30}, order::fastest);
}
BOOST_AUTO_TEST_CASE(turns_of_float) { check_turns<float, order::portable, true>(); }
BOOST_AUTO_TEST_CASE(turns_of_f16) { check_turns<f16, order::portable, false>(); }
BOOST_AUTO_TEST_CASE(turns_of_bf16_in_the_portable_order) { check_turns<bf16, order::portable, false>(); }
BOOST_AUTO_TEST_CASE(turns_of_bf16_in_the_dot_order) { check_turns<bf16, order::dot, false>(); }
BOOST_AUTO_TEST_CASE(matrix_unit) {
    check_tiles<64, 96, activation::swiglu, false>({0, 1, 1, 6, 22, 40});
    check_tiles<37, 70, activation::swiglu, true>({0, 16, 48, 50});
    check_tiles<130, 33, activation::relu, true>({0, 33, 103});
    check_tiles<640, 40, activation::swiglu, false>({0, 70, 71});
    check_tiles<96, 64, activation::swiglu, false>({0, 300});
}
BOOST_AUTO_TEST_CASE(lookahead_asks_for_every_line_once) {
    constexpr index_t apart = 1 << 20;
    for (const index_t quarter : {8, 40, 64}) {
        const k::page_lookahead ahead{nullptr, apart, quarter, 0, 0};
        std::vector<int> asked(static_cast<std::size_t>(4 * quarter));
        for (index_t i = 0; i < 4 * quarter; ++i) {
            const auto byte = static_cast<index_t>(reinterpret_cast<std::uintptr_t>(ahead.at(i)));
            const index_t block = byte / apart, line = byte % apart / 64;
            BOOST_REQUIRE((block < 2 && line < 2 * quarter && byte % 64 == 0));
            ++asked[static_cast<std::size_t>(block * 2 * quarter + line)];
        }
        for (const int times : asked) BOOST_TEST(times == 1);
    }
}
BOOST_AUTO_TEST_CASE(matrix_unit_with_more_rows_than_the_cache_holds) {
    check_tiles<2304, 40, activation::relu, false>({0, 280});
}
BOOST_AUTO_TEST_CASE(packed_around_the_caches) {
    check_packing_around<float>();
    check_packing_around<double>();
    check_packing_around<f16>();
    check_packing_around<bf16>();
}
BOOST_AUTO_TEST_CASE(no_rows) { check<8, 8, activation::swiglu, float, false>({0, 0, 0}, order::fastest); }

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
