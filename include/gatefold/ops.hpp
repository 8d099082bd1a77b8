// The tensor operations: usable without any layer, on tensors and views, forward and backward.
//
// All take a context first, compare extents that are known at compile time there and the others at run time, write
// nothing when they throw, allocate nothing but workspace, and give the same bits for any number of threads.
#pragma once

#include <gatefold/ops/activate.hpp>
#include <gatefold/ops/cross_entropy.hpp>
#include <gatefold/ops/elementwise.hpp>
#include <gatefold/ops/embedding.hpp>
#include <gatefold/ops/gather.hpp>
#include <gatefold/ops/matmul.hpp>
#include <gatefold/ops/norm.hpp>
#include <gatefold/ops/reduce.hpp>
#include <gatefold/ops/softmax.hpp>
#include <gatefold/ops/sort.hpp>
#include <gatefold/ops/top_k.hpp>
