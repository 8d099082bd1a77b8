// One token of a small layer goes a way of its own: the same bits as in a batch, from packed weights as from others,
// the same counts of what was unusual, and no workspace.
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>
#include <tests/layer_comparison.hpp>
#include <tests/layers.hpp>

namespace gf = gatefold;
namespace on_cpu = gf::detail::on_cpu;
using gf::dyn;
using gf::index_t;

namespace {

constexpr index_t tokens = 5;

template <class T>
bool same_bits(const T* a, const T* b, index_t n) {
    return std::memcmp(a, b, static_cast<std::size_t>(n) * sizeof(T)) == 0;
}

/// A batch of the layer through hub weights, and token by token through packed ones.
template <class L>
class both_ways {
    using T = typename L::value_type;
    gf::context<gf::cpu> ctx_, alone_;
    gf::weights<L> w_ = gf::make_weights<L>(ctx_);
    gf::packed<L> packed_;
    gf::tensor<T, dyn, L::hidden> rows() { return gf::make_tensor<T, dyn, L::hidden>(ctx_, tokens); }

public:
    explicit both_ways(gf::order sums = gf::order::fastest)
        : ctx_(gf::context_options{.threads = 2, .sums = sums}),
          alone_(gf::context_options{.threads = 2, .sums = sums}) {
        static_assert(on_cpu::takes_one_token<gf::packed<L>>());
        comparison::fill(w_, 3);
        packed_ = gf::pack(ctx_, w_);
        alone_.fix_workspace();
        for (index_t i = 0; i < x.size(); ++i) {
            const float u = gf::counter_rng{11}.uniform<float>(gf::purpose::sampling, i, 0);
            x.data()[i] = gf::from_accumulate<T>(static_cast<gf::accumulate_t<T>>(3 * u - 1.5f));
            y.data()[i] = other.data()[i] = x.data()[i];
        }
    }

    gf::tensor<T, dyn, L::hidden> x = rows(), y = rows(), other = rows();

    void compare(gf::options<L> o = {}, const std::vector<std::int32_t>& chosen = {}, bool short_form = false) {
        const gf::view<const std::int32_t, dyn, L::slots> ids{chosen.data(), {tokens, L::slots}};
        gf::batch<L> in{.x = std::as_const(x).view()};
        in.first_token = 40;
        if (!chosen.empty()) in.chosen = ids;
        ctx_.clear_report();
        alone_.clear_report();
        gf::forward(ctx_, w_, in, y.view(), o);
        for (index_t t = 0; t < tokens; ++t) {
            gf::batch<L> one{.x = in.x.slice(t, 1)};
            one.first_token = in.first_token + t;
            if (!chosen.empty()) one.chosen = ids.slice(t, 1);
            if (short_form)
                gf::forward(alone_, packed_, in.x.slice(t, 1), other.view().slice(t, 1), o);
            else
                gf::forward(alone_, packed_, one, other.view().slice(t, 1), o);
        }
        BOOST_TEST(same_bits(y.data(), other.data(), y.size()));
        BOOST_TEST((ctx_.report() == alone_.report()));
        BOOST_TEST(alone_.workspace_bytes() == 0u);
    }
};

template <gf::config C, class T = float>
void compare(gf::order sums = gf::order::fastest) {
    both_ways<gf::layer<C, T>> both(sums);
    both.compare();
    both.compare({}, {}, true);
    both.compare({.accumulate = true});
}

constexpr gf::config dense(int hidden, int ffn, gf::activation act, bool bias = false) {
    return {.hidden = hidden, .ffn = ffn, .act = act, .limit = gf::is_limited(act) ? 0.7f : 0.0f, .bias = bias};
}
constexpr gf::config mixture(int hidden, int ffn, gf::router_config router, int experts = 4, int top_k = 2) {
    return {.hidden = hidden, .ffn = ffn, .experts = experts, .top_k = top_k, .router = router};
}
constexpr gf::config deepseek = test_layers::clamped_deepseek(true);

template <gf::activation... Acts>
void compare_activations() {
    (compare<dense(20, 50, Acts, true)>(), ...);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(one_token)

BOOST_AUTO_TEST_CASE(every_activation) {
    using enum gf::activation;
    compare_activations<silu, gelu_tanh, gelu_erf, relu, relu_squared, identity, swiglu, geglu_tanh, geglu_erf, reglu,
                        bilinear, limited_swiglu, clamped_swiglu, situ>();
}

// Widths at, below and above a register, a panel and the registers that hold a result at once.
BOOST_AUTO_TEST_CASE(every_width) {
    using enum gf::activation;
    compare<dense(1, 1, swiglu)>();
    compare<dense(16, 64, relu, true)>();
    compare<dense(17, 31, swiglu)>();
    compare<dense(64, 33, silu)>();
    compare<dense(128, 100, swiglu)>();
    compare<dense(129, 48, relu, true)>();
    compare<dense(250, 40, swiglu)>();
}

BOOST_AUTO_TEST_CASE(every_type_and_order) {
    using enum gf::activation;
    compare<dense(32, 64, swiglu, true), double>();
    compare<dense(70, 45, swiglu), gf::f16>();
    compare<dense(200, 45, relu), gf::f16>();
    for (const gf::order sums : {gf::order::portable, gf::order::dot}) {
        compare<dense(32, 64, swiglu, true), gf::bf16>(sums);
        compare<dense(70, 45, relu), gf::bf16>(sums);
        compare<dense(200, 100, swiglu), gf::bf16>(sums);
        compare<deepseek, gf::bf16>(sums);
    }
    compare<deepseek, gf::f16>();
    compare<deepseek, double>();
}

BOOST_AUTO_TEST_CASE(routers) {
    using namespace gf::routers;
    compare<mixture(16, 32, olmoe)>();
    compare<mixture(70, 45, mixtral, 11, 3)>();
    compare<mixture(24, 40, olmoe, 4, 4)>();
    compare<mixture(24, 40, gpt_oss)>();
    compare<mixture(24, 40, noisy_top_k, 7)>();
    compare<mixture(24, 40, {.select = gf::selection::positive, .from = gf::score::relu})>();
    compare<deepseek>();
}

BOOST_AUTO_TEST_CASE(given_ids_and_empty_slots) {
    both_ways<gf::layer<mixture(20, 24, gf::routers::mixtral), float>> both;
    both.compare({}, {0, 3, 3, 1, -1, 2, 2, -1, -1, -1});
    both.compare({}, {1, 1, 0, 0, 2, 1, 3, 2, 1, 0});
}

BOOST_AUTO_TEST_CASE(logits_that_are_not_numbers) {
    both_ways<gf::layer<mixture(20, 24, gf::routers::olmoe), float>> both;
    both.x(0, 3) = std::numeric_limits<float>::quiet_NaN();
    both.x(2, 0) = std::numeric_limits<float>::infinity();
    both.compare();
}

// The short check of such calls lets nothing pass that the full one refuses, and no output is touched then.
BOOST_AUTO_TEST_CASE(wrong_arguments) {
    using L = gf::layer<mixture(8, 12, gf::routers::mixtral), float>;
    gf::context<gf::cpu> ctx(1);
    const gf::packed<L> p = gf::pack(ctx, gf::random_weights<L>(ctx, gf::seed{1}));
    std::vector<float> x(32, 0.5f), y(32, 7.0f);
    using in_row = gf::view<const float, dyn, 8>;
    using out_row = gf::view<float, dyn, 8>;
    const in_row in{x.data(), {1, 8}};
    const out_row out{y.data(), {1, 8}};
    const auto throws = [&](const gf::packed<L>& w, const in_row& from, const out_row& to, const char* part,
                            gf::options<L> o = {}) {
        BOOST_CHECK_EXCEPTION(gf::forward(ctx, w, from, to, o), gf::argument_error, [&](const gf::argument_error& e) {
            return std::string(e.what()).find(part) != std::string::npos;
        });
    };
    const auto odd = [](auto* q) {
        return reinterpret_cast<std::remove_reference_t<decltype(q)>>(reinterpret_cast<std::uintptr_t>(q) + 1);
    };
    throws(p, in, out_row{nullptr, {1, 8}}, "forward: y: expected memory");
    throws(p, in_row{nullptr, {1, 8}}, out, "forward: x: expected memory");
    throws(p, in, out_row{y.data(), {2, 8}}, "forward: y: expected 1 rows");
    throws(p, in_row{x.data(), {1, 7}}, out, "forward: x: expected extent 8");
    throws(p, in, out_row{y.data(), {1, 8}, 4}, "forward: y: expected rows at least 8");
    throws(p, in_row{odd(x.data()), {1, 8}}, out, "forward: x: expected memory at a multiple");
    throws(p, in, out_row{odd(y.data()), {1, 8}}, "forward: y: expected memory at a multiple");
    throws(p, in_row{y.data() + 7, {1, 8}}, out, "forward: y: expected memory apart from x");
    throws(p, in_row{y.data(), {1, 8}}, out_row{y.data() + 7, {1, 8}}, "forward: y: expected memory apart from x");
    throws(gf::packed<L>{}, in, out, "forward: router: expected memory");
    gf::options<L> o;
    o.dropout = 0.5f;
    throws(p, in, out, "forward: options.dropout", o);
    o = {};
    o.noise = 1;
    throws(p, in, out, "route: options.noise", o);
    for (const float v : y) BOOST_TEST(v == 7.0f);
    gf::forward(ctx, p, in, out);
    BOOST_TEST(y[0] != 7.0f);
}

// What the direct way does not know stays with the general one.
BOOST_AUTO_TEST_CASE(where_it_ends) {
    using namespace gf::routers;
    const auto takes = []<gf::config C>() { return on_cpu::takes_one_token<gf::packed<gf::layer<C, float>>>(); };
    constexpr gf::config large = dense(512, 512, gf::activation::swiglu);
    constexpr gf::config limited{.hidden = 16,
                                 .ffn = 16,
                                 .experts = 4,
                                 .router = switch_transformer,
                                 .capacity = {.rule = gf::capacity_rule::flaxformer, .factor = 1.25f}};
    BOOST_TEST(!takes.operator()<large>());
    BOOST_TEST(!takes.operator()<limited>());
    BOOST_TEST(!(takes.operator()<mixture(16, 16, llama4, 4, 1)>()));
    BOOST_TEST(!(on_cpu::takes_one_token<gf::weights<gf::layer<mixture(16, 16, olmoe), float>>>()));
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
