// A minimal reader of safetensors files for the golden tests: F64, F32 and I64, trusted files only.
//
// It is not the library's reader, so that a golden test of the oracle does not lean on the code under test.
#pragma once

#include <cctype>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "math.hpp"

namespace oracle {

struct tensor {
    std::string dtype;
    std::vector<natural> shape;
    values data;  // I64 converted

    ints integers() const {
        ints out;
        for (double v : data) out.push_back(static_cast<int>(v));
        return out;
    }
};

struct tensor_file {
    std::map<std::string, tensor> tensors;
    std::map<std::string, std::string> metadata;

    bool has(const std::string& name) const { return tensors.count(name) > 0; }
    const tensor& at(const std::string& name) const {
        if (!has(name)) throw std::invalid_argument("oracle: no tensor named " + name);
        return tensors.at(name);
    }
    values get(const std::string& name) const { return has(name) ? at(name).data : values{}; }
    double number(const std::string& key, double fallback) const {
        return metadata.count(key) ? std::stod(metadata.at(key)) : fallback;
    }
};

/// The part of JSON that a safetensors header uses: objects, strings, arrays of unsigned integers.
class header_parser {
public:
    header_parser(const std::string& file, natural length)
        : text_(file.substr(8, length)), data_(file.substr(8 + length)) {}

    tensor_file parse() {
        tensor_file out;
        for_each_member([&](const std::string& name) {
            if (name == "__metadata__")
                for_each_member([&](const std::string& key) { out.metadata[key] = string(); });
            else
                out.tensors[name] = one_tensor();
        });
        return out;
    }

private:
    char peek() {
        while (position_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[position_]))) ++position_;
        check(position_ < text_.size(), "oracle: the safetensors header ends early");
        return text_[position_];
    }
    bool take(char c) {
        if (peek() != c) return false;
        ++position_;
        return true;
    }
    void expect(char c) { check(take(c), "oracle: the safetensors header is malformed"); }

    std::string string() {
        std::string out;
        expect('"');
        while (text_.at(position_) != '"') {
            if (text_[position_] == '\\') ++position_;
            out += text_.at(position_++);
        }
        ++position_;
        return out;
    }
    template <class Function>
    void for_each_member(Function&& f) {
        expect('{');
        if (take('}')) return;
        do {
            const std::string key = string();
            expect(':');
            f(key);
        } while (take(','));
        expect('}');
    }
    std::vector<natural> numbers() {
        std::vector<natural> out;
        expect('[');
        while (!take(']')) {
            natural n = 0;
            for (peek(); std::isdigit(static_cast<unsigned char>(text_.at(position_))); ++position_)
                n = n * 10 + static_cast<natural>(text_[position_] - '0');
            out.push_back(n);
            take(',');
        }
        return out;
    }
    tensor one_tensor() {
        tensor t;
        std::vector<natural> offsets;
        for_each_member([&](const std::string& key) {
            if (key == "dtype")
                t.dtype = string();
            else
                (key == "shape" ? t.shape : offsets) = numbers();
        });
        if (t.dtype == "F64") read<double>(t, offsets);
        if (t.dtype == "F32") read<float>(t, offsets);
        if (t.dtype == "I64") read<std::int64_t>(t, offsets);
        return t;
    }
    template <class Element>
    void read(tensor& t, const std::vector<natural>& offsets) {
        const natural n = (offsets.at(1) - offsets.at(0)) / sizeof(Element);
        for (natural i = 0; i < n; ++i) {
            Element v;
            std::memcpy(&v, data_.data() + offsets[0] + i * sizeof(Element), sizeof(Element));
            t.data.push_back(static_cast<double>(v));
        }
    }

    std::string text_, data_;
    natural position_ = 0;
};

inline tensor_file read_safetensors(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    check(static_cast<bool>(in), ("oracle: cannot open " + path).c_str());
    const std::string file((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    std::uint64_t length = 0;
    check(file.size() >= 8, "oracle: the file is too short");
    std::memcpy(&length, file.data(), 8);
    return header_parser(file, static_cast<natural>(length)).parse();
}

// ---- other memory layouts of the same weights -----------------------------------------------------------------------

/// [n, rows, columns] to [n, columns, rows].
inline values transposed(const values& v, natural n, natural rows, natural columns) {
    values out(v.size());
    for (natural e = 0; e < n; ++e)
        for (natural r = 0; r < rows; ++r)
            for (natural c = 0; c < columns; ++c) out[(e * columns + c) * rows + r] = v[(e * rows + r) * columns + c];
    return out;
}

/// [n, 2F, width] with alternating gate and up rows (gpt-oss) to gate rows first.
inline values gate_rows_first(const values& v, natural n, natural ffn, natural width) {
    values out(v.size());
    for (natural e = 0; e < n; ++e)
        for (natural f = 0; f < 2 * ffn; ++f)
            for (natural c = 0; c < width; ++c)
                out[(e * 2 * ffn + f % 2 * ffn + f / 2) * width + c] = v[(e * 2 * ffn + f) * width + c];
    return out;
}

/// Stacks [n, F, width] gates and ups into [n, 2F, width].
inline values stacked(const values& gate, const values& up, natural n) {
    values out;
    const natural size = gate.size() / n;
    for (natural e = 0; e < n; ++e) {
        for (natural i = 0; i < size; ++i) out.push_back(gate[e * size + i]);
        for (natural i = 0; i < size; ++i) out.push_back(up[e * size + i]);
    }
    return out;
}

}  // namespace oracle
