// A checkpoint survives the death of its writer: a child replaces one file again and again and is killed at random
// moments; what is found there is always one complete generation, never older than the last one the child reported.
// ctest: timeout=120
#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <boost/test/unit_test.hpp>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <gatefold/io/safetensors.hpp>
#include <gatefold/io/safetensors_writer.hpp>

namespace gf = gatefold;
namespace fs = std::filesystem;

namespace {

constexpr int tensors = 12;

/// What the child tells the parent; it outlives the child.
struct progress {
    volatile std::int64_t begun, finished;
};

std::size_t size_of(int tensor) { return static_cast<std::size_t>(1 + tensor * tensor * 700); }

/// Every value depends on the generation, so that a mixture of two is seen.
float value_of(std::int64_t generation, int tensor, std::size_t i) {
    return static_cast<float>(
        (static_cast<std::uint64_t>(generation) * 7919 + static_cast<std::uint64_t>(tensor) * 104729 + i) % 65521);
}

void write_generation(const std::string& path, std::int64_t generation) {
    std::vector<std::vector<float>> data(tensors);
    gf::safetensors_writer writer;
    for (int t = 0; t < tensors; ++t) {
        auto& values = data[static_cast<std::size_t>(t)];
        for (std::size_t i = 0; i < size_of(t); ++i) values.push_back(value_of(generation, t, i));
        writer.add("tensor." + std::to_string(t), std::span<const float>(values),
                   {static_cast<gf::index_t>(values.size())});
    }
    writer.write(path, {{"generation", std::to_string(generation)}});
}

/// The generation the file holds; every value of it is checked.
std::int64_t read_generation(const std::string& path) {
    const auto file = gf::safetensors_file::open(path);
    const std::int64_t generation = std::stoll(*file.find_metadata("generation"));
    BOOST_TEST(file.tensors().size() == static_cast<std::size_t>(tensors));
    for (int t = 0; t < tensors; ++t) {
        std::vector<float> values(size_of(t));
        file.read<float>("tensor." + std::to_string(t), values, {static_cast<gf::index_t>(values.size())});
        for (std::size_t i = 0; i < values.size(); ++i)
            if (values[i] != value_of(generation, t, i)) {
                BOOST_ERROR("generation " << generation << ", tensor " << t << ", element " << i);
                return generation;
            }
    }
    return generation;
}

std::uint64_t microseconds() {
    timespec now = {};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1000000 + static_cast<std::uint64_t>(now.tv_nsec) / 1000;
}

void pause(std::uint64_t duration) {
    const timespec time = {0, static_cast<long>(duration * 1000)};
    ::nanosleep(&time, nullptr);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(property)
BOOST_AUTO_TEST_SUITE(checkpoint_kill)

BOOST_AUTO_TEST_CASE(the_old_or_the_new_file_is_always_there) {
    std::string folder = (fs::temp_directory_path() / "gatefold_kill_XXXXXX").string();
    BOOST_REQUIRE(::mkdtemp(folder.data()) != nullptr);
    const std::string path = folder + "/model.safetensors";
    void* shared = ::mmap(nullptr, sizeof(progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    BOOST_REQUIRE(shared != MAP_FAILED);
    auto* const state = static_cast<progress*>(shared);

    std::int64_t generation = 1;
    const std::uint64_t start = microseconds();
    write_generation(path, generation);
    const std::uint64_t duration = std::clamp<std::uint64_t>(microseconds() - start, 1000, 100000);
    int killed_while_writing = 0, half_written = 0, advanced = 0;
    std::uint64_t random = 12345;
    for (int round = 0; round < 120; ++round) {
        state->begun = generation;
        state->finished = generation;
        const pid_t child = ::fork();
        BOOST_REQUIRE(child >= 0);
        if (child == 0) {
            ::alarm(60);  // should the parent be gone
            try {
                for (std::int64_t next = generation + 1;; ++next) {
                    state->begun = next;
                    write_generation(path, next);
                    state->finished = next;
                }
            } catch (...) {
            }
            ::_exit(1);
        }
        random = random * 6364136223846793005u + 1442695040888963407u;
        pause((random >> 33) % (4 * duration));
        ::kill(child, SIGKILL);
        int status = 0;
        ::waitpid(child, &status, 0);
        BOOST_REQUIRE((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));

        const std::int64_t found = read_generation(path);
        BOOST_TEST(found >= state->finished);
        BOOST_TEST(found <= state->begun);
        killed_while_writing += state->begun != state->finished ? 1 : 0;
        advanced += found > generation ? 1 : 0;
        generation = found;
        // Nothing piles up: beside the checkpoint there is at most the one file the child was writing.
        const auto files = std::distance(fs::directory_iterator(folder), fs::directory_iterator());
        BOOST_TEST(files <= 2);
        half_written += files == 2 ? 1 : 0;
    }
    BOOST_TEST_MESSAGE(killed_while_writing << " of 120 children died in a generation, " << half_written
                                            << " left half a file; last generation " << generation);
    BOOST_TEST(killed_while_writing > 20);
    BOOST_TEST(half_written > 0);
    BOOST_TEST(advanced > 0);

    // The next writer takes over what the last killed one left.
    write_generation(path, generation + 1);
    BOOST_TEST(read_generation(path) == generation + 1);
    BOOST_TEST(std::distance(fs::directory_iterator(folder), fs::directory_iterator()) == 1);
    ::munmap(shared, sizeof(progress));
    fs::remove_all(folder);
}

BOOST_AUTO_TEST_CASE(writers_of_one_file_never_mix) {
    std::string folder = (fs::temp_directory_path() / "gatefold_kill_XXXXXX").string();
    BOOST_REQUIRE(::mkdtemp(folder.data()) != nullptr);
    const std::string path = folder + "/model";
    // A text of one letter and a length that belongs to it: a mixture of two writers cannot look like that.
    const auto text_of = [](int letter) {
        return std::string(static_cast<std::size_t>(1000 + 3000 * letter), static_cast<char>('a' + letter));
    };
    gf::write_file(path, text_of(0));
    constexpr int writers = 4;
    pid_t children[writers] = {};
    for (int w = 0; w < writers; ++w) {
        children[w] = ::fork();
        BOOST_REQUIRE(children[w] >= 0);
        if (children[w] > 0) continue;
        ::alarm(60);
        try {
            for (int i = 0; i < 150; ++i) gf::write_file(path, text_of(w));
            ::_exit(0);
        } catch (...) {
            ::_exit(1);
        }
    }
    const auto check = [&] {
        const gf::file_bytes file = gf::open_file(path);
        const int letter = file.text().empty() ? 0 : file.text()[0] - 'a';
        if (letter < 0 || letter >= writers || file.text() != text_of(letter))
            BOOST_ERROR("a file of " << file.text().size());
    };
    int running = writers, status = 0;
    while (running > 0) {
        check();
        if (::waitpid(-1, &status, WNOHANG) <= 0) continue;
        --running;
        BOOST_TEST((WIFEXITED(status) && WEXITSTATUS(status) == 0));
    }
    check();
    BOOST_TEST(std::distance(fs::directory_iterator(folder), fs::directory_iterator()) == 1);
    fs::remove_all(folder);
}

BOOST_AUTO_TEST_SUITE_END()
BOOST_AUTO_TEST_SUITE_END()
