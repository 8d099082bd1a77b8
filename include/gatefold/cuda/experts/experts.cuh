// The expert stage on CUDA: which kernel multiplies what. Float and double layers run on the CUDA cores, 16-bit ones on
// the tensor cores.
//
//     x ── (scale rows by their weight) ──> up projection, gathered, activation ──> activated ── down projection ──> z
#pragma once

#include <string>

#include <gatefold/cuda/device/context.cuh>
#include <gatefold/cuda/experts/pack.cuh>
#include <gatefold/cuda/gemm/few.cuh>
#include <gatefold/cuda/gemm/simt.cuh>
#include <gatefold/cuda/gemm/tile.cuh>
#include <gatefold/cuda/gemm/warpgroup.cuh>
#include <gatefold/moe/packed.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda {

/// Elements from one row of activations or of expert outputs to the next.
constexpr index_t row_pitch(int columns) { return round_up(index_t{columns}, index_t{16}); }

/// The matrices of one kind of expert as the kernels know it: widths, activation, storage; `Listed`: there are several.
template <class T, int Width, int Ffn, activation Act, bool Bias, bool Listed>
struct expert_kind {
    using value_type = T;
    using A = accumulate_t<T>;
    static constexpr bool matrix_cores = sizeof(T) == 2, gated = is_gated(Act);
    static constexpr int width = Width, ffn = Ffn;
    static constexpr activation act = Act;
    static constexpr bool bias = Bias, listed = Listed;
    static constexpr index_t hub_up = index_t{gated ? 2 * Ffn : Ffn} * Width, hub_down = index_t{Width} * Ffn;
    static constexpr index_t packed_up = matrix_cores ? projection_shape<gated, Ffn, Width>::elements : hub_up;
    static constexpr index_t packed_down = matrix_cores ? projection_shape<false, Width, Ffn>::elements : hub_down;
};
template <layer_type L>
using routed_kind = expert_kind<typename L::value_type, L::width, L::ffn, L::c.act, L::c.bias, !L::is_dense>;
template <layer_type L>
using shared_kind = expert_kind<typename L::value_type, L::hidden, (L::shared_ffn > 0 ? L::shared_ffn : 1),
                                L::c.shared.act, L::c.shared.bias, false>;

/// Whether the shared expert's products are those of one more expert: of the routed width, with the same activation and
/// biases. Not so where experts work on a latent width. Of 16-bit rows that are scaled before only whole vectors are
/// read, so the shared expert's must have them too.
template <layer_type L>
inline constexpr bool shared_rides = (L::shared_ffn == L::ffn) && (L::c.latent == 0) && (L::c.shared.act == L::c.act) &&
                                     (L::c.shared.bias == L::c.bias) &&
                                     (L::c.router.acts_on != weight_at::input || sizeof(typename L::value_type) > 2 ||
                                      L::hidden % 8 == 0);

/// Packed matrices of a layer, in elements: up projections of all experts, then down; then the shared expert's.
template <layer_type L>
struct packed_places {
    using routed = routed_kind<L>;
    using shared = shared_kind<L>;
    static constexpr index_t down = L::local_experts * routed::packed_up;
    static constexpr index_t shared_up = down + L::local_experts * routed::packed_down;
    static constexpr index_t shared_down = shared_up + (L::shared_ffn > 0 ? shared::packed_up : 0);
    static constexpr index_t elements = shared_down + (L::shared_ffn > 0 ? shared::packed_down : 0);
};

/// Pointers to the matrices of one kind of expert.
template <class T>
struct expert_matrices {
    const T *up, *down, *up_bias = nullptr, *down_bias = nullptr;
};

template <class W, layer_type L = typename W::layer_type>
auto routed_matrices(const W& w) {
    using T = typename L::value_type;
    expert_matrices<T> m{};
    if constexpr (is_packed<W>) {
        m.up = reinterpret_cast<const T*>(w.matrices.data());
        m.down = m.up + packed_places<L>::down;
    } else {
        if constexpr (L::is_gated) {
            m.up = w.gate_up.data();
        } else {
            m.up = w.up.data();
        }
        m.down = w.down.data();
    }
    if constexpr (L::c.bias) {
        m.up_bias = w.gate_up_bias.data();
        m.down_bias = w.down_bias.data();
    }
    return m;
}
template <class W, layer_type L = typename W::layer_type>
auto shared_matrices(const W& w) {
    using T = typename L::value_type;
    expert_matrices<T> m{};
    if constexpr (is_packed<W>) {
        m.up = reinterpret_cast<const T*>(w.matrices.data()) + packed_places<L>::shared_up;
        m.down = reinterpret_cast<const T*>(w.matrices.data()) + packed_places<L>::shared_down;
    } else {
        m.up = w.shared_gate_up.data();
        m.down = w.shared_down.data();
    }
    if constexpr (L::c.shared.bias) {
        m.up_bias = w.shared_gate_up_bias.data();
        m.down_bias = w.shared_down_bias.data();
    }
    return m;
}

inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

/// Rows of a tile in a call over `pairs` pairs.
template <class T>
int tile_rows_for(const context<cuda>& ctx, index_t pairs, int experts) {
    if constexpr (sizeof(T) == 2)
        return rows_of_regime(regime_of(pairs, experts, ctx.shared_bytes()));
    else
        return simt_rows;
}

/// Launches a persistent kernel over at most `items` items.
template <class Arguments>
void launch_persistent(context<cuda>& ctx, void (*kernel)(Arguments), const Arguments& p, index_t items,
                       int blocks_each, int threads, int shared_bytes, const char* name) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               shared_bytes),
          name);
    const index_t most = index_t{ctx.multiprocessors()} * blocks_each;
    kernel<<<static_cast<unsigned>(items < most ? items : most), static_cast<unsigned>(threads),
             static_cast<std::size_t>(shared_bytes), ctx.stream()>>>(p);
    check_launch(name);
}

inline device_extents extents_of(const context<cuda>& ctx) { return {ctx.multiprocessors(), ctx.shared_bytes()}; }

/// One projection of 16-bit experts over at most `row_tiles` tiles, cut in a given way; P is deduced, see route().
template <class P>
void run_arrangement(context<cuda>& ctx, P, const typename P::arguments& p, index_t row_tiles, arrangement cut,
                     const char* name) {
    const auto launch = [&]<class S>(S) {
        static_assert(S::shared_bytes == extents_of(S::cut).shared_bytes && S::rows == extents_of(S::cut).rows);
        launch_persistent(ctx, &multiply_tiles<P, S>, p, row_tiles * ceil_div(P::shape::strips, int{S::strips}),
                          resident_blocks(S::shared_bytes, ctx.shared_bytes()), S::threads, S::shared_bytes, name);
    };
    if (cut == arrangement::strips) {
        const index_t items = row_tiles * P::shape::strips;
        const int warps = few_rows_warps(items, extents_of(ctx));
        launch_persistent(ctx, &multiply_few<P>, p, ceil_div(items, index_t{warps}),
                          resident_blocks(few_rows_shape::shared_bytes, ctx.shared_bytes()), 32 * warps,
                          few_rows_shape::shared_bytes, name);
    } else if (cut == (P::listed ? arrangement::tiles_of_64x256 : arrangement::tiles_of_64x64))
        launch(std::conditional_t<P::listed, tiles_of_64, narrow_tiles>{});
    else if constexpr (P::sums)
        launch(tiles_of_128{});
    else if (products_agree<typename P::value_type>(ctx))
        launch_persistent(ctx, &multiply_by_warpgroups<P>, p,
                          row_tiles * ceil_div(P::shape::strips, int{warpgroup_shape::strips}), 1,
                          warpgroup_shape::threads, warpgroup_shape::shared_bytes, name);
    else
        launch(tiles_of_128{});
}

/// The same, cut as the call's list of tiles is. Without a list every projection is cut as suits it.
template <class P>
void run_projection(context<cuda>& ctx, P projection, const typename P::arguments& p, index_t row_tiles, int tile_rows,
                    const char* name) {
    if constexpr (P::listed) {
        const arrangement cut = tile_rows == few_rows_shape::rows ? arrangement::strips
                                : tile_rows == tiles_of_64::rows  ? arrangement::tiles_of_64x256
                                                                  : arrangement::tiles_of_128x256;
        run_arrangement(ctx, projection, p, row_tiles, cut, name);
    } else {
        const arrangement cut =
            arrangement_of({p.rows, 1, 1, P::shape::strips * 16, P::shape::padded}, extents_of(ctx));
        run_arrangement(ctx, projection, p, ceil_div(p.rows, extents_of(cut).rows), cut, name);
    }
}

/// x times the weight of its pair, rounded, in the order of the plan; zero up to a whole vector.
template <class T, int Width>
__global__ void __launch_bounds__(256)
    scale_rows(const grouped_product<T> p, const std::int32_t* __restrict__ count, T* __restrict__ out) {
    const index_t pitch = (Width + 15) / 16 * 16;
    for (index_t r = blockIdx.x; r < *count; r += gridDim.x) {
        const index_t pair = p.pairs[r];
        const T* from = p.in + pair / p.slots * p.in_stride;
        for (int h = static_cast<int>(threadIdx.x); h < pitch; h += 256)
            out[r * pitch + h] =
                from_accumulate<T>(h < Width ? gatefold::mul(to_accumulate(from[h]), p.factor[pair]) : 0.0f);
    }
}

/// Where a stage's intermediate rows lie, and where its result goes.
template <class T>
struct stage_output {
    T *activated, *out;
    index_t out_stride;
    bool is_y;                            ///< rows of `out` are the caller's and end where they end
    T* scaled = nullptr;                  ///< for rows that are scaled before
    const std::int32_t* count = nullptr;  ///< number of rows of the plan
};

/// The most tiles of rows of a grouped product over at most `pairs` rows of a plan, or exactly as many without one.
template <bool WithShared, class T>
index_t row_tiles_of(const grouped_product<T>& p, index_t pairs, int experts, int tile_rows) {
    return (p.tiles ? most_tiles(pairs, experts, tile_rows) : ceil_div(pairs, index_t{tile_rows})) +
           (WithShared ? ceil_div(p.rows, tile_rows) : 0);
}
/// The first projection to `activated`, rows of Ffn elements.
template <int Ffn, class Product, class T>
Product first_product(Product p, const expert_matrices<T>& w, const expert_matrices<T>& shared, T* activated) {
    p.weights = w.up;
    p.bias = w.up_bias;
    p.shared.weights = shared.up;
    p.shared.bias = shared.up_bias;
    p.out = activated;
    p.out_stride = row_pitch(Ffn);
    return p;
}
/// The second projection, of what the first one made.
template <class Product, class T>
Product second_product(Product p, const expert_matrices<T>& w, const expert_matrices<T>& shared, T* out,
                       index_t out_stride) {
    p.in = p.out;
    p.in_stride = p.out_stride;
    p.pairs = nullptr;
    p.pre = nullptr;
    p.weights = w.down;
    p.bias = w.down_bias;
    p.shared.in = p.in + p.shared.row * p.in_stride;
    p.shared.in_stride = p.in_stride;
    p.shared.pre = nullptr;
    p.shared.weights = shared.down;
    p.shared.bias = shared.down_bias;
    p.out = out;
    p.out_stride = out_stride;
    return p;
}

/// Both projections of a group of experts over at most `pairs` rows, and of the shared expert over tokens.rows more,
/// which are never the caller's. A summed_product adds the rows of the second one up instead of storing them.
template <class Kind, bool Packed, bool Factor, bool WithShared = false, class Product>
void run_experts(context<cuda>& ctx, const expert_matrices<typename Kind::value_type>& w, const Product& tokens,
                 index_t pairs, int experts, int tile_rows, const stage_output<typename Kind::value_type>& to,
                 const expert_matrices<typename Kind::value_type>& shared = {}) {
    using T = typename Kind::value_type;
    constexpr int W = Kind::width, F = Kind::ffn;
    constexpr bool bias = Kind::bias;
    constexpr auto none = activation::identity;
    const index_t row_tiles = row_tiles_of<WithShared>(tokens, pairs, experts, tile_rows);
    Product p = first_product<F>(tokens, w, shared, to.activated);
    if constexpr (Kind::matrix_cores) {
        if constexpr (Factor) {
            scale_rows<T, W>
                <<<static_cast<unsigned>(pairs < 2048 ? pairs : 2048), 256, 0, ctx.stream()>>>(p, to.count, to.scaled);
            check_launch("forward: scaled rows");
            p.in = to.scaled;
            p.in_stride = row_pitch(W);
            p.pairs = nullptr;
        }
        constexpr bool aligned = Factor || W % 8 == 0;
        using up = projection_of<T, F, W, true, Kind::act, bias, Packed, aligned, false, Kind::listed, WithShared>;
        run_projection(ctx, projection_for<Product, up>{}, p, row_tiles, tile_rows, "forward: first projection");
        const Product q = second_product(p, w, shared, to.out, to.out_stride);
        const auto run_down = [&]<bool Edge>() {
            using down = projection_of<T, W, F, false, none, bias, Packed, true, Edge, Kind::listed, WithShared>;
            run_projection(ctx, projection_for<Product, down>{}, q, row_tiles, tile_rows, "forward: second projection");
        };
        if constexpr (W % 16 != 0 && !WithShared && !Product::sums) {
            if (to.is_y) return run_down.template operator()<true>();
        }
        run_down.template operator()<false>();
    } else {
        constexpr int features = Kind::gated ? simt_columns / 2 : simt_columns;
        const auto tiles = static_cast<unsigned>(row_tiles);
        simt_experts<T, F, W, true, Kind::act, bias, Factor, WithShared, Product>
            <<<dim3(tiles, unsigned{ceil_div(F, features)}), 128, 0, ctx.stream()>>>(p);
        check_launch("forward: first projection");
        const Product q = second_product(p, w, shared, to.out, to.out_stride);
        simt_experts<T, W, F, false, none, bias, false, WithShared, Product>
            <<<dim3(tiles, unsigned{ceil_div(W, simt_columns)}), 128, 0, ctx.stream()>>>(q);
        check_launch("forward: second projection");
    }
}

/// Packs `experts` experts of one kind from the hub's layout.
template <class Kind>
void pack_experts(context<cuda>& ctx, const expert_matrices<typename Kind::value_type>& hub,
                  typename Kind::value_type* up, typename Kind::value_type* down, int experts) {
    using T = typename Kind::value_type;
    const auto blocks = [](index_t chunks) { return static_cast<unsigned>(ceil_div(chunks, index_t{256})); };
    if constexpr (Kind::matrix_cores) {
        const index_t up_chunks = experts * Kind::packed_up / 8, down_chunks = experts * Kind::packed_down / 8;
        pack_projection<T, Kind::gated, Kind::ffn, Kind::width>
            <<<blocks(up_chunks), 256, 0, ctx.stream()>>>(hub.up, up, up_chunks);
        check_launch("pack");
        pack_projection<T, false, Kind::width, Kind::ffn>
            <<<blocks(down_chunks), 256, 0, ctx.stream()>>>(hub.down, down, down_chunks);
        check_launch("pack");
    } else {
        const auto copy = [&](T* to, const T* from, index_t elements) {
            check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(elements) * sizeof(T), cudaMemcpyDeviceToDevice,
                                  ctx.stream()),
                  "pack");
        };
        copy(up, hub.up, experts * Kind::hub_up);
        copy(down, hub.down, experts * Kind::hub_down);
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cuda
