"""Registers, shared memory and occupancy of every kernel, from what ptxas said when it compiled them.

usage: cuda_ptxas.py --release 13.0.88 --table FILE [--launches FILE] [--write | --markdown] OBJECT...

Beside each OBJECT (or list of them, separated by semicolons) lies what cuda_keep_output.py kept of `nvcc -Xptxas=-v`. The launches
of budgets.py give threads and dynamic shared memory. The table is the committed account: this fails where a kernel spills or has a
stack, where fewer blocks fit on a multiprocessor than the table says, and where shared memory grows or registers grow by more than
a few. --write renews the table. With another release of ptxas only spills are looked at.
"""
import argparse
import json
import pathlib
import re
import sys

from cuda_names import demangle, family

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(sm_\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(.*)")
# Shared memory of a multiprocessor in KiB; registers, threads and blocks are the same on both, and 1 KiB per block is the system's.
DEVICES = {"sm_80": ("A100", 164), "sm_90": ("H100", 228), "sm_90a": ("H100", 228)}
FEW_REGISTERS = 8


def read(paths):
    """(arch, mangled name) -> registers, static bytes, stack and spill bytes."""
    kernels, current = {}, None
    for path in paths:
        for line in pathlib.Path(path).read_text().splitlines():
            if m := ENTRY.search(line):
                current = kernels.setdefault((m[2], m[1]), {})
            elif current is not None and (m := STACK.search(line)):
                current["spilled"] = sum(map(int, m.groups()))
            elif current is not None and (m := USED.search(line)):
                shared = re.search(r"(\d+) bytes smem", m[2])
                current.update(registers=int(m[1]), static_bytes=int(shared[1]) if shared else 0)
                current = None
    return kernels


def blocks_per_multiprocessor(arch, registers, threads, shared):
    warps = -(-threads // 32)
    by_registers = 65536 // (-(-registers * 32 // 256) * 256) // warps
    by_shared = DEVICES[arch][1] * 1024 // (-(-(shared + 1024) // 128) * 128)
    return min(by_registers, by_shared, 64 // warps, 32)


def tabulate(kernels, launches):
    names = demangle(sorted({name for _, name in kernels}))
    table = {}
    for (arch, name), k in sorted(kernels.items()):
        row = table.setdefault(arch, {}).setdefault(family(names[name]), {"kernels": 0, "registers": [1 << 30, 0], "static_bytes": [1 << 30, 0]})
        row["kernels"] += 1
        for field in ("registers", "static_bytes"):
            row[field] = [min(row[field][0], k[field]), max(row[field][1], k[field])]
    for arch, rows in table.items():
        for name, row in rows.items():
            launch = launches.get(name) or launches.get(name.split()[0])
            if launch:
                row.update(launch)
                row["blocks"] = blocks_per_multiprocessor(arch, row["registers"][1], row["threads"],
                                                          row["static_bytes"][1] + row["dynamic_bytes"])
    return table


def compare(table, committed):
    faults, drift = [], False
    for arch, rows in table.items():
        for name, row in rows.items():
            was = committed.get(arch, {}).get(name)
            if was is None:
                faults.append(f"{arch} {name}: not in the table; renew it with --write")
                continue
            drift = drift or row != was
            checks = [("registers", row["registers"][1], was["registers"][1] + FEW_REGISTERS),
                      ("bytes of static shared memory", row["static_bytes"][1], was["static_bytes"][1])]
            if "blocks" in row and "blocks" in was:
                checks.append(("bytes of dynamic shared memory", row["dynamic_bytes"], was["dynamic_bytes"]))
                checks.append(("fewer blocks per multiprocessor", was["blocks"] - row["blocks"], 0))
            faults += [f"{arch} {name}: {got} {what}, at most {limit}" for what, got, limit in checks if got > limit]
    return faults, drift


def span(pair, unit=1):
    low, high = (round(v / unit, 1) for v in pair)
    text = [f"{v:g}" for v in (low, high)]
    return text[0] if low == high else "–".join(text)


def markdown(table):
    lines = ["| kernel | registers | threads | shared memory, KiB | blocks per multiprocessor |", "|---|--:|--:|--:|--:|"]
    for arch, rows in table.items():
        for name, row in rows.items():
            if "blocks" not in row:
                continue
            shared = [v + row["dynamic_bytes"] for v in row["static_bytes"]]
            lines.append(f"| `{name}`, {arch} | {span(row['registers'])} | {row['threads']} | {span(shared, 1024)} | {row['blocks']} |")
    return "\n".join(lines)


def text_of(release, table):
    """One line per kernel."""
    parts = [f'  "ptxas": "{release}"']
    for arch, rows in table.items():
        lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        parts.append(f'  "{arch}": {{\n{lines}\n  }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", required=True)
    parser.add_argument("--table", type=pathlib.Path, required=True)
    parser.add_argument("--launches", type=pathlib.Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("objects", nargs="+")
    options = parser.parse_args()

    kernels = read(path + ".log" for objects in options.objects for path in objects.split(";"))
    if not kernels:
        sys.exit("the logs name no kernel: was -Xptxas=-v given?")
    faults = [f"{arch} {name}: {k['spilled']} bytes of stack and spills" for (arch, name), k in kernels.items() if k["spilled"]]
    launches = json.loads(options.launches.read_text()) if options.launches and options.launches.exists() else {}
    release = ".".join(options.release.split(".")[:2])
    table = tabulate(kernels, launches)
    if options.write:
        options.table.write_text(text_of(release, table))
    committed = json.loads(options.table.read_text())
    if committed["ptxas"] == release:
        more, drift = compare(table, committed)
        faults += more
        if drift and not more:
            print("the table is not up to date, though nothing got worse; renew it with --write")
    else:
        print(f"ptxas {release}, the table is of {committed['ptxas']}: only spills are looked at")
    print(markdown(table) if options.markdown else f"{len(kernels)} kernels of {', '.join(table)}: "
          f"{sum(1 for k in kernels.values() if k['spilled'])} spill")
    for fault in faults:
        print(fault)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
