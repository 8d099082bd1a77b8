"""What a forward call on CUDA asks of the hardware, against committed limits: budgets.py PROGRAM OUTPUT LAUNCHER...

PROGRAM is the built budgets.cu; LAUNCHER the emulator, whose counters (COC_JSON) this reads. OUTPUT gets one record per
layer and number of tokens. Exit status 77 (skipped) where no counters are to be had.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile


def run(command, counters):
    environment = dict(os.environ, COC_JSON=str(counters))
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def count(program, launcher, layer, tokens, folder):
    """The record of one call."""
    path = pathlib.Path(folder) / f"{layer}_{tokens}.json"
    command = [*launcher, program, layer, str(tokens)]
    run(command, path)
    if not path.exists():
        return None
    kernels = [k for k in json.loads(path.read_text())["kernels"] if not k["name"].startswith("pack_")]
    facts = json.loads(run([*command, "facts"], pathlib.Path(folder) / "unused.json"))
    products = [k for k in kernels if k["name"].startswith("multiply_")]
    moved = lambda k: k["global_load_distinct_bytes"] + k["global_store_distinct_bytes"]
    touched = lambda k: 32 * (k["global_load_sectors"] + k["global_store_sectors"])
    return {
        "layer": layer,
        "tokens": tokens,
        "launches": sum(k["launches"] for k in kernels),
        "dram_bytes": sum(k["global_unique_bytes"] for k in kernels),
        "minimum_bytes": facts["minimum_bytes"],
        "bytes_over_minimum": sum(k["global_unique_bytes"] for k in kernels) / facts["minimum_bytes"],
        "sector_efficiency": sum(map(moved, kernels)) / sum(map(touched, kernels)),
        "worst_kernel": min(kernels, key=lambda k: k["sector_efficiency"])["name"].split("<")[0],
        "worst_sector_efficiency": min(k["sector_efficiency"] for k in kernels),
        "bank_conflict_factor": max(k["bank_conflict_factor"] for k in products),
        "mma_flops": sum(k["mma_flops"] for k in products),
        "useful_flops": facts["useful_flops"],
        "mma_over_useful": sum(k["mma_flops"] for k in products) / facts["useful_flops"],
    }


def main():
    program, output, launcher = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
    budgets = json.loads((pathlib.Path(__file__).parent / "budgets.json").read_text())
    records, faults = [], []
    with tempfile.TemporaryDirectory() as folder:
        for case in budgets["cases"]:
            record = count(program, launcher, case["layer"], case["tokens"], folder)
            if record is None:
                print("skipped: no counters; the launcher is not the emulator")
                sys.exit(77)
            limits = {**budgets["limits"], **{k: v for k, v in case.items() if k not in ("layer", "tokens")}}
            records.append(record)
            for name, limit in limits.items():
                least = name == "sector_efficiency"
                if record[name] < limit if least else record[name] > limit:
                    faults.append(f"{case['layer']}, {case['tokens']} tokens: {name} {record[name]:.4g}, limit {limit}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(records, indent=1) + "\n")
    for r in records:
        print(f"{r['layer']:8} {r['tokens']:5} launches {r['launches']}  bytes/minimum {r['bytes_over_minimum']:.3f}  "
              f"sectors {r['sector_efficiency']:.3f} (worst {r['worst_kernel']} {r['worst_sector_efficiency']:.2f})  "
              f"banks {r['bank_conflict_factor']:.2f}  mma/useful {r['mma_over_useful']:.2f}")
    for fault in faults:
        print("over budget:", fault)
    sys.exit(bool(faults))


main()
