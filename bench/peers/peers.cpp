// Which peers the build found.
#include <array>

#include "peer.hpp"

namespace bench {

std::unique_ptr<peer> make_onednn(const peer_shape& shape);
std::unique_ptr<peer> make_libxsmm(const peer_shape& shape);
std::unique_ptr<peer> make_ggml(const peer_shape& shape);

std::span<const peer_library> peer_libraries() {
    static constexpr auto all = std::to_array<peer_library>({
#if defined(GATEFOLD_BENCH_ONEDNN)
        {"onednn", &make_onednn},
#endif
#if defined(GATEFOLD_BENCH_LIBXSMM)
            {"libxsmm", &make_libxsmm},
#endif
#if defined(GATEFOLD_BENCH_GGML)
            {"ggml", &make_ggml},
#endif
            {nullptr, nullptr},
    });
    return {all.data(), all.size() - 1};
}

}  // namespace bench
