"""What the compiler made of the micro-kernels: multiply-adds per load in the main loop, and nothing spilled inside it.

usage: disassembly.py --include DIR --compiler CXX FILE

FILE is compiled for every instruction set below. The main loop of a kernel multiply<Form, R, NV, Around> (R rows, NV registers of
outputs) must do R · NV multiply-adds for R + NV loads and must not touch the stack; the loop over tiles of a matrix unit must do
as many products as it loads tiles. Prints one line per kernel.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

TIERS = {
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4"],
    "avx512_bf16": ["-march=x86-64-v4", "-mavx512bf16"],
    "amx": ["-march=x86-64-v4", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
}
KERNEL = re.compile(r"on_cpu::multiply<.*?::(chain<float, float>|dot_form), (\d+), (\d+), (?:true|false)>\(")
ARITHMETIC = re.compile(r"vfn?m(add|sub)\d*p|vdpbf16ps")
ADDRESS = re.compile(r"^(?:[0-9a-f]+)$")


def functions(program):
    """(name, [(address, mnemonic, operands)]) of every function."""
    text = subprocess.run(["objdump", "-dC", "--no-show-raw-insn", program], check=True, capture_output=True, text=True).stdout
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        head = re.fullmatch(r"[0-9a-f]+ <(.*)>:", lines[0]) if lines else None
        if not head:
            continue
        code = []
        for line in lines[1:]:
            address, _, rest = line.partition(":")
            words = rest.split(None, 1)
            if words:
                code.append((int(address.strip(), 16), words[0], words[1] if len(words) > 1 else ""))
        yield head[1], code


def loops(code):
    """The bodies of backward jumps, shortest first."""
    found = []
    for i, (address, mnemonic, operands) in enumerate(code):
        if mnemonic.startswith("j") and ADDRESS.match(operands.split()[0]):
            target = int(operands.split()[0], 16)
            if code[0][0] <= target <= address:
                found.append([c for c in code[: i + 1] if c[0] >= target])
    return sorted(found, key=len)


def main_loop(code, wanted):
    """Of the loops around what is wanted that hold no other such loop, the one with most of it and fewest loads of tiles."""
    around = [b for b in loops(code) if any(wanted(m) for _, m, _ in b)]
    inner = [b for b in around if not any(o is not b and o[0][0] >= b[0][0] and o[-1][0] <= b[-1][0] for o in around)]
    return max(inner, key=lambda b: (sum(wanted(m) for _, m, _ in b), -sum(m.startswith("tileload") for _, m, _ in b)))


def is_load(mnemonic, operands):
    """A read from memory into a vector register, alone or as an operand."""
    if not mnemonic.startswith("v") or "(" not in operands:
        return False
    return not operands.rstrip().endswith(")")  # AT&T: the destination is last


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--include", required=True)
    parser.add_argument("--compiler", required=True)
    parser.add_argument("file")
    options = parser.parse_args()

    failures = seen = 0
    for tier, flags in TIERS.items():
        with tempfile.TemporaryDirectory() as folder:
            program = str(pathlib.Path(folder, "kernels.o"))
            command = [options.compiler, "-std=c++20", "-O3", *flags, f"-I{options.include}", "-c", options.file, "-o", program]
            subprocess.run(command, check=True)
            kernels = 0
            for name, code in functions(program):
                kernel = KERNEL.search(name)
                if kernel:
                    kernels += 1
                    form, rows, streams = kernel[1], int(kernel[2]), int(kernel[3])
                    body = main_loop(code, lambda m: bool(ARITHMETIC.match(m)))
                    products = sum(bool(ARITHMETIC.match(m)) for _, m, _ in body)
                    loads = sum(is_load(m, o) for _, m, o in body)
                    stack = sum("%rsp" in o and m.startswith("v") for _, m, o in body)
                    # Without the instruction a pair of bf16 is two multiply-adds on numbers widened in registers.
                    each = 2 if form == "dot_form" and "avx512bf16" not in " ".join(flags) else 1
                    fine = stack == 0 and products * (rows + streams) >= each * rows * streams * loads
                    what = f"{form}, {rows} x {streams}: {products} multiply-adds, {loads} loads, {stack} on the stack"
                elif any(m.startswith("tdp") for _, m, _ in code):
                    # Loops for 16 and for 32 rows; the second is the main one.
                    body = main_loop(code, lambda m: m.startswith("tdp"))
                    products = sum(m.startswith("tdp") for _, m, _ in body)
                    loads = sum(m.startswith("tileload") for _, m, _ in body)
                    fine = products >= loads
                    what = f"{name.split('(')[0][-60:]}: {products} products of tiles, {loads} tiles loaded"
                else:
                    continue
                seen += 1
                failures += not fine
                print(f"{tier:12} {what}{'' if fine else '   <---'}")
            if kernels == 0:
                failures += 1
                print(f"{tier:12} no kernel multiply<...> found")
    print(f"{seen} kernels, {failures} failures")
    return 1 if failures or not seen else 0


if __name__ == "__main__":
    sys.exit(main())
