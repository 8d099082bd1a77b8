// One layer on CUDA from every side: the oracle's outputs, the CPU wing's routing, the plan, unusual batches, and the
// bits of a row whatever the call it stands in. Each layer is instantiated once and goes through all of it.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include <tests/layer_comparison.hpp>

#include "device.hpp"

namespace device {

/// What the tokens of a batch have in common.
enum class batch_kind {
    random,
    equal,   ///< all tokens choose the same experts, the others are empty
    hostile  ///< some have NaN or infinite elements, or none but zeros
};

template <class L>
class examination {
    using S = typename L::value_type;
    using A = typename L::accumulate_type;
    static constexpr int H = L::hidden;
    using rows = tokens<S, H>;

public:
    explicit examination(std::uint64_t seed) : w_(make_weights<L>(cpu_, seed)), dw_(gf::make_weights<L>(gpu_)) {
        gf::copy(gpu_, dw_, w_);
    }

    void run(std::initializer_list<int> counts) {
        for (const int n : counts)
            for (const batch_kind kind : {batch_kind::random, batch_kind::equal, batch_kind::hostile})
                BOOST_TEST_CONTEXT(n << " tokens of kind " << static_cast<int>(kind)) { run(n, kind); }
        nothing_to_do();
    }

private:
    void run(int n, batch_kind kind) {
        rows x(cpu_, gpu_, n), y(cpu_, gpu_, n);
        x.fill(gpu_, 9);
        const std::vector<S> clean(x.host.data(), x.host.data() + x.host.size());
        if (kind != batch_kind::random) {
            for (int t = 0; t < n; ++t) change(x, t, kind);
            gf::copy(gpu_, x.on_device, x.host);
        }
        y.fill(gpu_, 4);  // must be overwritten
        gf::tape<L, gf::cuda> tape(gpu_, n);
        gf::forward(gpu_, dw_, gf::batch<L, gf::cuda>{.x = x.on_device.view()}, y.on_device.view(), tape);
        const std::vector<S> result = fetch(gpu_, y.on_device);

        std::vector<std::int32_t> ids(static_cast<std::size_t>(n), 0);
        if constexpr (!L::is_dense) {
            ids = fetch(gpu_, tape.routing().ids);
            compare_routing(x, n, tape);
        }
        compare_with_oracle(x, n, ids, result, tape, kind);
        if (kind == batch_kind::hostile) {
            gf::copy(gpu_, x.on_device.view(), gf::view<const S, gf::dyn, H>(clean.data(), {n, H}));
            gf::forward(gpu_, dw_, x.on_device.view(), y.on_device.view());
            const std::vector<S> before = fetch(gpu_, y.on_device);
            for (int t = 0; t < n; ++t)
                if (!is_hostile(t)) BOOST_TEST(differences(&result[at(t)], &before[at(t)], H) == 0, "token " << t);
            return;
        }
        same_bits_in_other_calls(x, n, result);
    }

    static std::size_t at(int t) { return static_cast<std::size_t>(t) * H; }
    static bool is_hostile(int t) { return t % 3 == 1; }
    static void change(rows& x, int t, batch_kind kind) {
        if (kind == batch_kind::equal) {
            for (int h = 0; h < H; ++h) x.host(t, h) = x.host(0, h);
        } else if (is_hostile(t)) {
            constexpr double odd[] = {INFINITY, NAN, -INFINITY};
            if (t / 3 % 4 < 3) x.host(t, t % H) = stored<S>(odd[t / 3 % 4]);
            for (int h = 0; t / 3 % 4 == 3 && h < H; ++h) x.host(t, h) = stored<S>(0);  // all logits tie
        }
    }

    void compare_routing(const rows& x, int n, gf::tape<L, gf::cuda>& tape) {
        auto ids = gf::make_tensor<std::int32_t, gf::dyn, L::slots>(cpu_, n);
        auto weights = gf::make_tensor<A, gf::dyn, L::slots>(cpu_, n);
        auto logits = gf::make_tensor<A, gf::dyn, L::choices>(cpu_, n);
        gf::route(cpu_, w_, gf::batch<L>{.x = x.host.view()}, {ids.view(), weights.view(), logits.view()});
        if (!same_bits_as_cpu) return;
        const auto same = [&](const char* what, const auto& mine, const auto& theirs) {
            BOOST_TEST(differences(fetch(gpu_, mine).data(), theirs.data(), theirs.size()) == 0, what);
        };
        same("ids", tape.routing().ids, ids);
        same("weights", tape.routing().weights, weights);
    }

    void compare_with_oracle(const rows& x, int n, const std::vector<std::int32_t>& ids, const std::vector<S>& result,
                             gf::tape<L, gf::cuda>& tape, batch_kind kind) {
        oracle::layer layer = bridge::layer_of(L::c);
        oracle::batch b;
        b.tokens = static_cast<oracle::natural>(n);
        b.x = bridge::values_of(x.host);
        b.chosen.assign(ids.begin(), ids.end());
        if constexpr (L::is_dense) {
            layer.experts = layer.router.top_k = 1;
            layer.router.score = oracle::score_kind::one;
            layer.router.projection = oracle::projection_kind::none;
        }
        const oracle::result r = oracle::forward(layer, bridge::parameters_of(w_), b);
        if constexpr (!L::is_dense) {
            const auto offsets = fetch(gpu_, tape.plan().offsets);
            const auto place = fetch(gpu_, tape.plan().place);
            for (std::size_t e = 0; e < r.plan.offsets.size(); ++e) BOOST_REQUIRE(offsets[e] == r.plan.offsets[e]);
            for (std::size_t i = 0; i < ids.size(); ++i) BOOST_REQUIRE(place[i] == r.plan.place[i]);
        }
        oracle::values mine, theirs;
        for (int t = 0; t < n; ++t) {
            if (kind == batch_kind::hostile && is_hostile(t)) continue;
            for (std::size_t i = at(t); i < at(t + 1); ++i) {
                mine.push_back(static_cast<double>(result[i]));
                theirs.push_back(r.y[i]);
            }
        }
        const double error =
            sizeof(S) == 2 ? comparison::frobenius_error(mine, theirs) : comparison::relative_error(mine, theirs);
        BOOST_TEST(error <= comparison::tolerance_of<S>(H, L::slots), "error " << error);
    }

    void same_bits_in_other_calls(rows& x, int n, const std::vector<S>& result) {
        // Again, without a tape, in two halves that take other kernels, each rows of a tensor of its own.
        rows y(cpu_, gpu_, n);
        gf::forward(gpu_, dw_, x.on_device.view(), y.on_device.view());
        BOOST_TEST(differences(fetch(gpu_, y.on_device).data(), result.data(), n * H) == 0, "again");
        const int cut = (n + 2) / 3;
        for (const auto& [first, last] : {std::pair{0, cut}, std::pair{cut, n}}) {
            rows part(cpu_, gpu_, last - first), out(cpu_, gpu_, last - first);
            gf::copy(gpu_, part.on_device.view(),
                     gf::view<const S, gf::dyn, H>(x.host.data() + at(first), {last - first, H}));
            gf::forward(gpu_, dw_, part.on_device.view(), out.on_device.view());
            BOOST_TEST(differences(fetch(gpu_, out.on_device).data(), result.data() + at(first), out.host.size()) == 0,
                       "tokens " << first << " to " << last);
        }
        // Calls of two contexts whose streams take turns as they like.
        cudaStream_t streams[2];
        for (cudaStream_t& s : streams)
            BOOST_REQUIRE(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) == cudaSuccess);
        {
            gf::context<gf::cuda> one(streams[0]), two(streams[1]);
            rows y_one(cpu_, gpu_, n), y_two(cpu_, gpu_, n);
            gpu_.synchronize();
            for (int turn = 0; turn < 2; ++turn) {
                gf::forward(one, dw_, x.on_device.view(), y_one.on_device.view());
                gf::forward(two, dw_, x.on_device.view(), y_two.on_device.view());
            }
            BOOST_TEST(differences(fetch(two, y_two.on_device).data(), result.data(), n * H) == 0, "second stream");
            BOOST_TEST(differences(fetch(one, y_one.on_device).data(), result.data(), n * H) == 0, "first stream");
        }
        for (const cudaStream_t s : streams) cudaStreamDestroy(s);
    }

    /// No tokens, and views of nothing.
    void nothing_to_do() {
        rows x(cpu_, gpu_, 0), y(cpu_, gpu_, 0);
        gpu_.clear_report();
        gf::forward(gpu_, dw_, x.on_device.view(), y.on_device.view());
        BOOST_TEST(gpu_.report().tokens == 0);
    }

    gf::context<gf::cpu> cpu_{2};
    gf::context<gf::cuda> gpu_;
    gf::weights<L> w_;
    gf::weights<L, gf::cuda> dw_;
};

}  // namespace device
