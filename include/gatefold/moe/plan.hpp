// The plan: which rows each expert works on, and where a token's results lie. One value, built once per call, shared by
// forward, backward, statistics and exchange between processes.
//
//     ids[T,S] ──> offsets[N+1]   rows of expert e are [offsets[e], offsets[e+1])
//                  rows[n]        pair (token * S + slot) of each row, in ascending order inside an expert: stable
//                  place[T*S]     the inverse: row of each pair, -1 where the pair goes to no expert
#pragma once

#include <cstdint>

#include <gatefold/core/tensor.hpp>
#include <gatefold/moe/layer.hpp>

namespace gatefold::inline v0 {

/// A borrowed plan over T tokens with S slots each and N experts to choose from.
template <backend B = cpu>
struct plan_view {
    basic_view<B, std::int32_t, dyn> offsets;  ///< [N + 1]
    basic_view<B, std::int32_t, dyn> rows;     ///< [T * S], of which the first offsets[N] are filled
    basic_view<B, std::int32_t, dyn> place;    ///< [T * S]
    index_t tokens = 0;
    int slots = 0;
};

/// Memory for the plan of a layer over at most `most_tokens` tokens.
template <layer_type L, backend B = cpu>
class plan {
public:
    plan() = default;
    GATEFOLD_INLINE plan(context<B>& ctx, index_t most_tokens)
        : offsets_(make_tensor<std::int32_t, L::choices + 1>(ctx)),
          rows_(make_tensor<std::int32_t, dyn>(ctx, most_tokens * L::slots)),
          place_(make_tensor<std::int32_t, dyn>(ctx, most_tokens * L::slots)),
          most_tokens_(most_tokens) {}

    GATEFOLD_INLINE index_t most_tokens() const { return most_tokens_; }

    /// The plan's memory for a call over `tokens` tokens.
    GATEFOLD_INLINE plan_view<B> view(index_t tokens) {
        require(tokens >= 0 && tokens <= most_tokens_, "plan", "tokens", most_tokens_, tokens);
        const index_t pairs = tokens * L::slots;
        return {offsets_.view(), {rows_.data(), {pairs}}, {place_.data(), {pairs}}, tokens, L::slots};
    }

private:
    basic_tensor<B, std::int32_t, L::choices + 1> offsets_;
    basic_tensor<B, std::int32_t, dyn> rows_, place_;
    index_t most_tokens_ = 0;
};

}  // namespace gatefold::inline v0
