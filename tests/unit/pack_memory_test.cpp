// How much memory packing takes at its peak, as the system counts it: weights and packed form for a whole layer, packed
// form and one expert where experts are handed over one by one.
#include <fstream>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/gatefold.hpp>

namespace gf = gatefold;

namespace {

using moe =
    gf::layer<gf::config{.hidden = 512, .ffn = 1024, .experts = 16, .top_k = 2, .router = gf::routers::mixtral}, float>;
using source = gf::tensor<float, gf::dyn, gf::dyn>;

constexpr double mib = 1024 * 1024;
constexpr double expert = 3.0 * moe::hidden * moe::ffn * sizeof(float) / mib, experts = moe::experts * expert;
/// For huge pages that are not full and for what the process does besides.
constexpr double slack = 12;

/// A line of /proc/self/status in MiB; negative where the system has none.
double status(const std::string& key) {
    std::ifstream file("/proc/self/status");
    for (std::string word; file >> word;)
        if (double kib = 0; word == key + ":" && file >> kib) return kib / 1024;
    return -1;
}

/// AddressSanitizer keeps what was freed, and other systems do not tell.
bool counts() {
#if defined(__SANITIZE_ADDRESS__)
    return false;
#else
    return status("VmHWM") > 0;
#endif
}

source filled(gf::index_t rows, gf::index_t columns, float value) {
    source made({rows, columns});
    for (gf::index_t i = 0; i < made.size(); ++i) made.data()[i] = value;
    return made;
}

}  // namespace

// The peak never falls within a process, so the smaller one is measured first.
BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(pack_memory)

BOOST_AUTO_TEST_CASE(a_handed_over_expert_is_not_needed_twice) {
    if (!counts()) return;
    gf::context<gf::cpu> ctx(2);
    std::vector<source> up, down;
    for (int e = 0; e < moe::experts; ++e) {
        up.push_back(filled(moe::gate_up_rows, moe::hidden, 1));
        down.push_back(filled(moe::hidden, moe::ffn, 1));
    }
    const double before = status("VmRSS");
    auto p = gf::make_packed<moe>(ctx);
    for (int e = moe::experts - 1; e >= 0; --e) {
        gf::pack_expert(ctx, p, e, std::as_const(up.back()).view(), std::as_const(down.back()).view());
        up.pop_back();
        down.pop_back();
    }
    BOOST_TEST(status("VmHWM") <= before + expert + slack);
    BOOST_TEST(status("VmRSS") <= before + slack);
}

BOOST_AUTO_TEST_CASE(a_whole_layer_takes_weights_and_packed_form) {
    if (!counts()) return;
    gf::context<gf::cpu> ctx(2);
    const double before = status("VmRSS");
    const auto w = gf::random_weights<moe>(ctx, gf::seed{1});
    const auto p = gf::pack(ctx, w);
    BOOST_TEST(status("VmHWM") <= before + 2 * experts + slack);
    // Both are there, so the bound above can fail.
    BOOST_TEST(status("VmRSS") >= before + 2 * experts - slack);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
