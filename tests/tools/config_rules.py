"""Every rule of GATEFOLD_CONFIG_RULES has its pair in tests/compile_fail.

usage: config_rules.py --compiler PATH --include DIR --pairs DIR
"""
import argparse
import pathlib
import re
import subprocess
import sys

from compile_pair import expected_sentences


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--include", required=True)
    parser.add_argument("--pairs", type=pathlib.Path, required=True)
    options = parser.parse_args()

    # The preprocessor knows the list best: each sentence comes out between marks, as one or more string literals.
    text = "#include <gatefold/config.hpp>\n#define SENTENCE(test, text) @@ text @@\nGATEFOLD_CONFIG_RULES(SENTENCE)\n"
    command = [options.compiler, "-std=c++20", "-E", "-P", "-I", options.include, "-x", "c++", "-"]
    expanded = subprocess.run(command, input=text, text=True, stdout=subprocess.PIPE, check=True).stdout
    rules = ["".join(re.findall(r'"((?:[^"\\]|\\.)*)"', rule)) for rule in re.findall(r"@@(.*?)@@", expanded, re.S)]
    if not rules:
        sys.exit("config.hpp lists no rules")

    expected = {sentence for file in options.pairs.glob("*.cpp") for sentence in expected_sentences(file)}
    missing = [rule for rule in rules if rule not in expected]
    if missing:
        sys.exit("no file in tests/compile_fail expects:\n  " + "\n  ".join(missing))
    print(f"{len(rules)} rules, each with a pair")


if __name__ == "__main__":
    main()
