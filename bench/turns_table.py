#!/usr/bin/env python3
"""Tables from the JSON of the benchmarks that run several things in turn: versus, realtime, pack_fresh, pack_touched, scaling.

    gatefold_bench --benchmark_filter='^versus/' --benchmark_out=run.json --benchmark_out_format=json
    turns_table.py run.json [more.json ...] > results/KIND-peers.md

Of a benchmark that stands in several files the last line counts. Cells of versus are median / floor, in brackets best / floor.
"""

import json
import sys

PEER = "_best_of_floor"


def versus(lines):
    names = ["ours"] + sorted({key[:-len(PEER)] for line in lines for key in line if key.endswith(PEER)} - {"ours"})
    for threads in sorted({line["name"].rsplit(":", 1)[1] for line in lines}):
        print(f"\n## versus, {threads} thread{'s' if threads != '1' else ''}\n")
        print("| model | type | tokens | floor in µs | " + " | ".join(names) + " | ours / best peer |")
        print("|---|---" + "|--:" * (3 + len(names)) + "|")
        for line in lines:
            _, model, type_, tokens, of_threads = line["name"].split("/")
            if of_threads != f"threads:{threads}":
                continue
            cells = [f"{line[name + '_of_floor']:.2f} ({line[name + PEER]:.2f})" if name + PEER in line else "" for name in names]
            print(f"| {model} | {type_} | {tokens[7:]} | {line['floor_us']:.1f} | " + " | ".join(cells)
                  + f" | {line['to_best_peer']:.2f} |")


def realtime(lines):
    columns = ["floor_ns", "loads_ns", "median_ns", "over_floor_ns", "over_needed_ns", "p99_9_ns", "worst_ns"]
    theirs = ["rtneural_median_ns", "rtneural_p99_9_ns", "rtneural_worst_ns"]
    print("\n## realtime, one token, nanoseconds\n")
    print("| layer | " + " | ".join(name.removesuffix("_ns").replace("p99_9", "p99.9").replace("_", " ") for name in columns + theirs)
          + " | clock | calls | allocations |")
    print("|---" + "|--:" * (len(columns + theirs) + 3) + "|")
    for line in lines:
        cells = [f"{line[name]:.0f}" if name in line else "" for name in columns + theirs + ["clock_ns", "calls", "allocations"]]
        print(f"| {line['name'].split('/')[1]} | " + " | ".join(cells) + " |")


def packing(stage, lines):
    print(f"\n## {stage}\n\n| model | type | threads | MB | pack in ms | copy in ms | pack / copy | best / best |")
    print("|---|---" + "|--:" * 6 + "|")
    for line in lines:
        _, model, type_, threads = line["name"].split("/")
        print(f"| {model} | {type_} | {threads[8:]} | {line['mb']:.0f} | {line['pack_us'] / 1e3:.2f} | {line['copy_us'] / 1e3:.2f} | "
              f"{line['to_copy']:.2f} | {line['best_to_copy']:.2f} |")


def scaling(lines):
    print("\n## scaling, one thread to two\n")
    print("| model | type | tokens | one in µs | two in µs | gain | gain of the floor | of possible | best of possible |")
    print("|---|---" + "|--:" * 7 + "|")
    for line in lines:
        _, model, type_, tokens, _ = line["name"].split("/")
        print(f"| {model} | {type_} | {tokens[7:]} | {line['one_us']:.1f} | {line['two_us']:.1f} | {line['gain']:.2f} | "
              f"{line['possible_gain']:.2f} | {line['of_possible']:.2f} | {line['best_of_possible']:.2f} |")


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    found, context = {}, None
    for path in sys.argv[1:]:
        with open(path) as file:
            content = json.load(file)
        context = content["context"]
        found |= {line["name"]: line for line in content["benchmarks"] if not line.get("error_occurred")}
    print(f"{context['cpu']}; {context['num_cpus']} CPUs; tier {context['gatefold_tier']}; "
          f"last-level cache {context['last_level_cache_mib']} MiB; {context['date'][:10]}")
    tables = {"versus": versus, "realtime": realtime, "pack_fresh": lambda lines: packing("pack_fresh", lines),
              "pack_touched": lambda lines: packing("pack_touched", lines), "scaling": scaling}
    for stage, table in tables.items():
        lines = [line for name, line in found.items() if name.startswith(stage + "/")]
        if lines:
            table(lines)


if __name__ == "__main__":
    main()
