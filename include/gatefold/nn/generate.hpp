// Text from a decoder: a cache of keys and values, one step at a time, and the choice of the next token.
//
//     ids ── forward over the cache ──> logits of the last position ── temperature, top-k, draw ──> next id
//
// The cache changes no bit: a position's logits are those of the forward pass over the whole sequence.
#pragma once

#include <algorithm>
#include <array>

#include <gatefold/nn/forward.hpp>

namespace gatefold::inline v0 {

/// Keys and values of one sequence of up to `context` positions, and the memory for feeding up to `most_new` tokens at
/// a time.
template <decoder_type D>
class decoder_cache {
    using T = typename D::value_type;
    using A = accumulate_t<T>;

public:
    using decoder_type = D;

    decoder_cache() = default;
    /// Throws: argument_error for a number of tokens outside the context, std::bad_alloc.
    explicit decoder_cache(context<cpu>& ctx, index_t most_new = D::context)
        : most_new_(most_new),
          rope_(ctx, D::context, static_cast<double>(D::c.rope_base)),
          x_(make_tensor<T, dyn, D::hidden>(ctx, most_new)),
          normed_(make_tensor<T, dyn, D::hidden>(ctx, most_new)),
          query_(make_tensor<T, dyn, D::query_width>(ctx, most_new)),
          attended_(make_tensor<T, dyn, D::query_width>(ctx, most_new)),
          logits_(make_tensor<A, 1, D::vocabulary>(ctx)) {
        require(most_new >= 1 && most_new <= D::context, "decoder_cache", "most_new",
                detail::counted("from 1 to ", D::context), most_new);
        for (auto& b : blocks_)
            b = {make_tensor<T, dyn, D::key_width>(ctx, index_t{D::context}),
                 make_tensor<T, dyn, D::key_width>(ctx, index_t{D::context})};
    }

    /// Positions held.
    index_t length() const { return length_; }
    index_t most_new() const { return most_new_; }
    /// Forgets all positions from `length` on.
    void truncate(index_t length) {
        require(length >= 0 && length <= length_, "decoder_cache::truncate", "length", length_, length);
        length_ = length;
    }
    /// Called by forward: `count` more positions.
    void extend(index_t count) { length_ += count; }

    /// Logits of the last position that was fed.
    view<A, 1, D::vocabulary> logits() { return logits_.view(); }
    const rope_table<T, D::c.head_size>& rope() const { return rope_; }

    view<T, dyn, D::key_width> keys(int block, index_t first, index_t count) {
        return blocks_[static_cast<std::size_t>(block)].key.view().slice(first, count);
    }
    view<T, dyn, D::key_width> values(int block, index_t first, index_t count) {
        return blocks_[static_cast<std::size_t>(block)].value.view().slice(first, count);
    }
    view<T, dyn, D::hidden> x(index_t n) { return x_.view().slice(0, n); }
    view<T, dyn, D::hidden> normed(index_t n) { return normed_.view().slice(0, n); }
    view<T, dyn, D::query_width> query(index_t n) { return query_.view().slice(0, n); }
    view<T, dyn, D::query_width> attended(index_t n) { return attended_.view().slice(0, n); }

private:
    struct stored {
        tensor<T, dyn, D::key_width> key, value;
    };
    index_t length_ = 0, most_new_ = 0;
    rope_table<T, D::c.head_size> rope_;
    std::array<stored, D::layers> blocks_;
    tensor<T, dyn, D::hidden> x_, normed_;
    tensor<T, dyn, D::query_width> query_, attended_;
    tensor<A, 1, D::vocabulary> logits_;
};

/// How the next token is chosen.
struct sampling {
    double temperature = 1;  ///< logits are divided by it; 0: the largest logit, the lowest id among equals
    int top_k = 0;           ///< only logits not below the k-th largest; 0: all
    std::uint64_t seed = 0;  ///< of the counter generator: seed and position determine the draw
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Feeds the next tokens of a sequence to a decoder; the logits of the last one are left in cache.logits().
///
/// Shapes:  ids [n] with 1 <= n <= cache.most_new().
/// Throws:  argument_error for more tokens than fit the context or an id outside the vocabulary; the cache is untouched
///          then.
template <decoder_type D>
void forward(context<cpu>& ctx, const decoder_weights<D>& w, std::type_identity_t<view<const std::int32_t, dyn>> ids,
             decoder_cache<D>& cache, const decoder_options<D>& o = {}) {
    using T = typename D::value_type;
    using L = typename D::layer_type;
    const index_t n = ids.extent(0), before = cache.length(), after = before + n;
    require(n >= 1 && n <= cache.most_new(), "forward", "ids", detail::counted("from 1 to ", cache.most_new()), n);
    require(after <= D::context, "forward", "ids", detail::counted("a context of at most ", D::context), after);
    detail::check_ids("forward", ids, n, D::vocabulary);
    const auto epsilon = static_cast<double>(D::c.norm_epsilon);
    const auto x = cache.x(n), normed = cache.normed(n);
    const auto query = cache.query(n), attended = cache.attended(n);
    embedding(ctx, ids, w.embedding, x);
    for (int i = 0; i < D::layers; ++i) {
        const auto& b = w.blocks[static_cast<std::size_t>(i)];
        const auto key = cache.keys(i, before, n);
        rms_norm(ctx, x, b.attention_norm, normed, epsilon);
        matmul<transpose::b>(ctx, normed, b.query, query);
        matmul<transpose::b>(ctx, normed, b.key, key);
        matmul<transpose::b>(ctx, normed, b.value, cache.values(i, before, n));
        rotate(ctx, cache.rope(), query, n, before);
        rotate(ctx, cache.rope(), key, n, before);
        attention<D::attention, T>(ctx, query, cache.keys(i, 0, after), cache.values(i, 0, after), attended, {}, 1);
        matmul<transpose::b>(ctx, attended, b.output, x, into::accumulate);
        rms_norm(ctx, x, b.layer_norm, normed, epsilon);
        auto own = detail::layer_options(o, i);
        own.accumulate = true;
        forward(ctx, b.layer, batch<L>{.x = normed, .first_token = before}, x, own);
    }
    rms_norm(ctx, x.slice(n - 1, 1), w.norm, normed.slice(0, 1), epsilon);
    matmul<transpose::b>(ctx, normed.slice(0, 1), detail::head_of(w), cache.logits());
    cache.extend(n);
}

/// The next token for the given logits at a position of the sequence.
///
/// Throws: argument_error for a negative temperature or k, or logits of which none is finite.
template <class A, int V>
std::int32_t sample(context<cpu>& ctx, view<A, 1, V> logits, index_t position, const sampling& how) {
    using S = std::remove_const_t<A>;
    require(how.temperature >= 0, "sample", "temperature", "zero or more", how.temperature);
    require(how.top_k >= 0, "sample", "top_k", "zero or more", how.top_k);
    const S* z = logits.data();
    S* const order = reinterpret_cast<S*>(ctx.workspace(std::size_t{V} * sizeof(S)));
    int best = -1, count = 0;
    for (int i = 0; i < V; ++i) {
        if (!(z[i] > -detail::real_format<S>::infinity)) continue;
        if (best < 0 || z[i] > z[best]) best = i;
        order[count++] = z[i];
    }
    require(best >= 0 && z[best] < detail::real_format<S>::infinity, "sample", "logits", "finite numbers",
            best < 0 ? 0.0 : static_cast<double>(z[best]));
    if (how.temperature <= 0) return best;
    S least = -detail::real_format<S>::infinity;
    if (how.top_k > 0 && how.top_k < count) {
        std::nth_element(order, order + how.top_k - 1, order + count, [](S a, S b) { return a > b; });
        least = order[how.top_k - 1];
    }
    const double largest = static_cast<double>(z[best]);
    const auto weight = [&](int i) {
        return z[i] >= least ? gatefold::exp((static_cast<double>(z[i]) - largest) / how.temperature) : 0.0;
    };
    double total = 0;
    for (int i = 0; i < V; ++i) total += weight(i);
    const counter_rng random{how.seed};
    double left = mul(total, random.uniform_from_zero<double>(purpose::sampling, position, 0));
    for (int i = 0; i < V; ++i) {
        left -= weight(i);
        if (left < 0) return i;
    }
    return best;
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
