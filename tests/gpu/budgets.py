"""What a forward call on CUDA asks of the hardware, against committed limits: budgets.py PROGRAM OUTPUT LAUNCHER...

PROGRAM is the built budgets/main.cpp; LAUNCHER the emulator, whose counters (COC_JSON) this reads. OUTPUT gets one record per
layer and number of tokens, cuda_launches.json beside it the threads and dynamic shared memory of every kernel. Exit status 77
(skipped) where no counters are to be had.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tools"))
from cuda_names import family  # noqa: E402

LAUNCH = re.compile(r"cuda-on-cpu: void (.*)<<<\((\d+),(\d+),(\d+)\), \((\d+),(\d+),(\d+)\), (\d+)>>>")

# Kernels that move less than this share of a call's bytes have no limit of their own,
SMALL = 1e-4
# nor has the one that misses it: a scatter of 4-byte rows by expert. Limited is what its half-used sectors add to the call's.
SCATTER = "scatter_pairs"
# What the first call of a process asks the device, once.
ONCE = "compare_products"


def run(command, **variables):
    result = subprocess.run(command, env=dict(os.environ, **variables), capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return result


def count(program, launcher, layer, tokens, folder, launches):
    """The record of one call; None without counters."""
    path = pathlib.Path(folder) / f"{layer}_{tokens}.json"
    command = [*launcher, program, layer, str(tokens)]
    trace = run(command, COC_JSON=str(path), COC_TRACE="1").stderr
    if not path.exists():
        return None
    for match in LAUNCH.finditer(trace):
        x, y, z, dynamic = map(int, match.groups()[4:])
        threads = max(x * y * z, launches.get(family(match[1]), {}).get("threads", 0))
        launches[family(match[1])] = {"threads": threads, "dynamic_bytes": dynamic}
    facts = json.loads(run([*command, "facts"], COC_COUNT="0").stdout)
    kernels = [k for k in json.loads(path.read_text())["kernels"] if ONCE not in k["full_name"]]
    for k in kernels:
        k["moved"] = k["global_load_distinct_bytes"] + k["global_store_distinct_bytes"]
        k["touched"] = 32 * (k["global_load_sectors"] + k["global_store_sectors"])
    scattered = [k for k in kernels if SCATTER in k["full_name"]]
    moved, dram = sum(k["moved"] for k in kernels), sum(k["global_unique_bytes"] for k in kernels)
    products = [k for k in kernels if k["mma_flops"] > 0]
    mma = sum(k["mma_flops"] for k in products)
    return {
        "layer": layer,
        "tokens": tokens,
        "launches": sum(k["launches"] for k in kernels),
        "dram_bytes": dram,
        "minimum_bytes": facts["minimum_bytes"],
        "bytes_over_minimum": round(dram / facts["minimum_bytes"], 4),
        "sector_efficiency": round(moved / sum(k["touched"] for k in kernels), 4),
        "worst_sector_efficiency": min(k["sector_efficiency"] for k in kernels
                                       if k["moved"] > SMALL * moved and SCATTER not in k["full_name"]),
        "scatter_waste": round(sum(k["touched"] - k["moved"] for k in scattered) / sum(k["touched"] for k in kernels), 6),
        "products_sector_efficiency": min(k["sector_efficiency"] for k in products),
        "bank_conflict_factor": max(k["bank_conflict_factor"] for k in products),
        "mma_flops": mma,
        "useful_flops": facts["useful_flops"],
        "mma_over_useful": round(mma / facts["useful_flops"], 4),
        "stages": [{
            "kernel": family(k["full_name"].removeprefix("void ")),
            "launches": k["launches"],
            "dram_bytes": k["global_unique_bytes"],
            "sector_efficiency": k["sector_efficiency"],
            "reread_factor": k["reread_factor"],
            "bank_conflict_factor": k["bank_conflict_factor"],
            "mma_flops": k["mma_flops"],
        } for k in kernels],
    }


def main():
    program, output, launcher = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
    budgets = json.loads((pathlib.Path(__file__).parent / "budgets.json").read_text())
    records, faults, launches = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        for case in budgets["cases"]:
            record = count(program, launcher, case["layer"], case["tokens"], folder, launches)
            if record is None:
                print("skipped: no counters; the launcher is not the emulator")
                return 77
            limits = {**budgets["limits"], **{k: v for k, v in case.items() if k not in ("layer", "tokens")}}
            records.append(record)
            for name, limit in limits.items():
                least = name.endswith("sector_efficiency")
                if record[name] < limit if least else record[name] > limit:
                    faults.append(f"{case['layer']}, {case['tokens']} tokens: {name} {record[name]:.4g}, limit {limit}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(records, indent=1) + "\n")
    (output.parent / "cuda_launches.json").write_text(json.dumps(launches, indent=1) + "\n")
    for r in records:
        print(f"{r['layer']:12} {r['tokens']:5} launches {r['launches']}  bytes/minimum {r['bytes_over_minimum']:.3f}  "
              f"sectors {r['sector_efficiency']:.3f} (products {r['products_sector_efficiency']:.3f})  "
              f"banks {r['bank_conflict_factor']:.3f}  mma/useful {r['mma_over_useful']:.2f}")
    for fault in faults:
        print("over budget:", fault)
    return bool(faults)


sys.exit(main())
