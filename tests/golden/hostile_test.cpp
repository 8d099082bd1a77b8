// Hostile safetensors files: the verdicts of the golden folder, the memory a refusal may take, and thousands of damaged
// copies of valid files, none of which may crash the reader or be read beyond its end.
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include <boost/test/unit_test.hpp>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gatefold/io/checkpoint.hpp>
#include <gatefold/io/json.hpp>
#include <gatefold/io/safetensors.hpp>

#include "golden_path.hpp"

namespace gf = gatefold;
using golden_data::golden_path;
namespace fs = std::filesystem;

#if defined(__SANITIZE_ADDRESS__)
#define GATEFOLD_TEST_SANITISED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GATEFOLD_TEST_SANITISED 1
#endif
#endif

namespace {

std::vector<std::byte> slurp(const std::string& path) {
    const auto file = gf::open_file(path);
    return {file.bytes().begin(), file.bytes().end()};
}

/// Touches every byte of every tensor, as a loader would; the sum keeps the compiler from leaving it out.
unsigned use(const gf::safetensors_file& file) {
    unsigned sum = 0;
    for (const gf::stored_tensor& tensor : file.tensors()) {
        BOOST_REQUIRE(file.find(tensor.name) == &tensor);
        for (const std::byte b : tensor.bytes) sum += std::to_integer<unsigned>(b);
        if (gf::readable_as<float>(tensor.type)) {
            std::vector<float> out(tensor.bytes.size() * 8 / static_cast<std::size_t>(gf::bits_of(tensor.type)));
            file.read<float>(tensor.name, out, tensor.shape);
            for (const float f : out) sum += f > 0 ? 1u : 0u;
        }
    }
    return sum;
}

/// Whether the reader accepts `bytes`; anything but an answer or a file_error escapes.
bool accepts(std::vector<std::byte> bytes, std::string* why = nullptr) {
    try {
        use(gf::safetensors_file::from_bytes(gf::file_bytes(std::move(bytes)), "f"));
        return true;
    } catch (const gf::file_error& error) {
        BOOST_REQUIRE(std::string_view(error.what()).size() < 1000);
        if (why != nullptr) *why = error.what();
        return false;
    }
}

/// SplitMix64: the same damage in every run.
struct generator {
    std::uint64_t state;
    std::uint64_t operator()() {
        std::uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    std::size_t below(std::size_t n) { return static_cast<std::size_t>((*this)() % n); }
};

std::vector<std::byte> with_length(std::string header, std::size_t data) {
    std::vector<std::byte> bytes(8 + header.size() + data);
    const std::uint64_t length = header.size();
    std::memcpy(bytes.data(), &length, 8);
    std::memcpy(bytes.data() + 8, header.data(), header.size());
    return bytes;
}

/// Runs `work` in a child that may only map `budget` bytes more than it has; returns whether that was enough.
template <class Work>
bool fits_in(std::size_t budget, Work work) {
    const pid_t child = ::fork();
    BOOST_REQUIRE(child >= 0);
    if (child == 0) {
        unsigned long pages = 0;
        std::ifstream("/proc/self/statm") >> pages;
        const rlim_t limit = pages * static_cast<unsigned long>(::sysconf(_SC_PAGESIZE)) + budget;
        const rlimit both = {limit, limit};
        ::setrlimit(RLIMIT_AS, &both);
        try {
            work();
        } catch (const gf::file_error&) {
        } catch (...) {
            ::_exit(1);
        }
        ::_exit(0);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(golden)
BOOST_AUTO_TEST_SUITE(hostile)

BOOST_AUTO_TEST_CASE(safetensors_verdicts) {
    const std::string folder = golden_path("hostile/safetensors");
    if (folder.empty()) return;
    const auto verdicts = gf::open_file(folder + "/verdicts.json");
    const auto document = gf::parse_json(verdicts.text(), "verdicts.json");
    int judged = 0;
    for (const auto& [name, verdict] : document.root().members()) {
        const std::string file = folder + "/" + std::string(name);
        const std::string_view expected = verdict.find("expect").string();
        // Where spec_differs is set, `expect` already is the verdict of the specification; the reference is laxer.
        const gf::json_value differs = verdict.find("spec_differs");
        if (!differs || !differs.boolean()) BOOST_TEST(verdict.find("reference").string() == expected);
        std::string why;
        const bool accepted = accepts(slurp(file), &why);
        BOOST_TEST_CONTEXT(name << " (" << verdict.find("why").string() << "): " << why) {
            if (expected != "either") BOOST_TEST(accepted == (expected == "accept"));
        }
        // The mapped file gives the same answer as the one in memory.
        bool mapped = true;
        try {
            use(gf::safetensors_file::open(file));
        } catch (const gf::file_error& error) {
            mapped = false;
            BOOST_TEST(std::string_view(error.what()).starts_with(file + ": "));
        }
        BOOST_TEST(mapped == accepted, name);
        ++judged;
    }
    std::size_t files = 0;
    for (const auto& entry : fs::directory_iterator(folder)) files += entry.path().extension() == ".safetensors";
    BOOST_TEST(static_cast<std::size_t>(judged) == files);
    BOOST_TEST(judged >= 47);
}

BOOST_AUTO_TEST_CASE(memory_is_a_small_multiple_of_the_file) {
#if defined(GATEFOLD_TEST_SANITISED)
    BOOST_TEST_MESSAGE("skipped: address space cannot be limited under AddressSanitizer");
#else
    // An allocator may ask for up to a megabyte more than it needs.
    const auto budget = [](std::size_t bytes, std::size_t multiple) {
        return bytes * multiple + (std::size_t{2} << 20);
    };
    const auto opens_in = [&](std::vector<std::byte> bytes, std::size_t multiple) {
        const std::size_t room = budget(bytes.size(), multiple);
        return fits_in(room, [&] { gf::safetensors_file::from_bytes(gf::file_bytes(std::move(bytes)), "f"); });
    };
    BOOST_TEST(!fits_in(std::size_t{1} << 20, [] { std::vector<char> too_much(std::size_t{1} << 30, 'x'); }));
    const std::string folder = golden_path("hostile/safetensors");
    if (!folder.empty())
        for (const auto& entry : fs::directory_iterator(folder))
            if (entry.path().extension() == ".safetensors")
                BOOST_TEST(opens_in(slurp(entry.path().string()), 16), entry.path().filename());

    const std::size_t megabytes = std::size_t{8} << 20;
    std::string ones = "{\"a\":[1";
    while (ones.size() < megabytes) ones += ",1";
    BOOST_TEST(opens_in(with_length(ones + "]}", 0), 12));
    BOOST_TEST(opens_in(with_length(std::string(megabytes, '['), 0), 2));
    BOOST_TEST(opens_in(with_length(std::string(megabytes, ','), 0), 2));
    BOOST_TEST(opens_in(with_length("{\"" + std::string(megabytes, 'x') + "\":1}", 0), 4));
    std::string shape = R"({"a":{"dtype":"U8","data_offsets":[0,1],"shape":[1)";
    while (shape.size() < megabytes) shape += ",1";
    BOOST_TEST(opens_in(with_length(shape + "]}}", 1), 16));
    std::string metadata = R"({"__metadata__":{"":"")";
    while (metadata.size() < megabytes) metadata += ",\"\":\"\"";
    BOOST_TEST(opens_in(with_length(metadata + "}}", 0), 40));
    std::string tensors = "{";
    for (int i = 0; tensors.size() < megabytes; ++i)
        tensors += (i > 0 ? ",\"" : "\"") + std::to_string(i) + R"(":{"dtype":"U8","shape":[],"data_offsets":[0,0]})";
    BOOST_TEST(opens_in(with_length(tensors + "}", 0), 16));
#endif
}

BOOST_AUTO_TEST_CASE(damaged_files_never_crash_the_reader) {
    std::vector<std::vector<std::byte>> seeds;
    seeds.push_back(with_length(
        R"({"__metadata__":{"format":"pt","\u00e9\ud83d\ude00":"\n"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
        R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"e":{"dtype":"F64","shape":[0,5],"data_offsets":[32,32]},)"
        R"("q":{"dtype":"F8_E4M3","shape":[3,1],"data_offsets":[32,35]},"n":{"dtype":"F4","shape":[2],"data_offsets":[35,36]}})",
        36));
    if (const std::string folder = golden_path("hostile/safetensors"); !folder.empty())
        for (const char* name :
             {"ok_every_dtype", "ok_unsorted_names", "ok_empty_tensor", "odd_duplicate_metadata_key"})
            seeds.push_back(slurp(folder + "/" + name + ".safetensors"));
    for (const auto& seed : seeds) BOOST_REQUIRE(accepts(seed));

    constexpr std::string_view pieces[] = {"\"",
                                           "{",
                                           "}",
                                           "[",
                                           "]",
                                           ",",
                                           ":",
                                           "\\",
                                           "\\u",
                                           "\\ud800",
                                           "0",
                                           "9",
                                           "-",
                                           "1e9",
                                           ".",
                                           "null",
                                           "18446744073709551615",
                                           "4294967296",
                                           "9223372036854775807",
                                           "\xff",
                                           "\xc3",
                                           "\"dtype\"",
                                           "\"shape\"",
                                           "\"data_offsets\"",
                                           "F64",
                                           "BOOL",
                                           " ",
                                           "\t"};
    generator random{20};
    int accepted = 0, runs = 0;
    for (int round = 0; round < 6000; ++round) {
        std::vector<std::byte> bytes = seeds[random.below(seeds.size())];
        const auto at = [&] { return bytes.begin() + static_cast<std::ptrdiff_t>(random.below(bytes.size())); };
        for (std::size_t changes = 1 + random.below(3); changes > 0 && !bytes.empty(); --changes)
            switch (random.below(7)) {
                case 0:
                    *at() ^= static_cast<std::byte>(1u << random.below(8));
                    break;
                case 1:
                    *at() = static_cast<std::byte>(random.below(256));
                    break;
                case 2:
                    bytes.resize(random.below(bytes.size() + 1));
                    break;
                case 3:
                    bytes.resize(bytes.size() + random.below(20));
                    break;
                case 4:
                    bytes.erase(at());
                    break;
                case 5: {
                    const std::string_view piece = pieces[random.below(std::size(pieces))];
                    const auto text = std::as_bytes(std::span(piece));
                    bytes.insert(at(), text.begin(), text.end());
                    break;
                }
                case 6: {
                    const std::string_view piece = pieces[random.below(std::size(pieces))];
                    const std::size_t start = random.below(bytes.size());
                    std::memcpy(bytes.data() + start, piece.data(), (std::min)(piece.size(), bytes.size() - start));
                    break;
                }
                default:
                    break;
            }
        // Half of the time the header length follows the damage, so that the parser sees it.
        if (bytes.size() >= 8 && random.below(2) == 0) {
            const std::size_t data = random.below(2) == 0 ? 36 : 0;
            const std::uint64_t length = bytes.size() - 8 > data ? bytes.size() - 8 - data : 0;
            std::memcpy(bytes.data(), &length, 8);
        }
        accepted += accepts(std::move(bytes)) ? 1 : 0;
        ++runs;
    }
    BOOST_TEST_MESSAGE(runs << " damaged files, " << accepted << " of them still well-formed");
    BOOST_TEST(accepted > 0);
    BOOST_TEST(accepted < runs / 2);
}

BOOST_AUTO_TEST_CASE(every_truncation_is_refused) {
    const auto whole = with_length(
        R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"e":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}})",
        8);
    BOOST_TEST(accepts(whole));
    for (std::size_t size = 0; size < whole.size(); ++size)
        if (accepts({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}))
            BOOST_ERROR("accepted " << size << " bytes");
}

BOOST_AUTO_TEST_CASE(damaged_json_never_crashes_the_parser) {
    const std::string seed =
        R"({"a":[1,-2.5e3,"x\u00e9\ud83d\ude00\n",true,false,null,{"b":{}},[]],"weight_map":{"w":"model.safetensors"}} )";
    generator random{7};
    int accepted = 0;
    for (int round = 0; round < 20000; ++round) {
        std::string text = seed;
        for (std::size_t changes = 1 + random.below(3); changes > 0 && !text.empty(); --changes) {
            const std::size_t at = random.below(text.size());
            switch (random.below(4)) {
                case 0:
                    text[at] = static_cast<char>(random.below(256));
                    break;
                case 1:
                    text.erase(at, 1 + random.below(4));
                    break;
                case 2:
                    text.insert(at, text.substr(random.below(text.size()), random.below(8)));
                    break;
                default:
                    text.resize(at);
                    break;
            }
        }
        try {
            // An exact heap copy: reading one byte too far is seen by AddressSanitizer.
            const std::vector<char> exact(text.begin(), text.end());
            const auto document = gf::parse_json({exact.data(), exact.size()});
            accepted += document.root() ? 1 : 0;
        } catch (const gf::file_error&) {
        }
    }
    BOOST_TEST(accepted > 0);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
