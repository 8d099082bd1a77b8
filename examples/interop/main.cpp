// Memory that other code owns: raw pointers, std::span, rows with gaps between them, and a foreign allocator.
//
// A view borrows; it is a pointer with extents, and what it points to needs no more than the alignment of its type.
#include <cstddef>
#include <cstdio>
#include <memory_resource>
#include <span>
#include <vector>

#include <gatefold/ops.hpp>

namespace gf = gatefold;

namespace {

// 1. Raw pointers, as a C interface hands them over: the extents come beside them.
float dot_from_c(gf::context<gf::cpu>& ctx, const float* a, const float* b, long n) {
    float result = 0;
    gf::matmul<gf::transpose::b>(ctx, gf::view<const float, 1, gf::dyn>(a, {1, n}),
                                 gf::view<const float, 1, gf::dyn>(b, {1, n}), gf::view<float, 1, 1>(&result, {1, 1}));
    return result;
}

// 2. std::span: one dimension there, one here. A span of known size gives a view of known size.
template <class T>
gf::view<T, gf::dyn> as_view(std::span<T> s) {
    return {s.data(), {static_cast<gf::index_t>(s.size())}};
}
template <class T, std::size_t N>
    requires(N != std::dynamic_extent)
gf::view < T, static_cast<int>(N)
> as_view(std::span<T, N> s) { return {s.data(), {static_cast<gf::index_t>(N)}}; }
template <class T, int E>
std::span<T> as_span(gf::view<T, E> v) {
    return {v.data(), static_cast<std::size_t>(v.extent(0))};
}

// 4. An allocator of the standard library behind the two plain functions that a context asks for.
gf::allocator from(std::pmr::memory_resource& resource) {
    return {&resource,
            [](void* self, std::size_t bytes, std::size_t alignment) {
                return static_cast<std::pmr::memory_resource*>(self)->allocate(bytes, alignment);
            },
            [](void* self, void* memory, std::size_t bytes) {
                static_cast<std::pmr::memory_resource*>(self)->deallocate(memory, bytes, gf::memory_alignment);
            }};
}

}  // namespace

int main() {
    gf::context<gf::cpu> ctx(1);

    const float a[] = {1, 2, 3}, b[] = {4, 5, 6};
    std::printf("raw pointers: %g\n", static_cast<double>(dot_from_c(ctx, a, b, 3)));

    std::vector<float> numbers = {3, 1, 2};
    const auto line = as_view(std::span(numbers));
    gf::scale(ctx, 10, line, line);
    std::printf("std::span:    %g of %zu\n", static_cast<double>(gf::sum(ctx, line)), as_span(line).size());
    float fixed[] = {1, 2, 3, 4};
    static_assert(decltype(as_view(std::span(fixed)))::static_extent(0) == 4);

    // 3. Rows with gaps: queries, keys and values of three tokens lie side by side, six numbers a row.
    float fused[3 * 6];
    for (int i = 0; i < 18; ++i) fused[i] = static_cast<float>(i);
    const gf::view<float, 3, 2> query(fused, {3, 2}, 6), key(fused + 2, {3, 2}, 6), value(fused + 4, {3, 2}, 6);
    auto scores = gf::make_tensor<float, 3, 3>(ctx);
    gf::matmul<gf::transpose::b>(ctx, query, key, scores);
    gf::matmul(ctx, scores, value, query);  // written over the queries; keys and values between them stay
    std::printf("strided rows: %g %g | %g %g | %g %g\n", static_cast<double>(fused[0]), static_cast<double>(fused[1]),
                static_cast<double>(fused[2]), static_cast<double>(fused[3]), static_cast<double>(fused[4]),
                static_cast<double>(fused[5]));

    // Everything that this context and its tensors allocate comes from one block on the stack, or not at all.
    alignas(gf::memory_alignment) static std::byte block[1 << 20];
    std::pmr::monotonic_buffer_resource arena(block, sizeof block, std::pmr::null_memory_resource());
    gf::context<gf::cpu> small({.threads = 1, .memory = from(arena)});
    auto t = gf::make_tensor<float, 100>(small);
    gf::fill(small, 0.5, t);
    const auto* const where = reinterpret_cast<const std::byte*>(t.data());
    std::printf("allocator:    %g, inside the block: %s\n", static_cast<double>(gf::sum(small, t)),
                where >= block && where < block + sizeof block ? "yes" : "no");
}
