// The phases of one region of threads, as a list that stages pass on and add to.
#pragma once

#include <gatefold/core/context.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Phases in the order in which they run; bodies live where they were added from.
class phase_list {
public:
    static constexpr int most = 8;

    template <class Body>
    GATEFOLD_INLINE void add(int parts, Body& body) {
        phases_[count_++] = phase::of(parts, body);
    }
    GATEFOLD_INLINE const phase* begin() const { return phases_; }
    GATEFOLD_INLINE const phase* end() const { return phases_ + count_; }

private:
    phase phases_[most] = {};
    int count_ = 0;
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
