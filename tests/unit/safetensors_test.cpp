// The safetensors reader and writer, the conversions between element types, and the file that is replaced as a whole.
#include <array>
#include <bit>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <boost/test/unit_test.hpp>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gatefold/io/checkpoint.hpp>
#include <gatefold/io/safetensors.hpp>
#include <gatefold/io/safetensors_writer.hpp>
#include <gatefold/io/small_floats.hpp>

namespace gf = gatefold;
namespace fs = std::filesystem;

namespace {

/// A folder that is gone when the test is over.
struct temporary_folder {
    temporary_folder() {
        std::string name = (fs::temp_directory_path() / "gatefold_XXXXXX").string();
        path = ::mkdtemp(name.data()) == nullptr ? "" : name;
        BOOST_REQUIRE(!path.empty());
    }
    temporary_folder(const temporary_folder&) = delete;
    temporary_folder& operator=(const temporary_folder&) = delete;
    ~temporary_folder() { fs::remove_all(path); }
    std::string operator/(const std::string& name) const { return path + "/" + name; }
    std::size_t files() const {
        return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
    }
    std::string path;
};

std::vector<std::byte> file_of(std::string_view header, std::size_t data_bytes) {
    std::vector<std::byte> all(8 + header.size() + data_bytes);
    const std::uint64_t length = header.size();
    std::memcpy(all.data(), &length, 8);
    std::memcpy(all.data() + 8, header.data(), header.size());
    for (std::size_t i = 0; i < data_bytes; ++i) all[8 + header.size() + i] = static_cast<std::byte>(i + 1);
    return all;
}

gf::safetensors_file parse(std::string_view header, std::size_t data_bytes) {
    return gf::safetensors_file::from_bytes(gf::file_bytes(file_of(header, data_bytes)), "f");
}

template <class Call>
std::string message_of(Call call) {
    try {
        call();
    } catch (const std::exception& error) {
        return error.what();
    }
    return "";
}

std::string slurp(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

template <class T, std::size_t N>
gf::safetensors_file one_tensor(const std::array<T, N>& values) {
    gf::safetensors_writer writer;
    writer.add("t", std::span<const T>(values), {static_cast<gf::index_t>(N)});
    return gf::safetensors_file::from_bytes(gf::file_bytes(writer.serialise()), "f");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(safetensors)

BOOST_AUTO_TEST_CASE(written_bytes_are_those_of_the_reference_writer) {
    const std::array<float, 2> f = {1, 2};
    const std::array<std::int64_t, 1> i = {-1};
    const std::array<std::uint8_t, 3> u = {7, 8, 9};
    gf::safetensors_writer writer;
    writer.add("b", std::span(u), {3});
    writer.add("z", std::span(f), {1, 2});
    writer.add("a\"", std::span(f), {2});
    writer.add("c", std::span(i), {});
    const auto bytes = writer.serialise({{"k2", "v"}, {"format", "pt"}});
    const std::string header =
        R"({"__metadata__":{"format":"pt","k2":"v"},"c":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
        R"("a\"":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"z":{"dtype":"F32","shape":[1,2],"data_offsets":[16,24]},)"
        R"("b":{"dtype":"U8","shape":[3],"data_offsets":[24,27]}})";
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    BOOST_TEST(length % 8 == 0u);
    BOOST_TEST(length - header.size() < 8u);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
    BOOST_TEST(text.substr(0, header.size()) == header);
    BOOST_TEST(text.substr(header.size()).find_first_not_of(' ') == std::string_view::npos);
    BOOST_TEST(bytes.size() == 8 + length + 27);

    gf::safetensors_writer other_order;
    other_order.add("c", std::span(i), {});
    other_order.add("a\"", std::span(f), {2});
    other_order.add("b", std::span(u), {3});
    other_order.add("z", std::span(f), {1, 2});
    BOOST_TEST((other_order.serialise({{"format", "pt"}, {"k2", "v"}}) == bytes));
}

BOOST_AUTO_TEST_CASE(what_is_written_is_read) {
    const temporary_folder folder;
    const std::array<float, 6> f = {1, -2, 3.5f, 0, -0.0f, 1e30f};
    const std::array<gf::bf16, 2> b = {gf::bf16(1.5f), gf::bf16(-3.0f)};
    const std::array<bool, 3> flags = {true, false, true};
    gf::safetensors_writer writer;
    writer.add("f", std::span(f), {2, 3});
    writer.add("b", std::span(b), {2});
    writer.add("", std::span(flags), {3, 1});
    writer.add("none", std::span<const float>(), {0, 7});
    writer.add("raw", gf::file_dtype::f4, std::as_bytes(std::span(b)), std::array<gf::index_t, 1>{8});
    writer.write(folder / "m.safetensors", {{"step", "12"}});
    BOOST_TEST(folder.files() == 1u);

    const auto file = gf::safetensors_file::open(folder / "m.safetensors");
    BOOST_TEST(file.tensors().size() == 5u);
    BOOST_TEST(*file.find_metadata("step") == "12");
    BOOST_TEST((file.find_metadata("absent") == nullptr));
    std::array<float, 6> f2 = {};
    file.read<float>("f", f2, {2, 3});
    BOOST_TEST((std::memcmp(f2.data(), f.data(), sizeof f) == 0));
    std::array<double, 2> d2 = {};
    file.read<double>("b", d2, {2});
    BOOST_TEST(d2 == (std::array<double, 2>{1.5, -3}), boost::test_tools::per_element());
    std::array<bool, 3> flags2 = {};
    file.read<bool>("", flags2, {3, 1});
    BOOST_TEST(flags2 == flags, boost::test_tools::per_element());
    file.read<float>("none", {}, {0, 7});
    BOOST_TEST((file.at("raw").type == gf::file_dtype::f4));
    BOOST_TEST(file.at("raw").bytes.size() == 4u);

    const auto moved = gf::safetensors_file(gf::safetensors_file::open(folder / "m.safetensors"));
    BOOST_TEST((std::memcmp(moved.at("f").bytes.data(), f.data(), sizeof f) == 0));
}

BOOST_AUTO_TEST_CASE(messages_name_file_tensor_expected_and_got) {
    const auto file = parse(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", 24);
    std::vector<float> out(6, -1.0f);
    const std::vector<float> before = out;
    BOOST_TEST(message_of([&] {
                   file.read<float>("a", out, {3, 2});
               }) == "f: tensor \"a\": expected shape [3, 2], got [2, 3]");
    BOOST_TEST(message_of([&] { file.read<float>("a", out, {6}); }) ==
               "f: tensor \"a\": expected shape [6], got [2, 3]");
    BOOST_TEST(message_of([&] { file.read<float>("b", out, {6}); }) ==
               "f: tensor \"b\": expected a tensor of this name, got none");
    std::vector<int> ids(6, 9);
    BOOST_TEST(message_of([&] {
                   file.read<int>("a", ids, {2, 3});
               }) == "f: tensor \"a\": expected a dtype that reads as I32, got F32");
    std::vector<float> five(5);
    BOOST_TEST(message_of([&] { file.read<float>("a", five, {2, 3}); }) == "gatefold::read: out: expected 6, got 5");
    BOOST_TEST(out == before, boost::test_tools::per_element());
    BOOST_CHECK_THROW(file.read<float>("a", out, {3, 2}), gf::file_error);
    BOOST_CHECK_THROW(file.read<float>("a", five, {2, 3}), gf::argument_error);
}

BOOST_AUTO_TEST_CASE(malformed_headers_are_refused_with_the_reason) {
    const auto what = [](std::string_view header, std::size_t bytes) {
        return message_of([&] { parse(header, bytes); });
    };
    const std::string ok = R"("a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]})";
    BOOST_TEST(what("{" + ok + "}", 2) == "");
    BOOST_TEST(what(" {" + ok + "}\n\t ", 2) == "");
    BOOST_TEST(what("{\"__metadata__\":null," + ok + "}", 2) == "");
    BOOST_TEST(what("{" + ok + "}", 3) == "f: expected 2 bytes of data, got 3");
    BOOST_TEST(what("{" + ok + "}", 1) ==
               "f: tensor \"a\": expected data_offsets inside the 1 bytes of data, got 0 to 2");
    BOOST_TEST(what("{" + ok + "," + ok + "}", 2) == "f: tensor \"a\": expected one entry of this name, got two");
    BOOST_TEST(what(R"({"__metadata__":{},"__metadata__":{}})", 0) ==
               "f: expected \"__metadata__\" once, got it twice");
    BOOST_TEST(what(R"({"a":{"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 2) ==
               "f: tensor \"a\": expected \"dtype\" once, got it twice");
    BOOST_TEST(
        what(
            R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}})",
            5) == "f: tensor \"b\": expected to begin at data byte 2 (no hole, no overlap), got 3");
    BOOST_TEST(what(R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,2]}})", 2) ==
               "f: tensor \"a\": expected 4 bytes (F16 [2]), got 2");
    BOOST_TEST(what(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2) ==
               "f: tensor \"a\": expected whole bytes, got 12 bits");
    BOOST_TEST(what(R"({"a":{"dtype":"U8","shape":[1099511627776,1099511627776,0],"data_offsets":[0,0]}})", 0) ==
               "f: tensor \"a\": expected a size below 2^64 bits, got a shape beyond it");
    BOOST_TEST(what(R"({"a":{"dtype":"U8","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0) ==
               "f: tensor \"a\": expected a size below 2^64 bits, got a shape beyond it");
    BOOST_TEST(what(R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,2]}})", 2) ==
               "f: tensor \"a\": expected \"shape\" to be an array, got an integer");
    BOOST_TEST(what(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2,2]}})", 2) ==
               "f: tensor \"a\": expected two data_offsets, got 3");
    BOOST_TEST(what("[]", 0) == "f: expected an object as header, got an array");
    BOOST_TEST(what("{\"a\":nonsense}", 0) == "f: header: byte 5: expected a value, got 'n'");
    BOOST_TEST(message_of([] { gf::safetensors_file::from_bytes(gf::file_bytes(std::vector<std::byte>(7)), "f"); }) ==
               "f: expected 8 bytes of header length, got a file of 7");
    auto short_file = file_of("{}", 1);
    short_file[0] = std::byte{4};
    BOOST_TEST(message_of([&] { gf::safetensors_file::from_bytes(gf::file_bytes(short_file), "f"); }) ==
               "f: expected a header of 4 bytes, got a file with 3");
    // A name of a megabyte does not become a message of a megabyte.
    BOOST_TEST(what("{\"" + std::string(1 << 20, 'n') + "\":1}", 0).size() < 300u);
}

BOOST_AUTO_TEST_CASE(names_are_found_among_many) {
    std::string header = "{";
    for (int i = 0; i < 3000; ++i) {
        const std::string at = std::to_string(i), next = std::to_string(i + 1);
        header += (i > 0 ? "," : "") + ("\"t" + at) + R"(":{"dtype":"U8","shape":[],"data_offsets":[)" + at + "," +
                  next + "]}";
    }
    const auto file = parse(header + "}", 3000);
    for (int i = 0; i < 3000; ++i) {
        std::uint8_t value = 0;
        file.read<std::uint8_t>("t" + std::to_string(i), {&value, 1}, {});
        if (value != static_cast<std::uint8_t>(i + 1)) BOOST_ERROR("tensor " << i);
    }
    BOOST_TEST((file.find("t3000") == nullptr));
    BOOST_TEST((file.find("") == nullptr));
}

BOOST_AUTO_TEST_CASE(dtype_names_and_sizes) {
    for (int i = 0; i <= static_cast<int>(gf::file_dtype::u64); ++i) {
        const auto type = static_cast<gf::file_dtype>(i);
        BOOST_TEST((gf::find_file_dtype(gf::name_of(type)) == type));
        BOOST_TEST((i == 0 || gf::bits_of(type) >= gf::bits_of(static_cast<gf::file_dtype>(i - 1)) || i <= 4));
    }
    BOOST_TEST(!gf::find_file_dtype("f32"));
    BOOST_TEST(!gf::find_file_dtype(""));
    static_assert(gf::file_dtype_of<float> == gf::file_dtype::f32 && gf::file_dtype_of<double> == gf::file_dtype::f64);
    static_assert(gf::file_dtype_of<long> == gf::file_dtype::i64 &&
                  gf::file_dtype_of<long long> == gf::file_dtype::i64);
    static_assert(gf::file_dtype_of<unsigned short> == gf::file_dtype::u16 &&
                  gf::file_dtype_of<bool> == gf::file_dtype::boolean);
    static_assert(gf::file_dtype_of<gf::bf16> == gf::file_dtype::bf16 &&
                  gf::file_dtype_of<gf::f16> == gf::file_dtype::f16);
    static_assert(!gf::storable<char> && !gf::storable<long double> && !gf::storable<void*>);
}

BOOST_AUTO_TEST_CASE(conversions_round_once) {
    // 1 + 2^-8 + 2^-40 lies above the tie of bf16; through float it would fall on it and go down to even.
    const double above_tie = 1.0 + 0x1p-8 + 0x1p-40;
    const auto file = one_tensor<double, 4>({above_tie, 1.0 + 0x1p-8, -65520.0, std::nan("")});
    std::array<gf::bf16, 4> b = {};
    file.read<gf::bf16>("t", b, {4});
    BOOST_TEST(static_cast<float>(b[0]) == 1.0f + 0x1p-7f);
    BOOST_TEST(static_cast<float>(b[1]) == 1.0f);
    BOOST_TEST(std::isnan(static_cast<float>(b[3])));
    std::array<gf::f16, 4> h = {};
    file.read<gf::f16>("t", h, {4});
    BOOST_TEST(std::isinf(static_cast<float>(h[2])));
    std::array<float, 4> f = {};
    file.read<float>("t", f, {4});
    BOOST_TEST(f[0] == 1.0f + 0x1p-8f);

    std::array<std::uint16_t, 4> halves = {0x3c00, 0x0001, 0xfbff, 0x8000};
    gf::safetensors_writer writer;
    writer.add("h", gf::file_dtype::f16, std::as_bytes(std::span(halves)), std::array<gf::index_t, 1>{4});
    const auto file16 = gf::safetensors_file::from_bytes(gf::file_bytes(writer.serialise()), "f");
    std::array<double, 4> d = {};
    file16.read<double>("h", d, {4});
    BOOST_TEST(d == (std::array<double, 4>{1, 0x1p-24, -65504, 0}), boost::test_tools::per_element());
    BOOST_TEST(std::signbit(d[3]));
}

BOOST_AUTO_TEST_CASE(a_nan_of_the_own_type_keeps_its_bits) {
    const auto file = one_tensor<float, 1>({std::bit_cast<float>(0x7fa12345u)});
    std::array<float, 1> out = {};
    file.read<float>("t", out, {1});
    BOOST_TEST(std::bit_cast<std::uint32_t>(out[0]) == 0x7fa12345u);
}

BOOST_AUTO_TEST_CASE(integers_are_never_truncated) {
    const auto file = one_tensor<std::int64_t, 3>({5, -1, std::int64_t{1} << 40});
    std::array<std::int64_t, 3> wide = {};
    file.read<std::int64_t>("t", wide, {3});
    BOOST_TEST(wide[2] == std::int64_t{1} << 40);
    std::array<std::int32_t, 3> narrow = {1, 2, 3};
    BOOST_TEST(message_of([&] { file.read<std::int32_t>("t", narrow, {3}); }) ==
               "f: tensor \"t\": expected values that fit I32, got another at element 2");
    BOOST_TEST(narrow[0] == 1);
    std::array<std::uint64_t, 3> sign = {};
    BOOST_CHECK_THROW(file.read<std::uint64_t>("t", sign, {3}), gf::file_error);
    std::array<float, 3> real = {};
    BOOST_CHECK_THROW(file.read<float>("t", real, {3}), gf::file_error);
    const auto small = one_tensor<std::int8_t, 2>({-128, 127});
    std::array<std::int32_t, 2> widened = {};
    small.read<std::int32_t>("t", widened, {2});
    BOOST_TEST(widened == (std::array<std::int32_t, 2>{-128, 127}), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(the_writer_checks_its_arguments) {
    const std::array<float, 4> f = {};
    gf::safetensors_writer writer;
    BOOST_CHECK_THROW(writer.add("a", std::span(f), {5}), gf::argument_error);
    BOOST_CHECK_THROW(writer.add("a", std::span(f), {-2, -2}), gf::argument_error);
    BOOST_CHECK_THROW(writer.add("\xff", std::span(f), {4}), gf::argument_error);
    BOOST_CHECK_THROW(writer.add("__metadata__", std::span(f), {4}), gf::argument_error);
    BOOST_CHECK_THROW(writer.add("a", std::span(f), {gf::index_t{1} << 40, gf::index_t{1} << 40, 4}),
                      gf::argument_error);
    BOOST_TEST(message_of([&] {
                   writer.add("a", std::span(f), {2, 3});
               }) == "gatefold::safetensors_writer::add: data: expected 24 bytes for \"a\" [2, 3], got 16");
    writer.add("a", std::span(f), {4});
    BOOST_CHECK_THROW(writer.serialise({{"k", "1"}, {"k", "2"}}), gf::argument_error);
    BOOST_CHECK_THROW(writer.serialise({{"k", "\xff"}}), gf::argument_error);
    writer.add("a", std::span(f), {2, 2});
    BOOST_CHECK_THROW(writer.serialise(), gf::argument_error);
}

BOOST_AUTO_TEST_CASE(a_file_that_cannot_be_opened_says_why) {
    const temporary_folder folder;
    BOOST_TEST(message_of([&] { gf::safetensors_file::open(folder / "absent"); }) ==
               (folder / "absent") + ": cannot be opened: No such file or directory");
    BOOST_TEST(message_of([&] { gf::safetensors_file::open(folder.path); }) ==
               folder.path + ": cannot be read: Is a directory");
    gf::safetensors_writer writer;
    BOOST_CHECK_THROW(writer.write(folder / "no/such/folder"), gf::file_error);
    BOOST_CHECK_THROW(writer.write(folder.path), gf::file_error);
    BOOST_CHECK_THROW(writer.write("/dev/null"), gf::file_error);
    BOOST_TEST(fs::is_character_file("/dev/null"));
    BOOST_TEST(folder.files() == 0u);
}

BOOST_AUTO_TEST_CASE(replacing_keeps_links_and_access_rights) {
    const temporary_folder folder;
    gf::write_file(folder / "real", "old");
    ::chmod((folder / "real").c_str(), 0640);
    fs::create_symlink(folder / "real", folder / "link");
    gf::write_file(folder / "link", "new");
    BOOST_TEST(fs::is_symlink(folder / "link"));
    BOOST_TEST(slurp(folder / "real") == "new");
    BOOST_TEST((fs::status(folder / "real").permissions() == static_cast<fs::perms>(0640)));
    BOOST_TEST(folder.files() == 2u);
    fs::create_symlink(folder / "nowhere", folder / "broken");
    BOOST_CHECK_THROW(gf::write_file(folder / "broken", "x"), gf::file_error);
}

BOOST_AUTO_TEST_CASE(without_commit_the_old_file_stays) {
    const temporary_folder folder;
    gf::write_file(folder / "f", "old");
    {
        gf::atomic_file file(folder / "f");
        file.append("half of it");
        BOOST_TEST(folder.files() == 2u);
    }
    BOOST_TEST(slurp(folder / "f") == "old");
    BOOST_TEST(folder.files() == 1u);
}

BOOST_AUTO_TEST_CASE(a_full_disk_leaves_the_old_file_and_no_litter) {
    const temporary_folder folder;
    gf::write_file(folder / "f", "old");
    const pid_t child = ::fork();
    BOOST_REQUIRE(child >= 0);
    if (child == 0) {
        // The limit on file sizes stands in for the end of the disk.
        std::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit = {10000, 10000};
        ::setrlimit(RLIMIT_FSIZE, &limit);
        const std::vector<float> big(100000);
        gf::safetensors_writer writer;
        writer.add("big", std::span(big), {100000});
        const std::string text = message_of([&] { writer.write(folder / "f"); });
        ::_exit(text == (folder / "f") + ": cannot be written: File too large" ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    BOOST_TEST((WIFEXITED(status) && WEXITSTATUS(status) == 0));
    BOOST_TEST(slurp(folder / "f") == "old");
    BOOST_TEST(folder.files() == 1u);
}

BOOST_AUTO_TEST_CASE(two_writers_do_not_disturb_each_other) {
    const temporary_folder folder;
    gf::atomic_file first(folder / "f"), second(folder / "f");
    first.append("first");
    second.append("second, longer");
    BOOST_TEST(folder.files() == 2u);
    second.commit();
    BOOST_TEST(slurp(folder / "f") == "second, longer");
    first.commit();
    BOOST_TEST(slurp(folder / "f") == "first");
    BOOST_TEST(folder.files() == 1u);
}

BOOST_AUTO_TEST_CASE(the_next_writer_takes_over_what_a_killed_one_left) {
    const temporary_folder folder;
    std::ofstream(folder / "f.tmp") << "a long half-written checkpoint of a process that is gone";
    gf::write_file(folder / "f", "new");
    BOOST_TEST(slurp(folder / "f") == "new");
    BOOST_TEST(folder.files() == 1u);
}

BOOST_AUTO_TEST_CASE(a_mapped_file_survives_its_replacement) {
    const temporary_folder folder;
    gf::write_file(folder / "f", "the old contents");
    const gf::file_bytes old = gf::open_file(folder / "f");
    gf::write_file(folder / "f", "new");
    BOOST_TEST(old.text() == "the old contents");
    BOOST_TEST(gf::open_file(folder / "f").text() == "new");
    gf::write_file(folder / "f", "");
    BOOST_TEST(gf::open_file(folder / "f").bytes().empty());
    BOOST_TEST(!gf::open_file("/proc/self/status").bytes().empty());
}

BOOST_AUTO_TEST_CASE(shards_are_one_checkpoint) {
    const temporary_folder folder;
    const std::array<float, 2> a = {1, 2}, b = {3, 4}, hidden = {5, 6};
    gf::safetensors_writer one, two;
    one.add("a", std::span(a), {2});
    two.add("b", std::span(b), {2});
    two.add("hidden", std::span(hidden), {2});
    one.write(folder / "1.safetensors");
    two.write(folder / "2.safetensors");
    const auto index = [&](const std::string& map) {
        gf::write_file(folder / "model.safetensors.index.json",
                       "{\"metadata\":{\"total_size\":16.0},\"weight_map\":" + map + "}");
        return message_of([&] { gf::checkpoint::open(folder.path); });
    };
    BOOST_TEST(index(R"({"b":"2.safetensors","a":"1.safetensors"})") == "");
    auto opened = gf::checkpoint::open(folder.path);
    const auto model = std::move(opened);
    BOOST_TEST(model.size() == 2u);
    BOOST_TEST(model[0].name == "a");
    BOOST_TEST((model.find("hidden") == nullptr));
    std::array<float, 2> out = {};
    model.read<float>("b", out, {2});
    BOOST_TEST(out == b, boost::test_tools::per_element());
    BOOST_TEST(message_of([&] {
                   model.read<float>("b", out, {1, 2});
               }) == (folder / "2.safetensors") + ": tensor \"b\": expected shape [1, 2], got [2]");

    const std::string path = folder / "model.safetensors.index.json";
    for (const char* evil : {"../x", "/etc/passwd", "..", ".", "", "a/b", "a\\\\b", "1.safetensors\\u0000"})
        BOOST_TEST(index(std::string(R"({"a":")") + evil + "\"}")
                       .find("expected the plain name of a file in the same folder") != std::string::npos);
    BOOST_TEST(index(R"({"c":"1.safetensors"})") ==
               path + ": tensor \"c\": expected it in " + (folder / "1.safetensors") + ", got no such tensor there");
    BOOST_TEST(index(R"({"a":"3.safetensors"})") ==
               (folder / "3.safetensors") + ": cannot be opened: No such file or directory");
    BOOST_TEST(index(R"({"a":1})") == path + ": tensor \"a\": expected the name of a file, got an integer");
    BOOST_TEST(index("[]") == path + ": expected \"weight_map\" to be an object, got an array");
    BOOST_TEST(index(R"({"a":"1.safetensors","a":"1.safetensors"})").find("stands twice") != std::string::npos);
    BOOST_TEST(index("{}") == "");
    BOOST_TEST(message_of([&] { gf::checkpoint::open(folder.path).read<float>("a", out, {2}); }) ==
               path + ": tensor \"a\": expected a tensor of this name, got none");
    const temporary_folder empty;
    BOOST_TEST(message_of([&] { gf::checkpoint::open(empty.path); }) ==
               empty.path + ": expected model.safetensors or model.safetensors.index.json, got neither");
    BOOST_TEST(message_of([&] { gf::checkpoint().read<float>("a", out, {2}); }) ==
               ": tensor \"a\": expected a tensor of this name, got none");
}

BOOST_AUTO_TEST_CASE(fp8_weights_are_never_read_without_their_scales) {
    const temporary_folder folder;
    // 130 × 200 codes of 1.0 (0x38): each block of 128 × 128 shows its scale.
    const std::vector<std::uint8_t> codes(130 * 200, 0x38);
    const std::array<float, 4> scales = {1, 2, 3, 4};
    const auto write = [&](gf::index_t rows, gf::index_t columns, bool with_scales) {
        gf::safetensors_writer writer;
        writer.add("w", gf::file_dtype::f8_e4m3, std::as_bytes(std::span(codes)), std::array{rows, columns});
        if (with_scales) writer.add("w_scale_inv", std::span(scales), {2, 2});
        writer.write(folder / "model.safetensors");
        return gf::checkpoint::open(folder.path);
    };
    std::vector<gf::bf16> out(codes.size());
    write(130, 200, true).read<gf::bf16>("w", out, {130, 200});
    bool right = true;
    for (std::size_t r = 0; r < 130; ++r)
        for (std::size_t c = 0; c < 200; ++c)
            right = right && static_cast<float>(out[r * 200 + c]) == scales[r / 128 * 2 + c / 128];
    BOOST_TEST(right);
    BOOST_TEST(message_of([&] {
                   write(130, 200, false).read<gf::bf16>("w", out, {130, 200});
               }).ends_with("tensor \"w\": expected its scales in \"w_scale_inv\", got no such tensor"));
    BOOST_TEST(message_of([&] {
                   write(65, 400, true).read<gf::bf16>("w", out, {65, 400});
               }).ends_with("tensor \"w_scale_inv\": expected shape [1, 4], got [2, 2]"));
    std::vector<float> values(codes.size(), 1.0f);
    gf::apply_block_scales(values, scales, 130, 200);
    BOOST_TEST(values[129 * 200 + 199] == 4.0f);
    BOOST_CHECK_THROW(gf::apply_block_scales(values, scales, 260, 100), gf::argument_error);
}

BOOST_AUTO_TEST_CASE(mxfp4_pairs_are_low_nibble_first) {
    std::array<std::byte, 16> block = {};
    block[0] = std::byte{0xa1};   // 0.5, -1
    block[15] = std::byte{0x7f};  // -6, 6
    const std::array<std::byte, 1> scale = {std::byte{128}};
    std::array<float, 32> values = {};
    gf::decode_mxfp4(block, scale, values);
    BOOST_TEST(values[0] == 1.0f);
    BOOST_TEST(values[1] == -2.0f);
    BOOST_TEST(values[30] == -12.0f);
    BOOST_TEST(values[31] == 12.0f);
    BOOST_CHECK_THROW(gf::decode_mxfp4(block, scale, std::span(values).first(31)), gf::argument_error);

    const temporary_folder folder;
    const std::vector<std::uint8_t> blocks(2 * 3 * 16, 0x22), scales(2 * 3, 127);
    gf::safetensors_writer writer;
    writer.add("w_blocks", std::span(blocks), {2, 3, 1, 16});
    writer.add("w_scales", std::span(scales), {2, 3, 1});
    writer.write(folder / "model.safetensors");
    const auto model = gf::checkpoint::open(folder.path);
    std::vector<float> out(2 * 3 * 32);
    BOOST_TEST(model.has_mxfp4("w"));
    model.read_mxfp4<float>("w", out, {2, 3, 32});
    BOOST_TEST(out == std::vector<float>(out.size(), 1.0f), boost::test_tools::per_element());
    BOOST_TEST(message_of([&] {
                   model.read_mxfp4<float>("w", out, {3, 2, 32});
               }).ends_with("tensor \"w_scales\": expected shape [3, 2, 1], got [2, 3, 1]"));
    BOOST_TEST(message_of([&] {
                   model.read<float>("w", out, {2, 3, 32});
               }).ends_with("only MXFP4 blocks (see read_mxfp4)"));
    BOOST_CHECK_THROW(model.read_mxfp4<float>("v", out, {2, 3, 32}), gf::file_error);
    BOOST_CHECK_THROW(model.read_mxfp4<float>("w", out, {2, 96}), gf::file_error);
    BOOST_CHECK_THROW(model.read_mxfp4<float>("w", out, {2, 3, 31}), gf::file_error);
    BOOST_CHECK_THROW(model.read_mxfp4<float>("w", out, {}), gf::file_error);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
