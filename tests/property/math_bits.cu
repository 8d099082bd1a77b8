// The bits of the library's functions on a CUDA device are those of the host.
#include <cstdint>
#include <ios>
#include <vector>

#include <boost/test/unit_test.hpp>
#include <cuda_runtime.h>

#include "math_bits.hpp"

namespace {

template <class F, class S>
__global__ void evaluate(F f, const tests::math_arguments<S>* sample, tests::math_outcome<S>* outcomes, int count) {
    const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count) outcomes[i] = f(sample[i]);
}

struct evaluate_on_device {
    template <class S, class F>
    std::vector<tests::math_outcome<S>> operator()(F f, const std::vector<tests::math_arguments<S>>& sample) const {
        std::vector<tests::math_outcome<S>> outcomes(sample.size());
        tests::math_arguments<S>* in = nullptr;
        tests::math_outcome<S>* out = nullptr;
        const auto in_bytes = sample.size() * sizeof *in, out_bytes = outcomes.size() * sizeof *out;
        const int count = static_cast<int>(sample.size());
        BOOST_REQUIRE(cudaMalloc(&in, in_bytes) == cudaSuccess);
        BOOST_REQUIRE(cudaMalloc(&out, out_bytes) == cudaSuccess);
        BOOST_REQUIRE(cudaMemcpy(in, sample.data(), in_bytes, cudaMemcpyHostToDevice) == cudaSuccess);
        evaluate<<<(count + 127) / 128, 128>>>(f, in, out, count);
        BOOST_REQUIRE(cudaGetLastError() == cudaSuccess);
        BOOST_REQUIRE(cudaMemcpy(outcomes.data(), out, out_bytes, cudaMemcpyDeviceToHost) == cudaSuccess);
        cudaFree(in);
        cudaFree(out);
        return outcomes;
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(math_bits)

BOOST_AUTO_TEST_CASE(are_those_of_the_host) {
    tests::for_each_math_bits(evaluate_on_device{}, [](const char* name, std::uint64_t expected, std::uint64_t hash) {
        BOOST_TEST(hash == expected, name << " has other bits: 0x" << std::hex << hash);
    });
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
