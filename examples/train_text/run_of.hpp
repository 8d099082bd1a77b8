// A training run of decoder D: batches, steps, measurements.
//
//     bytes ── windows drawn by seed and step ──> forward ── cross entropy, balancing loss ──> backward ── clip ──
//     AdamW
#pragma once

#include <chrono>
#include <cstring>
#include <span>
#include <vector>

#include <gatefold/nn.hpp>
#include <gatefold/train.hpp>

#include "run.hpp"

namespace train_text {

namespace gf = gatefold;

constexpr gf::decoder_config decoder_with(const gf::config& layer) {
    return {.vocabulary = 256, .hidden = hidden, .layers = layers, .heads = 4, .context = context, .layer = layer};
}

template <gf::decoder_type D>
class run_of final : public run {
    using L = typename D::layer_type;
    static constexpr gf::index_t tokens = sequences * context;

public:
    run_of(const plan& p, const corpus& text)
        : plan_(p),
          text_(text),
          ctx_(p.threads),
          weights_(gf::random_decoder_weights<D>(ctx_, gf::seed{p.seed})),
          gradients_(gf::make_decoder_gradients<D>(ctx_)),
          state_(gf::make_adamw_state(ctx_, weights_)),
          tape_(ctx_, sequences, context),
          d_logits_(gf::make_tensor<float, gf::dyn, D::vocabulary>(ctx_, tokens)),
          ids_(static_cast<std::size_t>(tokens)),
          targets_(static_cast<std::size_t>(tokens)) {
        figures.name = p.name;
        figures.role = p.role;
        figures.seed = p.seed;
        figures.steps = p.steps;
        figures.balance = p.balance;
        figures.layers = D::layers;
        figures.experts = L::experts;
        figures.top_k = L::top_k;
        figures.ffn = L::ffn;
        figures.parameters = D::parameters;
        figures.active = D::active_parameters;
        figures.flops = D::flops;
        window_.assign(static_cast<std::size_t>(D::layers * L::experts), 0);
    }

    void train(const std::atomic<bool>& stop) override {
        const gf::cosine_schedule schedule{
            .peak = 6e-3, .warm_up = plan_.steps / 20 + 1, .steps = plan_.steps, .floor = 0.1};
        const int load_steps = plan_.steps / 50 + 1, held_out_steps = plan_.steps / 10 + 1;
        const auto began = std::chrono::steady_clock::now();
        const int first = figures.done;
        for (int s = first; s < plan_.steps && !stop; ++s) {
            draw_batch(s);
            gf::forward(ctx_, weights_, ids(), tape_, {.layer = {.training = true}});
            const double loss = gf::cross_entropy(ctx_, tape_.logits(), targets(), d_logits_.view()).loss;
            if constexpr (!L::is_dense) {
                if (plan_.balance > 0)
                    for (int l = 0; l < D::layers; ++l)
                        gf::add_loss(ctx_, gf::losses::megatron{plan_.balance}, tape_.block(l).layer);
                count_choices(window_);
            }
            gf::backward(ctx_, weights_, tape_, d_logits_.view(), gradients_);
            const double norm = gf::global_norm(ctx_, gradients_);
            gf::step(ctx_, weights_, gradients_, state_, schedule.rate(s),
                     {.weight_decay = 0.1, .gradient_factor = gf::clip_factor(norm, 1)});

            figures.training_loss.push_back(loss);
            figures.done = s + 1;
            if (!L::is_dense && (figures.done % load_steps == 0 || figures.done == plan_.steps)) {
                figures.loads.push_back({figures.done, window_});
                window_.assign(window_.size(), 0);
            }
            if (figures.done % held_out_steps == 0 && figures.done < plan_.steps)
                figures.held_out.push_back({figures.done, each_held_out_batch([] {})});
            show(s);
        }
        figures.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
        if (figures.seconds > 0 && figures.done > first)
            figures.tokens_per_second = static_cast<double>((figures.done - first) * tokens) / figures.seconds;
        if (figures.done == plan_.steps) measure();
        finished = true;
    }

    void add_to(gf::safetensors_writer& file, const std::string& prefix) override {
        gf::add_weights(file, prefix + "model.", weights_);
        gf::add_state(file, prefix + "adamw.", state_);
        // The curves, so that the report of a resumed run is whole.
        flat_held_out_.clear();
        flat_loads_.clear();
        for (const auto& p : figures.held_out) flat_held_out_.insert(flat_held_out_.end(), {double(p.step), p.loss});
        for (const auto& p : figures.loads) {
            flat_loads_.push_back(p.step);
            flat_loads_.insert(flat_loads_.end(), p.counts.begin(), p.counts.end());
        }
        add(file, prefix + "curves.training_loss", figures.training_loss);
        add(file, prefix + "curves.held_out", flat_held_out_);
        add(file, prefix + "curves.loads", flat_loads_);
        add(file, prefix + "curves.window", window_);
        clock_ = {figures.seconds};
        add(file, prefix + "curves.seconds", clock_);
    }

    void take_from(const gf::safetensors_file& file, const std::string& prefix) override {
        const auto steps = static_cast<gf::index_t>(file.at(prefix + "curves.training_loss").shape.at(0));
        gf::read_weights(file, prefix + "model.", weights_);
        gf::read_state(file, prefix + "adamw.", state_, steps);
        take(file, prefix + "curves.training_loss", figures.training_loss);
        take(file, prefix + "curves.held_out", flat_held_out_);
        take(file, prefix + "curves.loads", flat_loads_);
        take(file, prefix + "curves.window", window_);
        take(file, prefix + "curves.seconds", clock_);
        const std::size_t width = 1 + static_cast<std::size_t>(D::layers * L::experts);
        if (window_.size() + 1 != width || clock_.size() != 1 || flat_loads_.size() % width != 0 ||
            flat_held_out_.size() % 2 != 0)
            throw gf::file_error(file.path() + ": the curves of \"" + prefix + "\" are not those of this model");
        figures.done = static_cast<int>(steps);
        figures.seconds = clock_[0];
        figures.held_out.clear();
        figures.loads.clear();
        for (std::size_t i = 0; i < flat_held_out_.size(); i += 2)
            figures.held_out.push_back({static_cast<int>(flat_held_out_[i]), flat_held_out_[i + 1]});
        for (std::size_t i = 0; i < flat_loads_.size(); i += width)
            figures.loads.push_back({static_cast<int>(flat_loads_[i]),
                                     {flat_loads_.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                                      flat_loads_.begin() + static_cast<std::ptrdiff_t>(i + width)}});
        step = figures.done;
        if (steps > 0) show(figures.done - 1);
    }

    std::string generate(const std::string& prompt, int count, std::uint64_t seed) override {
        gf::decoder_cache<D> cache(ctx_);
        std::vector<std::int32_t> all;
        for (const char c : prompt) all.push_back(static_cast<unsigned char>(c));
        std::size_t fed = all.size() > context ? all.size() - context : 0;
        for (int i = 0; i < count; ++i) {
            if (cache.length() + static_cast<gf::index_t>(all.size() - fed) > context) {
                // The context is full: go on from its later half.
                cache.truncate(0);
                fed = all.size() - context / 2;
            }
            gf::forward(ctx_, weights_, {all.data() + fed, {static_cast<gf::index_t>(all.size() - fed)}}, cache);
            fed = all.size();
            all.push_back(gf::sample(ctx_, cache.logits(), static_cast<gf::index_t>(all.size()),
                                     {.temperature = 0.7, .top_k = 40, .seed = seed}));
        }
        std::string text;
        for (std::size_t i = prompt.size(); i < all.size(); ++i) text += static_cast<char>(all[i]);
        return text;
    }

private:
    template <class T>
    static void add(gf::safetensors_writer& file, const std::string& name, const std::vector<T>& values) {
        file.add(name, std::span<const T>(values), {static_cast<gf::index_t>(values.size())});
    }
    template <class T>
    static void take(const gf::safetensors_file& file, const std::string& name, std::vector<T>& values) {
        const auto& shape = file.at(name).shape;
        values.resize(shape.size() == 1 ? static_cast<std::size_t>(shape[0]) : 0);
        file.read<T>(name, values, {static_cast<gf::index_t>(values.size())});
    }

    gf::view<const std::int32_t, gf::dyn> ids() const { return {ids_.data(), {tokens}}; }
    gf::view<const std::int32_t, gf::dyn> targets() const { return {targets_.data(), {tokens}}; }

    /// Row r of the batch: the window of `text` that begins at `at`.
    void put(int r, const std::string& text, std::size_t at) {
        for (std::size_t i = 0; i < context; ++i) {
            const std::size_t to = static_cast<std::size_t>(r) * context + i;
            ids_[to] = static_cast<unsigned char>(text[at + i]);
            targets_[to] = static_cast<unsigned char>(text[at + i + 1]);
        }
    }

    /// Windows anywhere in the training text; the same for every model of one seed.
    void draw_batch(int s) {
        const gf::counter_rng random{plan_.seed, static_cast<std::uint64_t>(s)};
        const double places = static_cast<double>(text_.training.size() - context);
        for (int r = 0; r < sequences; ++r)
            put(r, text_.training,
                static_cast<std::size_t>(random.uniform_from_zero<double>(gf::purpose::sampling, r, 0) * places));
    }

    /// Mean loss over the held-out text in windows without overlap.
    template <class Seen>
    double each_held_out_batch(Seen seen) {
        double sum = 0;
        gf::index_t counted = 0;
        const std::size_t windows = (text_.held_out.size() - 1) / context;
        for (std::size_t first = 0; first < windows; first += sequences) {
            for (std::size_t r = 0; r < sequences; ++r) {
                const bool there = first + r < windows;
                put(static_cast<int>(r), text_.held_out, (there ? first + r : first) * context);
                if (!there)
                    std::fill_n(targets_.begin() + static_cast<std::ptrdiff_t>(r * context), context,
                                gf::ignored_target);
            }
            gf::forward(ctx_, weights_, ids(), tape_);
            const auto result = gf::cross_entropy(ctx_, tape_.logits(), targets());
            sum += static_cast<double>(result.loss) * static_cast<double>(result.tokens);
            counted += result.tokens;
            seen();
        }
        return sum / static_cast<double>(counted);
    }

    /// Adds the choices of the last forward pass; padding of the last held-out batch does not count.
    void count_choices(std::vector<std::int64_t>& counts) {
        for (int l = 0; l < D::layers; ++l) {
            const auto routing = tape_.block(l).layer.routing();
            for (gf::index_t t = 0; t < tokens; ++t) {
                if (targets_[static_cast<std::size_t>(t)] == gf::ignored_target) continue;
                for (int s = 0; s < L::slots; ++s)
                    ++counts[static_cast<std::size_t>(l * L::experts + routing.ids(t, s))];
            }
        }
    }

    void measure() {
        constexpr std::size_t width = D::layers * L::experts;
        figures.load.assign(width, 0);
        figures.byte_load.assign(256 * width, 0);
        figures.final_loss = each_held_out_batch([&] {
            if constexpr (!L::is_dense) {
                count_choices(figures.load);
                for (int l = 0; l < D::layers; ++l) {
                    const auto routing = tape_.block(l).layer.routing();
                    for (gf::index_t t = 0; t < tokens; ++t) {
                        if (targets_[static_cast<std::size_t>(t)] == gf::ignored_target) continue;
                        const auto row = static_cast<std::size_t>(ids_[static_cast<std::size_t>(t)]) * width;
                        for (int s = 0; s < L::slots; ++s)
                            ++figures.byte_load[row + static_cast<std::size_t>(l * L::experts + routing.ids(t, s))];
                    }
                }
            }
        });
        if (figures.held_out.empty() || figures.held_out.back().step != figures.done)
            figures.held_out.push_back({figures.done, figures.final_loss});
        figures.balances.clear();
        if constexpr (!L::is_dense)
            for (int l = 0; l < D::layers; ++l) {
                const gf::view<const gf::index_t, gf::dyn> counts(figures.load.data() + l * L::experts, {L::experts});
                const gf::balance_metrics m = gf::balance_of(counts);
                figures.balances.push_back({m.max_violation, m.entropy, m.dead, m.starved});
            }
    }

    /// For the display: the mean loss of the last twenty steps.
    void show(int s) {
        const auto& all = figures.training_loss;
        const std::size_t n = (std::min)(all.size(), std::size_t{20});
        double sum = 0;
        for (std::size_t i = all.size() - n; i < all.size(); ++i) sum += all[i];
        recent = sum / static_cast<double>(n);
        step = s + 1;
    }

    plan plan_;
    const corpus& text_;
    gf::context<gf::cpu> ctx_;
    gf::decoder_weights<D> weights_;
    gf::decoder_gradients<D> gradients_;
    gf::adamw_state<gf::decoder_weights<D>> state_;
    gf::decoder_tape<D> tape_;
    gf::tensor<float, gf::dyn, D::vocabulary> d_logits_;
    std::vector<std::int32_t> ids_, targets_;
    std::vector<std::int64_t> window_, flat_loads_;
    std::vector<double> flat_held_out_, clock_;
};

}  // namespace train_text
