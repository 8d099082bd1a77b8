// The global operator new and delete, in a file of their own: where g++ sees delete beside its callers it inlines that
// alone and warns of a mismatched free.
#include "heap.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<long> count{0};

}  // namespace

void* operator new(std::size_t bytes) {
    bench::count_allocation();
    if (void* memory = std::malloc(bytes ? bytes : 1)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace bench {

long allocations() { return count.load(std::memory_order_relaxed); }
void count_allocation() { count.fetch_add(1, std::memory_order_relaxed); }

}  // namespace bench
