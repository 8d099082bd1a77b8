// Losses against the reference implementation: values and gradients of gradients/losses.safetensors.
#include <gatefold/io/safetensors.hpp>
#include <tests/unit/loss_routing.hpp>

#include "golden_path.hpp"

using namespace loss_routing;
using golden_data::golden_path;

namespace {

std::vector<double> read(const gf::safetensors_file& file, const std::string& name) {
    const gf::stored_tensor& tensor = file.at(name);
    gf::index_t size = 1;
    for (const gf::index_t extent : tensor.shape) size *= extent;
    std::vector<double> values(static_cast<std::size_t>(size));
    file.read<double>(name, values, tensor.shape);
    return values;
}

/// transformers' load_balancing_loss_func over two layers.
template <int K, class T>
void check_hugging_face(const gf::safetensors_file& file) {
    using L = gf::layer<around<6, K>(gf::routers::olmoe), T>;
    constexpr double tolerance = sizeof(T) == 8 ? 1e-11 : 1e-5;
    routed<L> first(read(file, "logits.0")), second(read(file, "logits.1"));
    std::vector<std::uint8_t> mask(21);
    file.read<std::uint8_t>("mask", mask, file.at("mask").shape);
    for (const bool masked : {false, true}) {
        first.zero_gradients();
        second.zero_gradients();
        if (masked) first.in.mask = {mask.data(), {21}};
        gf::tape<L>* const tapes[] = {&first.tape, &second.tape};
        const std::string name = "hf.k" + std::to_string(K) + (masked ? ".masked" : "");
        const double value = gf::add_loss(first.ctx, gf::losses::hugging_face{1}, tapes, first.in);
        check_close({value}, read(file, name + ".loss"), name, tolerance);
        check_close(first.gradients(), read(file, name + ".grad.0"), name, tolerance);
        check_close(second.gradients(), read(file, name + ".grad.1"), name, tolerance);
    }
}

template <class T>
void check_other(const gf::safetensors_file& file) {
    using L = gf::layer<around<6, 1>(gf::routers::switch_transformer), T>;
    constexpr double tolerance = sizeof(T) == 8 ? 1e-11 : 1e-5;
    routed<L> r(read(file, "logits.0"));
    const auto check = [&](auto loss, const std::string& name) {
        r.zero_gradients();
        check_close({gf::add_loss(r.ctx, loss, r.tape, r.in)}, read(file, name + ".loss"), name, tolerance);
        check_close(r.gradients(), read(file, name + ".grad.0"), name, tolerance);
    };
    check(gf::losses::z_loss{1}, "z_loss");
    // The mean over three rows of seven tokens, as a size and as sequences.
    check(gf::losses::flaxformer{1, 7}, "switch_grouped");
    check(gf::losses::gshard{1, 7}, "switch_grouped");
    const std::vector<std::int32_t> starts = {0, 7, 14};
    r.in.sequence_starts = {starts.data(), {3}};
    check(gf::losses::flaxformer{1}, "switch_grouped");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(golden)
BOOST_AUTO_TEST_SUITE(losses)

BOOST_AUTO_TEST_CASE(transformers_over_two_layers) {
    const std::string path = golden_path("gradients/losses.safetensors");
    if (path.empty()) return;
    const auto file = gf::safetensors_file::open(path);
    check_hugging_face<1, double>(file);
    check_hugging_face<2, double>(file);
    check_hugging_face<3, double>(file);
    check_hugging_face<2, float>(file);
}

BOOST_AUTO_TEST_CASE(z_loss_and_switch_in_groups) {
    const std::string path = golden_path("gradients/losses.safetensors");
    if (path.empty()) return;
    const auto file = gf::safetensors_file::open(path);
    check_other<double>(file);
    check_other<float>(file);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
