// How threads share the first projection: one flat list of (expert, panel), cut where the costs are equal, of which a
// part takes its own share piece by piece, and what others have left after that.
//
//     costs of all panels ── task_list ──> pieces, smaller and smaller ── task_walk of a part ──> (expert, panels)
//
// Who computes a panel does not change its bits. What it costs is known roughly: heights of tiles, caches and other
// programs change it by a fifth, for which a cut in advance would let one thread wait for the other (bench
// layer_forward/tiny/f32/tokens:4/threads:2).
#pragma once

#include <gatefold/core/workspace.hpp>
#include <gatefold/cpu/gemm/products_run.hpp>

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu {

/// Up to where the share of one part has been taken; a cache line of its own.
struct alignas(64) task_position {
    index_t next;
};

/// The panels of all experts of a call. A panel costs the rows of its expert, below the ridge as many as take as long
/// as its weights take to come; positions in the list are sums of costs.
class task_list {
public:
    /// Pieces begin at even panels of experts of up to `tallest` rows, whose kernels take two side by side. `positions`
    /// is room for one of each part.
    task_list(const grouping& groups, index_t panels, index_t ridge, index_t tallest, int parts,
              task_position* positions)
        : groups_(groups), panels_(panels), ridge_(ridge), tallest_(tallest), parts_(parts), positions_(positions) {}

    /// Adds up the costs and cuts the list; before any part walks along it.
    void cut() {
        total_ = 0;
        for (int e = 0; e < groups_.experts; ++e) total_ += cost(e) * panels_;
        for (int part = 0; part < parts_; ++part) positions_[part].next = begin_of(part);
    }

    int experts() const { return groups_.experts; }
    /// Of a panel.
    index_t cost(int e) const {
        const index_t n = groups_.count(e);
        return n == 0 || n > ridge_ ? n : ridge_;
    }
    /// Where the share of a part begins.
    index_t begin_of(int part) const { return share(total_, part, parts_); }

private:
    friend class task_walk;

    struct piece {
        index_t begin, end;
    };
    /// The next piece for a part, empty if nothing is left: three quarters of what is left of its own share, or half of
    /// what is left of another's.
    piece take(int part) const {
        if (parts_ > 1) {
            for (int i = 0; i < parts_; ++i) {
                const piece some = take_from((part + i) % parts_, i == 0 ? 4 : 2);
                if (some.begin < some.end) return some;
            }
            return {total_, total_};
        }
        const piece all{positions_->next, total_};
        positions_->next = total_;
        return all;
    }
    /// A piece of the share of `owner`: all but one of `of` equal parts of what is left, but not less than two panels.
    piece take_from(int owner, index_t of) const {
        // Builtins, because <atomic> brings in forty headers, which each translation unit pays for.
        index_t* const next = &positions_[owner].next;
        const index_t least = 2 * ridge_, limit = begin_of(owner + 1);
        index_t begin = __atomic_load_n(next, __ATOMIC_RELAXED), end;
        do {
            const index_t left = limit - begin, most = left - left / of;
            end = begin + (left < least ? left : most < least ? least : most);
            if (left == 0) break;
        } while (!__atomic_compare_exchange_n(next, &begin, end, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
        return {begin, end};
    }

    grouping groups_;
    index_t panels_, ridge_, tallest_, total_ = 0;
    int parts_;
    task_position* positions_;
};

/// Panels [p0, p1) of an expert.
struct panel_run {
    int expert;
    index_t p0, p1;
};

/// The panels that one part takes. Where it goes on is known before its last ones are computed, so that they can fetch
/// what comes next.
class task_walk {
public:
    task_walk(const task_list& tasks, int part) : tasks_(tasks), part_(part) { take(); }

    bool there() const { return expert_ < tasks_.experts(); }
    int expert() const { return expert_; }
    index_t panel() const { return panel_; }

    /// Some panels, which the walk leaves behind.
    panel_run next() {
        const int e = expert_;
        const index_t p0 = panel_, behind = first_ + tasks_.cost(e) * tasks_.panels_;
        if (behind < end_) {
            to_next_expert();
            return {e, p0, tasks_.panels_};
        }
        // The last panels of a piece are a run of their own: until then others may take what would come next.
        const index_t p1 = behind == end_ ? tasks_.panels_ : panel_at(end_);
        if (const index_t kept = (p1 - p0 - 1) / together() * together(); kept > 0 && tasks_.parts_ > 1) {
            panel_ = p0 + kept;
            return {e, p0, panel_};
        }
        take();
        return {e, p0, p1};
    }

private:
    index_t together() const { return tasks_.groups_.count(expert_) <= tasks_.tallest_ ? 2 : 1; }
    /// The first panel of the expert that begins at a position or behind it, if there is one.
    index_t panel_at(index_t position) const {
        const index_t panel = round_up(ceil_div(position - first_, tasks_.cost(expert_)), together());
        return panel < tasks_.panels_ ? panel : tasks_.panels_;
    }
    void to_next_expert() {
        do {
            first_ += tasks_.cost(expert_) * tasks_.panels_;
            ++expert_;
        } while (there() && tasks_.cost(expert_) == 0);
        panel_ = 0;
    }
    /// Goes to the first panel of the next piece in which any begins; behind the last expert if there is none.
    void take() {
        do {
            const auto piece = tasks_.take(part_);
            if (piece.begin == piece.end) {
                expert_ = tasks_.experts();
                return;
            }
            if (piece.begin < first_ || !there()) expert_ = 0, first_ = 0;
            end_ = piece.end;
            while (first_ + tasks_.cost(expert_) * tasks_.panels_ <= piece.begin) to_next_expert();
            panel_ = panel_at(piece.begin);
            if (panel_ == tasks_.panels_) to_next_expert();
        } while (!there() || first_ + panel_ * tasks_.cost(expert_) >= end_);
    }

    const task_list& tasks_;
    int part_, expert_ = 0;
    index_t first_ = 0, panel_ = 0, end_ = 0;
};

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER::on_cpu
