"""Kernels by short names: "multiply_tiles 128x256" from what demanglers and the emulator print."""
import re
import subprocess


def family(full_name):
    """Name of the kernel, and for tiles their rows and weight rows; kernels of one family differ in extents and epilogue."""
    name = re.search(r"(\w+)<", full_name)
    shape = re.search(r"tile_shape<(?:\(int\))?(\d+), (?:\(int\))?(\d+)", full_name)
    rows = re.search(r"\b(few|some|many)_tokens", full_name)
    suffix = f" {shape[1]}x{shape[2]}" if shape else f" {rows[1]}" if rows else ""
    return (name[1] if name else full_name) + suffix


def demangle(names):
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return dict(zip(names, text.splitlines()))


def parameters(full_name):
    """The template arguments of a kernel without what all kernels of a family share, to tell two of them apart."""
    inside = full_name[full_name.index("<") + 1:] if "<" in full_name else ""
    return re.sub(r"gatefold::v0::(detail::)?(\w+::on_cuda::)?|\(int\)", "", inside).split(">(")[0]
