// Packing experts without their blocks of zeros: which blocks are stored, as runs of neighbours, and the copy.
//
//     panel: [2 streams][stored step][W]     panels one after another, experts in memory of their own
//
// So however the blocks lie, a panel is read as two streams without gaps, which the hardware's prefetch can follow.
#pragma once

#include <cstring>
#include <utility>

#include <gatefold/cpu/experts/packed.hpp>
#include <gatefold/cpu/simd/number.hpp>
#include <gatefold/moe/sparse_form.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Blocks are 32 k deep. A run is multiplied by all rows in turn while it is in the second-level cache.
inline constexpr int sparse_depth = 32, sparse_run_blocks = 32;

/// Elements from the first to the second stream of the panel that consists of these runs.
GATEFOLD_INLINE index_t stream_of(const sparse_run* runs, index_t count, index_t step_elements) {
    return count == 0 ? 0 : runs[count - 1].offset + runs[count - 1].steps * step_elements - runs[0].offset;
}

/// The magnitudes among numbers, as bits: the least that is not zero, minus one, and the greatest.
template <class A>
struct magnitudes {
    using word = typename number<A>::bits_type;
    static constexpr word sign = word{1} << (8 * sizeof(A) - 1);
    word least = ~word{0}, most = 0;

    GATEFOLD_INLINE bool finite() const { return most < bits_as<word>(real_format<A>::infinity); }
    /// The biased exponent of the least one; that of subnormal numbers is the one of their last bit.
    GATEFOLD_INLINE std::int32_t exponent() const {
        if (least == ~word{0}) return 1 << 20;
        const auto biased = static_cast<std::int32_t>((least + 1) >> real_format<A>::fraction_bits);
        return biased > 1 ? biased : 1;
    }
};

/// Numbers of type T, or where Pairs, words of two bf16.
template <class A, bool Pairs = false, class T>
GATEFOLD_NOINLINE magnitudes<A> magnitudes_of(const T* p, index_t n) {
    using result = magnitudes<A>;
    using bits = unsigned_vec<typename result::word, lanes<A>>;
    bits least = ~bits{}, most = {};
    const auto take = [&](bits x) {
        const bits below = x - 1;  // zero becomes the largest
        least = below < least ? below : least;
        most = x > most ? x : most;
    };
    for (index_t i = 0; i < n; i += lanes<A>) {
        const auto x = reinterpret_cast<bits>(load_first<A>(p + i, n - i).raw);
        if constexpr (Pairs) {
            take((x << 16) & ~result::sign);
            take(x & (~result::sign & 0xffff0000u));
        } else {
            take(x & ~result::sign);
        }
    }
    result all;
    for (int i = 0; i < lanes<A>; ++i) {
        if (least[i] < all.least) all.least = least[i];
        if (most[i] > all.most) all.most = most[i];
    }
    return all;
}

/// Calls found(panel, step, steps) for every run of blocks that hold a bit, panels and steps ascending.
template <class E, class Found>
void find_runs(const panel_rows<typename E::value_type>& rows, index_t panels, index_t steps, const Found& found) {
    using T = typename E::value_type;
    constexpr index_t depth = sparse_depth / E::step;
    const auto is_zero = [&](index_t p, index_t step) {
        const index_t k = step * E::step, left = rows.columns - k;
        const auto bytes = static_cast<std::size_t>(left < sparse_depth ? left : sparse_depth) * sizeof(T);
        if (left <= 0) return true;
        for (int half = 0; half < 2; ++half) {
            const T* row = rows.template row<E::W>(p, half) + k;
            const index_t there = rows.end - p * rows.together - half * (rows.apart == 0 ? E::W : 0);
            for (index_t i = 0; i < (there < E::W ? there : E::W); ++i, row += rows.columns) {
                const char* byte = reinterpret_cast<const char*>(row);
                char any = 0;
                for (std::size_t b = 0; b < bytes; ++b) any = static_cast<char>(any | byte[b]);
                if (any != 0) return false;
            }
        }
        return true;
    };
    for (index_t p = 0; p < panels; ++p) {
        index_t begin = 0, end = 0;
        for (index_t step = 0; step < steps; step += depth) {
            const bool zero = is_zero(p, step);
            if (end > begin && (zero || end - begin == sparse_run_blocks * depth)) {
                found(p, begin, end - begin);
                begin = end;
            }
            if (zero) continue;
            if (end == begin) begin = step;
            end = step + depth < steps ? step + depth : steps;
        }
        if (end > begin) found(p, begin, end - begin);
    }
}

/// One expert on its way into a sparse layer.
template <class E>
struct sparse_expert {
    using T = typename E::value_type;
    using A = typename E::sum_type;
    const T *up, *down;

    panel_rows<T> rows(int projection) const {
        if (projection == 1) return {down, E::ffn, 2 * E::W, 0, E::width};
        return E::gated ? panel_rows<T>{up, E::width, E::W, E::ffn, E::ffn}
                        : panel_rows<T>{up, E::width, 2 * E::W, 0, E::ffn};
    }
    static constexpr index_t panels(int projection) { return projection == 0 ? E::up_panels : E::down_panels; }
    static constexpr index_t steps(int projection) { return projection == 0 ? E::up_steps : E::down_steps; }

    /// Fills in what is known without memory for it, and returns the number of runs.
    index_t examine(int projection, sparse_matrix& m) const {
        index_t runs = 0, elements = 0;
        find_runs<E>(rows(projection), panels(projection), steps(projection), [&](index_t, index_t, index_t n) {
            ++runs;
            elements += 2 * n * E::step * E::W;
        });
        const auto sizes = projection == 0 ? magnitudes_of<A>(up, index_t{E::up_rows} * E::width)
                                           : magnitudes_of<A>(down, index_t{E::width} * E::ffn);
        m.stored = elements;
        m.exponent = sizes.exponent();
        m.finite = sizes.finite();
        return runs;
    }
    /// Copies the blocks. `run` is the number of the matrix's first run.
    void pack(int projection, const sparse_matrix& m, index_t run, sparse_run* runs, index_t* first,
              T* matrices) const {
        constexpr index_t step_elements = E::step * E::W;
        const panel_rows<T> from = rows(projection);
        const index_t count = panels(projection);
        index_t panel = -1, offset = m.begin;
        const auto open = [&](index_t p) {
            for (; panel < p; first[++panel] = run)
                if (panel >= 0) offset += stream_of(runs + first[panel], run - first[panel], step_elements);
        };
        find_runs<E>(from, count, steps(projection), [&](index_t p, index_t step, index_t n) {
            open(p);
            runs[run++] = {static_cast<std::int32_t>(step), static_cast<std::int32_t>(n), offset};
            offset += n * step_elements;
        });
        open(count - 1);
        for (index_t p = 0; p < count; ++p) {
            const index_t begin = first[p], end = p + 1 < count ? first[p + 1] : run;
            const index_t stream = stream_of(runs + begin, end - begin, step_elements);
            for (int half = 0; half < 2; ++half)
                for (index_t i = begin; i < end; ++i)
                    from.template pack<E::step, E::W>(matrices + runs[i].offset + half * stream, p, half, runs[i].step,
                                                      runs[i].steps);
        }
    }
};

/// What is known of an expert's blocks before there is memory for them.
struct sparse_extent {
    index_t runs[2] = {}, panels = 0, elements = 0;
};

/// Fills in the summary of an expert.
template <class E>
sparse_extent examine_expert(const sparse_expert<E>& from, sparse_matrix (&summary)[2]) {
    sparse_extent all;
    for (int j = 0; j < 2; ++j) {
        all.runs[j] = from.examine(j, summary[j]);
        summary[j].panel = all.panels;
        summary[j].begin = all.elements;
        all.panels += from.panels(j);
        all.elements += summary[j].stored;
    }
    return all;
}

/// Memory for what was found.
template <class T>
void allocate_blocks(sparse_blocks& to, const sparse_extent& all, const allocator& memory) {
    to.panels = buffer<index_t>(all.panels + 1, memory);
    to.runs = buffer<sparse_run>(all.runs[0] + all.runs[1], memory);
    to.matrices = buffer<std::byte>(all.elements * static_cast<index_t>(sizeof(T)), memory);
}

/// Copies the blocks of both projections.
template <class E>
void copy_blocks(const sparse_expert<E>& from, const sparse_extent& all, sparse_blocks& to) {
    for (int j = 0; j < 2; ++j)
        from.pack(j, to.summary[j], j == 0 ? 0 : all.runs[0], to.runs.data(), to.panels.data() + to.summary[j].panel,
                  reinterpret_cast<typename E::value_type*>(to.matrices.data()));
    to.panels.data()[all.panels] = all.runs[0] + all.runs[1];
}

/// One expert by itself; `to` is replaced when everything is done.
template <class E>
void pack_sparse_expert(context<cpu>& ctx, sparse_blocks& to, const sparse_expert<E>& from) {
    sparse_blocks fresh;
    const sparse_extent all = examine_expert(from, fresh.summary);
    allocate_blocks<typename E::value_type>(fresh, all, ctx.memory());
    copy_blocks(from, all, fresh);
    to = std::move(fresh);
}

/// An expert whose matrices are zero.
template <class E>
void clear_sparse_expert(context<cpu>& ctx, sparse_blocks& to) {
    sparse_extent all;
    for (int j = 0; j < 2; ++j) {
        to.summary[j] = {all.panels, 0, 0, magnitudes<typename E::sum_type>{}.exponent(), true};
        all.panels += sparse_expert<E>::panels(j);
    }
    allocate_blocks<typename E::value_type>(to, all, ctx.memory());
    for (index_t i = 0; i <= all.panels; ++i) to.panels.data()[i] = 0;
}

/// Calls f(expert) for a routed or the shared expert.
template <layer_type L, class W, class F>
void with_sparse_expert(const W& w, int e, const F& f) {
    const index_t up = index_t{L::gate_up_rows} * L::width, down = index_t{L::width} * L::ffn;
    if (e < L::local_experts)
        f(sparse_expert<routed_expert<L>>{gate_up_of(w) + e * up, w.down.data() + e * down});
    else if constexpr (L::shared_ffn > 0)
        f(sparse_expert<shared_expert<L>>{w.shared_gate_up.data(), w.shared_down.data()});
}

/// Threads share the experts: first they find out what is stored, then they copy it.
template <layer_type L, class W>
void pack_sparse_layer(context<cpu>& ctx, sparse<L>& s, const W& w) {
    const int experts = static_cast<int>(s.experts.size());
    buffer<sparse_extent> extents(experts, ctx.memory());
    ctx.parallel(experts, [&](int e) {
        with_sparse_expert<L>(w, e, [&](const auto& one) {
            extents.data()[e] = examine_expert(one, s.experts[static_cast<std::size_t>(e)].summary);
        });
    });
    for (int e = 0; e < experts; ++e)
        allocate_blocks<typename L::value_type>(s.experts[static_cast<std::size_t>(e)], extents.data()[e],
                                                ctx.memory());
    ctx.parallel(experts, [&](int e) {
        with_sparse_expert<L>(w, e, [&](const auto& one) {
            copy_blocks(one, extents.data()[e], s.experts[static_cast<std::size_t>(e)]);
        });
    });
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
