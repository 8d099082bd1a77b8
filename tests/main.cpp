// The one module of every Boost.Test executable; the tests stand in plain translation units beside it.
#define BOOST_TEST_MODULE gatefold

#if defined(GATEFOLD_TEST_NEEDS_CUDA)
// A machine without a device skips: 77 is the status that ctest reads as skipped.
#define BOOST_TEST_NO_MAIN
#define BOOST_TEST_ALTERNATIVE_INIT_API
#endif

#if defined(GATEFOLD_TEST_RUNNER_IN_HEADERS)  // Boost's headers are there, its library is not
#include <boost/test/included/unit_test.hpp>
#else
#include <boost/test/unit_test.hpp>
#endif

#if defined(GATEFOLD_TEST_NEEDS_CUDA)
#include <cstdio>

#include <cuda_runtime_api.h>

int main(int argc, char** argv) {
    int devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&devices);
    if (status != cudaSuccess || devices == 0) {
        std::printf("skipped: no CUDA device (%s); an emulator can be named with GATEFOLD_CUDA_LAUNCHER\n",
                    cudaGetErrorString(status));
        return 77;
    }
    return boost::unit_test::unit_test_main(&init_unit_test, argc, argv);
}
#endif
