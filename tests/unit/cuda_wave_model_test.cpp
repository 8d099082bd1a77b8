// The model that chooses among the kernels of 16-bit layers: its times beside those of an H200, its choices, its
// bounds.
#include <algorithm>
#include <cmath>

#include <boost/test/unit_test.hpp>

#include <gatefold/cuda/experts/layout.hpp>
#include <gatefold/cuda/experts/wave_model.hpp>

namespace on_cuda = gatefold::detail::on_cuda;
using on_cuda::arrangement;
using on_cuda::product_extents;

namespace {

constexpr on_cuda::device_extents h200{132, 227 * 1024}, a100{108, 163 * 1024}, small_memory{84, 99 * 1024};

/// A published layer, and microseconds of its experts and of the dense layer that costs a token as much
/// (bench/results/nvidia-h200.md, bf16, mean).
struct measured {
    const char* name;
    int experts, choices, hidden, ffn;
    double experts_took[7], dense_took[7];
};
constexpr int token_counts[] = {1, 4, 16, 64, 256, 1024, 8192};
constexpr measured layers[] = {
    {"tiny", 8, 2, 256, 512, {7.4, 8.1, 12.8, 15.0, 20.8, 22.2, 63.2}, {7.8, 7.8, 7.7, 21.0, 26.1, 26.3, 54.9}},
    {"olmoe",
     64,
     8,
     2048,
     1024,
     {29.6, 86.4, 179.6, 194.0, 211.5, 313.9, 1552.8},
     {43.3, 42.6, 42.6, 96.9, 133.8, 224.5, 1395.2}},
    {"qwen3",
     128,
     8,
     2048,
     768,
     {24.0, 71.2, 190.8, 284.2, 298.0, 342.7, 1298.6},
     {34.4, 34.2, 35.4, 79.1, 108.1, 170.2, 1054.6}},
    {"gptoss",
     32,
     4,
     2880,
     2880,
     {54.8, 167.3, 345.1, 388.7, 445.8, 719.8, 3475.6},
     {70.1, 69.1, 69.1, 162.7, 259.3, 458.9, 3183.3}},
    {"mixtral",
     8,
     2,
     4096,
     14336,
     {168.2, 520.0, 631.3, 647.7, 691.4, 1563.4, 10103.0},
     {211.9, 199.9, 195.7, 361.6, 584.3, 1170.5, 9961.8}},
};

/// Microseconds of both products of a gated layer.
double predicted(arrangement a, int tokens, int choices, int experts, int hidden, int ffn) {
    const product_extents up{tokens, choices, experts, 2 * ffn, hidden}, down{tokens, choices, experts, hidden, ffn};
    return 1e-3 * (on_cuda::time_of(a, up, h200.multiprocessors) + on_cuda::time_of(a, down, h200.multiprocessors));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(cuda_wave_model)

BOOST_AUTO_TEST_CASE(times_are_those_of_the_h200) {
    double squares = 0;
    int n = 0;
    const auto check = [&](double model, double card, const char* name, const char* stage, int tokens) {
        BOOST_TEST((model > 0.8 * card && model < 1.2 * card),
                   name << ' ' << stage << ' ' << tokens << ": " << model << " and on the card " << card);
        squares += std::log(model / card) * std::log(model / card);
        ++n;
    };
    for (const measured& m : layers)
        for (int i = 0; i < 7; ++i) {
            const int tokens = token_counts[i], pairs = tokens * m.choices;
            // The kernels that took these times: strips to 2 rows per expert, tiles of 64 rows to 48, of 128 beyond.
            const arrangement a = pairs <= 2 * m.experts   ? arrangement::strips
                                  : pairs < 48 * m.experts ? arrangement::tiles_of_64x256
                                                           : arrangement::tiles_of_128x256;
            check(predicted(a, tokens, m.choices, m.experts, m.hidden, m.ffn), m.experts_took[i], m.name, "experts",
                  tokens);
            // Strips of single experts had a quarter of the ring that they have.
            if (tokens >= 64)
                check(predicted(arrangement::tiles_of_128x256, tokens, 1, 1, m.hidden, m.ffn * m.choices),
                      m.dense_took[i], m.name, "dense", tokens);
        }
    BOOST_TEST(std::sqrt(squares / n) < 0.1, "typical error " << std::sqrt(squares / n));
}

// Layers with a list of tiles choose by rows per expert: that is within a thirtieth of the model's best, but for a
// layer so small that the start of a tile is most of its time.
BOOST_AUTO_TEST_CASE(lists_are_cut_nearly_as_the_model_would) {
    for (const measured& m : layers)
        for (const int tokens : token_counts) {
            if (m.hidden < 1024) continue;
            const auto time = [&](arrangement a) {
                return predicted(a, tokens, m.choices, m.experts, m.hidden, m.ffn);
            };
            double best = time(arrangement::strips);
            for (const arrangement a : on_cuda::listed_arrangements) best = std::min(best, time(a));
            const int rows = on_cuda::rows_of_regime(
                on_cuda::regime_of(gatefold::index_t{tokens} * m.choices, m.experts, h200.shared_bytes));
            for (const arrangement a : on_cuda::listed_arrangements)
                if (on_cuda::extents_of(a).rows == rows)
                    BOOST_TEST(time(a) <= 1.034 * best, m.name << ' ' << tokens << ": " << time(a) << " of " << best);
        }
}

BOOST_AUTO_TEST_CASE(experts_that_chance_visits) {
    for (const int experts : {2, 8, 128})
        for (const int choices : {1, 2})
            for (const int tokens : {1, 2, 5, 64, 1000}) {
                const product_extents p{tokens, choices, experts, 64, 64};
                const double expected =
                    experts * (1 - std::pow(1 - static_cast<double>(choices) / experts, static_cast<double>(tokens)));
                BOOST_TEST(p.visited() == expected, boost::test_tools::tolerance(1e-9));
                BOOST_TEST(p.tiles(8) >= p.visited());
                BOOST_TEST(p.tiles(8) >= p.tiles(64));
            }
    static_assert(product_extents{1000, 1, 1, 64, 64}.visited() == 1);
    static_assert(product_extents{129, 1, 1, 64, 64}.tiles(64) == 3);
}

BOOST_AUTO_TEST_CASE(waves_round_up) {
    constexpr auto waves = [](int weight_rows, int tokens) {
        return on_cuda::waves_of(arrangement::tiles_of_64x64, {tokens, 1, 1, weight_rows, 64}, 132);
    };
    static_assert(waves(64, 64).items == 1 && waves(64, 64).waves == 1);
    static_assert(waves(132 * 64, 64).items == 132 && waves(132 * 64, 64).waves == 1);
    static_assert(waves(132 * 64 + 1, 64).items == 133 && waves(132 * 64 + 1, 64).waves == 2);
    static_assert(waves(132 * 64, 65).items == 264 && waves(132 * 64, 65).waves == 2);
}

BOOST_AUTO_TEST_CASE(a_single_expert_is_cut_so_that_it_fills_the_device) {
    // The down projection of Qwen3's dense twin: 2048 outputs of depth 6144.
    constexpr auto down = [](int tokens) { return on_cuda::arrangement_of({tokens, 1, 1, 2048, 6144}, h200); };
    static_assert(down(1) == arrangement::strips && down(8) == arrangement::strips);
    static_assert(down(64) == arrangement::tiles_of_64x64 && down(256) == arrangement::tiles_of_64x64);
    static_assert(down(8192) == arrangement::tiles_of_128x256);
    constexpr auto up = [](int tokens) { return on_cuda::arrangement_of({tokens, 1, 1, 12288, 2048}, h200); };
    static_assert(up(1) == arrangement::strips && up(256) == arrangement::tiles_of_128x256);
}

BOOST_AUTO_TEST_CASE(nothing_is_chosen_that_a_device_has_no_room_for) {
    for (const on_cuda::device_extents& d : {h200, a100, small_memory, on_cuda::device_extents{40, 64 * 1024}})
        for (int tokens = 1; tokens < 20000; tokens = tokens * 3 / 2 + 1)
            for (const int width : {16, 512, 4096}) {
                const arrangement a = on_cuda::arrangement_of({tokens, 1, 1, width, 1024}, d);
                BOOST_TEST((a == arrangement::strips || on_cuda::extents_of(a).shared_bytes <= d.shared_bytes));
            }
    static_assert(on_cuda::resident_blocks(96 * 1024, h200.shared_bytes) == 2);
    static_assert(on_cuda::resident_blocks(96 * 1024, a100.shared_bytes) == 1);
    static_assert(on_cuda::resident_blocks(144 * 1024, h200.shared_bytes) == 1);
    static_assert(on_cuda::resident_blocks(16 * 1024, h200.shared_bytes) == 13);
}

BOOST_AUTO_TEST_CASE(few_strips_use_the_rings_of_all_blocks) {
    using shape = on_cuda::few_rows_shape;
    static_assert(shape::shared_bytes == 96 * 1024);
    for (const on_cuda::device_extents& d : {h200, a100}) {
        const int blocks = d.multiprocessors * on_cuda::resident_blocks(shape::shared_bytes, d.shared_bytes);
        for (int items = 1; items < 5000; ++items) {
            const int warps = on_cuda::few_rows_warps(items, d);
            BOOST_TEST((warps == 1 || warps == 2 || warps == 4));
            const int busy = items < blocks * warps ? items : blocks * warps;
            // Every item at once while there is a warp for it, and its copies fill half of what all rings hold.
            BOOST_TEST((busy == items || warps == shape::most_warps));
            const int places = shape::most_warps / warps * shape::stages,
                      all = blocks * shape::most_warps * shape::stages;
            if (items >= blocks / 2) BOOST_TEST(2 * busy * places >= all);
        }
    }
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
