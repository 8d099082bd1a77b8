"""No function that the plainest objects of a program define may run another object's instructions.

    tiers_apart.py PROGRAM OBJECT...

The linker keeps one copy of an inline function that several objects define. In a program whose objects are compiled for
different instruction sets that copy must be the plainest one. OBJECT... are the objects compiled for the plainest set; the
program's functions of the names that these define must not use the registers of AVX or AVX-512.
"""

import re
import subprocess
import sys


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def defined(path):
    lines = output("nm", "--defined-only", path).splitlines()
    return {words[2] for words in map(str.split, lines) if len(words) == 3 and words[1] in "TWVu"}


program, objects = sys.argv[1], sys.argv[2:]
plain = set().union(*map(defined, objects))
wide, function, seen = {}, None, 0
for line in output("objdump", "-d", "--no-show-raw-insn", program).splitlines():
    head = re.fullmatch(r"[0-9a-f]+ <(.*)>:", line)
    if head:
        function = head[1]
        seen += function in plain
    elif function in plain and re.search(r"%[yz]mm\d", line):
        wide.setdefault(function, line.split("\t", 1)[1])
if not seen:
    sys.exit(f"none of {len(plain)} functions of {objects} is in {program}")
for name, instruction in wide.items():
    print(f"{output('c++filt', name).strip()[:200]}\n    {instruction}")
print(f"{seen} functions looked at, {len(wide)} with instructions of other objects")
sys.exit(1 if wide else 0)
