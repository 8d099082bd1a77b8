// The AMX kernels as the compiler made them, executed: by the unit of the machine or, where it has none, by
// tests/matrix_unit.
//
//     a product of tiles   = integers that follow the manual = the twin in plain code, whatever the shape and numbers
//     what must fault      faults
//     the expert stage     = the vector kernels, for every form of weights, number of rows and of threads
//     a system that refuses: nothing of the unit is executed, the same bits
//     instructions         as many products as loads, one configuration per sweep, whole cache lines
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gatefold/gatefold.hpp>
#include <gatefold/moe/sparse.hpp>
#include <tests/matrix_unit/machine.hpp>

#if GATEFOLD_AMX
#include <sys/wait.h>

#include <tests/matrix_unit/exact.hpp>

namespace {

namespace gf = gatefold;
namespace k = gatefold::detail::on_cpu;
namespace mu = matrix_unit;
using gf::bf16;
using gf::index_t;

bool right = true;
void expect(bool agrees, const std::string& what) {
    if (!agrees) std::printf("wrong: %s\n", what.c_str());
    right = right && agrees;
}

struct random_bits {
    std::uint64_t state = 88172645463325252u;
    std::uint32_t operator()() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::uint32_t>(state >> 33);
    }
};

// ---- one product

enum class kind { ordinary, wide, tiny, special };

/// A bf16: of few binades, of all, around the subnormal numbers of products, or any pattern with many infinities.
std::uint16_t draw(random_bits& next, kind of) {
    const std::uint32_t sign = next() & 0x8000u, fraction = next() & 0x7fu;
    std::uint32_t exponent = 120 + next() % 12;
    if (of == kind::wide) exponent = 1 + next() % 254;
    if (of == kind::tiny) exponent = next() % 4 == 0 ? 0 : 55 + next() % 20;
    if (of == kind::special && next() % 16 == 0) exponent = next() % 2 ? 255 : 0;
    const std::uint32_t kept = exponent == 255 && next() % 2 ? 0 : fraction;
    return static_cast<std::uint16_t>(sign | exponent << 7 | kept);
}

/// `stride`: bytes from row to row of the operands in memory; behind every row lies what must stay as it is.
template <int C, int A, int B>
void check_product(random_bits& next, kind of, int rows, index_t stride) {
    std::uint16_t a[16][32], b[16][32];
    for (auto& row : a)
        for (auto& x : row) x = draw(next, of);
    for (auto& row : b)
        for (auto& x : row) x = draw(next, of);
    float c[16][16];
    for (auto& row : c)
        for (auto& x : row) x = mu::float_of(static_cast<std::uint32_t>(draw(next, of)) << 16 | (next() & 0xffffu));

    const auto bytes = static_cast<std::size_t>(stride);
    constexpr std::byte untouched{0x5a};
    const auto spread = [&](const void* from) {
        std::vector<std::byte> to(16 * bytes, untouched);
        for (std::size_t i = 0; i < 16; ++i)
            std::memcpy(to.data() + i * bytes, static_cast<const char*>(from) + 64 * i, 64);
        return to;
    };
    const auto in_a = spread(a), in_b = spread(b), in_c = spread(c);
    const auto run = [&](auto& unit) {
        int shape[8];
        for (int i = 0; i < 8; ++i) shape[i] = i == B ? 16 : rows;
        unit.configure({shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6], shape[7]});
        auto out = in_c;
        unit.template load<C>(in_c.data(), stride);
        unit.template load<A>(in_a.data(), stride);
        unit.template load<B>(in_b.data(), stride);
        unit.template multiply<C, A, B>();
        unit.template store<C>(out.data(), stride);
        unit.template zero<C>();
        unit.template multiply<C, A, B>();
        std::vector<std::byte> from_zero(16 * bytes, untouched);
        unit.template store<C>(from_zero.data(), stride);
        unit.release();
        out.insert(out.end(), from_zero.begin(), from_zero.end());
        return out;
    };
    k::machine_tiles machine;
    k::software_tiles twin;
    const auto got = run(machine), of_twin = run(twin);

    float expected[2][16][16] = {};
    std::memcpy(expected[0], c, sizeof c);
    for (auto& each : expected) mu::multiply_exactly(each, a, b, rows, 16, 16);
    bool exact = true, like_twin = true, inside = true;
    for (std::size_t i = 0; i < 32; ++i) {
        const std::byte *row = got.data() + i * bytes, *other = of_twin.data() + i * bytes;
        const bool computed = static_cast<int>(i % 16) < rows;
        for (std::size_t n = 0; computed && n < 16; ++n) {
            float x, y;
            std::memcpy(&x, row + 4 * n, 4);
            std::memcpy(&y, other + 4 * n, 4);
            const float z = expected[i / 16][i % 16][n];
            exact &= mu::bits_of(x) == mu::bits_of(z) || (mu::is_nan(x) && mu::is_nan(z));
            like_twin &= mu::bits_of(x) == mu::bits_of(y) || (mu::is_nan(x) && mu::is_nan(y));
        }
        for (std::size_t j = computed ? 64 : 0; j < bytes; ++j)
            inside &= row[j] == (j < 64 && i < 16 ? in_c[i * bytes + j] : untouched);
    }
    const std::string where = "a product of " + std::to_string(rows) + " rows, numbers of kind " +
                              std::to_string(static_cast<int>(of)) + ": ";
    expect(exact, where + "not what the manual says");
    expect(like_twin, where + "not what the twin computes");
    expect(inside, where + "stores touch other memory");
}

void check_products() {
    random_bits next;
    for (const kind of : {kind::ordinary, kind::wide, kind::tiny, kind::special})
        for (int rows = 1; rows <= 16; ++rows) {
            check_product<0, 4, 5>(next, of, rows, 64);
            check_product<1, 4, 6>(next, of, rows, 64);
            check_product<2, 4, 7>(next, of, rows, 80);
            check_product<3, 5, 7>(next, of, rows, 128);
            check_product<7, 2, 0>(next, of, rows, 4160);
        }
}

// ---- faults

struct alignas(64) configuration {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
void load(const configuration& shape) { __asm__ volatile("ldtilecfg %0" ::"m"(shape) : "memory"); }
void multiply() { __asm__ volatile("tdpbf16ps %tmm2, %tmm1, %tmm0"); }

/// Runs `wrong` in a process of its own, which has to end in a fault: in software with the reason.
template <class F>
void check_fault(const char* reason, const F& wrong) {
    int ends[2];
    if (pipe(ends) != 0) return expect(false, "no pipe");
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        wrong();
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char text[256];
    for (ssize_t n; (n = read(ends[0], text, sizeof text)) > 0;) said.append(text, static_cast<std::size_t>(n));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    const bool faulted = mu::in_silicon() ? WIFSIGNALED(status)
                                          : WIFEXITED(status) && WEXITSTATUS(status) == mu::fault_status &&
                                                said.find(reason) != std::string::npos;
    expect(faulted, std::string("no fault: ") + reason + "; " + said);
}

void check_faults() {
    const auto shaped = [](const auto& change) {
        return [=] {
            configuration shape;
            change(shape);
            load(shape);
            multiply();
        };
    };
    using shape = configuration;
    check_fault("no configuration", [] { multiply(); });
    check_fault("no configuration", [] { __asm__ volatile("tilezero %tmm0"); });
    check_fault("no configuration", [] {
        load({});
        __asm__ volatile("tilerelease");
        multiply();
    });
    check_fault("palette", shaped([](shape& s) { s.palette = 2; }));
    check_fault("reserved", shaped([](shape& s) { s.reserved[3] = 1; }));
    check_fault("reserved", shaped([](shape& s) { s.bytes[8] = 64; }));
    check_fault("16 rows", shaped([](shape& s) { s.rows[3] = 17; }));
    check_fault("64 bytes", shaped([](shape& s) { s.bytes[3] = 68; }));
    check_fault("without bytes", shaped([](shape& s) { s.bytes[3] = 0; }));
    check_fault("without a shape", shaped([](shape& s) { s.bytes[1] = s.rows[1] = 0; }));
    check_fault("differ in rows", shaped([](shape& s) { s.rows[0] = 8; }));
    check_fault("differ in columns", shaped([](shape& s) { s.bytes[0] = 32; }));
    check_fault("in what is summed", shaped([](shape& s) { s.bytes[1] = 32; }));
    check_fault("multiple of four", shaped([](shape& s) { s.bytes[0] = 62; }));
    check_fault("two operands", [] {
        load({});
        __asm__ volatile(".byte 0xc4, 0xe2, 0x72, 0x5c, 0xc1");  // tdpbf16ps of tiles 0, 1, 1
    });
    if (!mu::in_silicon()) {  // what the compiler would not write, and what the system would have to forget
        check_fault("not an instruction", [] { __asm__ volatile("ud2"); });
        check_fault("VEX.vvvv", [] { __asm__ volatile(".byte 0xc4, 0xe2, 0x73, 0x49, 0xc0"); });
        check_fault("permission", [] {
            mu::granted = false;
            load({});
        });
    }
}

// ---- the expert stage

std::vector<bf16> numbers(index_t n) {
    static random_bits next;
    std::vector<bf16> v(static_cast<std::size_t>(n));
    for (auto& x : v) x = static_cast<bf16>((static_cast<float>(next() % 509) - 254) / 256);
    return v;
}

/// Begins and ends a thread for every part but the first.
void on_threads_of_their_own(void*, int parts, void (*part)(void*, int), void* argument) {
    std::vector<std::thread> threads;
    for (int p = 1; p < parts; ++p) threads.emplace_back([=] { part(argument, p); });
    part(argument, 0);
    for (auto& thread : threads) thread.join();
}
constexpr gf::executor own_threads{nullptr, on_threads_of_their_own};

/// Whether this thread's unit is as it was before anyone used it.
bool released() {
    std::uint8_t shape[64] = {1};
    __asm__ volatile("sttilecfg %0" : "=m"(shape));
    for (const auto byte : shape)
        if (byte != 0) return false;
    return true;
}

struct instructions {
    long products, loads, stores, configurations, releases, split;
};
instructions executed() {
    const auto& e = mu::executed;
    return {e.products, e.loads, e.stores, e.configurations, e.releases, e.split};
}
/// What `run` executes.
template <class F>
instructions count(const F& run) {
    const instructions before = executed();
    run();
    const instructions after = executed();
    return {after.products - before.products, after.loads - before.loads,
            after.stores - before.stores,     after.configurations - before.configurations,
            after.releases - before.releases, after.split - before.split};
}

template <int H, int F, gf::activation Act, bool Bias>
struct stage {
    using E = k::expert<H, F, Act, bf16, Bias>;
    std::vector<std::int32_t> offsets;
    int experts = static_cast<int>(offsets.size()) - 1;
    index_t rows = offsets.back();
    std::vector<bf16> x = numbers(rows * H), up = numbers(index_t{experts} * E::up_rows * H),
                      down = numbers(index_t{experts} * H * F), up_bias = numbers(index_t{experts} * E::up_rows),
                      down_bias = numbers(index_t{experts} * H);
    gf::buffer<std::byte> packed{static_cast<index_t>(k::packed_bytes<E>()) * experts};
    std::vector<float> expected, got;
    std::vector<bf16> expected_pre, got_pre;

    explicit stage(std::vector<std::int32_t> ends) : offsets(std::move(ends)) {
        for (int e = 0; e < experts; ++e)
            k::pack_expert<E>(up.data() + index_t{e} * E::up_rows * H, down.data() + index_t{e} * H * F,
                              packed.data() + static_cast<std::size_t>(e) * k::packed_bytes<E>());
        expected.resize(static_cast<std::size_t>(rows * H));
        expected_pre.resize(static_cast<std::size_t>(rows * E::up_rows));
        gf::context<gf::cpu> ctx(1);
        gf::buffer<std::byte> scratch(static_cast<index_t>(k::expert_scratch_bytes<E>(1, rows)));
        const k::panels_of<bf16, E::W, E::gated> panels{nullptr,        up.data(),        down.data(),
                                                        up_bias.data(), down_bias.data(), k::shape_of<E>};
        k::run_stage<k::portable_form, Act, bf16, Bias>(ctx, scratch.data(), k::shape_of<E>, input(), panels, 0.25f,
                                                        {expected_pre.data(), nullptr},
                                                        k::rows_into<float>{expected.data(), H});
    }
    k::expert_input<bf16> input() const { return {{experts, offsets.data(), rows}, {x.data(), H}}; }

    void run(gf::context<gf::cpu>& ctx, bool is_packed) {
        gf::buffer<std::byte> scratch(static_cast<index_t>(k::expert_scratch_bytes<E>(ctx.threads(), rows)));
        got.assign(expected.size(), -1);
        got_pre.assign(expected_pre.size(), bf16(-1.0f));
        const auto with = [&](const auto& weights) {
            k::run_experts<E>(ctx, scratch.data(), input(), weights, 0.25f, gf::order::portable,
                              {got_pre.data(), nullptr}, k::rows_into<float>{got.data(), H});
        };
        if (is_packed)
            with(k::packed_weights<bf16>{packed.data(), up_bias.data(), down_bias.data()});
        else
            with(k::hub_weights<bf16>{up.data(), down.data(), up_bias.data(), down_bias.data()});
    }
    bool agrees() const {
        return std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0 &&
               std::memcmp(got_pre.data(), expected_pre.data(), got_pre.size() * sizeof(bf16)) == 0;
    }
    void check() {
        for (const int threads : {1, 2, 3})
            for (const bool is_packed : {false, true}) {
                gf::context<gf::cpu> ctx({.threads = threads, .runs = threads == 2 ? own_threads : gf::executor{}});
                const instructions done = count([&] { run(ctx, is_packed); });
                const std::string what = std::to_string(H) + " x " + std::to_string(F) + ", " + std::to_string(rows) +
                                         " rows, " + std::to_string(threads) + " threads" +
                                         (is_packed ? ", packed" : "");
                expect(agrees(), what + ": other bits than the vectors");
                expect(released(), what + ": the unit is not released");
                if (mu::in_silicon()) continue;
                expect(done.products > 0, what + ": nothing executed");
                expect(done.split == 0, what + ": rows across cache lines");
            }
    }
};

void check_stages() {
    using gf::activation;
    stage<64, 96, activation::swiglu, false>({0, 1, 1, 6, 22, 40}).check();
    stage<37, 70, activation::swiglu, true>({0, 16, 48, 50}).check();
    stage<130, 33, activation::relu, true>({0, 33, 103}).check();
    stage<640, 40, activation::swiglu, false>({0, 70, 71}).check();
    stage<96, 64, activation::swiglu, false>({0, 300}).check();
    stage<2304, 40, activation::relu, false>({0, 280}).check();      // more rows than the cache holds
    stage<290, 550, activation::swiglu, true>({0, 40, 95}).check();  // pieces of 64 and 80 pairs; of 96
}

template <int H, int F, gf::activation Act>
using mixture = gf::layer<
    gf::config{
        .hidden = H, .ffn = F, .experts = 4, .top_k = 2, .act = Act, .bias = true, .router = gf::routers::mixtral},
    bf16>;

/// Layers with blocks of zeros: from stored blocks, from packed weights, from weights as they are. One context, used by
/// this thread, by others after it, and by this one again.
template <class L>
void check_layer(index_t tokens, double zeros) {
    gf::context<gf::cpu> ctx({.threads = 2, .runs = own_threads, .sums = gf::order::portable});
    gf::weights<L> w = gf::make_weights<L>(ctx);
    gf::for_each_parameter(
        [&](const char*, auto& slot) {
            const auto drawn = numbers(slot.size());
            for (index_t i = 0; i < slot.size(); ++i)
                slot.data()[i] =
                    static_cast<std::decay_t<decltype(*slot.data())>>(static_cast<float>(drawn[std::size_t(i)]));
        },
        w);
    gf::prune_blocks(ctx, w, zeros);
    const auto packed = gf::pack(ctx, w);
    const auto sparse = gf::pack_sparse(ctx, w);
    auto x = gf::make_tensor<bf16, gf::dyn, L::hidden>(ctx, tokens);
    const auto drawn = numbers(x.size());
    std::memcpy(x.data(), drawn.data(), drawn.size() * sizeof(bf16));
    gf::batch<L> in;
    in.x = std::as_const(x).view();

    std::vector<std::vector<bf16>> results;
    const auto forward = [&](const auto& weights) {
        auto y = gf::make_tensor<bf16, gf::dyn, L::hidden>(ctx, tokens);
        gf::forward(ctx, weights, in, y.view());
        results.emplace_back(y.data(), y.data() + y.size());
        expect(released(), "layer: the unit is not released");
    };
    forward(packed);
    std::thread([&] { forward(w); }).join();
    std::thread([&] { forward(sparse); }).join();
    forward(sparse);
    gf::context<gf::cpu> one({.threads = 1, .sums = gf::order::portable});
    auto y = gf::make_tensor<bf16, gf::dyn, L::hidden>(one, tokens);
    for (index_t t = 0; t < tokens; ++t)
        gf::forward(one, packed, gf::view<const bf16, gf::dyn, L::hidden>{in.x.slice(t, 1)}, y.view().slice(t, 1));
    results.emplace_back(y.data(), y.data() + y.size());
    for (const auto& result : results)
        expect(std::memcmp(result.data(), results[0].data(), result.size() * sizeof(bf16)) == 0,
               "layer of " + std::to_string(tokens) + " tokens: the forms of the weights differ");
}

// ---- instructions per product

/// One expert of H = F = 1024, packed, one thread: 64 panels of gate and up, 32 of down, 32 products of 32 k each.
void check_counts() {
    constexpr int width = 1024;
    constexpr long steps = width / 32, panels = 2 * width / 32 + width / 32, pieces = width / 256;
    for (const int rows : {1, 16, 17, 32, 33, 48, 50, 64, 250}) {
        stage<width, width, gf::activation::swiglu, false> one({0, rows});
        gf::context<gf::cpu> ctx(1);
        const instructions done = count([&] { one.run(ctx, true); });
        expect(one.agrees(), std::to_string(rows) + " rows of 1024: other bits than the vectors");
        const long tiles = (rows + 15) / 16, products = 2 * tiles * panels * steps;
        std::printf("%3d rows: %ld products, %.3f loads each, %ld configurations\n", rows, done.products,
                    static_cast<double>(done.loads) / static_cast<double>(done.products), done.configurations);
        expect(done.products == products, "products");
        // One tile of rows meets four streams; two of them meet two, and what is left one with two.
        const long pairs = tiles / 2, alone = tiles % 2;
        const long of_rows = tiles == 1 ? products / 4 * 5 : panels * steps * (4 * pairs + 3 * alone);
        // Beyond 32 rows sums leave the unit between two pieces of k.
        const long of_sums = tiles <= 2 ? 0 : panels * (pieces - 1) * 2 * tiles;
        expect(done.loads == of_rows + of_sums, "loads");
        expect(done.stores == 2 * tiles * panels * (tiles <= 2 ? 1 : pieces), "stores");
        expect(done.configurations == 2 && done.releases == 2, "configurations");
        expect(done.split == 0, "rows across cache lines");
    }
}

// ---- shares of the threads

/// One expert of 100 rows and eight of 12 take equally long, because all wait for their weights.
void check_shares() {
    const std::vector<std::int32_t> offsets{0, 100, 112, 124, 136, 148, 160, 172, 184, 196};
    constexpr index_t panels = 32;
    using form = k::tile_form<k::machine_tiles>;
    k::task_position positions[2];
    k::task_list tasks({9, offsets.data(), offsets.back()}, panels, k::ridge_of<form>, form::max_rows, 2, positions);
    tasks.cut();
    expect(tasks.cost(0) == tasks.cost(1) && tasks.begin_of(1) == 9 * panels / 2 * tasks.cost(1),
           "shares of two threads are not equal");
}

// ---- a system that refuses

/// In a process of its own, because a program asks once.
void check_refusal() {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        mu::refuses = true;
        stage<64, 96, gf::activation::swiglu, false> some({0, 1, 1, 6, 22, 40});
        gf::context<gf::cpu> ctx({.threads = 2, .runs = own_threads});
        const instructions done = count([&] {
            for (const bool is_packed : {false, true}) {
                some.run(ctx, is_packed);
                right = right && some.agrees();
            }
        });
        _exit(right && mu::asked == 1 && done.configurations == 0 && done.products == 0 ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a system that refuses");
}

}  // namespace

int main() {
    check_refusal();
    expect(k::may_use_tiles(), "the unit is there, and the library does not take it");
    std::printf("instructions of the matrix unit, executed by %s\n", mu::in_silicon() ? "the processor" : "software");
    check_products();
    check_faults();
    check_stages();
    check_layer<mixture<70, 131, gf::activation::relu_squared>>(75, 0.5);
    check_layer<mixture<37, 29, gf::activation::swiglu>>(150, 0.9);
    check_layer<mixture<300, 40, gf::activation::relu>>(20, 0.7);
    check_shares();
    if (!mu::in_silicon()) check_counts();
    expect(mu::asked == 1, "permission was not asked for once");
    std::printf("%s\n", right ? "all as expected" : "wrong");
    return right ? 0 : 1;
}
#else
int main() { std::printf("skipped: the kernels of the matrix unit need a processor with AVX-512 and bf16\n"); }
#endif
