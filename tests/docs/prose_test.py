#!/usr/bin/env python3
"""Checks the prose of the whole repository against docs/style.md:  prose_test.py

Prints every finding as FILE:LINE, and fails if there is one: phrases that style.md lists, in prose, comments and messages; in Markdown also
lines over 100 columns outside tables and code, and files of the repository that do not exist.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 100

# What not to write, and what to write in its place.
PHRASES = {
    r"whoever": "name the reader or the component",
    r"aloud": "reports, prints",
    r"(is|are|was|were|be) told\b": "receives, reads",
    r"by (itself|themselves)": "automatically, on its own",
    r"whose they are": "say what they belong to",
    r"goes on\b|go on\b|going on\b": "continues, resumes",
    r"in mid-run": "during the run",
    r"stands? still": "makes no progress",
    r"lies? beside": "is in the same folder as",
    r"for good\b": "permanently",
    r"a rank or a\b": "a rank or",
    r"out of\b(?= the archive)": "from",
    r"here and there": "say where",
    r"so to speak|as it were|in a sense": "say it directly",
}
PATTERN = re.compile("|".join(f"(?P<p{number}>\\b(?:{phrase}))" for number, phrase in enumerate(PHRASES)), re.IGNORECASE)
# A path from the top of the repository. Pages write x for the name of a new file.
FILE = re.compile(r"(?<![\w./<>-])(?:cmake|comm|data|docs|kernels|launch|python|recipes|tests|trainer)/(?:[\w-]+/)*(?!x[._])[\w-]+"
                  r"\.(?:cmake|cpp|cu|flags|h|inc|md|py|sh)\b")
CODE = {".cpp", ".h", ".cu", ".py", ".cmake", ".js", ".css", ".yml", ".yaml", ".flags", ".txt"}


def sources():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        path = ROOT / name
        script = path.is_file() and path.suffix == "" and path.read_bytes()[:2] == b"#!"
        if name not in ("docs/style.md", "tests/docs/prose_test.py") and (path.suffix in CODE | {".md"} or script):
            yield name, path.read_text(errors="replace")


def phrases(text):
    """(line number, finding) for each phrase. A phrase may be broken by the end of a line."""
    joined = re.sub(r"\n([ \t]*(//|#|\*|>)?[ \t]*)", lambda match: "\n" + " " * (len(match[0]) - 1), text)
    for match in PATTERN.finditer(joined):
        number = next(int(name[1:]) for name, value in match.groupdict().items() if value)
        yield joined.count("\n", 0, match.start()) + 1, f"{match[0]!r}: {list(PHRASES.values())[number]}"


def long_lines(text):
    code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        elif not (code or line.startswith(("|", "    ", "<")) or re.match(r"^\[.+\]: \S+$", line) or len(line) <= LIMIT):
            yield number, f"{len(line)} columns; the limit is {LIMIT}"


def missing_files(text):
    for match in FILE.finditer(text):
        if not (ROOT / match[0]).exists():
            yield text.count("\n", 0, match.start()) + 1, f"there is no {match[0]}"


def main():
    found = 0
    for name, text in sources():
        in_markdown = [*long_lines(text), *missing_files(text)] if name.endswith(".md") else []
        for number, finding in [*phrases(text), *in_markdown]:
            print(f"{name}:{number}: {finding}")
            found += 1
    print(f"{found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
