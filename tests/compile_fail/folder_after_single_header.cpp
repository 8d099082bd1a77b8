// EXPECT: gatefold: this file already includes the single header; use either it or <gatefold/...>, not both
#include "../../single_include/gatefold.hpp"
#ifdef GATEFOLD_BAD
#include <gatefold/version.hpp>
#endif
