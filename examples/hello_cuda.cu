// The layer of hello_moe on a GPU, and as a decode loop: captured once in a CUDA graph, replayed for every token.
#include <cstdio>

#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

using moe = gf::layer<gf::config{.hidden = 256, .ffn = 128, .experts = 8, .top_k = 2}, gf::bf16>;

int main() {
    cudaStream_t stream = nullptr;
    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) {
        std::fprintf(stderr, "hello_cuda: no CUDA device here: %s\n", cudaGetErrorString(cudaGetLastError()));
        return 1;
    }
    gf::context<gf::cpu> cpu;
    gf::context<gf::cuda> gpu(stream);

    // Weights are made on the host, copied, and packed once into the order that the kernels read.
    const auto host_weights = gf::random_weights<moe>(cpu, gf::seed{1});
    auto weights = gf::make_weights<moe>(gpu);
    gf::copy(gpu, weights, host_weights);
    const auto packed = gf::pack(gpu, weights);

    auto x = gf::make_tensor<gf::bf16, gf::dyn, 256>(cpu, 1), y = gf::make_tensor<gf::bf16, gf::dyn, 256>(cpu, 1);
    auto device_x = gf::make_tensor<gf::bf16, gf::dyn, 256>(gpu, 1);
    auto device_y = gf::make_tensor<gf::bf16, gf::dyn, 256>(gpu, 1);
    gpu.reserve<moe>(1);  // nothing is allocated from here on, so that the call can be captured

    cudaGraph_t graph = nullptr;
    cudaGraphExec_t decode = nullptr;
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    gf::forward(gpu, packed, device_x.view(), device_y.view());
    cudaStreamEndCapture(stream, &graph);
    std::size_t launches = 0;
    cudaGraphGetNodes(graph, nullptr, &launches);
    cudaGraphInstantiate(&decode, graph, 0);
    std::printf("router, plan, experts and combine: %zu launches\n", launches);

    for (int token = 0; token < 3; ++token) {
        for (gf::index_t i = 0; i < x.size(); ++i) x.data()[i] = gf::bf16(static_cast<float>((i + token) % 7 - 3) / 4);
        gf::copy(gpu, device_x, x);
        cudaGraphLaunch(decode, stream);
        gf::copy(gpu, y, device_y);
        std::printf("token %d: y = %+.2f %+.2f %+.2f ...\n", token, static_cast<double>(y(0, 0)),
                    static_cast<double>(y(0, 1)), static_cast<double>(y(0, 2)));
    }
    cudaGraphExecDestroy(decode);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
}
