// A dense FFN with relu and biases on a library made for small networks.
#pragma once

#include <memory>

namespace bench {

#if defined(GATEFOLD_BENCH_SMALL_PEER)
inline constexpr bool has_small_peer = true;
#else
inline constexpr bool has_small_peer = false;
#endif

class small_ffn {
public:
    small_ffn() = default;
    small_ffn(const small_ffn&) = delete;
    small_ffn& operator=(const small_ffn&) = delete;
    virtual ~small_ffn() = default;

    /// up [ffn, hidden], down [hidden, ffn].
    virtual void set(const float* up, const float* up_bias, const float* down, const float* down_bias) = 0;
    /// The outputs for one token, valid until the next call.
    virtual const float* run(const float* x) = 0;
};

/// RTNeural's layers, compiled for the sizes that realtime.cpp measures: ffn is 4 hidden.
std::unique_ptr<small_ffn> make_rtneural(int hidden, int ffn);

}  // namespace bench
