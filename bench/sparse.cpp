// What zeros save: whole layers whose experts' weights are zero in blocks (sparse_forward), and layers of relu_squared
// whose activations are zero (relu_forward), beside the packed layer.
//
// Names end in zero:P, P the percentage of zeros, or in packed. The floor counts what has to be read: stored blocks,
// and of the second projection the cache lines of features that are not zero for one row.
#include <cmath>
#include <string>
#include <vector>

#include <gatefold/moe/sparse.hpp>

#include "data.hpp"
#include "measure.hpp"
#include "shapes.hpp"

namespace bench {
namespace {

constexpr int percentages[] = {0, 50, 75, 90}, packed_form = -1;

/// What stands at zero:P of a normal distribution below: biases that leave P percent of activations zero.
double bias_of(int percent) { return percent == 0 ? 8 : percent == 50 ? 0 : percent == 75 ? -0.67449 : -1.28155; }

template <layer_type L, bool Activations>
struct zeros {
    using T = typename L::value_type;
    using A = typename L::accumulate_type;
    struct made {
        std::vector<sparse<L>> all;
        std::vector<packed<L>> packed_layers;
    };

    static double share(int percent) { return percent / 100.0; }

    static weights<L> hub(context<cpu>& ctx, int percent) {
        weights<L> w;
        make_layer(ctx, 0, w);
        if constexpr (Activations) {
            for (index_t i = 0; i < w.gate_up_bias.size(); ++i)
                w.gate_up_bias.data()[i] = from_accumulate<T>(static_cast<A>(bias_of(percent)));
        } else if (percent > 0) {
            prune_blocks(ctx, w, share(percent));
        }
        return w;
    }

    static void run(benchmark::State& s, const std::string& name, index_t tokens, int percent) {
        context<cpu> ctx(1);
        const std::string which = name + (Activations ? "/relu" : "/blocks");
        auto& in =
            inputs_drawer().keep<inputs<L>>(which + std::to_string(tokens), [&] { return make_inputs<L>(tokens, 0); });
        rotation turn = in.turn;
        // As many bytes between two uses of an expert as the rotation was made for.
        const double kept = Activations || percent < 0 ? 1 : 1 - share(percent);
        turn.copies = static_cast<int>(std::ceil(turn.copies / kept));
        constexpr auto layer_bytes = static_cast<double>(L::parameters) * sizeof(T);
        auto& kept_layers =
            layers().keep<made>("zeros/" + which + "/" + std::to_string(percent), [] { return made{}; });
        const auto there = static_cast<int>(kept_layers.all.size() + kept_layers.packed_layers.size());
        if (lacks_memory(s, there < turn.copies ? layer_bytes * (1 + kept * (turn.copies - there)) : 0)) return;
        for (int i = there; i < turn.copies; ++i) {
            const weights<L> w = hub(ctx, percent < 0 ? 50 : percent);
            if (percent < 0)
                kept_layers.packed_layers.push_back(pack(ctx, w));
            else
                kept_layers.all.push_back(pack_sparse(ctx, w));
        }
        const double matrices = percent < 0 ? static_cast<double>(kept_layers.packed_layers[0].matrices.size())
                                            : static_cast<double>(kept_layers.all[0].bytes());
        const auto t = static_cast<double>(tokens);
        work w{t * static_cast<double>(L::flops) * kept, t * L::hidden * 2 * sizeof(T), matrices / L::experts, t,
               sizeof(T) == 2 ? unit::bf16 : unit::f32};
        if (Activations && percent > 0) {
            const double zero = std::pow(share(percent), sizeof(T) == 2 ? 2 : 1);
            w.expert_bytes -= zero * L::width * L::ffn * sizeof(T);
        }
        auto y = make_tensor<T, dyn, L::hidden>(ctx, tokens);
        ctx.reserve<L>(tokens, false);
        measure(
            s, 1, w, [&](index_t call) { return in.visited[static_cast<std::size_t>(turn.batch(call))]; },
            [&](index_t call) {
                const auto x = in.x.view().slice(turn.batch(call) * tokens, tokens);
                const auto copy = static_cast<std::size_t>(turn.copy(call));
                if (percent < 0)
                    gatefold::forward(ctx, kept_layers.packed_layers[copy], x, y.view());
                else
                    gatefold::forward(ctx, kept_layers.all[copy], x, y.view());
            });
        s.counters["mb_stored"] = matrices / 1e6;
        s.counters["us"] = 1e6 * t / s.counters["tokens_per_second"];
    }
};

template <config C, class T>
void register_sparse_type(const char* model) {
    static constexpr config with_relu = [] {
        config c = C;
        c.act = activation::relu_squared;
        c.bias = true;
        return c;
    }();
    const char* type = sizeof(T) == 2 ? "bf16" : "f32";
    const auto each = [&](const char* stage, index_t tokens, auto run) {
        const std::string name = std::string(model) + "/" + type;
        for (const int percent : {packed_form, percentages[0], percentages[1], percentages[2], percentages[3]})
            add(std::string(stage) + "/" + name + "/tokens:" + std::to_string(tokens) + "/threads:1/" +
                    (percent < 0 ? "packed" : "zero:" + std::to_string(percent)),
                [=](benchmark::State& s) { run(s, name, tokens, percent); });
    };
    for (const index_t tokens : {1, 16, 64, 256}) each("sparse_forward", tokens, &zeros<layer<C, T>, false>::run);
    for (const index_t tokens : {1, 4}) each("relu_forward", tokens, &zeros<layer<with_relu, T>, true>::run);
}

}  // namespace

void register_sparse() {
    register_sparse_type<shapes::tiny, float>("tiny");
    register_sparse_type<shapes::tiny, bf16>("tiny");
    register_sparse_type<shapes::olmoe, float>("olmoe");
    register_sparse_type<shapes::olmoe, bf16>("olmoe");
}

}  // namespace bench
