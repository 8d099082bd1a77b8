// Experts of a layer on another library, behind one interface: what the benches run beside the library's own.
//
//     route, make_plan (ours) ──> peer::run: gather, products, activation, weighted sum ──> y
//
// Routing and plan are made by gatefold in the time that a peer is charged, so that both sides time whole layers and
// differ in what follows. A peer keeps the weights in the form that its library is fastest with.
#pragma once

#include <memory>
#include <span>

#include <gatefold/core/index.hpp>

#include "../probe.hpp"

namespace bench {

using gatefold::index_t;

/// Experts of swiglu without biases.
struct peer_shape {
    int hidden, ffn, experts, top_k;
    unit arithmetic;  ///< of weights and tokens: float or bf16
};

/// One call: the pairs of expert e are pairs[offsets[e]] up to pairs[offsets[e + 1]], pair = token · top_k + slot.
struct peer_call {
    index_t tokens;
    int threads;
    const void* x;                ///< [tokens, hidden] in the type of the weights
    const std::int32_t* ids;      ///< [tokens, top_k]
    const float* weights;         ///< [tokens, top_k]
    const std::int32_t* offsets;  ///< [experts + 1]
    const std::int32_t* pairs;    ///< [tokens · top_k]
    float* y;                     ///< [tokens, hidden]
};

class peer {
public:
    peer() = default;
    peer(const peer&) = delete;
    peer& operator=(const peer&) = delete;
    virtual ~peer() = default;

    /// Takes over expert e: gate and up [2 ffn, hidden], down [hidden, ffn], in the type of the shape.
    virtual void set_expert(int e, const void* gate_up, const void* down) = 0;
    virtual void run(const peer_call& call) = 0;
};

struct peer_library {
    const char* name;
    /// A layer of that shape without weights; null for a shape that the library has no kernels for.
    std::unique_ptr<peer> (*make)(const peer_shape& shape);
};

#if defined(GATEFOLD_BENCH_PEERS)
inline constexpr bool has_peers = true;
#else
inline constexpr bool has_peers = false;
#endif

/// The libraries that this program was built with.
std::span<const peer_library> peer_libraries();

}  // namespace bench
