"""CPU time and object size of one CUDA layer, compiled for two architectures.

usage: cuda_compile_budget.py --nvcc PATH --include DIR --source FILE --time RATIO --object BYTES [--repeat N]

The time (user + system, the least of several runs taken in turn) is a ratio to a file that only includes the CUB headers that the
library uses, compiled with the same flags in the same run.
"""
import argparse
import pathlib
import re
import resource
import subprocess
import sys
import tempfile

FLAGS = ["-std=c++20", "-O2", "-gencode", "arch=compute_80,code=sm_80", "-gencode", "arch=compute_90,code=sm_90"]


def compile_seconds(nvcc, include, source, output):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([nvcc, *FLAGS, "-I", include, "-c", source, "-o", output], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)
    if result.returncode:
        sys.exit(f"{source} does not compile:\n{result.stdout}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--include", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--time", type=float, required=True)
    parser.add_argument("--object", type=int, required=True)
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()

    used = set()
    for header in pathlib.Path(options.include, "gatefold", "cuda").rglob("*.cuh"):
        used.update(re.findall(r"^#include (<cub/[^>]+>)", header.read_text(), re.M))
    if not used:
        sys.exit("the library includes no CUB header: the budget has no baseline")
    with tempfile.TemporaryDirectory() as folder:
        baseline, output = pathlib.Path(folder, "baseline.cu"), pathlib.Path(folder, "layer.o")
        baseline.write_text("".join(f"#include {name}\n" for name in sorted(used)))
        base, layer = [], []
        for _ in range(options.repeat):
            base.append(compile_seconds(options.nvcc, options.include, str(baseline), f"{folder}/baseline.o"))
            layer.append(compile_seconds(options.nvcc, options.include, options.source, str(output)))
        size = output.stat().st_size
    ratio = min(layer) / min(base)
    print(f"one layer, two architectures: {min(layer):.1f} s, its CUB headers alone {min(base):.1f} s, ratio {ratio:.2f} of at most "
          f"{options.time}; object {size / 1e6:.2f} MB of at most {options.object / 1e6:.2f}")
    return ratio > options.time or size > options.object


if __name__ == "__main__":
    sys.exit(main())
