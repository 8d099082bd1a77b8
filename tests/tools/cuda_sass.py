"""The machine code of the products: what share of the main loop multiplies, how global memory is accessed.

usage: cuda_sass.py --nvcc PATH [--ragged NAME]... OBJECT...   (or lists of objects, separated by semicolons)

cuobjdump and nvdisasm are looked for on PATH, beside nvcc, and in Python's packages (nvidia-cuda-cuobjdump, nvidia-cuda-nvdisasm);
without them the status is 77 (skipped). Objects named --ragged have widths that no tile divides: their share is shown, not limited.

The share is that of the cheapest way through the loop that executes the most tensor-core instructions and copies: the rare branch in
which the cursor of the loads moves to another tile lies in the loop's range of addresses and would be counted otherwise.
"""
import argparse
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys

from cuda_names import demangle, family

BRANCH = re.compile(r"(?:BRA|CALL\.REL\.NOINC)(?:\.\S+)?\s+.*?0x([0-9a-f]+)")
GAIN = ("HMMA", "HGMMA", "LDGSTS")
# The least share of tensor-core instructions where it is not a half. The smallest tiles are there to keep more multiprocessors reading.
SHARES = {"multiply_tiles 64x64": 0.25}


def find_tools(nvcc):
    folders = [str(pathlib.Path(nvcc).resolve().parent)]
    for path in sys.path:
        folders += map(str, pathlib.Path(path or ".").glob("nvidia/*/bin"))
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *folders])
    return shutil.which("cuobjdump") and shutil.which("nvdisasm")


def opcode(text):
    return re.sub(r"^@!?U?P\w+\s+", "", text).split()[0]


def functions(path):
    """(arch, mangled name) -> [(address, instruction)]."""
    out = subprocess.run(["cuobjdump", "-sass", path], capture_output=True, text=True, check=True).stdout
    found, arch, code = {}, "", None
    for line in out.splitlines():
        if m := re.match(r"\s*arch = (sm_\w+)", line):
            arch = m[1]
        elif m := re.search(r"Function : (\S+)", line):
            code = found[arch, m[1]] = []
        elif code is not None and (m := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", line)):
            code.append((int(m[1], 16), m[2].strip()))
    return found


def fast_path(code, low, high):
    """(tensor-core instructions, instructions) of the cheapest best way from `low` to the branch back at `high`."""
    index = {a: i for i, (a, _) in enumerate(code)}
    first, last = index[low], index[high]
    best = [None] * (last + 2)  # (what is gained, -instructions, tensor-core instructions) from here to the branch back
    for i in range(last, first - 1, -1):
        address, text = code[i]
        name = opcode(text).split(".")[0]
        gain, mma = name in GAIN, name in GAIN[:2]
        if i == last:
            best[i] = (gain, -1, mma)
            continue
        ways = []
        m = BRANCH.search(text)
        if m and address < int(m[1], 16) <= high:
            ways.append(best[index[int(m[1], 16)]])
        if not m or text.startswith("@"):
            ways.append(best[i + 1])
        ways = [w for w in ways if w]
        if ways:
            g, n, t = max(ways)
            best[i] = (g + gain, n - 1, t + mma)
    return best[first][2], -best[first][1]


def main_loop(code):
    """The innermost loop with the most tensor-core instructions, as (tensor-core, all) instructions of its fast path."""
    loops = []
    for address, text in code:
        m = BRANCH.search(text)
        if m and "BRA" in text and int(m[1], 16) < address:
            low = int(m[1], 16)
            count = sum(opcode(t).split(".")[0] in GAIN[:2] for a, t in code if low <= a <= address)
            if count:
                loops.append((low, address, count))
    inner = [x for x in loops if not any(x is not y and x[0] <= y[0] and y[1] <= x[1] for y in loops)]
    if not inner:
        return None
    low, high, _ = max(inner, key=lambda x: x[2])
    return fast_path(code, low, high)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--ragged", action="append", default=[])
    parser.add_argument("objects", nargs="+")
    options = parser.parse_args()
    if not find_tools(options.nvcc):
        print("skipped: no cuobjdump and nvdisasm (toolkit, or PyPI nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm)")
        return 77

    faults, looked_at = [], 0
    for path in (path for objects in options.objects for path in objects.split(";")):
        layer = pathlib.Path(path).name.split(".")[0]
        code_of = functions(path)
        names = demangle([name for _, name in code_of])
        for (arch, name), code in code_of.items():
            kernel = family(names[name])
            where = f"{layer} {arch} {kernel}"
            every = collections.Counter(opcode(t) for _, t in code)
            local = sum(n for op, n in every.items() if op.split(".")[0] in ("LDL", "STL"))
            if local:
                faults.append(f"{where}: {local} accesses of local memory")
            if not kernel.startswith("multiply_"):
                continue
            if kernel == "multiply_by_warpgroups":
                # One instruction multiplies for 128 threads: that it is there says more than its share. Empty before sm_90a.
                if arch == "sm_90a" and not any(op.startswith("HGMMA") for op in every):
                    faults.append(f"{where}: no HGMMA")
                if arch != "sm_90a":
                    continue
            looked_at += 1
            copies = {op: n for op, n in every.items() if op.startswith("LDGSTS")}
            stores = {op: n for op, n in every.items() if op.startswith("STG")}
            if not copies or not all(".128" in op for op in copies):
                faults.append(f"{where}: copies that are not of 128 bits: {copies}")
            if not any(".128" in op for op in stores) and layer not in options.ragged and "few" not in kernel:
                faults.append(f"{where}: no store of 128 bits: {stores}")
            if kernel in ("multiply_few", "multiply_by_warpgroups"):
                continue
            loop = main_loop(code)
            if loop is None:
                faults.append(f"{where}: no loop with tensor-core instructions")
                continue
            mma, all_of_them = loop
            print(f"{where}: {mma} of {all_of_them} instructions of the main loop multiply, {mma / all_of_them:.0%}; "
                  f"{sum(copies.values())} copies, {sum(stores.values())} stores")
            share = SHARES.get(kernel, 0.50)
            if mma / all_of_them < share and layer not in options.ragged:
                faults.append(f"{where}: {mma / all_of_them:.1%} of the main loop's instructions multiply, at least {share:.1%}")
    if not looked_at:
        faults.append("no kernel with products in these objects")
    for fault in faults:
        print("fault:", fault)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
