// What `#include <gatefold/gatefold.hpp>` costs a translation unit that uses nothing of it.
#include <gatefold/gatefold.hpp>
