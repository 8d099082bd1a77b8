// Whole layers give the same bits on every tier: one line per layer, type, order of sums and what was computed, with a
// hash of its bits. tests/tools/bits.py compares the lines with layer_bits.json and those of other builds.
//
//     counter_rng ──> weights, tokens, gradients of the output ──> route, forward, backward ──> hash
//
// Targets without a fused multiply-add round every product; their lines begin with `unfused` and have other hashes.
// On the way the forms of the weights, numbers of threads and splits of the batch have to agree.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include <gatefold/gatefold.hpp>
#include <gatefold/moe/sparse.hpp>
#include <tests/layers.hpp>

namespace {

namespace gf = gatefold;
using gf::dyn;
using gf::index_t;

constexpr gf::config mixtral{.hidden = 70, .ffn = 45, .experts = 8, .top_k = 2, .router = gf::routers::mixtral};
constexpr gf::config deepseek = test_layers::clamped_deepseek(false);

/// FNV-1a over the bytes of numbers.
struct bit_hash {
    std::uint64_t state = 0xcbf29ce484222325u;

    template <class T>
    void add(const T* values, index_t n) {
        for (index_t i = 0; i < n; ++i) {
            std::uint64_t bits = 0;
            std::memcpy(&bits, values + i, sizeof(T));
            for (std::size_t byte = 0; byte < sizeof(T); ++byte)
                state = (state ^ (bits >> (8 * byte) & 0xffu)) * 0x100000001b3u;
        }
    }
};

/// Numbers between -1 and 1 of several binades, so that sums round at every step.
template <class T>
void draw(T* to, index_t n, int stream) {
    const gf::counter_rng rng{2718, 0, stream};
    for (index_t i = 0; i < n; ++i) {
        const float u = rng.uniform<float>(gf::purpose::initialisation, i / 64, i % 64);
        const float size = 1.0f / static_cast<float>(1 << i % 7);
        to[i] = gf::from_accumulate<T>(static_cast<gf::accumulate_t<T>>((2 * u - 1) * size));
    }
}

bool right = true;
void expect(bool agrees, const std::string& what) {
    if (!agrees) std::printf("%s differs\n", what.c_str());
    right = right && agrees;
}

template <gf::config C, class T>
void check(const std::string& name, gf::order sums, bool common) {
    using L = gf::layer<C, T>;
    using A = typename L::accumulate_type;
    using rows = gf::view<const T, dyn, L::hidden>;
    constexpr index_t tokens = 150;
    const auto context = [&](int threads) {
        return gf::context<gf::cpu>(gf::context_options{.threads = threads, .sums = sums});
    };
    auto ctx = context(1), three = context(3);
    gf::weights<L> w = gf::make_weights<L>(ctx);
    int stream = 0;
    gf::for_each_parameter([&](const char*, auto& slot) { draw(slot.data(), slot.size(), ++stream); }, w);
    auto x = gf::make_tensor<T, dyn, L::hidden>(ctx, tokens), dy = gf::make_tensor<T, dyn, L::hidden>(ctx, tokens);
    draw(x.data(), x.size(), 100);
    draw(dy.data(), dy.size(), 101);
    auto y = gf::make_tensor<T, dyn, L::hidden>(ctx, tokens), other = gf::make_tensor<T, dyn, L::hidden>(ctx, tokens),
         dx = gf::make_tensor<T, dyn, L::hidden>(ctx, tokens);
    gf::batch<L> in;
    in.x = std::as_const(x).view();

    const auto line = [&](const char* what, const bit_hash& hash) {
        std::printf("%s/%s/%s 0x%016llx\n", GATEFOLD_HARDWARE_FMA ? "fused" : "unfused", name.c_str(), what,
                    static_cast<unsigned long long>(hash.state));
    };
    // The order of sums leaves the router alone.
    if (common) {
        auto ids = gf::make_tensor<std::int32_t, dyn, L::slots>(ctx, tokens);
        auto weights = gf::make_tensor<A, dyn, L::slots>(ctx, tokens);
        auto logits = gf::make_tensor<A, dyn, L::choices>(ctx, tokens);
        gf::route(ctx, w, in, {ids.view(), weights.view(), logits.view()});
        bit_hash hash;
        hash.add(ids.data(), ids.size());
        hash.add(weights.data(), weights.size());
        hash.add(logits.data(), logits.size());
        line("route", hash);
    }

    gf::tape<L> tape(ctx, tokens);
    gf::forward(ctx, w, in, y.view(), tape);
    bit_hash forward;
    forward.add(y.data(), y.size());
    line("forward", forward);
    const auto agrees = [&](const char* what, const auto& run) {
        other.set_zero();
        run();
        bit_hash hash;
        hash.add(other.data(), other.size());
        expect(hash.state == forward.state, name + ": forward, " + what);
    };
    const auto packed = gf::pack(ctx, w);
    agrees("packed, three threads", [&] { gf::forward(three, packed, in.x, other.view()); });
    agrees("token by token", [&] {
        for (index_t t = 0; t < tokens; ++t)
            gf::forward(ctx, packed, rows{x.view().slice(t, 1)}, other.view().slice(t, 1));
    });
    const auto sparse = gf::pack_sparse(ctx, w);
    agrees("sparse", [&] { gf::forward(ctx, sparse, in.x, other.view()); });

    auto g = gf::make_gradients<L>(ctx);
    gf::backward(three, w, in, tape, std::as_const(dy).view(), dx.view(), g);
    bit_hash backward;
    backward.add(dx.data(), dx.size());
    gf::for_each_parameter([&](const char*, const auto& slot) { backward.add(slot.data(), slot.size()); }, g);
    line("backward", backward);
}

}  // namespace

int main() {
    check<mixtral, float>("mixtral/f32", gf::order::fastest, true);
    check<mixtral, gf::bf16>("mixtral/bf16/portable", gf::order::portable, true);
    check<mixtral, gf::bf16>("mixtral/bf16/dot", gf::order::dot, false);
    check<mixtral, gf::f16>("mixtral/f16", gf::order::fastest, true);
    check<deepseek, float>("deepseek/f32", gf::order::fastest, true);
    check<deepseek, gf::bf16>("deepseek/bf16/portable", gf::order::portable, true);
    check<deepseek, gf::bf16>("deepseek/bf16/dot", gf::order::dot, false);
    return right ? 0 : 1;
}
