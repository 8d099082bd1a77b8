"""The program train_text from outside: bad arguments, interruption, resuming, the files it writes.

    train_text_test.py PROGRAM [TEST...]        works in the current folder
"""
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = os.path.abspath(sys.argv.pop(1))
TIMES = re.compile(r"seconds|tokens_per_second|runs_side_by_side")


def run(*arguments, **more):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=250, **more)


def tensors(path):
    with open(path, "rb") as file:
        data = file.read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    body = data[8 + length :]
    return {name: body[slice(*entry["data_offsets"])] for name, entry in header.items() if not TIMES.search(name)}


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(v) for key, v in value.items() if not TIMES.search(key)}
    if isinstance(value, list):
        return [without_times(v) for v in value]
    return value


class TrainText(unittest.TestCase):
    def setUp(self):
        self.home = tempfile.TemporaryDirectory()
        self.addCleanup(self.home.cleanup)
        self.text = self.path("text")
        with open(self.text, "w") as file:
            for i in range(600):
                file.write(f"line {i}: the {'quick' if i % 3 else 'slow'} fox number {i * i % 97} jumps\n")

    def path(self, name):
        return os.path.join(self.home.name, name)

    def test_bad_arguments_end_with_one_clear_line(self):
        cases = {
            ("--steps", "x"): "--steps: expected a whole number",
            ("--steps", "0"): "--steps: expected a whole number from 1",
            ("--seed", "-1"): "--seed: expected",
            ("--threads", "1.5"): "--threads: expected",
            ("--save",): "--save: expected a value",
            ("--nonsense",): 'unknown option "--nonsense"',
            ("stray",): 'unknown option "stray"',
            ("--text", self.path("missing")): "missing",
            ("--text", self.home.name): "directory",
            ("--text", os.devnull): "too little text",
            ("--load", self.text): self.text,
            ("--text", self.text, "--report", self.path("no/where.html")): "cannot be written",
        }
        for arguments, expected in cases.items():
            with self.subTest(arguments):
                result = run(*arguments)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn(expected, result.stderr)
                self.assertEqual(result.stderr.count("\n"), 1)
                self.assertTrue(result.stderr.startswith("train_text: "))

    def test_help_names_every_option(self):
        result = run("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for option in "help seed steps text save load generate report threads json contrast prompt".split():
            self.assertIn(f"--{option}", result.stdout)

    def test_an_interrupted_run_goes_on_to_the_same_bits(self):
        common = ["--text", self.text, "--contrast", "0", "--generate", "0"]
        whole, part, rest = self.path("whole"), self.path("part"), self.path("rest")
        self.assertEqual(run(*common, "--steps", "40", "--save", whole).returncode, 0)
        process = subprocess.Popen([PROGRAM, *common, "--steps", "40", "--save", part], stdout=subprocess.PIPE, text=True)
        # The first line of progress comes after a tenth of the work.
        while not process.stdout.readline().startswith("mixture "):
            self.assertIsNone(process.poll())
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        last = process.communicate(timeout=60)[0]
        if process.returncode == 0:
            self.skipTest("the run was over before it could be interrupted")
        self.assertEqual(process.returncode, 130)
        self.assertIn("saved to " + part, last)
        result = run("--load", part, *common, "--save", rest)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(tensors(whole), tensors(rest))

        result = run("--load", part, *common, "--seed", "5")
        self.assertIn("was trained with --seed 1", result.stderr)
        result = run("--load", part, "--contrast", "0", "--text", __file__)
        self.assertIn("another text", result.stderr)

    def test_files_and_figures(self):
        report, figures, model = self.path("report.html"), self.path("figures.json"), self.path("model")
        result = run("--text", self.text, "--steps", "10", "--contrast", "1", "--generate", "30", "--seed", "3",
                     "--report", report, "--json", figures, "--save", model)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        with open(figures) as file:
            all_figures = json.load(file)
        roles = {r["role"]: r for r in all_figures["runs"]}
        self.assertEqual(set(roles), {"mixture", "dense", "unbalanced", "contrast_k2", "contrast_k1"})
        mixture, dense = roles["mixture"], roles["dense"]
        self.assertEqual(mixture["active_parameters"] - dense["active_parameters"], 2 * 64 * 8)  # two routers
        self.assertEqual(len(mixture["training_loss"]), 10)
        self.assertLess(mixture["training_loss"][-1], mixture["training_loss"][0])
        self.assertEqual(roles["unbalanced"]["balancing_coefficient"], 0)
        for figure in (mixture["held_out_loss"], dense["held_out_loss"], roles["unbalanced"]["held_out_loss"]):
            self.assertIn(f"{figure:.4f}", result.stdout)
        for block in mixture["blocks"]:
            mean = sum(block["load"]) / 8
            self.assertAlmostEqual(block["max_violation"], max(block["load"]) / mean - 1, places=12)
            self.assertEqual(block["dead"], block["load"].count(0))

        with open(report) as file:
            page = file.read()
        self.assertIn(f"{mixture['held_out_loss']:.4f}", page)
        self.assertNotRegex(page, r"(src|href)=|url\(|@import|http")
        self.assertGreaterEqual(page.count("<svg"), 8)

        # Threads share the runs, not their sums.
        again = self.path("again.json")
        run("--text", self.text, "--steps", "10", "--contrast", "1", "--generate", "30", "--seed", "3", "--threads", "1",
            "--json", again)
        with open(again) as file:
            self.assertEqual(without_times(json.load(file)), without_times(all_figures))

        sample = run("--load", model, "--generate", "30", "--seed", "3")
        self.assertEqual(sample.stdout, "This License " + all_figures["sample"] + "\n")


if __name__ == "__main__":
    unittest.main()
