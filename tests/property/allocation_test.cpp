// ctest: heavy
// Once the context has its workspace, forward, backward, losses and the stages allocate nothing: neither from the
// context's allocator nor through the global operator new, which this file counts.
#include <cstdlib>
#include <new>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>
#include <tests/layers.hpp>
#include <tests/unit/memory.hpp>

namespace gf = gatefold;

namespace {
thread_local long requests = 0;

[[gnu::noinline]] void* take(std::size_t bytes, std::size_t alignment) {
    ++requests;
    void* memory = alignment > alignof(std::max_align_t)
                       ? std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment)
                       : std::malloc(bytes > 0 ? bytes : 1);
    if (!memory) throw std::bad_alloc();
    return memory;
}
[[gnu::noinline]] void give(void* memory) { std::free(memory); }
}  // namespace

void* operator new(std::size_t bytes) { return take(bytes, 0); }
void* operator new[](std::size_t bytes) { return take(bytes, 0); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
    return take(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
    return take(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { give(memory); }
void operator delete[](void* memory) noexcept { give(memory); }
void operator delete(void* memory, std::size_t) noexcept { give(memory); }
void operator delete[](void* memory, std::size_t) noexcept { give(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { give(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { give(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { give(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { give(memory); }

namespace {

template <class L>
void allocates_nothing(int threads) {
    constexpr gf::index_t tokens = 37;
    tests::counting_memory memory;
    gf::context<gf::cpu> ctx({.threads = threads, .memory = memory.source()});
    auto w = gf::random_weights<L>(ctx, gf::seed{1});
    const auto packed = gf::pack(ctx, w);
    const auto rows = [&] { return gf::make_tensor<typename L::value_type, gf::dyn, L::hidden>(ctx, tokens); };
    auto x = rows(), y = rows(), dy = rows(), dx = rows();
    const gf::counter_rng random{7};
    for (gf::index_t i = 0; i < x.size(); ++i) {
        x.data()[i] = static_cast<typename L::value_type>(random.uniform<float>(gf::purpose::sampling, i, 0) - 0.5f);
        dy.data()[i] = static_cast<typename L::value_type>(random.uniform<float>(gf::purpose::sampling, i, 1) - 0.5f);
    }
    gf::tape<L> tape(ctx, tokens);
    auto g = gf::make_gradients<L>(ctx);
    ctx.template reserve<L>(tokens);

    const long before = requests;
    const int given = memory.given;
    for (const gf::index_t n : {tokens, gf::index_t{1}, gf::index_t{0}, gf::index_t{5}}) {
        const auto part = [&](auto& t) { return t.view().slice(0, n); };
        gf::forward(ctx, w, part(x), part(y));
        gf::forward(ctx, packed, part(x), part(y));
        gf::forward(ctx, w, {.x = part(x)}, part(y), tape);
        if constexpr (!L::is_dense) {
            BOOST_TEST(gf::add_loss(ctx, gf::losses::switch_balance{0.01}, tape) >= 0);
            gf::route(ctx, w, {.x = part(x)}, tape.routing());
        }
        gf::backward(ctx, w, {.x = part(x)}, tape, part(dy), part(dx), g);
    }
    BOOST_TEST(requests == before);
    BOOST_TEST(memory.given == given);
    BOOST_TEST(memory.refused == 0);
}

using mixtral = gf::layer<test_layers::mixtral, float>;
using narrow = gf::layer<test_layers::deepseek, gf::bf16>;
using limited = gf::layer<gf::config{.hidden = 16,
                                     .ffn = 24,
                                     .experts = 5,
                                     .top_k = 1,
                                     .router = gf::routers::switch_transformer,
                                     .capacity = {.rule = gf::capacity_rule::flaxformer, .factor = 1.25f}},
                          float>;
using dense = gf::layer<gf::config{.hidden = 33, .ffn = 51}, float>;

}  // namespace

BOOST_AUTO_TEST_SUITE(property)
BOOST_AUTO_TEST_SUITE(allocation)

BOOST_AUTO_TEST_CASE(calls_allocate_nothing_once_the_context_has_its_workspace) {
    const long before = requests;
    delete new int;
    BOOST_TEST(requests == before + 1);
    for (const int threads : {1, 2}) {
        allocates_nothing<mixtral>(threads);
        allocates_nothing<narrow>(threads);
        allocates_nothing<limited>(threads);
        allocates_nothing<dense>(threads);
    }
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
