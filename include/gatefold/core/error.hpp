// How a call that cannot be carried out says so: one sentence with function, argument, what it needs and what came.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <gatefold/core/macros.hpp>

namespace gatefold::inline v0 {

/// A wrong argument; `what()` reads "gatefold::FUNCTION: ARGUMENT: expected EXPECTED, got GOT".
class argument_error : public std::invalid_argument {
public:
    using std::invalid_argument::invalid_argument;
};

/// A file that is not what it claims to be, or that the system will not give; `what()` names the file.
class file_error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

[[noreturn]] inline void abort_with(const char* text) {
    std::fprintf(stderr, "%s\n", text);
    std::abort();
}

/// Words around a number, put together only where a call is refused.
struct counted {
    const char* before;
    std::int64_t number;
    const char* after;

    template <class N>
    constexpr counted(const char* words, N n, const char* more = "")
        : before(words), number(static_cast<std::int64_t>(n)), after(more) {}
};

inline std::string text_of(const char* s) { return s; }
inline std::string text_of(std::string s) { return s; }
inline GATEFOLD_NOINLINE std::string text_of(const counted& c) { return c.before + std::to_string(c.number) + c.after; }
template <class N>
    requires(std::is_arithmetic_v<N>)
std::string text_of(N n) {
    if constexpr (std::is_same_v<N, bool>)
        return n ? "true" : "false";
    else if constexpr (std::is_floating_point_v<N>) {
        char text[32];
        std::snprintf(text, sizeof text, "%g", static_cast<double>(n));
        return text;
    } else
        return std::to_string(n);
}

[[noreturn]] inline GATEFOLD_NOINLINE void reject_texts(const char* function, const char* argument,
                                                        const std::string& expected, const std::string& got) {
    GATEFOLD_THROW(argument_error("gatefold::" + std::string(function) + ": " + argument + ": expected " + expected +
                                  ", got " + got));
}
template <class Expected, class Got>
[[noreturn]] GATEFOLD_NOINLINE void reject(const char* function, const char* argument, Expected expected, Got got) {
    reject_texts(function, argument, text_of(expected), text_of(got));
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Throws argument_error unless `holds`; the texts are composed only then.
template <class Expected, class Got>
constexpr void require(bool holds, const char* function, const char* argument, Expected expected, Got got) {
    if (!holds) [[unlikely]]
        detail::reject(function, argument, expected, got);
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
