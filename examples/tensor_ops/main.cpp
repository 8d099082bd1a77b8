// Tensor operations without any layer: multiply, normalise, choose and reduce, forward and backward.
//
// Extents that are written down in types are checked by the compiler. Given x [tokens, 4] and w [3, 5],
//
//     gf::matmul<gf::transpose::b>(ctx, x, w, y);
//
// does not compile, and the first line that the compiler prints says why:
//
//     error: static assertion failed: gatefold::matmul: the columns of a and the rows of b (after transposition) must
//     be equally many
//
// (tests/compile_fail/ops_matmul_inner.cpp makes sure of it.) Extents that are dyn are checked when the program runs.
#include <cstdint>
#include <cstdio>

#include <gatefold/ops.hpp>

namespace gf = gatefold;

namespace {

template <int... E>
void print(const char* name, const gf::tensor<float, E...>& t) {
    const auto v = t.view();
    std::printf("%s\n", name);
    for (gf::index_t r = 0; r < v.rows(); ++r) {
        for (gf::index_t i = 0; i < v.extent(v.rank - 1); ++i) std::printf(" %8.4f", static_cast<double>(v.row(r)[i]));
        std::printf("\n");
    }
}

}  // namespace

int main() {
    gf::context<gf::cpu> ctx;
    constexpr int tokens = 2;

    // Two tokens of four numbers, and a weight whose rows are the outputs: y = x · wᵀ.
    auto x = gf::make_tensor<float, gf::dyn, 4>(ctx, tokens);
    auto w = gf::make_tensor<float, 3, 4>(ctx);
    auto y = gf::make_tensor<float, gf::dyn, 3>(ctx, tokens);
    for (int i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>(i - 3) / 2;
    for (int i = 0; i < w.size(); ++i) w.data()[i] = static_cast<float>(i % 5 - 2) / 4;
    gf::matmul<gf::transpose::b>(ctx, x, w, y);
    print("y = x times w transposed", y);

    // Along rows: probabilities, sums, the two best.
    auto p = gf::make_tensor<float, gf::dyn, 3>(ctx, tokens);
    auto sums = gf::make_tensor<float, gf::dyn>(ctx, tokens);
    auto best = gf::make_tensor<float, gf::dyn, 2>(ctx, tokens);
    auto places = gf::make_tensor<std::int32_t, gf::dyn, 2>(ctx, tokens);
    gf::softmax(ctx, y, p);
    gf::row_sum(ctx, y, sums);
    gf::top_k(ctx, p, best, places);
    print("softmax(y)", p);
    print("sums of the rows of y", sums);
    print("the two best probabilities", best);
    std::printf("of columns\n");
    for (int t = 0; t < tokens; ++t) std::printf(" %8d %8d\n", places(t, 0), places(t, 1));

    // Over everything.
    std::printf("sum %.4f, mean %.4f, largest %.4f at element %d\n", static_cast<double>(gf::sum(ctx, y)),
                static_cast<double>(gf::mean(ctx, y)), static_cast<double>(gf::max(ctx, y)),
                static_cast<int>(gf::argmax(ctx, y)));

    // A loss, its gradient, and the way back to the weight and the input.
    auto targets = gf::make_tensor<std::int32_t, gf::dyn>(ctx, tokens);
    auto dy = gf::make_tensor<float, gf::dyn, 3>(ctx, tokens);
    auto dx = gf::make_tensor<float, gf::dyn, 4>(ctx, tokens);
    auto dw = gf::make_tensor<float, 3, 4>(ctx);
    targets(0) = 0, targets(1) = 2;
    const auto before = gf::cross_entropy(ctx, y, targets, dy);
    gf::matmul_backward<gf::transpose::b>(ctx, x, w, dy, dx, dw);
    print("gradient of w", dw);

    // One step downhill.
    gf::axpy(ctx, -0.5, dw, w);
    gf::matmul<gf::transpose::b>(ctx, x, w, y);
    const auto after = gf::cross_entropy(ctx, y, targets);
    std::printf("loss %.4f, after one step %.4f\n", static_cast<double>(before.loss), static_cast<double>(after.loss));

    // A shape that only the running program knows.
    try {
        auto other = gf::make_tensor<float, gf::dyn, 3>(ctx, tokens + 1);
        gf::matmul<gf::transpose::b>(ctx, x, w, other);
    } catch (const gf::argument_error& error) {
        std::printf("%s\n", error.what());
    }
}
