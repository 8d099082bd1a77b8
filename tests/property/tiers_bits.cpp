// The expert stage gives one result on every tier: each line is a type and an order of sums, computed packed and
// unpacked, on one and three threads, whole and row by row; all must agree, and with a committed number.
//
// Without a fused multiply-add in the target sums have other bits, so that only the former is asked there.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include <gatefold/core/context.hpp>
#include <gatefold/cpu/experts/experts.hpp>

namespace {

namespace gf = gatefold;
namespace k = gatefold::detail::on_cpu;
using gf::index_t;

// Multiples of 1/64 between -2 and 2, exact in every type, the same everywhere.
struct numbers {
    std::uint32_t state = 2718;
    double operator()() {
        state = state * 1664525u + 1013904223u;
        return (static_cast<double>(state >> 24) - 128) / 64;
    }
    template <class T>
    std::vector<T> many(index_t n, double scale = 1) {
        std::vector<T> v(static_cast<std::size_t>(n));
        for (auto& x : v) x = static_cast<T>((*this)() * scale);
        return v;
    }
};

template <class T>
std::uint64_t hash_of(const std::vector<T>& v) {
    std::uint64_t hash = 0xcbf29ce484222325u;
    for (const T& x : v) {
        std::uint64_t bits = 0;
        std::memcpy(&bits, &x, sizeof x);
        hash = (hash ^ bits) * 0x100000001b3u;
    }
    return hash;
}

struct aligned_bytes {
    std::vector<std::byte> memory;
    explicit aligned_bytes(std::size_t n) : memory(n + 64) {}
    std::byte* data() { return memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64; }
};

template <gf::activation Act, class T>
bool check(const char* name, gf::order sums, std::uint64_t expected, double scale = 1) {
    constexpr int H = 70, F = 45, experts = 5;
    using E = k::expert<H, F, Act, T, true>;
    using A = typename E::sum_type;
    const std::int32_t offsets[] = {0, 1, 1, 5, 22, 63};
    const index_t rows = offsets[experts];
    numbers next;
    const auto x = next.many<T>(rows * H), up = next.many<T>(index_t{experts} * E::up_rows * H, scale / 4),
               down = next.many<T>(index_t{experts} * H * F, 0.5),
               up_bias = next.many<T>(index_t{experts} * E::up_rows, scale),
               down_bias = next.many<T>(index_t{experts} * H, scale);
    aligned_bytes packed(k::packed_bytes<E>() * experts), scratch(k::expert_scratch_bytes<E>(3, rows));
    for (int e = 0; e < experts; ++e)
        k::pack_expert<E>(up.data() + index_t{e} * E::up_rows * H, down.data() + index_t{e} * H * F,
                          packed.data() + static_cast<std::size_t>(e) * k::packed_bytes<E>());

    std::vector<std::uint64_t> hashes;
    const auto run = [&](const auto& weights) {
        for (const int threads : {1, 3})
            for (const bool row_by_row : {false, true}) {
                gf::context<gf::cpu> ctx(threads);
                std::vector<A> z(static_cast<std::size_t>(rows * H));
                std::vector<T> pre(static_cast<std::size_t>(rows * E::up_rows));
                const auto stage = [&](const std::int32_t* some) {
                    k::run_experts<E>(ctx, scratch.data(), k::expert_input<T>{{experts, some, rows}, {x.data(), H}},
                                      weights, static_cast<A>(1.5), sums, {pre.data(), nullptr},
                                      k::rows_into<A>{z.data(), H});
                };
                if (row_by_row)
                    for (int e = 0; e < experts; ++e)
                        for (std::int32_t r = offsets[e]; r < offsets[e + 1]; ++r) {
                            std::int32_t one[std::size_t{experts} + 1];
                            for (int i = 0; i <= experts; ++i) one[i] = i <= e ? r : r + 1;
                            stage(one);
                        }
                else
                    stage(offsets);
                hashes.push_back(hash_of(z) ^ (hash_of(pre) << 1));
            }
    };
    run(k::hub_weights<T>{up.data(), down.data(), up_bias.data(), down_bias.data()});
    run(k::packed_weights<T>{packed.data(), up_bias.data(), down_bias.data()});
    bool right = true;
    for (const std::uint64_t hash : hashes) right = right && hash == hashes[0];
    if (GATEFOLD_HARDWARE_FMA) right = right && hashes[0] == expected;
    std::printf("%-24s %s\n", name, right ? "agrees" : "differs");
    if (!right)
        for (const std::uint64_t hash : hashes) std::printf("    0x%016llxu\n", static_cast<unsigned long long>(hash));
    return right;
}

}  // namespace

int main() {
    using gf::activation;
    using gf::order;
    bool right = true;
    right &= check<activation::swiglu, float>("float", order::fastest, 0x4d1336f023739ff7u);
    right &= check<activation::clamped_swiglu, double>("double", order::fastest, 0x460a06e405e39528u);
    right &= check<activation::relu_squared, gf::f16>("f16", order::fastest, 0xea388a9aba5bc843u);
    right &= check<activation::swiglu, gf::bf16>("bf16 portable", order::portable, 0xebe3ba4a0e75a8ccu);
    right &= check<activation::swiglu, gf::bf16>("bf16 dot", order::dot, 0x1b4c69b25dc6d244u);
    right &= check<activation::relu, gf::bf16>("bf16 portable, tiny", order::portable, 0xf5800eaad9e21378u, 0x1p-121);
    right &= check<activation::relu, gf::bf16>("bf16 dot, tiny", order::dot, 0x5938dc09b34b134du, 0x1p-121);
    return right ? 0 : 1;
}
