// A plain, slow, double-precision mixture-of-experts layer that every path of the library is compared with.
//
// It follows spec/routing.md and spec/training.md formula by formula, uses nothing but the standard library, and was
// written without sight of the library's code.
#pragma once

#include "oracle/balance.hpp"
#include "oracle/layer.hpp"
#include "oracle/losses.hpp"
#include "oracle/special.hpp"
