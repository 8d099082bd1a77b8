// Block-sparse experts on the matrix unit's twin in plain code: the bits of the vector kernels over the whole packed
// matrices, whatever is zero, infinite or so small that it decides about -0.
#include <cstring>
#include <limits>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>
#include <gatefold/moe/sparse.hpp>
#include <tests/layer_comparison.hpp>

namespace {

namespace gf = gatefold;
namespace k = gatefold::detail::on_cpu;
using gf::bf16;
using gf::index_t;

template <int H, int F, gf::activation Act>
using mixture = gf::layer<
    gf::config{
        .hidden = H, .ffn = F, .experts = 4, .top_k = 2, .act = Act, .bias = true, .router = gf::routers::mixtral},
    bf16>;

template <class L>
struct subject {
    using E = k::routed_expert<L>;
    gf::context<gf::cpu> ctx{1};
    gf::weights<L> w = gf::make_weights<L>(ctx);
    std::vector<bf16> x;

    subject() { comparison::fill(w, 5); }

    /// Rows per expert.
    void check(const std::vector<index_t>& counts) {
        // Panels are as wide as the tier's registers; the unit wants 16 outputs.
        if constexpr (k::lanes<float> == 16) {
            std::vector<std::int32_t> offsets{0};
            for (const index_t n : counts) offsets.push_back(static_cast<std::int32_t>(offsets.back() + n));
            const index_t rows = offsets.back();
            if (x.empty()) {
                x.resize(static_cast<std::size_t>(rows * L::hidden));
                for (std::size_t i = 0; i < x.size(); ++i)
                    x[i] = static_cast<bf16>(static_cast<float>((i * 7919) % 509) / 256 - 1);
            }
            const k::expert_input<bf16> in{{L::experts, offsets.data(), rows}, {x.data(), L::hidden}};
            const auto packed = gf::pack(ctx, w);
            const auto sparse = gf::pack_sparse(ctx, w);
            k::panels_of<bf16, 16, E::gated> dense{reinterpret_cast<const bf16*>(packed.matrices.data()),
                                                   nullptr,
                                                   nullptr,
                                                   w.gate_up_bias.data(),
                                                   w.down_bias.data(),
                                                   k::shape_of<E>};
            const k::sparse_panels<bf16, k::yields_zeros(E::act)> stored{sparse.experts.data(), w.gate_up_bias.data(),
                                                                         w.down_bias.data()};
            using tiles = k::tile_form<k::software_tiles>;
            for (const int threads : {1, 3}) {
                gf::context<gf::cpu> own(threads);
                gf::buffer<std::byte> scratch(
                    static_cast<index_t>((std::max)(k::expert_scratch_bytes_for<E, k::portable_form>(threads, rows),
                                                    k::expert_scratch_bytes_for<E, tiles>(threads, rows))));
                std::vector<float> expected(static_cast<std::size_t>(rows * L::hidden)), got = expected;
                std::vector<bf16> expected_pre(static_cast<std::size_t>(rows * E::up_rows)), got_pre = expected_pre;
                k::run_stage<k::portable_form, E::act, bf16, true>(own, scratch.data(), k::shape_of<E>, in, dense,
                                                                   0.25f, {expected_pre.data(), nullptr},
                                                                   k::rows_into<float>{expected.data(), L::hidden});
                k::run_stage<tiles, E::act, bf16, true>(own, scratch.data(), k::shape_of<E>, in, stored, 0.25f,
                                                        {got_pre.data(), nullptr},
                                                        k::rows_into<float>{got.data(), L::hidden});
                BOOST_TEST(std::memcmp(expected.data(), got.data(), expected.size() * sizeof(float)) == 0);
                BOOST_TEST(std::memcmp(expected_pre.data(), got_pre.data(), got_pre.size() * sizeof(bf16)) == 0);
            }
        }
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(sparse_tiles)

BOOST_AUTO_TEST_CASE(the_bits_of_the_vector_kernels) {
    for (const double fraction : {0.0, 0.5, 0.9, 1.0}) {
        subject<mixture<70, 131, gf::activation::relu_squared>> s;
        gf::prune_blocks(s.ctx, s.w, fraction);
        s.check({1, 16, 17, 50});
        subject<mixture<37, 29, gf::activation::swiglu>> gated;
        gf::prune_blocks(gated.ctx, gated.w, fraction);
        gated.check({0, 33, 0, 600});
        subject<mixture<1200, 40, gf::activation::relu>> wide;  // runs longer than one, and several of them
        gf::prune_blocks(wide.ctx, wide.w, fraction);
        wide.check({0, 5, 0, 32});
    }
}

BOOST_AUTO_TEST_CASE(rows_that_are_not_finite) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        subject<mixture<70, 131, gf::activation::relu_squared>> s;
        gf::prune_blocks(s.ctx, s.w, 0.7);
        s.x.assign(40 * 70, bf16(0.5f));
        for (std::size_t i = 0; i < s.x.size(); i += 97) s.x[i] = bf16(bad);
        s.check({3, 0, 18, 19});
    }
}

// The first two blocks leave less than the least number, which becomes -0; a third one of zeros makes it +0.
BOOST_AUTO_TEST_CASE(sums_that_become_minus_zero) {
    subject<mixture<70, 40, gf::activation::relu>> s;
    gf::prune_blocks(s.ctx, s.w, 1.0);
    for (int e = 0; e < 4; ++e)
        for (int f = 0; f < 40; ++f)
            for (const int h : {0, 32}) s.w.expert(e).gate_up.data()[f * 70 + h] = bf16(0x1p-63f);
    for (index_t i = 0; i < s.w.gate_up_bias.size(); ++i) s.w.gate_up_bias.data()[i] = bf16(-0.0f);
    s.x.assign(40 * 70, bf16(1.0f));
    for (std::size_t r = 0; r < 40; ++r) s.x[r * 70] = bf16(0x1p-63f), s.x[r * 70 + 32] = bf16(-0x1.8p-63f);
    s.check({3, 0, 18, 19});
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
