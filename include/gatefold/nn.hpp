// Transformer pieces: decoders with any layer of the library in their blocks.
#pragma once

#include <gatefold/nn/attention.hpp>
#include <gatefold/nn/backward.hpp>
#include <gatefold/nn/config.hpp>
#include <gatefold/nn/decoder.hpp>
#include <gatefold/nn/forward.hpp>
#include <gatefold/nn/generate.hpp>
#include <gatefold/nn/rope.hpp>
#include <gatefold/nn/tape.hpp>
