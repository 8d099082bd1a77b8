// Packing a layer beside copying its matrices, in turn.
//
//     pack_fresh     pack(ctx, w), memory included, beside a copy into memory that was just asked for
//     pack_touched   pack_expert for every expert of a layer that is there, beside a copy into memory in use
//
// Names are stage/model/type/threads:N. A copy is one memcpy for each thread's share.
#include <cstring>
#include <string>
#include <vector>

#include <malloc.h>

#include "data.hpp"
#include "measure.hpp"
#include "shapes.hpp"

namespace bench {
namespace {

template <layer_type L>
struct packing {
    using T = typename L::value_type;

    /// Both matrices of all experts, one after the other as a copy holds them.
    static void copy(context<cpu>& ctx, const weights<L>& w, std::byte* to) {
        const auto part_of = [&](const auto& matrices, std::byte* begin, int part) {
            const index_t bytes = matrices.size() * static_cast<index_t>(sizeof(T)), parts = ctx.threads();
            const index_t first = bytes * part / parts, last = bytes * (part + 1) / parts;
            std::memcpy(begin + first, reinterpret_cast<const std::byte*>(matrices.data()) + first,
                        static_cast<std::size_t>(last - first));
        };
        ctx.parallel(ctx.threads(), [&](int part) {
            part_of(w.gate_up, to, part);
            part_of(w.down, to + w.gate_up.size() * static_cast<index_t>(sizeof(T)), part);
        });
    }

    static void run(benchmark::State& s, const std::string& name, int threads, bool fresh) {
        context<cpu> ctx(threads);
        constexpr auto layer_bytes = static_cast<double>(L::parameters) * sizeof(T);
        auto& kept = layers().keep<std::vector<weights<L>>>("pack/" + name, [] { return std::vector<weights<L>>{}; });
        if (lacks_memory(s, layer_bytes * (kept.empty() ? 3 : 2))) return;
        if (kept.empty()) make_layer(ctx, 0, kept.emplace_back());
        const weights<L>& w = kept.front();
        const index_t bytes = (w.gate_up.size() + w.down.size()) * static_cast<index_t>(sizeof(T));

        // Even for fresh memory: pages that a virtual machine uses for the first time cost its host's time.
        packed<L> there = pack(ctx, w);
        buffer<std::byte> copied(bytes);
        copy(ctx, w, copied.data());
        if (fresh) there = {}, copied = {};
        std::vector<double> packs, copies;
        const auto timed = [&](std::vector<double>& to, auto call) {
            // Else the heap keeps pages of what was freed, and only one of the two finds room in them.
            if (fresh) malloc_trim(0);
            const double begin = seconds(threads);
            call();
            to.push_back(seconds(threads) - begin);
        };
        for ([[maybe_unused]] auto turn : s) {
            // What a call made is given back after the clock was read.
            packed<L> made;
            timed(packs, [&] {
                if (fresh)
                    made = pack(ctx, w);
                else
                    for (int e = 0; e < L::experts; ++e) {
                        const auto expert = w.expert(e);
                        pack_expert(ctx, there, e, expert.gate_up, expert.down);
                    }
            });
            made = {};
            buffer<std::byte> target;
            timed(copies, [&] {
                if (fresh) target = buffer<std::byte>(bytes);
                copy(ctx, w, fresh ? target.data() : copied.data());
            });
        }
        s.counters["pack_us"] = 1e6 * median(packs);
        s.counters["copy_us"] = 1e6 * median(copies);
        s.counters["to_copy"] = median(packs) / median(copies);
        s.counters["best_to_copy"] = best(packs) / best(copies);
        s.counters["mb"] = static_cast<double>(bytes) / 1e6;
    }
};

template <config C, class T>
void register_packing(const char* model, const char* type) {
    const std::string name = std::string(model) + "/" + type;
    for (const bool fresh : {true, false})
        // One expert is packed by one thread, so with two the whole layer alone is of interest.
        for (const int threads : {1, 2}) {
            if (threads > 1 && !fresh) continue;
#if !defined(_OPENMP)
            if (threads > 1) continue;
#endif
            add(std::string(fresh ? "pack_fresh/" : "pack_touched/") + name + "/threads:" + std::to_string(threads),
                [=](benchmark::State& s) { packing<layer<C, T>>::run(s, name, threads, fresh); });
        }
}

template <config C>
void register_shape(const char* model) {
    register_packing<C, float>(model, "f32");
    register_packing<C, bf16>(model, "bf16");
}

}  // namespace

void register_pack() {
    register_shape<shapes::tiny>("tiny");
    register_shape<shapes::olmoe>("olmoe");
    register_shape<shapes::qwen3>("qwen3");
}

}  // namespace bench
