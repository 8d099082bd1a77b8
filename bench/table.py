#!/usr/bin/env python3
"""Tables from the JSON of gatefold_bench and gatefold_bench_cuda: how far each call is from its floor.

    gatefold_bench --benchmark_filter='^layer_forward/' --benchmark_out=run.json --benchmark_out_format=json
    table.py run.json [more.json ...] > results/KIND.md

Benchmarks that run several things in turn (versus, realtime, pack_*, scaling) have tables of their own: turns_table.py.

One table per stage and number of threads: model and type down, tokens across; then, for whole packed layers, the range of every
regime (tokens, or rows per expert). A cell is the best call over the floor, and the mean in brackets. For a CUDA device a cell is the
mean time in microseconds and, in brackets, the best replay over the floor.
"""

import json
import re
import sys
from collections import defaultdict

MODELS = {"tiny": (8, 2), "olmoe": (64, 8), "qwen3": (128, 8), "gptoss": (32, 4), "mixtral": (8, 2)}  # experts, top-k
NAME = re.compile(r"(\w+)/(\w+)/(\w+)/tokens:(\d+)/threads:(\d+)(/skew:1)?$")
REGIMES = [  # by tokens, then by rows that uniform routing brings to an expert
    ("1-4 tokens", lambda tokens, rows: tokens <= 4),
    ("below 4 rows", lambda tokens, rows: tokens > 4 and rows < 4),
    ("4-8 rows", lambda tokens, rows: tokens > 4 and 4 <= rows <= 8),
    ("16 rows", lambda tokens, rows: 8 < rows <= 16),
    ("32 rows", lambda tokens, rows: 16 < rows <= 32),
    ("64 rows", lambda tokens, rows: 32 < rows <= 64),
    ("128 rows and more", lambda tokens, rows: rows > 64),
]


DEVICE_NAME = re.compile(r"(\w+)/(\w+)/(\w+)/tokens:(\d+)/manual_time$")
DEVICE_STAGES = ["layer_forward", "experts", "dense_ffn", "router", "combine", "plan", "radix_sort_plan", "thrust_sort_plan"]


def rate(text):
    return f"{float(text) / 1000:.0f} TFLOP/s"


def device_tables(contents):
    tables = defaultdict(dict)
    for content in contents:
        for line in content["benchmarks"]:
            match = DEVICE_NAME.match(line["name"])
            if match and not line.get("error_occurred"):
                stage, model, type_, tokens = match.groups()
                tables[stage][model, type_, int(tokens)] = line
    context = contents[0]["context"]
    print(f"{context['device']}; {context['multiprocessors']} multiprocessors; second-level cache {context['l2_cache_mib']} MiB; "
          f"{context['date'][:10]}")
    print(f"Probed: float multiply-add {rate(context['float_fma_gflops'])}, bf16 mma.sync {rate(context['bf16_mma_sync_gflops'])}, "
          f"bf16 wgmma {rate(context['bf16_wgmma_gflops'])}, reading {context['read_gbs']} GB/s, copying {context['copy_gbs']} GB/s.")
    for stage in DEVICE_STAGES:
        table = tables.get(stage)
        if not table:
            continue
        tokens = sorted({key[2] for key in table})
        print(f"\n## {stage}\n")
        print("| model | type | " + " | ".join(f"T = {t}" for t in tokens) + " |")
        print("|---|---" + "|--:" * len(tokens) + "|")
        for model, type_ in dict.fromkeys(key[:2] for key in table):
            cells = [table.get((model, type_, t)) for t in tokens]
            whole = [stage in ("layer_forward", "experts", "dense_ffn") and c for c in cells]
            print(f"| {model} | {type_} | " + " | ".join(
                f"{c['real_time']:.1f}" + (f" ({c['best_of_floor']:.2f})" if w else "") if c else "" for c, w in zip(cells, whole)) + " |")


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    tables, contexts, contents = defaultdict(dict), [], []
    for path in sys.argv[1:]:
        with open(path) as file:
            content = json.load(file)
        contexts.append(content["context"])
        contents.append(content)
        for line in content["benchmarks"]:
            match = NAME.match(line["name"])
            if match and not line.get("error_occurred") and "of_floor" in line:
                stage, model, type_, tokens, threads, skew = match.groups()
                tables[stage, int(threads)][model, type_, bool(skew), int(tokens)] = line

    context = contexts[0]
    if "device" in context:
        return device_tables(contents)
    lines = [line for table in tables.values() for line in table.values()]
    print(f"{context.get('cpu', 'unknown')}; {context['num_cpus']} CPUs; tier {context['gatefold_tier']}; "
          f"last-level cache {context['last_level_cache_mib']} MiB; {context['date'][:10]}")
    for type_ in ("f32", "bf16"):
        of_type = [line for line in lines if f"/{type_}/" in line["name"]]
        if of_type:
            rates = sorted(line["dram_gbs"] for line in of_type)
            print(f"Probed for {type_}: {max(line['gflops_peak'] for line in of_type):.0f} GFLOP/s, memory "
                  f"{rates[0]:.0f} to {rates[-1]:.0f} GB/s.")

    for (stage, threads), table in sorted(tables.items()):
        tokens = sorted({key[3] for key in table})
        print(f"\n## {stage}, {threads} thread{'s' if threads > 1 else ''}\n")
        print("| model | type | routing | " + " | ".join(f"T = {t}" for t in tokens) + " |")
        print("|---" * (3 + len(tokens)) + "|")
        rows = list(dict.fromkeys(key[:3] for key in table))
        for model, type_, skew in rows:
            cells = [table.get((model, type_, skew, t)) for t in tokens]
            print(f"| {model} | {type_} | {'Zipf' if skew else 'uniform'} | " + " | ".join(
                f"{c['best_of_floor']:.2f} ({c['of_floor']:.2f})" if c else "" for c in cells) + " |")
        if stage != "layer_forward":
            continue
        print("\n| regime | f32 | bf16 |\n|---|---|---|")
        for regime, holds in REGIMES:
            cells = []
            for type_ in ("f32", "bf16"):
                found = sorted(line["best_of_floor"] for (model, t, skew, n), line in table.items()
                               if t == type_ and not skew and model in MODELS
                               and holds(n, n * MODELS[model][1] / MODELS[model][0]))
                cells.append(f"{found[0]:.2f} to {found[-1]:.2f}, median {found[len(found) // 2]:.2f}" if found else "")
            print(f"| {regime} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
