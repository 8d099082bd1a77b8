// ctest: heavy timeout=900
// What every named router promises whatever comes: ids of experts that exist, each once, weights that are numbers, the
// same bits for any number of threads and, where a token does not see the others, for any split of the batch.
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/cpu/router/router.hpp>
#include <gatefold/moe/capacity.hpp>
#include <tests/named_routers.hpp>

namespace {

namespace gf = gatefold;
namespace on_cpu = gf::detail::on_cpu;

constexpr float infinite = std::numeric_limits<float>::infinity(),
                not_a_number = std::numeric_limits<float>::quiet_NaN();

/// Numbers in (-1, 1).
struct source {
    std::uint64_t state;
    double operator()() {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        return static_cast<double>(state >> 11) * 0x1p-52 - 1;
    }
};

/// What the tokens of a case are like.
enum class input { ordinary, equal, zeros, tiny, huge, one_expert, some_not_numbers, not_numbers, some_infinite };

template <class L>
struct result {
    std::vector<std::int32_t> ids;
    std::vector<float> weights, logits, d_logits;
    std::vector<std::uint8_t> kept;
    gf::routing_report report;

    static bool same(const std::vector<float>& a, const std::vector<float>& b) {
        return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
    }
    bool operator==(const result& o) const {
        return ids == o.ids && same(weights, o.weights) && same(logits, o.logits) && same(d_logits, o.d_logits) &&
               kept == o.kept;
    }
    void append(const result& part) {
        ids.insert(ids.end(), part.ids.begin(), part.ids.end());
        weights.insert(weights.end(), part.weights.begin(), part.weights.end());
        logits.insert(logits.end(), part.logits.begin(), part.logits.end());
        d_logits.insert(d_logits.end(), part.d_logits.begin(), part.d_logits.end());
        kept.insert(kept.end(), part.kept.begin(), part.kept.end());
    }
};

template <class L>
gf::weights<L> make_router(gf::context<gf::cpu>& ctx, input kind) {
    auto w = gf::make_weights<L>(ctx);
    source next{41};
    const auto fill = [&](const char*, auto& slot) {
        for (gf::index_t i = 0; i < slot.size(); ++i) slot.data()[i] = static_cast<float>(next());
    };
    gf::for_each_parameter(fill, w);
    gf::for_each_buffer(fill, w);
    if constexpr (gf::is_present<decltype(w.router_temperature)>) w.router_temperature.data()[0] = 0.3f;
    const auto set = [](auto& slot, auto value) {
        if constexpr (gf::is_present<std::remove_reference_t<decltype(slot)>>)
            for (gf::index_t i = 0; i < slot.size(); ++i) slot.data()[i] = value(i);
    };
    if (kind == input::equal) {
        set(w.router, [](gf::index_t i) { return static_cast<float>(i % L::hidden) / L::hidden; });
        set(w.router_bias, [](gf::index_t) { return 0.25f; });
        set(w.selection_bias, [](gf::index_t) { return 0.0f; });
    }
    if (kind == input::one_expert) set(w.router, [](gf::index_t i) { return i / L::hidden == 1 ? 3.0f : -1.0f; });
    return w;
}

template <class L>
std::vector<float> make_tokens(gf::index_t count, input kind) {
    source next{7};
    std::vector<float> x(static_cast<std::size_t>(count * L::hidden));
    for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t t = i / static_cast<std::size_t>(L::hidden);
        const auto v = static_cast<float>(next());
        switch (kind) {
            case input::zeros:
                x[i] = i % 2 == 0 ? 0.0f : -0.0f;
                break;
            case input::tiny:
                x[i] = v * 1e-42f;
                break;
            case input::huge:
                x[i] = v * 1e37f;
                break;
            case input::one_expert:
                x[i] = 1 + std::fabs(v);
                break;
            case input::some_not_numbers:
                x[i] = t % 3 == 1 && i % 5 == 0 ? not_a_number : v;
                break;
            case input::not_numbers:
                x[i] = not_a_number;
                break;
            case input::some_infinite:
                x[i] = t % 3 == 2 ? (t % 2 == 0 ? infinite : -infinite) : v;
                break;
            default:
                x[i] = v;
        }
    }
    return x;
}

/// Routes tokens [first, first + count), applies the layer's capacity, and goes back with a gradient of ones.
template <class L>
result<L> route_part(gf::context<gf::cpu>& ctx, const gf::weights<L>& w, const std::vector<float>& x, gf::index_t first,
                     gf::index_t count, const gf::options<L>& o) {
    auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, count);
    auto chosen = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(ctx, count);
    auto weights = gf::make_tensor<float, gf::dyn, L::slots>(ctx, count),
         dw = gf::make_tensor<float, gf::dyn, L::slots>(ctx, count);
    auto logits = gf::make_tensor<float, gf::dyn, L::choices>(ctx, count),
         dz = gf::make_tensor<float, gf::dyn, L::choices>(ctx, count);
    auto kept = gf::make_tensor<std::uint8_t, gf::dyn>(ctx, count * L::slots);
    // What was there before must not shine through.
    for (gf::index_t i = 0; i < ids.size(); ++i) {
        ids.data()[i] = -77;
        weights.data()[i] = not_a_number;
        kept.data()[i] = 1;
        // Tables may name an expert twice or leave a slot empty.
        chosen.data()[i] = static_cast<std::int32_t>((first * L::slots + i) * 5 % (L::choices + 1)) - 1;
    }
    for (gf::index_t i = 0; i < logits.size(); ++i) logits.data()[i] = not_a_number;
    dz.set_zero();
    gf::batch<L> in;
    in.x = {x.data() + first * L::hidden, {count, L::hidden}};
    in.first_token = first;
    if constexpr (L::c.router.select == gf::selection::given) in.chosen = chosen.view();
    ctx.clear_report();
    const gf::routing_view<L> routing{ids.view(), weights.view(), logits.view()};
    gf::route(ctx, w, in, routing, o);
    if constexpr (gf::drops(L::c)) gf::apply_capacity(ctx, in, routing, kept.view(), o);
    for (gf::index_t i = 0; i < ids.size(); ++i) dw.data()[i] = ids.data()[i] < 0 || kept.data()[i] == 0 ? 0.0f : 1.0f;
    on_cpu::route_backward(ctx, w, in, o, routing, dw.view(), dz.view());
    return {{ids.data(), ids.data() + ids.size()},          {weights.data(), weights.data() + weights.size()},
            {logits.data(), logits.data() + logits.size()}, {dz.data(), dz.data() + dz.size()},
            {kept.data(), kept.data() + kept.size()},       ctx.report()};
}

/// Ids that exist, distinct where the router chooses them; weights that are numbers and add up as they should.
template <class L>
void check_token(const result<L>& r, gf::index_t t, const gf::options<L>& o) {
    constexpr gf::router_config c = L::c.router;
    const std::int32_t* ids = r.ids.data() + t * L::slots;
    const float* weights = r.weights.data() + t * L::slots;
    const float* z = r.logits.data() + t * L::choices;
    bool finite = true, all = true;
    for (int e = 0; e < L::choices; ++e) finite = finite && std::isfinite(z[e]);
    std::set<std::int32_t> seen;
    double sum = 0;
    for (int s = 0; s < L::slots; ++s) {
        BOOST_TEST_REQUIRE((ids[s] >= -1 && ids[s] < L::choices));
        if (c.select != gf::selection::given && ids[s] >= 0) BOOST_TEST(seen.insert(ids[s]).second, "twice the same");
        BOOST_TEST(!std::isnan(weights[s]));
        if (ids[s] < 0) BOOST_TEST(weights[s] == 0);
        // A score without a bound may be infinite where nothing divides it.
        if (finite || c.from != gf::score::relu) BOOST_TEST(std::isfinite(weights[s]));
        all = all && ids[s] >= 0 && r.kept[static_cast<std::size_t>(t * L::slots + s)] != 0;
        sum += static_cast<double>(weights[s]);
    }
    if (!gf::is_variable(L::c) && c.second == gf::second_expert::always && c.select != gf::selection::given)
        BOOST_TEST(seen.size() == static_cast<std::size_t>(L::top_k));
    constexpr bool adds_up = (c.renorm == gf::renormalise::sum || c.from == gf::score::softmax_selected) &&
                             !c.expert_scale && L::c.free.zero == 0;
    if (adds_up && all)
        BOOST_TEST(std::fabs(sum - (c.scaled == gf::scale_at::weights ? o.scale : 1)) <= 1e-5 * (1 + o.scale));
    for (int e = 0; finite && e < L::choices; ++e)
        BOOST_TEST(std::isfinite(r.d_logits[static_cast<std::size_t>(t * L::choices + e)]));
    for (int e = 0; e < L::choices; ++e)
        BOOST_TEST(!std::isnan(r.d_logits[static_cast<std::size_t>(t * L::choices + e)]));
}

struct adversarial {
    template <gf::config C>
    static void visit(const char* name) {
        using L = gf::layer<C, float>;
        gf::context<gf::cpu> ctx(2);
        for (const input kind : {input::ordinary, input::equal, input::zeros, input::tiny, input::huge,
                                 input::one_expert, input::some_not_numbers, input::not_numbers, input::some_infinite})
            for (const gf::index_t tokens : {0, 1, 37})
                for (const bool training : {false, true})
                    BOOST_TEST_CONTEXT(name << ", input " << static_cast<int>(kind) << ", " << tokens << " tokens"
                                            << (training ? ", training" : "")) {
                        const auto w = make_router<L>(ctx, kind);
                        gf::options<L> o;
                        o.training = training;
                        o.seed = 3;
                        const auto x = make_tokens<L>(tokens, kind);
                        const result<L> r = route_part<L>(ctx, w, x, 0, tokens, o);
                        for (gf::index_t t = 0; t < tokens; ++t) check_token(r, t, o);
                        BOOST_TEST(r.report.tokens == tokens);
                        if (kind == input::not_numbers && C.router.logits == gf::projection::linear)
                            BOOST_TEST(r.report.undecided == tokens);
                    }
    }
};

struct same_bits {
    template <gf::config C>
    static void visit(const char* name) {
        using L = gf::layer<C, float>;
        constexpr gf::index_t count = 61;
        gf::context<gf::cpu> one(1), two(2), three(3), seven(7);
        const auto w = make_router<L>(one, input::ordinary);
        std::vector<float> x = make_tokens<L>(count, input::ordinary);
        x[5 * L::hidden] = not_a_number;
        for (const bool training : {false, true}) BOOST_TEST_CONTEXT(name << (training ? ", training" : "")) {
                gf::options<L> o;
                o.training = training;
                o.seed = 11;
                o.step = 2;
                const result<L> whole = route_part<L>(one, w, x, 0, count, o);
                for (auto* ctx : {&one, &two, &three, &seven})
                    BOOST_TEST((route_part<L>(*ctx, w, x, 0, count, o) == whole), ctx->threads() << " threads");
                // Those that look at the batch act alone at inference, but for experts that choose.
                constexpr gf::selection s = C.router.select;
                const bool by_batch = s == gf::selection::expert_choice ||
                                      (training && (s == gf::selection::sinkhorn || s == gf::selection::balanced));
                if (by_batch || gf::drops(C)) continue;
                for (const gf::index_t split : {1, 2, 7, 32}) {
                    result<L> parts;
                    for (gf::index_t first = 0; first < count; first += split)
                        parts.append(route_part<L>(two, w, x, first, (std::min)(split, count - first), o));
                    BOOST_TEST((parts == whole), "split of " << split);
                }
            }
    }
};

struct collect {
    static std::set<std::string>& names() {
        static std::set<std::string> all;
        return all;
    }
    template <gf::config C>
    static void visit(const char* name) {
        names().insert(name);
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(property)
BOOST_AUTO_TEST_SUITE(named_routers)

BOOST_AUTO_TEST_CASE(whatever_comes) { ::named_routers::for_each_named_router<adversarial>(); }
BOOST_AUTO_TEST_CASE(same_bits_for_threads_and_splits) { ::named_routers::for_each_named_router<same_bits>(); }

BOOST_AUTO_TEST_CASE(every_name_is_here) {
    std::string path = __FILE__;
    path = path.substr(0, path.rfind("tests/")) + "include/gatefold/moe/routers.hpp";
    std::ifstream file(path);
    if (!file) return;
    std::stringstream text;
    text << file.rdbuf();
    ::named_routers::for_each_named_router<collect>();
    std::set<std::string> known = collect::names();
    for (const auto& alias : ::named_routers::names) {
        BOOST_TEST((known.count(alias[1]) == 1), alias[1]);
        known.insert(alias[0]);
    }
    // Names stand before a brace, a parenthesis or an equals sign of a constexpr declaration.
    std::string line;
    bool declares = false;
    int found = 0;
    while (std::getline(text, line)) {
        if (line.rfind("//", 0) == 0) continue;
        if (line.find("constexpr router_config ") != std::string::npos) declares = true;
        if (!declares) continue;
        for (std::size_t at = 0; at < line.size(); ++at) {
            std::size_t end = at;
            while (end < line.size() && (std::isalnum(static_cast<unsigned char>(line[end])) || line[end] == '_'))
                ++end;
            if (end == at) continue;
            const bool starts = at == 0 || line[at - 1] == ' ';
            const std::string word = line.substr(at, end - at);
            const bool ends = line.compare(end, 1, "{") == 0 || line.compare(end, 3, " = ") == 0 || word == "x_moe";
            if (starts && ends && (at == 0 || line[at - 1] != '.')) {
                BOOST_TEST((known.count(word) == 1), word << " is not among the named routers of the tests");
                ++found;
            }
            at = end;
        }
        if (line.find(';') != std::string::npos || line.find(") {") != std::string::npos) declares = false;
    }
    BOOST_TEST(found >= 50);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
