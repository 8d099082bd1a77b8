// What a call needs besides its arguments: threads, memory, and a place to count what was unusual.
//
// One context serves one call at a time; two concurrent calls take two contexts. There is no global state behind it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include <gatefold/core/allocator.hpp>
#include <gatefold/core/backend.hpp>
#include <gatefold/core/buffer.hpp>
#include <gatefold/core/error.hpp>
#include <gatefold/core/index.hpp>
#include <gatefold/core/macros.hpp>
#include <gatefold/core/order.hpp>

namespace gatefold::inline v0 {

/// Runs `part(argument, p)` for every p in [0, parts), in any order and on any threads, and returns when all are done.
/// No part waits for another. The results of the library do not depend on how an executor distributes the parts.
struct executor {
    void* self;
    void (*run)(void* self, int parts, void (*part)(void* argument, int p), void* argument);
};

/// One step of a region of threads: part(body, p) for every p in [0, parts).
struct phase {
    void (*part)(void* body, int p);
    void* body;
    int parts;

    /// Calls body(p), which has to outlive the phase.
    template <class Body>
    GATEFOLD_INLINE static phase of(int parts, Body& body) {
        return {[](void* self, int p) { (*static_cast<Body*>(self))(p); },
                const_cast<void*>(static_cast<const void*>(&body)), parts};
    }
};

namespace detail::inline GATEFOLD_TIER {

struct one_phase {
    phase only;
    GATEFOLD_INLINE const phase* begin() const { return &only; }
    GATEFOLD_INLINE const phase* end() const { return &only + 1; }
};

}  // namespace detail::inline GATEFOLD_TIER

/// Counts of unusual input since the context was made or `clear_report` was called.
struct routing_report {
    index_t tokens = 0;           ///< tokens routed
    index_t nan_logits = 0;       ///< logits that were NaN and therefore chosen last
    index_t infinite_logits = 0;  ///< logits that were plus or minus infinity
    index_t undecided = 0;        ///< tokens without any finite or +inf logit: the k lowest experts, weights 1/k
    index_t dropped = 0;          ///< (token, slot) pairs that exceeded a capacity
    bool operator==(const routing_report&) const = default;
};

/// How a context is made; every field has a sensible default.
struct context_options {
    int threads = 0;                      ///< 0: as many as OpenMP would use, or one
    allocator memory = system_allocator;  ///< where workspace and tensors come from
    executor runs = {nullptr, nullptr};   ///< who runs the parts; nullptr: OpenMP where enabled, else the caller
    order sums = order::fastest;          ///< the order in which bf16 products are summed
};

template <backend B>
class context;

/// The host: threads, an allocator, one block of workspace that only grows.
template <>
class context<cpu> {
public:
    // Inlined, because what it asks depends on whether the translation unit uses OpenMP.
    GATEFOLD_INLINE explicit context(const context_options& options = {}) : options_(options) {
        require(options.threads >= 0, "context", "threads", "zero or more", options.threads);
        if (options_.threads == 0) {
#if defined(_OPENMP)
            options_.threads = omp_get_max_threads();
#else
            options_.threads = 1;
#endif
        }
    }
    GATEFOLD_INLINE explicit context(int threads) : context(context_options{.threads = threads}) {}

    GATEFOLD_INLINE int threads() const { return options_.threads; }
    GATEFOLD_INLINE order sums() const { return options_.sums; }
    GATEFOLD_INLINE const allocator& memory() const { return options_.memory; }

    /// Counts of NaN and infinite logits, undecided tokens and dropped pairs.
    GATEFOLD_INLINE const routing_report& report() const { return report_; }
    GATEFOLD_INLINE routing_report& report() { return report_; }
    GATEFOLD_INLINE void clear_report() { report_ = {}; }

    /// Makes the workspace hold at least `bytes`; afterwards calls that need no more allocate nothing.
    GATEFOLD_INLINE void reserve_bytes(std::size_t bytes) {
        if (bytes <= workspace_.bytes()) return;
        require(!fixed_, "context::workspace", "bytes", "at most what was reserved", bytes);
        workspace_ = buffer<std::byte>();
        workspace_ = buffer<std::byte>(static_cast<index_t>(bytes), options_.memory);
    }
    /// Refuses to let the workspace grow: a call that needs more throws instead of allocating.
    GATEFOLD_INLINE void fix_workspace(bool fixed = true) { fixed_ = fixed; }
    GATEFOLD_INLINE std::size_t workspace_bytes() const { return workspace_.bytes(); }

    /// Memory for one call: valid until the next; throws as reserve_bytes does.
    GATEFOLD_INLINE std::byte* workspace(std::size_t bytes) {
        reserve_bytes(bytes);
        return workspace_.data();
    }

    /// Makes room for calls of layer L over at most `most_tokens` tokens; longer calls throw from then on.
    ///
    /// `training` includes backward. Several layers may be reserved for one after another; the smallest promise holds.
    template <class L>
    GATEFOLD_INLINE void reserve(index_t most_tokens, bool training = true) {
        reserve_for(*this, std::type_identity<L>{}, most_tokens, training);
        if (reserved_tokens_ == 0 || most_tokens < reserved_tokens_) reserved_tokens_ = most_tokens;
    }
    /// The number of tokens that was reserved for; 0: no promise was asked for.
    GATEFOLD_INLINE index_t reserved_tokens() const { return reserved_tokens_; }

    /// Runs body(p) for every p in [0, parts) and returns when all are done; not to be nested.
    template <class Body>
    GATEFOLD_INLINE void parallel(int parts, Body&& body) {
        parallel(detail::one_phase{phase::of(parts, body)});
    }

    /// Runs phases one after another, each for every p in [0, its parts): the next begins when all parts of the one
    /// before are done, and sees what they wrote. One region of threads with OpenMP; an executor gets one run for each
    /// phase of two parts and more.
    // Not always inlined: g++ cannot inline what OpenMP outlines. Lists of phases are types of the caller's tier, so no
    // two tiers share an instantiation.
    template <class Phases>
        requires requires(const Phases& phases) { phases.begin()->parts; }
    void parallel(const Phases& phases) {
        // What one part does first, the caller does before it calls for other threads.
        const phase *each = phases.begin(), *const end = phases.end();
        for (; each != end && each->parts <= 1; ++each)
            if (each->parts == 1) each->part(each->body, 0);
        if (each == end) return;
        if (options_.threads == 1) {
            for (; each != end; ++each)
                for (int p = 0; p < each->parts; ++p) each->part(each->body, p);
            return;
        }
        if (options_.runs.run) {
            for (; each != end; ++each)
                if (each->parts > 1)
                    options_.runs.run(options_.runs.self, each->parts, each->part, each->body);
                else if (each->parts == 1)
                    each->part(each->body, 0);
            return;
        }
        GATEFOLD_OMP(parallel num_threads(options_.threads) firstprivate(each)) {
            // Part 0 is always the first thread's: phases of one part wait for no one between them.
            for (int before = 0; each != end; ++each) {
                if (each->parts == 0) continue;
                if (before > 1 || (before == 1 && each->parts > 1)) {
                    GATEFOLD_OMP(barrier)
                }
                before = each->parts;
                GATEFOLD_OMP(for schedule(static, 1) nowait)
                for (int p = 0; p < each->parts; ++p) each->part(each->body, p);
            }
        }
    }

private:
    context_options options_;
    buffer<std::byte> workspace_;
    routing_report report_;
    index_t reserved_tokens_ = 0;
    bool fixed_ = false;
};

}  // namespace gatefold::inline v0
