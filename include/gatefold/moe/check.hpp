// The checks that every public call of the layer makes before it writes anything.
#pragma once

#include <cstdint>
#include <string>

#include <gatefold/core/error.hpp>
#include <gatefold/moe/call.hpp>
#include <gatefold/moe/plan.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

/// A view as its checks see it, whatever its type.
struct view_facts {
    const void* data;
    std::size_t alignment;
    index_t row_stride;
    int rank;
    const index_t* extents;
    const int* fixed;  ///< extents of the type; dyn where a run chooses
};

/// What check_view asks, compiled once for all types of views.
inline GATEFOLD_NOINLINE void check_facts(const char* function, const char* argument, const view_facts& v,
                                          index_t rows) {
    const int last = v.rank - 1;
    if (!(v.extents[0] == rows)) [[unlikely]]
        reject(function, argument, counted("", rows, " rows"), v.extents[0]);
    bool empty = rows == 0;
    for (int d = 1; d <= last; ++d) {
        if (!(v.fixed[d] == dyn || v.extents[d] == v.fixed[d])) [[unlikely]]
            reject(function, argument, text_of(counted("extent ", v.fixed[d])) + text_of(counted(" in dimension ", d)),
                   v.extents[d]);
        empty = empty || v.extents[d] == 0;
    }
    if (empty) return;
    require(v.data != nullptr, function, argument, "memory", "null");
    const std::size_t past = reinterpret_cast<std::uintptr_t>(v.data) % v.alignment;
    if (!(past == 0)) [[unlikely]]
        reject(function, argument, counted("memory at a multiple of ", v.alignment, " bytes"),
               counted("an address that is ", past, " past one"));
    if (last > 0 && !(v.row_stride >= v.extents[last])) [[unlikely]]
        reject(function, argument, counted("rows at least ", v.extents[last], " elements apart"), v.row_stride);
}

/// Memory for `rows` rows, aligned for its elements; an empty view needs none.
template <backend B, class T, int... E>
void check_view(const char* function, const char* argument, const basic_view<B, T, E...>& v, index_t rows) {
    constexpr int rank = static_cast<int>(sizeof...(E));
    const int fixed[] = {E...};
    index_t extents[std::size_t{rank}];
    for (int d = 0; d < rank; ++d) extents[d] = v.extent(d);
    check_facts(function, argument,
                {v.data(), __is_same(B, cuda) ? 16 : alignof(T), rank > 1 ? v.row_stride() : 0, rank, extents, fixed},
                rows);
}

/// A span of addresses, for the overlap test.
struct address_range {
    std::uintptr_t begin = 0, end = 0;
};
template <backend B, class T, int... E>
address_range addresses_of(const basic_view<B, T, E...>& v) {
    if (v.size() == 0) return {};
    const auto begin = reinterpret_cast<std::uintptr_t>(v.data());
    const index_t last = (v.rows() - 1) * (v.rank == 1 ? 0 : v.row_stride()) + v.extent(v.rank - 1);
    return {begin, begin + static_cast<std::uintptr_t>(last) * sizeof(T)};
}

/// Two views must not share memory.
template <class V, class U>
void check_disjoint(const char* function, const char* argument, const V& v, const char* other, const U& u) {
    const address_range a = addresses_of(v), b = addresses_of(u);
    if (!(a.end <= b.begin || b.end <= a.begin)) [[unlikely]]
        reject(function, argument, std::string("memory apart from ") + other, "overlapping memory");
}

/// Every parameter that the layer has must be there.
template <class W>
void check_weights(const char* function, const W& w) {
    const auto check = [&](const char* name, const auto& slot) {
        require(slot.data() != nullptr, function, name, "memory for the parameter", "null");
        require(
            reinterpret_cast<std::uintptr_t>(slot.data()) % alignof(std::remove_reference_t<decltype(*slot.data())>) ==
                0,
            function, name, "memory aligned for its elements", "a misaligned address");
    };
    for_each_parameter(check, w);
    for_each_buffer(check, w);
}

/// What computes experts needs a packed layer's matrices too; routing does without.
template <class W>
void check_matrices(const char* function, const W& w) {
    // CUDA asks where they lie, which an empty tensor does not answer either.
    if constexpr (requires {
                      requires __is_same(typename W::backend, cpu);
                      w.matrices.data();
                  })
        require(w.matrices.data() != nullptr, function, "matrices", "packed matrices", "null");
}

/// Sequence starts: ascending from 0, none past the last token.
template <backend B, class T>
void check_starts(const char* function, const basic_view<B, T, dyn>& starts, index_t tokens) {
    const index_t n = starts.extent(0);
    check_view(function, "sequence_starts", starts, n);
    require(n > 0 || tokens == 0, function, "sequence_starts", "at least one start", n);
    // Braces, here and wherever a loop follows `if constexpr`: without them nvcc drops the next statement as well.
    if constexpr (__is_same(B, cpu)) {
        for (index_t i = 0; i < n; ++i) {
            const index_t start = starts[i], least = i == 0 ? 0 : starts[i - 1];
            require(i == 0 ? start == 0 : start >= least && start <= tokens, function, "sequence_starts",
                    "ascending starts from 0, none past the last token", start);
        }
    }
}

template <layer_type L, backend B>
void check_batch(const char* function, const context<B>& ctx, const batch<L, B>& in, bool routes) {
    const index_t tokens = in.x.extent(0);
    if (!(tokens >= 0 && tokens <= most_tokens(L::c))) [[unlikely]]
        reject(function, "x", counted("at most ", most_tokens(L::c), " rows"), tokens);
    check_view(function, "x", in.x, tokens);
    if (!(ctx.reserved_tokens() == 0 || tokens <= ctx.reserved_tokens())) [[unlikely]]
        reject(function, "x", counted("at most the ", ctx.reserved_tokens(), " rows reserved"), tokens);
    if (in.mask.data()) check_view(function, "mask", in.mask, tokens);
    if (!routes) return;
    if (in.router_x.data()) check_view(function, "router_x", in.router_x, tokens);
    if (in.token_ids.data()) check_view(function, "token_ids", in.token_ids, tokens);
    // These are read element by element and may begin anywhere, as slices do.
    if (in.chosen.data() && in.chosen.extent(0) != tokens) [[unlikely]]
        reject(function, "chosen", counted("", tokens, " rows"), in.chosen.extent(0));
    if (in.previous_logits.data() && in.previous_logits.extent(0) != tokens) [[unlikely]]
        reject(function, "previous_logits", counted("", tokens, " rows"), in.previous_logits.extent(0));
    if constexpr (L::c.router.select == selection::given)
        require(in.chosen.data() != nullptr || tokens == 0, function, "chosen", "one row of ids per token", "none");
    if constexpr (L::c.capacity.shared_by == capacity_group::sequence)
        require(in.sequence_starts.data() != nullptr || tokens == 0, function, "sequence_starts",
                "the first token of each sequence", "none");
    if constexpr (__is_same(B, cpu)) {
        if (in.chosen.data()) {
            check_view(function, "chosen", in.chosen, tokens);
            for (index_t t = 0; t < tokens; ++t)
                for (int s = 0; s < L::slots; ++s)
                    if (!(in.chosen(t, s) >= -1 && in.chosen(t, s) < L::choices)) [[unlikely]]
                        reject(function, "chosen", counted("ids from -1 to ", L::choices - 1), in.chosen(t, s));
        }
        if (in.sequence_starts.data()) check_starts(function, in.sequence_starts, tokens);
    }
}

/// Dropout of experts: a probability where the configuration has it, nothing else.
template <layer_type L>
void check_dropout(const char* function, const options<L>& o) {
    require(o.dropout >= 0 && (L::c.dropout > 0 ? o.dropout < 1 : o.dropout == 0), function, "options.dropout",
            L::c.dropout > 0 ? "a probability below 1" : "zero, since the configuration has no .dropout", o.dropout);
}

/// Whether calls with weights W may be so short that their checks count; a wing says so of its own.
template <class W>
inline constexpr bool has_short_calls = false;

/// Whether this is a call for one token that check_forward lets pass if there is nothing but x and y: a few
/// nanoseconds. What fails here may still be right. A context that has room for any token has room for one.
template <layer_weights W, layer_type L = typename W::layer_type>
GATEFOLD_INLINE bool is_plain_call(const W& w, const input_of<W>& in, const output_of<W>& y, const options<L>& o) {
    using T = typename L::value_type;
    constexpr std::uintptr_t bytes = std::uintptr_t{L::hidden} * sizeof(T);
    const auto x = reinterpret_cast<std::uintptr_t>(in.data()), to = reinterpret_cast<std::uintptr_t>(y.data());
    // Added up, because a branch per condition costs more than the conditions.
    int wrong = L::c.router.select == selection::given || L::c.capacity.shared_by == capacity_group::sequence;
    const auto look_at = [&](const auto& v) {
        wrong |= v.data() == nullptr;
        wrong |= v.extent(0) != 1;
        wrong |= v.extent(1) != L::hidden;
        wrong |= v.row_stride() < L::hidden;
    };
    look_at(in);
    look_at(y);
    wrong |= x < to + bytes && to < x + bytes;
    wrong |= o.dropout != L::c.dropout;
    std::uintptr_t misplaced = (x | to) % alignof(T);
    const auto look = [&](const char*, const auto& slot) {
        wrong |= slot.data() == nullptr;
        misplaced |=
            reinterpret_cast<std::uintptr_t>(slot.data()) % alignof(std::remove_reference_t<decltype(*slot.data())>);
    };
    for_each_parameter(look, w);
    for_each_buffer(look, w);
    if constexpr (requires { w.matrices.data(); }) wrong |= w.matrices.data() == nullptr;
    return wrong == 0 && misplaced == 0;
}

template <layer_weights W, layer_type L = typename W::layer_type, backend B = typename W::backend>
void check_forward(const context<B>& ctx, const W& w, const batch<L, B>& in, const output_of<W>& y,
                   const options<L>& o) {
    check_dropout("forward", o);
    check_batch("forward", ctx, in, !L::is_dense);
    check_view("forward", "y", y, in.x.extent(0));
    check_disjoint("forward", "y", y, "x", in.x);
    if (in.router_x.data()) check_disjoint("forward", "y", y, "router_x", in.router_x);
    check_weights("forward", w);
    check_matrices("forward", w);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER
