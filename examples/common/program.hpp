// What the longer examples share around their subject: numbers from the command line, runs side by side, and sentences
// that must hold.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace program {

/// `--NAME NUMBER` and `--NAME TEXT` pairs; whatever is not named here ends the program with one line.
class arguments {
public:
    arguments(int count, char** values, const char* usage);
    int number(const char* name, int otherwise, int least, int most);
    std::string text(const char* name);
    /// Called after the last of the others: anything left over ends the program.
    void done() const;

private:
    std::string take(const char* name);
    std::vector<std::string> left_;
    std::string name_, usage_;
};

/// Runs body(i) for i in [0, count) on as many threads as there are cores.
void side_by_side(int count, const std::function<void(int)>& body);

/// Mean and ends of some figures.
struct spread {
    double mean = 0, low = 0, high = 0;
};
spread spread_of(const std::vector<double>& values);

/// What the example claims: prints each sentence with its outcome.
class claims {
public:
    void expect(bool holds, const std::string& sentence);
    /// The exit code: 0 if all hold.
    int result() const { return all_ ? 0 : 1; }

private:
    bool all_ = true;
};

}  // namespace program
