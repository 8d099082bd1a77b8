// ctest: heavy
// Decoders: published counts, names, bits for any threads and any cut of the batch, the cache, sampling, bad arguments.
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/nn.hpp>
#include <gatefold/train.hpp>

namespace gf = gatefold;

namespace {

constexpr gf::decoder_config mixtral{.vocabulary = 32000,
                                     .hidden = 4096,
                                     .layers = 32,
                                     .heads = 32,
                                     .key_value_heads = 8,
                                     .context = 32768,
                                     .layer = {.ffn = 14336, .experts = 8, .top_k = 2, .router = gf::routers::mixtral}};
static_assert(gf::parameters(mixtral) == 46'702'792'704);
static_assert(gf::active_parameters(mixtral) == 12'879'925'248);
static_assert(gf::active_parameters(mixtral, gf::counting::head) == 12'879'925'248 - 32000 * 4096);
static_assert(gf::active_parameters(mixtral, gf::counting::neither) == 12'879'925'248 - 2 * 32000 * 4096);
static_assert(gf::cache_bytes(mixtral, 2) == 2 * 32 * 8 * 128 * 2);

constexpr gf::decoder_config small{.vocabulary = 31,
                                   .hidden = 24,
                                   .layers = 2,
                                   .heads = 4,
                                   .key_value_heads = 2,
                                   .context = 80,
                                   .layer = {.ffn = 20, .experts = 4, .top_k = 2, .router = gf::routers::mixtral}};
constexpr gf::decoder_config tied{
    .vocabulary = 31, .hidden = 24, .layers = 1, .heads = 3, .context = 16, .layer = {.ffn = 20}, .tied = true};
static_assert(gf::active_parameters(tied) == gf::active_parameters(tied, gf::counting::head));
static_assert(gf::active_parameters(tied) - gf::active_parameters(tied, gf::counting::neither) == 31 * 24);

static_assert(gf::fault(small) == nullptr);
constexpr bool says(gf::decoder_config c, std::string_view part) {
    const char* const sentence = gf::fault(c);
    return sentence && std::string_view(sentence).find(part) != std::string_view::npos;
}
constexpr gf::decoder_config with_heads(int heads, int key_value_heads, int head_size) {
    gf::decoder_config c = small;
    c.heads = heads;
    c.key_value_heads = key_value_heads;
    c.head_size = head_size;
    return c;
}
static_assert(says({}, "vocabulary"));
static_assert(says(with_heads(5, 5, 0), "hidden must be a multiple of heads"));
static_assert(says(with_heads(4, 3, 6), "key_value_heads"));
static_assert(says(with_heads(4, 2, 7), "even"));
static_assert(says(with_heads(8, 8, 0), "even"));
static_assert(says({.vocabulary = 2, .hidden = 4, .layers = 1, .heads = 1, .context = 4}, "ffn"));

std::vector<std::int32_t> some_ids(gf::index_t n, int vocabulary) {
    std::vector<std::int32_t> ids;
    for (gf::index_t i = 0; i < n; ++i) ids.push_back(static_cast<std::int32_t>((i * i * 13 + i * 5 + 2) % vocabulary));
    return ids;
}
gf::view<const std::int32_t, gf::dyn> view_of(const std::vector<std::int32_t>& ids) {
    return {ids.data(), {static_cast<gf::index_t>(ids.size())}};
}

template <class D>
std::vector<typename D::accumulate_type> logits_of(gf::context<gf::cpu>& ctx, const gf::decoder_weights<D>& w,
                                                   const std::vector<std::int32_t>& ids, gf::index_t sequences) {
    gf::decoder_tape<D> tape(ctx, sequences, static_cast<gf::index_t>(ids.size()) / sequences);
    gf::forward(ctx, w, view_of(ids), tape);
    return {tape.logits().data(), tape.logits().data() + tape.logits().size()};
}

template <class Set>
std::vector<float> flat(const Set& set) {
    std::vector<float> all;
    gf::for_each_parameter(
        [&](const char*, const auto& slot) {
            for (gf::index_t i = 0; i < slot.size(); ++i) all.push_back(static_cast<float>(slot.data()[i]));
        },
        set);
    return all;
}

template <class D>
std::vector<float> gradients_with(int threads) {
    gf::context<gf::cpu> ctx(threads);
    const auto w = gf::random_decoder_weights<D>(ctx, gf::seed{2}, {.embedding = 1});
    auto g = gf::make_decoder_gradients<D>(ctx);
    const auto ids = some_ids(3 * 16, D::vocabulary);
    gf::decoder_tape<D> tape(ctx, 3, 16);
    auto d = gf::make_tensor<typename D::accumulate_type, gf::dyn, D::vocabulary>(ctx, tape.tokens());
    gf::forward(ctx, w, view_of(ids), tape);
    gf::cross_entropy(ctx, tape.logits(), view_of(ids), d);
    gf::backward(ctx, w, tape, d, g);
    return flat(g);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(decoder)

BOOST_AUTO_TEST_CASE(every_parameter_has_one_name_and_all_are_counted) {
    gf::context<gf::cpu> ctx;
    const auto count = [&](const auto& w) {
        gf::index_t elements = 0;
        std::set<std::string> names;
        gf::for_each_parameter(
            [&](const char* name, const auto& slot) {
                elements += slot.size();
                BOOST_TEST(names.insert(name).second);
            },
            w);
        return std::pair(elements, names);
    };
    using D = gf::decoder<small, float>;
    const auto [elements, names] = count(gf::make_decoder_weights<D>(ctx));
    BOOST_TEST(elements == D::parameters);
    BOOST_TEST(names.size() == 2u * 9u + 3u);
    BOOST_TEST(names.count("blocks.1.layer.gate_up") == 1u);
    BOOST_TEST(count(gf::make_decoder_weights<gf::decoder<tied, float>>(ctx)).first == gf::parameters(tied));
}

BOOST_AUTO_TEST_CASE(weights_depend_on_the_seed_alone) {
    using D = gf::decoder<small, float>;
    gf::context<gf::cpu> one(1), two(2);
    const auto a = flat(gf::random_decoder_weights<D>(one, gf::seed{7}));
    BOOST_TEST((a == flat(gf::random_decoder_weights<D>(two, gf::seed{7}))));
    BOOST_TEST((a != flat(gf::random_decoder_weights<D>(one, gf::seed{8}))));
}

BOOST_AUTO_TEST_CASE(bits_depend_neither_on_threads_nor_on_the_cut_of_the_batch) {
    using D = gf::decoder<small, float>;
    gf::context<gf::cpu> one(1), three(3);
    const auto w = gf::random_decoder_weights<D>(one, gf::seed{1}, {.embedding = 1});
    const auto ids = some_ids(4 * 70, D::vocabulary);
    const auto all = logits_of<D>(one, w, ids, 4);
    BOOST_TEST((all == logits_of<D>(three, w, ids, 4)));
    for (int s = 0; s < 4; ++s) {
        const std::vector<std::int32_t> own(ids.begin() + s * 70, ids.begin() + (s + 1) * 70);
        const auto alone = logits_of<D>(three, w, own, 1);
        BOOST_TEST(std::memcmp(alone.data(), all.data() + s * 70 * D::vocabulary, alone.size() * sizeof(float)) == 0);
        // A shorter sequence: later tokens change nothing before them.
        const std::vector<std::int32_t> start(own.begin(), own.begin() + 33);
        const auto shorter = logits_of<D>(one, w, start, 1);
        BOOST_TEST(std::memcmp(shorter.data(), alone.data(), shorter.size() * sizeof(float)) == 0);
    }
    BOOST_TEST((gradients_with<D>(1) == gradients_with<D>(3)));
}

BOOST_AUTO_TEST_CASE(the_cache_changes_no_bit) {
    using D = gf::decoder<small, float>;
    gf::context<gf::cpu> ctx;
    const auto w = gf::random_decoder_weights<D>(ctx, gf::seed{1}, {.embedding = 1});
    const auto ids = some_ids(75, D::vocabulary);
    const auto all = logits_of<D>(ctx, w, ids, 1);
    gf::decoder_cache<D> cache(ctx);
    gf::index_t fed = 0;
    for (const gf::index_t n : {40, 1, 1, 30, 3}) {
        gf::forward(ctx, w, {ids.data() + fed, {n}}, cache);
        fed += n;
        BOOST_TEST(cache.length() == fed);
        BOOST_TEST(std::memcmp(cache.logits().data(), all.data() + (fed - 1) * D::vocabulary,
                               D::vocabulary * sizeof(float)) == 0);
    }
    BOOST_CHECK_THROW(gf::forward(ctx, w, {ids.data(), {6}}, cache), gf::argument_error);
    BOOST_TEST(cache.length() == 75);
    cache.truncate(10);
    gf::forward(ctx, w, {ids.data() + 10, {1}}, cache);
    BOOST_TEST(std::memcmp(cache.logits().data(), all.data() + 10 * D::vocabulary, D::vocabulary * sizeof(float)) == 0);
}

BOOST_AUTO_TEST_CASE(bf16_follows_float) {
    gf::context<gf::cpu> ctx;
    using D = gf::decoder<small, float>;
    using B = gf::decoder<small, gf::bf16>;
    auto w = gf::random_decoder_weights<B>(ctx, gf::seed{1}, {.embedding = 1});
    auto exact = gf::make_decoder_weights<D>(ctx);
    std::vector<float> values = flat(w);
    std::size_t next = 0;
    gf::for_each_parameter(
        [&](const char*, auto& slot) {
            for (gf::index_t i = 0; i < slot.size(); ++i) slot.data()[i] = values[next++];
        },
        exact);
    const auto ids = some_ids(20, B::vocabulary);
    const auto rough = logits_of<B>(ctx, w, ids, 1), fine = logits_of<D>(ctx, exact, ids, 1);
    double error = 0, size = 0;
    for (std::size_t i = 0; i < fine.size(); ++i) {
        error += std::pow(static_cast<double>(rough[i] - fine[i]), 2);
        size += std::pow(static_cast<double>(fine[i]), 2);
    }
    BOOST_TEST(std::sqrt(error / size) < 0.05);

    // And it learns: float masters carry steps that bf16 weights alone would lose.
    auto g = gf::make_decoder_gradients<B>(ctx);
    auto state = gf::make_adamw_state(ctx, w);
    gf::decoder_tape<B> tape(ctx, 1, 20);
    auto d = gf::make_tensor<float, gf::dyn, B::vocabulary>(ctx, 20);
    double first = 0, last = 0;
    for (int n = 0; n < 30; ++n) {
        gf::forward(ctx, w, view_of(ids), tape);
        last = static_cast<double>(gf::cross_entropy(ctx, tape.logits(), view_of(ids), d).loss);
        if (n == 0) first = last;
        gf::backward(ctx, w, tape, d, g);
        gf::step(ctx, w, g, state, 3e-3);
    }
    BOOST_TEST(last < 0.5 * first);
}

BOOST_AUTO_TEST_CASE(sampling_follows_the_distribution) {
    gf::context<gf::cpu> ctx;
    auto z = gf::make_tensor<float, 1, 4>(ctx);
    const float logits[] = {0, 1, 2, 1};
    std::memcpy(z.data(), logits, sizeof logits);
    const auto draw = [&](gf::index_t position, const gf::sampling& how) {
        return gf::sample(ctx, z.view(), position, how);
    };
    BOOST_TEST(draw(0, {.temperature = 0}) == 2);
    BOOST_TEST(draw(0, {.top_k = 1}) == 2);
    int counts[4] = {};
    constexpr int draws = 20000;
    for (int i = 0; i < draws; ++i) ++counts[draw(i, {.temperature = 0.5, .seed = 9})];
    const double total = 1 + 2 * std::exp(2.0) + std::exp(4.0);
    for (int i = 0; i < 4; ++i)
        BOOST_TEST(std::fabs(static_cast<double>(counts[i]) / draws -
                             std::exp(2.0 * static_cast<double>(logits[i])) / total) < 0.01);
    // Ties of the k-th logit are kept; what is below is never drawn.
    std::set<int> drawn;
    for (int i = 0; i < 2000; ++i) drawn.insert(draw(i, {.temperature = 3, .top_k = 2}));
    BOOST_TEST((drawn == std::set<int>{1, 2, 3}));
    z.data()[1] = std::numeric_limits<float>::quiet_NaN();
    for (int i = 0; i < 100; ++i) BOOST_TEST(draw(i, {}) != 1);
    BOOST_CHECK_THROW(draw(0, {.temperature = -1}), gf::argument_error);
    z.data()[0] = std::numeric_limits<float>::infinity();
    BOOST_CHECK_THROW(draw(0, {}), gf::argument_error);
}

BOOST_AUTO_TEST_CASE(refuses_bad_arguments) {
    using D = gf::decoder<small, float>;
    gf::context<gf::cpu> ctx;
    const auto w = gf::random_decoder_weights<D>(ctx, gf::seed{1});
    gf::decoder_tape<D> tape(ctx, 2, 4);
    auto ids = some_ids(8, D::vocabulary);
    gf::forward(ctx, w, view_of(ids), tape);
    const std::vector<float> before(tape.logits().data(), tape.logits().data() + tape.logits().size());
    ids[7] = D::vocabulary;
    BOOST_CHECK_THROW(gf::forward(ctx, w, view_of(ids), tape), gf::argument_error);
    ids[7] = -1;
    BOOST_CHECK_THROW(gf::forward(ctx, w, view_of(ids), tape), gf::argument_error);
    ids.resize(7);
    BOOST_CHECK_THROW(gf::forward(ctx, w, view_of(ids), tape), gf::argument_error);
    BOOST_TEST(std::memcmp(before.data(), tape.logits().data(), before.size() * sizeof(float)) == 0);
    auto g = gf::make_decoder_gradients<D>(ctx);
    auto d = gf::make_tensor<float, gf::dyn, D::vocabulary>(ctx, 7);
    BOOST_CHECK_THROW(gf::backward(ctx, w, tape, d, g), gf::argument_error);
    BOOST_CHECK_THROW((gf::decoder_tape<D>(ctx, 0, 4)), gf::argument_error);
    BOOST_CHECK_THROW((gf::decoder_tape<D>(ctx, 1, D::context + 1)), gf::argument_error);
    BOOST_CHECK_THROW((gf::decoder_cache<D>(ctx, 0)), gf::argument_error);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
