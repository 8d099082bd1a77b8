#!/usr/bin/env python3
"""Whole layers against the aims of the CPU wing, from the JSON of gatefold_bench.

    gatefold_bench --benchmark_filter='^(layer_forward|versus)/.*/threads:1$' --benchmark_out=run.json --benchmark_out_format=json
    targets.py run.json [more.json ...]

A cell is the best call over the floor. It is met at its aim, or where the call takes at most 0.9 of the fastest peer's in the same
run (`versus`, medians). Regimes with an aim are calls of up to 4 tokens, and rows that uniform routing brings to an expert; of a
benchmark that stands in several files the last line counts.
"""

import json
import re
import sys

from table import MODELS, REGIMES

NAME = re.compile(r"(layer_forward|versus)/(\w+)/(\w+)/tokens:(\d+)/threads:1$")
OF_PEER = 0.9
# Regime: aims for float, and for bf16. By the tier that ran: AVX-512 on AMD, AMX on Intel.
AIMS = {
    "avx512_bf16": {"1-4 tokens": (1.05, 1.05), "4-8 rows": (1.10, 1.12), "16 rows": (1.10, 1.10), "32 rows": (1.15, 1.10),
                    "64 rows": (1.15, 1.10), "128 rows and more": (1.15, 1.08)},
    "amx": {"1-4 tokens": (1.05, 1.08), "4-8 rows": (1.10, 1.10), "16 rows": (1.10, 1.10), "32 rows": (1.25, 1.12),
            "64 rows": (1.30, 1.25), "128 rows and more": (1.30, 1.75)},
}
AIM_OF_MANY_ROWS = 2.3  # bf16 on AMX from 252 rows on, where operands no longer come from the first-level cache


def aim(tier, regime, type_, rows):
    aims = AIMS[tier].get(regime)
    if aims is None:
        return None
    if tier == "amx" and type_ == "bf16" and rows >= 252:
        return AIM_OF_MANY_ROWS
    return aims[type_ == "bf16"]


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    best, peers, tier = {}, {}, None
    for path in sys.argv[1:]:
        with open(path) as file:
            content = json.load(file)
        of_file = next((name for name in AIMS if content["context"]["gatefold_tier"].removesuffix("_openmp") == name), None)
        if of_file is None or tier not in (None, of_file):
            sys.exit(f"{path}: tier {content['context']['gatefold_tier']}; there are aims for one of {', '.join(AIMS)} at a time")
        tier = of_file
        for line in content["benchmarks"]:
            match = NAME.match(line["name"])
            if not match or line.get("error_occurred") or match[2] not in MODELS:
                continue
            cell = match[2], match[3], int(match[4])
            if match[1] == "layer_forward":
                best[cell] = line["best_of_floor"]
            else:
                peers[cell] = line["to_best_peer"]

    print("| regime | model | type | tokens | best call / floor | aim | ours / best peer | met |\n|---|---|---|--:|--:|--:|--:|---|")
    count = met_count = 0
    for regime, holds in REGIMES:
        for cell in sorted(best, key=lambda c: (c[1] != "f32", list(MODELS).index(c[0]), c[2])):
            model, type_, tokens = cell
            rows = tokens * MODELS[model][1] / MODELS[model][0]
            wanted = aim(tier, regime, type_, rows)
            if wanted is None or not holds(tokens, rows):
                continue
            peer = peers.get(cell)
            by_floor, by_peer = round(best[cell], 2) <= wanted, peer is not None and round(peer, 2) <= OF_PEER
            count, met_count = count + 1, met_count + (by_floor or by_peer)
            print(f"| {regime} | {model} | {type_} | {tokens} | {best[cell]:.2f} | {wanted:.2f} | {'' if peer is None else f'{peer:.2f}'} | "
                  f"{'yes' if by_floor else 'by the peer' if by_peer else 'no'} |")
    print(f"\n{met_count} of {count} cells.")


if __name__ == "__main__":
    main()
