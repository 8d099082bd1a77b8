// Capacity on CUDA: the same pairs dropped as on the CPU, the same plan and the same bits of y, for every rule and
// priority; and as a stage of its own.
#include "device.hpp"

namespace gf = gatefold;
using namespace device;

namespace {

using gf::capacity_config;
using gf::capacity_rule;
using gf::priority;

template <class L>
struct sides {
    static constexpr int S = L::slots;
    using A = typename L::accumulate_type;
    using T = typename L::value_type;
    gf::context<gf::cpu> cpu{2};
    gf::context<gf::cuda> gpu;
    gf::weights<L> w = make_weights<L>(cpu, 31);
    gf::weights<L, gf::cuda> dw = gf::make_weights<L>(gpu);
    sides() { gf::copy(gpu, dw, w); }

    template <class V, class U>
    void same(const char* what, const V& mine, const U& theirs, gf::index_t n) {
        BOOST_TEST(differences(fetch(gpu, mine).data(), theirs.data(), n) == 0, what << " of " << n);
    }

    /// One call on both sides, with tokens that crowd on some experts; `starts` for capacities of sequences.
    void compare(int n, gf::options<L> o = {}, const std::vector<std::int32_t>& starts = {}) {
        constexpr int H = L::hidden;
        tokens<T, H> x(cpu, gpu, n), y(cpu, gpu, n);
        x.fill(gpu, static_cast<std::uint64_t>(n));
        for (int t = 0; t < n; ++t)
            for (int h = 0; h < H; ++h)
                if (t % 3 == 0) x.host(t, h) = x.host(0, h);
        for (int h = 0; n > 8 && h < H; ++h) x.host(7, h) = stored<T>(NAN);
        gf::copy(gpu, x.on_device, x.host);
        gf::batch<L> in{.x = x.host.view()};
        gf::batch<L, gf::cuda> d_in{.x = x.on_device.view()};
        const auto count = static_cast<gf::index_t>(starts.size());
        auto d_starts = gf::make_tensor<std::int32_t, gf::dyn>(gpu, count);
        if (count > 0) {
            const gf::view<const std::int32_t, gf::dyn> host_starts(starts.data(), {count});
            gf::copy(gpu, d_starts.view(), host_starts);
            in.sequence_starts = host_starts;
            d_in.sequence_starts = d_starts.view();
        }
        gf::tape<L> tape(cpu, n);
        gf::tape<L, gf::cuda> d_tape(gpu, n);
        cpu.clear_report();
        gpu.clear_report();
        gf::forward(cpu, w, in, y.host.view(), tape, o);
        gf::forward(gpu, dw, d_in, y.on_device.view(), d_tape, o);
        BOOST_TEST((gpu.report() == cpu.report()), gpu.report().dropped << " dropped, not " << cpu.report().dropped);
        dropped += cpu.report().dropped;
        if (!same_bits_as_cpu) return;
        same("ids", d_tape.routing().ids, tape.routing().ids, n * S);
        same("weights", d_tape.routing().weights, tape.routing().weights, n * S);
        same("offsets", d_tape.plan().offsets, tape.plan().offsets, L::choices + 1);
        same("place", d_tape.plan().place, tape.plan().place, n * S);
        const gf::index_t rows = tape.plan().offsets[L::choices];
        if (rows > 0)
            same("rows", gf::device_view<const std::int32_t, gf::dyn>(d_tape.plan().rows.data(), {rows}),
                 tape.plan().rows, rows);
        same("y", y.on_device, y.host, n * H);

        // The stage alone, from the routing without capacity.
        auto kept = gf::make_tensor<std::uint8_t, gf::dyn>(cpu, n * S);
        auto d_kept = gf::make_tensor<std::uint8_t, gf::dyn>(gpu, n * S);
        gf::route(cpu, w, in, tape.routing(), o);
        gf::route(gpu, dw, d_in, d_tape.routing(), o);
        gf::apply_capacity<L>(cpu, in, tape.routing(), kept.view(), o);
        gf::apply_capacity<L>(gpu, d_in, d_tape.routing(), d_kept.view(), o);
        same("kept", d_kept, kept, n * S);
        same("weights of the stage", d_tape.routing().weights, tape.routing().weights, n * S);
    }
    gf::index_t dropped = 0;
};

template <int E, int K, gf::config Base = gf::config{}>
using layer_of = gf::layer<gf::config{.hidden = 12,
                                      .ffn = 8,
                                      .experts = E,
                                      .top_k = K,
                                      .router = Base.router,
                                      .capacity = Base.capacity,
                                      .free = Base.free},
                           float>;

/// Both sides of the 1024 pairs of one block, and a batch without anything.
template <class L>
void compare(gf::options<L> o = {}) {
    sides<L> s;
    for (const int n : {1, 5, 90, 700}) s.compare(n, o);
    BOOST_TEST(s.dropped > 0);
}

constexpr gf::config with_capacity(capacity_config c, gf::router_config r = {}) {
    gf::config all;
    all.capacity = c;
    all.router = r;
    return all;
}

std::vector<std::int32_t> every(int step, int n) {
    std::vector<std::int32_t> starts;
    for (int t = 0; t < n; t += step) starts.push_back(t);
    return starts;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(cuda)
BOOST_AUTO_TEST_SUITE(capacity)

BOOST_AUTO_TEST_CASE(priorities) {
    compare<layer_of<6, 3, with_capacity({.rule = capacity_rule::megatron, .factor = 0.7f})>>();
    compare<layer_of<
        6, 3, with_capacity({.rule = capacity_rule::megatron, .factor = 0.7f, .behind = gf::offset_by::kept})>>();
    compare<layer_of<6, 3,
                     with_capacity({.rule = capacity_rule::megatron, .factor = 0.7f, .keeps = priority::position})>>();
    compare<layer_of<
        6, 3, with_capacity({.rule = capacity_rule::megatron, .factor = 0.7f, .keeps = priority::probability})>>();
    compare<layer_of<
        6, 2, with_capacity({.rule = capacity_rule::megatron, .factor = 0.6f, .keeps = priority::importance})>>();
    compare<layer_of<6, 2,
                     with_capacity({.rule = capacity_rule::megatron, .factor = 0.6f, .keeps = priority::importance_sum},
                                   {.from = gf::score::sigmoid})>>();
}

BOOST_AUTO_TEST_CASE(rules) {
    compare<layer_of<5, 2, with_capacity({.rule = capacity_rule::mesh, .factor = 0.8f})>>();
    compare<layer_of<300, 1, with_capacity({.rule = capacity_rule::flaxformer, .factor = 1.1f})>>();
    compare<layer_of<5, 2, with_capacity({.rule = capacity_rule::deepspeed, .factor = 0.5f, .alignment = 4})>>();
    compare<layer_of<5, 2, with_capacity({.rule = capacity_rule::nllb, .factor = 0.2f})>>();
    compare<layer_of<5, 2, with_capacity({.rule = capacity_rule::hunyuan})>>();
    gf::options<layer_of<5, 2, with_capacity({.rule = capacity_rule::deepspeed, .factor = 0.5f})>> o;
    o.capacity_factor = -0.6f;  // as many as arrive, within a bound
    compare(o);
    sides<layer_of<5, 2, with_capacity({.rule = capacity_rule::deepspeed})>> s;
    s.compare(40);
    BOOST_TEST(s.dropped == 0);
}

BOOST_AUTO_TEST_CASE(groups_of_tokens_and_weights_divided_anew) {
    using divided = layer_of<6, 3,
                             with_capacity({.rule = capacity_rule::mesh, .factor = 0.6f, .renormalise_kept = true},
                                           {.renorm = gf::renormalise::sum})>;
    compare<divided>();
    compare<layer_of<6, 2,
                     with_capacity({.rule = capacity_rule::megatron,
                                    .factor = 0.6f,
                                    .keeps = priority::probability,
                                    .shared_by = gf::capacity_group::fixed,
                                    .group_size = 23,
                                    .renormalise_kept = true},
                                   {.renorm = gf::renormalise::sum})>>();
    sides<layer_of<4, 2,
                   with_capacity(
                       {.rule = capacity_rule::megatron, .factor = 0.9f, .shared_by = gf::capacity_group::sequence})>>
        s;
    s.compare(40, {}, {0});
    s.compare(40, {}, {0, 1, 1, 17});
    s.compare(650, {}, every(13, 650));
    BOOST_TEST(s.dropped > 0);
}

BOOST_AUTO_TEST_CASE(more_experts_than_ranks_reach) {
    compare<layer_of<1100, 2, with_capacity({.rule = capacity_rule::megatron, .factor = 1})>>();
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
