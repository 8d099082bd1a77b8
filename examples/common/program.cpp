#include "program.hpp"

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <thread>

namespace program {
namespace {

[[noreturn]] void end(const std::string& line) {
    std::fprintf(stderr, "%s\n", line.c_str());
    std::exit(2);
}

}  // namespace

arguments::arguments(int count, char** values, const char* usage) : left_(values + 1, values + count), usage_(usage) {
    name_ = values[0];
    name_ = name_.substr(name_.find_last_of('/') + 1);
    if (std::find(left_.begin(), left_.end(), "--help") != left_.end()) {
        std::printf("usage: %s %s\n", name_.c_str(), usage_.c_str());
        std::exit(0);
    }
}

std::string arguments::take(const char* name) {
    const auto found = std::find(left_.begin(), left_.end(), name);
    if (found == left_.end()) return "";
    if (found + 1 == left_.end()) end(name_ + ": " + name + ": expected a value");
    const std::string value = found[1];
    left_.erase(found, found + 2);
    return value;
}

int arguments::number(const char* name, int otherwise, int least, int most) {
    const std::string value = take(name);
    if (value.empty()) return otherwise;
    int n = 0;
    const char* const last = value.data() + value.size();
    if (std::from_chars(value.data(), last, n).ptr != last || n < least || n > most)
        end(name_ + ": " + name + ": expected a whole number from " + std::to_string(least) + " to " +
            std::to_string(most) + ", got \"" + value + "\"");
    return n;
}

std::string arguments::text(const char* name) { return take(name); }

void arguments::done() const {
    if (!left_.empty()) end(name_ + ": unknown option \"" + left_[0] + "\"; usage: " + name_ + " " + usage_);
}

void side_by_side(int count, const std::function<void(int)>& body) {
    std::atomic<int> next{0};
    std::exception_ptr error;
    std::atomic<bool> failed{false};
    std::vector<std::thread> threads;
    const int workers = (std::min)(count, static_cast<int>((std::max)(std::thread::hardware_concurrency(), 1u)));
    for (int w = 0; w < workers; ++w)
        threads.emplace_back([&] {
            for (int i = next++; i < count && !failed; i = next++) try {
                    body(i);
                } catch (...) {
                    if (!failed.exchange(true)) error = std::current_exception();
                }
        });
    for (auto& t : threads) t.join();
    if (error) std::rethrow_exception(error);
}

spread spread_of(const std::vector<double>& values) {
    if (values.empty()) return {};
    spread s{0, values[0], values[0]};
    for (const double v : values) {
        s.mean += v / static_cast<double>(values.size());
        s.low = (std::min)(s.low, v);
        s.high = (std::max)(s.high, v);
    }
    return s;
}

void claims::expect(bool holds, const std::string& sentence) {
    std::printf("   %s  %s\n", holds ? "holds  " : "FAILS  ", sentence.c_str());
    all_ = all_ && holds;
}

}  // namespace program
