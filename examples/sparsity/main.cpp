// "Most weights of an expert can go: what does that cost, and what does it save?" Loss, bytes and time over sparsity.
//
// A decoder with a mixture of relu_squared experts is trained. Of every expert matrix the blocks of least norm become
// zero, a share of them at a time; each pruned model is then trained a little more with its zeros held. A sparse layer
// neither stores nor reads them, and gives the bits of the packed layer.
// ctest: --seeds 2 --steps 120 --svg sparsity.svg
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include <gatefold/moe/sparse.hpp>

#include "../common/plot.hpp"
#include "../common/program.hpp"
#include "../common/small_model.hpp"

namespace {

namespace gf = gatefold;
using program::spread, program::spread_of;
using small_model::context, small_model::model, small_model::sequences;

constexpr int percentages[] = {0, 25, 50, 75, 90}, levels = 5;
constexpr gf::decoder_config shape{
    .vocabulary = language::symbols,
    .hidden = 64,
    .layers = 1,
    .heads = 2,
    .context = context,
    .layer = {
        .ffn = 512, .experts = 4, .top_k = 2, .act = gf::activation::relu_squared, .router = gf::routers::mixtral}};
using decoder = gf::decoder<shape, float>;
using mixture = decoder::layer_type;

struct level {
    double pruned = 0, healed = 0;  ///< held-out loss at once, and after more steps
    double bytes = 0, packed_bytes = 0;
    double time = 0, packed_time = 0;  ///< seconds of one call with one token
    bool same_bits = false;
};
struct outcome {
    double loss = 0, idle = 0;  ///< of the trained model: held-out loss, share of activations that are zero
    level at[levels];
};

double held_out(model<decoder>& m) {
    static const auto text = language::text(1000, 8193);
    return m.held_out(text, {}, [](auto&) {});
}

double step(model<decoder>& m, const std::vector<std::int32_t>& text, std::uint64_t seed, int number, double rate) {
    return m.train(language::draw(text, seed, number, sequences, context), rate, {.training = true},
                   [&](auto& tape) { gf::add_loss(m.ctx, gf::losses::megatron{0.01}, tape); });
}

void copy_weights(gf::decoder_weights<decoder>& to, const gf::decoder_weights<decoder>& from) {
    gf::for_each_parameter([](const char*, auto& t, const auto& f) { std::copy_n(f.data(), f.size(), t.data()); }, to,
                           from);
}

/// The least time of many calls with one token each.
template <class W>
double time_of(gf::context<gf::cpu>& ctx, const W& w, gf::tensor<float, gf::dyn, 64>& x,
               gf::tensor<float, gf::dyn, 64>& y) {
    using clock = std::chrono::steady_clock;
    double least = 1;
    for (int round = 0; round < 200; ++round) {
        const auto begin = clock::now();
        for (gf::index_t t = 0; t < x.extent(0); ++t)
            gf::forward(ctx, w, std::as_const(x).view().slice(t, 1), y.view().slice(t, 1));
        least = (std::min)(least, std::chrono::duration<double>(clock::now() - begin).count());
    }
    return least / static_cast<double>(x.extent(0));
}

void measure_layer(level& l, const gf::weights<mixture>& w) {
    gf::context<gf::cpu> ctx(1);
    const auto packed = gf::pack(ctx, w);
    const auto sparse = gf::pack_sparse(ctx, w);
    gf::tensor<float, gf::dyn, 64> x({16, 64}), of_packed({16, 64}), of_sparse({16, 64});
    const gf::counter_rng draw{9, 0, 0};
    for (gf::index_t i = 0; i < x.size(); ++i)
        x.data()[i] = static_cast<float>(draw.normal<double>(gf::purpose::initialisation, i, 0));
    l.packed_time = time_of(ctx, packed, x, of_packed);
    l.time = time_of(ctx, sparse, x, of_sparse);
    l.same_bits = std::memcmp(of_packed.data(), of_sparse.data(), 16 * 64 * sizeof(float)) == 0;
    l.bytes = static_cast<double>(sparse.bytes());
    l.packed_bytes = static_cast<double>(packed.matrices.size());
}

outcome examine(std::uint64_t seed, int steps) {
    outcome o;
    const auto text = language::text(seed, 200000);
    model<decoder> trained(seed);
    const gf::cosine_schedule schedule{.peak = 5e-3, .warm_up = steps / 20 + 1, .steps = steps, .floor = 0.1};
    for (int s = 0; s < steps; ++s) step(trained, text, seed, s, schedule.rate(s));
    o.loss = held_out(trained);
    const auto pre = trained.routing().gate_up();
    double zeros = 0;
    for (gf::index_t i = 0; i < pre.size(); ++i) zeros += pre.data()[i] <= 0;
    o.idle = zeros / static_cast<double>(pre.size());
    for (int i = 0; i < levels; ++i) {
        model<decoder> m(seed);
        copy_weights(m.weights, trained.weights);
        gf::weights<mixture>& layer = m.layer();
        gf::prune_blocks(m.ctx, layer, percentages[i] / 100.0);
        level& l = o.at[i];
        l.pruned = held_out(m);
        const auto hold = [](std::vector<bool>& zero, auto& slot, bool first) {
            zero.resize(static_cast<std::size_t>(slot.size()));
            for (gf::index_t j = 0; j < slot.size(); ++j) {
                const auto at = static_cast<std::size_t>(j);
                if (first) zero[at] = slot.data()[j] == 0;
                if (zero[at]) slot.data()[j] = 0;
            }
        };
        std::vector<bool> up, down;
        hold(up, layer.up, true), hold(down, layer.down, true);
        for (int s = 0; s < steps / 4; ++s) {
            step(m, text, seed, steps + s, 1e-3);
            hold(up, layer.up, false), hold(down, layer.down, false);
        }
        l.healed = held_out(m);
        measure_layer(l, layer);
    }
    return o;
}

}  // namespace

int main(int count, char** values) try {
    program::arguments given(count, values, "[--seeds N] [--steps N] [--svg FILE]");
    const int seeds = given.number("--seeds", 3, 1, 1000), steps = given.number("--steps", 200, 40, 100000);
    const std::string svg = given.text("--svg");
    given.done();
    const auto began = std::chrono::steady_clock::now();

    std::vector<outcome> all(static_cast<std::size_t>(seeds));
    program::side_by_side(
        seeds, [&](int i) { all[static_cast<std::size_t>(i)] = examine(static_cast<std::uint64_t>(i) + 1, steps); });
    const auto at = [&](int i, double level::*which) {
        std::vector<double> v;
        for (const outcome& o : all) v.push_back(o.at[i].*which);
        return spread_of(v);
    };
    std::vector<double> losses, idle;
    bool same = true, untouched = true;
    for (const outcome& o : all) {
        losses.push_back(o.loss);
        idle.push_back(o.idle);
        untouched = untouched && !(o.loss < o.at[0].pruned) && !(o.at[0].pruned < o.loss);
        for (const level& l : o.at) same = same && l.same_bits;
    }

    std::printf("Experts of %d x %d x %d weights, relu_squared; %d steps, then %d more after pruning.\n",
                mixture::experts, 2 * mixture::ffn, mixture::hidden, steps, steps / 4);
    std::printf("Seeds 1 to %d; %.0f %% of the activations of the trained model are zero.\n\n", seeds,
                100 * spread_of(idle).mean);
    std::printf("   blocks    held-out loss in nats per symbol               layer       time of a token (1 thread)\n");
    std::printf("   zero      at once   after more steps (low..high)         bytes       sparse     packed\n");
    for (int i = 0; i < levels; ++i) {
        const spread p = at(i, &level::pruned), h = at(i, &level::healed);
        std::printf("   %3d %%    %7.4f     %6.4f (%6.4f..%6.4f)    %9.0f    %6.2f us   %6.2f us\n", percentages[i],
                    p.mean, h.mean, h.low, h.high, at(i, &level::bytes).mean, 1e6 * at(i, &level::time).low,
                    1e6 * at(i, &level::packed_time).low);
    }
    int sweet = 0;
    const double full = at(0, &level::healed).mean;
    for (int i = 0; i < levels; ++i)
        if (at(i, &level::healed).mean <= full + 0.05) sweet = i;
    std::printf("\n   Most sparsity within 0.05 nats of the full model trained as long: %d %%.\n\nWhat must hold\n",
                percentages[sweet]);

    program::claims claims;
    claims.expect(same, "sparse layers give the bits of the packed ones at every level");
    claims.expect(untouched, "pruning nothing changes nothing");
    claims.expect(at(4, &level::bytes).mean < 0.15 * at(0, &level::bytes).mean,
                  "with 90 % of the blocks zero, less than 15 % of the bytes are stored");
    claims.expect(at(0, &level::bytes).mean < 1.05 * at(0, &level::packed_bytes).mean,
                  "a sparse layer without zeros is hardly larger than a packed one");
    claims.expect(at(4, &level::pruned).mean > at(0, &level::pruned).mean,
                  "90 % pruned at once is worse than the full model");
    claims.expect(at(4, &level::healed).mean < at(4, &level::pruned).mean, "more steps make up for some of it");

    std::printf(
        "\nHow to read this\n"
        "   A layer this small lives in the cache: time follows bytes less than it does for layers that come from\n"
        "   memory (docs/sparsity.md). Blocks are 32 x 32 weights; zeros that are scattered save nothing.\n");
    if (!svg.empty()) {
        const auto line = [&](const char* name, const char* colour, double level::*which) {
            plot::line_of_plot l{name, colour, {}, false, true};
            for (int i = 0; i < levels; ++i) l.points.emplace_back(percentages[i], at(i, which).mean);
            return l;
        };
        plot::write_svg(svg, {plot::line_plot({line("pruned", "var(--b)", &level::pruned),
                                               line("after more steps", "var(--a)", &level::healed)},
                                              "% of blocks zero", "held-out loss")});
        std::printf("\nwrote %s", svg.c_str());
    }
    std::printf("\n%.1f s\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    return claims.result();
} catch (const std::exception& e) {
    std::fprintf(stderr, "sparsity: %s\n", e.what());
    return 2;
}
