// What is fetched while panels of many experts are multiplied in turn: the same panels, some way ahead.
#pragma once

#include <gatefold/cpu/experts/order.hpp>
#include <gatefold/cpu/gemm/gemm.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// What kernel calls fetch: the panels of a walk ahead of those that are multiplied, at the pace of the memory.
struct panel_fetch {
    panel_walk walk;  ///< at the panel that is fetched
    const char* packed;
    index_t expert_bytes, stream_bytes, used;  ///< `used`: of a stream, without what pads it
    index_t ridge;
    index_t most;  ///< bytes that may be ahead; what falls out of the second-level cache is slow to come back
    index_t offset = 0, ahead = 0;  ///< of each of the two streams of a panel

    /// The next `bytes` of the two streams are about to be multiplied.
    void consume(index_t bytes) {
        ahead -= bytes;
        if (ahead >= 0) return;
        pass(-ahead);
        ahead = 0;
    }
    /// For a tile of that height: as much as memory delivers meanwhile, and what the next panel lacks where `left`
    /// tiles come before it.
    lookahead next(index_t steps, index_t step_bytes, index_t distance, int height, index_t left, const void* idle) {
        lookahead fetch{distance, static_cast<const char*>(idle), 0, 0};
        if (walk.done() || 2 * ahead >= most) return fetch;
        const index_t bytes = steps * step_bytes, missing = (bytes - ahead) / left, there = used - offset;
        index_t wanted = height < ridge ? bytes * height / ridge : bytes;
        if (wanted < missing) wanted = missing;
        if (wanted > there) wanted = there;
        fetch.next = packed + walk.expert() * expert_bytes + walk.panel() * 2 * stream_bytes + offset;
        fetch.half = stream_bytes;
        fetch.advance = ceil_div(wanted, steps);
        const index_t fetched = fetch.advance * steps < there ? fetch.advance * steps : there;
        ahead += fetched;
        pass(fetched);
        return fetch;
    }

private:
    void pass(index_t bytes) {
        while (bytes > 0 && !walk.done()) {
            const index_t there = used - offset, passed = there < bytes ? there : bytes;
            offset += passed;
            bytes -= passed;
            if (offset == used) offset = 0, walk.next();
        }
    }
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
