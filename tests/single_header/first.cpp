// The single header in two translation units of one program: no symbol is defined twice, types and inline functions
// agree.
#include <cstdio>

#include <gatefold.hpp>

using tiny = gatefold::layer<gatefold::config{.hidden = 8, .ffn = 16, .experts = 4, .top_k = 2}, float>;

long long parameters_elsewhere();

int main() {
    const bool same = tiny::parameters == parameters_elsewhere();
    std::printf("%lld parameters\n", static_cast<long long>(tiny::parameters));
    return same ? 0 : 1;
}
