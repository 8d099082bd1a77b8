// An instruction of AMX taken apart: which one it is, its tiles, and where its memory operand lies.
#pragma once

#include <cstdint>
#include <cstring>

#include <ucontext.h>

namespace matrix_unit {

enum class operation { load_configuration, store_configuration, release, zero, load, store, multiply };

struct instruction {
    const char* flaw = nullptr;  ///< why it is none that the unit knows
    operation what = operation::release;
    int length = 0;
    int c = 0, a = 0, b = 0;  ///< tiles; loads, stores and zero have c alone
    std::uint64_t address = 0;
    std::int64_t stride = 0;
};

inline std::uint64_t value_of(const greg_t* registers, int number) {
    constexpr int places[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return static_cast<std::uint64_t>(registers[places[number]]);
}

/// The memory operand behind the ModRM byte at code[4]; tiles take base + index as address and stride apart.
inline void read_operand(const std::uint8_t* code, const greg_t* registers, instruction& to) {
    const int mode = code[4] >> 6, low = code[4] & 7;
    const int more_index = code[1] & 0x40 ? 0 : 8, more_base = code[1] & 0x20 ? 0 : 8;
    int at = 5, base = low | more_base;
    std::uint64_t index = 0;
    bool no_base = false;
    if (low == 4) {
        const int sib = code[at++], number = (sib >> 3 & 7) | more_index;
        base = (sib & 7) | more_base;
        no_base = (sib & 7) == 5 && mode == 0;
        if (number != 4) index = value_of(registers, number) << (sib >> 6);
    }
    const bool from_here = low == 5 && mode == 0;
    std::int64_t displacement = 0;
    if (mode == 1) {
        displacement = static_cast<std::int8_t>(code[at++]);
    } else if (mode == 2 || no_base || from_here) {
        std::int32_t four;
        std::memcpy(&four, code + at, sizeof four);
        displacement = four;
        at += 4;
    }
    to.length = at;
    to.stride = static_cast<std::int64_t>(index);
    to.address = static_cast<std::uint64_t>(displacement);
    if (from_here)
        to.address += static_cast<std::uint64_t>(registers[REG_RIP]) + static_cast<std::uint64_t>(at);
    else if (!no_base)
        to.address += value_of(registers, base);
}

/// What stands at `code`, with the registers that it would see.
inline instruction decode(const std::uint8_t* code, const greg_t* registers) {
    instruction it;
    const auto no = [&](const char* why) {
        it.flaw = why;
        return it;
    };
    if (code[0] != 0xc4 || (code[1] & 0x1f) != 2) return no("not an instruction of the unit");
    const int prefix = code[2] & 3, opcode = code[3], low = code[4] & 7, middle = code[4] >> 3 & 7;
    const bool in_memory = code[4] >> 6 != 3;
    const int third = ~code[2] >> 3 & 15;
    if (opcode != 0x49 && opcode != 0x4b && opcode != 0x5c) return no("not an instruction of the unit");
    if (code[2] & 0x84) return no("VEX.W or VEX.L is set");
    if (opcode != 0x5c && third != 0) return no("VEX.vvvv is used");

    if (opcode == 0x49 && prefix < 2 && in_memory) {
        if (middle != 0) return no("not an instruction of the unit");
        it.what = prefix == 0 ? operation::load_configuration : operation::store_configuration;
        read_operand(code, registers, it);
        it.address += static_cast<std::uint64_t>(it.stride);
        return it;
    }
    it.length = 5;
    if (!(code[1] & 0x80)) return no("a tile beyond the eighth");
    it.c = middle;
    if (opcode == 0x49 && prefix == 0 && code[4] == 0xc0) {
        it.what = operation::release;
    } else if (opcode == 0x49 && prefix == 3 && !in_memory && low == 0) {
        it.what = operation::zero;
    } else if (opcode == 0x4b && prefix != 0 && in_memory && low == 4) {
        it.what = prefix == 2 ? operation::store : operation::load;
        read_operand(code, registers, it);
    } else if (opcode == 0x5c && prefix == 2 && !in_memory) {
        if (third > 7 || !(code[1] & 0x20)) return no("a tile beyond the eighth");
        it.what = operation::multiply;
        it.a = low;
        it.b = third;
    } else {
        return no("not an instruction of the unit");
    }
    return it;
}

}  // namespace matrix_unit
