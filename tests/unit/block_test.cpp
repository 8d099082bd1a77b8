// ctest: heavy
// One block of a decoder against the same steps written out in double, straight from the formulas.
#include <cmath>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/nn.hpp>

namespace gf = gatefold;

namespace {

using D = gf::decoder<gf::decoder_config{.vocabulary = 13,
                                         .hidden = 8,
                                         .layers = 1,
                                         .heads = 2,
                                         .key_value_heads = 1,
                                         .context = 6,
                                         .layer = {.ffn = 6}},
                      double>;
using row = std::vector<double>;

row norm(const row& x, const double* weight) {
    double squares = 0;
    for (const double v : x) squares += v * v;
    row y;
    for (std::size_t i = 0; i < x.size(); ++i)
        y.push_back(x[i] / std::sqrt(squares / static_cast<double>(x.size()) + static_cast<double>(D::c.norm_epsilon)) *
                    weight[i]);
    return y;
}

/// w x for w [out, in].
row product(const double* w, std::size_t out, const row& x) {
    row y(out, 0);
    for (std::size_t o = 0; o < out; ++o)
        for (std::size_t i = 0; i < x.size(); ++i) y[o] += w[o * x.size() + i] * x[i];
    return y;
}

void turn(row& x, std::size_t position) {
    for (std::size_t head = 0; head < x.size(); head += 4)
        for (std::size_t i = 0; i < 2; ++i) {
            const double angle = static_cast<double>(position) * std::pow(10000.0, -static_cast<double>(i) / 2);
            const double low = x[head + i], high = x[head + i + 2];
            x[head + i] = low * std::cos(angle) - high * std::sin(angle);
            x[head + i + 2] = high * std::cos(angle) + low * std::sin(angle);
        }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(block)

BOOST_AUTO_TEST_CASE(is_what_its_formulas_say) {
    gf::context<gf::cpu> ctx;
    auto w = gf::random_decoder_weights<D>(ctx, gf::seed{4}, {.embedding = 1});
    // Norms that are not one, so that a forgotten weight shows.
    double next = 0.5;
    for (auto* weight : {&w.blocks[0].attention_norm, &w.blocks[0].layer_norm, &w.norm})
        for (gf::index_t i = 0; i < weight->size(); ++i) weight->data()[i] = next += 0.11;
    const std::vector<std::int32_t> ids{3, 1, 12, 3, 7, 0};
    gf::decoder_tape<D> tape(ctx, 1, 6);
    gf::forward(ctx, w, {ids.data(), {6}}, tape);

    const auto& b = w.blocks[0];
    std::vector<row> keys, values;
    for (std::size_t t = 0; t < ids.size(); ++t) {
        const double* const from = w.embedding.data() + ids[t] * 8;
        row x(from, from + 8);
        const row n = norm(x, b.attention_norm.data());
        row q = product(b.query.data(), 8, n), k = product(b.key.data(), 4, n);
        turn(q, t);
        turn(k, t);
        keys.push_back(k);
        values.push_back(product(b.value.data(), 4, n));
        row attended(8, 0);
        for (std::size_t h = 0; h < 2; ++h) {
            row weight;
            double sum = 0;
            for (const row& key : keys) {
                double score = 0;
                for (std::size_t i = 0; i < 4; ++i) score += q[4 * h + i] * key[i];
                weight.push_back(std::exp(score / 2));
                sum += weight.back();
            }
            for (std::size_t j = 0; j < keys.size(); ++j)
                for (std::size_t i = 0; i < 4; ++i) attended[4 * h + i] += weight[j] / sum * values[j][i];
        }
        const row output = product(b.output.data(), 8, attended);
        for (std::size_t i = 0; i < 8; ++i) x[i] += output[i];
        const row gate_up = product(b.layer.gate_up.data(), 12, norm(x, b.layer_norm.data()));
        row a(6);
        for (std::size_t i = 0; i < 6; ++i) a[i] = gate_up[i] / (1 + std::exp(-gate_up[i])) * gate_up[i + 6];
        const row down = product(b.layer.down.data(), 8, a);
        for (std::size_t i = 0; i < 8; ++i) x[i] += down[i];
        const row logits = product(w.head.data(), 13, norm(x, w.norm.data()));
        for (std::size_t v = 0; v < 13; ++v) BOOST_TEST(std::fabs(logits[v] - tape.logits()(t, v)) < 1e-13);
    }
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
