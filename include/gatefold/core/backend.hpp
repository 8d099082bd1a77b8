// Where memory lives and code runs, as types: a device pointer never converts to a host one.
#pragma once

#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

struct cpu {};
struct cuda {};

/// A memory space and the wing that computes on it.
template <class B>
concept backend = __is_same(B, cpu) || __is_same(B, cuda);

}  // namespace gatefold::inline v0
