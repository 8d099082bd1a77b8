"""The rules of single_include/amalgamate.py, on small trees. usage: amalgamate_test.py PATH_OF_AMALGAMATE"""
import pathlib
import subprocess
import sys
import tempfile

VERSION = "#define GATEFOLD_VERSION_MAJOR 1\n#define GATEFOLD_VERSION_MINOR 2\n#define GATEFOLD_VERSION_PATCH 3\n"


def run(script, files):
    """The output for a tree of headers, or the message the script stops with."""
    with tempfile.TemporaryDirectory() as root:
        for name, text in ({"version.hpp": VERSION} | files).items():
            path = pathlib.Path(root, "gatefold", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#pragma once\n" + text)
        output = pathlib.Path(root, "single.hpp")
        command = [sys.executable, "-B", script, "--include", root, "--output", str(output)]
        result = subprocess.run(command, text=True, stderr=subprocess.PIPE)
        if result.returncode != 0:
            return "stopped: " + result.stderr
        text = output.read_text()
        assert root not in text, "an absolute path in the output"
        return text


def check(what, holds, text):
    if not holds:
        sys.exit(f"{what}; got:\n{text}")


def main():
    script = sys.argv[1]

    text = run(script, {"gatefold.hpp": "#include <vector>\n#include <gatefold/a.hpp>\n#include <gatefold/b.hpp>\n",
                        "a.hpp": "#include <vector>\nint a;\n", "b.hpp": "#include <gatefold/a.hpp>\nint b;\n"})
    check("each header once", text.count("int a;") == 1 and text.count("int b;") == 1, text)
    check("in order of inclusion", text.find("int a;") < text.find("int b;"), text)
    check("system headers once", text.count("#include <vector>") == 1, text)
    check("the version on top", text.startswith("// gatefold 1.2.3"), text)

    guarded = "#if defined(__CUDACC__)\n#include <gatefold/cuda/k.cuh>\n#endif\n"
    text = run(script, {"gatefold.hpp": "#include <gatefold/a.hpp>\n" + guarded, "a.hpp": "int a;\n",
                        "cuda/k.cuh": "#include <cstdio>\n#include <gatefold/a.hpp>\n", "z.hpp": "#include <cstdio>\n"})
    check("a device header in its guard", "// ---- gatefold/cuda/k.cuh ----" in text, text)
    check("a conditional system include does not stand for a later one", text.count("#include <cstdio>") == 2, text)

    text = run(script, {"gatefold.hpp": guarded + "#include <gatefold/a.hpp>\n", "a.hpp": "int a;\n",
                        "cuda/k.cuh": "#include <gatefold/a.hpp>\n"})
    check("a header first met in an #if and needed outside is refused", text.startswith("stopped: ") and
          "was first included inside an #if" in text, text)

    both = "#if X\n#include <gatefold/a.hpp>\n#else\n#include <gatefold/a.hpp>\n#endif\n"
    text = run(script, {"gatefold.hpp": both, "a.hpp": "int a;\n"})
    check("another branch of the same #if is another place", "was first included inside an #if" in text, text)

    text = run(script, {"gatefold.hpp": '#include "a.hpp"\n', "a.hpp": "int a;\n"})
    check("relative includes are refused", "included as <gatefold/...>" in text, text)

    text = run(script, {"gatefold.hpp": "#include <gatefold/interop/thrust.hpp>\n", "interop/thrust.hpp": ""})
    check("foreign libraries are refused", "needs a foreign library" in text, text)


if __name__ == "__main__":
    main()
