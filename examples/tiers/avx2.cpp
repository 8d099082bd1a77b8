// AVX2 and FMA: -march=x86-64-v3.
#include "here.hpp"

std::unique_ptr<tiers::model> tiers::make_avx2(const weights& w) { return std::make_unique<here>(w); }
