// Views: small values of one layout, whose type says where the memory is and what is known of its extents.
#include <type_traits>

#include <gatefold/core/view.hpp>

using namespace gatefold;

template <class From, class To>
constexpr bool converts = std::is_convertible_v<From, To>;

static_assert(std::is_trivially_copyable_v<view<float, dyn, 8>>);
static_assert(std::is_same_v<view<float, dyn>, basic_view<cpu, float, dyn>>);
static_assert(std::is_same_v<device_view<float, dyn>, basic_view<cuda, float, dyn>>);

// Knowledge and const may be given up and added, never the reverse.
static_assert(converts<view<float, 4, 8>, view<float, dyn, 8>>);
static_assert(converts<view<float, dyn, 8>, view<float, dyn, dyn>>);
static_assert(converts<view<float, dyn, 8>, view<const float, dyn, 8>>);
static_assert(!converts<view<float, dyn, dyn>, view<float, dyn, 8>>);
static_assert(!converts<view<const float, dyn, 8>, view<float, dyn, 8>>);
static_assert(!converts<view<float, dyn, 4096>, view<float, dyn, 2048>>);
static_assert(!converts<view<float, dyn, 8>, view<double, dyn, 8>>);
static_assert(!converts<view<float, dyn, 8>, view<float, dyn>>);

// Memory spaces never mix.
static_assert(!converts<device_view<float, dyn, 8>, view<float, dyn, 8>>);
static_assert(!converts<view<float, dyn, 8>, device_view<float, dyn, 8>>);

// Extents, strides and places in constant expressions.
constexpr float numbers[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
constexpr view<const float, dyn, 3> matrix(numbers, {4, 3});
static_assert(matrix.size() == 12 && matrix.rows() == 4 && matrix.is_contiguous());
static_assert(matrix(2, 1) == 7 && *matrix.row(3) == 9);
static_assert(matrix.slice(1, 2).extent(0) == 2 && matrix.slice(1, 2)(1, 2) == 8);
constexpr view<const float, dyn, 2> strided(numbers, {4, 2}, 3);
static_assert(!strided.is_contiguous() && strided(2, 1) == 7 && strided.slice(1, 3)(2, 0) == 9);
