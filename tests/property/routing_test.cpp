// ctest: heavy timeout=600
// What routing promises whatever the configuration: the same bits for any number of threads and any split of the
// batch, tokens that do not look at each other, k distinct experts in the order of the contract, for E = 2 to 513.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/cpu/router/router.hpp>

namespace {

namespace gf = gatefold;

/// Numbers in (-1, 1).
struct source {
    std::uint64_t state;
    double operator()() {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        return static_cast<double>(state >> 11) * 0x1p-52 - 1;
    }
};

template <class L>
struct result {
    using A = typename L::accumulate_type;
    std::vector<std::int32_t> ids;
    std::vector<A> weights, logits;
    gf::routing_report report;
    bool operator==(const result& other) const {
        return ids == other.ids && std::memcmp(weights.data(), other.weights.data(), weights.size() * sizeof(A)) == 0 &&
               std::memcmp(logits.data(), other.logits.data(), logits.size() * sizeof(A)) == 0 &&
               report == other.report;
    }
};

template <class L>
gf::weights<L> make_router(gf::context<gf::cpu>& ctx, std::uint64_t seed) {
    auto w = gf::make_weights<L>(ctx);
    source next{seed};
    const auto fill = [&](const char*, auto& slot) {
        using T = typename std::remove_reference_t<decltype(slot)>::value_type;
        for (gf::index_t i = 0; i < slot.size(); ++i)
            slot.data()[i] = gf::from_accumulate<T>(static_cast<gf::accumulate_t<T>>(next()));
    };
    gf::for_each_parameter(fill, w);
    gf::for_each_buffer(fill, w);
    return w;
}

template <class T>
std::vector<T> tokens_of(gf::index_t count, int hidden, std::uint64_t seed) {
    source next{seed};
    std::vector<T> x(static_cast<std::size_t>(count * hidden));
    for (T& v : x) v = gf::from_accumulate<T>(static_cast<gf::accumulate_t<T>>(1.5 * next()));
    return x;
}

/// Routes tokens [first, first + count) of a batch.
template <class L>
result<L> route_part(gf::context<gf::cpu>& ctx, const gf::weights<L>& w, const std::vector<typename L::value_type>& x,
                     gf::index_t first, gf::index_t count, const gf::options<L>& o) {
    using A = typename L::accumulate_type;
    auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, count);
    auto weights = gf::make_tensor<A, gf::dyn, L::slots>(ctx, count);
    auto logits = gf::make_tensor<A, gf::dyn, L::choices>(ctx, count);
    gf::batch<L> in;
    in.x = {x.data() + first * L::hidden, {count, L::hidden}};
    in.first_token = first;
    ctx.clear_report();
    gf::route(ctx, w, in, {ids.view(), weights.view(), logits.view()}, o);
    return {{ids.data(), ids.data() + ids.size()},
            {weights.data(), weights.data() + weights.size()},
            {logits.data(), logits.data() + logits.size()},
            ctx.report()};
}

template <class L>
void append(result<L>& to, const result<L>& part) {
    to.ids.insert(to.ids.end(), part.ids.begin(), part.ids.end());
    to.weights.insert(to.weights.end(), part.weights.begin(), part.weights.end());
    to.logits.insert(to.logits.end(), part.logits.begin(), part.logits.end());
    to.report.tokens += part.report.tokens;
    to.report.nan_logits += part.report.nan_logits;
    to.report.infinite_logits += part.report.infinite_logits;
    to.report.undecided += part.report.undecided;
}

/// Threads 1 to 5 and splits of 1, 2, 7, 64 tokens give the bits of the whole; permuted tokens permute the result.
template <gf::config C, class T>
void same_bits() {
    using L = gf::layer<C, T>;
    constexpr gf::index_t count = 83;
    gf::context<gf::cpu> one(1);
    const auto w = make_router<L>(one, 3);
    std::vector<T> x = tokens_of<T>(count, L::hidden, 5);
    x[L::hidden * 7] = gf::from_accumulate<T>(std::numeric_limits<gf::accumulate_t<T>>::quiet_NaN());
    for (const bool training : {false, true}) {
        gf::options<L> o;
        o.training = training;
        o.seed = 11;
        o.step = 2;
        const result<L> whole = route_part<L>(one, w, x, 0, count, o);
        BOOST_TEST((route_part<L>(one, w, x, 0, count, o) == whole), "another run");
        for (int threads = 2; threads <= 5; ++threads) {
            gf::context<gf::cpu> ctx(threads);
            BOOST_TEST((route_part<L>(ctx, w, x, 0, count, o) == whole), threads << " threads");
        }
        if constexpr (gf::detail::router_traits<L>::by_batch) continue;
        gf::context<gf::cpu> two(2);
        for (const gf::index_t split : {1, 2, 7, 64}) {
            result<L> parts;
            for (gf::index_t first = 0; first < count; first += split)
                append(parts, route_part<L>(two, w, x, first, (std::min)(split, count - first), o));
            BOOST_TEST((parts == whole), "split of " << split);
        }
        if (training || C.router.select == gf::selection::uniform)
            continue;  // noise belongs to the place, not to the token
        std::vector<T> backwards(x.size());
        for (gf::index_t t = 0; t < count; ++t)
            std::copy_n(x.begin() + t * L::hidden, L::hidden, backwards.begin() + (count - 1 - t) * L::hidden);
        const result<L> turned = route_part<L>(two, w, backwards, 0, count, o);
        bool same = true;
        for (gf::index_t t = 0; t < count; ++t)
            for (int s = 0; s < L::slots; ++s) {
                const auto a = static_cast<std::size_t>(t * L::slots + s),
                           b = static_cast<std::size_t>((count - 1 - t) * L::slots + s);
                same = same && whole.ids[a] == turned.ids[b] &&
                       std::memcmp(&whole.weights[a], &turned.weights[b], sizeof whole.weights[a]) == 0;
            }
        BOOST_TEST(same, "permuted tokens");
    }
}

constexpr gf::config with_router(gf::router_config r, int experts = 16, int k = 2) {
    return {.hidden = 37, .ffn = 1, .experts = experts, .top_k = k, .router = r};
}

/// Ids and weights of E experts against a stable sort, for logits with ties, NaN and infinities.
template <int E, int K>
void contract() {
    constexpr gf::config c{.hidden = 1, .ffn = 1, .experts = E, .top_k = K};
    using L = gf::layer<c, float>;
    gf::context<gf::cpu> ctx(2);
    source next{static_cast<std::uint64_t>(E * 1000 + K)};
    for (int round = 0; round < 6; ++round) {
        auto w = gf::make_weights<L>(ctx);
        std::vector<float> z(std::size_t{E});
        for (float& v : z) {
            v = round % 2 == 0 ? float(4 * next()) : float(static_cast<int>(3 * next()));  // distinct, or full of ties
            if (round >= 2 && next() > 0.7) v = std::numeric_limits<float>::quiet_NaN();
            if (round >= 3 && next() > 0.8) v = -std::numeric_limits<float>::infinity();
            if (round >= 4 && next() > 0.9) v = std::numeric_limits<float>::infinity();
        }
        std::copy(z.begin(), z.end(), w.router.data());
        const result<L> r = route_part<L>(ctx, w, {1.0f}, 0, 1, {});
        std::vector<std::int32_t> order(z.size());
        std::iota(order.begin(), order.end(), 0);
        const auto key = [&](std::int32_t e) {
            const float v = z[static_cast<std::size_t>(e)];
            return std::isnan(v) ? -std::numeric_limits<float>::infinity() : v;
        };
        std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return key(a) > key(b); });
        order.resize(K);
        BOOST_TEST((r.ids == order), "E " << E << ", k " << K << ", round " << round);
        double sum = 0;
        for (const float weight : r.weights) {
            BOOST_TEST((weight >= 0 && weight <= 1));
            sum += static_cast<double>(weight);
        }
        BOOST_TEST(sum <= 1 + 1e-5);
    }
}

template <int E>
void contract_of() {
    contract<E, 1>();
    if constexpr (E >= 2) contract<E, 2>();
    if constexpr (E >= 8) contract<E, 8>();
    if constexpr (E >= 22) contract<E, 22>();
    if constexpr (E <= 33) contract<E, E>();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(property)
BOOST_AUTO_TEST_SUITE(routing)

BOOST_AUTO_TEST_CASE(same_bits_for_threads_and_splits) {
    using namespace gf::routers;
    same_bits<with_router(mixtral), float>();
    same_bits<with_router(deepseek_v3), gf::bf16>();
    same_bits<with_router(ernie), gf::f16>();
    same_bits<with_router(switch_transformer, 5, 1), float>();
    same_bits<with_router(noisy_top_k), double>();
    same_bits<with_router(v_moe), float>();
    same_bits<with_router(skywork), float>();
    same_bits<with_router(gemma4), float>();
    same_bits<with_router(x_moe(9)), float>();
    same_bits<with_router(phi_moe), float>();
    same_bits<with_router(nllb_sampling), float>();
    same_bits<with_router(gshard), float>();
    same_bits<with_router(sampled, 16, 3), float>();
    same_bits<with_router(uniform, 16, 3), float>();
    same_bits<with_router(top_p, 16, 9), float>();
    same_bits<with_router(remoe), float>();
    same_bits<with_router(expert_choice), float>();
    same_bits<with_router(base, 16, 1), float>();
    same_bits<with_router(sinkhorn_top_k), float>();
}

BOOST_AUTO_TEST_CASE(order_of_choice) {
    contract_of<2>();
    contract_of<3>();
    contract_of<5>();
    contract_of<31>();
    contract_of<32>();
    contract_of<33>();
    contract_of<64>();
    contract_of<160>();
    contract_of<256>();
    contract_of<384>();
    contract_of<512>();
    contract_of<513>();
}

BOOST_AUTO_TEST_CASE(balanced_assignment) {
    constexpr int E = 8;
    using L = gf::layer<with_router(gf::routers::base, E, 1), double>;
    for (const gf::index_t count : {1, 8, 40, 43, 800}) {
        gf::context<gf::cpu> ctx(2);
        const auto w = make_router<L>(ctx, 9);
        const auto x = tokens_of<double>(count, L::hidden, 4);
        gf::options<L> o;
        o.training = true;
        const result<L> r = route_part<L>(ctx, w, x, 0, count, o);
        std::vector<gf::index_t> load(E);
        double assigned = 0, least = 1e9, most = -1e9, free = 0;
        for (gf::index_t t = 0; t < count; ++t) {
            const std::int32_t e = r.ids[static_cast<std::size_t>(t)];
            BOOST_REQUIRE((e >= 0 && e < E));
            ++load[static_cast<std::size_t>(e)];
            const double* z = r.logits.data() + t * E;
            assigned += z[e];
            free += *std::max_element(z, z + E);
            least = (std::min)(least, *std::min_element(z, z + E));
            most = (std::max)(most, *std::max_element(z, z + E));
        }
        for (const gf::index_t n : load) BOOST_TEST((n <= (count + E - 1) / E && (count % E != 0 || n == count / E)));
        // Never better than free choice, and no swap of two tokens gains more than the auction's steps.
        BOOST_TEST(assigned <= free + 1e-9);
        const double step = (most - least) / 1024;
        for (gf::index_t a = 0; a < (std::min)(count, gf::index_t{100}); ++a)
            for (gf::index_t b = 0; b < a; ++b) {
                const auto ea = r.ids[static_cast<std::size_t>(a)], eb = r.ids[static_cast<std::size_t>(b)];
                const double *za = r.logits.data() + a * E, *zb = r.logits.data() + b * E;
                BOOST_TEST(za[eb] + zb[ea] <= za[ea] + zb[eb] + 2 * step + 1e-12);
            }
    }
}

BOOST_AUTO_TEST_CASE(expert_choice_loads) {
    constexpr int E = 8;
    using L = gf::layer<with_router(gf::routers::expert_choice, E, 2), float>;
    gf::context<gf::cpu> ctx(3);
    const auto w = make_router<L>(ctx, 2);
    for (const gf::index_t count : {1, 4, 40, 43}) {
        const auto x = tokens_of<float>(count, L::hidden, 8);
        const result<L> r = route_part<L>(ctx, w, x, 0, count, {});
        std::vector<gf::index_t> load(E);
        for (const std::int32_t e : r.ids)
            if (e >= 0) ++load[static_cast<std::size_t>(e)];
        for (const gf::index_t n : load) BOOST_TEST(n == count * 2 / E);
    }
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
