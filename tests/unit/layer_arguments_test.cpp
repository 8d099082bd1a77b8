// Wrong arguments of the layer's public calls: an exception that names function, argument, expected and got, and not
// one byte of an output changed. Memory that runs out is survived at every allocation.
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

namespace {

using moe =
    gf::layer<gf::config{.hidden = 8, .ffn = 12, .experts = 4, .top_k = 2, .router = gf::routers::mixtral}, float>;
using by_table =
    gf::layer<gf::config{.hidden = 8, .ffn = 12, .experts = 4, .top_k = 2, .router = {.select = gf::selection::given}},
              float>;
using rows = gf::view<float, gf::dyn, 8>;
using const_rows = gf::view<const float, gf::dyn, 8>;

struct world {
    gf::context<gf::cpu> ctx{2};
    gf::weights<moe> w = gf::random_weights<moe>(ctx, gf::seed{1});
    gf::gradients<moe> g = gf::make_gradients<moe>(ctx);
    gf::tape<moe> tape{ctx, 8};
    std::vector<float> x = std::vector<float>(64, 0.5f), y = std::vector<float>(64, 7.0f), dy = x, dx = y;

    gf::batch<moe> in(gf::index_t tokens = 8) const {
        gf::batch<moe> b;
        b.x = {x.data(), {tokens, 8}};
        return b;
    }
    rows out(gf::index_t tokens = 8) { return {y.data(), {tokens, 8}}; }
};

/// Runs a call that must throw an argument_error whose text holds all `parts`.
template <class F>
void throws(F&& f, std::initializer_list<const char*> parts) {
    try {
        f();
    } catch (const gf::argument_error& e) {
        for (const char* part : parts)
            BOOST_TEST(std::string(e.what()).find(part) != std::string::npos, e.what() << " lacks " << part);
        return;
    }
    BOOST_ERROR("no exception");
}

bool untouched(const std::vector<float>& v) {
    for (const float a : v)
        if (a != 7.0f) return false;
    return true;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(layer_arguments)

BOOST_AUTO_TEST_CASE(forward_names_what_does_not_fit) {
    world s;
    throws([&] { gf::forward(s.ctx, s.w, s.in(7), s.out()); }, {"gatefold::forward", "y", "7 rows", "8"});
    throws([&] { gf::forward(s.ctx, s.w, s.in(), rows{nullptr, {8, 8}}); }, {"forward: y", "memory", "null"});
    throws([&] { gf::forward(s.ctx, s.w, const_rows{nullptr, {8, 8}}, s.out()); }, {"forward: x", "memory", "null"});
    throws(
        [&] {
            gf::forward(s.ctx, s.w, s.in(), rows{s.y.data(), {8, 8}, 4});
        },
        {"forward: y", "elements apart", "4"});
    throws(
        [&] {
            gf::forward(s.ctx, s.w, const_rows{s.x.data(), {8, 7}}, s.out());
        },
        {"forward: x", "extent 8", "got 7"});
    auto* odd = reinterpret_cast<float*>(reinterpret_cast<char*>(s.y.data()) + 1);
    throws([&] { gf::forward(s.ctx, s.w, s.in(7), rows{odd, {7, 8}}); }, {"forward: y", "multiple of 4 bytes"});
    throws(
        [&] {
            gf::forward(s.ctx, s.w, s.in(), rows{s.x.data(), {8, 8}});
        },
        {"forward: y", "apart from x", "overlap"});
    throws([&] { gf::forward(s.ctx, s.w, s.in(7), rows{s.x.data() + 4, {7, 8}}); }, {"apart from x"});
    throws([&] { gf::forward(s.ctx, gf::weights<moe>{}, s.in(), s.out()); }, {"forward: router", "memory", "null"});
    BOOST_TEST(untouched(s.y));
}

BOOST_AUTO_TEST_CASE(forward_checks_what_is_known_of_the_tokens) {
    world s;
    auto in = s.in();
    std::vector<std::uint8_t> mask(5, 1);
    in.mask = {mask.data(), {5}};
    throws([&] { gf::forward(s.ctx, s.w, in, s.out()); }, {"forward: mask", "8 rows", "5"});
    in = s.in();
    in.router_x = {s.dy.data(), {3, 8}};
    throws([&] { gf::forward(s.ctx, s.w, in, s.out()); }, {"forward: router_x", "8 rows", "3"});
    in = s.in();
    in.router_x = {s.y.data(), {8, 8}};
    throws([&] { gf::forward(s.ctx, s.w, in, s.out()); }, {"forward: y", "apart from router_x"});
    in = s.in();
    std::vector<std::int32_t> starts{1, 4};
    in.sequence_starts = {starts.data(), {2}};
    throws([&] { gf::forward(s.ctx, s.w, in, s.out()); }, {"sequence_starts", "ascending starts from 0", "got 1"});
    starts = {0, 9};
    throws([&] { gf::forward(s.ctx, s.w, in, s.out()); }, {"sequence_starts", "got 9"});
    BOOST_TEST(untouched(s.y));
}

BOOST_AUTO_TEST_CASE(ids_from_outside_are_checked) {
    gf::context<gf::cpu> ctx(1);
    auto w = gf::make_weights<by_table>(ctx);
    std::vector<float> x(64, 1.0f), y(64, 7.0f);
    gf::batch<by_table> in;
    in.x = {x.data(), {8, 8}};
    throws([&] { gf::forward(ctx, w, in, rows{y.data(), {8, 8}}); }, {"forward: chosen", "none"});
    std::vector<std::int32_t> ids(16, 3);
    for (const std::int32_t bad : {4, -2, 1 << 30}) {
        ids[11] = bad;
        in.chosen = {ids.data(), {8, 2}};
        throws([&] { gf::forward(ctx, w, in, rows{y.data(), {8, 8}}); }, {"forward: chosen", "ids from -1 to 3"});
    }
    BOOST_TEST(untouched(y));
    gf::plan<by_table> p(ctx, 8);
    const auto plan = p.view(8);
    throws(
        [&] {
            gf::make_plan<by_table>(ctx, gf::view<const std::int32_t, gf::dyn, 2>{ids.data(), {8, 2}}, plan);
        },
        {"make_plan: ids", "experts from -1 to 3"});
    throws(
        [&] {
            gf::make_plan<by_table>(ctx, gf::view<const std::int32_t, gf::dyn, 2>{ids.data(), {7, 2}}, plan);
        },
        {"make_plan: plan", "7 tokens", "8"});
    throws([&] { (void)p.view(9); }, {"plan: tokens", "8", "9"});
}

BOOST_AUTO_TEST_CASE(backward_names_what_does_not_fit) {
    world s;
    const const_rows dy{s.dy.data(), {8, 8}};
    const rows dx{s.dx.data(), {8, 8}};
    throws([&] { gf::backward(s.ctx, s.w, s.in(), s.tape, dy, dx, s.g); }, {"backward: tape", "8 tokens", "0"});
    gf::forward(s.ctx, s.w, s.in(), s.out(), s.tape);
    throws(
        [&] {
            gf::backward(s.ctx, s.w, s.in(7), s.tape, const_rows{s.dy.data(), {7, 8}}, rows{s.dx.data(), {7, 8}}, s.g);
        },
        {"backward: tape", "7 tokens", "8"});
    throws(
        [&] {
            gf::backward(s.ctx, s.w, s.in(), s.tape, const_rows{s.dy.data(), {3, 8}}, dx, s.g);
        },
        {"backward: dy", "3"});
    throws(
        [&] {
            gf::backward(s.ctx, s.w, s.in(), s.tape, dy, rows{s.dy.data(), {8, 8}}, s.g);
        },
        {"dx", "apart from dy"});
    gf::gradients<moe> none;
    throws([&] { gf::backward(s.ctx, s.w, s.in(), s.tape, dy, dx, none); }, {"backward: router", "null"});
    BOOST_TEST(untouched(s.dx));
    for (gf::index_t i = 0; i < s.g.down.size(); ++i) BOOST_TEST(s.g.down.data()[i] == 0.0f);
}

BOOST_AUTO_TEST_CASE(a_tape_that_is_too_small_keeps_what_it_held) {
    world s;
    gf::forward(s.ctx, s.w, s.in(4), s.out(4), s.tape);
    gf::tape<moe> small(s.ctx, 3);
    throws([&] { gf::forward(s.ctx, s.w, s.in(), s.out(), small); }, {"forward: tape", "8 tokens", "3"});
    BOOST_TEST(small.tokens() == 0);
    throws([&] { gf::tape<moe> bad(s.ctx, -1); }, {"tape: most_tokens"});
    throws([&] { gf::tape<moe> bad(s.ctx, gf::index_t{1} << 31); }, {"tape: most_tokens"});
}

BOOST_AUTO_TEST_CASE(reserved_room_is_a_promise) {
    world s;
    s.ctx.reserve<moe>(4);
    throws([&] { gf::forward(s.ctx, s.w, s.in(), s.out()); }, {"forward: x", "4 rows reserved", "8"});
    BOOST_TEST(untouched(s.y));
    gf::forward(s.ctx, s.w, s.in(4), s.out(4));
    throws([&] { s.ctx.reserve<moe>(-3); }, {"context::reserve", "-3"});
}

BOOST_AUTO_TEST_CASE(a_workspace_that_may_not_grow_says_so) {
    world s;
    s.ctx.reserve_bytes(64);
    s.ctx.fix_workspace();
    throws([&] { gf::forward(s.ctx, s.w, s.in(), s.out()); }, {"context::workspace", "at most what was reserved"});
    BOOST_TEST(untouched(s.y));
    s.ctx.fix_workspace(false);
    s.ctx.reserve<moe>(8);
    s.ctx.fix_workspace();
    gf::forward(s.ctx, s.w, s.in(), s.out(), s.tape);
    gf::backward(s.ctx, s.w, s.in(), s.tape, const_rows{s.dy.data(), {8, 8}}, rows{s.dx.data(), {8, 8}}, s.g);
}

BOOST_AUTO_TEST_CASE(packing_checks_its_expert) {
    world s;
    auto p = gf::make_packed<moe>(s.ctx);
    const auto e = s.w.expert(0);
    throws([&] { gf::pack_expert(s.ctx, p, 4, e.gate_up, e.down); }, {"pack_expert: e", "4"});
    throws([&] { gf::pack_expert(s.ctx, p, 0, e.down, e.down); }, {"pack_expert: gate_up", "24 rows", "8"});
    throws([&] { (void)s.w.expert(-1); }, {"weights::expert", "-1"});
}

BOOST_AUTO_TEST_CASE(packing_checks_the_shared_expert) {
    using shared = gf::layer<
        gf::config{
            .hidden = 8, .ffn = 12, .experts = 4, .top_k = 2, .router = gf::routers::mixtral, .shared = {.ffn = 20}},
        float>;
    gf::context<gf::cpu> ctx(1);
    const auto w = gf::random_weights<shared>(ctx, gf::seed{1});
    const auto up = w.shared_gate_up.view();
    const auto down = w.shared_down.view();
    auto p = gf::make_packed<shared>(ctx);
    throws([&] { gf::pack_shared_expert(ctx, p, down, down); }, {"pack_shared_expert: gate_up", "40 rows", "8"});
    throws([&] { gf::pack_shared_expert(ctx, p, up, up); }, {"pack_shared_expert: down", "8 rows", "40"});
    gf::packed<shared> empty;
    throws([&] { gf::pack_shared_expert(ctx, empty, up, down); }, {"pack_shared_expert: p", "make_packed"});
}

BOOST_AUTO_TEST_CASE(forward_needs_packed_matrices) {
    using dense = gf::layer<gf::config{.hidden = 8, .ffn = 12}, float>;  // without a parameter besides its matrices
    gf::context<gf::cpu> ctx(1);
    const gf::packed<dense> empty;
    for (const int tokens : {1, 2}) {
        const auto x = gf::make_tensor<float, gf::dyn, 8>(ctx, tokens);
        auto y = gf::make_tensor<float, gf::dyn, 8>(ctx, tokens);
        throws([&] { gf::forward(ctx, empty, x.view(), y.view()); }, {"forward: matrices", "packed matrices", "null"});
    }
}

namespace {

/// Fails the n-th allocation from now.
struct failing {
    long left = 1L << 40;
    static void* allocate(void* self, std::size_t bytes, std::size_t alignment) {
        if (static_cast<failing*>(self)->left-- <= 0) return nullptr;
        return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    }
    static void release(void*, void* memory, std::size_t) { std::free(memory); }
};

}  // namespace

BOOST_AUTO_TEST_CASE(every_allocation_may_fail) {
    std::vector<float> expected;
    int failures = 0;
    for (long n = 0;; ++n) {
        failing source;
        gf::context<gf::cpu> ctx(
            gf::context_options{.threads = 2, .memory = {&source, &failing::allocate, &failing::release}});
        std::vector<float> x(64, 0.25f), y(64, 7.0f), dx(64, 7.0f);
        source.left = n;
        bool wrote = false;
        try {
            auto w = gf::random_weights<moe>(ctx, gf::seed{1});
            auto g = gf::make_gradients<moe>(ctx);
            gf::tape<moe> tape(ctx, 8);
            const auto p = gf::pack(ctx, w);
            gf::batch<moe> in;
            in.x = {x.data(), {8, 8}};
            gf::forward(ctx, w, in, rows{y.data(), {8, 8}}, tape);
            wrote = true;
            gf::backward(ctx, w, in, tape, const_rows{x.data(), {8, 8}}, rows{dx.data(), {8, 8}}, g);
            break;
        } catch (const std::bad_alloc&) {
            ++failures;
            BOOST_TEST((wrote || untouched(y)));
            BOOST_TEST(untouched(dx));
        }
        BOOST_REQUIRE(n < 200);
    }
    BOOST_TEST(failures > 10);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
