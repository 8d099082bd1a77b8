// The order in which a call takes panels where experts of many rows and of few come together.
//
//     counts ── merge_experts ──> merged: both classes, each ascending, in proportion ── panel_walk ──> (expert, panel)
//                                                             └── the same walk, ahead: cpu/experts/fetch.hpp
//
// An expert of many rows leaves the memory idle, one of few rows the arithmetic. Taken one after the other, a call
// waits for both in turn; panel by panel, the tiles of the ones fetch what the others read (bench
// layer_forward/olmoe/bf16/tokens:64/threads:1/skew:1). No choice here changes a bit.
#pragma once

#include <cstdint>

#include <gatefold/cpu/gemm/products_run.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// An active expert; `lag` counts the changes between many and few rows among the experts up to it.
struct ordered_expert {
    std::int32_t expert, lag;
};

/// The active experts of a call, merged.
struct merged_experts {
    const ordered_expert* order;
    index_t active, most_lag;
};

/// How many experts have rows.
inline index_t active_experts(const grouping& groups) {
    index_t active = 0;
    for (int e = 0; e < groups.experts; ++e) active += groups.count(e) > 0;
    return active;
}

/// Whether taking panels across experts is predicted to save a fifth of the time that they take one by one, in units of
/// a row: below the ridge an expert takes as long as its weights take to come from memory. A call that waits for memory
/// on the whole is left as it is, since the kernels of few rows read faster than fetches between other tiles.
inline bool worth_merging(const grouping& groups, index_t ridge) {
    index_t active = 0, rows = 0, alone = 0;
    for (int e = 0; e < groups.experts; ++e) {
        const index_t n = groups.count(e);
        if (n == 0) continue;
        ++active;
        rows += n;
        alone += n > ridge ? n : ridge;
    }
    return rows >= active * ridge && 4 * alone > 5 * rows;
}

/// The active experts of one class, ascending.
struct class_walk {
    const grouping& groups;
    index_t ridge;
    bool many;
    int expert = -1, lag = 0;
    bool any = false, last = false;

    /// Goes to the next expert of the class; groups.experts where there is none.
    void next() {
        while (++expert < groups.experts) {
            const index_t n = groups.count(expert);
            if (n == 0) continue;
            const bool above = n >= ridge;
            lag += any && above != last;
            any = true;
            last = above;
            if (above == many) return;
        }
    }
    bool there() const { return expert < groups.experts; }
    /// How far the expert's arithmetic and its memory are apart.
    index_t excess() const {
        const index_t n = groups.count(expert);
        return many ? n - ridge + 1 : ridge - n;
    }
};

/// Fills `order`, which has room for all active experts: those of `ridge` rows and more and the others, each ascending,
/// merged so that what one class has too much of and the other lacks is used up at the same pace.
inline merged_experts merge_experts(const grouping& groups, index_t ridge, ordered_expert* order) {
    index_t all[2] = {0, 0}, done[2] = {0, 0};
    class_walk many{groups, ridge, true}, few{groups, ridge, false};
    for (class_walk* walk : {&many, &few}) {
        class_walk counting = *walk;
        for (counting.next(); counting.there(); counting.next()) all[walk == &few] += counting.excess();
        walk->next();
    }
    merged_experts merged{order, 0, 0};
    while (many.there() || few.there()) {
        const bool take_few = !many.there() || (few.there() && done[0] * all[1] > done[1] * all[0]);
        class_walk& from = take_few ? few : many;
        order[merged.active++] = {from.expert, from.lag};
        if (from.lag > merged.most_lag) merged.most_lag = from.lag;
        done[take_few] += from.excess();
        from.next();
    }
    return merged;
}

/// The panels of a part in the order in which they are multiplied.
///
/// First projection: `together` experts of the merged order at a time, panel by panel, so that their rows stay in the
/// caches. Second: all of them, expert e at panel (round - lag of e): experts of one class that stand side by side
/// share a lag and come in their order, later ones a round behind, so that every panel sees the experts ascending
/// although the classes are merged.
struct panel_walk {
    const ordered_expert* order;
    index_t active, together, p0, p1;
    bool lagging;
    index_t left;  ///< panels to go, with this one
    index_t first, round, at;

    /// Tasks [begin, end) of the first projection, counted in the order of the walk.
    static panel_walk of_first(const merged_experts& merged, index_t together, index_t panels, index_t begin,
                               index_t end) {
        const index_t first = begin / (together * panels) * together, rest = begin - first * panels;
        const index_t size = merged.active - first < together ? merged.active - first : together;
        panel_walk walk{merged.order, merged.active, together, 0, panels, false, end - begin, first, 0, first};
        if (walk.left > 0) walk.round = rest / size, walk.at = first + rest % size;
        return walk;
    }
    /// Panels [p0, p1) of the second projection.
    static panel_walk of_second(const merged_experts& merged, index_t p0, index_t p1) {
        panel_walk walk{merged.order, merged.active, merged.active, p0, p1, true, merged.active * (p1 - p0), 0, p0, 0};
        if (walk.left > 0 && !walk.there()) ++walk.left, walk.next();
        return walk;
    }

    bool done() const { return left == 0; }
    int expert() const { return order[at].expert; }
    index_t panel() const { return lagging ? round - order[at].lag : round; }
    void next() {
        if (--left == 0) return;
        do {
            const index_t end = first + together < active ? first + together : active;
            if (++at < end) continue;
            ++round;
            if (!lagging && round == p1) round = p0, first = end;
            at = first;
        } while (!there());
    }

private:
    bool there() const { return panel() >= p0 && panel() < p1; }
};

/// The task of the first projection before which tasks cost `cost`, or more by less than a task; cost(e) is that of a
/// panel of expert e.
template <class Cost>
index_t task_at(const merged_experts& merged, index_t together, index_t panels, index_t cost, const Cost& cost_of) {
    for (index_t first = 0; first < merged.active; first += together) {
        const index_t end = first + together < merged.active ? first + together : merged.active;
        index_t each = 0;
        for (index_t i = first; i < end; ++i) each += cost_of(merged.order[i].expert);
        if (cost >= each * panels) {
            cost -= each * panels;
            continue;
        }
        index_t task = first * panels + cost / each * (end - first), rest = cost % each;
        for (index_t i = first; rest > 0; ++i, ++task) rest -= cost_of(merged.order[i].expert);
        return task;
    }
    return merged.active * panels;
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
