// Every gradient of whole decoders against central differences in double: dense, routed, grouped keys, tied head,
// balancing loss included.
#include <cmath>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/nn.hpp>
#include <gatefold/train.hpp>

namespace gf = gatefold;

namespace {

constexpr gf::decoder_config shape(const gf::config& layer, bool tied) {
    return {.vocabulary = 11,
            .hidden = 12,
            .layers = 2,
            .heads = 4,
            .key_value_heads = 2,
            .head_size = 6,
            .context = 9,
            .layer = layer,
            .tied = tied};
}

/// Twenty-one tokens: a full batch, and the targets of all but the last of each sequence.
struct text {
    std::vector<std::int32_t> ids, targets;
    text(gf::index_t sequences, gf::index_t length) {
        for (gf::index_t i = 0; i < sequences * length; ++i) {
            ids.push_back(static_cast<std::int32_t>((i * 7 + i * i) % 11));
            targets.push_back(i % length == length - 1 ? gf::ignored_target
                                                       : static_cast<std::int32_t>((i * 5 + 3) % 11));
        }
    }
    gf::view<const std::int32_t, gf::dyn> input() const { return {ids.data(), {static_cast<gf::index_t>(ids.size())}}; }
    gf::view<const std::int32_t, gf::dyn> wanted() const {
        return {targets.data(), {static_cast<gf::index_t>(ids.size())}};
    }
};

template <gf::decoder_config C>
void check_gradients() {
    using D = gf::decoder<C, double>;
    gf::context<gf::cpu> ctx;
    auto w = gf::random_decoder_weights<D>(ctx, gf::seed{3}, {.embedding = 1});
    auto g = gf::make_decoder_gradients<D>(ctx);
    gf::decoder_tape<D> tape(ctx, 3, 7);
    const text sample(3, 7);
    auto d_logits = gf::make_tensor<double, gf::dyn, D::vocabulary>(ctx, tape.tokens());
    const auto loss = [&] {
        gf::forward(ctx, w, sample.input(), tape);
        double sum = gf::cross_entropy(ctx, tape.logits(), sample.wanted(), d_logits).loss;
        if constexpr (!D::layer_type::is_dense) {
            gf::tape<typename D::layer_type>* const layers[] = {&tape.block(0).layer, &tape.block(1).layer};
            sum += gf::add_loss(ctx, gf::losses::hugging_face{0.3}, layers);
        }
        return sum;
    };
    loss();
    gf::backward(ctx, w, tape, d_logits, g);

    // Twice the gradient, by accumulation.
    auto twice = gf::make_decoder_gradients<D>(ctx);
    for (int pass = 0; pass < 2; ++pass) {
        loss();
        gf::backward(ctx, w, tape, d_logits, twice, {.accumulate = pass > 0});
    }

    gf::for_each_parameter(
        [&](const char* name, auto& parameter, const auto& gradient, const auto& doubled) {
            BOOST_TEST_CONTEXT(name) {
                const double h = 1e-6;
                for (gf::index_t i = 0; i < parameter.size(); i += parameter.size() / 29 + 1) {
                    const double old = parameter.data()[i];
                    parameter.data()[i] = old + h;
                    const double up = loss();
                    parameter.data()[i] = old - h;
                    const double down = loss();
                    parameter.data()[i] = old;
                    BOOST_TEST(std::fabs((up - down) / (2 * h) - gradient.data()[i]) < 1e-8);
                    BOOST_TEST(std::fabs(2 * gradient.data()[i] - doubled.data()[i]) < 1e-15);
                }
            }
        },
        w, g, twice);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(gradient)
BOOST_AUTO_TEST_SUITE(decoder)

BOOST_AUTO_TEST_CASE(of_a_dense_decoder) { check_gradients<shape({.ffn = 20}, false)>(); }
BOOST_AUTO_TEST_CASE(of_a_mixture) {
    check_gradients<shape({.ffn = 10, .experts = 4, .top_k = 2, .router = gf::routers::mixtral}, false)>();
}
BOOST_AUTO_TEST_CASE(of_a_mixture_with_one_choice_and_a_tied_head) {
    check_gradients<shape({.ffn = 10, .experts = 3, .router = gf::routers::switch_transformer}, true)>();
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
