// One mixture-of-experts block of a hub checkpoint as the weights of a layer, whatever its tensors are called there.
//
//     checkpoint + prefix ("model.layers.3.mlp") ──> names and layouts that families use ──> weights<L>
//
// Read are: one tensor per expert (gate_proj, w1, linear, wi, fc1, ...), all experts in one tensor ([E, 2F, H] or
// transposed; concatenated, or interleaved as in gpt-oss), rows of all experts below each other (DBRX), MXFP4 and FP8.
// Nothing is guessed: tensors that the layer has no place for are mismatches as much as tensors that are missing.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include <gatefold/io/checkpoint.hpp>
#include <gatefold/io/hub_block_names.hpp>
#include <gatefold/moe/weights.hpp>

namespace gatefold::inline v0::detail {

/// What is read from, and everything that did not fit.
struct block_source {
    const checkpoint& model;
    std::string prefix;  // with its dot
    std::vector<std::string> used, problems;
};

/// The extents of a stack of FFNs, routed or shared.
struct ffn_extents {
    index_t count, stored, ffn, width;  // stored: experts that the file may hold, the free ones included
    bool gated, bias;
    index_t rows() const { return gated ? 2 * ffn : ffn; }
};

/// Where a stack of FFNs goes; biases may be null.
template <class T>
struct ffn_target {
    T *gate_up, *down, *gate_up_bias, *down_bias;
};

}  // namespace gatefold::inline v0::detail

namespace gatefold::inline v0::detail::inline GATEFOLD_TIER {

inline bool has_tensor(const block_source& s, const std::string& name) {
    return s.model.find(s.prefix + name) != nullptr || s.model.has_mxfp4(s.prefix + name);
}

/// The first name that the file has, or "".
template <class Names>
std::string find_name(const block_source& s, const Names& names) {
    for (const char* name : names)
        if (has_tensor(s, name)) return name;
    return "";
}

inline void add_problem(block_source& s, const std::string& name, const std::string& expected, const std::string& got) {
    s.problems.push_back(in_quotes(s.prefix + name) + ": expected " + expected + ", got " + got);
}

/// Whether a tensor is there, of this shape (one of two, where `other` is not empty) and readable as T.
template <class T>
bool fits(block_source& s, const std::string& name, std::vector<index_t> shape, std::vector<index_t> other = {}) {
    const std::string full = s.prefix + name;
    const stored_tensor* tensor = s.model.find(full);
    s.used.push_back(name);
    if (tensor == nullptr) {
        add_problem(s, name, "a tensor of this name", s.model.has_mxfp4(full) ? "MXFP4 blocks" : "none");
        return false;
    }
    const std::size_t before = s.problems.size();
    if (tensor->shape != shape && (other.empty() || tensor->shape != other))
        add_problem(s, name, "shape " + shape_text(shape) + (other.empty() ? "" : " or " + shape_text(other)),
                    shape_text(tensor->shape));
    if (!readable_as<T>(tensor->type))
        add_problem(s, name, "floating-point numbers", name_of(tensor->type));
    else if (bits_of(tensor->type) == 8) {
        const stored_tensor* scales = s.model.find(full + "_scale_inv");
        std::vector<index_t> blocks = tensor->shape;
        for (std::size_t d = blocks.size() > 2 ? blocks.size() - 2 : 0; d < blocks.size(); ++d)
            blocks[d] = ceil_div<index_t>(blocks[d], 128);
        if (scales == nullptr)
            add_problem(s, name + "_scale_inv", "the scales of an FP8 weight", "none");
        else if (scales->shape != blocks)
            add_problem(s, name + "_scale_inv", "shape " + shape_text(blocks), shape_text(scales->shape));
    }
    return s.problems.size() == before;
}

/// Reads a tensor that is stored as it is kept.
template <class T>
void read_straight(block_source& s, const std::string& name, std::vector<index_t> shape, T* to,
                   std::vector<index_t> other = {}) {
    if (!fits<T>(s, name, shape, other)) return;
    const stored_tensor& tensor = *s.model.find(s.prefix + name);
    index_t size = 1;
    for (const index_t extent : tensor.shape) size *= extent;
    s.model.template read<T>(s.prefix + name, {to, static_cast<std::size_t>(size)}, tensor.shape);
}

/// Reads the parameter in `slot` by the first of its names.
template <class Slot, class Names>
void read_slot(block_source& s, Slot& slot, const Names& names, bool one_row = false) {
    if constexpr (is_present<Slot>) {
        std::string name = find_name(s, names);
        if (name.empty()) {
            std::string all;
            for (const char* candidate : names) all += (all.empty() ? "" : " or ") + in_quotes(candidate);
            s.problems.push_back(in_quotes(s.prefix) + ": expected " + all + ", got none of them");
            return;
        }
        std::vector<index_t> shape(Slot::rank), other;
        for (int d = 0; d < Slot::rank; ++d) shape[static_cast<std::size_t>(d)] = slot.extent(d);
        if (one_row) other = {1, slot.extent(0)};
        read_straight(s, name, shape, slot.data(), other);
    }
}

/// Reads gate, up and down of one expert from tensors named ROOT + gate_proj.weight and the like.
///
/// Returns: whether the file has an expert of this root at all; `names` is the naming that fitted last.
template <class T>
bool read_one_expert(block_source& s, const std::string& root, const ffn_extents& x, index_t e,
                     const ffn_target<T>& to) {
    const auto try_names = [&](const expert_names& n) {
        const std::string down = root + n.down, up = root + n.up, gate = root + n.gate;
        if (!has_tensor(s, down + ".weight") && !has_tensor(s, up + ".weight")) return false;
        T* rows = to.gate_up + e * x.rows() * x.width;
        if (x.gated) read_straight(s, gate + ".weight", {x.ffn, x.width}, rows);
        read_straight(s, up + ".weight", {x.ffn, x.width}, rows + (x.gated ? x.ffn * x.width : 0));
        read_straight(s, down + ".weight", {x.width, x.ffn}, to.down + e * x.width * x.ffn);
        if (x.bias) {
            T* bias = to.gate_up_bias + e * x.rows();
            if (x.gated) read_straight(s, gate + ".bias", {x.ffn}, bias);
            read_straight(s, up + ".bias", {x.ffn}, bias + (x.gated ? x.ffn : 0));
            read_straight(s, down + ".bias", {x.width}, to.down_bias + e * x.width);
        } else
            for (const std::string& name : {gate, up, down})
                if (!name.empty() && has_tensor(s, name + ".bias"))
                    add_problem(s, name + ".bias", "experts without biases", "a bias");
        if (!x.gated && n.up == std::string_view("up_proj") && has_tensor(s, root + "gate_proj.weight"))
            add_problem(s, root + "gate_proj.weight", "experts without a gate", "a gate");
        return true;
    };
    for (const expert_names& n : gated_names)
        if (x.gated && try_names(n)) return true;
    for (const expert_names& n : plain_names)
        if (!x.gated && try_names(n)) return true;
    return false;
}

/// to[e][r][w] from a tensor of all experts, stored as [E, R, W] or, transposed, [E, W, R]; row r of an expert is row
/// 2r or 2(r - R/2) + 1 there when gate and up are interleaved.
template <class T>
void place_rows(const std::vector<T>& from, index_t experts, index_t rows, index_t width, bool transposed,
                bool interleaved, T* to) {
    for (index_t e = 0; e < experts; ++e)
        for (index_t r = 0; r < rows; ++r) {
            const index_t half = rows / 2, at = !interleaved ? r : r < half ? 2 * r : 2 * (r - half) + 1;
            for (index_t w = 0; w < width; ++w)
                to[(e * rows + r) * width + w] =
                    from[static_cast<std::size_t>(e * rows * width + (transposed ? w * rows + at : at * width + w))];
        }
}

/// Reads a tensor that holds all experts, rows [R, W] each, in either orientation.
template <class T>
void read_stack(block_source& s, const std::string& name, index_t experts, index_t stored, index_t rows, index_t width,
                bool transposed, bool interleaved, T* to) {
    const std::string full = s.prefix + name;
    const std::vector<index_t> straight = {experts, rows, width};
    std::vector<T> values;
    if (s.model.has_mxfp4(full)) {
        s.used.push_back(name);
        const stored_tensor *blocks = s.model.find(full + "_blocks"), *scales = s.model.find(full + "_scales");
        const std::string dot = blocks == nullptr || scales == nullptr ? "." : "_";
        if (dot == ".") blocks = s.model.find(full + ".blocks"), scales = s.model.find(full + ".scales");
        const std::size_t before = s.problems.size();
        const std::vector<index_t> scale_shape = {experts, rows, width / 32},
                                   block_shape = {experts, rows, width / 32, 16};
        if (width % 32 != 0) add_problem(s, name, "rows of whole blocks of 32", std::to_string(width));
        if (blocks->shape != block_shape)
            add_problem(s, name + dot + "blocks", "shape " + shape_text(block_shape), shape_text(blocks->shape));
        if (scales->shape != scale_shape)
            add_problem(s, name + dot + "scales", "shape " + shape_text(scale_shape), shape_text(scales->shape));
        for (const stored_tensor* t : {blocks, scales})
            if (t->type != file_dtype::u8)
                s.problems.push_back(in_quotes(t->name) + ": expected U8, got " + name_of(t->type));
        if (s.problems.size() != before) return;
        values.resize(static_cast<std::size_t>(experts * rows * width));
        s.model.template read_mxfp4<T>(full, values, straight);
        return place_rows(values, experts, rows, width, false, interleaved, to);
    }
    const index_t inner = transposed ? width : rows, outer = transposed ? rows : width;
    std::vector<index_t> more;
    if (stored != experts) more = {stored, inner, outer};
    if (!fits<T>(s, name, {experts, inner, outer}, more)) return;
    const stored_tensor& tensor = *s.model.find(full);
    values.resize(static_cast<std::size_t>(tensor.shape[0] * rows * width));
    s.model.template read<T>(full, values, tensor.shape);
    place_rows(values, experts, rows, width, transposed, interleaved, to);
}

/// Whether a tensor of all experts is stored as [E, rows, width]; one that is missing or MXFP4 counts as such.
inline bool is_straight(const block_source& s, const std::string& name, index_t rows, index_t width) {
    const stored_tensor* tensor = s.model.find(s.prefix + name);
    return tensor == nullptr || (tensor->shape.size() == 3 && tensor->shape[1] == rows && tensor->shape[2] == width);
}

/// Experts in one tensor per kind. Returns: whether the file has them.
template <class T>
bool read_fused_experts(block_source& s, const ffn_extents& x, const ffn_target<T>& to) {
    const std::string up = x.gated
                               ? find_name(s, name_list{"experts.gate_up_proj", "input_linear.weight", "mlp1_weight"})
                               : find_name(s, name_list{"experts.up_proj"}),
                      down = find_name(s, name_list{"experts.down_proj", "output_linear.weight", "mlp2_weight"});
    if (up.empty() && down.empty()) return false;
    if (up.empty() || down.empty()) {
        s.problems.push_back(in_quotes(s.prefix) + ": expected both matrices of the experts, got only " +
                             in_quotes(up.empty() ? down : up));
        return true;
    }
    // Either tensor may be square, not both: the other one tells the orientation.
    const bool transposed = (!is_straight(s, up, x.rows(), x.width) || !is_straight(s, down, x.width, x.ffn)) &&
                            is_straight(s, up, x.width, x.rows()) && is_straight(s, down, x.ffn, x.width);
    // Of the families with experts in one tensor gpt-oss alone has biases, and it alone interleaves gate and up.
    const bool interleaved = x.gated && x.bias;
    read_stack(s, up, x.count, x.stored, x.rows(), x.width, transposed, interleaved, to.gate_up);
    read_stack(s, down, x.count, x.stored, x.width, x.ffn, transposed, false, to.down);
    const bool original = up == "mlp1_weight";
    const std::string up_bias = original ? "mlp1_bias" : up + "_bias",
                      down_bias = original ? "mlp2_bias" : down + "_bias";
    if (x.bias) {
        if (fits<T>(s, up_bias, {x.count, x.rows()})) {
            std::vector<T> values(static_cast<std::size_t>(x.count * x.rows()));
            s.model.template read<T>(s.prefix + up_bias, values, {x.count, x.rows()});
            place_rows(values, x.count, x.rows(), 1, false, interleaved, to.gate_up_bias);
        }
        read_straight(s, down_bias, {x.count, x.width}, to.down_bias);
    } else
        for (const std::string& name : {up_bias, down_bias})
            if (has_tensor(s, name)) add_problem(s, name, "experts without biases", "a bias");
    return true;
}

/// DBRX: w1, v1 and w2, each [E · F, H]; w2 is used as it lies, so it is transposed here.
template <class T>
bool read_stacked_rows(block_source& s, const ffn_extents& x, const ffn_target<T>& to) {
    const std::string w1 = "experts.mlp.w1", v1 = "experts.mlp.v1", w2 = "experts.mlp.w2";
    if (!x.gated || (!has_tensor(s, w1) && !has_tensor(s, w2))) return false;
    const index_t one = x.ffn * x.width;
    std::vector<T> values(static_cast<std::size_t>(x.count * one));
    const std::vector<index_t> shape = {x.count * x.ffn, x.width};
    for (const std::string& name : {w1, v1, w2}) {
        if (!fits<T>(s, name, shape)) continue;
        s.model.template read<T>(s.prefix + name, values, shape);
        if (name == w2)
            place_rows(values, x.count, x.width, x.ffn, true, false, to.down);
        else
            for (index_t e = 0; e < x.count; ++e)
                std::copy_n(values.data() + e * one, one, to.gate_up + (2 * e + (name == v1 ? 1 : 0)) * one);
    }
    return true;
}

/// The routed experts, or the one of a dense layer, which may stand without "experts.0".
template <class T>
void read_experts(block_source& s, const ffn_extents& x, bool dense, const ffn_target<T>& to) {
    if (read_fused_experts(s, x, to) || read_stacked_rows(s, x, to)) return;
    for (const char* root : {"experts.", "experts.expert_"}) {
        if (!read_one_expert(s, std::string(root) + "0.", x, 0, to)) continue;
        for (index_t e = 1; e < x.count; ++e)
            if (const std::string one = root + std::to_string(e) + "."; !read_one_expert(s, one, x, e, to))
                add_problem(s, one, "an expert's matrices", "none");
        for (const expert_names* n : {gated_names, gated_names + 1, gated_names + 2, plain_names + 1, plain_names + 2})
            if (const std::string one = root + std::to_string(x.stored) + "." + n->down + ".weight"; has_tensor(s, one))
                add_problem(s, one, std::to_string(x.count) + " experts", "more");
        return;
    }
    if (dense && read_one_expert(s, "", x, 0, to)) return;
    s.problems.push_back(in_quotes(s.prefix) + ": expected experts under a known name, " +
                         (x.gated ? "with" : "without") + " a gate, got none");
}

template <class T>
void read_shared_expert(block_source& s, const ffn_extents& x, const ffn_target<T>& to) {
    for (const char* root : shared_roots) {
        if (read_one_expert(s, root, x, 0, to)) return;
        const std::string in = std::string(root) + "input_linear.weight",
                          out = std::string(root) + "output_linear.weight";
        if (!x.gated || !has_tensor(s, in)) continue;
        read_straight(s, in, {x.rows(), x.width}, to.gate_up);
        read_straight(s, out, {x.width, x.ffn}, to.down);
        return;
    }
    s.problems.push_back(in_quotes(s.prefix) + ": expected a shared expert, got none");
}

/// Whether the file has experts, under any name and in any layout.
inline bool has_experts(const block_source& s) {
    for (const char* fused :
         {"experts.gate_up_proj", "experts.up_proj", "input_linear.weight", "mlp1_weight", "experts.mlp.w1"})
        if (has_tensor(s, fused)) return true;
    for (const char* root : {"experts.0.", "experts.expert_0."})
        for (const auto* names : {gated_names, plain_names})
            for (int i = 0; i < 3; ++i)
                if (has_tensor(s, root + std::string(names[i].down) + ".weight")) return true;
    return false;
}

inline std::vector<std::string> block_prefixes(const checkpoint& model) {
    std::vector<std::string> prefixes;
    for (std::size_t i = 0; i < model.size(); ++i)
        for (const char* router : router_names) {
            const std::string& name = model[i].name;
            const std::string end = std::string(".") + router;
            if (!name.ends_with(end)) continue;
            const std::string prefix = name.substr(0, name.size() - end.size());
            if (has_experts({model, prefix + ".", {}, {}})) prefixes.push_back(prefix);
        }
    std::sort(prefixes.begin(), prefixes.end());
    prefixes.erase(std::unique(prefixes.begin(), prefixes.end()), prefixes.end());
    return prefixes;
}

/// A known tensor for which the layer has no place would be left out silently otherwise.
template <class Names>
void refuse_rest(block_source& s, const Names& names, const char* expected) {
    for (const char* name : names)
        if (has_tensor(s, name) && std::find(s.used.begin(), s.used.end(), name) == s.used.end())
            add_problem(s, name, expected, "this tensor");
}

template <class T, class Slot>
T* data_or_null(Slot& slot) {
    if constexpr (is_present<Slot>)
        return slot.data();
    else
        return nullptr;
}

/// Reads every parameter of a set, buffers too unless it is a set of gradients.
template <class Set>
void read_block(block_source& s, Set& set, bool buffers = true) {
    using L = typename Set::layer_type;
    using T = typename std::remove_reference_t<decltype(set.down)>::value_type;
    T* up = nullptr;
    if constexpr (L::is_gated)
        up = set.gate_up.data();
    else
        up = set.up.data();
    const ffn_extents routed{L::experts, L::choices, L::ffn, L::width, L::is_gated, L::c.bias};
    read_experts<T>(s, routed, L::is_dense,
                    {up, set.down.data(), data_or_null<T>(set.gate_up_bias), data_or_null<T>(set.down_bias)});
    read_slot(s, set.router, router_names);
    read_slot(s, set.router_scale, name_list{"router.scale"});
    read_slot(s, set.expert_scale, name_list{"router.per_expert_scale"});
    read_slot(s, set.router_bias, router_bias_names);
    if (buffers) {
        // DeepSeek-V4 calls it gate.bias, which is a bias of the logits elsewhere.
        if (L::c.router.bias || find_name(s, selection_bias_names) != "")
            read_slot(s, set.selection_bias, selection_bias_names, true);
        else
            read_slot(s, set.selection_bias, name_list{selection_bias_names[0], "gate.bias"}, true);
    }
    read_slot(s, set.latent_down, name_list{"fc1_latent_proj.weight"});
    read_slot(s, set.latent_up, name_list{"fc2_latent_proj.weight"});
    read_slot(s, set.shared_gate, name_list{"shared_expert_gate.weight"}, true);
    if constexpr (L::shared_ffn > 0)
        read_shared_expert<T>(s, {1, 1, L::shared_ffn, L::hidden, is_gated(L::c.shared.act), L::c.shared.bias},
                              {set.shared_gate_up.data(), set.shared_down.data(),
                               data_or_null<T>(set.shared_gate_up_bias), data_or_null<T>(set.shared_down_bias)});
    for_each_parameter(
        [&](const char* name, auto&) {
            for (const char* unnamed : {"router_projection", "router_head", "router_temperature", "router_noise",
                                        "router_residual", "latent_norm", "constant_gate", "constant_value"})
                if (std::string_view(name) == unnamed)
                    s.problems.push_back(in_quotes(name) +
                                         ": expected a parameter that hub checkpoints have a name for");
        },
        set);
    if constexpr (!L::is_dense) {
        refuse_rest(s, selection_bias_names, "a layer with a selection bias");
        refuse_rest(s, router_bias_names, "a layer with a bias of the router or of the selection");
        refuse_rest(s, name_list{"router.scale", "router.per_expert_scale"}, "a layer with the router's scales");
    }
    refuse_rest(s, name_list{"fc1_latent_proj.weight", "fc2_latent_proj.weight"}, "a layer with latent experts");
    refuse_rest(s, name_list{"shared_expert_gate.weight"}, "a layer with a gate for the shared expert");
    if constexpr (L::shared_ffn == 0)
        for (const char* root : shared_roots)
            for (const char* name : {"down_proj.weight", "w2.weight", "output_linear.weight"})
                if (has_tensor(s, std::string(root) + name))
                    add_problem(s, std::string(root) + name, "a layer with a shared expert", "this tensor");
}

/// The tensor to which scales or blocks of this name belong, or the name itself.
inline std::string stored_name(const block_source& s, const std::string& name) {
    for (const std::string end : {"_scale_inv", "_blocks", "_scales", ".blocks", ".scales"}) {
        const std::string base = name.substr(0, name.size() - (std::min)(name.size(), end.size()));
        if (name.ends_with(end) && std::find(s.used.begin(), s.used.end(), base) != s.used.end()) return base;
    }
    return name;
}

/// Tensors of the block that nothing was read from and nothing was said about. Experts beyond those of the layer have
/// been counted already; a table of experts by token (tid2eid) is not the layer's.
inline void refuse_unknown(block_source& s, index_t experts, bool dense) {
    for (std::size_t i = 0; i < s.model.size(); ++i) {
        const std::string& full = s.model[i].name;
        if (!full.starts_with(s.prefix)) continue;
        const std::string name = full.substr(s.prefix.size());
        const auto is_of = [&](const char* root) { return name.starts_with(root); };
        if (!std::any_of(std::begin(block_roots), std::end(block_roots), is_of)) continue;
        if (name == "gate.tid2eid" || (dense && (is_of("router.") || is_of("gate.")))) continue;
        std::size_t digits = std::string_view(name).starts_with("experts.expert_") ? 15 : 8;
        index_t expert = 0;
        for (; is_of("experts.") && digits < name.size() && name[digits] >= '0' && name[digits] <= '9'; ++digits)
            expert = (std::min)(expert * 10 + (name[digits] - '0'), index_t{1} << 40);
        if (expert >= experts) continue;
        const std::string base = stored_name(s, name);
        if (std::find(s.used.begin(), s.used.end(), base) != s.used.end()) continue;
        const auto tells = [&](const std::string& problem) { return problem.starts_with(in_quotes(full) + ":"); };
        if (std::none_of(s.problems.begin(), s.problems.end(), tells))
            add_problem(s, name, "a layer with a place for it", "this tensor");
    }
}

inline void refuse_block(const block_source& s) {
    if (s.problems.empty()) return;
    const std::string path = s.model.files().empty() ? "" : s.model.files()[0].path();
    std::string text = path + ": block " + in_quotes(s.prefix) + " does not fit the layer";
    for (const std::string& problem : s.problems) text += "\n  " + problem;
    if (s.used.empty()) {
        text += "\n  blocks of this file:";
        for (const std::string& prefix : block_prefixes(s.model)) text += " " + in_quotes(prefix);
    }
    GATEFOLD_THROW(file_error(text));
}

}  // namespace gatefold::inline v0::detail::inline GATEFOLD_TIER

namespace gatefold::inline v0::inline GATEFOLD_TIER {

/// The block of a checkpoint whose tensors begin with `prefix` ("model.layers.3.mlp"), converted to the types of L.
///
///     auto w = load_block<mixtral>(ctx, "models/mixtral", "model.layers.0.block_sparse_moe");
///
/// A dense layer takes either the only expert of a block or a plain FFN.
/// Throws: file_error, with a line for every tensor that is missing, has another shape or type, or has no place in L;
///         std::bad_alloc.
template <layer_type L>
weights<L> load_block(context<cpu>& ctx, const checkpoint& model, const std::string& prefix) {
    weights<L> w = make_weights<L>(ctx);
    detail::block_source source{model, prefix.empty() ? "" : prefix + ".", {}, {}};
    detail::read_block(source, w);
    detail::refuse_unknown(source, L::experts, L::is_dense);
    detail::refuse_block(source);
    return w;
}
/// The same from a folder, a .safetensors file or an index of shards.
template <layer_type L>
weights<L> load_block(context<cpu>& ctx, const std::string& path, const std::string& prefix) {
    return load_block<L>(ctx, checkpoint::open(path), prefix);
}

/// The prefixes under which a checkpoint has a router and experts, in the order of their names: "model.layers.3.mlp".
inline std::vector<std::string> find_blocks(const checkpoint& model) { return detail::block_prefixes(model); }

}  // namespace gatefold::inline v0::inline GATEFOLD_TIER
