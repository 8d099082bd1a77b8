// Experts as a graph of ggml's CPU backend: mul_mat_id by gate, up and down, swiglu, weighted sum over the slots.
// Tokens and sums are float, as everywhere in ggml; bf16 tokens are widened first.
#include <cstring>

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <gatefold/core/buffer.hpp>
#include <gatefold/core/dtype.hpp>
#include <gatefold/core/error.hpp>

#include "peer.hpp"

namespace bench {
namespace {

struct freed {
    void operator()(ggml_context* p) const { ggml_free(p); }
    void operator()(ggml_gallocr* p) const { ggml_gallocr_free(p); }
    void operator()(ggml_backend* p) const { ggml_backend_free(p); }
    void operator()(ggml_backend_buffer* p) const { ggml_backend_buffer_free(p); }
};
template <class T>
using owned = std::unique_ptr<T, freed>;

class ggml_peer final : public peer {
public:
    explicit ggml_peer(const peer_shape& s) : shape_(s), backend_(ggml_backend_cpu_init()) {
        const ggml_type type = s.arithmetic == unit::bf16 ? GGML_TYPE_BF16 : GGML_TYPE_F32;
        constexpr int tensors = 3;
        tensors_.reset(ggml_init({tensors * ggml_tensor_overhead(), nullptr, true}));
        gate_ = ggml_new_tensor_3d(tensors_.get(), type, s.hidden, s.ffn, s.experts);
        up_ = ggml_new_tensor_3d(tensors_.get(), type, s.hidden, s.ffn, s.experts);
        down_ = ggml_new_tensor_3d(tensors_.get(), type, s.ffn, s.hidden, s.experts);
        // On huge pages, like every peer's weights.
        index_t bytes = 0;
        for (const ggml_tensor* t : {gate_, up_, down_}) bytes += padded(t);
        memory_ = gatefold::buffer<std::byte>(bytes);
        buffer_.reset(ggml_backend_cpu_buffer_from_ptr(memory_.data(), memory_.bytes()));
        std::byte* place = memory_.data();
        for (ggml_tensor* t : {gate_, up_, down_}) {
            ggml_backend_tensor_alloc(buffer_.get(), t, place);
            place += padded(t);
        }
    }
    ~ggml_peer() override { forget_plan(); }

    void set_expert(int e, const void* gate_up, const void* down) override {
        const auto* from = static_cast<const std::byte*>(gate_up);
        const std::size_t bytes = gate_->nb[2], at = static_cast<std::size_t>(e) * bytes;
        ggml_backend_tensor_set(gate_, from, at, bytes);
        ggml_backend_tensor_set(up_, from + bytes, at, bytes);
        ggml_backend_tensor_set(down_, down, static_cast<std::size_t>(e) * down_->nb[2], down_->nb[2]);
    }

    void run(const peer_call& call) override {
        if (call.tokens != tokens_ || call.threads != threads_) build(call.tokens, call.threads);
        const index_t numbers = call.tokens * shape_.hidden;
        if (shape_.arithmetic == unit::bf16)
            ggml_bf16_to_fp32_row(static_cast<const ggml_bf16_t*>(call.x), static_cast<float*>(x_->data), numbers);
        else
            std::memcpy(x_->data, call.x, static_cast<std::size_t>(numbers) * sizeof(float));
        const auto pairs = static_cast<std::size_t>(call.tokens * shape_.top_k);
        std::memcpy(ids_->data, call.ids, pairs * sizeof(std::int32_t));
        std::memcpy(weights_->data, call.weights, pairs * sizeof(float));
        ggml_backend_graph_plan_compute(backend_.get(), plan_);
        std::memcpy(call.y, y_->data, static_cast<std::size_t>(numbers) * sizeof(float));
    }

private:
    static index_t padded(const ggml_tensor* t) {
        constexpr std::size_t line = gatefold::memory_alignment;
        return static_cast<index_t>((ggml_nbytes(t) + line - 1) / line * line);
    }
    void forget_plan() {
        if (plan_) ggml_backend_graph_plan_free(backend_.get(), plan_);
        plan_ = nullptr;
    }

    void build(index_t tokens, int threads) {
        forget_plan();
        const int k = shape_.top_k, hidden = shape_.hidden;
        constexpr std::size_t few = 128;
        graph_tensors_.reset(ggml_init({few * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true}));
        ggml_context* c = graph_tensors_.get();
        ggml_cgraph* graph = ggml_new_graph(c);
        x_ = ggml_new_tensor_3d(c, GGML_TYPE_F32, hidden, 1, tokens);
        ids_ = ggml_new_tensor_2d(c, GGML_TYPE_I32, k, tokens);
        weights_ = ggml_new_tensor_3d(c, GGML_TYPE_F32, 1, k, tokens);
        for (ggml_tensor* t : {x_, ids_, weights_}) ggml_set_input(t);
        ggml_tensor* h = ggml_swiglu_split(c, ggml_mul_mat_id(c, gate_, x_, ids_), ggml_mul_mat_id(c, up_, x_, ids_));
        ggml_tensor* z = ggml_mul(c, ggml_mul_mat_id(c, down_, h, ids_), weights_);
        const auto slot = [&](int i) {
            return ggml_view_2d(c, z, hidden, tokens, z->nb[2], static_cast<std::size_t>(i) * z->nb[1]);
        };
        y_ = k == 1 ? ggml_cont(c, slot(0)) : slot(0);
        for (int i = 1; i < k; ++i) y_ = ggml_add(c, y_, slot(i));
        ggml_set_output(y_);
        ggml_build_forward_expand(graph, y_);
        graph_memory_.reset(ggml_gallocr_new(ggml_backend_cpu_buffer_type()));
        gatefold::require(ggml_gallocr_alloc_graph(graph_memory_.get(), graph), "ggml_gallocr_alloc_graph", "tokens",
                          "a graph that fits memory", tokens);
        ggml_backend_cpu_set_n_threads(backend_.get(), threads);
        plan_ = ggml_backend_graph_plan_create(backend_.get(), graph);
        tokens_ = tokens;
        threads_ = threads;
    }

    peer_shape shape_;
    owned<ggml_backend> backend_;
    owned<ggml_context> tensors_;
    gatefold::buffer<std::byte> memory_;
    owned<ggml_backend_buffer> buffer_;
    ggml_tensor *gate_ = nullptr, *up_ = nullptr, *down_ = nullptr;

    index_t tokens_ = 0;
    int threads_ = 0;
    owned<ggml_context> graph_tensors_;
    owned<ggml_gallocr> graph_memory_;
    ggml_backend_graph_plan_t plan_ = nullptr;
    ggml_tensor *x_ = nullptr, *ids_ = nullptr, *weights_ = nullptr, *y_ = nullptr;
};

}  // namespace

std::unique_ptr<peer> make_ggml(const peer_shape& shape) { return std::make_unique<ggml_peer>(shape); }

}  // namespace bench
