// Every stage of a layer as a benchmark, for one configuration: register_model<config{...}>("name").
//
//     router plan thrust_plan experts combine layer_forward layer_forward_hub layer_backward backward_dx backward_dw
//     dense_ffn adamw
//
// Names are stage/model/type/tokens:N/threads:N, with /skew:1 after it where experts are unequally popular.
#pragma once

#include <string>

#include <gatefold/train/adamw.hpp>

#include "data.hpp"
#include "measure.hpp"

namespace bench {

namespace kernels = gatefold::detail::on_cpu;

/// The plan made by Thrust, in a translation unit of its own. `keys` is scratch.
void thrust_plan(int threads, view<const std::int32_t, dyn> ids, int choices, const plan_view<cpu>& out,
                 view<std::int32_t, dyn> keys);

/// What a name says beside stage and model.
struct variant {
    index_t tokens;
    int threads;
    double skew;
};

template <class T>
inline constexpr unit unit_of = sizeof(T) == 2 ? unit::bf16 : unit::f32;
template <class T>
inline constexpr const char* name_of = sizeof(T) == 2 ? "bf16" : "f32";

/// The FFN that costs a token as much as its experts do.
constexpr config dense_twin(const config& c) {
    return {
        .hidden = c.hidden, .ffn = c.ffn * (is_dense(c) ? 1 : c.top_k), .act = c.act, .limit = c.limit, .bias = c.bias};
}

template <layer_type L>
class stages {
protected:
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    using state = benchmark::State;
    static constexpr int S = L::slots, N = L::choices, H = L::hidden;
    static constexpr double size = sizeof(T), sum_size = sizeof(A), id_size = sizeof(std::int32_t);
    static constexpr auto layer_bytes = static_cast<double>(L::parameters) * size;

    static std::string model_, type_;

    static inputs<L>& inputs_of(const variant& v) {
        const std::string name = model_ + type_ + std::to_string(L::is_dense) + "/" + std::to_string(v.tokens) + "/" +
                                 std::to_string(v.skew);
        return inputs_drawer().keep<inputs<L>>(name, [&] { return make_inputs<L>(v.tokens, v.skew); });
    }
    /// Copies of the layer as W; empty after the benchmark was refused for want of memory.
    template <class W>
    static std::vector<W>* layers_of(state& s, const variant& v, context<cpu>& ctx, int count, double others = 0) {
        const std::string name = model_ + type_ + std::to_string(L::is_dense) + (is_packed<W> ? "/packed/" : "/hub/") +
                                 std::to_string(v.skew);
        auto& kept = layers().keep<copies<W>>(name, [&] { return copies<W>{{}, v.skew}; });
        const double missing = (std::max)(0.0, count - static_cast<double>(kept.all.size()));
        if (lacks_memory(s, missing * layer_bytes + others)) return nullptr;
        kept.want(ctx, count);
        return &kept.all;
    }

    static work work_of(const variant& v, double flops, double bytes, double expert_bytes = 0) {
        return {flops, bytes, expert_bytes, static_cast<double>(v.tokens), unit_of<T>};
    }
    static constexpr double each_expert = static_cast<double>(expert_parameters(L::c)) * size;
    static work forward_work(const variant& v) {
        using R = typename L::router_type;
        return work_of(v, static_cast<double>(v.tokens) * static_cast<double>(L::flops),
                       static_cast<double>(minimum_bytes(L::c, v.tokens, 0, sizeof(T), sizeof(R))), each_expert);
    }
    static auto visits(const inputs<L>& in) {
        return [&in](index_t call) { return in.experts_of(call); };
    }
    static context_options with_threads(const variant& v) { return {.threads = v.threads}; }

public:
    static void router(state& s, const variant& v) {
        inputs<L>& in = inputs_of(v);
        context<cpu> ctx(with_threads(v));
        // Routers alone are small: as many as it takes to fill the caches twice.
        const double bytes = static_cast<double>(router_parameters(L::c)) * sizeof(typename L::router_type);
        const int count = 1 + static_cast<int>(2 * static_cast<double>(last_level_cache()) / bytes);
        std::vector<packed<L>> routers;
        for (int i = 0; i < count; ++i) routers.push_back(make_router<L>(ctx, v.skew));
        auto ids = make_tensor<std::int32_t, dyn, S>(ctx, v.tokens);
        auto weights = make_tensor<A, dyn, S>(ctx, v.tokens);
        auto logits = make_tensor<A, dyn, N>(ctx, v.tokens);
        ctx.reserve<L>(v.tokens, false);
        const auto t = static_cast<double>(v.tokens);
        const work w = work_of(v, t * static_cast<double>(L::flops - layer_flops_without_router()),
                               bytes + t * (H * size + N * sum_size + S * (sum_size + id_size)));
        measure(s, v.threads, w, visits(in), [&](index_t call) {
            route(ctx, routers[static_cast<std::size_t>(call % count)], in.batch_of(call),
                  {ids.view(), weights.view(), logits.view()});
        });
    }

    static void plan(state& s, const variant& v) {
        inputs<L>& in = inputs_of(v);
        context<cpu> ctx(with_threads(v));
        gatefold::plan<L> made(ctx, v.tokens);
        const plan_view<cpu> out = made.view(v.tokens);
        measure(s, v.threads, plan_work(v), visits(in), [&](index_t call) { make_plan<L>(ctx, in.ids_of(call), out); });
    }

#if defined(GATEFOLD_BENCH_THRUST)
    static void thrust(state& s, const variant& v) {
        inputs<L>& in = inputs_of(v);
        context<cpu> ctx(with_threads(v));
        gatefold::plan<L> made(ctx, v.tokens);
        const plan_view<cpu> out = made.view(v.tokens);
        const index_t pairs = v.tokens * S;
        auto keys = make_tensor<std::int32_t, dyn>(ctx, pairs);
        const auto run = [&](index_t call) {
            thrust_plan(v.threads, {in.ids_of(call).data(), {pairs}}, N, out, keys.view());
        };
        run(0);
        const plan_view<cpu> expected = in.plan_of(0);
        if (!std::equal(out.offsets.begin(), out.offsets.end(), expected.offsets.begin()) ||
            !std::equal(out.place.begin(), out.place.end(), expected.place.begin()))
            return s.SkipWithError("Thrust's plan differs from the library's");
        measure(s, v.threads, plan_work(v), visits(in), run);
    }
#endif

    /// Both products, activation and combine as the layer runs them, from packed weights.
    static void experts(state& s, const variant& v) {
        inputs<L>& in = inputs_of(v);
        context<cpu> ctx(with_threads(v));
        auto* layers = layers_of<packed<L>>(s, v, ctx, in.turn.copies);
        if (!layers) return;
        auto y = make_tensor<A, dyn, H>(ctx, v.tokens);
        buffer<std::byte> scratch(
            static_cast<index_t>(kernels::expert_scratch_bytes<kernels::routed_expert<L>>(v.threads, v.tokens * S)));
        const auto t = static_cast<double>(v.tokens);
        const work w = work_of(v, t * static_cast<double>(expert_flops()), t * H * (size + sum_size), each_expert);
        measure(s, v.threads, w, visits(in), [&](index_t call) {
            const plan_view<cpu> plan = in.plan_of(call);
            const auto tokens = in.batch_of(call).x;
            const A* weights = in.weights.view().row(in.turn.batch(call) * v.tokens);
            const kernels::expert_input<T> input{{L::experts, plan.offsets.data(), 0},
                                                 {tokens.data(), H, plan.rows.data(), S, nullptr}};
            const kernels::combine_into<A> target{y.data(), H, v.tokens, weights, plan.rows.data(), S, true};
            kernels::run_experts<kernels::routed_expert<L>>(
                ctx, scratch.data(), input,
                kernels::routed_weights((*layers)[static_cast<std::size_t>(in.turn.copy(call))]),
                static_cast<A>(L::c.limit), ctx.sums(), {}, target);
        });
    }

    /// The ordered, weighted sum over a token's experts as a pass of its own. The layer never pays it: forward adds to
    /// the sums where the second product delivers its tiles.
    static void combine(state& s, const variant& v) {
        inputs<L>& in = inputs_of(v);
        context<cpu> ctx(with_threads(v));
        const index_t rows = v.tokens * S;
        const auto bytes = static_cast<double>(rows * H) * sum_size;
        const index_t count = 1 + static_cast<index_t>(2 * static_cast<double>(last_level_cache()) / bytes);
        auto z = make_tensor<A, dyn, H>(ctx, count * rows);
        fill(z.data(), z.size(), 1, 0);
        auto y = make_tensor<T, dyn, H>(ctx, v.tokens);
        auto sums = make_tensor<A, dyn, H>(ctx, v.threads);
        const auto t = static_cast<double>(v.tokens);
        const work w = work_of(v, 2 * t * S * H, bytes + t * H * size + t * S * (sum_size + id_size));
        measure(s, v.threads, w, visits(in), [&](index_t call) {
            const plan_view<cpu> plan = in.plan_of(call);
            const A* weights = in.weights.view().row(in.turn.batch(call) * v.tokens);
            const A* from = z.view().row(call % count * rows);
            const int parts = static_cast<int>((std::min)(v.tokens, static_cast<index_t>(v.threads)));
            ctx.parallel(parts, [&](int part) {
                const kernels::range mine = kernels::part_of(v.tokens, part, parts);
                A* sum = sums.view().row(part);
                for (index_t token = mine.begin; token < mine.end; ++token) {
                    const std::int32_t* place = plan.place.data() + token * S;
                    const kernels::ordered_slots<S> order(place);
                    for (int h = 0; h < H; ++h) sum[h] = 0;
                    for (int i = 0; i < order.count; ++i)
                        kernels::add_scaled(sum, weights[token * S + order.slot[i]],
                                            from + place[order.slot[i]] * index_t{H}, H);
                    for (index_t h = 0; h < H; h += kernels::lanes<A>)
                        kernels::store_first(y.view().row(token) + h, kernels::load_first<A>(sum + h, H - h), H - h);
                }
            });
        });
    }

    /// The whole layer, from W: packed or as published.
    template <class W>
    static void forward(state& s, const variant& v) {
        inputs<L>& in = inputs_of(v);
        context<cpu> ctx(with_threads(v));
        auto* layers = layers_of<W>(s, v, ctx, in.turn.copies);
        if (!layers) return;
        auto y = make_tensor<T, dyn, H>(ctx, v.tokens);
        ctx.reserve<L>(v.tokens, false);
        measure(s, v.threads, forward_work(v), visits(in), [&](index_t call) {
            gatefold::forward(ctx, (*layers)[static_cast<std::size_t>(in.turn.copy(call))], in.batch_of(call),
                              y.view());
        });
    }

    /// Gradients of all parameters and of the input, from a tape that forward filled.
    static void backward(state& s, const variant& v) {
        inputs<L>& in = inputs_of(v);
        context<cpu> ctx(with_threads(v));
        const auto all = static_cast<double>(L::parameters);
        const auto batches = static_cast<index_t>(in.turn.order.size());
        const auto kept = static_cast<double>(batches * v.tokens * S * L::gate_up_rows) * size;
        auto* layers = layers_of<weights<L>>(s, v, ctx, in.turn.copies, all * sum_size + kept);
        if (!layers) return;
        auto g = make_gradients<L>(ctx);
        auto y = make_tensor<T, dyn, H>(ctx, v.tokens), dy = make_tensor<T, dyn, H>(ctx, v.tokens),
             dx = make_tensor<T, dyn, H>(ctx, v.tokens);
        fill(dy.data(), dy.size(), 1, input_streams - 1);
        ctx.reserve<L>(v.tokens);
        std::vector<tape<L>> tapes;
        for (index_t b = 0; b < batches; ++b) {
            tapes.emplace_back(ctx, v.tokens);
            gatefold::forward(ctx, layers->front(), in.batch_of(b * in.turn.copies), y.view(), tapes.back());
        }
        // Two products for each of forward's; all gradients are written, the experts that were visited are read.
        work w = forward_work(v);
        w.flops *= 2;
        w.bytes += all * sum_size + static_cast<double>(v.tokens) * (H + S * L::gate_up_rows) * size;
        measure(s, v.threads, w, visits(in), [&](index_t call) {
            tape<L>& saved = tapes[static_cast<std::size_t>(call / in.turn.copies % batches)];
            // Backward leaves the gradient of the logits where losses put theirs; without this it would grow.
            if constexpr (!L::is_dense)
                for (index_t i = 0; i < v.tokens * N; ++i) saved.logit_gradients().data()[i] = 0;
            gatefold::backward(ctx, (*layers)[static_cast<std::size_t>(in.turn.copy(call))], in.batch_of(call), saved,
                               std::as_const(dy).view(), dx.view(), g);
        });
    }

    /// The two products of backward that lead to the input's gradient: dy · down and [dg|du] · gate_up.
    static void backward_dx(state& s, const variant& v) {
        inputs<L>& in = inputs_of(v);
        context<cpu> ctx(with_threads(v));
        auto* layers = layers_of<weights<L>>(s, v, ctx, in.turn.copies);
        if (!layers) return;
        const backward_rows rows(ctx, v);
        const auto n = static_cast<double>(v.tokens * S);
        const work w = product_work(v, n * (2 * L::width + L::ffn + L::gate_up_rows) * sum_size, each_expert);
        measure(s, v.threads, w, visits(in), [&](index_t call) {
            const plan_view<cpu> plan = in.plan_of(call);
            const kernels::grouping groups{L::experts, plan.offsets.data(), 0};
            const auto& from = (*layers)[static_cast<std::size_t>(in.turn.copy(call))];
            kernels::product_nn(ctx, rows.scratch.data(), groups,
                                kernels::rows_of<T>{in.batch_of(call).x.data(), H, plan.rows.data(), S},
                                kernels::weights_of<T>{from.down.data(), L::ffn, index_t{L::width} * L::ffn}, L::ffn,
                                L::width, kernels::matrix<A>{rows.d_activation.data(), L::ffn});
            kernels::product_nn(
                ctx, rows.scratch.data(), groups, kernels::rows_of<A>{rows.d_pre.data(), L::gate_up_rows},
                kernels::weights_of<T>{kernels::gate_up_of(from), L::width, index_t{L::gate_up_rows} * L::width},
                L::width, L::gate_up_rows, kernels::matrix<A>{rows.dx.data(), L::width});
        });
    }

    /// The two products of backward that give the gradients of the experts: dyᵀ · activations and [dg|du]ᵀ · x.
    static void backward_dw(state& s, const variant& v) {
        inputs<L>& in = inputs_of(v);
        context<cpu> ctx(with_threads(v));
        const double written = L::experts * static_cast<double>(expert_parameters(L::c)) * sum_size;
        if (lacks_memory(s, written)) return;
        const gradients<L> g = make_gradients<L>(ctx);
        const backward_rows rows(ctx, v);
        const auto n = static_cast<double>(v.tokens * S);
        const work w = product_work(v, written + n * ((2 * L::width + L::ffn) * size + L::gate_up_rows * sum_size), 0);
        measure(s, v.threads, w, visits(in), [&](index_t call) {
            const plan_view<cpu> plan = in.plan_of(call);
            const kernels::grouping groups{L::experts, plan.offsets.data(), 0};
            const kernels::rows_of<T> x{in.batch_of(call).x.data(), H, plan.rows.data(), S};
            kernels::product_tn(ctx, rows.scratch.data(), groups, x,
                                kernels::rows_of<T>{rows.activations.data(), L::ffn}, L::width, L::ffn,
                                kernels::matrix<A>{g.down.data(), L::ffn, index_t{L::width} * L::ffn});
            kernels::product_tn(
                ctx, rows.scratch.data(), groups, kernels::rows_of<A>{rows.d_pre.data(), L::gate_up_rows}, x,
                L::gate_up_rows, L::width,
                kernels::matrix<A>{kernels::gate_up_of(g), L::width, index_t{L::gate_up_rows} * L::width});
        });
    }

    /// One step on every parameter.
    static void adamw(state& s, const variant& v) {
        struct model {
            weights<L> w;
            gradients<L> g;
            adamw_state<weights<L>> state;
        };
        context<cpu> ctx(with_threads(v));
        const auto all = static_cast<double>(L::parameters);
        const bool masters = sizeof(T) == 2;
        const double held = all * (size + 3 * sum_size + (masters ? sum_size : 0));
        const int count = 1 + static_cast<int>(2 * static_cast<double>(last_level_cache()) / held);
        layers().clear();
        if (lacks_memory(s, count * held)) return;
        std::vector<model> models(static_cast<std::size_t>(count));
        for (model& m : models) {
            make_layer(ctx, 0, m.w);
            m.g = make_gradients<L>(ctx);
            fill_parameters(m.g, 0);
            m.state = make_adamw_state(ctx, m.w);
        }
        // Read: weight or master, gradient, two moments; written: weight (and master), two moments.
        const work w = work_of(v, 15 * all, all * (7 * sum_size + (masters ? size : 0)));
        measure(
            s, v.threads, w, [](index_t) { return 1.0; },
            [&](index_t call) {
                model& m = models[static_cast<std::size_t>(call % count)];
                step(ctx, m.w, m.g, m.state, 1e-4);
            });
    }

    static void names(const char* model) {
        model_ = model;
        type_ = name_of<T>;
    }
    template <class Run>
    static void add_stage(const std::string& stage, const variant& v, Run run) {
        const std::string name = stage + "/" + model_ + "/" + type_ + "/tokens:" + std::to_string(v.tokens) +
                                 "/threads:" + std::to_string(v.threads) + (v.skew > 0 ? "/skew:1" : "");
        add(name, [=](state& s) { run(s, v); });
    }

private:
    static constexpr index_t expert_flops() {
        return 2 * index_t{S < L::experts ? S : L::experts} * (L::gate_up_rows + L::ffn) * L::width;
    }
    static constexpr index_t layer_flops_without_router() {
        config c = L::c;
        c.router.logits = projection::none;
        c.router.transform = logit_transform::none;
        return gatefold::flops(c);
    }
    /// What the products of backward read and write beside weights.
    struct backward_rows {
        tensor<A, dyn, L::ffn> d_activation;
        tensor<A, dyn, L::gate_up_rows> d_pre;
        tensor<A, dyn, L::width> dx;
        tensor<T, dyn, L::ffn> activations;
        buffer<std::byte> scratch;

        backward_rows(context<cpu>& ctx, const variant& v)
            : d_activation(make_tensor<A, dyn, L::ffn>(ctx, v.tokens * S)),
              d_pre(make_tensor<A, dyn, L::gate_up_rows>(ctx, v.tokens * S)),
              dx(make_tensor<A, dyn, L::width>(ctx, v.tokens * S)),
              activations(make_tensor<T, dyn, L::ffn>(ctx, v.tokens * S)),
              scratch(static_cast<index_t>(kernels::product_scratch_bytes(v.threads))) {
            fill(d_pre.data(), d_pre.size(), 1, input_streams - 2);
            fill(activations.data(), activations.size(), 1, input_streams - 3);
        }
    };
    /// Backward sums in float whatever the type: the rate is that of float multiply-adds.
    static work product_work(const variant& v, double bytes, double expert_bytes) {
        work w = work_of(v, static_cast<double>(v.tokens) * static_cast<double>(expert_flops()), bytes, expert_bytes);
        w.arithmetic = unit::f32;
        return w;
    }
    static work plan_work(const variant& v) {
        const auto pairs = static_cast<double>(v.tokens * S);
        return work_of(v, 0, id_size * (3 * pairs + N + 1));
    }
};
template <layer_type L>
std::string stages<L>::model_;
template <layer_type L>
std::string stages<L>::type_;

inline constexpr index_t token_counts[] = {1, 4, 16, 64, 256, 1024, 4096};
#if defined(_OPENMP)
inline constexpr int thread_counts[] = {1, 2};
#else
inline constexpr int thread_counts[] = {1};
#endif

/// Registers every stage of a layer of this configuration. Neighbours use the same data, so that little is rebuilt.
template <config C, class T>
void register_type(const char* model) {
    using L = layer<C, T>;
    using D = layer<dense_twin(C), T>;
    using own = stages<L>;
    using dense = stages<D>;
    own::names(model);
    dense::names(model);
    const auto each = [](auto&& body) {
        for (const index_t tokens : token_counts)
            for (const int threads : thread_counts) body(variant{tokens, threads, 0});
    };
    const auto skewed = [](auto&& body) {
        for (const index_t tokens : token_counts)
            for (const int threads : thread_counts) body(variant{tokens, threads, 1});
    };
    if constexpr (!L::is_dense) {
        constexpr bool zipf = C.router.logits == projection::linear;
        each([](const variant& v) {
            own::add_stage("router", v, &own::router);
            own::add_stage("plan", v, &own::plan);
#if defined(GATEFOLD_BENCH_THRUST)
            own::add_stage("thrust_plan", v, &own::thrust);
#endif
            own::add_stage("combine", v, &own::combine);
        });
        const auto whole = [](const variant& v) {
            own::add_stage("experts", v, &own::experts);
            own::add_stage("layer_forward", v, &own::template forward<packed<L>>);
        };
        each(whole);
        if constexpr (zipf) skewed(whole);
        each([](const variant& v) {
            own::add_stage("layer_forward_hub", v, &own::template forward<weights<L>>);
            own::add_stage("layer_backward", v, &own::backward);
            own::add_stage("backward_dx", v, &own::backward_dx);
            own::add_stage("backward_dw", v, &own::backward_dw);
        });
    }
    each([](const variant& v) { dense::add_stage("dense_ffn", v, &dense::template forward<packed<D>>); });
    for (const int threads : thread_counts) dense::add_stage("adamw", {1, threads, 0}, &dense::adamw);
}

template <config C>
void register_model(const char* model) {
    register_type<C, float>(model);
    register_type<C, bf16>(model);
}

}  // namespace bench
