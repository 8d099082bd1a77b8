// Training runs on disk: weights, controller state and optimiser state in one safetensors file, replaced as a whole.
//
//     weights, adamw_state, numbers of controllers ── model.NAME, adamw.first.NAME, numbers.NAME, … ──> file ──> the
//     same bits
//
// A run that is resumed from such a file gives the bits of one that was never interrupted.
#pragma once

#include <charconv>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gatefold/io/safetensors.hpp>
#include <gatefold/io/safetensors_writer.hpp>
#include <gatefold/moe/balance.hpp>
#include <gatefold/train/adamw.hpp>

namespace gatefold::inline v0 {

/// Numbers of a training run that are neither parameters nor the optimiser's, under a name: what a controller remembers
/// beside the bias, the state of a schedule.
struct named_numbers {
    std::string name;
    std::span<double> values;
};

}  // namespace gatefold::inline v0

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

template <class Slot>
struct slot_shape {
    index_t extents[std::size_t{Slot::rank}];
    explicit slot_shape(const Slot& slot) {
        for (int d = 0; d < Slot::rank; ++d) extents[d] = slot.extent(d);
    }
};

/// Adds every slot of a set under prefix + name.
template <class Set>
void add_slots(safetensors_writer& file, const std::string& prefix, const Set& set, bool buffers) {
    const auto put = [&](const char* name, const auto& slot) {
        using slot_type = std::remove_cvref_t<decltype(slot)>;
        if constexpr (!std::is_same_v<slot_type, no_master>) {
            using T = typename slot_type::value_type;
            file.add(prefix + name, std::span<const T>(slot.data(), static_cast<std::size_t>(slot.size())),
                     slot_shape<slot_type>(slot).extents);
        }
    };
    for_each_parameter(put, set);
    if (buffers) for_each_buffer(put, set);
}

template <class Set>
void read_slots(const safetensors_file& file, const std::string& prefix, Set& set, bool buffers) {
    const auto get = [&](const char* name, auto& slot) {
        using slot_type = std::remove_cvref_t<decltype(slot)>;
        if constexpr (!std::is_same_v<slot_type, no_master>) {
            using T = typename slot_type::value_type;
            file.read<T>(prefix + name, std::span<T>(slot.data(), static_cast<std::size_t>(slot.size())),
                         slot_shape<slot_type>(slot).extents);
        }
    };
    for_each_parameter(get, set);
    if (buffers) for_each_buffer(get, set);
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// Adds the weights of a layer or a decoder, controller state included, as PREFIX + name. The weights must live,
/// unchanged, until the file is written.
template <class W>
void add_weights(safetensors_writer& file, const std::string& prefix, const W& w) {
    detail::add_slots(file, prefix, w, true);
}

/// Adds the state of AdamW as PREFIX + "first." + name and so on; the number of steps belongs into the metadata.
template <class W>
void add_state(safetensors_writer& file, const std::string& prefix, const adamw_state<W>& state) {
    detail::add_slots(file, prefix + "first.", state.first, false);
    detail::add_slots(file, prefix + "second.", state.second, false);
    detail::add_slots(file, prefix + "masters.", state.masters, false);
}

/// Reads what add_weights wrote.
///
/// Throws: file_error naming file and tensor where one is missing or has another shape; w is then of no use.
template <class W>
void read_weights(const safetensors_file& file, const std::string& prefix, W& w) {
    detail::read_slots(file, prefix, w, true);
}

/// Reads what add_state wrote; `steps` is what the metadata say.
template <class W>
void read_state(const safetensors_file& file, const std::string& prefix, adamw_state<W>& state, index_t steps) {
    detail::read_slots(file, prefix + "first.", state.first, false);
    detail::read_slots(file, prefix + "second.", state.second, false);
    detail::read_slots(file, prefix + "masters.", state.masters, false);
    state.steps = steps;
}

/// The errors that a pid_bias remembers, and the coefficient that a relu_coefficient steers.
inline named_numbers numbers_of(std::string name, std::type_identity_t<view<double, 2, dyn>> history) {
    return {std::move(name), {history.data(), static_cast<std::size_t>(history.size())}};
}
inline named_numbers numbers_of(std::string name, relu_coefficient& controller) {
    return {std::move(name), {&controller.value, 1}};
}

/// A whole number among the metadata of a file.
///
/// Throws: file_error where there is no such number.
inline index_t read_number(const safetensors_file& file, const std::string& key) {
    const std::string* text = file.find_metadata(key);
    index_t number = 0;
    const bool good =
        text && std::from_chars(text->data(), text->data() + text->size(), number).ptr == text->data() + text->size() &&
        !text->empty();
    if (!good)
        GATEFOLD_THROW(file_error(file.path() + ": metadata \"" + key + "\": expected a whole number, got " +
                                  (text ? "\"" + *text + "\"" : std::string("none"))));
    return number;
}

/// Replaces `path` by a file with the weights and, so that training can go on, the state of the optimiser and `more`
/// numbers: numbers_of(controller).
///
/// Throws: file_error naming the file and the system's reason; the old file is untouched then.
template <class W>
void save(const std::string& path, const W& w, const adamw_state<W>& state, std::span<const named_numbers> more,
          file_metadata notes = {}) {
    safetensors_writer file;
    add_weights(file, "model.", w);
    add_state(file, "adamw.", state);
    for (const named_numbers& n : more)
        file.add("numbers." + n.name, std::span<const double>(n.values), {static_cast<index_t>(n.values.size())});
    notes.emplace_back("adamw.steps", std::to_string(state.steps));
    file.write(path, std::move(notes));
}
template <class W>
void save(const std::string& path, const W& w, const adamw_state<W>& state, file_metadata notes = {}) {
    save(path, w, state, std::span<const named_numbers>{}, std::move(notes));
}

/// Reads a file of save() into weights, state and `more`, which keep what they hold when it throws. Returns its
/// metadata.
///
/// Throws: file_error naming the file and what is wrong with it.
template <class W>
file_metadata load(context<cpu>& ctx, const std::string& path, W& w, adamw_state<W>& state,
                   std::span<const named_numbers> more = {}) {
    const auto file = safetensors_file::open(path);
    W weights;
    detail::allocate_slots(weights, ctx);
    read_weights(file, "model.", weights);
    adamw_state<W> moments = make_adamw_state(ctx, weights);
    read_state(file, "adamw.", moments, read_number(file, "adamw.steps"));
    std::vector<std::vector<double>> numbers;
    for (const named_numbers& n : more) {
        std::vector<double>& values = numbers.emplace_back(n.values.size());
        file.read<double>("numbers." + n.name, values, {static_cast<index_t>(values.size())});
    }
    w = std::move(weights);
    state = std::move(moments);
    for (std::size_t i = 0; i < numbers.size(); ++i)
        for (std::size_t j = 0; j < numbers[i].size(); ++j) more[i].values[j] = numbers[i][j];
    return file.metadata();
}

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
