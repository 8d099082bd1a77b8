// The JSON reader and writer: what they accept, what they say about the rest, and how much memory they take.
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <boost/test/unit_test.hpp>

#include <gatefold/io/json.hpp>
#include <gatefold/io/json_writer.hpp>

namespace gf = gatefold;
using namespace std::string_literals;

namespace {

/// The message of the error parsing `text` ends in, or "" if it parses.
std::string message_of(std::string_view text, const gf::json_options& options = {}) {
    try {
        gf::parse_json(text, "t", options);
    } catch (const gf::file_error& error) {
        return error.what();
    }
    return "";
}

bool parses(std::string_view text) { return message_of(text).empty(); }

}  // namespace

BOOST_AUTO_TEST_SUITE(unit)
BOOST_AUTO_TEST_SUITE(json)

BOOST_AUTO_TEST_CASE(walks_every_kind_of_value) {
    const auto document = gf::parse_json(
        R"( { "a" : [ 1, -2, 3.5, true, false, null, "x" ], "empty" : {}, "none" : [], "deep" : { "b" : [ [ ], { } ] } } )");
    const gf::json_value root = document.root();
    BOOST_REQUIRE(root.is(gf::json_kind::object));
    BOOST_TEST(root.size() == 4u);
    std::vector<std::string> kinds;
    for (const gf::json_value element : root.find("a").elements()) kinds.emplace_back(element.kind_name());
    const std::vector<std::string> expected = {
        "an integer", "a negative integer", "a number", "true or false", "true or false", "null", "a string"};
    BOOST_TEST(kinds == expected, boost::test_tools::per_element());
    std::string names;
    for (const auto& [name, value] : root.members())
        names += std::string(name) + ":" + std::to_string(value.size()) + " ";
    BOOST_TEST(names == "a:7 empty:0 none:0 deep:1 ");
    BOOST_TEST(root.find("deep").find("b").size() == 2u);
    BOOST_TEST(!root.find("absent"));
    BOOST_TEST(!root.find("a").find("no object"));
    BOOST_TEST(!root.find("absent").find("nothing inside nothing"));
}

BOOST_AUTO_TEST_CASE(values_survive_a_moved_document) {
    auto first = gf::parse_json(R"(["short"])");
    const gf::json_value value = *first.root().elements().begin();
    const auto second = std::move(first);
    BOOST_TEST(value.string() == "short");
}

BOOST_AUTO_TEST_CASE(integers_are_exact_and_never_rounded_silently) {
    const auto document = gf::parse_json(
        "[18446744073709551615, 18446744073709551616, 9223372036854775807, 9223372036854775808, -9223372036854775808, "
        "-9223372036854775809, 0, -0, 1.0, 1e2, -1]");
    std::vector<gf::json_value> v;
    for (const auto element : document.root().elements()) v.push_back(element);
    BOOST_TEST(v[0].unsigned_integer().value() == std::numeric_limits<std::uint64_t>::max());
    BOOST_TEST(!v[0].signed_integer());
    BOOST_TEST(!v[1].unsigned_integer());
    BOOST_TEST(v[1].number() == 18446744073709551616.0);
    BOOST_TEST(v[2].signed_integer().value() == std::numeric_limits<std::int64_t>::max());
    BOOST_TEST(!v[3].signed_integer());
    BOOST_TEST(v[4].signed_integer().value() == std::numeric_limits<std::int64_t>::min());
    BOOST_TEST(!v[4].unsigned_integer());
    BOOST_TEST(v[4].number() == -9223372036854775808.0);
    BOOST_TEST(!v[5].signed_integer());
    BOOST_TEST(v[6].unsigned_integer().value() == 0u);
    BOOST_TEST(v[7].unsigned_integer().value() == 0u);
    BOOST_TEST(!v[8].unsigned_integer());
    BOOST_TEST(!v[9].unsigned_integer());
    BOOST_TEST(v[9].number() == 100.0);
    BOOST_TEST(v[10].signed_integer().value() == -1);
}

BOOST_AUTO_TEST_CASE(numbers_follow_the_grammar) {
    for (const char* good :
         {"0", "-0", "10", "1.5", "1e5", "1E+5", "1.25e-3", "-0.0", "0e0", "123456789012345678901234567890"})
        BOOST_TEST(parses(good), good);
    for (const char* bad : {"", "-", "01", "+1", ".5", "1.", "1e", "1e+", "0x1", "NaN", "Infinity", "-Infinity", "1,",
                            "1 2", "--1", "1.e5", "1e5.5"})
        BOOST_TEST(!parses(bad), bad);
    BOOST_TEST(gf::parse_json("0.1").root().number() == 0.1);
    BOOST_TEST(gf::parse_json("2.2250738585072014e-308").root().number() == std::numeric_limits<double>::min());
    BOOST_TEST(gf::parse_json("5e-324").root().number() == std::numeric_limits<double>::denorm_min());
    BOOST_TEST(gf::parse_json("0.0001e-400").root().number() == 0.0);
    BOOST_TEST(std::signbit(gf::parse_json("-1e-400").root().number()));
    BOOST_TEST(message_of("[1e400]") == "t: byte 1: a number beyond the range of double");
    BOOST_TEST(!parses("0.00001e400"));
    BOOST_TEST(!parses("1" + std::string(400, '0')));
    BOOST_TEST(parses("0." + std::string(400, '0') + "1"));
    BOOST_TEST(gf::parse_json("0." + std::string(400, '0') + "1e401").root().number() == 1.0);
    BOOST_TEST(!parses("1e99999999999999999999999"));
    BOOST_TEST(parses("1e-99999999999999999999999"));
    BOOST_TEST(parses("0e99999999999999999999999"));
}

BOOST_AUTO_TEST_CASE(strings_are_decoded) {
    const auto text = [](std::string_view json) { return std::string(gf::parse_json(json).root().string()); };
    BOOST_TEST(text(R"("\"\\\/\b\f\n\r\t")") == "\"\\/\b\f\n\r\t");
    BOOST_TEST(text(R"("\u0041\u00e9\u20AC\ud83d\ude00z")") == "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z");
    BOOST_TEST(text(R"("\u0000")") == "\0"s);
    BOOST_TEST(text("\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"") == "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    BOOST_TEST(text("\"\x7f\"") == "\x7f");
    BOOST_TEST(gf::parse_json(R"({"\u0061":1})").root().find("a").unsigned_integer().value() == 1u);
    for (const char* bad : {R"("\x")", R"("\u12")", R"("\u12g4")", R"("\ud800")", R"("\udc00")", R"("\udc00\udc00")",
                            R"("\ud800\ud800")", R"("\ud800\u0041")", R"("\ud800\n")", R"("\ud800x")", R"(")", R"("\)",
                            R"("\u)", "\"\n\"", "\"\x01\"", R"('a')"})
        BOOST_TEST(!parses(bad), bad);
    BOOST_TEST(!parses("\"\0\""s));
    BOOST_TEST(!parses("\"\\\0\""s));
}

BOOST_AUTO_TEST_CASE(text_must_be_utf8) {
    for (const char* good : {"\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xf0\x90\x80\x80",
                             "\xf4\x8f\xbf\xbf"})
        BOOST_TEST(parses("\"" + std::string(good) + "\""));
    for (const char* bad :
         {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
          "\xf5\x80\x80\x80", "\xff", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc3x"})
        BOOST_TEST(!parses("\"" + std::string(bad) + "\""));
    BOOST_TEST(message_of("\"ab\xff\"") == "t: byte 3: not UTF-8");
    BOOST_TEST(message_of("\xef\xbb\xbf{}") == "t: byte 0: expected a value, got byte 0xef");
}

BOOST_AUTO_TEST_CASE(every_code_point_survives_its_escape) {
    for (std::uint32_t code = 0; code < 0x110000; code += code < 0x900 ? 1 : 61) {
        if (code >= 0xd800 && code < 0xe000) continue;
        char utf8[4];
        const std::string_view expected(utf8, gf::utf8_encode(code, utf8));
        char escape[24];
        if (code < 0x10000)
            std::snprintf(escape, sizeof escape, "\"\\u%04x\"", code);
        else
            std::snprintf(escape, sizeof escape, "\"\\u%04x\\u%04x\"", 0xd800u + ((code - 0x10000u) >> 10),
                          0xdc00u + ((code - 0x10000u) & 0x3ffu));
        const auto document = gf::parse_json(escape);
        if (document.root().string() != expected || !gf::is_utf8(expected)) BOOST_ERROR("code point " << code);
    }
}

BOOST_AUTO_TEST_CASE(errors_name_the_byte) {
    BOOST_TEST(message_of("") == "t: byte 0: expected a value, got the end of the text");
    BOOST_TEST(message_of("{nonsense}") == "t: byte 1: expected a name in quotes, got 'n'");
    BOOST_TEST(message_of(R"({"a" 1})") == "t: byte 5: expected ':', got '1'");
    BOOST_TEST(message_of(R"({"a":1,})") == "t: byte 7: expected a name in quotes, got '}'");
    BOOST_TEST(message_of(R"({"a":1)") == "t: byte 6: expected ',' or '}', got the end of the text");
    BOOST_TEST(message_of("[1 2]") == "t: byte 3: expected ',' or ']', got '2'");
    BOOST_TEST(message_of("[1,]") == "t: byte 3: expected a value, got ']'");
    BOOST_TEST(message_of("{}x") == "t: byte 2: expected the end of the text, got 'x'");
    BOOST_TEST(message_of("truE") == "t: byte 0: expected a value, got 't'");
    BOOST_TEST(message_of("// no comments\n1") == "t: byte 0: expected a value, got '/'");
    BOOST_TEST(message_of("{}\0"s) == "t: byte 2: expected the end of the text, got byte 0x00");
}

BOOST_AUTO_TEST_CASE(duplicates_are_found_also_behind_escapes) {
    BOOST_TEST(message_of(R"({"a":1,"b":2,"\u0061":3})") == R"(t: byte 0: the name "a" stands twice in this object)");
    BOOST_TEST(message_of(R"([{"x":{"":1,"":2}}])") == R"(t: byte 6: the name "" stands twice in this object)");
    BOOST_TEST(parses(R"([{"a":1},{"a":{"a":1}}])"));
    const auto document = gf::parse_json(R"({"a":1,"a":2})", "t", {.duplicates = gf::json_duplicates::accept});
    BOOST_TEST(document.root().find("a").unsigned_integer().value() == 2u);
    std::string many = "{";
    for (int i = 0; i < 20000; ++i) many += "\"name" + std::to_string(i) + "\":0,";
    BOOST_TEST(parses(many + "\"last\":0}"));
    BOOST_TEST(!parses(many + "\"name777\":0}"));
}

BOOST_AUTO_TEST_CASE(depth_is_bounded) {
    const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
    BOOST_TEST(parses(nested(129)));
    BOOST_TEST(message_of(nested(130)) == "t: byte 129: more than 128 levels deep");
    BOOST_TEST(!parses(std::string(10'000'000, '[')));
    BOOST_TEST(!message_of("[[]]", {.max_depth = 0}).empty());
}

BOOST_AUTO_TEST_CASE(a_wrong_kind_is_an_argument_error) {
    const auto document = gf::parse_json(R"([1])");
    BOOST_CHECK_EXCEPTION(document.root().string(), gf::argument_error, [](const auto& e) {
        return std::string(e.what()) == "gatefold::json_value::string: value: expected a string, got an array";
    });
    BOOST_CHECK_THROW(document.root().members(), gf::argument_error);
    BOOST_CHECK_THROW(document.root().number(), gf::argument_error);
    BOOST_CHECK_THROW(gf::json_value().boolean(), gf::argument_error);
    BOOST_CHECK_THROW(gf::json_value().elements(), gf::argument_error);
    BOOST_CHECK_THROW(gf::json_value().size(), gf::argument_error);
}

BOOST_AUTO_TEST_CASE(writer_and_reader_agree) {
    for (const int indent : {0, 2}) {
        gf::json_writer w(indent);
        w.begin_object()
            .member("text", "a\"\\\n\x01\xc3\xa9")
            .member("flag", true)
            .member("count", std::uint64_t{1} << 63);
        w.key("list").begin_array().value(-1).value(0.1).value(1e300).null().begin_array().end_array().end_array();
        w.key("empty").begin_object().end_object().member("nan", std::nan("")).member("single", 0.1f).end_object();
        const auto document = gf::parse_json(w.text());
        const gf::json_value root = document.root();
        BOOST_TEST(root.find("text").string() == "a\"\\\n\x01\xc3\xa9");
        BOOST_TEST(root.find("flag").boolean());
        BOOST_TEST(root.find("count").unsigned_integer().value() == std::uint64_t{1} << 63);
        BOOST_TEST(root.find("list").size() == 5u);
        BOOST_TEST(root.find("nan").is(gf::json_kind::null));
        BOOST_TEST(static_cast<float>(root.find("single").number()) == 0.1f);
        if (indent == 0)
            BOOST_TEST(w.text() ==
                       "{\"text\":\"a\\\"\\\\\\n\\u0001\xc3\xa9\",\"flag\":true,\"count\":9223372036854775808,"
                       "\"list\":[-1,0.1,1e+300,null,[]],\"empty\":{},\"nan\":null,\"single\":0.1}");
        else
            BOOST_TEST(w.text().starts_with("{\n  \"text\": "));
    }
}

BOOST_AUTO_TEST_CASE(the_writer_always_writes_utf8) {
    gf::json_writer w;
    w.value(std::string_view("a\xff\xed\xa0\x80z\xc3"));
    BOOST_TEST(gf::is_utf8(w.text()));
    BOOST_TEST(gf::parse_json(w.text()).root().string() ==
               "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\xef\xbf\xbd");
}

BOOST_AUTO_TEST_CASE(the_writer_refuses_what_is_no_json) {
    BOOST_CHECK_THROW(gf::json_writer().key("a"), gf::argument_error);
    BOOST_CHECK_THROW(gf::json_writer().text(), gf::argument_error);
    BOOST_CHECK_THROW(gf::json_writer().begin_object().value(1), gf::argument_error);
    BOOST_CHECK_THROW(gf::json_writer().begin_object().end_array(), gf::argument_error);
    BOOST_CHECK_THROW(gf::json_writer().begin_object().key("a").end_object(), gf::argument_error);
    BOOST_CHECK_THROW(gf::json_writer().begin_object().key("a").key("b"), gf::argument_error);
    BOOST_CHECK_THROW(gf::json_writer().value(1).value(2), gf::argument_error);
    BOOST_CHECK_THROW(gf::json_writer().begin_array().text(), gf::argument_error);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
