// Built for a matrix unit that the system refuses: it is asked once, and the vector kernels give the bits.
//
// The system's answer is this file's: the function `syscall` of the program comes before the C library's.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include <gatefold/gatefold.hpp>

#if GATEFOLD_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

namespace gf = gatefold;
namespace k = gatefold::detail::on_cpu;
using gf::bf16;
using gf::index_t;

int asked = 0;

}  // namespace

#if GATEFOLD_AMX
extern "C" long int syscall(long int number, ...) noexcept {
    asked += number == SYS_arch_prctl;
    return -1;
}
#endif

int main() {
    constexpr int H = 70, F = 45;
    using E = k::expert<H, F, gf::activation::swiglu, bf16>;
    constexpr index_t rows = 40;
    const auto numbers = [](index_t n) {
        std::vector<bf16> v(static_cast<std::size_t>(n));
        for (std::size_t i = 0; i < v.size(); ++i)
            v[i] = static_cast<bf16>(static_cast<float>(i * 7919 % 509) / 256 - 1);
        return v;
    };
    const auto x = numbers(rows * H), up = numbers(index_t{E::up_rows} * H), down = numbers(index_t{H} * F);
    const k::expert_input<bf16> in{{1, nullptr, rows}, {x.data(), H}};
    gf::context<gf::cpu> ctx(1);
    gf::buffer<std::byte> scratch(static_cast<index_t>(k::expert_scratch_bytes<E>(1, rows)));

    std::vector<float> expected(static_cast<std::size_t>(rows * H)), got = expected;
    k::panels_of<bf16, E::W, E::gated> panels{nullptr, up.data(), down.data(), nullptr, nullptr, k::shape_of<E>};
    k::run_stage<k::portable_form, E::act, bf16, false>(ctx, scratch.data(), k::shape_of<E>, in, panels, 0.0f, {},
                                                        k::rows_into<float>{expected.data(), H});
    for (int call = 0; call < 3; ++call) {
        got.assign(got.size(), 0.0f);
        k::run_experts<E>(ctx, scratch.data(), in, k::hub_weights<bf16>{up.data(), down.data()}, 0.0f,
                          gf::order::portable, {}, k::rows_into<float>{got.data(), H});
        if (std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) != 0) {
            std::printf("call %d: other bits\n", call);
            return 1;
        }
    }
    std::printf("the bits of the vectors\n");
    if (asked == GATEFOLD_AMX) return 0;
    std::printf("the system was asked %d times\n", asked);
    return 1;
}
