// Without a CUDA device: a context cannot be made, and the exception says why. Run with COC_DEVICES=0 or on a machine
// without a GPU; where there is a device this is skipped.
#include <cstdio>
#include <string>

#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

int main() {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0)
        return std::printf("skipped: a device is here\n"), 77;
    for (const int device : {-1, 0}) {
        try {
            gf::context<gf::cuda> gpu(gf::cuda_context_options{.device = device});
            return std::printf("a context without a device\n"), 1;
        } catch (const gf::cuda_error& e) {
            const std::string text = e.what();
            std::printf("%s\n", e.what());
            if (text.find("gatefold::context") == std::string::npos) return 1;
            if (text.find("no CUDA-capable device") == std::string::npos) return 1;
        }
    }
    return 0;
}
