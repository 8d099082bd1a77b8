// The router's backward by central differences in double: d logits from d weights, and the router's parameters and
// input from d logits, for every score, division, projection and transform.
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/cpu/router/router.hpp>

namespace {

namespace gf = gatefold;
namespace on_cpu = gf::detail::on_cpu;

/// Numbers in (-1, 1).
struct source {
    std::uint64_t state;
    double operator()() {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        return static_cast<double>(state >> 11) * 0x1p-52 - 1;
    }
};

/// A router over a few tokens, and the sum of its weights times fixed numbers as the loss.
template <gf::config C>
struct problem {
    using L = gf::layer<C, double>;
    static constexpr gf::index_t tokens = 5;
    gf::context<gf::cpu> ctx{2};
    gf::weights<L> w = gf::make_weights<L>(ctx);
    gf::tensor<double, gf::dyn, L::hidden> x = gf::make_tensor<double, gf::dyn, L::hidden>(ctx, tokens);
    gf::tensor<std::int32_t, gf::dyn, L::slots> ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, tokens),
                                                first_ids =
                                                    gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, tokens);
    gf::tensor<double, gf::dyn, L::slots> weights = gf::make_tensor<double, gf::dyn, L::slots>(ctx, tokens),
                                          dw = gf::make_tensor<double, gf::dyn, L::slots>(ctx, tokens);
    gf::tensor<double, gf::dyn, L::choices> logits = gf::make_tensor<double, gf::dyn, L::choices>(ctx, tokens),
                                            dz = gf::make_tensor<double, gf::dyn, L::choices>(ctx, tokens),
                                            below = gf::make_tensor<double, gf::dyn, L::choices>(ctx, tokens),
                                            d_below = gf::make_tensor<double, gf::dyn, L::choices>(ctx, tokens);
    gf::tensor<std::int32_t, gf::dyn, L::slots> chosen = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, tokens);
    gf::tensor<std::uint8_t, gf::dyn> kept = gf::make_tensor<std::uint8_t, gf::dyn>(ctx, tokens* L::slots);
    gf::gradients<L> g = gf::make_gradients<L>(ctx);
    gf::tensor<double, gf::dyn, L::hidden> dx = gf::make_tensor<double, gf::dyn, L::hidden>(ctx, tokens);
    gf::options<L> o;
    bool same_choice = true;

    problem(std::uint64_t seed, bool training) {
        source next{seed};
        const auto fill = [&](const char*, auto& slot) {
            for (gf::index_t i = 0; i < slot.size(); ++i) slot.data()[i] = next();
        };
        gf::for_each_parameter(fill, w);
        gf::for_each_buffer(fill, w);
        const auto positive = [&](auto& slot) {
            if constexpr (gf::is_present<std::remove_reference_t<decltype(slot)>>)
                for (gf::index_t i = 0; i < slot.size(); ++i) slot.data()[i] = 0.8 + 0.4 * std::fabs(slot.data()[i]);
        };
        positive(w.router_temperature);
        positive(w.expert_scale);
        for (gf::index_t i = 0; i < x.size(); ++i) x.data()[i] = 1.5 * next();
        for (gf::index_t i = 0; i < below.size(); ++i) below.data()[i] = next();
        for (gf::index_t i = 0; i < dw.size(); ++i) dw.data()[i] = next();
        dx.set_zero();
        dz.set_zero();
        d_below.set_zero();
        o.training = training;
        o.seed = seed;
    }
    gf::batch<L> in() {
        gf::batch<L> b{.x = x.view()};
        if constexpr (C.router.transform == gf::logit_transform::residual) {
            b.previous_logits = below.view();
            b.previous_logit_gradients = d_below.view();
        }
        if constexpr (C.router.select == gf::selection::given) {
            for (gf::index_t i = 0; i < chosen.size(); ++i)
                chosen.data()[i] = static_cast<std::int32_t>((i * 7 + i / 3) % L::choices);
            b.chosen = chosen.view();
        }
        return b;
    }
    gf::routing_view<L> routing() { return {ids.view(), weights.view(), logits.view()}; }
    double loss(bool first = false) {
        gf::route(ctx, w, in(), routing(), o);
        if constexpr (C.capacity.rule != gf::capacity_rule::none)
            gf::apply_capacity(ctx, in(), routing(), kept.view(), o);
        double sum = 0;
        for (gf::index_t i = 0; i < dw.size(); ++i) sum += dw.data()[i] * weights.data()[i];
        for (gf::index_t i = 0; i < ids.size(); ++i) {
            if (first) first_ids.data()[i] = ids.data()[i];
            same_choice = same_choice && ids.data()[i] == first_ids.data()[i];
        }
        return sum;
    }
    /// Compares one gradient with the central difference of what it belongs to.
    void check(const char* name, double* values, const double* gradient, gf::index_t n) {
        for (gf::index_t i = 0; i < n; ++i) {
            const double step = 1e-6, old = values[i];
            values[i] = old + step;
            const double above = loss();
            values[i] = old - step;
            const double beneath = loss();
            values[i] = old;
            const double slope = (above - beneath) / (2 * step);
            BOOST_TEST(std::fabs(gradient[i] - slope) <= 1e-6 * (std::fabs(slope) + 0.1),
                       name << "[" << i << "]: " << gradient[i] << ", difference " << slope);
        }
    }
    void run() {
        loss(true);
        // What is dropped or turned away has no gradient.
        auto d = gf::make_tensor<double, gf::dyn, L::slots>(ctx, tokens);
        for (gf::index_t i = 0; i < d.size(); ++i)
            d.data()[i] = ids.data()[i] < 0 || (C.capacity.rule != gf::capacity_rule::none && kept.data()[i] == 0)
                              ? 0
                              : dw.data()[i];
        std::vector<std::byte> memory(on_cpu::route_backward_scratch_bytes<L>(tokens, 2) + 64);
        std::byte* scratch = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64);
        on_cpu::route_backward(ctx, w, in(), o, routing(), d.view(), dz.view());
        if constexpr (C.router.expert_scale)
            on_cpu::expert_scale_backward(ctx, w, in(), o, routing(), d.view(), g, false);
        on_cpu::route_parameters_backward(ctx, w, in(), o, dz.view(), dx.view(), g, false, scratch);
        check("x", x.data(), dx.data(), x.size());
        if constexpr (C.router.transform == gf::logit_transform::residual)
            check("below", below.data(), d_below.data(), below.size());
        const auto each = [&](const char* name, auto& values, auto& gradient) {
            const std::string text = name;
            if (text.rfind("router", 0) == 0 || text == "expert_scale")
                check(name, values.data(), gradient.data(), values.size());
        };
        gf::for_each_parameter(each, w, g);
        BOOST_TEST(same_choice, "a choice flipped: this seed cannot be differentiated");
    }
};

template <gf::router_config R, int E = 6, int K = 2>
void differentiate(std::uint64_t seed = 1, bool training = false) {
    problem<gf::config{.hidden = 4, .ffn = 1, .experts = E, .top_k = K, .router = R}>(seed, training).run();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(gradient)
BOOST_AUTO_TEST_SUITE(router)

BOOST_AUTO_TEST_CASE(scores) {
    using namespace gf;
    differentiate<router_config{.bias = true}>();
    differentiate<router_config{.from = score::softmax_selected}>();
    differentiate<router_config{.bias = true, .from = score::sigmoid}>();
    differentiate<router_config{.from = score::sqrt_softplus}>();
    differentiate<router_config{.from = score::identity}>();
    differentiate<router_config{.select = selection::positive, .from = score::relu}, 6, 1>();
    differentiate<router_config{.select = selection::all, .from = score::softmax}, 6, 1>();
}

BOOST_AUTO_TEST_CASE(divisors) {
    using namespace gf;
    differentiate<router_config{.renorm = renormalise::sum, .scale = 2}>();
    differentiate<router_config{.renorm = renormalise::sum_plus, .epsilon = 0.3f}>();
    differentiate<router_config{.renorm = renormalise::max_of, .epsilon = 0.01f}>();
    differentiate<router_config{.renorm = renormalise::max_of, .epsilon = 3}>();
    differentiate<router_config{.from = score::sigmoid,
                                .renorm = renormalise::sum_plus,
                                .epsilon = 1e-20f,
                                .scale = 2.5f,
                                .expert_scale = true}>();
    differentiate<router_config{
        .from = score::sqrt_softplus, .renorm = renormalise::sum, .scaled = scale_at::output}>();
    differentiate<router_config{.select = selection::positive, .from = score::relu, .renorm = renormalise::sum}, 6,
                  1>();
}

BOOST_AUTO_TEST_CASE(norms) {
    using namespace gf;
    differentiate<router_config{.renorm = renormalise::norm, .power = 1}>();
    differentiate<router_config{.bias = true, .renorm = renormalise::norm, .power = 2, .scale = 1.7}>();
    differentiate<router_config{.bias = true, .from = score::sigmoid, .renorm = renormalise::norm, .power = 3}, 6, 4>();
    differentiate<router_config{.bias = true, .from = score::identity, .renorm = renormalise::norm, .power = 2.5f}>();
    differentiate<router_config{.from = score::softmax, .renorm = renormalise::norm, .power = 0.5f}>();
}

BOOST_AUTO_TEST_CASE(inputs_and_projections) {
    using namespace gf;
    differentiate<routers::gemma4>();
    differentiate<router_config{.input = router_input::unit_length, .renorm = renormalise::sum}>();
    differentiate<router_config{.logits = projection::two_layer, .projection_width = 3, .bias = true}>();
    differentiate<routers::x_moe(3)>();
    differentiate<router_config{.input = router_input::rms_norm,
                                .logits = projection::cosine,
                                .projection_width = 5,
                                .bias = true,
                                .noise = 0.2f}>(1, true);
}

BOOST_AUTO_TEST_CASE(transforms) {
    using namespace gf;
    differentiate<routers::noisy_top_k>(1, true);
    differentiate<routers::noisy_top_k>(1, false);
    differentiate<routers::v_moe>(1, true);
    differentiate<routers::skywork>();
    differentiate<routers::switch_transformer, 6, 1>(1, true);
    differentiate<with(routers::moe_plus_plus, &router_config::bias, true)>();
    differentiate<router_config{.transform = logit_transform::gumbel, .from = score::sigmoid, .noise = 1}>(1, true);
}

BOOST_AUTO_TEST_CASE(selections) {
    using namespace gf;
    differentiate<with(routers::deepseek_v3, &router_config::groups, 3, &router_config::kept_groups, 2)>();
    differentiate<with(routers::deepseek_v3, &router_config::groups, 2, &router_config::kept_groups, 1,
                       &router_config::group_by, group_key::share_sum)>();
    differentiate<routers::mesh_expert_choice>();
    differentiate<router_config{.bias = true, .noise = 0.4f, .noise_on = input_noise::dropout}>(1, true);
    differentiate<routers::ernie>();
    differentiate<routers::phi_moe>();
    differentiate<with(routers::phi_moe, &router_config::noise, 0.4f)>();
    differentiate<routers::top_p, 6, 4>();
    differentiate<routers::deepseek_v4>();
    differentiate<routers::expert_choice>();
    differentiate<routers::base, 5, 1>(1, true);
    differentiate<routers::gshard>(1, true);
    differentiate<routers::mesh_threshold>();
    differentiate<routers::nllb_random>(2, true);
}

BOOST_AUTO_TEST_CASE(named) {
    using namespace gf;
    differentiate<routers::olmoe>();
    differentiate<routers::dbrx>();
    differentiate<routers::hunyuan>();
    differentiate<routers::granite>();
    differentiate<routers::gpt_oss>();
    differentiate<routers::deepseek_v2, 16>();
    differentiate<routers::glm4_moe>();
    differentiate<routers::minimax_m2>();
    differentiate<routers::minimax_m3>();
    differentiate<routers::lfm2>();
    differentiate<routers::llama4, 6, 1>();
    differentiate<routers::deepseek_v4_hash>();
    differentiate<routers::hash>();
    differentiate<routers::sampled>(1, true);
    differentiate<routers::nllb_sampling>(1, true);
    differentiate<routers::sinkhorn, 6, 1>(1, true);
    differentiate<routers::sinkhorn_top_k>(1, true);
    differentiate<router_config{.bias = true, .selection_bias = key_bias::logit, .renorm = renormalise::sum}>();
    differentiate<with(routers::deepseek_v3, &router_config::groups, 3, &router_config::kept_groups, 2,
                       &router_config::group_by, group_key::max, &router_config::masked, group_mask::zero)>();
}

BOOST_AUTO_TEST_CASE(free_experts_and_drops) {
    using namespace gf;
    constexpr config zero{.hidden = 4,
                          .ffn = 1,
                          .experts = 3,
                          .top_k = 3,
                          .router = {.renorm = renormalise::sum},
                          .free = {.copy = 1, .zero = 2}};
    problem<zero>(1, false).run();
    constexpr config selected{.hidden = 4,
                              .ffn = 1,
                              .experts = 3,
                              .top_k = 3,
                              .router = {.from = score::softmax_selected},
                              .free = {.zero = 3}};
    problem<selected>(1, false).run();
    constexpr config whole{
        .hidden = 4, .ffn = 1, .experts = 3, .top_k = 3, .router = routers::longcat, .free = {.zero = 3}};
    problem<whole>(1, false).run();
    constexpr config dropping{.hidden = 4,
                              .ffn = 1,
                              .experts = 3,
                              .top_k = 2,
                              .router = {.renorm = renormalise::sum},
                              .capacity = {.rule = capacity_rule::megatron, .factor = 0.6f}};
    problem<dropping>(1, false).run();
    constexpr config anew{.hidden = 4,
                          .ffn = 1,
                          .experts = 3,
                          .top_k = 2,
                          .router = {.from = score::sigmoid, .renorm = renormalise::sum_plus, .epsilon = 0.1f},
                          .capacity = {.rule = capacity_rule::megatron, .factor = 0.6f, .renormalise_kept = true}};
    problem<anew>(1, false).run();
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
