// A layer's experts one after another on a library of matrix products: gather, two products, weighted sum.
#pragma once

#include <vector>

#include <gatefold/core/context.hpp>
#include <gatefold/core/dtype.hpp>
#include <gatefold/cpu/simd/number.hpp>
#include <gatefold/ops/activation.hpp>

#include "peer.hpp"

namespace bench {

/// Calls body(row) for every row in [0, rows) on all threads of the context.
template <class Body>
void for_each_row(gatefold::context<gatefold::cpu>& ctx, index_t rows, Body body) {
    const auto parts = static_cast<int>(rows < ctx.threads() ? rows : ctx.threads());
    ctx.parallel(parts, [&](int part) {
        for (index_t r = rows * part / parts; r < rows * (part + 1) / parts; ++r) body(r);
    });
}

/// to[i] = silu(gate[i]) · up[i], i in [0, n), with the library's own vector exponential.
template <class T>
void swiglu_row(const float* gate, const float* up, T* to, index_t n) {
    namespace simd = gatefold::detail::on_cpu;
    for (index_t i = 0; i < n; i += simd::lanes<float>) {
        const auto g = simd::load_first<float>(gate + i, n - i), u = simd::load_first<float>(up + i, n - i);
        simd::store_first(to + i, gatefold::activate<gatefold::activation::swiglu>(g, u, simd::zeros<float>()), n - i);
    }
}

/// Products supplies, for an expert e and rows without gaps,
///     set_expert(e, gate, up, down)
///     inner(ctx, e, rows, x, h)    h [rows, ffn] = silu(x gateᵀ) · (x upᵀ), rounded to T
///     outer(ctx, e, rows, h, z)    z [rows, hidden] = h downᵀ in float
template <class T, class Products>
class expert_loop final : public peer {
public:
    explicit expert_loop(const peer_shape& shape) : shape_(shape), products_(shape) {}

    void set_expert(int e, const void* gate_up, const void* down) override {
        const T* gate = static_cast<const T*>(gate_up);
        products_.set_expert(e, gate, gate + index_t{shape_.ffn} * shape_.hidden, static_cast<const T*>(down));
    }

    void run(const peer_call& call) override {
        gatefold::context<gatefold::cpu> ctx(call.threads);
        const index_t hidden = shape_.hidden;
        const T* x = static_cast<const T*>(call.x);
        for (index_t i = 0; i < call.tokens * hidden; ++i) call.y[i] = 0;
        for (int e = 0; e < shape_.experts; ++e) {
            const std::int32_t* pairs = call.pairs + call.offsets[e];
            const index_t rows = call.offsets[e + 1] - call.offsets[e];
            if (rows == 0) continue;
            grow(rows);
            for_each_row(ctx, rows, [&](index_t r) {
                const T* from = x + pairs[r] / shape_.top_k * hidden;
                std::copy(from, from + hidden, x_.data() + r * hidden);
            });
            products_.inner(ctx, e, rows, x_.data(), h_.data());
            products_.outer(ctx, e, rows, h_.data(), z_.data());
            for_each_row(ctx, rows, [&](index_t r) {
                const float weight = call.weights[pairs[r]];
                const float* from = z_.data() + r * hidden;
                float* to = call.y + pairs[r] / shape_.top_k * hidden;
                for (index_t i = 0; i < hidden; ++i) to[i] += weight * from[i];
            });
        }
    }

private:
    void grow(index_t rows) {
        const auto want = [](auto& v, index_t n) {
            if (n > static_cast<index_t>(v.size())) v.resize(static_cast<std::size_t>(n));
        };
        want(x_, rows * shape_.hidden);
        want(h_, rows * shape_.ffn);
        want(z_, rows * shape_.hidden);
    }

    peer_shape shape_;
    Products products_;
    std::vector<T> x_, h_;
    std::vector<float> z_;
};

}  // namespace bench
