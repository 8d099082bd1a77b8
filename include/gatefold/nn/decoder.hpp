// A decoder as a type, and its parameters, named once.
//
//     decoder<config, T> ──> decoder_weights, decoder_gradients, optimiser state: one list with different slots
//
// Equal blocks stand in an array; the layer inside a block is the library's layer<config, T> and keeps its own names.
#pragma once

#include <array>
#include <cmath>
#include <cstdio>
#include <string_view>
#include <tuple>

#include <gatefold/core/random.hpp>
#include <gatefold/moe/weights.hpp>
#include <gatefold/nn/attention.hpp>
#include <gatefold/nn/config.hpp>

namespace gatefold::inline v0 {

/// The decoder that a configuration names; T is the storage type of weights and activations.
template <decoder_config C, class T>
    requires(scalar<T>)
struct decoder {
    static_assert(fault(C) == nullptr, "gatefold::decoder: fault(config) says which rule this configuration breaks");

    static constexpr decoder_config c = resolved(C);
    using value_type = T;
    using accumulate_type = accumulate_t<T>;
    using layer_type = layer<c.layer, T>;
    static constexpr attention_config attention{c.heads, c.key_value_heads, c.head_size};

    static constexpr int vocabulary = c.vocabulary, hidden = c.hidden, layers = c.layers, context = c.context;
    static constexpr int query_width = attention.query_width(), key_width = attention.key_width();

    static constexpr index_t parameters = gatefold::parameters(c);
    static constexpr index_t active_parameters = gatefold::active_parameters(c);
    /// Operations of a token's forward pass, on average over a full context.
    static constexpr index_t flops = gatefold::flops(c, (c.context + 1) / 2);
};

/// A type made by decoder<config, T>, or derived from one.
template <class D>
concept decoder_type = requires {
    typename D::layer_type;
    D::attention.head_size;
    D::c.vocabulary;
};

namespace detail {

/// Which slot a set of parameters has, and which set of the same kind the layer in a block gets.
struct weight_kind {
    template <class T, int... E>
    using slot = tensor<T, E...>;
    template <layer_type L>
    using layer_set = weights<L>;
};
struct gradient_kind {
    template <class T, int... E>
    using slot = tensor<accumulate_t<T>, E...>;
    template <layer_type L>
    using layer_set = gradients<L>;
};

}  // namespace detail

/// Parameters of one block. Matrices are [out, in]; heads follow each other in the rows of query, key and value.
template <decoder_type D, class Kind>
struct block_parameter_set {
private:
    using T = typename D::value_type;
    static constexpr int H = D::hidden, Q = D::query_width, K = D::key_width;
    template <int... E>
    using slot = typename Kind::template slot<T, E...>;

public:
    slot<H> attention_norm;
    slot<Q, H> query;
    slot<K, H> key;
    slot<K, H> value;
    slot<H, Q> output;
    slot<H> layer_norm;
    typename Kind::template layer_set<typename D::layer_type> layer;
};

/// Every parameter of a decoder, in slots of one kind.
template <decoder_type D, class Kind>
struct decoder_parameter_set {
    using decoder_type = D;
    typename Kind::template slot<typename D::value_type, D::vocabulary, D::hidden> embedding;
    std::array<block_parameter_set<D, Kind>, D::layers> blocks;
    typename Kind::template slot<typename D::value_type, D::hidden> norm;
    [[no_unique_address]] std::conditional_t<
        D::c.tied, detail::absent<0>, typename Kind::template slot<typename D::value_type, D::vocabulary, D::hidden>>
        head;
};

template <decoder_type D>
struct decoder_weights : decoder_parameter_set<D, detail::weight_kind> {};
template <decoder_type D>
struct decoder_gradients : decoder_parameter_set<D, detail::gradient_kind> {};

/// A set made from decoder_parameter_set.
template <class S>
concept decoder_set = requires {
    typename std::remove_cvref_t<S>::decoder_type;
};

namespace detail {

/// "blocks.3.NAME"
struct block_name {
    char text[96];
    GATEFOLD_INLINE block_name(int block, const char* part, const char* name) {
        std::snprintf(text, sizeof text, "blocks.%d.%s%s", block, part, name);
    }
};

}  // namespace detail

/// How random_decoder_weights draws.
struct decoder_initialisation {
    double embedding = 0.02;  ///< standard deviation of the embedding
    double gain = 1;          ///< matrices: gain / sqrt(inputs)
    double router = 1;        ///< the same factor for routers
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <class F, class... Blocks>
void for_each_block_parameter(F& f, int i, Blocks&... b) {
    f(block_name(i, "", "attention_norm").text, b.attention_norm...);
    f(block_name(i, "", "query").text, b.query...);
    f(block_name(i, "", "key").text, b.key...);
    f(block_name(i, "", "value").text, b.value...);
    f(block_name(i, "", "output").text, b.output...);
    f(block_name(i, "", "layer_norm").text, b.layer_norm...);
    for_each_parameter([&](const char* name, auto&... slot) { f(block_name(i, "layer.", name).text, slot...); },
                       b.layer...);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Calls f(name, slot of each set...) for every trained parameter of a decoder, in a fixed order; the layer's are
/// called blocks.N.layer.NAME.
template <class F, class... Sets>
    requires(decoder_set<Sets>&&...)
void for_each_parameter(F&& f, Sets&&... s) {
    f("embedding", s.embedding...);
    using first_set = std::tuple_element_t<0, std::tuple<std::remove_cvref_t<Sets>...>>;
    for (int i = 0; i < first_set::decoder_type::layers; ++i)
        detail::for_each_block_parameter(f, i, s.blocks[static_cast<std::size_t>(i)]...);
    f("norm", s.norm...);
    detail::visit_slot(f, "head", s.head...);
}

/// Calls f(name, slot of each set...) for everything that is stored but not trained by gradients.
template <class F, class... Sets>
    requires(decoder_set<Sets>&&...)
void for_each_buffer(F&& f, Sets&&... s) {
    using first_set = std::tuple_element_t<0, std::tuple<std::remove_cvref_t<Sets>...>>;
    for (int i = 0; i < first_set::decoder_type::layers; ++i)
        for_each_buffer(
            [&](const char* name, auto&... slot) { f(detail::block_name(i, "layer.", name).text, slot...); },
            s.blocks[static_cast<std::size_t>(i)].layer...);
}

/// Weights of decoder D, every element zero.
template <decoder_type D>
decoder_weights<D> make_decoder_weights(context<cpu>& ctx) {
    decoder_weights<D> w;
    detail::allocate_slots(w, ctx);
    return w;
}

/// Gradients of decoder D, every element zero.
template <decoder_type D>
decoder_gradients<D> make_decoder_gradients(context<cpu>& ctx) {
    decoder_gradients<D> g;
    detail::allocate_slots(g, ctx);
    return g;
}

/// Weights drawn from normal distributions: matrices with deviation gain / sqrt(inputs), those that write into the
/// residual stream divided by sqrt(2 layers); norms one, biases zero.
///
/// The draw of an element depends on the seed, the number of its parameter and its place alone.
template <decoder_type D>
decoder_weights<D> random_decoder_weights(context<cpu>& ctx, seed s, const decoder_initialisation& how = {}) {
    decoder_weights<D> w = make_decoder_weights<D>(ctx);
    std::uint64_t parameter = 0;
    for_each_parameter(
        [&](std::string_view name, auto& slot) {
            using slot_type = std::remove_reference_t<decltype(slot)>;
            using T = typename slot_type::value_type;
            using A = accumulate_t<T>;
            const counter_rng draw{s.value, parameter++};
            const auto named = [&](std::string_view part) { return name.find(part) != name.npos; };
            T* to = slot.data();
            if (slot_type::rank == 1 || named("bias")) {
                const bool one = named("norm") || named("scale") || named("temperature");
                for (index_t i = 0; i < slot.size(); ++i) to[i] = from_accumulate<T>(one ? A{1} : A{0});
                return;
            }
            const index_t columns = slot.extent(slot_type::rank - 1), rows = slot.size() / columns;
            double deviation = (named("router") ? how.router : how.gain) / std::sqrt(static_cast<double>(columns));
            if (name == "embedding") deviation = how.embedding;
            if (named("output") || named("down")) deviation /= std::sqrt(2.0 * D::layers);
            for (index_t r = 0; r < rows; ++r)
                for (index_t k = 0; k < columns; ++k)
                    to[r * columns + k] = from_accumulate<T>(
                        static_cast<A>(mul(deviation, draw.normal<double>(purpose::initialisation, r, k))));
        },
        w);
    return w;
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
