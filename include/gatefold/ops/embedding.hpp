// Token ids to vectors: rows of a table, and the table's gradient.
#pragma once

#include <cstdint>

#include <gatefold/ops/gather.hpp>

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// out[t] = table[ids[t]].
///
/// Shapes: ids [T], table [V, H], out [T, H].
/// Throws: argument_error where extents differ, memory is missing, an id is not in [0, V), or out overlaps an input;
///         out is untouched then.
template <host_array_of<const std::int32_t> Ids, readable Table, writable Out>
void embedding(context<cpu>& ctx, const Ids& ids, const Table& table, Out&& out) {
    static_assert(detail::picks_rows<const Table, const Ids, Out>(),
                  "gatefold::embedding: ids must be [T], table [V, H] and out [T, H]");
    detail::checked_gather(ctx, "embedding", "table", table, ids, out);
}

/// dtable[v] = Σ dout[t] over the tokens with id v, in ascending t; rows of other ids become zero, or stay as they are
/// with into::accumulate.
///
/// Shapes: ids [T], dout [T, H], dtable [V, H].
/// Throws: argument_error where extents differ, memory is missing, an id is not in [0, V), or dtable overlaps an input;
///         dtable is untouched then.
template <host_array_of<const std::int32_t> Ids, readable Dout, writable Dtable>
void embedding_backward(context<cpu>& ctx, const Ids& ids, const Dout& dout, Dtable&& dtable,
                        into mode = into::replace) {
    static_assert(detail::picks_rows<Dtable, const Ids, const Dout>(),
                  "gatefold::embedding_backward: ids must be [T], dout [T, H] and dtable [V, H]");
    static_assert(detail::sums_alike<const Dout, Dtable>,
                  "gatefold::embedding_backward: double does not mix with other types");
    detail::checked_scatter(ctx, "embedding_backward", "dout", "dtable", dout, ids, dtable, mode);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
