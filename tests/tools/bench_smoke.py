"""The bench says what it promises: every name of the smallest model, and counters that fit together.

    bench_smoke.py PROGRAM

Lists the names, runs a few of them for a moment and reads the JSON. The times themselves mean nothing here.
"""

import json
import math
import re
import subprocess
import sys

STAGES = ["router", "plan", "experts", "combine", "layer_forward", "layer_forward_hub", "layer_backward",
          "backward_dx", "backward_dw", "dense_ffn"]
SKEWED = ["experts", "layer_forward"]
ZEROS = {"sparse_forward": [1, 16, 64, 256], "relu_forward": [1, 4]}  # stage: tokens
BLOCKING = ["blocking", "blocking_hub"]
BLOCKING_TYPES = ["f32", "bf16_dot", "bf16_portable"]
FORMS = ["packed", "zero:0", "zero:50", "zero:75", "zero:90"]
MODELS = ["tiny", "olmoe", "qwen3", "mixtral", "gptoss"]
TYPES = ["f32", "bf16"]
TOKENS = [1, 4, 16, 64, 256, 1024, 4096]
SMALL = [f"{kind}_h{width}{k}" for width in (16, 32, 64) for kind, k in (("ffn", ""), ("moe", "_k1"), ("moe", "_k2"))]
PACKED = ["tiny", "olmoe", "qwen3"]
SCALED = ["tiny", "olmoe", "qwen3", "mixtral"]
OFF_TILE = [f"h{h}_f512/{sides}-{off}" for h in (256, 1024) for sides in ("h", "f", "hf") for off in (1, 2, 8, 17, 31)]
PEERS = re.compile("versus/|layer_forward_(onednn|libxsmm|ggml)/")  # where the build found them
COUNTERS = ["floor_us", "of_floor", "best_of_floor", "gflops_peak", "dram_gbs", "distinct_experts", "tokens_per_second"]
EXPERTS, TOP_K = 8, 2  # of model tiny


def run(program, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{program} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def in_turn(program):
    """Faults of the benchmarks that run several things in turn: a few of each kind, what their counters say of one another."""
    chosen = (r"^(realtime/(ffn|moe)_h16|pack_.*/tiny/f32/|off_tile.*/h256_f512/hf-1/bf16/rows:1$"
              r"|scaling/tiny/f32/tokens:1/|versus/tiny/f32/tokens:4/threads:1$)")
    text = run(program, "--benchmark_filter=" + chosen, "--benchmark_min_time=0.01", "--benchmark_format=json")
    faults = []
    for line in json.loads(text)["benchmarks"]:
        name, stage = line["name"], line["name"].split("/")[0]
        if line.get("error_occurred"):
            faults.append(f"{name}: {line['error_message']}")
        elif stage == "realtime":
            if line["allocations"] != 0 or line["calls"] < 100000:
                faults.append(f"{name}: {line['allocations']} allocations in {line['calls']} calls")
            if not 0 < line["floor_ns"] < line["median_ns"] <= line["p99_9_ns"] <= line["worst_ns"]:
                faults.append(f"{name}: latencies out of order")
        elif stage.startswith("pack_"):
            if abs(line["pack_us"] / line["copy_us"] / line["to_copy"] - 1) > 1e-3 or line["mb"] <= 0:
                faults.append(f"{name}: to_copy is not pack over copy")
        elif stage.startswith("off_tile"):
            if not (line["over_next"] > 0 and math.isclose(line["best_over_next"], line["off_us"] / line["next_us"], rel_tol=1e-6)):
                faults.append(f"{name}: {line['off_us']} us over {line['next_us']} us is not {line['best_over_next']}")
        elif stage == "scaling":
            if not (line["possible_gain"] > 0 and math.isfinite(line["of_possible"]) and line["of_possible"] > 0):
                faults.append(f"{name}: a gain of {line['gain']} where {line['possible_gain']} is possible")
        elif not (line["ours_of_floor"] > 0 and line["to_best_peer"] > 0):
            faults.append(f"{name}: no ratio to the best peer")
    return faults


def main():
    program = sys.argv[1]
    listed = set(run(program, "--benchmark_list_tests").split())
    threads = [n for n in (1, 2) if f"layer_forward/tiny/f32/tokens:1/threads:{n}" in listed]
    expected = set()
    for model in MODELS:
        for type_ in TYPES:
            for n in threads:
                expected.add(f"adamw/{model}/{type_}/tokens:1/threads:{n}")
                for t in TOKENS:
                    expected |= {f"{stage}/{model}/{type_}/tokens:{t}/threads:{n}" for stage in STAGES}
                    expected |= {f"{stage}/{model}/{type_}/tokens:{t}/threads:{n}/skew:1" for stage in SKEWED}
    for stage, counts in ZEROS.items():
        expected |= {f"{stage}/{model}/{type_}/tokens:{t}/threads:1/{form}" for model in ("tiny", "olmoe") for type_ in TYPES
                     for t in counts for form in FORMS}
    expected |= {f"{stage}/{model}/{type_}/tokens:{t}" for stage in BLOCKING for model in ("tiny", "olmoe", "mixtral")
                 for type_ in BLOCKING_TYPES for t in (16, 64, 256, 1024)}
    expected |= {f"realtime/{layer}/f32/tokens:1/threads:1" for layer in SMALL}
    expected |= {f"pack_{kind}/{model}/{type_}/threads:{n}" for model in PACKED for type_ in TYPES for kind in ("fresh", "touched")
                 for n in (threads if kind == "fresh" else [1])}
    expected |= {f"off_tile{hub}/{pair}/{type_}/rows:{n}" for hub in ("", "_hub") for pair in OFF_TILE for type_ in TYPES for n in (1, 16, 256)}
    if 2 in threads:
        expected |= {f"scaling/{model}/{type_}/tokens:{t}/threads:2" for model in SCALED for type_ in TYPES for t in TOKENS}
    faults = [f"no benchmark {name}" for name in sorted(expected - listed)]
    if not threads:
        faults.append("no benchmark on one thread")
    foreign = [name for name in listed - expected if not name.startswith("thrust_plan/") and "/custom/" not in name and not PEERS.match(name)]
    faults += [f"unexpected benchmark {name}" for name in foreign]

    chosen = r"/tiny/.*/tokens:(1|16)/threads:1(/|$)|layer_forward/tiny/.*/tokens:16/|^blocking.*/tiny/f32/tokens:16$"
    wanted = {name for name in listed if "/tiny/" in name and ("tokens:1/threads:1" in name or "tokens:16/threads:1" in name
                                                               or name.startswith("layer_forward/") and "tokens:16/" in name)}
    wanted |= {f"{stage}/tiny/f32/tokens:16" for stage in BLOCKING}
    text = run(program, "--benchmark_filter=" + chosen, "--benchmark_min_time=0.01", "--benchmark_format=json")
    lines = json.loads(text)["benchmarks"]
    faults += [f"{name} did not run" for name in sorted(wanted - {line["name"] for line in lines})]
    for line in lines:
        name = line["name"]
        if line.get("error_occurred"):
            faults.append(f"{name}: {line['error_message']}")
            continue
        if name.startswith("blocking"):
            ways, model, best, regret = (line.get(counter, -1) for counter in ("ways", "model_us", "best_us", "regret"))
            if not (ways > 1 and 0 < best <= model and math.isclose(regret, model / best - 1, abs_tol=1e-6)):
                faults.append(f"{name}: {ways} ways, regret {regret} of {model} and {best} us")
            continue
        if PEERS.match(name):
            continue
        for counter in COUNTERS:
            value = line.get(counter)
            if value is None or not math.isfinite(value) or value <= 0:
                faults.append(f"{name}: {counter} is {value}")
                break
        else:
            if name.startswith("backward_d") and not 0 < line.get("of_peak", 0) < 1.2:
                faults.append(f"{name}: of_peak is {line.get('of_peak')}")
            experts = line["distinct_experts"]
            single = name.startswith(("dense_ffn", "adamw"))
            if not (experts == 1 if single else TOP_K <= experts <= EXPERTS):
                faults.append(f"{name}: {experts} distinct experts")
            if line["best_of_floor"] > line["of_floor"] * 1.001:
                faults.append(f"{name}: the best call is slower than the mean")
            # The mean is timed call by call, the column CPU over the whole loop; on one thread they are the same clock.
            if "/threads:1" in name and line["time_unit"] == "us":
                ratio = line["cpu_time"] / line["floor_us"] / line["of_floor"]
                if not 0.8 < ratio < 1.5:
                    faults.append(f"{name}: of_floor is not time over floor ({ratio:.2f})")
    faults += in_turn(program)
    if faults:
        sys.exit("\n".join(faults))
    print(f"{len(listed)} names, {len(lines)} run")


if __name__ == "__main__":
    main()
