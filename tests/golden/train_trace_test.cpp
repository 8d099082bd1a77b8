// Five steps of training a small Mixtral in double against the reference implementation: losses, gradient norms,
// rates, final parameters (golden/README.md, gradients/train_mixtral and train_mixtral_aux). Skipped without the files.
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/io/file.hpp>
#include <gatefold/io/json.hpp>
#include <gatefold/io/safetensors.hpp>
#include <gatefold/nn.hpp>
#include <gatefold/train.hpp>

#include "golden_path.hpp"

namespace gf = gatefold;
using golden_data::golden_path;

namespace {

using model =
    gf::decoder<gf::decoder_config{.vocabulary = 61,
                                   .hidden = 24,
                                   .layers = 2,
                                   .heads = 4,
                                   .key_value_heads = 2,
                                   .head_size = 6,
                                   .context = 512,
                                   .layer = {.ffn = 20, .experts = 4, .top_k = 2, .router = gf::routers::mixtral},
                                   .rope_base = 1e6f,
                                   .norm_epsilon = 1e-5f},
                double>;

/// Our name for a parameter as the reference calls it.
std::string reference_name(const std::string& ours) {
    if (ours == "embedding") return "model.embed_tokens.weight";
    if (ours == "norm") return "model.norm.weight";
    if (ours == "head") return "lm_head.weight";
    const std::size_t dot = ours.find('.', 7);
    const std::string block = "model.layers." + ours.substr(7, dot - 7) + ".", part = ours.substr(dot + 1);
    if (part == "attention_norm") return block + "input_layernorm.weight";
    if (part == "layer_norm") return block + "post_attention_layernorm.weight";
    if (part == "layer.router") return block + "mlp.gate.weight";
    if (part == "layer.gate_up") return block + "mlp.experts.gate_up_proj";
    if (part == "layer.down") return block + "mlp.experts.down_proj";
    return block + "self_attn." + part.substr(0, 1) + "_proj.weight";
}

template <class Slot>
std::vector<gf::index_t> shape_of(const Slot& slot) {
    std::vector<gf::index_t> shape;
    for (int d = 0; d < std::remove_cvref_t<Slot>::rank; ++d) shape.push_back(slot.extent(d));
    return shape;
}

/// The file has the experts one by one.
template <class Slot>
void read_parameter(const gf::safetensors_file& file, const std::string& ours, Slot& slot) {
    const std::string name = reference_name(ours);
    const auto place = name.find("mlp.");
    if (place == name.npos) {
        file.read<double>(name, std::span(slot.data(), static_cast<std::size_t>(slot.size())), shape_of(slot));
        return;
    }
    const std::string block = name.substr(0, place) + "block_sparse_moe.";
    const auto read = [&](const std::string& part, double* to, gf::index_t rows, gf::index_t columns) {
        file.read<double>(block + part + ".weight", std::span(to, static_cast<std::size_t>(rows * columns)),
                          {rows, columns});
    };
    constexpr gf::index_t h = model::hidden, f = model::layer_type::ffn;
    double* const to = slot.data();
    if (ours.ends_with("router")) return read("gate", to, 4, h);
    for (gf::index_t e = 0; e < 4; ++e) {
        const std::string expert = "experts." + std::to_string(e);
        if (ours.ends_with("down")) {
            read(expert + ".w2", to + e * h * f, h, f);
        } else {
            read(expert + ".w1", to + e * 2 * f * h, f, h);
            read(expert + ".w3", to + (e * 2 + 1) * f * h, f, h);
        }
    }
}

void check_trace(const std::string& name) {
    const std::string folder = golden_path("gradients/" + name);
    if (folder.empty()) return;
    const gf::file_bytes bytes = gf::open_file(folder + "/trace.json");
    const gf::json_document document = gf::parse_json(bytes.text(), "trace.json");
    const gf::json_value trace = document.root(), optimiser = trace.find("optimizer");
    const auto number = [](gf::json_value object, const char* key) { return object.find(key).number(); };
    const auto stored = gf::safetensors_file::open(folder + "/model.safetensors");
    const auto answers = gf::safetensors_file::open(folder + "/trace.safetensors");

    gf::context<gf::cpu> ctx;
    auto w = gf::make_decoder_weights<model>(ctx);
    auto g = gf::make_decoder_gradients<model>(ctx);
    gf::for_each_parameter([&](const char* ours, auto& slot) { read_parameter(stored, ours, slot); }, w);
    auto state = gf::make_adamw_state(ctx, w);

    const auto& batch_shape = answers.at("input_ids").shape;
    const gf::index_t sequences = batch_shape[0], length = batch_shape[1], tokens = sequences * length;
    std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens)), targets(ids.size(), gf::ignored_target);
    answers.read<std::int32_t>("input_ids", ids, batch_shape);
    for (std::size_t t = 0; t + 1 < ids.size(); ++t)
        if ((static_cast<gf::index_t>(t) + 1) % length != 0) targets[t] = ids[t + 1];
    const gf::view<const std::int32_t, gf::dyn> input(ids.data(), {tokens}), wanted(targets.data(), {tokens});

    gf::decoder_tape<model> tape(ctx, sequences, length);
    auto d_logits = gf::make_tensor<double, gf::dyn, model::vocabulary>(ctx, tokens);
    const double coefficient = number(trace, "aux_coef");
    const gf::cosine_schedule schedule{.peak = number(optimiser, "peak_lr"),
                                       .warm_up = static_cast<gf::index_t>(number(optimiser, "warmup_steps")),
                                       .steps = static_cast<gf::index_t>(number(optimiser, "steps")),
                                       .floor = number(optimiser, "floor")};
    const auto close = [](double got, double want) { return std::fabs(got - want) <= 1e-9 * std::fabs(want); };

    gf::index_t n = 0;
    for (const gf::json_value at : trace.find("steps").elements()) {
        gf::forward(ctx, w, input, tape);
        const auto result = gf::cross_entropy(ctx, tape.logits(), wanted, d_logits.view());
        // With a coefficient of 0 the loss has no part in the run, and the value is not to be had.
        gf::tape<model::layer_type>* const layers[] = {&tape.block(0).layer, &tape.block(1).layer};
        const double balance = gf::add_loss(ctx, gf::losses::hugging_face{coefficient}, layers);
        BOOST_TEST(close(result.loss, number(at, "lm_loss")));
        BOOST_TEST(close(result.loss + balance, number(at, "loss")));
        BOOST_TEST(close(balance, coefficient * number(at, "aux_loss")));
        if (n == schedule.steps) break;  // the loss after the last step
        gf::backward(ctx, w, tape, d_logits, g);
        // The reference takes id 0 for padding: its embedding is zero and has no gradient.
        for (int i = 0; i < model::hidden; ++i) g.embedding(0, i) = 0;
        const double norm = gf::global_norm(ctx, g), rate = schedule.rate(n);
        BOOST_TEST(close(norm, number(at, "grad_norm")));
        BOOST_TEST(close(rate, number(at, "lr")));
        gf::step(ctx, w, g, state, rate,
                 {.first = 0.9,
                  .second = 0.95,
                  .epsilon = 1e-8,
                  .weight_decay = number(optimiser, "weight_decay"),
                  .gradient_factor = gf::clip_factor(norm, number(optimiser, "clip_global_norm"))});
        ++n;
    }
    BOOST_TEST(n == schedule.steps);

    gf::for_each_parameter(
        [&](const char* ours, const auto& slot) {
            const gf::json_value want = trace.find("final").find(reference_name(ours));
            double sum = 0, squares = 0;
            for (gf::index_t i = 0; i < slot.size(); ++i) {
                sum += slot.data()[i];
                squares += slot.data()[i] * slot.data()[i];
            }
            BOOST_TEST_CONTEXT(ours) {
                BOOST_TEST(std::fabs(sum - number(want, "sum")) <= 1e-8 * number(want, "sum_sq"));
                BOOST_TEST(close(squares, number(want, "sum_sq")));
            }
        },
        w);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(golden)
BOOST_AUTO_TEST_SUITE(train_trace)

BOOST_AUTO_TEST_CASE(mixtral) { check_trace("train_mixtral"); }
BOOST_AUTO_TEST_CASE(mixtral_with_the_balancing_loss) { check_trace("train_mixtral_aux"); }

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
