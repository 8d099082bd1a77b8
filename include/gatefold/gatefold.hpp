// gatefold: mixture-of-experts layers compiled for their configuration. Include this one header.
//
// It brings the core, the tensor operations and the layer for the language being compiled. Pieces of whole models,
// training, files and interoperability have headers of their own: gatefold/nn.hpp, train.hpp, io/..., interop/....
#pragma once

#include <gatefold/config.hpp>
#include <gatefold/core/context.hpp>
#include <gatefold/core/dtype.hpp>
#include <gatefold/core/math.hpp>
#include <gatefold/core/random.hpp>
#include <gatefold/core/tensor.hpp>
#include <gatefold/cpu/wing.hpp>
#include <gatefold/cuda/experts/layout.hpp>
#include <gatefold/moe/backward.hpp>
#include <gatefold/moe/balance.hpp>
#include <gatefold/moe/combine.hpp>
#include <gatefold/moe/default_vectors.hpp>
#include <gatefold/moe/experts.hpp>
#include <gatefold/moe/forward.hpp>
#include <gatefold/moe/layer.hpp>
#include <gatefold/moe/losses.hpp>
#include <gatefold/moe/make_plan.hpp>
#include <gatefold/moe/packed.hpp>
#include <gatefold/moe/router.hpp>
#include <gatefold/moe/stats.hpp>
#include <gatefold/moe/weights.hpp>
#include <gatefold/ops.hpp>
#include <gatefold/version.hpp>

// The CUDA wing. Its sources have this one door, so that the single header can keep it for nvcc.
#if defined(__CUDACC__)
#include <gatefold/cuda/wing.cuh>
#endif
