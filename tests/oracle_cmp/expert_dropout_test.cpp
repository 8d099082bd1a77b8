// ctest: heavy timeout=600
// Dropout on the activations inside experts: whole layers against the oracle, which is given the same draws; what does
// not change the draws; their distribution; and what has none.
#include <cstring>

#include <gatefold/moe/sparse.hpp>
#include <tests/layer_comparison.hpp>

namespace gf = gatefold;

namespace {

constexpr gf::config plain{.hidden = 14, .ffn = 11, .experts = 5, .top_k = 2, .bias = true};
constexpr gf::config with_dropout = gf::with(plain, &gf::config::dropout, 0.4f);

template <class L>
struct run {
    using T = typename L::value_type;
    static constexpr gf::index_t tokens = 50;
    gf::tensor<T, gf::dyn, gf::dyn> x{{tokens, L::hidden}}, y{{tokens, L::hidden}}, dy{{tokens, L::hidden}},
        dx{{tokens, L::hidden}};
    std::vector<double> gradients;

    /// In pieces of `piece` tokens.
    run(int threads, gf::index_t piece, gf::options<L> o, std::uint64_t seed = 3) {
        gf::context<gf::cpu> ctx(threads);
        auto w = gf::make_weights<L>(ctx);
        auto g = gf::make_gradients<L>(ctx);
        comparison::fill(w, seed);
        comparison::fill(x, seed + 1);
        comparison::fill(dy, seed + 2);
        gf::tape<L> tape(ctx, piece);
        for (gf::index_t first = 0; first < tokens; first += piece) {
            const gf::index_t n = (std::min)(piece, tokens - first);
            gf::batch<L> in;
            in.x = {x.data() + first * L::hidden, {n, L::hidden}};
            in.first_token = first;
            o.accumulate = false;
            gf::forward(ctx, w, in, {y.data() + first * L::hidden, {n, L::hidden}}, tape, o);
            o.accumulate = first > 0;
            gf::backward(ctx, w, in, tape, {dy.data() + first * L::hidden, {n, L::hidden}},
                         {dx.data() + first * L::hidden, {n, L::hidden}}, g, o);
        }
        const auto take = [&](const char*, const auto& slot) {
            for (gf::index_t i = 0; i < slot.size(); ++i) gradients.push_back(static_cast<double>(slot.data()[i]));
        };
        gf::for_each_parameter(take, g);
    }
    bool same_rows(const run& other) const {
        const auto bytes = static_cast<std::size_t>(y.size()) * sizeof(T);
        return std::memcmp(y.data(), other.y.data(), bytes) == 0 && std::memcmp(dx.data(), other.dx.data(), bytes) == 0;
    }
};

template <class T>
void check_bits() {
    using L = gf::layer<with_dropout, T>;
    const gf::options<L> o{.seed = 7, .step = 2, .training = true};
    const run<L> one(1, 50, o);
    for (int threads = 2; threads <= 4; ++threads) {
        const run<L> other(threads, 50, o);
        BOOST_TEST(one.same_rows(other));
        BOOST_TEST((one.gradients == other.gradients));
    }
    for (const gf::index_t piece : {1, 7, 33}) BOOST_TEST(one.same_rows(run<L>(2, piece, o)));
    BOOST_TEST(!one.same_rows(run<L>(1, 50, {.seed = 8, .step = 2, .training = true})));
    BOOST_TEST(!one.same_rows(run<L>(1, 50, {.seed = 7, .step = 3, .training = true})));
    BOOST_TEST(!one.same_rows(run<L>(1, 50, {.seed = 7, .step = 2, .layer = 1, .training = true})));
    BOOST_TEST(!one.same_rows(run<L>(1, 50, {.dropout = 0.3f, .seed = 7, .step = 2, .training = true})));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(oracle)
BOOST_AUTO_TEST_SUITE(expert_dropout)

BOOST_AUTO_TEST_CASE(layers) {
    comparison::compare<gf::layer<with_dropout, double>>(71, 1);
    comparison::compare<gf::layer<with_dropout, float>>(33, 2, 3);
    comparison::compare<gf::layer<with_dropout, gf::bf16>>(64, 3);
    comparison::compare<gf::layer<gf::with(with_dropout, &gf::config::shared, gf::shared_config{.ffn = 4},
                                           &gf::config::act, gf::activation::relu_squared),
                                  double>>(31, 4);
    comparison::compare<
        gf::layer<gf::with(with_dropout, &gf::config::router, gf::routers::llama4, &gf::config::top_k, 1), double>>(31,
                                                                                                                    5);
    comparison::compare<gf::layer<gf::with(with_dropout, &gf::config::latent, 6), double>>(31, 6);
    comparison::compare<
        gf::layer<gf::with(with_dropout, &gf::config::free, gf::free_experts{.copy = 1, .zero = 1}), double>>(31, 7);
    comparison::compare<gf::layer<gf::config{.hidden = 14, .ffn = 19, .dropout = 0.25f}, double>>(31, 8);
    comparison::compare<gf::layer<gf::config{.hidden = 14, .ffn = 19, .dropout = 0.25f}, float>>(31, 8);
}

BOOST_AUTO_TEST_CASE(estimators) {
    constexpr gf::config all =
        gf::with(with_dropout, &gf::config::router, gf::router_config{.learns_from = gf::estimator::all_experts});
    constexpr gf::config vectors =
        gf::with(with_dropout, &gf::config::router, gf::router_config{.learns_from = gf::estimator::default_vectors});
    comparison::compare<gf::layer<all, double>>(71, 9);
    comparison::compare<gf::layer<vectors, double>>(71, 10);
}

BOOST_AUTO_TEST_CASE(threads_and_batch_splits) {
    check_bits<float>();
    check_bits<double>();
    check_bits<gf::bf16>();
}

BOOST_AUTO_TEST_CASE(off_at_inference) {
    using L = gf::layer<with_dropout, float>;
    using M = gf::layer<plain, float>;
    const run<L> mine(2, 50, {.seed = 7});
    const run<M> theirs(2, 50, {.seed = 7});
    const auto bytes = static_cast<std::size_t>(mine.y.size()) * sizeof(float);
    BOOST_TEST(std::memcmp(mine.y.data(), theirs.y.data(), bytes) == 0);
    BOOST_TEST(std::memcmp(mine.dx.data(), theirs.dx.data(), bytes) == 0);
    BOOST_TEST((mine.gradients == theirs.gradients));
    // A probability of nothing in training is inference, too.
    BOOST_TEST(mine.same_rows(run<L>(1, 50, {.dropout = 0, .seed = 7, .training = true})));
}

BOOST_AUTO_TEST_CASE(stages_and_packed_weights) {
    using L = gf::layer<with_dropout, float>;
    constexpr gf::index_t n = run<L>::tokens;
    const gf::options<L> o{.seed = 7, .step = 2, .training = true};
    const run<L> whole(1, n, o);
    gf::context<gf::cpu> ctx(2);
    auto w = gf::make_weights<L>(ctx);
    comparison::fill(w, 3);
    gf::tape<L> tape(ctx, n);
    std::vector<float> y(static_cast<std::size_t>(n * L::hidden)), z(static_cast<std::size_t>(n * L::slots * L::width));
    gf::batch<L> in;
    in.x = {whole.x.data(), {n, L::hidden}};
    const gf::view<float, gf::dyn, L::hidden> out{y.data(), {n, L::hidden}};
    const auto same = [&] { return std::memcmp(y.data(), whole.y.data(), y.size() * sizeof(float)) == 0; };
    gf::forward(ctx, gf::pack(ctx, w), in, out, tape, o);
    BOOST_TEST(same());
    y.assign(y.size(), 0);
    gf::forward(ctx, gf::pack_sparse(ctx, w), in, out, tape, o);
    BOOST_TEST(same());
    y.assign(y.size(), 0);
    const gf::view<float, gf::dyn, L::width> rows{z.data(), {n * L::slots, L::width}};
    gf::experts(ctx, w, in, tape.plan(), tape.routing(), rows, o);
    gf::combine(ctx, w, in, tape.plan(), tape.routing(), rows, out, o);
    BOOST_TEST(same());
}

BOOST_AUTO_TEST_CASE(distribution) {
    // An expert that adds up its activations, each of which is 1: the number of those that stay / 0.6.
    constexpr int ffn = 512;
    constexpr gf::index_t tokens = 400;
    using L = gf::layer<gf::config{.hidden = 2, .ffn = ffn, .act = gf::activation::relu, .dropout = 0.4f}, double>;
    gf::context<gf::cpu> ctx(1);
    auto w = gf::make_weights<L>(ctx);
    for (int f = 0; f < ffn; ++f) w.up(0, f, 0) = 1, w.down(0, 0, f) = 1;
    std::vector<double> x(std::size_t(2 * tokens), 1), y(x);
    gf::forward(ctx, w, {x.data(), {tokens, 2}}, {y.data(), {tokens, 2}}, {.seed = 11, .training = true});
    const double p = static_cast<double>(0.4f), factor = 1 / (1 - p);
    double mean = 0, variance = 0;
    for (std::size_t t = 0; t < std::size_t(tokens); ++t) {
        const double kept = y[2 * t] / factor;
        BOOST_TEST(std::fabs(kept - std::round(kept)) < 1e-9);
        mean += y[2 * t] / double(tokens);
        variance += (kept - ffn * (1 - p)) * (kept - ffn * (1 - p)) / double(tokens);
    }
    // Within five deviations: of the mean of 204800 draws, and of the variance of 400 binomial numbers.
    BOOST_TEST(std::fabs(mean / ffn - 1) < 5 * factor * std::sqrt(p * (1 - p) / double(ffn * tokens)));
    BOOST_TEST(std::fabs(variance / (ffn * p * (1 - p)) - 1) < 5 * std::sqrt(2.0 / double(tokens)));
}

BOOST_AUTO_TEST_CASE(numbers_that_cannot_be) {
    using L = gf::layer<with_dropout, float>;
    using M = gf::layer<plain, float>;
    BOOST_CHECK_THROW(run<L>(1, 50, {.dropout = 1, .training = true}), gf::argument_error);
    BOOST_CHECK_THROW(run<L>(1, 50, {.dropout = -0.1f, .training = true}), gf::argument_error);
    BOOST_CHECK_THROW(run<M>(1, 50, {.dropout = 0.1f, .training = true}), gf::argument_error);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
