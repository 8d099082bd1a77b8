// Training: losses, balance, optimisers, schedules, clipping, checkpoints.
#pragma once

#include <gatefold/moe/balance.hpp>
#include <gatefold/moe/losses.hpp>
#include <gatefold/moe/stats.hpp>
#include <gatefold/ops/cross_entropy.hpp>
#include <gatefold/train/adamw.hpp>
#include <gatefold/train/checkpoint.hpp>
#include <gatefold/train/clip.hpp>
#include <gatefold/train/schedule.hpp>
#include <gatefold/train/sgd.hpp>
