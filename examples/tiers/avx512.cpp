// AVX-512: -march=x86-64-v4.
#include "here.hpp"

std::unique_ptr<tiers::model> tiers::make_avx512(const weights& w) { return std::make_unique<here>(w); }
