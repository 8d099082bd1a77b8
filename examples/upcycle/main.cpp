// "A dense model becomes a mixture by copying its FFN": the same function at first, and what comes of it.
//
// A dense decoder is trained. Its FFN is copied into all of eight experts; two of them, weighted by a renormalised
// router, give what the one gave. Both go on for as many steps, beside a mixture that starts from nothing.
// ctest: --seeds 3 --steps 200 --svg upcycle.svg
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "../common/plot.hpp"
#include "../common/program.hpp"
#include "../common/small_model.hpp"

namespace {

namespace gf = gatefold;
using program::spread, program::spread_of;
using small_model::context, small_model::decoder_with, small_model::model, small_model::sequences;

constexpr int experts = 8, ffn = 32, points = 10;
using dense = gf::decoder<decoder_with({.ffn = ffn}), float>;
using mixture =
    gf::decoder<decoder_with({.ffn = ffn, .experts = experts, .top_k = 2, .router = gf::routers::mixtral}), float>;

template <class Slot>
void copy_slot(Slot& to, const Slot& from) {
    std::copy_n(from.data(), from.size(), to.data());
}

/// Copies everything but the router; the dense FFN goes into every expert.
void upcycle(gf::decoder_weights<mixture>& to, const gf::decoder_weights<dense>& from) {
    copy_slot(to.embedding, from.embedding);
    copy_slot(to.norm, from.norm);
    copy_slot(to.head, from.head);
    auto& b = to.blocks[0];
    const auto& d = from.blocks[0];
    copy_slot(b.attention_norm, d.attention_norm);
    copy_slot(b.query, d.query);
    copy_slot(b.key, d.key);
    copy_slot(b.value, d.value);
    copy_slot(b.output, d.output);
    copy_slot(b.layer_norm, d.layer_norm);
    for (int e = 0; e < experts; ++e) {
        std::copy_n(d.layer.gate_up.data(), d.layer.gate_up.size(), b.layer.expert(e).gate_up.data());
        std::copy_n(d.layer.down.data(), d.layer.down.size(), b.layer.expert(e).down.data());
    }
}

struct course {
    std::vector<double> loss;  ///< held out, before the first step and after each of `points` parts
    double step_zero_difference = 0;
    double end() const { return loss.back(); }
};

template <class D>
double held_out(model<D>& m) {
    static const auto text = language::text(1000, 8193);
    return m.held_out(text, {}, [](auto&) {});
}

/// `steps` steps with batches from number `first` on; all models of a seed see the same ones.
template <class D>
course train(model<D>& m, std::uint64_t seed, int first, int steps, double peak) {
    const auto text = language::text(seed, 200000);
    const gf::cosine_schedule schedule{.peak = peak, .warm_up = steps / 20 + 1, .steps = steps, .floor = 0.1};
    course c{{held_out(m)}};
    for (int s = 0; s < steps; ++s) {
        m.train(language::draw(text, seed, first + s, sequences, context), schedule.rate(s), {.training = true},
                [&](auto& tape) {
                    if constexpr (!D::layer_type::is_dense) gf::add_loss(m.ctx, gf::losses::megatron{0.01}, tape);
                });
        if ((s + 1) * points / steps > s * points / steps) c.loss.push_back(held_out(m));
    }
    return c;
}

/// The largest difference of logits between two models on a batch that neither has seen.
double largest_difference(model<dense>& a, model<mixture>& b) {
    const auto batch = language::in_order(language::text(2000, 1000), 0, sequences, context);
    gf::forward(a.ctx, a.weights, model<dense>::of(batch.ids), a.tape);
    gf::forward(b.ctx, b.weights, model<mixture>::of(batch.ids), b.tape);
    double most = 0;
    for (gf::index_t i = 0; i < a.tape.logits().size(); ++i)
        most = (std::max)(most, std::fabs(double{a.tape.logits().data()[i]} - double{b.tape.logits().data()[i]}));
    return most;
}

struct comparison {
    course before, dense, upcycled, scratch, long_scratch;
};

comparison compare(std::uint64_t seed, int steps) {
    constexpr double peak = 1e-2, again = 5e-3;
    comparison c;
    model<dense> trained(seed);
    c.before = train(trained, seed, 0, steps, peak);
    model<dense> goes_on(seed);
    gf::for_each_parameter([](const char*, auto& to, const auto& from) { copy_slot(to, from); }, goes_on.weights,
                           trained.weights);
    model<mixture> upcycled(seed);
    upcycle(upcycled.weights, trained.weights);
    const double difference = largest_difference(trained, upcycled);
    c.dense = train(goes_on, seed, steps, steps, again);
    c.upcycled = train(upcycled, seed, steps, steps, again);
    c.upcycled.step_zero_difference = difference;
    model<mixture> scratch(seed);
    c.scratch = train(scratch, seed, steps, steps, peak);
    model<mixture> long_scratch(seed);
    c.long_scratch = train(long_scratch, seed, 0, 2 * steps, peak);
    return c;
}

}  // namespace

int main(int count, char** values) try {
    program::arguments given(count, values, "[--seeds N] [--steps N] [--svg FILE]");
    const int seeds = given.number("--seeds", 6, 2, 1000), steps = given.number("--steps", 400, 40, 100000);
    const std::string svg = given.text("--svg");
    given.done();
    const auto began = std::chrono::steady_clock::now();

    std::vector<comparison> all(static_cast<std::size_t>(seeds));
    program::side_by_side(
        seeds, [&](int i) { all[static_cast<std::size_t>(i)] = compare(static_cast<std::uint64_t>(i) + 1, steps); });

    const auto at = [&](course comparison::*which, std::size_t point) {
        std::vector<double> losses;
        for (const comparison& c : all) losses.push_back((c.*which).loss[point]);
        return spread_of(losses);
    };
    double difference = 0;
    for (const comparison& c : all) difference = (std::max)(difference, c.upcycled.step_zero_difference);

    std::printf(
        "A dense decoder of %lld parameters, %d steps; then %d more of each. Mixture: %lld, of which a token uses "
        "%lld.\n",
        static_cast<long long>(dense::parameters), steps, steps, static_cast<long long>(mixture::parameters),
        static_cast<long long>(mixture::active_parameters));
    std::printf("Seeds 1 to %d, mean held-out loss in nats per symbol (lowest..highest)\n\n", seeds);
    std::printf("   steps   dense goes on             upcycled                  mixture from scratch\n");
    for (std::size_t p = 0; p <= points; ++p) {
        const spread d = at(&comparison::dense, p), u = at(&comparison::upcycled, p), s = at(&comparison::scratch, p);
        std::printf("   %5d   %6.4f (%6.4f..%6.4f)   %6.4f (%6.4f..%6.4f)   %6.4f (%6.4f..%6.4f)\n",
                    static_cast<int>(p) * steps / points, d.mean, d.low, d.high, u.mean, u.low, u.high, s.mean, s.low,
                    s.high);
    }
    const spread whole = at(&comparison::long_scratch, points);
    std::printf("\n   from scratch with all %d steps: %6.4f (%6.4f..%6.4f)\n", 2 * steps, whole.mean, whole.low,
                whole.high);
    std::printf("   largest difference of logits at step 0, upcycled and dense: %.1e\n\nWhat must hold\n", difference);

    const spread d = at(&comparison::dense, points), u = at(&comparison::upcycled, points);
    program::claims claims;
    claims.expect(difference < 1e-5, "at step 0 the mixture computes what the dense model computes");
    claims.expect(u.mean <= d.mean, "after as many steps the upcycled model is not worse than the dense one");
    claims.expect(at(&comparison::upcycled, 2).high < at(&comparison::scratch, 2).low,
                  "early, every upcycled model is ahead of every mixture from scratch");

    std::printf(
        "\nHow to read this\n"
        "   Two experts per token cost twice the FFN of the dense model: as many steps are not as much arithmetic.\n"
        "   Experts start equal and grow apart because they see different tokens. A mixture from scratch that is "
        "given\n"
        "   the steps of both phases is %s here (%.4f against %.4f): what has been learnt\n"
        "   saves time, it does not raise the ceiling.\n",
        whole.mean < u.mean ? "better" : "not better", whole.mean, u.mean);
    if (!svg.empty()) {
        const auto line = [&](const char* name, const char* colour, course comparison::*which) {
            plot::line_of_plot l{name, colour, {}, false, true};
            // A model without training would hide what is between the others.
            for (std::size_t p = which == &comparison::scratch ? 2 : 0; p <= points; ++p)
                l.points.emplace_back(static_cast<double>(p) * steps / points, at(which, p).mean);
            return l;
        };
        plot::write_svg(svg, {plot::line_plot({line("dense goes on", "var(--b)", &comparison::dense),
                                               line("upcycled", "var(--a)", &comparison::upcycled),
                                               line("mixture from scratch", "var(--c)", &comparison::scratch)},
                                              "step", "held-out loss")});
        std::printf("\nwrote %s", svg.c_str());
    }
    std::printf("\n%.1f s\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    return claims.result();
} catch (const std::exception& e) {
    std::fprintf(stderr, "upcycle: %s\n", e.what());
    return 2;
}
