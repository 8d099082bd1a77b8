#include "data.hpp"

#include <algorithm>
#include <limits>

namespace bench {
namespace {

/// Walks through calls and knows how many bytes lie between two uses of an expert.
class walk {
public:
    walk(int copies, double expert_bytes) : copies_(copies), bytes_(expert_bytes) {}

    /// The least distance that a call visiting these experts makes to earlier calls of the same copy.
    double distance(const std::vector<int>& experts) const {
        double least = std::numeric_limits<double>::infinity();
        for (std::size_t i = 0; i < experts.size(); ++i) {
            const auto e = static_cast<std::size_t>(experts[i]);
            if (e < last_.size() && last_[e] >= 0)
                least = (std::min)(least, begin_ + static_cast<double>(i) * bytes_ - last_[e]);
        }
        return least;
    }
    void take(const std::vector<int>& experts) {
        for (std::size_t i = 0; i < experts.size(); ++i) {
            const auto e = static_cast<std::size_t>(experts[i]);
            if (e >= last_.size()) last_.resize(e + 1, -1);
            last_[e] = begin_ + static_cast<double>(i) * bytes_;
        }
        begin_ += copies_ * bytes_ * static_cast<double>(experts.size());
    }

private:
    int copies_;
    double bytes_, begin_ = 0;
    std::vector<double> last_;  // where each expert was used last
};

}  // namespace

rotation make_rotation(const std::vector<std::vector<int>>& candidates, int count, double expert_bytes, double apart) {
    // Ends: with enough copies one call of each is more than `apart`, whatever the order.
    for (int copies = 1;; ++copies) {
        rotation r;
        r.copies = copies;
        walk way(copies, expert_bytes);
        std::vector<bool> used(candidates.size());
        for (int step = 0; step < count; ++step) {
            int best = -1;
            double farthest = -1;
            for (std::size_t c = 0; c < candidates.size(); ++c)
                if (const double d = used[c] ? -2 : way.distance(candidates[c]); d > farthest)
                    farthest = d, best = static_cast<int>(c);
            if (best < 0) break;
            used[static_cast<std::size_t>(best)] = true;
            way.take(candidates[static_cast<std::size_t>(best)]);
            r.order.push_back(best);
        }
        double least = std::numeric_limits<double>::infinity();
        walk again(copies, expert_bytes);
        for (int round = 0; round < 2; ++round)
            for (const int b : r.order) {
                least = (std::min)(least, again.distance(candidates[static_cast<std::size_t>(b)]));
                again.take(candidates[static_cast<std::size_t>(b)]);
            }
        if (least > apart) return r;
    }
}

}  // namespace bench
