// The other half of first.cpp.
#include <gatefold.hpp>

using tiny = gatefold::layer<gatefold::config{.hidden = 8, .ffn = 16, .experts = 4, .top_k = 2}, float>;

long long parameters_elsewhere() { return tiny::parameters; }
