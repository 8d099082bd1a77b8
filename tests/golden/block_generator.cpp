// Writes the tests of the golden blocks: one test case, with its type, for every block that block_folders finds.
//
//     block_generator GOLDEN EXCUSES OUT PARTS     writes OUT/blocks_1.cpp … blocks_PARTS.cpp and OUT/tests.cmake
//     block_generator GOLDEN EXCUSES OUT --check   whether what was built is what stands there now
//     block_generator --literals FILE              what hub_config prints for published models, as static assertions
//
// A block that no configuration expresses is a test that fails with the reason, unless it is excused by name. Files
// that would not change are left alone, so that nothing is compiled again.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

#include <examples/hub_config/block.hpp>

#include "block_folders.hpp"
#include "published_configs.hpp"

namespace {

using block_folders::block_case;

struct test_case {
    std::string suite, name, code;
};

/// A C++ string of any text.
std::string quoted(const std::string& text) {
    std::string result = "\"";
    for (const char c : text) {
        if (c == '\n') {
            result += "\\n";
            continue;
        }
        if (c == '"' || c == '\\') result += '\\';
        result += c;
    }
    return result + '"';
}

/// Folders may be called what no function may: "switch".
std::string identifier(const std::string& name) {
    std::string result = "of_";
    for (const char c : name) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        result += plain ? c : '_';
    }
    return result;
}

struct plan {
    std::vector<test_case> tests;
    std::string report;
    bool sound = true;
};

void add(plan& p, const std::vector<block_case>& cases, const char* suite, const char* check, const std::string& place,
         const std::vector<block_folders::excuse>& excuses) {
    for (const block_case& one : cases) {
        const std::string what = place + "/" + one.name;
        const auto excused =
            std::find_if(excuses.begin(), excuses.end(), [&](const auto& e) { return e.name == what; });
        if (one.fault.empty()) {
            p.tests.push_back({suite, one.name,
                               std::string(check) + "<" + hub_config::literal_of(one.c, one.family) + ">(" +
                                   quoted(one.name) + ");"});
            if (excused == excuses.end()) continue;
            p.report += "no excuse needed: " + what + " can be expressed\n";
            p.sound = false;
        } else if (excused != excuses.end())
            p.report += "not expressible: " + what + ": " + excused->reason + "\n";
        else {
            p.tests.push_back({suite, one.name, "BOOST_ERROR(" + quoted(one.name + ": " + one.fault) + ");"});
            p.report += "no configuration: " + what + ": " + one.fault + "\n";
            p.sound = false;
        }
    }
}

plan make_plan(const std::string& golden, const std::string& excuse_file) {
    const block_folders::findings found = block_folders::look(golden);
    const auto excuses = block_folders::read_excuses(excuse_file);
    plan p;
    add(p, found.models, "block_models", "::block_comparison::check_model", "models", excuses);
    add(p, found.gradients, "block_gradients", "::block_gradients::check_block", "gradients", excuses);
    for (const block_folders::excuse& excused : excuses) {
        const auto is_in = [&](const std::vector<block_case>& cases, const std::string& place) {
            return std::any_of(cases.begin(), cases.end(),
                               [&](const block_case& one) { return place + "/" + one.name == excused.name; });
        };
        if (!is_in(found.models, "models") && !is_in(found.gradients, "gradients")) {
            p.report += "no such block: " + excused.name + ", which is excused\n";
            p.sound = false;
        }
    }
    std::string without;
    for (const std::string& name : found.without_block) without += " " + name;
    p.report = "golden blocks: " + std::to_string(found.models.size()) + " models, " +
               std::to_string(found.gradients.size()) + " with gradients, " + std::to_string(p.tests.size()) +
               " tests, " + std::to_string(excuses.size()) + " excused\nmodels without a block:" + without + "\n" +
               p.report;
    return p;
}

std::string source_of(const plan& p, std::size_t begin, std::size_t end) {
    std::string text =
        "// Written by tests/golden/block_generator.cpp from the golden data.\n"
        "#include <tests/golden/block_comparison.hpp>\n#include <tests/golden/block_gradients.hpp>\n\n"
        "namespace gf = gatefold;\n\nBOOST_AUTO_TEST_SUITE(golden)\n";
    for (std::size_t i = begin; i < end; ++i)
        text += "BOOST_AUTO_TEST_SUITE(" + p.tests[i].suite + ")\nBOOST_AUTO_TEST_CASE(" + identifier(p.tests[i].name) +
                ") {\n    " + p.tests[i].code + "\n}\nBOOST_AUTO_TEST_SUITE_END()\n";
    return text + "BOOST_AUTO_TEST_SUITE_END()\n";
}

std::string ctest_of(const plan& p) {
    std::string text;
    for (const test_case& test : p.tests) {
        const std::string name = "golden." + test.suite + "." + test.name;
        text += "add_test([==[" + name + "]==] \"${program}\" --run_test=golden/" + test.suite + "/" +
                identifier(test.name) + ")\nset_tests_properties([==[" + name +
                "]==] PROPERTIES LABELS golden TIMEOUT 300 ENVIRONMENT \"${environment}\")\n";
    }
    return text;
}

std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}
void write(const std::string& path, const std::string& text) {
    if (read(path) == text) return;
    std::ofstream file(path, std::ios::binary);
    if (!(file << text)) throw std::runtime_error("cannot write " + path);
}

/// The literals of the published models: pasted, they are the same values.
std::string literals() {
    std::string text =
        "// Written by tests/golden/block_generator.cpp: what hub_config prints, pasted.\n"
        "#include <boost/test/unit_test.hpp>\n\n#include <tests/golden/published_configs.hpp>\n\n"
        "namespace gf = gatefold;\n\n";
    std::size_t i = 0;
    for (const auto& one : published_configs::all) {
        const hub_config::block b = hub_config::read_block(hub_config::parse_config(one.text));
        text += "static_assert(published_configs::all[" + std::to_string(i++) + "].c ==\n              " +
                hub_config::literal_of(b.c, b.family) + ",\n              " + quoted(one.name) + ");\n";
    }
    return text +
           "\nBOOST_AUTO_TEST_SUITE(golden)\nBOOST_AUTO_TEST_SUITE(block_literals)\n"
           "BOOST_AUTO_TEST_CASE(compile_to_the_value_they_print) { BOOST_TEST(std::size(published_configs::all) == " +
           std::to_string(i) + "u); }\nBOOST_AUTO_TEST_SUITE_END()\nBOOST_AUTO_TEST_SUITE_END()\n";
}

}  // namespace

int main(int count, char** arguments) {
    if (count == 3 && std::string(arguments[1]) == "--literals") {
        try {
            write(arguments[2], literals());
            return 0;
        } catch (const std::exception& e) {
            std::fprintf(stderr, "block_generator: %s\n", e.what());
            return 1;
        }
    }
    if (count != 5) {
        std::fprintf(stderr, "usage: block_generator GOLDEN EXCUSES OUT PARTS|--check, or --literals FILE\n");
        return 2;
    }
    try {
        const std::string out = arguments[3], last = arguments[4];
        const plan p = make_plan(arguments[1], arguments[2]);
        std::printf("%s", p.report.c_str());
        if (last == "--check") {
            const bool same = read(out + "/tests.cmake") == ctest_of(p);
            if (!same) std::printf("these are not the blocks that the tests were built for; build again\n");
            return same && p.sound ? 0 : 1;
        }
        const auto parts = static_cast<std::size_t>(std::atoi(last.c_str()));
        // Runs of equal length: one more at the end changes the last file only.
        const std::size_t length = (p.tests.size() + parts - 1) / parts;
        const auto begin = [&](std::size_t part) { return (std::min)(length * part, p.tests.size()); };
        for (std::size_t part = 0; part < parts; ++part)
            write(out + "/blocks_" + std::to_string(part + 1) + ".cpp", source_of(p, begin(part), begin(part + 1)));
        write(out + "/tests.cmake", ctest_of(p));
    } catch (const std::exception& e) {
        std::fprintf(stderr, "block_generator: %s\n", e.what());
        return 1;
    }
    return 0;
}
