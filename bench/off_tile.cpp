// The expert stage at sizes off the tile beside the next size on it, in turn.
//
//     off_tile/SHAPE/SIDES-OFF/TYPE/rows:N       packed weights
//     off_tile_hub/SHAPE/SIDES-OFF/TYPE/rows:N   hub layout
//
// SIDES is h, f or hf: what is OFF below a multiple of 32. One expert, N rows, one thread; every call takes another
// copy of the weights, so that they come from memory.
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include "data.hpp"
#include "measure.hpp"

namespace bench {
namespace {

namespace k = gatefold::detail::on_cpu;

/// The stage of one expert, and its weights, rows and results.
template <class T>
class stage {
    using sum = accumulate_t<T>;

    index_t rows_, width_, elements_, copies_;
    context<cpu> ctx_{1};
    tensor<T, dyn> weights_, x_;
    tensor<sum, dyn> z_;
    buffer<std::byte> scratch_;
    void (*run_)(stage& s, const T* weights);

public:
    /// Random numbers serve as packed weights, whatever their order.
    template <class E>
    stage(std::type_identity<E>, index_t rows, bool hub, index_t copies)
        : rows_(rows),
          width_(E::width),
          elements_(hub ? index_t{E::up_rows + E::ffn} * E::width : E::packed_elements),
          copies_(copies),
          weights_(make_tensor<T, dyn>(ctx_, elements_ * copies)),
          x_(make_tensor<T, dyn>(ctx_, rows * width_)),
          z_(make_tensor<sum, dyn>(ctx_, rows * width_)),
          scratch_(static_cast<index_t>(k::expert_scratch_bytes<E>(1, rows))),
          run_(hub ? &run_expert<E, true> : &run_expert<E, false>) {
        fill(weights_.data(), weights_.size(), 1 / std::sqrt(E::width), 1);
        fill(x_.data(), x_.size(), 1, input_streams);
    }
    void run(index_t call) { run_(*this, weights_.data() + call % copies_ * elements_); }

private:
    template <class E, bool Hub>
    static void run_expert(stage& s, const T* weights) {
        const k::expert_input<T> in{{1, nullptr, s.rows_}, {s.x_.data(), s.width_}};
        const auto with = [&](const auto& w) {
            k::run_experts<E>(s.ctx_, s.scratch_.data(), in, w, sum{0}, s.ctx_.sums(), {},
                              k::rows_into<sum>{s.z_.data(), s.width_});
        };
        if constexpr (Hub)
            with(k::hub_weights<T>{weights, weights + index_t{E::up_rows} * E::width});
        else
            with(k::packed_weights<T>{reinterpret_cast<const std::byte*>(weights)});
    }
};

template <class Off, class Next>
void compare(benchmark::State& s, index_t rows, bool hub) {
    using T = typename Next::value_type;
    const double bytes = static_cast<double>(Next::packed_elements) * sizeof(T);
    const auto copies = static_cast<index_t>(1 + 2 * static_cast<double>(last_level_cache()) / bytes);
    if (lacks_memory(s, 2 * static_cast<double>(copies) * bytes)) return;
    stage<T> off(std::type_identity<Off>{}, rows, hub, copies), next(std::type_identity<Next>{}, rows, hub, copies);
    std::vector<contestant> all{{"off", 1, [&](index_t call) { off.run(call); }, {}},
                                {"next", 1, [&](index_t call) { next.run(call); }, {}}};
    take_turns(
        s, 1, [](index_t) { return 1.0; }, all);

    std::vector<double> ratios, times[2];
    for (std::size_t i = 0; i < all[0].samples.size(); ++i) {
        for (int j = 0; j < 2; ++j) {
            const sample& each = all[static_cast<std::size_t>(j)].samples[i];
            times[j].push_back(1e6 * each.seconds / each.calls);
        }
        ratios.push_back(times[0].back() / times[1].back());
    }
    s.counters["off_us"] = best(times[0]);
    s.counters["next_us"] = best(times[1]);
    s.counters["over_next"] = median(ratios);
    s.counters["best_over_next"] = best(times[0]) / best(times[1]);
}

template <int H, int F, int NextH, int NextF, class T>
void register_pair(const std::string& shape, const std::string& off, const char* type) {
    using odd = k::expert<H, F, activation::swiglu, T>;
    using next = k::expert<NextH, NextF, activation::swiglu, T>;
    for (const bool hub : {false, true})
        for (const index_t rows : {1, 16, 256})
            add((hub ? "off_tile_hub/" : "off_tile/") + shape + "/" + off + "/" + type +
                    "/rows:" + std::to_string(rows),
                [=](benchmark::State& s) { compare<odd, next>(s, rows, hub); });
}

template <int H, int F, int Off>
void register_off(const std::string& shape) {
    const std::string off = std::to_string(Off);
    register_pair<H - Off, F, H, F, float>(shape, "h-" + off, "f32");
    register_pair<H - Off, F, H, F, bf16>(shape, "h-" + off, "bf16");
    register_pair<H, F - Off, H, F, float>(shape, "f-" + off, "f32");
    register_pair<H, F - Off, H, F, bf16>(shape, "f-" + off, "bf16");
    register_pair<H - Off, F - Off, H, F, float>(shape, "hf-" + off, "f32");
    register_pair<H - Off, F - Off, H, F, bf16>(shape, "hf-" + off, "bf16");
}

template <int H, int F>
void register_shape() {
    const std::string shape = std::string("h") + std::to_string(H) + "_f" + std::to_string(F);
    register_off<H, F, 1>(shape);
    register_off<H, F, 2>(shape);
    register_off<H, F, 8>(shape);
    register_off<H, F, 17>(shape);
    register_off<H, F, 31>(shape);
}

}  // namespace

void register_off_tile() {
    register_shape<256, 512>();
    register_shape<1024, 512>();
}

}  // namespace bench
