// What a second thread brings: the layer on one and on two threads in turn, on the wall clock, beside what the probed
// rates of one and two threads promise. register_scaling<config{...}>("name").
#pragma once

#include "stages.hpp"

namespace bench {

template <layer_type L>
class scaling : stages<L> {
    using base = stages<L>;
    using typename base::state, typename base::T;

    static void run(state& s, const variant& v) {
        inputs<L>& in = base::inputs_of(v);
        context<cpu> one(1), two(2);
        auto* layers = base::template layers_of<packed<L>>(s, v, one, in.turn.copies);
        if (!layers) return;
        auto y = make_tensor<T, dyn, L::hidden>(one, v.tokens);
        const auto with = [&](context<cpu>& ctx) {
            ctx.reserve<L>(v.tokens, false);
            return contestant{"",
                              ctx.threads(),
                              [&](index_t call) {
                                  gatefold::forward(ctx, (*layers)[static_cast<std::size_t>(in.turn.copy(call))],
                                                    in.batch_of(call), y.view());
                              },
                              {}};
        };
        std::vector<contestant> all{with(one), with(two)};
        const work w = base::forward_work(v);
        const auto probed = [&](int threads) { return probe(w.arithmetic, threads); };
        rates alone = probed(1), together = probed(2);
        take_turns(s, 2, base::visits(in), all);
        alone = faster(alone, probed(1));
        together = faster(together, probed(2));

        // The same calls, so their floors differ by the rates alone.
        std::vector<double> gains, possible;
        for (std::size_t i = 0; i < all[0].samples.size(); ++i) {
            gains.push_back(all[0].samples[i].seconds / all[1].samples[i].seconds);
            possible.push_back(floor_seconds(w, alone, all[0].samples[i]).seconds /
                               floor_seconds(w, together, all[1].samples[i]).seconds);
        }
        const auto best_us = [](const contestant& c) {
            std::vector<double> times;
            for (const sample& each : c.samples) times.push_back(1e6 * each.seconds / each.calls);
            return best(times);
        };
        const double one_us = best_us(all[0]), two_us = best_us(all[1]);
        s.counters["one_us"] = one_us;
        s.counters["two_us"] = two_us;
        s.counters["gain"] = median(gains);
        s.counters["best_gain"] = one_us / two_us;
        s.counters["possible_gain"] = median(possible);
        s.counters["of_possible"] = median(gains) / median(possible);
        s.counters["best_of_possible"] = one_us / two_us / median(possible);
    }

public:
    static void add_all(const char* model) {
        base::names(model);
        for (const index_t tokens : token_counts) base::add_stage("scaling", {tokens, 2, 0}, &run);
    }
};

/// Registers nothing where there is one thread only.
template <config C>
void register_scaling(const char* model) {
    if (std::size(thread_counts) < 2) return;
    scaling<layer<C, float>>::add_all(model);
    scaling<layer<C, bf16>>::add_all(model);
}

}  // namespace bench
