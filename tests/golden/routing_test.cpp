// The router alone against reference implementations: logits, ids, weights, and their gradients, for every block of the
// golden gradients; ids and weights for every model whose router needs no state beside its logits. Skipped with a
// message where the files are not at hand.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/cpu/router/router.hpp>
#include <tests/oracle/safetensors.hpp>

#include "golden_path.hpp"

namespace {

namespace gf = gatefold;
namespace on_cpu = gf::detail::on_cpu;
using values = std::vector<double>;
using golden_data::golden_path;

/// max |a - b| <= tolerance · max |b|.
void check_close(const char* what, const double* mine, const values& theirs, double tolerance = 1e-11) {
    double difference = 0, largest = 0;
    for (std::size_t i = 0; i < theirs.size(); ++i) {
        const double d = std::fabs(mine[i] - theirs[i]);
        if (!(d <= difference)) difference = d;
        largest = std::fabs(theirs[i]) > largest ? std::fabs(theirs[i]) : largest;
    }
    BOOST_TEST(difference <= tolerance * largest, what << ": error " << difference << " of " << largest);
}

values first_of(const oracle::tensor_file& f, const std::vector<std::string>& names) {
    for (const std::string& name : names)
        if (f.has(name)) return f.get(name);
    return {};
}

std::vector<std::string> names_of_router(const std::string& prefix) {
    return {prefix + "gate.weight", prefix + "router.weight", prefix + "router.layer.weight",
            prefix + "router.classifier.weight"};
}
std::vector<std::string> names_of_selection_bias(const std::string& prefix) {
    return {prefix + "gate.e_score_correction_bias", prefix + "gate.moe_statics.e_score_correction_bias",
            prefix + "router.e_score_correction_bias", prefix + "e_score_correction_bias", prefix + "expert_bias"};
}

/// The selection bias of the layer that a block belongs to, under whatever name the hub stores it.
values selection_bias_of(const oracle::tensor_file& model, const std::string& block) {
    const std::size_t digit = block.find_first_of("0123456789");
    const std::string layer = "." + block.substr(digit, block.find('.', digit) - digit) + ".";
    for (const auto& [name, tensor] : model.tensors)
        if (name.find(layer) != std::string::npos &&
            (name.ends_with("correction_bias") || name.ends_with("expert_bias") || name.ends_with("gate.bias")))
            return tensor.data;
    return {};
}

template <class Slot>
void load(Slot& slot, const values& from) {
    if constexpr (gf::is_present<Slot>) {
        BOOST_REQUIRE(slot.size() == static_cast<gf::index_t>(from.size()));
        for (gf::index_t i = 0; i < slot.size(); ++i) slot.data()[i] = from[static_cast<std::size_t>(i)];
    }
}

/// The reference's choice and weights of every token, whatever the order of its slots; -1 there is a dropped pair.
template <int S>
void check_choice(const std::int32_t* ids, const double* weights, const values& their_ids, const values& their_weights,
                  double tolerance) {
    bool same = true;
    double error = 0, largest = 0;
    for (std::size_t first = 0; first < their_ids.size(); first += S)
        for (std::size_t s = first; s < first + S; ++s) {
            if (their_ids[s] < 0) continue;
            largest = std::fabs(their_weights[s]) > largest ? std::fabs(their_weights[s]) : largest;
            bool found = false;
            for (std::size_t m = first; m < first + S; ++m)
                if (ids[m] == static_cast<std::int32_t>(their_ids[s])) {
                    found = true;
                    error = (std::max)(error, std::fabs(weights[m] - their_weights[s]));
                }
            same = same && found;
        }
    BOOST_TEST(same, "other experts");
    BOOST_TEST(error <= tolerance * largest, "weights: error " << error << " of " << largest);
}

enum class choice { own, given };

/// One block of the golden gradients through route and its backward, in double.
template <gf::config C>
void block(const std::string& name, choice how = choice::own) {
    const std::string file = "gradients/blocks/" + name + ".safetensors";
    if (golden_path(file).empty()) return;
    using L = gf::layer<C, double>;
    const oracle::tensor_file f = oracle::read_safetensors(golden_path(file));
    BOOST_TEST_CONTEXT(name) {
        const values rows = f.get("x"), their_ids = f.get("router.ids"), d_weights = f.get("grad.router.weights");
        const auto tokens = static_cast<gf::index_t>(rows.size()) / L::hidden;
        gf::context<gf::cpu> ctx(2);
        auto w = gf::make_weights<L>(ctx);
        load(w.router, first_of(f, names_of_router("param.")));
        load(w.router_bias, f.get("param.router.bias"));
        load(w.selection_bias, first_of(f, names_of_selection_bias("param.")));
        auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, tokens);
        auto weights = gf::make_tensor<double, gf::dyn, L::slots>(ctx, tokens),
             dw = gf::make_tensor<double, gf::dyn, L::slots>(ctx, tokens);
        auto logits = gf::make_tensor<double, gf::dyn, L::choices>(ctx, tokens),
             dz = gf::make_tensor<double, gf::dyn, L::choices>(ctx, tokens);
        gf::batch<L> in;
        in.x = {rows.data(), {tokens, L::hidden}};
        std::vector<std::int32_t> given;
        for (const double id : their_ids) given.push_back(static_cast<std::int32_t>(id));
        if (how == choice::given) in.chosen = {given.data(), {tokens, L::slots}};
        const gf::routing_view<L> routing{ids.view(), weights.view(), logits.view()};
        gf::route(ctx, w, in, routing);
        if constexpr (C.capacity.rule != gf::capacity_rule::none) {
            auto kept = gf::make_tensor<std::uint8_t, gf::dyn>(ctx, tokens * L::slots);
            gf::apply_capacity(ctx, in, routing, kept.view());
            for (gf::index_t i = 0; i < kept.size(); ++i)
                BOOST_TEST((kept.data()[i] != 0) == (given[static_cast<std::size_t>(i)] >= 0));
        }
        check_close("logits", logits.data(), f.get("router.logits"));
        // Sampled picks are weighted by q times a factor that backward does not see.
        check_choice<L::slots>(ids.data(), weights.data(), their_ids,
                               f.get(f.has("router.q") ? "router.q" : "router.weights"), 1e-11);

        dw.set_zero();
        dz.set_zero();
        for (gf::index_t t = 0; t < tokens; ++t)
            for (int s = 0; s < L::slots; ++s)
                for (int m = 0; m < L::slots; ++m)
                    if (ids(t, m) == given[static_cast<std::size_t>(t * L::slots + s)])
                        dw(t, m) = d_weights[static_cast<std::size_t>(t * L::slots + s)];
        on_cpu::route_backward(ctx, w, in, {}, routing, dw.view(), dz.view());
        check_close("gradient of the logits", dz.data(), f.get("grad.router.logits"));
        auto g = gf::make_gradients<L>(ctx);
        auto dx = gf::make_tensor<double, gf::dyn, L::hidden>(ctx, tokens);
        dx.set_zero();
        std::vector<std::byte> memory(on_cpu::route_backward_scratch_bytes<L>(tokens, 2) + 64);
        on_cpu::route_parameters_backward(ctx, w, in, {}, dz.view(), dx.view(), g, false,
                                          memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64));
        check_close("gradient of the router", g.router.data(), first_of(f, names_of_router("grad.")));
        if constexpr (C.router.bias)
            check_close("gradient of the bias", g.router_bias.data(), f.get("grad.router.bias"));
    }
}

constexpr gf::config block_config(int experts, int k, gf::router_config r, gf::capacity_config c = {},
                                  gf::free_experts free = {}) {
    gf::config out{.hidden = 24, .ffn = 1, .experts = experts, .top_k = k};
    out.router = r;
    out.capacity = c;
    out.free = free;
    return out;
}

/// A model's last MoE block: its logits through the choice and the weights, in double and in float.
template <gf::router_config R, int E, int K, class T = double>
void model(const std::string& name) {
    const std::string file = "models/" + name + "/golden.safetensors",
                      weights_file = "models/" + name + "/model.safetensors";
    if (golden_path(file).empty()) return;
    constexpr int N = E;
    // Logits are the input: a projection by the identity.
    using L = gf::layer<gf::config{.hidden = N, .ffn = 1, .experts = E, .top_k = K, .router = R}, T>;
    // A scale is a float: one that is no dyadic fraction is a little off in double.
    constexpr double tolerance = R.scale * 2 == static_cast<float>(static_cast<int>(R.scale * 2)) ? 1e-11 : 1e-7;
    const oracle::tensor_file f = oracle::read_safetensors(golden_path(file));
    BOOST_TEST_CONTEXT(name) {
        const values z = f.get("router.logits64");
        const auto tokens = static_cast<gf::index_t>(z.size()) / N;
        gf::context<gf::cpu> ctx(1);
        auto w = gf::make_weights<L>(ctx);
        for (int e = 0; e < N; ++e) w.router(e, e) = 1;
        if constexpr (R.selection_bias != gf::key_bias::none) {
            const oracle::tensor_file m = oracle::read_safetensors(golden_path(weights_file));
            const values bias = selection_bias_of(m, f.metadata.at("block"));
            BOOST_REQUIRE(static_cast<int>(bias.size()) == N);
            for (int e = 0; e < N; ++e) w.selection_bias.data()[e] = T(bias[static_cast<std::size_t>(e)]);
        }
        auto x = gf::make_tensor<T, gf::dyn, N>(ctx, tokens);
        for (gf::index_t i = 0; i < x.size(); ++i) x.data()[i] = T(z[static_cast<std::size_t>(i)]);
        auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, tokens);
        auto weights = gf::make_tensor<T, gf::dyn, L::slots>(ctx, tokens);
        auto logits = gf::make_tensor<T, gf::dyn, N>(ctx, tokens);
        gf::batch<L> in{.x = x.view()};
        gf::route(ctx, w, in, {ids.view(), weights.view(), logits.view()});
        const values as_double(weights.data(), weights.data() + weights.size());
        check_choice<K>(ids.data(), as_double.data(), f.get("router.ids"), f.get("router.weights64"),
                        sizeof(T) == 8 ? tolerance : 3e-6);
    }
    if constexpr (sizeof(T) == 8) model<R, E, K, float>(name);
}

using gf::router_config;
using gf::with;
/// gpt-oss whose logits come with their bias.
constexpr router_config softmax_of_biased_logits = with(gf::routers::gpt_oss, &router_config::bias, false);
constexpr router_config grouped(router_config r, int groups, int kept) {
    r.groups = groups;
    r.kept_groups = kept;
    r.group_by = groups > 1 ? r.group_by : gf::group_key::none;
    return r;
}

/// NLLB's top-2 choice with a capacity of 9 of 31 tokens: the dense combine matrix.
template <bool After, bool ByPriority>
void top2_capacity(const oracle::tensor_file& f) {
    constexpr gf::capacity_config capacity{.rule = gf::capacity_rule::nllb,
                                           .factor = 0.29f,
                                           .keeps = ByPriority ? gf::priority::importance : gf::priority::slot_major,
                                           .renormalise_kept = After};
    using L = gf::layer<
        gf::config{.hidden = 6, .ffn = 1, .experts = 6, .top_k = 2, .router = gf::routers::nllb, .capacity = capacity},
        double>;
    const std::string name =
        std::string(After ? "normalise_after" : "normalise_before") + (ByPriority ? ".priority" : ".arrival");
    const values z = f.get("logits"), gates = f.get(name + ".gates");
    gf::context<gf::cpu> ctx(1);
    auto w = gf::make_weights<L>(ctx);
    for (int e = 0; e < 6; ++e) w.router(e, e) = 1;
    auto ids = gf::make_tensor<std::int32_t, gf::dyn, 2>(ctx, 31);
    auto weights = gf::make_tensor<double, gf::dyn, 2>(ctx, 31);
    auto logits = gf::make_tensor<double, gf::dyn, 6>(ctx, 31);
    auto kept = gf::make_tensor<std::uint8_t, gf::dyn>(ctx, 62);
    gf::batch<L> in;
    in.x = {z.data(), {31, 6}};
    const gf::routing_view<L> routing{ids.view(), weights.view(), logits.view()};
    gf::route(ctx, w, in, routing);
    gf::apply_capacity(ctx, in, routing, kept.view());
    values dense(31 * 6);
    for (gf::index_t t = 0; t < 31; ++t)
        for (int s = 0; s < 2; ++s) dense[static_cast<std::size_t>(t * 6 + ids(t, s))] += weights(t, s);
    check_close(name.c_str(), dense.data(), gates);
    BOOST_TEST(ctx.report().dropped > 0);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(golden)
BOOST_AUTO_TEST_SUITE(routing)

BOOST_AUTO_TEST_CASE(blocks) {
    using namespace gf::routers;
    block<block_config(6, 3, dbrx)>("dbrx");
    block<block_config(12, 3, grouped(deepseek_v2, 4, 2))>("deepseek_v2");
    block<block_config(16, 4, grouped(deepseek_v3, 4, 2))>("deepseek_v3");
    block<block_config(8, 3, deepseek_v4)>("deepseek_v4");
    block<block_config(10, 3, ernie)>("ernie4_5_moe");
    block<block_config(8, 3, gpt_oss)>("gpt_oss");
    block<block_config(9, 3, granite)>("granitemoe");
    block<block_config(5, 2, jamba)>("jamba");
    block<block_config(6, 1, llama4)>("llama4");
    block<block_config(6, 4, longcat, {}, {.copy = 3})>("longcat_zero_experts");
    block<block_config(5, 2, mixtral)>("mixtral");
    block<block_config(31, 3, mixtral)>("mixtral_empty_experts");
    block<block_config(8, 3, nemotron3)>("nemotron_h_latent");
    block<block_config(8, 3, olmoe)>("olmoe");
    block<block_config(6, 2, with(phi_moe, &router_config::noise, 0.1f))>("phimoe_eval");
    block<block_config(6, 2, with(phi_moe, &router_config::noise, 0.3f))>("phimoe_train", choice::given);
    block<block_config(9, 4, qwen3)>("qwen3_moe");
    block<block_config(14, 4, qwen3_next)>("qwen3_next");
    block<block_config(4, 1, switch_transformer, {.rule = gf::capacity_rule::megatron, .factor = 0.9f})>(
        "switch_capacity");
}

BOOST_AUTO_TEST_CASE(models) {
    using namespace gf::routers;
    model<dbrx, 6, 3>("dbrx");
    model<grouped(deepseek_v2, 4, 2), 12, 3>("deepseek_v2");
    model<deepseek_v2_lite, 12, 3>("deepseek_v2_lite");
    model<grouped(deepseek_v3, 4, 2), 16, 4>("deepseek_v3");
    model<grouped(deepseek_v3, 1, 1), 6, 3>("deepseek_v3_fp8");
    model<grouped(deepseek_v3, 4, 2), 12, 5>("deepseek_v3_negative_keys");
    model<grouped(deepseek_v3, 3, 2), 24, 5>("deepseek_v3_yarn");
    model<deepseek_v4, 7, 3>("deepseek_v4");
    model<ernie, 10, 3>("ernie4_5_moe");
    model<glm4_moe, 12, 4>("glm4_moe");
    model<softmax_of_biased_logits, 8, 3>("gpt_oss");
    model<granite, 9, 3>("granitemoe");
    model<jamba, 4, 2>("jamba");
    model<with(kimi_k2, &router_config::scale, 2.446f), 8, 3>("kimi_linear");
    model<with(lfm2, &router_config::scale, 1.5f), 8, 3>("lfm2_moe");
    model<llama4, 6, 1>("llama4");
    model<mimo_v2, 8, 3>("mimo_v2_flash");
    model<minimax_01, 6, 2>("minimax");
    model<minimax_m3, 8, 3>("minimax_m3");
    model<mixtral, 5, 2>("mixtral");
    model<mixtral, 7, 3>("mixtral_window");
    model<nemotron3, 8, 3>("nemotron_h");
    model<olmoe, 12, 3>("olmoe");
    model<with(phi_moe, &router_config::noise, 0.1f), 6, 2>("phimoe");
    model<qwen3, 8, 3>("qwen3_5_moe");
    model<qwen3, 16, 4>("qwen3_moe");
    model<qwen3, 160, 8>("qwen3_moe_e160");
    model<qwen3_next, 14, 4>("qwen3_next");
}

BOOST_AUTO_TEST_CASE(two_experts_with_capacity) {
    if (golden_path("gradients/top2_capacity.safetensors").empty()) return;
    const oracle::tensor_file f = oracle::read_safetensors(golden_path("gradients/top2_capacity.safetensors"));
    top2_capacity<false, false>(f);
    top2_capacity<false, true>(f);
    top2_capacity<true, false>(f);
    top2_capacity<true, true>(f);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
