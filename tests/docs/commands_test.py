#!/usr/bin/env python3
"""Runs the commands of README.md and of every page under docs/, as they are written.

commands_test.py BINARIES [unittest arguments]: the folder of `deeper`

A block ```sh holds commands. A block ```console holds commands after `$ ` and the output that they print: every line of that output must
appear, in this order, where numbers may differ and a line `...` stands for any number of lines. The blocks of a page are one script, run
by bash -eu in a directory of its own with `launch` and `recipes` of the checkout and `photos/train`, `photos/val` with pictures of cats and dogs.
Comments in the page steer this:
    <!-- not run: needs a GPU -->       before a block: or "needs a cluster", or "run by FILE", where FILE of the checkout runs it
    <!-- python: PACKAGE ... -->        before a ```python block: /usr/bin/python3 runs it here. Without these packages, in build/tools/interchange
                                        or where Python looks, everything else is run and the page counts as not run
    <!-- setup: COMMAND -->             runs COMMAND at this place; a reader does not see it
    <!-- shortened: --flag=value ... -->  from here, `deeper train` takes these values in place of the page's, so that the test is short
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import numpy
import PIL.Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARK = r"<!-- (?P<key>not run|python|setup|shortened): (?P<value>.*?) -->"
FENCE = r"^```(?P<kind>sh|console|python)[^\n]*\n(?P<text>.*?)^```$"
BLOCK = re.compile(f"(?:{MARK})|(?:{FENCE})", re.DOTALL | re.MULTILINE)
REASONS = "needs a GPU", "needs a cluster"
TOOLS = ROOT / "build/tools/interchange"
LIMIT_S = 300


def plain(line):
    """A line without what differs from run to run: numbers and the width of columns."""
    return " ".join(re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "0", line).split())


def is_missing(package):
    tried = subprocess.run(["/usr/bin/python3", "-c", f"import {package}"], env=os.environ | {"PYTHONPATH": str(TOOLS)}, capture_output=True)
    return tried.returncode != 0


def commands_and_output(text):
    """The script of a ```console block, and what it prints."""
    script, output = [], []
    for line in text.splitlines():
        if line.startswith("$ "):
            script.append(line[2:])
        elif script and (script[-1].endswith("\\") and not output):
            script.append(line)
        else:
            output.append(line)
    return "\n".join(script), output


class Page:
    """What a page asks for: steps (line, script, expected output), packages that are missing, and complaints about its marks."""

    def __init__(self, text):
        self.steps, self.missing, self.complaints, skip, packages = [], [], [], None, None
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            if match["key"] == "not run":
                skip = match["value"]
                runner = skip.removeprefix("run by ")
                if skip not in REASONS and (runner == skip or not (ROOT / runner).exists()):
                    self.complaints.append(f"line {line}: not run: {skip!r} is no reason ({', '.join(REASONS)}, run by FILE)")
            elif match["key"] == "python":
                packages = match["value"].split()
            elif match["kind"] == "python":
                missing = [package for package in packages or [] if is_missing(package)]
                self.missing += missing
                if packages and not missing:
                    self.steps.append((line, f"PYTHONPATH={TOOLS} /usr/bin/python3 - <<'END_OF_PYTHON'\n{match['text']}END_OF_PYTHON", []))
                packages = None
            elif match["key"] == "setup":
                self.steps.append((line, match["value"], []))
            elif match["key"] == "shortened":
                self.steps.append((line, f"export DEEPER_SHORTENED='{match['value']}'", []))
            elif skip:
                skip = None
            elif match["kind"] == "sh":
                self.steps.append((line, match["text"], []))
            else:
                self.steps.append((line, *commands_and_output(match["text"])))

    def script(self):
        return "".join(f"echo '@@ {line}'\n{script}\n" for line, script, _ in self.steps)


def make_photos(directory):
    random = numpy.random.default_rng(1)
    for number in range(48):
        path = directory / ("val" if number % 3 == 0 else "train") / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        tile = random.integers(0, 255, (6, 8, 3), dtype=numpy.uint8)
        PIL.Image.fromarray(tile).resize((400, 300)).save(path)


# `deeper` of the page: that of the build, with the shortened values.
WRAPPER = r"""#!/usr/bin/env python3
import os, sys
arguments = sys.argv[1:]
if arguments[:1] == ["train"]:
    for flag in os.environ.get("DEEPER_SHORTENED", "").split():
        name = flag.split("=")[0] + "="
        arguments = [argument for argument in arguments if not argument.startswith(name)] + [flag]
os.execv(@BINARY@, ["deeper", *arguments])
"""


class CommandsOfThePages(unittest.TestCase):
    binaries = None

    def run_page(self, page):
        read = Page(page.read_text())
        self.assertEqual(read.complaints, [])
        if not read.steps:
            return
        with tempfile.TemporaryDirectory() as name:
            directory = pathlib.Path(name)
            (directory / "bin").mkdir()
            wrapper = directory / "bin/deeper"
            wrapper.write_text(WRAPPER.replace("@BINARY@", repr(str(self.binaries / "deeper"))))
            wrapper.chmod(0o755)
            for folder in "launch", "recipes":
                (directory / folder).symlink_to(ROOT / folder)
            make_photos(directory / "photos")
            environment = os.environ | {
                "PATH": os.pathsep.join([str(directory / "bin"), str(ROOT / "launch"), str(self.binaries), os.environ["PATH"]]), "NO_COLOR": "1",
                "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
                "OMPI_MCA_hwloc_base_binding_policy": "none"}
            run = subprocess.run(["bash", "-euo", "pipefail", "-c", read.script()], cwd=directory, env=environment, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=LIMIT_S, check=False)
        printed = dict(part.split("\n", 1) for part in re.split(r"^@@ ", run.stdout, flags=re.MULTILINE)[1:])
        last = list(printed)[-1]
        self.assertEqual(run.returncode, 0, f"the block at line {last} failed:\n{printed[last]}")
        for line, _, expected in read.steps:
            lines = iter([plain(text) for text in printed[str(line)].splitlines()])
            for text in expected:
                if text.strip() not in ("", "..."):
                    self.assertTrue(plain(text) in lines, f"line {line}: the page shows {text!r}; printed was\n{printed[str(line)]}")
        if read.missing:
            self.skipTest(f"its Python needs {read.missing}; the rest was run")


def add_page(page):
    name = "test_" + re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
    setattr(CommandsOfThePages, name, lambda self: self.run_page(page))


for each in PAGES:
    add_page(each)


class Marks(unittest.TestCase):
    """The checks of this file find what they are for."""

    def test_reasons(self):
        self.assertIn("is no reason", Page("<!-- not run: too slow -->\n```sh\nx\n```\n").complaints[0])
        self.assertIn("is no reason", Page("<!-- not run: run by no/such/file -->\n```sh\nx\n```\n").complaints[0])
        self.assertEqual(Page("<!-- not run: needs a GPU -->\n```sh\nx\n```\n```sh\ny\n```\n").steps, [(5, "y\n", [])])

    def test_python(self):
        page = Page("<!-- python: json -->\n```python\nimport json\n```\n```python\nnot run\n```\n<!-- python: no_such -->\n```python\nx\n```\n")
        self.assertEqual(([line for line, _, _ in page.steps], page.missing), ([2], ["no_such"]))

    def test_output(self):
        self.assertEqual(commands_and_output("$ a \\\n    b\n1 step\n...\n"), ("a \\\n    b", ["1 step", "..."]))
        self.assertEqual(plain("loss  0.31  1e-05"), plain("loss 12.5 3"))

    def test_every_block_has_a_language(self):
        for page in PAGES:
            inside = False
            for number, line in enumerate(page.read_text().splitlines(), 1):
                if line.startswith("```"):
                    self.assertFalse(not inside and line == "```", f"{page}:{number}: a block without a language")
                    inside = not inside


if __name__ == "__main__":
    CommandsOfThePages.binaries = pathlib.Path(sys.argv[1]).resolve()
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
