#!/usr/bin/env python3
"""Walks through the flags of every command that are not numbers (cli_test.py has those): true or false, choices, and text.

Each wrong value must end the command with its documented exit code and one message that names the flag or the value. Accepted values
are in a table.

flags_test.py DEEPER MPIRUN [--all] [unittest arguments]
--all tries every value with every command; otherwise, a flag that several commands share gets all values once only.
"""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

import numpy

ALL = "--all" in sys.argv
sys.argv = [argument for argument in sys.argv if argument != "--all"]

from cli import CHECKPOINT, COMMUNICATION, DATA, DEEPER, MPIRUN, TRAIN, USAGE, Cli, main, run, write_png  # noqa: E402

MODEL = ["--model=nin-cifar", "--image_size=10", "--num_classes=10", "--threads=1"]
LAUNCHER = [MPIRUN, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "-n", "2"]
OTHER_USER = 54321  # root can read everything
# What a text means. Its first exit code is that of a refusal, unless its text is wrong in itself (USAGE).
READS = "name of something to read"
WRITES_FILE, WRITES_DIRECTORY = "name of a file to write", "name of a directory to write"
NAME, NUMBERS = "name of a part of the input", "list of numbers"
TEXTS = {"input": READS, "data": READS, "val_data": READS, "checkpoint": READS, "init_from": READS, "calibration": READS,
         "classes": READS, "freeze": NAME, "lr_scale": NAME,
         "metrics_out": WRITES_FILE, "logits_out": WRITES_FILE, "report": WRITES_FILE, "trace": WRITES_FILE, "json": WRITES_FILE,
         "profile": WRITES_FILE, "output": WRITES_FILE, "pack output": WRITES_DIRECTORY, "checkpoint reshard output": WRITES_DIRECTORY,
         "tensorboard": WRITES_DIRECTORY,
         "checkpoint_dir": WRITES_DIRECTORY, "stage_dir": WRITES_DIRECTORY, "dir": WRITES_DIRECTORY,
         "root": NAME, "split": NAME, "train_split": NAME, "val_split": NAME, "resume": NAME, "op": NAME, "collective": NAME, "mpirun": NAME,
         "mean": NUMBERS, "std": NUMBERS, "ranks": NUMBERS, "predict": NUMBERS}
# On a CPU, --plan_cache has no effect, as its help says.
WITHOUT_EFFECT = {"plan_cache"}
EMPTY_IS_NONE = {"classes", "report", "freeze", "lr_scale", "val_data", "init_from", "verify checkpoint", "calibration", "metrics_out", "logits_out",
                 "trace", "root", "json", "tensorboard", "checkpoint_dir", "stage_dir", "mean", "std", "profile", "predict"}
NEW_NAMES = {"word", "nan", "bytes"}
ACCEPTED = {READS: set(), NAME: set(), NUMBERS: set(), WRITES_FILE: NEW_NAMES | {"file"}, WRITES_DIRECTORY: NEW_NAMES | {"missing", "directory"}}
MAKES_ITS_DIRECTORY = {"metrics_out", "trace"}
EXISTS_ALREADY = {"dir"}  # must be new


def flags(markdown):
    """-> (command, flag, default, help) of docs/reference/cli.md, without numbers."""
    for section in markdown.split("\n## deeper ")[1:]:
        for flag, default, text in re.findall(r"(?m)^\| `--(\w+)` \| (?:`(.*?)`)? ?\| (.*) \|$", section):
            if not re.fullmatch(r"-?[\d.e+-]+", default):
                yield section.split("\n")[0], flag, default, text


class Flags(Cli):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.dir.chmod(0o755)
        assert run("train", f"--data={cls.data}", *TRAIN, "--max_steps=1", f"--checkpoint_dir={cls.dir}/run",
                   f"--metrics_out={cls.dir}/metrics").returncode == 0
        write_png(cls.dir / "image.png", numpy.full((10, 10, 3), 30, numpy.uint8))
        (cls.dir / "file").write_text("a text\n")
        (cls.dir / "locked").mkdir(mode=0)
        data, checkpoint = f"--data={cls.data}", f"--checkpoint={cls.dir}/run"
        step = next((cls.dir / "run").glob("step-*"))
        cls.base = {
            "pack": ["--format=idx", f"--input={cls.dir}/idx", "--output=packed"],
            "verify": [data],
            "describe": ["--model=nin-cifar"],
            "doctor": [data, *MODEL, "--batch=1", "--steps=2"],
            "train": [data, *TRAIN, "--max_steps=1", "--trace_first=1", "--eval_every=1000"],
            "eval": [data, checkpoint, "--threads=1"],
            "predict": [checkpoint, "--threads=1", f"{cls.dir}/image.png"],
            "export": [checkpoint, "--output=exported.h5"],
            "import": [f"--input={cls.dir}/run", "--output=imported.h5"],
            "checkpoint reshard": [step, "--shards=2", "--output=resharded"],
            "report": [f"{cls.dir}/metrics", "--output=report.html"],
            "bench step": [*MODEL, "--batch=1", "--warmup=2", "--repeats=1"],
            "bench op": [*MODEL, "--op=pool1", "--batch=1", "--warmup=2", "--repeats=1"],
            "bench comm": ["--min_bytes=4096", "--max_bytes=4096", "--warmup=1", "--repeats=1"],
            "bench loader": [data, "--workers=1", "--images=10", "--rounds=1", "--image_size=10", "--batch=2"],
            "bench checkpoint": [*MODEL, "--dir=new", "--batch=1", "--repeats=1"],
            "bench scaling": [f"--mpirun={MPIRUN} --allow-run-as-root", "--ranks=1", "--rounds=2", "--steps=2", "--warmup=1", "--batch=1",
                              "--kind=weak", "--", data, *MODEL],
        }
        cls.values = {"empty": b"", "word": b"no such word", "nan": b"nan", "bytes": b"\xff\xfeb", "huge": 100000 * b"x",
                      "missing": b"nowhere/x", "directory": b"directory", "file": b"file",
                      "locked": os.fsencode(cls.dir / "locked/x")}

    def command(self, name, flag, value):
        arguments = [os.fsencode(str(argument)) for argument in self.base[name]]
        end = arguments.index(b"--") if b"--" in arguments else len(arguments)
        launcher = LAUNCHER if name == "bench comm" else []
        return [*launcher, DEEPER, *name.split(), *arguments[:end], os.fsencode(f"--{flag}=") + value, *arguments[end:]]

    def attempt(self, name, flag, value):
        """-> (exit code, standard error) in an empty directory, as an ordinary user."""
        with tempfile.TemporaryDirectory(dir=self.dir) as directory:
            os.chmod(directory, 0o777)
            os.mkdir(f"{directory}/directory")
            shutil.copy(self.dir / "file", directory)
            as_other = os.geteuid() == 0 and value == self.values["locked"]
            user = ["setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups"]
            result = subprocess.run([*(user if as_other else []), *self.command(name, flag, value)], cwd=directory, capture_output=True, timeout=150)
        return result.returncode, result.stderr

    def refused(self, name, flag, value, codes, words=b""):
        code, text = self.attempt(name, flag, value)
        self.assertIn(code, codes, text[:2000])
        lines = [line for line in text.splitlines() if line.startswith(f"deeper {name}: ".encode())]
        self.assertEqual(len(lines), 1, text[:2000])
        self.assertLess(len(lines[0]), 2000)
        self.assertTrue(f"--{flag}".encode() in lines[0] or (value[:50] or b'""') in lines[0], lines[0])
        self.assertIn(words, lines[0])

    def accepted(self, name, flag, value):
        code, text = self.attempt(name, flag, value)
        self.assertEqual(code, 0, text[:2000])

    def walk(self, attempts):
        """attempts: (function, command, flag, value name, further arguments). Two at a time."""
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            running = [(pool.submit(function, name, flag, self.values[value], *more), name, flag, value)
                       for function, name, flag, value, *more in attempts]
            for attempt, name, flag, value in running:
                with self.subTest(command=name, flag=flag, value=value):
                    attempt.result()
        print(f"{len({(name, flag) for _, name, flag, *_ in attempts})} flags of commands, {len({flag for _, _, flag, *_ in attempts})} names, "
              f"{len(attempts)} values tried", flush=True)

    def test_true_or_false_and_choices(self):
        attempts, seen = [], set()
        for name, flag, default, text in flags(self.succeeds("help", "--markdown")):
            is_bool = default in ("true", "false") and "<br>" not in text
            if not is_bool and "[one of" not in text and "<br>" not in text:
                continue
            for value in ("empty", "word", "nan", "bytes", "huge") if ALL or flag not in seen else ("word",):
                if value == "empty" and not default and name != "pack":  # determined by the checkpoint
                    attempts.append((self.accepted, name, flag, value))
                else:
                    attempts.append((self.refused, name, flag, value, [USAGE], b"true or false" if is_bool else b"one of "))
            seen.add(flag)
        self.assertGreater(len(seen), 30)
        self.walk(attempts)

    def test_text(self):
        attempts, seen = [], set()
        for name, flag, default, text in flags(self.succeeds("help", "--markdown")):
            if default in ("true", "false") or "[one of" in text or "<br>" in text or flag in WITHOUT_EFFECT:
                continue
            full = f"{name} {flag}"
            kind = TEXTS.get(full) or TEXTS[flag]
            for value in self.values if ALL or flag not in seen else ("missing",):
                attempts.append(self.expect(name, flag, full, kind, value))
            seen.add(flag)
        self.assertGreater(len(seen), 25)
        self.walk([attempt for attempt in attempts if attempt])

    def expect(self, name, flag, full, kind, value):
        known = {flag, full}
        if value == "locked" and os.geteuid() == 0 and not shutil.which("setpriv"):
            print(f"not tried: {full} in a locked directory, because root can read it", flush=True)
            return None
        if value == "empty":
            right = bool(known & EMPTY_IS_NONE)
        else:
            right = value in ACCEPTED[kind] or (value == "missing" and bool(known & MAKES_ITS_DIRECTORY))
            right = right and not (value == "directory" and flag in EXISTS_ALREADY)
        if right:
            return (self.accepted, name, flag, value)
        codes = {NAME: [USAGE, DATA], NUMBERS: [USAGE]}.get(kind, [DATA, CHECKPOINT])
        if value == "empty" or flag in ("init_from", "dir", "calibration"):  # --init_from with --checkpoint; --dir exists; other JSON
            codes = [USAGE, *codes]
        if flag == "mpirun" and value == "file":  # which is a program
            codes = [COMMUNICATION, *codes]
        return (self.refused, name, flag, value, codes)


if __name__ == "__main__":
    main()
