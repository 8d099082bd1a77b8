// Experts on oneDNN: matmul with weights in the layout that the primitive asks for; silu and the product with `up` are
// post-operations of the gate's product.
#include <map>
#include <tuple>

#include <oneapi/dnnl/dnnl.hpp>

#include <gatefold/core/buffer.hpp>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "expert_loop.hpp"

namespace bench {
namespace {

using dnnl::matmul;
using dnnl::memory;

template <class T>
class onednn_products {
    static constexpr auto type = sizeof(T) == 2 ? memory::data_type::bf16 : memory::data_type::f32;
    static constexpr auto f32 = memory::data_type::f32;
    enum class product { gate, up, down };

public:
    explicit onednn_products(const peer_shape& s) : shape_(s), experts_(static_cast<std::size_t>(s.experts)) {}

    void set_expert(int e, const T* gate, const T* up, const T* down) {
        auto& to = experts_[static_cast<std::size_t>(e)];
        to[0] = reordered(gate, product::gate);
        to[1] = reordered(up, product::up);
        to[2] = reordered(down, product::down);
    }

    void inner(gatefold::context<gatefold::cpu>& ctx, int e, index_t rows, const T* x, T* h) {
        if (rows * shape_.ffn > static_cast<index_t>(up_.size()))
            up_.resize(static_cast<std::size_t>(rows * shape_.ffn));
        run(ctx, product::up, e, rows, x, up_.data());
        run(ctx, product::gate, e, rows, x, h);
    }
    void outer(gatefold::context<gatefold::cpu>& ctx, int e, index_t rows, const T* h, float* z) {
        run(ctx, product::down, e, rows, h, z);
    }

private:
    struct matrix {
        gatefold::buffer<std::byte> bytes;  // on huge pages
        memory held;
    };
    struct primitive {
        matmul call;
        memory from, to, up;
    };

    int inputs(product p) const { return p == product::down ? shape_.ffn : shape_.hidden; }
    int outputs(product p) const { return p == product::down ? shape_.hidden : shape_.ffn; }

    matmul::primitive_desc described(product p, index_t rows, const memory::desc& weights) {
        dnnl::primitive_attr attributes;
        if (p == product::gate) {
            dnnl::post_ops after;
            after.append_eltwise(dnnl::algorithm::eltwise_swish, 1, 0);
            after.append_binary(dnnl::algorithm::binary_mul, plain(rows, shape_.ffn, f32));
            attributes.set_post_ops(after);
        }
        return {engine_, plain(rows, inputs(p), type), weights,
                plain(rows, outputs(p), p == product::gate ? type : f32), attributes};
    }
    static memory::desc plain(index_t rows, int columns, memory::data_type of) {
        return {{rows, columns}, of, memory::format_tag::ab};
    }

    /// Layouts that primitives ask for differ with the number of rows; this one serves decode and prefill alike.
    matrix reordered(const T* from, product p) {
        constexpr index_t typical_rows = 128;
        const memory::dims dims{inputs(p), outputs(p)};
        const memory::desc wanted = described(p, typical_rows, {dims, type, memory::format_tag::any}).weights_desc();
        matrix m{gatefold::buffer<std::byte>(static_cast<index_t>(wanted.get_size())), {}};
        m.held = memory(wanted, engine_, m.bytes.data());
        memory source({dims, type, memory::format_tag::ba}, engine_, const_cast<T*>(from));
        dnnl::reorder(source, m.held).execute(stream_, source, m.held);
        stream_.wait();
        return m;
    }

    void run(gatefold::context<gatefold::cpu>& ctx, product p, int e, index_t rows, const T* from, void* to) {
#if defined(_OPENMP)
        omp_set_num_threads(ctx.threads());
#endif
        const matrix& weights = experts_[static_cast<std::size_t>(e)][static_cast<std::size_t>(p)];
        const auto key = std::tuple(p, rows, ctx.threads());
        auto found = primitives_.find(key);
        if (found == primitives_.end()) {
            const auto desc = described(p, rows, weights.held.get_desc());
            found = primitives_
                        .emplace(key, primitive{matmul(desc), memory(desc.src_desc(), engine_, DNNL_MEMORY_NONE),
                                                memory(desc.dst_desc(), engine_, DNNL_MEMORY_NONE),
                                                memory(plain(rows, shape_.ffn, f32), engine_, DNNL_MEMORY_NONE)})
                        .first;
        }
        primitive& found_primitive = found->second;
        found_primitive.from.set_data_handle(const_cast<T*>(from));
        found_primitive.to.set_data_handle(to);
        if (p != product::gate) {
            found_primitive.call.execute(stream_, {{DNNL_ARG_SRC, found_primitive.from},
                                                   {DNNL_ARG_WEIGHTS, weights.held},
                                                   {DNNL_ARG_DST, found_primitive.to}});
        } else {
            found_primitive.up.set_data_handle(up_.data());
            found_primitive.call.execute(stream_,
                                         {{DNNL_ARG_SRC, found_primitive.from},
                                          {DNNL_ARG_WEIGHTS, weights.held},
                                          {DNNL_ARG_DST, found_primitive.to},
                                          {DNNL_ARG_ATTR_MULTIPLE_POST_OP(1) | DNNL_ARG_SRC_1, found_primitive.up}});
        }
        stream_.wait();
    }

    peer_shape shape_;
    dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream_{engine_};
    std::vector<std::array<matrix, 3>> experts_;
    std::map<std::tuple<product, index_t, int>, primitive> primitives_;
    std::vector<float> up_;
};

}  // namespace

std::unique_ptr<peer> make_onednn(const peer_shape& shape) {
    if (shape.arithmetic == unit::bf16)
        return std::make_unique<expert_loop<gatefold::bf16, onednn_products<gatefold::bf16>>>(shape);
    return std::make_unique<expert_loop<float, onednn_products<float>>>(shape);
}

}  // namespace bench
