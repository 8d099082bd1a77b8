// Tiles: -march=x86-64-v4 -mavx512bf16 -mamx-tile -mamx-bf16.
#include "here.hpp"

std::unique_ptr<tiers::model> tiers::make_amx(const weights& w) { return std::make_unique<here>(w); }
