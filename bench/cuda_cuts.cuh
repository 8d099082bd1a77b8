// The wave model against every way of cutting the products, for one configuration.
//
//     cuts        products of the experts, by the kernels of layers with a list of tiles
//     dense_cuts  those of the dense layer that costs a token as much
//
// Counters: microseconds of both projections in every cut as measured and as the model has them, the sum of those that
// the library takes over the sum of the best less one (`regret`), the same by the model's own times (`model_regret`).
#pragma once

#include "cuda_stages.cuh"

namespace bench {

template <layer_type L>
class device_cuts : device_stages<L> {
    using base = device_stages<L>;
    using typename base::state;
    using typename base::T;
    using cut_type = kernels::arrangement;
    static constexpr bool listed = !L::is_dense;
    static constexpr int W = L::width, F = L::ffn;
    static constexpr auto& cuts = listed ? kernels::listed_arrangements : kernels::single_arrangements;
    static constexpr int cut_count = 3, projections = 2;
    using up = kernels::projection_of<T, F, W, true, L::c.act, L::c.bias, true, W % 8 == 0, false, listed>;
    using down = kernels::projection_of<T, W, F, false, activation::identity, L::c.bias, true, true, false, listed>;
    /// By projection and cut, microseconds.
    using times = double[projections][cut_count];

    static const char* name_of(cut_type a) {
        switch (a) {
            case cut_type::strips:
                return "strips";
            case cut_type::tiles_of_64x64:
                return "64x64";
            case cut_type::tiles_of_64x256:
                return "64x256";
            default:
                return "128x256";
        }
    }
    static kernels::product_extents extents(int projection, index_t tokens) {
        using first = typename up::shape;
        using second = typename down::shape;
        return projection == 0 ? kernels::product_extents{tokens, L::slots, L::experts, first::strips * 16, W}
                               : kernels::product_extents{tokens, L::slots, L::experts, second::strips * 16, F};
    }
    /// What the library takes; a list of tiles serves both projections.
    static cut_type taken(int projection, index_t tokens) {
        if constexpr (!listed) return kernels::arrangement_of(extents(projection, tokens), kernels::extents_of(gpu()));
        const int rows = kernels::tile_rows_for<T>(gpu(), tokens * L::slots, L::experts);
        return rows == 8 ? cut_type::strips : rows == 64 ? cut_type::tiles_of_64x256 : cut_type::tiles_of_128x256;
    }
    static double regret(const times& t, index_t tokens) {
        double mine = 0, best_of_each = 0, best_of_both = 0;
        for (int p = 0; p < projections; ++p) {
            for (int c = 0; c < cut_count; ++c)
                if (cuts[c] == taken(p, tokens)) mine += t[p][c];
            best_of_each += *std::min_element(t[p], t[p] + cut_count);
        }
        for (int c = 0; c < cut_count; ++c)
            best_of_both = c == 0 ? t[0][c] + t[1][c] : (std::min)(best_of_both, t[0][c] + t[1][c]);
        return mine / (listed ? best_of_both : best_of_each) - 1;
    }

    /// Memory of the sweep and what it enqueues.
    struct sweep {
        device_inputs<L>& in;
        device_layers<L>& layers;
        device_tensor<T, dyn> activated, returned;
        device_tensor<std::int32_t, dyn> tiles[cut_count], tile_counts;
        index_t most[cut_count];

        sweep(device_inputs<L>& inputs, device_layers<L>& copies)
            : in(inputs),
              layers(copies),
              activated(make_tensor<T, dyn>(gpu(), inputs.tokens * L::slots * kernels::row_pitch(F))),
              returned(make_tensor<T, dyn>(gpu(), inputs.tokens * L::slots * kernels::row_pitch(W))),
              tile_counts(make_tensor<std::int32_t, dyn>(gpu(), cut_count * inputs.batches)) {
            fill_on_device(activated.data(), activated.size(), 1, 2000000);
            for (int c = 0; c < cut_count; ++c) {
                const int rows = kernels::extents_of(cuts[c]).rows;
                const index_t pairs = in.tokens * L::slots;
                most[c] = listed ? kernels::most_tiles(pairs, L::experts, rows) : ceil_div(pairs, index_t{rows});
                if constexpr (listed) {
                    tiles[c] = make_tensor<std::int32_t, dyn>(gpu(), in.batches * most[c] * 4);
                    for (int b = 0; b < in.batches; ++b) {
                        kernels::plan_output to{};
                        to.offsets = in.plan_of(b).offsets.data();
                        to.tiles = reinterpret_cast<kernels::tile*>(tiles[c].data()) + b * most[c];
                        to.tile_count = tile_counts.data() + c * in.batches + b;
                        to.tile_rows = rows;
                        kernels::list_tiles_of<L::choices>
                            <<<1, kernels::plan_threads, 0, gpu().stream()>>>(int{L::experts}, to);
                        kernels::check_kernel("cuts: tiles");
                    }
                }
            }
            gpu().synchronize();
        }
        void enqueue(int projection, int c, index_t call) {
            const auto matrices = kernels::routed_matrices(
                layers.all[static_cast<std::size_t>(call % static_cast<index_t>(layers.all.size()))]);
            kernels::grouped_product<T> p;
            p.in = in.x_of(call).data();
            p.in_stride = L::hidden;
            p.limit = static_cast<typename L::accumulate_type>(L::c.limit);
            if constexpr (listed) {
                p.tiles = reinterpret_cast<const kernels::tile*>(tiles[c].data()) + in.batch_number(call) * most[c];
                p.tile_count = tile_counts.data() + c * in.batches + in.batch_number(call);
                p.pairs = in.plan_of(call).rows.data();
                p.slots = L::slots;
            } else {
                p.rows = static_cast<int>(in.tokens);
            }
            const auto first = kernels::first_product<F>(p, matrices, {}, activated.data());
            if (projection == 0)
                kernels::run_arrangement(gpu(), up{}, first, most[c], cuts[c], "cuts");
            else
                kernels::run_arrangement(
                    gpu(), down{}, kernels::second_product(first, matrices, {}, returned.data(), kernels::row_pitch(W)),
                    most[c], cuts[c], "cuts");
        }
    };

    static void report_times(state& s, const times& t, const char* prefix) {
        for (int p = 0; p < projections; ++p)
            for (int c = 0; c < cut_count; ++c)
                s.counters[prefix + std::string(p == 0 ? "up_" : "down_") + name_of(cuts[c]) + "_us"] = t[p][c];
    }

public:
    static void run(state& s, index_t tokens) {
        device_inputs<L>* in = base::inputs_of(s, tokens);
        if (!in) return;
        // The second projection reads a third of a gated expert.
        const int count = base::cold(base::least_visited(*in) * base::each_expert / 3);
        device_layers<L>* w = base::layers_of(s, count);
        if (!w) return;
        sweep all(*in, *w);
        times took = {}, expected = {};
        for (int p = 0; p < projections; ++p)
            for (int c = 0; c < cut_count; ++c)
                expected[p][c] = 1e-3 * kernels::time_of(cuts[c], extents(p, tokens), gpu().multiprocessors());
        report_times(s, expected, "model_");
        s.counters["model_regret"] = regret(expected, tokens);
        const auto each_cut = [&](auto&& visit) {
            for (int p = 0; p < projections; ++p)
                for (int c = 0; c < cut_count; ++c) visit(p, c);
        };
        if (counts_only()) {
            for (auto _ : s) {
                each_cut([&](int p, int c) { all.enqueue(p, c, 0); });
                gpu().synchronize();
                s.SetIterationTime(1);
            }
            s.SetLabel("not timed");
            return;
        }
        each_cut([&](int p, int c) { all.enqueue(p, c, 0); });  // whatever a first call does, not under capture
        gpu().synchronize();
        stream_timer timer;
        while (s.KeepRunningBatch(1)) {
            double together = 0;
            each_cut([&](int p, int c) {
                recorded graph([&] {
                    for (int call = 0; call < count; ++call) all.enqueue(p, c, call);
                });
                for (int replay = 0; replay < 4; ++replay) {
                    timer.start();
                    graph.replay();
                    const double seconds = timer.seconds();
                    together += seconds;
                    const double once = 1e6 * seconds / count;
                    took[p][c] = took[p][c] > 0 ? (std::min)(took[p][c], once) : once;
                }
            });
            s.SetIterationTime(together);
        }
        report_times(s, took, "");
        s.counters["regret"] = regret(took, tokens);
    }
};

}  // namespace bench
