// Qwen3 at an eighth of its widths with its rows added up as they come: no combine and no expert outputs in memory. The
// minimum is that of the ordered call, which hands them on.
#include <gatefold/cuda/unordered.cuh>
#include <gatefold/models/qwen.hpp>

#include "budget.cuh"

namespace {

struct unordered_call {
    template <class W, class X, class Y>
    void operator()(budget::gf::context<budget::gf::cuda>& gpu, const W& w, const X& x, const Y& y) const {
        budget::gf::forward(gpu, budget::gf::unordered, w, x, y);
    }
};

}  // namespace

budget::facts budget::qwen3_unordered(std::int64_t tokens, bool calls) {
    return run<gf::layer<eighth(gf::models::qwen3_30b_a3b.layer), gf::bf16>, unordered_call>(tokens, calls);
}
