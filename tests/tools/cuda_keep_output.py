"""Runs a compiler command and keeps what it says in OBJECT.log: cuda_keep_output.py COMMAND… -o OBJECT …

Stands before nvcc as CMake's compiler launcher, so that ptxas's account of registers and spills is made by the build itself.
"""
import pathlib
import subprocess
import sys


def main():
    command = sys.argv[1:]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told = [line for line in result.stdout.splitlines(keepends=True) if not line.startswith("ptxas info")
            and "bytes stack frame" not in line]
    sys.stderr.write("".join(told))
    if result.returncode == 0 and "-o" in command:
        pathlib.Path(command[command.index("-o") + 1] + ".log").write_text(result.stdout)
    return result.returncode


sys.exit(main())
