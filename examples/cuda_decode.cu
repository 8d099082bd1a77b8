// A decode loop on CUDA: four sequences, two layers, and every step one launch of a CUDA graph that holds the copies
// from and to pinned memory too. Layers and copies allocate nothing and ask nothing of the host, so the whole step can
// be captured.
#include <cstdio>
#include <cstdlib>

#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

using moe = gf::layer<gf::config{.hidden = 64, .ffn = 96, .experts = 16, .top_k = 2}, gf::bf16>;
constexpr int sequences = 4, vocabulary = moe::hidden;

void check(cudaError_t status) {
    if (status == cudaSuccess) return;
    std::fprintf(stderr, "cuda_decode: %s\n", cudaGetErrorString(status));
    std::exit(1);
}

// An embedding of a token at its place that needs no table.
void embed(int token, int place, gf::bf16* to) {
    for (int h = 0; h < moe::hidden; ++h)
        to[h] = gf::bf16(static_cast<float>((token * 31 + place * 5 + h * 17) % 23 - 11) / 8);
}

int main() {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    {
        gf::context<gf::cpu> cpu;
        gf::context<gf::cuda> gpu(stream);
        auto weights = gf::make_weights<moe>(gpu);
        gf::copy(gpu, weights, gf::random_weights<moe>(cpu, gf::seed{1}));
        const auto first = gf::pack(gpu, weights);
        gf::copy(gpu, weights, gf::random_weights<moe>(cpu, gf::seed{2}));
        const auto second = gf::pack(gpu, weights);

        auto host_x = gf::make_pinned<gf::bf16, gf::dyn, moe::hidden>(sequences);
        auto host_y = gf::make_pinned<gf::bf16, gf::dyn, moe::hidden>(sequences);
        auto x = gf::make_tensor<gf::bf16, gf::dyn, moe::hidden>(gpu, sequences);
        auto y = gf::make_tensor<gf::bf16, gf::dyn, moe::hidden>(gpu, sequences);
        gpu.reserve<moe>(sequences);
        gpu.fix_workspace();  // a call that would have to allocate throws

        cudaGraph_t graph = nullptr;
        cudaGraphExec_t step = nullptr;
        check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        gf::copy_async(gpu, x, host_x);
        gf::forward(gpu, first, x.view(), y.view());
        gf::forward(gpu, second, y.view(), x.view());
        gf::copy_async(gpu, host_y, x);
        check(cudaStreamEndCapture(stream, &graph));
        check(cudaGraphInstantiate(&step, graph, 0));

        int token[sequences] = {3, 14, 15, 9};
        for (int n = 0; n < 5; ++n) {
            for (int s = 0; s < sequences; ++s) embed(token[s], n, &host_x(s, 0));
            check(cudaGraphLaunch(step, stream));
            gpu.synchronize();
            std::printf("step %d:", n);
            for (int s = 0; s < sequences; ++s) {
                token[s] = 0;  // the most likely next token, were y the logits
                for (int v = 1; v < vocabulary; ++v)
                    if (static_cast<float>(host_y(s, v)) > static_cast<float>(host_y(s, token[s]))) token[s] = v;
                std::printf(" %2d", token[s]);
            }
            std::printf("\n");
        }
        std::printf("%lld tokens routed\n", static_cast<long long>(gpu.report().tokens));
        cudaGraphExecDestroy(step);
        cudaGraphDestroy(graph);
    }
    cudaStreamDestroy(stream);
}
