// Every stage of a layer on a CUDA device as a benchmark, for one configuration.
//
//     router plan radix_sort_plan thrust_sort_plan experts combine layer_forward dense_ffn
//
// Names are stage/model/type/tokens:N. Weights are packed; copies of them take turns such that more than twice the
// second-level cache is read between two uses.
#pragma once

#include <algorithm>
#include <cmath>

#include <gatefold/cuda/plan_by.cuh>

#include "cuda_measure.cuh"
#include "shapes.hpp"

namespace bench {

namespace kernels = gatefold::detail::on_cuda;

/// Numbers uniform around 0; the value of an element depends on the stream and its place.
template <class T>
__global__ void __launch_bounds__(256) fill_uniform(T* to, std::int64_t n, float size, std::uint32_t start) {
    for (std::int64_t i = std::int64_t{blockIdx.x} * 256 + threadIdx.x; i < n; i += std::int64_t{gridDim.x} * 256) {
        std::uint32_t x = static_cast<std::uint32_t>(i) * 0x9e3779b1u + start;
        x = (x ^ x >> 16) * 0x7feb352du;
        x = (x ^ x >> 15) * 0x846ca68bu;
        x ^= x >> 16;
        to[i] =
            from_accumulate<T>(static_cast<accumulate_t<T>>(static_cast<float>(static_cast<std::int32_t>(x)) * size));
    }
}
template <class T>
void fill_on_device(T* to, index_t n, double deviation, std::uint32_t stream) {
    if (n == 0) return;
    const auto blocks = static_cast<unsigned>((std::min)(index_t{4096}, ceil_div(n, index_t{256})));
    fill_uniform<T><<<blocks, 256, 0, gpu().stream()>>>(to, n, static_cast<float>(std::sqrt(3.0) * deviation * 0x1p-31),
                                                        stream * 0x85ebca6bu);
    detail::check(cudaGetLastError(), "fill");
}
template <class Set>
void fill_parameters_on_device(Set& set) {
    std::uint32_t stream = 0;
    for_each_parameter(
        [&](const char*, auto& slot) {
            using slot_type = std::remove_reference_t<decltype(slot)>;
            const auto columns = static_cast<double>(slot.extent(slot_type::rank - 1));
            fill_on_device(slot.data(), slot.size(), 1 / std::sqrt(columns), stream++);
        },
        set);
}

/// Equal packed layers.
template <layer_type L>
struct device_layers {
    std::vector<packed<L, cuda>> all;

    void want(int count) {
        if (static_cast<int>(all.size()) >= count) return;
        auto w = make_weights<L>(gpu());
        fill_parameters_on_device(w);
        while (static_cast<int>(all.size()) < count) all.push_back(pack(gpu(), w));
        gpu().synchronize();
    }
};

/// The tiles of a plan, the experts with most of them first, as the library's plan lists them.
inline std::vector<kernels::tile> tiles_of(const std::vector<std::int32_t>& offsets, int tile_rows) {
    std::vector<std::pair<int, int>> order;  // class, expert
    for (int e = 0; e + 1 < static_cast<int>(offsets.size()); ++e) {
        const int rows = offsets[static_cast<std::size_t>(e) + 1] - offsets[static_cast<std::size_t>(e)];
        order.emplace_back(-kernels::weight_class(ceil_div(rows, tile_rows)), e);
    }
    std::sort(order.begin(), order.end());
    std::vector<kernels::tile> tiles;
    for (const auto& [unused, e] : order) {
        const std::int32_t end = offsets[static_cast<std::size_t>(e) + 1];
        for (std::int32_t row = offsets[static_cast<std::size_t>(e)]; row < end; row += tile_rows)
            tiles.push_back({e, row, (std::min)(tile_rows, end - row), 0});
    }
    return tiles;
}

/// Batches of tokens with their routing and plans.
template <layer_type L>
struct device_inputs {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    static constexpr int S = L::slots, N = L::choices;

    index_t tokens = 0, pitch = 0;  ///< rows of a batch, and from one batch to the next: all views are aligned
    int batches = 0, tile_rows = 0;
    index_t most_tiles = 0;
    std::vector<double> visited;  ///< distinct experts of each batch
    device_tensor<T, dyn, L::hidden> x;
    device_tensor<std::int32_t, dyn, S> ids;
    device_tensor<A, dyn, S> weights;
    device_tensor<std::int32_t, dyn> offsets, rows, place, tiles, tile_counts;  ///< one batch after another

    int batch_number(index_t call) const { return static_cast<int>(call % batches); }
    double experts_of(index_t call) const { return visited[static_cast<std::size_t>(batch_number(call))]; }
    index_t row_of(index_t call) const { return batch_number(call) * pitch; }
    static constexpr index_t offsets_pitch = round_up(index_t{N + 1}, index_t{4});
    device_view<const T, dyn, L::hidden> x_of(index_t call) const { return x.view().slice(row_of(call), tokens); }
    device_view<const std::int32_t, dyn, S> ids_of(index_t call) const {
        return ids.view().slice(row_of(call), tokens);
    }
    plan_view<cuda> plan_of(index_t call) {
        const index_t pairs = tokens * S, b = batch_number(call);
        return {{offsets.data() + b * offsets_pitch, {N + 1}},
                {rows.data() + b * pitch * S, {pairs}},
                {place.data() + b * pitch * S, {pairs}},
                tokens,
                S};
    }
    const kernels::tile* tiles_at(index_t call) const {
        return reinterpret_cast<const kernels::tile*>(tiles.data()) + batch_number(call) * most_tiles;
    }
};

template <layer_type L>
device_inputs<L> make_device_inputs(index_t tokens, const packed<L, cuda>& w) {
    device_inputs<L> in;
    in.tokens = tokens;
    in.batches = counts_only() ? 1 : tokens <= 64 ? 16 : tokens <= 1024 ? 4 : 2;
    in.pitch = round_up(tokens, index_t{4});
    in.x = make_tensor<typename L::value_type, dyn, L::hidden>(gpu(), in.batches * in.pitch);
    fill_on_device(in.x.data(), in.x.size(), 1, 1000000);
    if constexpr (L::is_dense) {
        in.visited.assign(static_cast<std::size_t>(in.batches), 1);
    } else {
        constexpr int S = L::slots, N = L::choices;
        const index_t all = in.batches * in.pitch;
        in.ids = make_tensor<std::int32_t, dyn, S>(gpu(), all);
        in.weights = make_tensor<typename L::accumulate_type, dyn, S>(gpu(), all);
        in.offsets = make_tensor<std::int32_t, dyn>(gpu(), in.batches * device_inputs<L>::offsets_pitch);
        in.rows = make_tensor<std::int32_t, dyn>(gpu(), all * S);
        in.place = make_tensor<std::int32_t, dyn>(gpu(), all * S);
        in.tile_rows = kernels::tile_rows_for<typename L::value_type>(gpu(), tokens * S, L::experts);
        in.most_tiles = kernels::most_tiles(tokens * S, L::experts, in.tile_rows);
        in.tiles = make_tensor<std::int32_t, dyn>(gpu(), in.batches * in.most_tiles * 4);
        in.tile_counts = make_tensor<std::int32_t, dyn>(gpu(), in.batches);
        auto logits = make_tensor<typename L::accumulate_type, dyn, N>(gpu(), tokens);
        for (int b = 0; b < in.batches; ++b) {
            route(gpu(), w, {.x = in.x_of(b)},
                  {in.ids.view().slice(in.row_of(b), tokens), in.weights.view().slice(in.row_of(b), tokens),
                   logits.view()});
            const plan_view<cuda> plan = in.plan_of(b);
            make_plan<L>(gpu(), in.ids_of(b), plan);
            std::vector<std::int32_t> offsets(std::size_t{N + 1});
            copy(gpu(), view<std::int32_t, dyn>(offsets.data(), {N + 1}), plan.offsets);
            double visited = 0;
            for (std::size_t e = 0; e < std::size_t{N}; ++e) visited += offsets[e + 1] > offsets[e] ? 1 : 0;
            in.visited.push_back(visited);
            const auto tiles = tiles_of(offsets, in.tile_rows);
            const auto count = static_cast<std::int32_t>(tiles.size());
            detail::check(cudaMemcpy(in.tiles.data() + b * in.most_tiles * 4, tiles.data(),
                                     tiles.size() * sizeof(kernels::tile), cudaMemcpyHostToDevice),
                          "tiles");
            detail::check(cudaMemcpy(in.tile_counts.data() + b, &count, sizeof count, cudaMemcpyHostToDevice), "tiles");
        }
    }
    return in;
}

template <layer_type L>
class device_stages {
protected:
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    using state = benchmark::State;
    static constexpr int S = L::slots, N = L::choices, H = L::hidden;
    static constexpr double size = sizeof(T), sum_size = sizeof(A), id_size = sizeof(std::int32_t);
    static constexpr auto layer_bytes = static_cast<double>(L::parameters) * size;
    static constexpr double each_expert = static_cast<double>(expert_parameters(L::c)) * size;

    static std::string model_, type_;

    static std::string layer_name() { return model_ + type_ + std::to_string(L::is_dense); }
    static device_layers<L>* layers_of(state& s, int count) {
        auto& kept = layers().keep<device_layers<L>>(layer_name(), [] { return device_layers<L>{}; });
        const double missing = count - static_cast<double>(kept.all.size());
        if (missing > 0 && lacks_device_memory(s, (missing + 1) * layer_bytes)) return nullptr;
        kept.want(count);
        return &kept;
    }
    static device_inputs<L>* inputs_of(state& s, index_t tokens) {
        device_layers<L>* w = layers_of(s, 1);
        if (!w) return nullptr;
        return &inputs_drawer().keep<device_inputs<L>>(layer_name() + "/" + std::to_string(tokens),
                                                       [&] { return make_device_inputs<L>(tokens, w->all[0]); });
    }
    /// How many things of that size exceed the cache twice.
    static int cold(double bytes) {
        if (counts_only()) return 1;
        return (std::max)(2, static_cast<int>(std::ceil(2 * device_cache() / bytes)));
    }
    static work work_of(index_t tokens, double flops, double bytes, double expert_bytes = 0) {
        return {flops, bytes, expert_bytes, static_cast<double>(tokens), sizeof(T) == 2 ? unit::bf16 : unit::f32};
    }
    static work forward_work(index_t tokens) {
        using R = typename L::router_type;
        return work_of(tokens, static_cast<double>(tokens) * static_cast<double>(L::flops),
                       static_cast<double>(minimum_bytes(L::c, tokens, 0, sizeof(T), sizeof(R))), each_expert);
    }
    static auto visits(const device_inputs<L>& in) {
        return [&in](index_t call) { return in.experts_of(call); };
    }
    static double least_visited(const device_inputs<L>& in) {
        return *std::min_element(in.visited.begin(), in.visited.end());
    }

public:
    static void router(state& s, index_t tokens) {
        device_inputs<L>* in = inputs_of(s, tokens);
        if (!in) return;
        const double bytes = static_cast<double>(router_parameters(L::c)) * sizeof(typename L::router_type);
        const int count = (std::min)(cold(bytes), 256);
        std::vector<packed<L, cuda>> routers(static_cast<std::size_t>(count));
        for (packed<L, cuda>& r : routers) {
            detail::allocate_slots(r, gpu());
            fill_parameters_on_device(r);
        }
        auto ids = make_tensor<std::int32_t, dyn, S>(gpu(), tokens);
        auto weights = make_tensor<A, dyn, S>(gpu(), tokens);
        auto logits = make_tensor<A, dyn, N>(gpu(), tokens);
        const auto t = static_cast<double>(tokens);
        const work w = work_of(tokens, 2 * t * N * H, bytes + t * (H * size + N * sum_size + S * (sum_size + id_size)));
        measure_on_device(s, w, count, visits(*in), [&](index_t call) {
            route(gpu(), routers[static_cast<std::size_t>(call % count)], {.x = in->x_of(call)},
                  {ids.view(), weights.view(), logits.view()});
        });
    }

    static void plan(state& s, index_t tokens) {
        device_inputs<L>* in = inputs_of(s, tokens);
        if (!in) return;
        gatefold::plan<L, cuda> made(gpu(), tokens);
        const plan_view<cuda> out = made.view(tokens);
        const work w = work_of(tokens, 0, id_size * (3 * static_cast<double>(tokens * S) + N + 1));
        measure_on_device(s, w, 1, visits(*in), [&](index_t call) { make_plan<L>(gpu(), in->ids_of(call), out); });
    }

    /// The same by the sorts of CUB and Thrust; the latter waits for the device.
    template <class Method>
    static void sorted_plan(state& s, index_t tokens) {
        device_inputs<L>* in = inputs_of(s, tokens);
        if (!in) return;
        gatefold::plan<L, cuda> made(gpu(), tokens);
        const plan_view<cuda> out = made.view(tokens);
        const work w = work_of(tokens, 0, id_size * (3 * static_cast<double>(tokens * S) + N + 1));
        measure_on_device(
            s, w, 1, visits(*in), [&](index_t call) { make_plan<L>(gpu(), Method{}, in->ids_of(call), out); },
            std::is_same_v<Method, plan_by::thrust_sort_t> ? replay::call_by_call : replay::from_graph);
    }

    /// Both products with gather and activation, as the layer runs them; the results stay in the order of the plan.
    static void experts(state& s, index_t tokens) {
        device_inputs<L>* in = inputs_of(s, tokens);
        if (!in) return;
        const int count = cold(least_visited(*in) * each_expert);
        device_layers<L>* w = layers_of(s, count);
        if (!w) return;
        const index_t pairs = tokens * S;
        auto activated = make_tensor<T, dyn>(gpu(), pairs * kernels::row_pitch(L::ffn));
        auto returned = make_tensor<T, dyn>(gpu(), pairs * kernels::row_pitch(L::width));
        const auto t = static_cast<double>(tokens);
        const double flops = 2 * t * S * (L::gate_up_rows + L::ffn) * L::width;
        const work least = work_of(tokens, flops, t * H * size * (1 + S), each_expert);
        measure_on_device(s, least, count, visits(*in), [&](index_t call) {
            kernels::grouped_product<T> p;
            p.in = in->x_of(call).data();
            p.in_stride = H;
            p.limit = static_cast<A>(L::c.limit);
            p.tiles = in->tiles_at(call);
            p.tile_count = in->tile_counts.data() + in->batch_number(call);
            p.pairs = in->plan_of(call).rows.data();
            p.slots = S;
            kernels::run_experts<kernels::routed_kind<L>, true, false>(
                gpu(), kernels::routed_matrices(w->all[static_cast<std::size_t>(call % count)]), p, pairs, L::experts,
                in->tile_rows, {activated.data(), returned.data(), kernels::row_pitch(L::width), false});
        });
    }

    static void combine(state& s, index_t tokens) {
        device_inputs<L>* in = inputs_of(s, tokens);
        if (!in) return;
        const index_t rows = tokens * S;
        const auto bytes = static_cast<double>(rows * H) * size;
        const int count = (std::min)(cold(bytes), 256);
        auto z = make_tensor<T, dyn, H>(gpu(), count * rows);
        fill_on_device(z.data(), z.size(), 1, 0);
        auto y = make_tensor<T, dyn, H>(gpu(), tokens);
        const auto t = static_cast<double>(tokens);
        const work w = work_of(tokens, 2 * t * S * H, bytes + t * H * size + t * S * (sum_size + id_size));
        measure_on_device(s, w, count, visits(*in), [&](index_t call) {
            kernels::combine_arguments<T> a;
            a.z = z.data() + call % count * rows * H;
            a.z_stride = H;
            a.x = in->x_of(call).data();
            a.x_stride = H;
            a.y = y.data();
            a.y_stride = H;
            a.tokens = static_cast<int>(tokens);
            a.weights = in->weights.data() + in->row_of(call) * S;
            a.place = in->plan_of(call).place.data();
            a.ids = in->ids_of(call).data();
            kernels::run_combine<H, S>(gpu(), kernels::combine_for<L, true>{}, a);
        });
    }

    static void forward(state& s, index_t tokens) {
        device_inputs<L>* in = inputs_of(s, tokens);
        if (!in) return;
        const int count = cold(least_visited(*in) * each_expert);
        device_layers<L>* w = layers_of(s, count);
        if (!w) return;
        auto y = make_tensor<T, dyn, H>(gpu(), tokens);
        measure_on_device(s, forward_work(tokens), count, visits(*in), [&](index_t call) {
            gatefold::forward(gpu(), w->all[static_cast<std::size_t>(call % count)], in->x_of(call), y.view());
        });
    }

    static void names(const char* model) {
        model_ = model;
        type_ = sizeof(T) == 2 ? "bf16" : "f32";
    }
    static void add_stage(const std::string& stage, index_t tokens, void (*run)(state&, index_t)) {
        const std::string name = stage + "/" + model_ + "/" + type_ + "/tokens:" + std::to_string(tokens);
        add_on_device(name, [=](state& s) { run(s, tokens); });
    }
};
template <layer_type L>
std::string device_stages<L>::model_;
template <layer_type L>
std::string device_stages<L>::type_;

}  // namespace bench
