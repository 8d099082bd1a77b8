// Experts on libxsmm's batch-reduce products: weights in blocks of 64 x 64 (bf16 with pairs of inputs side by side),
// a thread takes a column of blocks; gate and up of a column are activated while they are in its cache.
#include <algorithm>
#include <array>
#include <map>
#include <tuple>

#include <libxsmm.h>

#include <gatefold/core/buffer.hpp>

#include "expert_loop.hpp"

namespace bench {
namespace {

constexpr int block = 64;

template <class T>
class libxsmm_products {
    static constexpr int pair = sizeof(T) == 2 ? 2 : 1;
    static constexpr int reduced =
        16;  // blocks of inputs in one call: a column of them stays in the second-level cache

public:
    explicit libxsmm_products(const peer_shape& s) : shape_(s), experts_(static_cast<std::size_t>(s.experts)) {
        libxsmm_init();
    }

    void set_expert(int e, const T* gate, const T* up, const T* down) {
        auto& to = experts_[static_cast<std::size_t>(e)];
        to[0] = blocked(gate, shape_.hidden, shape_.ffn);
        to[1] = blocked(up, shape_.hidden, shape_.ffn);
        to[2] = blocked(down, shape_.ffn, shape_.hidden);
    }

    void inner(gatefold::context<gatefold::cpu>& ctx, int e, index_t rows, const T* x, T* h) {
        const auto& weights = experts_[static_cast<std::size_t>(e)];
        prepare(shape_.hidden, rows, block);
        const auto columns = static_cast<std::size_t>(rows * block);
        if (tiles_.size() < 2 * columns * static_cast<std::size_t>(ctx.threads()))
            tiles_.resize(2 * columns * static_cast<std::size_t>(ctx.threads()));
        each_column(ctx, shape_.ffn, [&](int column, int thread) {
            float* gate = tiles_.data() + 2 * columns * static_cast<std::size_t>(thread);
            float* up = gate + columns;
            multiply(weights[0].data(), column, shape_.hidden, rows, x, gate, block);
            multiply(weights[1].data(), column, shape_.hidden, rows, x, up, block);
            for (index_t r = 0; r < rows; ++r)
                swiglu_row(gate + r * block, up + r * block, h + r * shape_.ffn + column * block, block);
        });
    }
    void outer(gatefold::context<gatefold::cpu>& ctx, int e, index_t rows, const T* h, float* z) {
        const auto& weights = experts_[static_cast<std::size_t>(e)];
        prepare(shape_.ffn, rows, shape_.hidden);
        each_column(ctx, shape_.hidden, [&](int column, int) {
            multiply(weights[2].data(), column, shape_.ffn, rows, h, z + column * block, shape_.hidden);
        });
    }

private:
    /// [outputs, inputs] as [outputs / 64][inputs / 64][64 / pair][64][pair].
    static gatefold::buffer<T> blocked(const T* from, int inputs, int outputs) {
        gatefold::buffer<T> to(index_t{inputs} * outputs);
        for (index_t o = 0; o < outputs; ++o)
            for (index_t i = 0; i < inputs; ++i) {
                const index_t which = o / block * (inputs / block) + i / block;
                to.data()[which * block * block + i % block / pair * block * pair + o % block * pair + i % pair] =
                    from[o * inputs + i];
            }
        return to;
    }

    template <class Body>
    static void each_column(gatefold::context<gatefold::cpu>& ctx, int outputs, Body body) {
        const int columns = outputs / block, parts = std::min(columns, ctx.threads());
        ctx.parallel(parts, [&](int part) {
            for (int c = columns * part / parts; c < columns * (part + 1) / parts; ++c) body(c, part);
        });
    }

    /// Makes the kernels of a product before threads look for them.
    void prepare(int inputs, index_t rows, int stride) {
        for (const index_t n : {std::min<index_t>(rows, block), rows % block})
            for (const bool first : {true, false})
                if (n > 0) kernel(static_cast<int>(n), inputs, stride, first);
    }
    libxsmm_gemmfunction kernel(int rows, int inputs, int stride, bool first) {
        libxsmm_gemmfunction& made = kernels_[std::tuple(rows, inputs, stride, first)];
        if (made) return made;
        constexpr auto type = sizeof(T) == 2 ? LIBXSMM_DATATYPE_BF16 : LIBXSMM_DATATYPE_F32;
        const libxsmm_gemm_shape shape = libxsmm_create_gemm_shape(block, rows, block, block, inputs, stride, type,
                                                                   type, LIBXSMM_DATATYPE_F32, LIBXSMM_DATATYPE_F32);
        const auto flags = static_cast<libxsmm_bitfield>((first ? LIBXSMM_GEMM_FLAG_BETA_0 : 0) |
                                                         (sizeof(T) == 2 ? LIBXSMM_GEMM_FLAG_VNNI_A : 0));
        const libxsmm_gemm_batch_reduce_config reduce{LIBXSMM_GEMM_BATCH_REDUCE_STRIDE,
                                                      block * block * static_cast<int>(sizeof(T)),
                                                      block * static_cast<int>(sizeof(T)), 0};
        made = libxsmm_dispatch_brgemm(shape, flags, LIBXSMM_GEMM_PREFETCH_NONE, reduce);
        gatefold::require(made != nullptr, "libxsmm_dispatch_brgemm", "rows", "a size with a kernel", rows);
        return made;
    }

    /// 64 outputs of every row: to[r · stride + i] for output 64 column + i.
    void multiply(const T* weights, int column, int inputs, index_t rows, const T* from, float* to, int stride) {
        const int blocks = inputs / block;
        for (int begin = 0; begin < blocks; begin += reduced)
            for (index_t row = 0; row < rows; row += block) {
                unsigned long long count = static_cast<unsigned long long>(std::min(reduced, blocks - begin));
                libxsmm_gemm_param p{};
                p.op.tertiary = &count;
                p.a.primary = const_cast<T*>(weights + (index_t{column} * blocks + begin) * block * block);
                p.b.primary = const_cast<T*>(from + row * inputs + index_t{begin} * block);
                p.c.primary = to + row * stride;
                const auto n = static_cast<int>(std::min<index_t>(block, rows - row));
                kernels_.find(std::tuple(n, inputs, stride, begin == 0))->second(&p);
            }
    }

    peer_shape shape_;
    std::vector<std::array<gatefold::buffer<T>, 3>> experts_;
    std::map<std::tuple<int, int, int, bool>, libxsmm_gemmfunction> kernels_;
    std::vector<float> tiles_;
};

}  // namespace

std::unique_ptr<peer> make_libxsmm(const peer_shape& shape) {
    if (shape.hidden % block != 0 || shape.ffn % block != 0) return nullptr;
    if (shape.arithmetic == unit::bf16)
        return std::make_unique<expert_loop<gatefold::bf16, libxsmm_products<gatefold::bf16>>>(shape);
    return std::make_unique<expert_loop<float, libxsmm_products<float>>>(shape);
}

}  // namespace bench
