// The sweep over an expert for the matrix unit: order::portable of bf16 on tiles of 16 rows × 16 outputs.
//
//     rows       [tile of 16][32 k][row][32]  ─┐
//     panels     two streams [pair][16][2]    ─┴─ 1 tile × 4 streams (to 16 rows), 2 tiles × 2 streams ──> sums ──>
//     done
//
// A panel is the same bytes that the vector kernels read. To 32 rows the streams are read once, prefetched 2 KiB ahead.
// Beyond that the unit takes equal pieces of up to 256 k that stay in the first-level cache for all tiles, while the
// next piece is fetched page by page in turn; with rows beyond the second-level cache, a piece of the rows passes over
// 16 panels.
//
// To load other shapes takes longer than many products, so a sweep keeps to one configuration: beside others a shorter
// tile is multiplied as one of 16 rows, and what lies behind it, other rows or elements_behind, ends in sums that
// nobody reads.
#pragma once

#include <cstddef>

#include <gatefold/cpu/experts/sweep.hpp>
#include <gatefold/cpu/gemm/products_run.hpp>
#include <gatefold/cpu/simd/tiles.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Rows cut into tiles of 16; the last one may be shorter.
struct square_tiles {
    index_t rows, tiles;
    GATEFOLD_INLINE square_tiles(index_t n, int) : rows(n), tiles(ceil_div<index_t>(n, 16)) {}
    GATEFOLD_INLINE index_t begin(index_t t) const { return 16 * t < rows ? 16 * t : rows; }
};

/// order::portable of bf16 on a matrix unit.
template <class Unit>
struct tile_form {
    using sum_type = float;
    using row_type = bf16;
    using stream_type = bf16;
    using tiles_type = square_tiles;
    using unit_type = Unit;
    static constexpr int step = 2, padding = 32, block = 16, max_rows = 16;
    static constexpr bool flushes = false, by_tiles = true;
};

/// Rows as the unit reads them: to[block of 32 k][row][32].
template <class Reader>
GATEFOLD_NOINLINE void stack_rows(bf16* to, int height, const Reader* readers, index_t steps) {
    for (index_t s = 0; s < steps; s += words)
        for (int i = 0; i < height; ++i) {
            const vec<float> x = readers[i](s);
            std::memcpy(to + 2 * (s / 16 * 16 * height + 16 * i + s % 16), &x.raw, sizeof x.raw);
        }
}

template <class Unit>
struct sweep_blocks<tile_form<Unit>> : unit_blocks {};

/// What is fetched while the unit multiplies: `lines` cache lines per 32 k, from `line` on, of two blocks `apart` bytes
/// apart and two `quarter` lines long; four places in turn, 4 KiB apart in the largest pieces, so that the hardware's
/// own prefetch has several pages to follow.
struct page_lookahead {
    const char* next;
    index_t apart, quarter, line;
    int lines;

    GATEFOLD_INLINE const char* at(index_t i) const {
        return next + (i & 1) * apart + ((i >> 1 & 1) * quarter + (i >> 2)) * 64;
    }
    GATEFOLD_INLINE void fetch() {
        for (int i = 0; i < lines; ++i, ++line) prefetch<false>(at(line));
    }
};

/// Adds one tile of rows × NV streams (2 or 4) to tiles 0 .. NV - 1. `distance`: bytes ahead in the streams.
template <int NV, class Unit>
GATEFOLD_INLINE void add_tile(Unit& unit, index_t steps, const bf16* a, int height, const bf16* b, index_t stream,
                              index_t distance, page_lookahead ahead) {
    for (index_t k = 0; k < steps; k += 16) {
        unit.template load<4>(a, 64);
        unit.template load<5>(b, 64);
        unit.template multiply<0, 4, 5>();
        unit.template load<6>(b + stream, 64);
        unit.template multiply<1, 4, 6>();
        if constexpr (NV == 4) {
            unit.template load<7>(b + 2 * stream, 64);
            unit.template multiply<2, 4, 7>();
            unit.template load<5>(b + 3 * stream, 64);
            unit.template multiply<3, 4, 5>();
        }
        if (distance != 0)
            for (int j = 0; j < NV; ++j)
                for (int line = 0; line < 16; ++line)
                    prefetch<false>(reinterpret_cast<const char*>(b + j * stream) + distance + 64 * line);
        ahead.fetch();
        a += 32 * height;
        b += 512;
    }
}

/// One tile of rows × NV streams, sums in memory.
template <int NV, class Unit>
GATEFOLD_INLINE void multiply_tile(Unit& unit, index_t steps, const bf16* a, int height, const bf16* b, index_t stream,
                                   float* c, index_t row, bool fresh, index_t distance, page_lookahead ahead) {
    const index_t bytes = row * static_cast<index_t>(sizeof(float));
    if (fresh) {
        unit.template zero<0>();
        unit.template zero<1>();
        if constexpr (NV == 4) unit.template zero<2>(), unit.template zero<3>();
    } else {
        unit.template load<0>(c, bytes);
        unit.template load<1>(c + 16, bytes);
        if constexpr (NV == 4) unit.template load<2>(c + 32, bytes), unit.template load<3>(c + 48, bytes);
    }
    add_tile<NV>(unit, steps, a, height, b, stream, distance, ahead);
    unit.template store<0>(c, bytes);
    unit.template store<1>(c + 16, bytes);
    if constexpr (NV == 4) unit.template store<2>(c + 32, bytes), unit.template store<3>(c + 48, bytes);
}

/// Adds two tiles of rows × two streams to tiles 0 .. 3; in memory the first tile has 16 rows, the second `height`.
template <class Unit>
GATEFOLD_INLINE void add_two_tiles(Unit& unit, index_t steps, const bf16* a0, const bf16* a1, int height, const bf16* b,
                                   index_t stream, index_t distance, page_lookahead ahead) {
    for (index_t k = 0; k < steps; k += 16) {
        if (distance != 0)
            for (int j = 0; j < 2; ++j)
                for (int line = 0; line < 16; ++line)
                    prefetch<false>(reinterpret_cast<const char*>(b + j * stream) + distance + 64 * line);
        unit.template load<6>(b, 64);
        unit.template load<4>(a0, 64);
        unit.template multiply<0, 4, 6>();
        unit.template load<7>(b + stream, 64);
        unit.template multiply<1, 4, 7>();
        unit.template load<5>(a1, 64);
        unit.template multiply<2, 5, 6>();
        unit.template multiply<3, 5, 7>();
        ahead.fetch();
        a0 += 512;
        a1 += 32 * height;
        b += 512;
    }
}

/// The same, sums in memory.
template <class Unit>
GATEFOLD_INLINE void multiply_two_tiles(Unit& unit, index_t steps, const bf16* a0, const bf16* a1, int height,
                                        const bf16* b, index_t stream, float* c, index_t row, bool fresh,
                                        index_t distance, page_lookahead ahead) {
    const index_t bytes = row * static_cast<index_t>(sizeof(float));
    float* d = c + 16 * row;
    if (fresh) {
        unit.template zero<0>();
        unit.template zero<1>();
        unit.template zero<2>();
        unit.template zero<3>();
    } else {
        unit.template load<0>(c, bytes);
        unit.template load<1>(c + 16, bytes);
        unit.template load<2>(d, bytes);
        unit.template load<3>(d + 16, bytes);
    }
    add_two_tiles(unit, steps, a0, a1, height, b, stream, distance, ahead);
    unit.template store<0>(c, bytes);
    unit.template store<1>(c + 16, bytes);
    unit.template store<2>(d, bytes);
    unit.template store<3>(d + 16, bytes);
}

/// The sweep of cpu/experts/sweep.hpp on a matrix unit.
template <class Unit, class Done>
GATEFOLD_NOINLINE void sweep_tiles(Unit& unit, const square_tiles& tiles, const bf16* rows, index_t all_steps,
                                   const panel_source<bf16>& source, index_t p0, index_t p1, std::byte* scratch,
                                   const Done& done) {
    using blocks = sweep_blocks<tile_form<Unit>>;
    constexpr index_t step_elements = 32;
    bf16* here = reinterpret_cast<bf16*>(scratch);
    float* sums = reinterpret_cast<float*>(scratch + blocks::hub_bytes);
    const auto pack = [&](index_t p, int panels, index_t s0, index_t steps) {
        for (int j = 0; j < 2 * panels; ++j)
            source.rows.template pack<2, 16>(here + j * steps * step_elements, p + j / 2, j % 2, s0, steps);
    };
    // In hub layout the rows of a panel, or of two, are two contiguous blocks: as much of the next ones as is
    // multiplied.
    const auto next_rows = [&](index_t p, int panels, index_t s0, index_t steps, int lines) {
        const panel_rows<bf16>& from = source.rows;
        const bf16* next = p < p1 ? from.template row<16>(p, 0) : source.then;
        const index_t apart = (from.apart == 0 ? 16 * panels : from.apart) * from.columns;
        return page_lookahead{reinterpret_cast<const char*>(next + panels * s0 * step_elements), apart * 2,
                              panels * steps / 2, 0, lines};
    };

    for (index_t t0 = 0; t0 < tiles.tiles; t0 += blocks::tiles) {
        const index_t t1 = t0 + blocks::tiles < tiles.tiles ? t0 + blocks::tiles : tiles.tiles, count = t1 - t0;
        const index_t r0 = tiles.begin(t0), n = tiles.begin(t1) - r0;
        const int last = static_cast<int>(tiles.begin(t1) - tiles.begin(t1 - 1));

        if (count == 1) {
            unit.configure({last, last, last, last, last, 16, 16, 16});
            for (index_t p = p0; p < p1;) {
                const int panels = p + 2 <= p1 ? 2 : 1;
                const index_t row = 32 * panels, depth = source.packed ? all_steps : blocks::piece;
                for (index_t s0 = 0; s0 < all_steps; s0 += depth) {
                    const index_t steps = all_steps - s0 < depth ? all_steps - s0 : depth;
                    const bf16* a = rows + 2 * (r0 * all_steps + s0 * last);
                    const bf16* b = here;
                    index_t stream = steps * step_elements;
                    page_lookahead ahead{nullptr, 0, 0, 0, 0};
                    if (source.packed) {
                        stream = source.stream;
                        b = source.packed + 2 * p * stream + s0 * step_elements;
                    } else {
                        pack(p, panels, s0, steps);
                        ahead = next_rows(p + panels, panels, s0, steps, 32 * panels);
                    }
                    const index_t distance = source.packed ? 2048 : 0;
                    if (panels == 2)
                        multiply_tile<4>(unit, steps, a, last, b, stream, sums, row, s0 == 0, distance, ahead);
                    else
                        multiply_tile<2>(unit, steps, a, last, b, stream, sums, row, s0 == 0, distance, ahead);
                }
                for (int q = 0; q < panels; ++q) done(p + q, r0, last, sums + 32 * q, row);
                p += panels;
            }
            unit.release();
            continue;
        }

        const index_t passes = (count + 1) / 2, all_blocks = all_steps / 16;
        const bool once = count == 2 && source.packed;
        const int pieces = once ? 1 : static_cast<int>(ceil_div(all_steps, blocks::piece));
        const index_t longest = 16 * ceil_div(all_blocks, index_t{pieces});
        const index_t group = source.packed && !once && n * all_steps * 4 > blocks::rows_in_cache ? blocks::group : 1;
        const index_t sums_of_panel = 16 * count * 32;
        unit.configure({16, 16, 16, 16, 16, 16, 16, 16});
        for (index_t q0 = p0; q0 < p1; q0 += group) {
            const index_t q1 = q0 + group < p1 ? q0 + group : p1;
            for (int i = 0; i < pieces; ++i) {
                const index_t s0 = 16 * share(all_blocks, i, pieces), s1 = 16 * share(all_blocks, i + 1, pieces);
                const index_t steps = s1 - s0;
                for (index_t p = q0; p < q1; ++p) {
                    const bf16* b = here;
                    index_t stream = steps * step_elements;
                    page_lookahead piece{nullptr, 0, 0, 0, 0};
                    if (source.packed) {
                        stream = source.stream;
                        b = source.packed + 2 * p * stream + s0 * step_elements;
                        // The same piece of the next panel of the group, then the next piece of the first one.
                        const bf16* next = p + 1 < q1       ? b + 2 * stream
                                           : s1 < all_steps ? source.packed + 2 * q0 * stream + s1 * step_elements
                                           : q1 < p1        ? source.packed + 2 * q1 * stream
                                                            : source.then;
                        const auto lines = static_cast<int>(ceil_div(2 * longest, passes * (steps / 16)));
                        if (!once) piece = {reinterpret_cast<const char*>(next), 2 * stream, longest / 2, 0, lines};
                    } else {
                        pack(p, 1, s0, steps);
                        piece = next_rows(p + 1, 1, s0, steps, static_cast<int>(ceil_div<index_t>(32, passes)));
                    }
                    for (index_t t = t0; t < t1; t += 2) {
                        const index_t r = tiles.begin(t);
                        float* c = sums + (p - q0) * sums_of_panel + (r - r0) * 32;
                        const bf16* a = rows + 2 * (r * all_steps + s0 * 16);
                        page_lookahead ahead = piece;
                        ahead.line = (t - t0) / 2 * piece.lines * (steps / 16);
                        if (t + 1 < t1) {
                            const index_t r1 = tiles.begin(t + 1);
                            const int height = static_cast<int>(tiles.begin(t + 2) - r1);
                            multiply_two_tiles(unit, steps, a, rows + 2 * (r1 * all_steps + s0 * height), height, b,
                                               stream, c, 32, s0 == 0, once ? 2048 : 0, ahead);
                        } else {
                            multiply_tile<2>(unit, steps, rows + 2 * (r * all_steps + s0 * last), last, b, stream, c,
                                             32, s0 == 0, 0, ahead);
                        }
                    }
                }
            }
            for (index_t p = q0; p < q1; ++p)
                for (index_t t = t0; t < t1; ++t) {
                    const index_t r = tiles.begin(t);
                    done(p, r, static_cast<int>(tiles.begin(t + 1) - r),
                         sums + (p - q0) * sums_of_panel + (r - r0) * 32, 32);
                }
        }
        unit.release();
    }
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
