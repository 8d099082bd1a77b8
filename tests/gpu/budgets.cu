// One forward call of one layer, for the counters of the emulator: budgets NAME TOKENS (budgets.py). With a third
// argument: what that call cannot do without, as JSON.
// The published layers with hidden and ffn divided by 8; weights packed, tokens random.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

namespace {

/// Anything that is not constant will do: what is counted does not depend on it, but for the routing.
template <class V>
void fill(gf::context<gf::cuda>& gpu, gf::context<gf::cpu>& cpu, V& slot, std::uint64_t seed, double size) {
    using S = typename V::value_type;
    auto host = gf::make_tensor<S, gf::dyn>(cpu, slot.size());
    std::uint64_t state = seed * 2654435761u + 1;
    for (gf::index_t i = 0; i < slot.size(); ++i) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        const double u = static_cast<double>(state >> 11) * 0x1p-52 - 1;
        host.data()[i] = gf::from_accumulate<S>(static_cast<gf::accumulate_t<S>>(u * size));
    }
    gf::copy(gpu, gf::device_view<S, gf::dyn>(slot.data(), {slot.size()}), host.view());
}

template <class L>
int run(const char* name, gf::index_t tokens, bool facts) {
    using S = typename L::value_type;
    gf::context<gf::cpu> cpu(1);
    gf::context<gf::cuda> gpu;
    gf::index_t active = 1;
    {
        auto w = gf::make_weights<L>(gpu);
        std::uint64_t seed = 1;
        gf::for_each_parameter([&](const char*, auto& slot) { fill(gpu, cpu, slot, seed++, 0.1); }, w);
        const auto packed = gf::pack(gpu, w);
        auto x = gf::make_tensor<S, gf::dyn, L::hidden>(gpu, tokens);
        auto y = gf::make_tensor<S, gf::dyn, L::hidden>(gpu, tokens);
        fill(gpu, cpu, x, 99, 1);
        const gf::device_tensor<S, gf::dyn, L::hidden>& tokens_of = x;
        if (!facts) {
            gf::forward(gpu, packed, tokens_of.view(), y.view());
        } else if constexpr (!L::is_dense) {
            auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(gpu, tokens);
            auto weights = gf::make_tensor<float, gf::dyn, L::slots>(gpu, tokens);
            auto logits = gf::make_tensor<float, gf::dyn, L::choices>(gpu, tokens);
            auto host = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(cpu, tokens);
            gf::route(gpu, packed, {.x = tokens_of.view()}, {ids.view(), weights.view(), logits.view()});
            gf::copy(gpu, host, ids);
            bool seen[L::choices] = {};
            active = 0;
            for (gf::index_t i = 0; i < host.size(); ++i) {
                active += seen[host.data()[i]] ? 0 : 1;
                seen[host.data()[i]] = true;
            }
        }
        gpu.synchronize();
    }
    if (!facts) return 0;
    const gf::index_t pairs = tokens * (L::is_dense ? 1 : L::slots);
    // What the stages hand on, written and read once: activations, expert outputs, and the plan.
    const gf::index_t handed = 2 * 2 * pairs * (L::ffn + (L::is_dense ? 0 : L::width)) + 12 * pairs;
    std::printf(
        "{\"layer\": \"%s\", \"tokens\": %lld, \"active\": %lld, \"minimum_bytes\": %lld, \"useful_flops\": %lld}\n",
        name, static_cast<long long>(tokens), static_cast<long long>(active),
        static_cast<long long>(gf::minimum_bytes(L::c, tokens, active, 2) + handed),
        static_cast<long long>(pairs * (L::is_gated ? 6 : 4) * L::width * L::ffn));
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) return std::fprintf(stderr, "usage: budgets NAME TOKENS [facts]\n"), 2;
    const bool facts = argc > 3;
    const gf::index_t tokens = std::atoi(argv[2]);
    const auto is = [&](const char* name) { return std::strcmp(argv[1], name) == 0; };
    if (is("mixtral"))
        return run<gf::layer<
            gf::config{
                .hidden = 512, .ffn = 1792, .experts = 8, .top_k = 2, .router = {.from = gf::score::softmax_selected}},
            gf::bf16>>("mixtral", tokens, facts);
    if (is("qwen3"))
        return run<gf::layer<
            gf::config{
                .hidden = 256, .ffn = 96, .experts = 128, .top_k = 8, .router = {.renorm = gf::renormalise::sum}},
            gf::bf16>>("qwen3", tokens, facts);
    if (is("dense")) return run<gf::layer<gf::config{.hidden = 512, .ffn = 1792}, gf::bf16>>("dense", tokens, facts);
    return 2;
}
