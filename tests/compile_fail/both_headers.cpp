// EXPECT: gatefold: this file already includes <gatefold/...>; use either the single header or the include folder, not
// both
#ifdef GATEFOLD_BAD
#include <gatefold/version.hpp>
#endif
#include "../../single_include/gatefold.hpp"
