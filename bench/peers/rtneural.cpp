// Small dense FFNs as RTNeural's compile-time models on Eigen, its backend for layers of these widths.
#include <vector>

#include <RTNeural/RTNeural.h>

#include <gatefold/core/error.hpp>

#include "small_ffn.hpp"

namespace bench {
namespace {

template <int Hidden>
class rtneural_ffn final : public small_ffn {
    static constexpr int inner = 4 * Hidden;

public:
    void set(const float* up, const float* up_bias, const float* down, const float* down_bias) override {
        model_.template get<0>().setWeights(rows(up, inner, Hidden));
        model_.template get<0>().setBias(up_bias);
        model_.template get<2>().setWeights(rows(down, Hidden, inner));
        model_.template get<2>().setBias(down_bias);
        model_.reset();
    }
    const float* run(const float* x) override {
        model_.forward(x);
        return model_.getOutputs();
    }

private:
    static std::vector<std::vector<float>> rows(const float* from, int count, int columns) {
        std::vector<std::vector<float>> all;
        for (int r = 0; r < count; ++r) all.emplace_back(from + r * columns, from + (r + 1) * columns);
        return all;
    }

    RTNeural::ModelT<float, Hidden, Hidden, RTNeural::DenseT<float, Hidden, inner>,
                     RTNeural::ReLuActivationT<float, inner>, RTNeural::DenseT<float, inner, Hidden>>
        model_;
};

}  // namespace

std::unique_ptr<small_ffn> make_rtneural(int hidden, int ffn) {
    gatefold::require(ffn == 4 * hidden, "make_rtneural", "ffn", 4 * hidden, ffn);
    if (hidden == 16) return std::make_unique<rtneural_ffn<16>>();
    if (hidden == 32) return std::make_unique<rtneural_ffn<32>>();
    gatefold::require(hidden == 64, "make_rtneural", "hidden", "16, 32 or 64", hidden);
    return std::make_unique<rtneural_ffn<64>>();
}

}  // namespace bench
