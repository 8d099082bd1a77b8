// What the blocking model (cpu/experts/blocking.hpp) loses against other ways to cut the same expert stage.
//
//     blocking/MODEL/TYPE/tokens:T        packed weights: height of tiles, tiles per block, panels side by side,
//                                         bytes of a panel's piece
//     blocking_hub/MODEL/TYPE/tokens:T    hub layout: height of tiles, bytes that are packed at a time
//
// Every round times each way once, in turn; the best time of each counts. regret: the model's time over that of the
// best way, less one. Uniform routing, one thread, and no more experts than push one another out of the caches.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include <gatefold/gatefold.hpp>

#include "data.hpp"
#include "measure.hpp"
#include "shapes.hpp"

namespace bench {

namespace k = gatefold::detail::on_cpu;

/// One way to cut the stage.
struct cut {
    int rows;       ///< the greatest height of a tile
    index_t tiles;  ///< per block
    index_t piece;  ///< bytes of a panel between two visits; 0: the model's
    index_t hub;    ///< bytes of a stream that is packed at a time from hub layout
    int panels;     ///< side by side where a block is one tile, if the model takes as many
    index_t ahead;  ///< bytes that are fetched ahead in packed streams; 0: the model's
    bool operator==(const cut&) const = default;
};
inline cut chosen_cut;

/// The form of the kernels with the cut that is chosen when the program runs.
template <class Form>
struct varied : Form {
    struct tiles_type : k::row_tiles {
        tiles_type(index_t n, int) : k::row_tiles(n, chosen_cut.rows) {}
    };
};

}  // namespace bench

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// What the sweep asks for, as variables.
template <class Form>
struct sweep_blocks<bench::varied<Form>> {
    using model = sweep_blocks<Form>;
    static constexpr index_t most_tiles = 64, most_hub = index_t{64} << 10;
    static constexpr std::size_t hub_bytes = std::size_t{most_hub};
    static constexpr std::size_t bytes =
        hub_bytes + std::size_t{most_tiles} * static_cast<std::size_t>(model::tile_bytes);

    static int panels(int height) { return (std::min)(model::panels(height), bench::chosen_cut.panels); }
    static index_t packed_depth(index_t steps) {
        const index_t pieces = bench::chosen_cut.piece == 0
                                   ? ceil_div(steps, model::packed_depth(steps))
                                   : ceil_div(2 * steps * model::step_bytes, bench::chosen_cut.piece);
        return round_up(ceil_div(steps, pieces), index_t{Form::block});
    }
    struct chosen_tiles {
        operator index_t() const { return bench::chosen_cut.tiles; }
    };
    static constexpr chosen_tiles tiles{};
    static index_t ahead(int height, index_t steps) {
        return bench::chosen_cut.ahead == 0 ? model::ahead(height, steps) : bench::chosen_cut.ahead;
    }
    struct chosen_steps {
        operator index_t() const { return bench::chosen_cut.hub / model::step_bytes; }
    };
    static constexpr chosen_steps hub_steps{};
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu

namespace bench {
namespace {

template <layer_type L, class Form, bool Hub>
struct blocking {
    using T = typename L::value_type;
    using E = k::routed_expert<L>;
    using blocks = k::sweep_blocks<Form>;
    static constexpr index_t hub = blocks::hub_steps * blocks::step_bytes;
    static constexpr cut model{Form::max_rows, blocks::tiles, 0, hub, 2, 0};

    /// The model, and what differs from it in one choice; ways that cut these rows alike stand there once.
    static std::vector<cut> ways(index_t rows) {
        const auto effect = [&](const cut& c) {
            const index_t tiles = ceil_div<index_t>(rows, c.rows), together = (std::min)(tiles, c.tiles);
            const bool alone = together == 1;
            chosen_cut = c;
            const auto depth = [&](index_t steps) {
                return Hub || alone ? 0 : k::sweep_blocks<varied<Form>>::packed_depth(steps);
            };
            return std::vector<index_t>{
                tiles,
                together,
                depth(E::up_steps),
                depth(E::down_steps),
                Hub ? c.hub
                    : k::sweep_blocks<varied<Form>>::ahead(static_cast<int>(ceil_div(rows, tiles)), E::up_steps),
                Hub || !alone ? 1 : k::sweep_blocks<varied<Form>>::panels(static_cast<int>(rows))};
        };
        std::vector<cut> all{model};
        const auto offer = [&](cut c) {
            for (const cut& other : all)
                if (effect(other) == effect(c)) return;
            all.push_back(c);
        };
        for (int height = model.rows - 1; height >= 1; --height)
            if (ceil_div<index_t>(rows, height) <= ceil_div<index_t>(rows, model.rows) + 3) {
                cut c = model;
                c.rows = height;
                offer(c);
            }
        for (const index_t tiles : {index_t{2}, index_t{4}, model.tiles / 2, 2 * model.tiles}) {
            cut c = model;
            c.tiles = (std::min)(tiles, k::sweep_blocks<varied<Form>>::most_tiles);
            offer(c);
        }
        for (const index_t times : {1, 2, 8, 16}) {
            cut c = model;
            c.piece = k::caches.second / 8 * times;
            c.hub = (std::min)(model.hub * times / 4, k::sweep_blocks<varied<Form>>::most_hub);
            offer(c);
        }
        for (const index_t distance : {512, 1024, 2048, 4096}) {
            cut c = model;
            c.ahead = distance;
            offer(c);
        }
        cut narrow = model;
        narrow.panels = 1;
        offer(narrow);
        return all;
    }

    static void run(benchmark::State& s, const std::string& name, index_t tokens) {
        context<cpu> ctx(1);
        // As many experts as are more than the last-level cache holds.
        constexpr auto expert_bytes = static_cast<double>(expert_parameters(L::c)) * sizeof(T);
        const int experts = (std::min)(
            L::experts, static_cast<int>(std::ceil(4 * static_cast<double>(last_level_cache()) / expert_bytes)));
        const index_t each = (std::max)(index_t{1}, tokens * L::top_k / L::experts), rows = each * experts;
        struct made {
            std::vector<T> up, down, up_bias, down_bias;
            tensor<std::byte, dyn> packed;
        };
        auto& w = layers().keep<made>(name + (Hub ? "/hub" : "/packed"), [&] {
            made m;
            const auto want = [&](std::vector<T>& v, index_t n, double deviation, std::uint32_t stream) {
                v.resize(static_cast<std::size_t>(n));
                fill(v.data(), n, deviation, stream);
            };
            const index_t held = Hub ? experts : 1, up = index_t{E::up_rows} * E::width,
                          down = index_t{E::width} * E::ffn;
            want(m.up, held * up, 1 / std::sqrt(E::width), 1);
            want(m.down, held * down, 1 / std::sqrt(E::ffn), 2);
            want(m.up_bias, index_t{experts} * E::up_rows, 0.1, 3);
            want(m.down_bias, index_t{experts} * E::width, 0.1, 4);
            if (!Hub) {
                m.packed = make_tensor<std::byte, dyn>(ctx, experts * static_cast<index_t>(k::packed_bytes<E>()));
                for (int e = 0; e < experts; ++e)
                    k::pack_expert<E>(m.up.data(), m.down.data(),
                                      m.packed.data() + static_cast<std::size_t>(e) * k::packed_bytes<E>());
            }
            return m;
        });
        std::vector<T> x(static_cast<std::size_t>(rows * E::width));
        fill(x.data(), rows * E::width, 1, input_streams);
        std::vector<float> z(x.size());
        std::vector<std::int32_t> offsets;
        for (int e = 0; e <= experts; ++e) offsets.push_back(static_cast<std::int32_t>(e * each));
        const k::expert_input<T> in{{experts, offsets.data(), rows}, {x.data(), E::width}};
        k::panels_of<T, E::W, E::gated> panels{nullptr,          w.up.data(),        w.down.data(),
                                               w.up_bias.data(), w.down_bias.data(), k::shape_of<E>};
        if (!Hub) panels.packed = reinterpret_cast<const T*>(w.packed.data());
        buffer<std::byte> scratch(static_cast<index_t>(k::expert_scratch_bytes_for<E, varied<Form>>(1, rows)),
                                  ctx.memory());

        const std::vector<cut> all = ways(each);
        std::vector<double> best(all.size(), std::numeric_limits<double>::infinity());
        const auto round = [&](int calls) {
            for (std::size_t i = 0; i < all.size(); ++i) {
                chosen_cut = all[i];
                const double begin = seconds(1);
                for (int call = 0; call < calls; ++call)
                    k::run_stage<varied<Form>, E::act, T, E::bias>(ctx, scratch.data(), k::shape_of<E>, in, panels,
                                                                   float{L::c.limit}, {},
                                                                   k::rows_into<float>{z.data(), E::width});
                best[i] = (std::min)(best[i], (seconds(1) - begin) / calls);
            }
        };
        round(1);
        const double once = *std::min_element(best.begin(), best.end());
        const int calls = static_cast<int>((std::min)(100.0, 1 + 2e-4 / once));
        for (auto _ : s) round(calls);

        const auto winner = static_cast<std::size_t>(std::min_element(best.begin(), best.end()) - best.begin());
        s.counters["regret"] = best[0] / best[winner] - 1;
        s.counters["model_us"] = 1e6 * best[0];
        s.counters["best_us"] = 1e6 * best[winner];
        s.counters["ways"] = static_cast<double>(all.size());
        const cut& won = all[winner];
        s.SetLabel("best: " + std::to_string(won.rows) + " rows, " + std::to_string(won.tiles) + " tiles, " +
                   std::to_string(won.panels) + " panels, " + std::to_string((Hub ? won.hub : won.piece) >> 10) +
                   " KiB, " + std::to_string(won.ahead) + " ahead");
    }
};

template <config C, class T, class Form>
void register_form(const std::string& model, const char* type) {
    for (const index_t tokens : {16, 64, 256, 1024}) {
        const std::string name = model + "/" + type;
        add("blocking/" + name + "/tokens:" + std::to_string(tokens),
            [=](benchmark::State& s) { blocking<layer<C, T>, Form, false>::run(s, name, tokens); });
        add("blocking_hub/" + name + "/tokens:" + std::to_string(tokens),
            [=](benchmark::State& s) { blocking<layer<C, T>, Form, true>::run(s, name, tokens); });
    }
}

template <config C>
void register_shape(const char* model) {
    register_form<C, float, k::chain<float>>(model, "f32");
    register_form<C, bf16, k::dot_form>(model, "bf16_dot");
    register_form<C, bf16, k::portable_form>(model, "bf16_portable");
}

}  // namespace

void register_blocking() {
    register_shape<shapes::tiny>("tiny");
    register_shape<shapes::olmoe>("olmoe");
    register_shape<shapes::mixtral>("mixtral");
}

}  // namespace bench
