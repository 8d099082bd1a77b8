// AVX-512 with products of bf16: -march=x86-64-v4 -mavx512bf16.
#include "here.hpp"

std::unique_ptr<tiers::model> tiers::make_avx512_bf16(const weights& w) { return std::make_unique<here>(w); }
