// The layer beside the same layer on other libraries, in turn within one loop: register_versus<config{...}>("name").
//
//     sample of ours, sample of a peer, sample of the next, ... ── medians ──> *_of_floor, to_best_peer
//
// versus/model/type/tokens:N/threads:N times all of them; layer_forward_PEER/... one peer as layer_forward does ours.
#pragma once

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "peers/peer.hpp"
#include "stages.hpp"

namespace bench {

/// Adds the counters of contestants that have run, the first of them ours.
void report_race(benchmark::State& state, const work& w, const rates& r, const std::vector<contestant>& all);

template <layer_type L>
class versus : stages<L> {
    using base = stages<L>;
    using base::H, base::N, base::S;
    using typename base::A, typename base::state, typename base::T;

    /// A copy of the layer for gatefold and one for each peer; null where a peer has no kernels for the shape.
    struct copy {
        packed<L> own;
        std::vector<std::unique_ptr<peer>> others;
    };

    static std::vector<copy>* copies_of(state& s, const variant& v, context<cpu>& ctx, int count) {
        const auto libraries = peer_libraries();
        auto& kept = layers().keep<std::vector<copy>>(base::model_ + base::type_ + "/versus",
                                                      [] { return std::vector<copy>{}; });
        const auto missing = static_cast<double>(count) - static_cast<double>(kept.size());
        if (lacks_memory(s, missing * base::layer_bytes * static_cast<double>(1 + libraries.size()))) return nullptr;
        while (static_cast<int>(kept.size()) < count) {
            copy one;
            for (const peer_library& library : libraries)
                one.others.push_back(library.make({H, L::ffn, L::experts, S, unit_of<T>}));
            make_layer(ctx, v.skew, one.own, [&](int e, const void* gate_up, const void* down) {
                for (const auto& other : one.others)
                    if (other) other->set_expert(e, gate_up, down);
            });
            kept.push_back(std::move(one));
        }
        return &kept;
    }

    /// A peer's layer: our routing and plan, its experts.
    struct peer_layer {
        inputs<L>& in;
        std::vector<copy>& all;
        context<cpu>& ctx;
        const variant& v;
        tensor<std::int32_t, dyn, S> ids = make_tensor<std::int32_t, dyn, S>(ctx, v.tokens);
        tensor<A, dyn, S> weights = make_tensor<A, dyn, S>(ctx, v.tokens);
        tensor<A, dyn, N> logits = make_tensor<A, dyn, N>(ctx, v.tokens);
        gatefold::plan<L> made{ctx, v.tokens};
        tensor<float, dyn, H> y = make_tensor<float, dyn, H>(ctx, v.tokens);

        void forward(index_t call, std::size_t which) {
            copy& one = all[static_cast<std::size_t>(in.turn.copy(call))];
            const batch<L> batch = in.batch_of(call);
            const plan_view<cpu> plan = made.view(v.tokens);
            route(ctx, one.own, batch, {ids.view(), weights.view(), logits.view()});
            make_plan<L>(ctx, std::as_const(ids).view(), plan);
            one.others[which]->run({v.tokens, v.threads, batch.x.data(), ids.data(), weights.data(),
                                    plan.offsets.data(), plan.rows.data(), y.data()});
        }
    };

    /// What a peer's outputs differ from ours by at most, over the largest of ours, for the batch of this call.
    template <class Out>
    static double difference(const Out& ours, const tensor<float, dyn, H>& theirs) {
        double most = 0, largest = 0;
        for (index_t i = 0; i < ours.size(); ++i) {
            const auto mine = static_cast<double>(to_accumulate(ours.data()[i]));
            most = (std::max)(most, std::abs(mine - static_cast<double>(theirs.data()[i])));
            largest = (std::max)(largest, std::abs(mine));
        }
        return std::isfinite(most) ? most / largest : most;
    }

    /// Prepares both sides, compares them on every batch and hands over to body(ours, peer's layer); false after the
    /// benchmark was refused.
    template <class Body>
    static void compared(state& s, const variant& v, Body body) {
        inputs<L>& in = base::inputs_of(v);
        context<cpu> ctx(base::with_threads(v));
        auto* all = copies_of(s, v, ctx, in.turn.copies);
        if (!all) return;
        auto y = make_tensor<T, dyn, H>(ctx, v.tokens);
        ctx.reserve<L>(v.tokens, false);
        const auto ours = [&](index_t call) {
            gatefold::forward(ctx, (*all)[static_cast<std::size_t>(in.turn.copy(call))].own, in.batch_of(call),
                              y.view());
        };
        peer_layer theirs{in, *all, ctx, v};
        // Sums of another order; bf16 is rounded between the products and at the end.
        constexpr double tolerance = sizeof(T) == 2 ? 0.02 : 1e-5;
        double most = 0;
        for (std::size_t p = 0; p < peer_libraries().size(); ++p)
            for (std::size_t b = 0; b < in.turn.order.size() && all->front().others[p]; ++b) {
                const auto call = static_cast<index_t>(b) * in.turn.copies;
                ours(call);
                theirs.forward(call, p);
                const double d = difference(y, theirs.y);
                most = (std::max)(most, d);
                if (!(d <= tolerance)) {
                    const std::string text = std::string(peer_libraries()[p].name) + " differs by " +
                                             std::to_string(d) + " of the largest output";
                    return s.SkipWithError(text.c_str());
                }
            }
        body(in, ours, theirs);
        s.counters["difference"] = most;
    }

    static void all_in_turn(state& s, const variant& v) {
        compared(s, v, [&](inputs<L>& in, const auto& ours, peer_layer& theirs) {
            std::vector<contestant> all{{"ours", v.threads, ours, {}}};
            for (std::size_t p = 0; p < peer_libraries().size(); ++p)
                if (theirs.all.front().others[p])
                    all.push_back({peer_libraries()[p].name,
                                   v.threads,
                                   [&theirs, p](index_t call) { theirs.forward(call, p); },
                                   {}});
            const work w = base::forward_work(v);
            const rates before = probe(w.arithmetic, v.threads);
            take_turns(s, v.threads, base::visits(in), all);
            report_race(s, w, faster(before, probe(w.arithmetic, v.threads)), all);
        });
    }

    static void alone(state& s, const variant& v, std::size_t which) {
        compared(s, v, [&](inputs<L>& in, const auto&, peer_layer& theirs) {
            if (!theirs.all.front().others[which]) return s.SkipWithError("no kernels for this shape");
            measure(s, v.threads, base::forward_work(v), base::visits(in),
                    [&](index_t call) { theirs.forward(call, which); });
        });
    }

public:
    static void add_all(const char* model) {
        base::names(model);
        for (const index_t tokens : token_counts)
            for (const int threads : thread_counts) {
                const variant v{tokens, threads, 0};
                base::add_stage("versus", v, &all_in_turn);
                for (std::size_t p = 0; p < peer_libraries().size(); ++p)
                    base::add_stage(std::string("layer_forward_") + peer_libraries()[p].name, v,
                                    [p](state& s, const variant& now) { alone(s, now, p); });
            }
    }
};

/// Registers the comparison where the build found peers; the layer must be of swiglu experts without biases.
template <config C>
void register_versus(const char* model) {
    static_assert(C.act == activation::swiglu && !C.bias && C.shared.ffn == 0,
                  "peers have kernels for swiglu experts without biases alone");
    if constexpr (has_peers) {
        versus<layer<C, float>>::add_all(model);
        versus<layer<C, bf16>>::add_all(model);
    }
}

}  // namespace bench
