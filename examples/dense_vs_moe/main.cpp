// "More parameters, yet faster: how?" Answered with counts and measured times, and with where a mixture loses.
//
// Three layers with the same kernels: a mixture of 8 experts, 2 per token; a dense layer with as many parameters; a
// dense layer with as many parameters as a token of the mixture uses.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <vector>

#include <gatefold/nn.hpp>

namespace gf = gatefold;

namespace {

// Mixtral 8x7B as published, counted by the compiler.
constexpr gf::decoder_config mixtral{.vocabulary = 32000,
                                     .hidden = 4096,
                                     .layers = 32,
                                     .heads = 32,
                                     .key_value_heads = 8,
                                     .context = 32768,
                                     .layer = {.ffn = 14336, .experts = 8, .top_k = 2, .router = gf::routers::mixtral}};
static_assert(gf::parameters(mixtral) == 46'702'792'704 && gf::active_parameters(mixtral) == 12'879'925'248);

constexpr int hidden = 512, ffn = 1024, experts = 8, top_k = 2;
using mixture =
    gf::layer<gf::config{
                  .hidden = hidden, .ffn = ffn, .experts = experts, .top_k = top_k, .router = gf::routers::mixtral},
              float>;
using expert = gf::layer<gf::config{.hidden = hidden, .ffn = ffn}, float>;
using same_total = gf::layer<gf::config{.hidden = hidden, .ffn = experts* ffn}, float>;
using same_active = gf::layer<gf::config{.hidden = hidden, .ffn = top_k* ffn}, float>;
static_assert(mixture::parameters == same_total::parameters + hidden * experts);
static_assert(mixture::active_parameters == same_active::parameters + hidden * experts);

constexpr gf::index_t most_tokens = 512;
constexpr int repetitions = 15;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
    return values[values.size() / 2];
}
double millions(gf::index_t n) { return static_cast<double>(n) / 1e6; }

/// What a run of `repetitions` calls needs: inputs that change from call to call, so that at one token the experts do.
struct bench {
    gf::context<gf::cpu> ctx;
    gf::weights<mixture> moe = gf::random_weights<mixture>(ctx, gf::seed{1});
    gf::weights<same_total> large = gf::random_weights<same_total>(ctx, gf::seed{2});
    gf::weights<same_active> small = gf::random_weights<same_active>(ctx, gf::seed{3});
    gf::tensor<float, gf::dyn, hidden> x = gf::make_tensor<float, gf::dyn, hidden>(ctx, most_tokens + repetitions);
    gf::tensor<float, gf::dyn, hidden> y = gf::make_tensor<float, gf::dyn, hidden>(ctx, most_tokens);

    bench() {
        const gf::counter_rng random{4};
        for (gf::index_t t = 0; t < x.extent(0); ++t)
            for (int h = 0; h < hidden; ++h) x(t, h) = random.normal(gf::purpose::gaussian, t, h);
    }
    template <class W>
    double seconds(const W& w, gf::index_t tokens, int repetition) {
        const double began = now();
        gf::forward(ctx, w, x.view().slice(repetition, tokens), y.view().slice(0, tokens));
        return now() - began;
    }
};

struct times {
    double moe, large, small;
};

/// Medians; the three take turns, so that whatever else the machine does meets all of them.
times measure(bench& b, gf::index_t tokens) {
    std::vector<double> moe, large, small;
    for (int r = -2; r < repetitions; ++r) {
        const int at = r < 0 ? 0 : r;
        const double a = b.seconds(b.moe, tokens, at), c = b.seconds(b.large, tokens, at),
                     d = b.seconds(b.small, tokens, at);
        if (r < 0) continue;  // warming up
        moe.push_back(a);
        large.push_back(c);
        small.push_back(d);
    }
    return {median(moe), median(large), median(small)};
}

struct routing {
    gf::tensor<std::int32_t, gf::dyn, top_k> ids;
    gf::tensor<float, gf::dyn, top_k> weights;
    gf::tensor<float, gf::dyn, experts> logits;

    routing(bench& b, gf::index_t first, gf::index_t tokens)
        : ids(gf::make_tensor<std::int32_t, gf::dyn, top_k>(b.ctx, tokens)),
          weights(gf::make_tensor<float, gf::dyn, top_k>(b.ctx, tokens)),
          logits(gf::make_tensor<float, gf::dyn, experts>(b.ctx, tokens)) {
        gf::route(b.ctx, b.moe, {.x = b.x.view().slice(first, tokens)}, {ids.view(), weights.view(), logits.view()});
    }
    int distinct() const {
        std::vector<bool> seen(experts);
        for (gf::index_t i = 0; i < ids.size(); ++i) seen[static_cast<std::size_t>(ids.data()[i])] = true;
        return static_cast<int>(std::count(seen.begin(), seen.end(), true));
    }
};

/// The layer without sparsity: every expert runs on every token, and weights of zero do the choosing.
double all_experts(bench& b, const routing& chosen, gf::tensor<float, gf::dyn, hidden>& out) {
    const gf::index_t tokens = out.extent(0);
    auto z = gf::make_tensor<float, gf::dyn, hidden>(b.ctx, tokens);
    const double began = now();
    out.set_zero();
    for (int e = 0; e < experts; ++e) {
        gf::weights_view<expert> one;
        one.gate_up = {b.moe.gate_up.data() + e * gf::index_t{2 * ffn * hidden}, {1, 2 * ffn, hidden}};
        one.down = {b.moe.down.data() + e * gf::index_t{hidden * ffn}, {1, hidden, ffn}};
        gf::forward(b.ctx, one, b.x.view().slice(0, tokens), z.view());
        for (gf::index_t t = 0; t < tokens; ++t) {
            float weight = 0;
            for (int s = 0; s < top_k; ++s)
                if (chosen.ids.data()[t * top_k + s] == e) weight = chosen.weights.data()[t * top_k + s];
            for (int h = 0; h < hidden; ++h) out(t, h) = gf::fma(weight, z(t, h), out(t, h));
        }
    }
    return now() - began;
}

}  // namespace

int main() {
    std::printf("1. What is counted: Mixtral 8x7B\n\n");
    std::printf("   all parameters          %14lld\n", static_cast<long long>(gf::parameters(mixtral)));
    std::printf("   used by one token       %14lld   one in %.3f\n",
                static_cast<long long>(gf::active_parameters(mixtral)),
                static_cast<double>(gf::parameters(mixtral)) / static_cast<double>(gf::active_parameters(mixtral)));
    std::printf("   not 8 x 7B: attention and embeddings exist once. All of them must be in memory.\n\n");

    bench b;
    std::printf("2. What is measured: one layer, hidden %d, 8 experts of width %d, 2 per token, float, %d thread%s\n\n",
                hidden, ffn, b.ctx.threads(), b.ctx.threads() == 1 ? "" : "s");
    std::printf("                                       mixture   dense, same total   dense, same active\n");
    std::printf("   parameters, millions              %9.2f   %17.2f   %18.2f\n", millions(mixture::parameters),
                millions(same_total::parameters), millions(same_active::parameters));
    std::printf("   MFLOP per token                   %9.2f   %17.2f   %18.2f\n", millions(mixture::flops),
                millions(same_total::flops), millions(same_active::flops));
    const gf::index_t sizes[] = {1, 16, most_tokens};
    times t[3] = {};
    int distinct[3] = {};
    for (int i = 0; i < 3; ++i) {
        t[i] = measure(b, sizes[i]);
        distinct[i] = routing(b, 0, sizes[i]).distinct();
        std::printf("   milliseconds, %3lld token%s          %9.3f   %17.3f   %18.3f\n",
                    static_cast<long long>(sizes[i]), sizes[i] == 1 ? " " : "s", 1e3 * t[i].moe, 1e3 * t[i].large,
                    1e3 * t[i].small);
    }
    std::printf("   medians of %d, the three in turn, the same kernels\n\n", repetitions);
    for (int i = 0; i < 3; ++i)
        std::printf(
            "   %3lld token%s: %4.2f x the time of the same total, %4.2f x that of the same active size; %d of 8 "
            "experts read (%.2f expected)\n",
            static_cast<long long>(sizes[i]), sizes[i] == 1 ? " " : "s", t[i].moe / t[i].large, t[i].moe / t[i].small,
            distinct[i], gf::expected_experts(mixture::c, sizes[i]));

    std::printf("\n8. What is skipped: whole experts, not single zeros\n\n");
    const routing chosen(b, 0, most_tokens);
    auto dense_out = gf::make_tensor<float, gf::dyn, hidden>(b.ctx, most_tokens);
    std::vector<double> every;
    for (int r = 0; r < 3; ++r) every.push_back(all_experts(b, chosen, dense_out));
    gf::forward(b.ctx, b.moe, b.x.view().slice(0, most_tokens), b.y.view());
    const bool equal =
        std::memcmp(dense_out.data(), b.y.data(), static_cast<std::size_t>(b.y.size()) * sizeof(float)) == 0;
    constexpr gf::index_t expert_products = 3 * gf::index_t{hidden} * ffn;
    std::printf("   all 8 experts, weights of zero   %8.1f million multiply-adds per token   %8.1f ms\n",
                millions(experts * expert_products), 1e3 * median(every));
    std::printf("   the 2 chosen experts             %8.1f million multiply-adds per token   %8.1f ms\n",
                millions(top_k * expert_products), 1e3 * t[2].moe);
    std::printf("   outputs %s\n\n", equal ? "equal to the bit" : "DIFFER");

    std::printf(
        "How to read this\n"
        "   A token pays for the experts it visits: with many tokens time follows the active size, not the total.\n"
        "   Memory follows the total: all experts must be there, whichever a token will choose.\n"
        "   At one token bytes decide: two experts are read instead of eight, which is the whole gain.\n"
        "   In between nearly every expert is read for few rows each: bytes as the large dense layer, and the gain\n"
        "   shrinks. Against the dense layer of the same active size a mixture is never faster: it routes, gathers "
        "and\n"
        "   combines besides, and holds more memory. What it buys is quality at that price; see train_text.\n");

    const bool faster = t[2].moe < 0.6 * t[2].large;
    if (!faster)
        std::printf("\nunexpected: at %lld tokens the mixture took %.2f x the time of the same total\n",
                    static_cast<long long>(most_tokens), t[2].moe / t[2].large);
    return equal && faster ? 0 : 1;
}
