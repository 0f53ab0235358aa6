#!/usr/bin/env python3
"""Runs the real binary: manual, exit codes, messages, and errors for damaged data.

cli_test.py DEEPER MPIRUN [unittest arguments]
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import unittest.mock

import h5py
import numpy

from cli import DATA, DEEPER, TRAIN, USAGE, Cli, events, flip_bit, main, run, write_png

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMANDS = ["pack", "verify", "describe", "doctor", "train", "eval", "predict", "export", "import", "checkpoint list", "checkpoint diff",
            "checkpoint reshard", "report", "bench step", "bench op", "bench comm", "bench loader", "bench checkpoint", "bench scaling"]


def sample_position(shard):
    """The offset of the pixels of sample 7 in the file."""
    with h5py.File(shard) as file:
        return file["data"].id.get_offset() + int(file["offset"][7])


class Manual(Cli):
    def test_version(self):
        line = self.succeeds("--version")
        self.assertRegex(line, r"^deeper \d+\.\d+\.\d+( \([0-9a-f]{7,}(-dirty)?\))?, \S+ \S+.*, oneDNN \d+\.\d+\.\d+, HDF5 1\.\d+\.\d+, \S.*\n$")
        version = re.search(r"oneDNN (\S+),", line)[1]
        linked = subprocess.run(["ldd", DEEPER], capture_output=True, text=True, check=True).stdout
        self.assertRegex(linked, rf"libdnnl\.so\.{version.split('.')[0]}[. ]")  # libdnnl.so.3.6 of Debian 13

    def complete(self, line, breaks=" =:"):
        """What bash proposes at the end of `line`."""
        script = (f'source <("$0" help completion); COMP_WORDBREAKS="{breaks}"; COMP_LINE="$1"; COMP_POINT=${{#1}}; _deeper; '
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        done = subprocess.run(["bash", "-c", script, DEEPER, line], capture_output=True, text=True, check=True, cwd=self.dir)
        self.assertEqual(done.stderr, "")
        return [line for line in done.stdout.splitlines() if line]

    def test_completion(self):
        (self.dir / "some.flags").write_text("")
        self.assertEqual(self.complete("deeper tr"), ["train"])
        self.assertIn("--version", self.complete("deeper "))
        self.assertEqual(self.complete("deeper checkpoint "), ["list", "diff", "reshard"])
        self.assertEqual(self.complete("deeper train --lr_sch"), ["--lr_schedule="])
        self.assertEqual(self.complete("deeper train --lr_schedule=co"), ["constant", "cosine"])
        self.assertEqual(self.complete("deeper train --lr_schedule=co", breaks=" "), ["--lr_schedule=constant", "--lr_schedule=cosine"])
        self.assertEqual(self.complete("deeper train --lr=0.1 --au"), ["--aux=", "--aux_weight=", "--augment="])
        self.assertEqual(self.complete("deeper train --aux=f"), ["false"])
        self.assertEqual(self.complete("deeper train --flagfile=so"), ["some.flags"])
        self.assertEqual(self.complete("deeper bench step --b"), ["--batch="])
        self.assertEqual(self.complete("deeper predict so"), ["some.flags"])
        (self.dir / "my photos").mkdir()
        self.assertEqual(self.complete("deeper predict my"), ["my photos"])
        self.assertEqual(self.complete("deeper train --data=my"), ["my photos"])

    def test_manual_page(self):
        page = self.succeeds("help", "man")
        for words in ".TH DEEPER 1", ".SH deeper bench step", "\\fB\\-\\-lr_schedule\\fR=constant":
            self.assertIn(words, page)
        if shutil.which("groff") is None:
            self.skipTest("needs groff")
        done = subprocess.run(["groff", "-man", "-Tascii", "-ww"], input=page, capture_output=True, text=True, check=True)
        self.assertEqual(done.stderr, "")

    def test_overview(self):
        for arguments in [], ["--help"], ["help"]:
            overview = self.succeeds(*arguments)
            for command in COMMANDS:
                self.assertRegex(overview, rf"(?m)^  {command} +\S")

    def test_every_command(self):
        for command in COMMANDS:
            manual = self.succeeds(*command.split(), "--help")
            self.assertEqual(manual, self.succeeds("help", *command.split()))
            for words in f"deeper {command} [--flags]", "Examples:", "Exit codes:", "--":
                self.assertIn(words, manual)
        self.assertIn("--lr=0.01", self.succeeds("train", "--help"))
        self.assertNotIn("--lr=", self.succeeds("eval", "--help"))

    def test_groups(self):
        for group in "bench", "checkpoint":
            listed = re.findall(r"(?m)^  (\w+ \w+) +\S", self.succeeds(group, "--help"))
            self.assertEqual(listed, [command for command in COMMANDS if command.startswith(group)])

    def test_fits_the_terminal(self):
        for columns in 80, 100:
            with unittest.mock.patch.dict(os.environ, COLUMNS=str(columns)):
                for command in ["help"], ["train", "--help"], ["pack", "--help"], ["checkpoint", "--help"]:
                    text = self.succeeds(*command).split("Examples:")[0]
                    self.assertLessEqual(max(map(len, text.splitlines())), columns)

    def test_documentation_is_up_to_date(self):
        for page, topic in ("cli", "--markdown"), ("exit-codes", "exit-codes"), ("metrics", "metrics"):
            self.assertEqual((ROOT / f"docs/reference/{page}.md").read_text(), self.succeeds("help", topic),
                             f"docs/reference/{page}.md: write it again with `deeper help {topic}`")


class Usage(Cli):
    def test_names(self):
        self.fails(USAGE, ["no command trian", "did you mean train"], "trian")
        self.fails(USAGE, ["no command predct", "did you mean predict"], "predct")
        self.fails(USAGE, ["bench needs a sub-command: step, op, comm"], "bench")
        self.fails(USAGE, ["no command bench stp (did you mean bench step?); the sub-commands of bench are step, op, comm"], "bench", "stp")
        self.fails(USAGE, ["the command comes before --data=x"], "--data=x", "train")
        self.fails(USAGE, ["deeper train:", "no flag --learning_rat"], "train", "--learning_rat=1")
        self.fails(USAGE, ["no flag --momentun", "did you mean --momentum?"], "train", "--momentun=0.9")
        self.fails(USAGE, ["deeper eval:", "no flag --lr"], "eval", "--lr=0.1")
        self.fails(USAGE, ["unexpected argument false"], "train", "--dropout", "false")
        self.fails(USAGE, ["googlenot", "googlenet-bn"], "describe", "--model=googlenot")

    def test_values(self):
        self.fails(USAGE, ["--lr=fast", "a number"], "train", "--lr=fast")
        self.fails(USAGE, ["--epochs=1.5", "an integer"], "train", "--epochs=1.5")
        self.fails(USAGE, ["--aux=maybe", "true or false"], "train", "--aux=maybe")
        self.fails(USAGE, ["--epochs needs a value"], "train", "--epochs")
        self.fails(USAGE, ["--data"], "train", "--max_steps=1")
        self.fails(USAGE, ["--augment=blur", "inception"], "train", "--synthetic", "--augment=blur")
        self.fails(USAGE, ["smallest --image_size"], "describe", "--model=nin", "--image_size=8")
        self.fails(USAGE, ["--format=onxx"], "export", "--format=onxx", "--checkpoint=x", "--output=y")

    def test_flag_files(self):
        inner, outer = self.dir / "inner.flags", self.dir / "outer.flags"
        inner.write_text("# comment\n\n  --image_size 48\n")
        outer.write_text(f"--flagfile={inner}\n--model=nin\n")
        self.fails(USAGE, [f"{inner}:3: ", "--image_size 48", "write --image_size=VALUE"], "describe", f"--flagfile={outer}")
        inner.write_text("# comment\n--image_size=64\n--num_classes=7\n--noaux\n")
        table = self.succeeds("describe", "--flagfile", outer, "--model", "googlenet", "--stem=small")
        self.assertIn("googlenet: 64 x 64 px, 3 channels, 7 classes", table)
        self.assertNotIn("aux1", table)
        inner.write_text(f"--flagfile={outer}\n")
        self.fails(USAGE, [f"{inner}:1: ", "includes itself"], "describe", f"--flagfile={outer}")
        self.fails(USAGE, ["missing.flags"], "describe", "--flagfile=missing.flags")

    def test_flag_files_from_pipes_and_of_other_editors(self):
        flags, read = "--image_size=64\n--num_classes=7\n", "64 x 64 px, 3 channels, 7 classes"
        self.assertIn(read, self.succeeds("describe", "--flagfile=/dev/stdin", input=flags))
        reading, writing = os.pipe()  # as <(...) of a shell
        os.write(writing, flags.encode())
        os.close(writing)
        self.assertIn(read, self.succeeds("describe", f"--flagfile=/dev/fd/{reading}", pass_fds=[reading]))
        os.close(reading)
        self.fails(USAGE, ["--flagfile=/dev/stdin", "only one rank"], "train", "--flagfile=/dev/stdin", ranks=2, input=flags)
        marked = self.dir / "marked.flags"
        marked.write_text("\ufeff" + flags.replace("\n", " \r\n"))
        self.assertIn(read, self.succeeds("describe", f"--flagfile={marked}"))

    def test_numbers(self):
        """Every number of every command: what it cannot be is refused in words that name the flag."""
        tried = set()
        for section in self.succeeds("help", "--markdown").split("\n## deeper ")[1:]:
            command = section.split("\n")[0].split()
            for flag in re.findall(r"(?m)^\| `--(\w+)` \| `-?[\d.e+-]+` \|", section):
                wrong = ["nan"] if flag in tried else ["nan", "inf", "-inf", "", "x", "1e300", "-99999999", "99999999999999999999", "1 2", "0x"]
                tried.add(flag)
                for value in wrong:
                    with self.subTest(command=command, flag=flag, value=value):
                        self.fails(USAGE, [f"--{flag}={value}: "], *command, f"--{flag}={value}")
        self.assertGreater(len(tried), 50)

    def test_ranks(self):
        normed = ["train", f"--data={self.data}", "--model=googlenet-bn", "--image_size=28", "--stem=small", "--aux=false", "--max_steps=1"]
        result = self.fails(USAGE, ["--global_batch=2", "number of ranks, 3"], *normed, "--global_batch=2", ranks=3)
        self.assertEqual(result.stderr.count("deeper train:"), 1)
        self.fails(USAGE, ["leave out mpirun"], "describe", ranks=2)
        elastic = ["train", f"--data={self.data}", *TRAIN, "--max_steps=1", "--deterministic=elastic"]
        self.fails(USAGE, ["3 ranks", "--elastic_slices=4"], *elastic, "--elastic_slices=4", ranks=3)
        self.fails(USAGE, ["batch normalisation"], *elastic, "--model=googlenet-bn", "--image_size=28", "--stem=small", ranks=2)


class Damage(Cli):
    def copy(self, name):
        return pathlib.Path(shutil.copytree(self.data, self.dir / name))

    def train(self, data):
        return ["train", f"--data={data}", *TRAIN, "--epochs=1"]

    def test_missing(self):
        self.fails(DATA, [str(self.dir / "nowhere")], *self.train(self.dir / "nowhere"))
        data = self.copy("missing")
        shard = sorted(data.glob("train-*.h5"))[1]
        shard.unlink()
        self.fails(DATA, [shard.name], *self.train(data))

    def test_truncated(self):
        data = self.copy("truncated")
        shard = sorted(data.glob("train-*.h5"))[1]
        os.truncate(shard, shard.stat().st_size // 2)
        self.fails(DATA, [shard.name], *self.train(data))
        self.assertIn(shard.name, self.fails(DATA, [], "verify", f"--data={data}").stdout)

    def test_flipped_bit(self):
        data = self.copy("flipped")
        shard = sorted(data.glob("train-*.h5"))[1]
        flip_bit(shard, sample_position(shard))
        self.fails(DATA, [shard.name, "sample 7", "deeper: step 1: "], *self.train(data), "--global_batch=1000")
        self.fails(DATA, [shard.name, "sample 7"], *self.train(data), ranks=2)
        self.assertIn("sample 7", self.fails(DATA, ["problem"], "verify", f"--data={data}").stdout)

    def test_a_bad_sample_costs_no_finished_step(self):
        """Whether it is found by an evaluation, or in the step after a save."""
        sound = self.dir / "sound"
        self.succeeds(*self.train(self.data), "--ema_decay=0.9", f"--checkpoint_dir={sound}")
        for ranks in 0, 2:
            data, runs = self.copy(f"bad-val-{ranks}"), self.dir / f"bad-val-{ranks}-runs"
            shard = next(data.glob("val-*.h5"))
            flip_bit(shard, sample_position(shard))
            self.fails(DATA, [shard.name], *self.train(data), "--ema_decay=0.9", f"--checkpoint_dir={runs}", ranks=ranks)
            if ranks == 0:
                self.succeeds("checkpoint", "diff", runs, sound)  # exit code 0: no difference
            self.assertRegex(self.succeeds("checkpoint", "list", runs), r"(?m)^ +17 .* sound$")

            data, runs = self.copy(f"bad-train-{ranks}"), self.dir / f"bad-train-{ranks}-runs"
            shard = sorted(data.glob("train-*.h5"))[1]
            flip_bit(shard, sample_position(shard))
            failed = self.fails(DATA, ["sample 7"], *self.train(data), "--order=sequential", "--val_split=none", "--checkpoint_every=1",
                                f"--checkpoint_dir={runs}", ranks=ranks)
            step = int(re.search(r"step (\d+): ", failed.stderr)[1])
            self.assertRegex(self.succeeds("checkpoint", "list", runs), rf"(?m)^ +{step - 1} .* sound$")

    def test_images_of_evaluation_with_other_channels(self):
        folder, output = self.dir / "colours", self.dir / "colours-packed"
        for label in range(10):
            (folder / str(label)).mkdir(parents=True)
            write_png(folder / str(label) / "a.png", numpy.full((10, 10, 3), 20 * label, numpy.uint8))
        self.succeeds("pack", "--format=folder", f"--input={folder}", f"--output={output}", "--split=val")
        failed = self.fails(DATA, ["split val have 3 channels, and those of train have 1"], *self.train(self.data), f"--val_data={output}")
        self.assertNotIn("step 1", failed.stdout)

    def test_bad_samples_that_are_allowed(self):
        data = self.copy("allowed")
        shard = sorted(data.glob("train-*.h5"))[1]
        flip_bit(shard, sample_position(shard))
        losses = []
        for ranks in 0, 3:
            metrics = self.dir / f"allowed-{ranks}"
            printed = self.succeeds(*self.train(data), "--allow_bad=1", f"--metrics_out={metrics}", ranks=ranks)
            self.assertIn(f"{shard.name}, sample 7", printed)
            self.assertIn("1 samples could not be read", printed)
            self.assertEqual(len(events(metrics, "bad_sample")), 1)
            losses.append([event["loss"] for event in events(metrics, "step")])
        numpy.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)

    def test_staged(self):
        stage = self.dir / "local"
        for ranks in 2, 0:
            result = run(*self.train(self.data), f"--stage_dir={stage}", ranks=ranks)
            self.assertEqual(result.returncode, 0, result.stderr)
        names = [path.name for path in (stage / "deeper-shards").iterdir()]
        self.assertFalse([name for name in names if name.endswith(".tmp")], "the last run removed what the first had left")
        self.fails(DATA, ["create directory"], *self.train(self.data), "--stage_dir=/dev/null/x")

    def test_mixed(self):
        data, other = self.copy("mixed"), self.dir / "other"
        self.pack(self.dir / "other-idx", other, 3)
        shard = sorted(data.glob("train-*.h5"))[1]
        shutil.copy(other / shard.name, shard)
        self.fails(DATA, [shard.name], *self.train(data))

    def test_image_folder(self):
        folder, output = self.dir / "folder", self.dir / "folder-packed"
        for name, value in ("dark", 20), ("light", 220):
            (folder / name).mkdir(parents=True)
            write_png(folder / name / "a.png", numpy.full((20, 24, 3), value, numpy.uint8))
        pack = ["pack", "--format=folder", f"--input={folder}", f"--output={output}", "--resize=16"]
        (folder / "dark" / "b.jpg").write_text("no image at all")
        self.fails(DATA, ["b.jpg"], *pack)
        self.assertIn("2 images of 2 classes", self.succeeds(*pack, "--allow_bad=1"))


class Describe(Cli):
    def test_plan_of_a_step(self):
        plan = ["describe", "--model=nin-cifar", "--device=cuda", "--precision=bf16", "--batch=4"]
        self.fails(USAGE, ["--gpu=v100", "h200"], *plan, "--gpu=v100")
        if "built without CUDA" in run(*plan).stderr:
            self.fails(USAGE, ["cuda-release"], *plan)
            return
        table = self.succeeds(*plan, "--launches")
        for words in "NVIDIA H200", "optimizer", "images/s", "join and spread gradients":
            self.assertIn(words, table)
        report = json.loads(self.succeeds(*plan, "--json", "--gpu=a100"))
        self.assertIn("A100", report["device"])
        self.assertEqual(report["total"]["launches"], len(report["launches"]))
        for figure in "bytes", "macs", "floor_us":
            self.assertAlmostEqual(report["total"][figure] / sum(launch[figure] for launch in report["launches"]), 1)
            self.assertAlmostEqual(report["total"][figure] / sum(module[figure] for module in report["modules"]), 1)


if __name__ == "__main__":
    main()
