#!/usr/bin/env python3
"""Runs the real binary: training, resuming, evaluating, exporting and predicting, on a small model.

cli_train_test.py DEEPER MPIRUN [unittest arguments]
"""
import json
import os
import pathlib
import shutil
import struct
import sys
import zlib

import h5py
import numpy

from cli import CHECKPOINT, DATA, MODEL, NOT_FINITE, TRAIN, USAGE, Cli, events, flip_bit, main, run, write_idx, write_png

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "python"))

from deeper import load_state_dict


def shards(step_directory):
    return {path.name: path.read_bytes() for path in step_directory.glob("shard-*.h5")}


class Training(Cli):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.checkpoints = cls.dir / "run"
        cls.train = ["train", f"--data={cls.data}", *TRAIN]
        trained = run(*cls.train, "--max_steps=20", "--checkpoint_every=10", "--metrics_out", cls.dir / "metrics",
                      f"--checkpoint_dir={cls.checkpoints}")
        assert trained.returncode == 0, trained.stderr
        cls.step_20 = next(cls.checkpoints.glob("step-*20"))

    def test_learns_and_says_so(self):
        steps = events(self.dir / "metrics", "step")
        self.assertEqual([event["step"] for event in steps], list(range(1, 21)))
        self.assertLess(steps[-1]["loss"], steps[0]["loss"])
        self.assertEqual(events(self.dir / "metrics", "eval")[-1]["count"], 50)
        listed = self.succeeds("checkpoint", "list", self.checkpoints)
        self.assertRegex(listed, r"(?m)^ +10 +1 +\d+\.\d +- +20\d\d-\S+ \S+  sound$\n +20 +1 .* 0\.\d{4} .* sound$")
        self.assertIn("all sound", self.succeeds("verify", f"--checkpoint={self.checkpoints}", f"--data={self.data}"))

    def test_start_says_how_images_are_changed(self):
        short = [*self.train, "--max_steps=1", "--eval_every=1000"]
        plain = self.succeeds(*short)
        self.assertRegex(plain, r"order full\naugmentation  crop\n")
        self.assertRegex(plain, r"50 samples of split val\n")
        self.assertRegex(plain, r"\nranks +1\n")
        self.assertRegex(self.succeeds(*short, "--augment=inception"), r"augmentation  inception, color_jitter 0\.5\n")
        rich = self.succeeds(*short, "--color_jitter=0.25", "--random_erasing=0.125", "--mixup=0.2", "--cutmix=1", "--label_smoothing=0.1",
                             "--val_preset=torchvision")
        self.assertRegex(rich, r"augmentation  crop, color_jitter 0\.25, random_erasing 0\.125, mixup 0\.2, cutmix 1, label_smoothing\s+0\.1\n")
        self.assertRegex(rich, r"50 samples of split val, val_preset torchvision\n")

    def test_any_number_of_ranks(self):
        alone = [event["loss"] for event in events(self.dir / "metrics", "step")]
        for ranks in 1, 2, 3:
            metrics = self.dir / f"metrics-{ranks}"
            self.succeeds(*self.train, "--max_steps=20", f"--metrics_out={metrics}", ranks=ranks)
            together = [event["loss"] for event in events(metrics, "step")]
            numpy.testing.assert_allclose(together, alone, rtol=1e-4)

    def test_steps_that_are_not_finite(self):
        diverging = [*self.train, "--lr=1e6", "--max_steps=12"]
        sharded = [*diverging, "--shard_optimizer"]
        for command, ranks in (diverging, 0), (diverging, 2), (sharded, 2):
            self.fails(NOT_FINITE, ["step ", "the gradient of ", "not finite", "--on_nonfinite=skip"], *command, ranks=ranks)
        self.assertIn("warning: skipped step ", self.succeeds(*sharded, "--on_nonfinite=skip", ranks=2))
        metrics = self.dir / "skipped"
        self.assertIn("warning: skipped step ", self.succeeds(*diverging, "--on_nonfinite=skip", f"--metrics_out={metrics}"))
        skipped = events(metrics, "nonfinite")
        self.assertGreater(len(skipped), 5)
        self.assertEqual(events(metrics, "step")[-1]["nonfinite_steps"], len(skipped))
        self.fails(NOT_FINITE, ["100 steps in a row"], *diverging, "--max_steps=200", "--on_nonfinite=skip")

    def test_resume_is_bit_identical(self):
        # Also of running statistics, of which a save takes the mean over the ranks.
        norm = ["--model=nin-cifar-bn", "--deterministic=true"]
        for ranks, more, whole in (0, [], self.checkpoints), (2, [], self.dir / "whole-2"), (3, norm, self.dir / "whole-3"):
            if ranks:
                self.succeeds(*self.train, *more, "--max_steps=20", f"--checkpoint_dir={whole}", ranks=ranks)
            parts = self.dir / f"parts-{ranks}"
            for steps in 10, 20, 20:  # the third run has nothing to do
                # The schedule is constant, so a shorter run is the beginning of a longer one.
                self.succeeds(*self.train, *more, f"--max_steps={steps}", f"--checkpoint_dir={parts}", ranks=ranks)
            saved = shards(parts / self.step_20.name)
            self.assertEqual(len(saved), max(1, ranks))
            self.assertEqual(saved, shards(whole / self.step_20.name))

    def test_moving_averages(self):
        """In checkpoints, after resuming and on several ranks, they are those that NumPy computes from the weights of each step. Evaluation
        and export use them."""
        metrics = self.dir / "averages-metrics"
        train = ["train", f"--data={self.data}", *TRAIN, "--model=nin-cifar-bn", "--keep=9", "--checkpoint_every=1"]
        averaged = [*train, "--ema_decay=0.6"]
        self.succeeds(*averaged, "--max_steps=3", f"--checkpoint_dir={self.dir}/averages-resumed")
        for name, ranks, more in ("alone", 1, [f"--metrics_out={metrics}"]), ("resumed", 1, []), ("ranks", 2, ["--shard_optimizer", "--sync_bn"]):
            directory = self.dir / f"averages-{name}"
            text = self.succeeds(*averaged, *more, "--max_steps=6", f"--checkpoint_dir={directory}", ranks=ranks)
            self.assertIn("of weights, with decay 0.6; evaluations use them", text)
            # The average of step 1 depends on the initial weights, which are in no file.
            expected = load_state_dict(directory / "step-000000001")
            for step in range(2, 7):
                last = load_state_dict(directory / f"step-00000000{step}", use_ema=False)
                decay = min(0.6, (1 + step) / (10 + step))
                expected = {key: decay * value + (1 - decay) * last[key] for key, value in expected.items()}
                for key, value in load_state_dict(directory / f"step-00000000{step}").items():
                    numpy.testing.assert_allclose(value, expected[key], rtol=1e-5, atol=1e-6, err_msg=f"{name}, step {step}, {key}")
        newest = self.dir / "averages-alone/step-000000006"
        self.assertEqual(shards(newest), shards(self.dir / "averages-resumed/step-000000006"))

        loss, exported = events(metrics, "eval")[-1]["loss"], self.dir / "averages.h5"
        for flags, averages in ([], True), (["--use_ema=false"], False):
            text = self.succeeds("eval", f"--checkpoint={newest}", f"--data={self.data}", *flags)
            self.assertEqual(f"loss {loss:.4f}" in text, averages, text)
            self.succeeds("export", f"--checkpoint={newest}", f"--output={exported}", *flags)
            for key, value in load_state_dict(newest, use_ema=averages).items():
                numpy.testing.assert_array_equal(load_state_dict(exported)[key], value)
        self.fails(CHECKPOINT, ["weight_average", "--ema_decay"], *train, "--max_steps=7", f"--checkpoint_dir={newest.parent}")

    def test_layouts_of_the_cpu_share_checkpoints(self):
        """A run may continue in the other layout, where only rounding differs."""
        losses = {}
        for layout, other, named in ("blocked", "nhwc", "in blocks of "), ("nhwc", "blocked", "in NHWC"):
            saved, metrics = self.dir / layout, self.dir / f"{layout}.jsonl"
            said = self.succeeds(*self.train, "--max_steps=2", f"--cpu_layout={layout}", f"--checkpoint_dir={saved}")
            self.assertIn(f"fp32, feature maps {named}", said)
            self.succeeds(*self.train, "--max_steps=4", f"--cpu_layout={other}", f"--checkpoint_dir={saved}", f"--metrics_out={metrics}")
            losses[layout] = [step["loss"] for step in events(metrics, "step")]
        self.assertEqual(len(losses["nhwc"]), 2)
        numpy.testing.assert_allclose(losses["nhwc"], losses["blocked"], rtol=1e-4)

    def test_precision(self):
        """auto: bf16 only with bf16 instructions; explicit bf16 is warned about without them."""
        def device(precision, instructions):
            limit = {"ONEDNN_MAX_CPU_ISA": instructions}
            done = run(*self.train, "--max_steps=1", f"--precision={precision}", env=os.environ | limit)
            return done, done.stdout
        _, said = device("auto", "DEFAULT")
        native = "with bf16," in said or "AMX," in said
        self.assertIn(f", {'bf16' if native else 'fp32'}, feature maps", said)
        done, said = device("auto", "AVX512_CORE")
        self.assertIn(", fp32, feature maps", said)
        self.assertNotIn("warning", done.stderr)
        done, said = device("bf16", "AVX512_CORE")
        if ", AVX-512," in device("fp32", "AVX512_CORE")[1]:  # else the processor has no AVX-512, and bf16 is an error
            self.assertIn("deeper: warning: --precision=bf16: ", done.stderr)
            self.assertIn("use --precision=fp32, or auto", done.stderr)
        done, said = device("bf16", "AVX2")
        self.assertEqual(done.returncode, USAGE)
        self.assertIn("--precision=bf16: ", done.stderr)

    def test_a_finished_run_stays_as_it_is(self):
        before = {path: path.stat().st_mtime_ns for path in self.checkpoints.rglob("*")}
        for steps, ranks in (20, 0), (7, 0), (7, 2):
            metrics = self.dir / f"finished-{steps}-{ranks}"
            done = self.succeeds(*self.train, f"--max_steps={steps}", f"--checkpoint_dir={self.checkpoints}", f"--metrics_out={metrics}",
                                 ranks=ranks)
            self.assertIn(f"already done: step 20 of {steps}; ", done)
            self.assertNotIn("images/s", done)
            self.assertEqual(events(metrics, "step") + events(metrics, "checkpoint"), [])
            self.assertEqual({path: path.stat().st_mtime_ns for path in self.checkpoints.rglob("*")}, before)

    def test_metrics_of_an_earlier_run(self):
        """A failed start leaves them alone; a fresh one moves them aside and says so; a resumed one continues them."""
        metrics, run_dir = self.dir / "earlier.jsonl", self.dir / "earlier"
        train = [*self.train, f"--metrics_out={metrics}", "--eval_every=1000"]
        self.succeeds(*train, "--max_steps=2")
        before = metrics.read_text()
        for words in ["--image_size=4"], [f"--checkpoint_dir={self.checkpoints}", "--seed=6"], ["--init_from=nothing"], ["--tensorboard=/dev/null/x"]:
            self.assertNotEqual(run(*train, "--max_steps=3", *words).returncode, 0)
            self.assertEqual(metrics.read_text(), before)
        moved = f"metrics of an earlier run: moved from {metrics} to {metrics.resolve()}.1\n"
        self.assertIn(moved, self.succeeds(*train, "--max_steps=1", f"--checkpoint_dir={run_dir}", ranks=2))
        self.assertEqual(pathlib.Path(f"{metrics}.1").read_text(), before)
        self.assertNotIn("moved", self.succeeds(*train, "--max_steps=3", f"--checkpoint_dir={run_dir}"))
        self.assertEqual([event["step"] for event in events(metrics, "step")], [1, 2, 3])

    def test_a_batch_larger_than_the_data_set(self):
        """It is the whole data set, without rows that only pad it: the same bits as with a batch of that size."""
        whole = None
        for batch in 200, 201, 10**6:
            run_dir = self.dir / f"batch-{batch}"
            log = self.succeeds(*self.train, f"--global_batch={batch}", "--epochs=2", f"--checkpoint_dir={run_dir}")
            self.assertIn("200 images per step; 200 per rank, in forward passes of 200\n", log)
            self.assertEqual(f"warning: --global_batch={batch}, but split train has 200 samples: a step has 200\n" in log, batch > 200)
            whole = whole or shards(run_dir / "step-000000002")
            self.assertEqual(shards(run_dir / "step-000000002"), whole)
            self.assertIn("step 3/3", self.succeeds(*self.train, f"--global_batch={batch}", "--epochs=3", f"--checkpoint_dir={run_dir}"))
        self.assertIn("200 images per step; 100 per rank, in forward passes of 25\n", self.succeeds(
            *self.train, "--global_batch=999999", "--max_steps=1", "--deterministic=elastic", ranks=2))

    def test_batch_norm_of_a_single_image(self):
        train = ["train", f"--data={self.data}", *TRAIN, "--model=googlenet-bn", "--stem=small", "--image_size=32", "--aux=false",
                 "--eval_every=1000"]
        last = "the last batch of an epoch has 1 of the 200 samples"
        for flags, ranks, words in ((["--global_batch=199", "--max_steps=2"], 0, last),
                                    (["--global_batch=199", "--max_steps=2", "--sync_bn"], 2, last),
                                    (["--global_batch=66", "--epochs=1"], 2, "the last batch of an epoch has 2 of the 200 samples"),
                                    (["--global_batch=2", "--max_steps=1"], 2, "a batch has 2 of the 200 samples"),
                                    (["--global_batch=4", "--micro_batch=1", "--max_steps=1"], 0, "a batch has 4 of the 200 samples")):
            self.fails(USAGE, [flags[0], words, "a single image", "another --global_batch"], *train, *flags, ranks=ranks)
        self.succeeds(*train, "--global_batch=66", "--max_steps=1", ranks=2)  # it ends before the last batch
        self.succeeds(*train, "--global_batch=2", "--max_steps=1", "--sync_bn", ranks=2)

    def test_batch_norm_of_all_ranks(self):
        train = ["train", f"--data={self.data}", *TRAIN, "--model=googlenet-bn", "--stem=small", "--image_size=32",
                 "--sync_bn", "--global_batch=3", "--max_steps=2", "--eval_every=1000"]
        losses = {}
        for ranks in 0, 2:
            metrics = self.dir / f"sync-bn-{ranks}"
            self.succeeds(*train, f"--metrics_out={metrics}", f"--checkpoint_dir={self.dir}/sync-bn-run-{ranks}", ranks=ranks)
            losses[ranks] = [event["loss"] for event in events(metrics, "step")]
        numpy.testing.assert_allclose(losses[2], losses[0], rtol=1e-3)
        self.fails(USAGE, ["--sync_bn: nin-cifar has no batch normalisation"], *self.train, "--model=nin-cifar",
                   "--sync_bn", "--max_steps=1", ranks=2)

    def test_sharded_optimizer(self):
        train = [*self.train, "--deterministic=true"]  # on 3 ranks, the bits depend on the size of buckets
        self.assertIn("of momentum per rank, a slice of ", self.succeeds(*train, "--max_steps=1", "--shard_optimizer", ranks=3))
        for ranks in 1, 2, 3:
            first, second = (self.dir / f"{name}-{ranks}" for name in ("sharded-first", "whole-first"))
            self.succeeds(*train, "--max_steps=10", "--shard_optimizer", f"--checkpoint_dir={first}", ranks=ranks)
            self.succeeds(*train, "--max_steps=10", f"--checkpoint_dir={second}", ranks=ranks)
            for step in 10, 20:
                saved = [{path.name: path.read_bytes() for path in next(run_dir.glob(f"step-*{step}")).iterdir()}
                         for run_dir in (first, second)]
                self.assertEqual(len(saved[0]), ranks + 1)
                self.assertEqual(saved[0], saved[1])
                if step == 10:
                    self.succeeds(*train, "--max_steps=20", f"--checkpoint_dir={first}", ranks=ranks)
                    self.succeeds(*train, "--max_steps=20", "--shard_optimizer", f"--checkpoint_dir={second}", ranks=ranks)

    def test_eval_and_export(self):
        weights, logits = self.dir / "weights.h5", self.dir / "logits.h5"
        evaluate = ["eval", f"--data={self.data}", "--threads=1", "--batch=16"]
        line = self.succeeds(*evaluate, f"--checkpoint={self.checkpoints}", f"--logits_out={logits}",
                             f"--metrics_out={self.dir}/eval").splitlines()[-1].split("(")[0]
        with h5py.File(logits) as file:
            right = numpy.argmax(file["logits"], axis=1) == file["labels"][:]
            self.assertEqual(file["logits"].shape, (50, 10))
            self.assertEqual(list(file["labels"][:12]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
            alone = file["logits"][:]
        self.assertIn(line, self.succeeds(*evaluate, f"--checkpoint={self.checkpoints}", "--batch=1000000"))  # it is of 50 images
        result = events(self.dir / "eval", "eval")[0]
        self.assertEqual((result["count"], result["step"]), (50, 20))
        self.assertAlmostEqual(result["top1"], right.mean())

        self.succeeds("export", f"--checkpoint={self.checkpoints}", "--format=hdf5", f"--output={weights}")
        left_open = ["--model=", "--stem=", "--val_preset=", "--mean="]  # determined by the weights file
        self.assertIn(line, self.succeeds(*evaluate, *left_open, f"--init_from={weights}"))
        self.assertIn(line, self.succeeds(*evaluate, f"--init_from={weights}", f"--logits_out={logits}", ranks=3))
        with h5py.File(logits) as file:
            numpy.testing.assert_allclose(file["logits"], alone, rtol=1e-4, atol=1e-5)
        with h5py.File(weights) as file:
            self.assertTrue(all(dataset.dtype == numpy.float32 for dataset in file.values()))
            self.assertIn((192, 1, 5, 5), [dataset.shape for dataset in file.values()])

    def test_eval_matches_classes_by_name(self):
        def pack(names, output):
            source = self.dir / f"idx-{output}"
            source.mkdir()
            write_idx(source, "t10k", 50, 2)
            labels = bytearray((source / "t10k-labels-idx1-ubyte").read_bytes())
            for i in range(8, len(labels)):  # image of digit d: the label of class d
                labels[i] = names.index(str(labels[i]))
            (source / "t10k-labels-idx1-ubyte").write_bytes(labels)
            (source / "classes.txt").write_text("".join(f"{name} \r\n" for name in names))
            self.succeeds("pack", "--format=idx", f"--input={source}", f"--output={self.dir / output}", "--split=val")
            return self.dir / output

        digits = [str(digit) for digit in range(10)]
        evaluate = ["eval", f"--checkpoint={self.step_20}", "--threads=1"]
        expected = run(*evaluate, f"--data={self.data}")
        self.assertEqual(expected.stderr, "")
        turned = run(*evaluate, f"--data={pack(digits[3:] + digits[:3], 'turned')}", f"--logits_out={self.dir}/turned.h5", ranks=2)
        self.assertEqual(turned.stdout.split("(")[0], expected.stdout.split("(")[0], turned.stderr)
        self.assertEqual(turned.stderr.count("matched by name"), 1)
        with h5py.File(self.dir / "turned.h5") as file:
            self.assertEqual(list(file["labels"][:12]), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
        more = run(*evaluate, f"--data={pack([*digits, 'ten'], 'more')}")
        self.assertEqual(more.stdout.split("(")[0], expected.stdout.split("(")[0], more.stderr)
        self.assertIn("does not know 1 class (ten)", more.stderr)
        (self.dir / "idx-more" / "classes.txt").write_text("\n".join([*digits[:9], "nine"]))
        self.succeeds("pack", "--format=idx", f"--input={self.dir}/idx-more", f"--output={self.dir}/other-names", "--split=val")
        self.fails(DATA, ["1 class (nine)", "1 class (9)"], *evaluate, f"--data={self.dir}/other-names")

    def test_weights_of_as_many_other_classes(self):
        source, other = self.dir / "idx-animals", self.dir / "animals"
        shutil.copytree(self.dir / "idx", source)
        (source / "classes.txt").write_text("".join(f"animal {i}\n" for i in range(10)))
        self.succeeds("pack", "--format=idx", f"--input={source}", f"--output={other}")
        said, saved = "the classifiers start anew: mlpconv3.2.conv.weight, mlpconv3.2.conv.bias", load_state_dict(self.step_20)
        for data, anew in (self.data, False), (other, True):
            start = self.dir / f"start-{data.name}"
            printed = self.succeeds("train", *TRAIN, f"--data={data}", "--val_split=none", f"--init_from={self.step_20}", "--freeze=*",
                                    "--max_steps=1", f"--checkpoint_dir={start}", ranks=2)
            self.assertEqual(said in " ".join(printed.split()), anew, printed)
            for name, value in load_state_dict(start).items():
                kept = not (anew and name.startswith("mlpconv3.2."))
                self.assertEqual(numpy.array_equal(value, saved[name]), kept, name)

    def test_weights_of_other_programs(self):
        exported, bare, parts = (self.dir / f"{name}.h5" for name in ("exported", "bare", "parts"))
        self.succeeds("export", f"--checkpoint={self.step_20}", f"--output={exported}")
        evaluate = ["eval", f"--data={self.data}", "--threads=1"]
        line = self.succeeds(*evaluate, f"--init_from={exported}").splitlines()[-1].split("(")[0]
        with h5py.File(exported) as source:
            config = json.loads(source.attrs["config"])
            for path in bare, parts:
                with h5py.File(path, "w") as copy:
                    for name, values in source.items():
                        copy[name] = values[:]
        with h5py.File(parts, "a") as file:  # h5py writes strings of variable length
            file.attrs.update({"format": "deeper-weights", "format_version": numpy.int32(1), "config": json.dumps(config)})
        self.assertIn(line, self.succeeds(*evaluate, f"--init_from={parts}"))
        listed = {name: ",".join(map(str, config[name])) for name in ("mean", "std")}
        flags = ["--model=nin-cifar", "--num_classes=10", "--image_size=10", f"--mean={listed['mean']}", f"--std={listed['std']}"]
        self.assertIn(line, self.succeeds(*evaluate, f"--init_from={bare}", *flags))
        self.assertIn("do not name their classes", run(*evaluate, f"--init_from={bare}", *flags).stderr)
        self.fails(CHECKPOINT, [str(bare), "--model, --num_classes, --std"], *evaluate, f"--init_from={bare}", flags[3])
        with h5py.File(parts, "a") as file:
            name = sorted(file)[0]
            file[name][0] = numpy.nan
        self.fails(CHECKPOINT, [str(parts), f"{name} is not finite"], *evaluate, f"--init_from={parts}")
        self.fails(CHECKPOINT, [f"{name} is not finite"], "predict", f"--init_from={parts}", "x.png")
        self.fails(CHECKPOINT, [f"{name} is not finite"], *self.train, "--max_steps=1", f"--init_from={parts}")
        self.fails(USAGE, ["--mean=nan", "finite"], *evaluate, f"--init_from={exported}", "--mean=nan")

    def test_predict(self):
        image, text = self.dir / "three.png", self.dir / "notes.txt"
        pixels = numpy.full((10, 10, 3), 30, numpy.uint8)
        pixels[3, :] += 150
        pixels[:, 3] += 40
        write_png(image, pixels)
        text.write_text("no image")
        predict = ["predict", f"--checkpoint={self.step_20}", "--threads=1"]
        lines = self.succeeds(*predict, image, image).splitlines()
        self.assertEqual((lines[0], len(lines)), (str(image), 12))
        shares = [float(line.split()[0]) for line in lines[1:6]]
        self.assertEqual(shares, sorted(shares, reverse=True))
        self.assertLessEqual(sum(shares), 100.05)
        self.assertEqual(self.succeeds(*predict, "/dev/stdin", input=image.read_bytes(), text=False).splitlines()[1:],
                         [line.encode() for line in lines[1:6]])
        self.fails(USAGE, ["at least one image"], *predict)

    def test_predict_many(self):
        """Folders, patterns and standard input; JSON; more images than are held in memory at once."""
        folder = self.dir / "folder"
        (folder / "sub").mkdir(parents=True)
        images = [folder / "a.png", folder / "b.PNG", folder / "sub/c.png"]
        for number, image in enumerate(images):
            write_png(image, numpy.full((10, 10, 3), 60 * number, numpy.uint8))
        write_png(folder / ".hidden.png", numpy.full((10, 10, 3), 30, numpy.uint8))
        (folder / "notes.txt").write_text("no image")
        predict = ["predict", f"--checkpoint={self.step_20}", "--threads=1", "--top=2", "--batch=1"]
        expected = self.succeeds(*predict, *images)
        self.assertEqual(self.succeeds(*predict, folder), expected)
        self.assertEqual(self.succeeds(*predict, f"{folder}/[ab].*", folder / "sub"), expected)
        self.assertEqual(self.succeeds(*predict, "-", input="".join(f"{image}\n" for image in images)), expected)
        lines = [json.loads(line) for line in self.succeeds(*predict, "--json", *images * 30).splitlines()]
        self.assertEqual([line["image"] for line in lines], [str(image) for image in images * 30])
        self.assertEqual(lines[:3] * 30, lines)
        first = lines[0]["predictions"]
        self.assertEqual((len(first), list(first[0])), (2, ["class", "index", "probability"]))
        self.assertIn(f"{100 * first[0]['probability']:6.2f} %  {first[0]['class']}", expected.splitlines()[1])
        broken = self.fails(DATA, ["1 of 2 images"], *predict, "--json", images[0], folder / "notes.txt").stdout.splitlines()
        self.assertEqual(json.loads(broken[0]), lines[0])
        self.assertEqual(list(json.loads(broken[1])), ["image", "error"])
        (folder / "empty").mkdir()
        self.fails(DATA, ["folder", "has no files *.jpg"], *predict, folder / "empty")
        self.fails(DATA, ["no file matches"], *predict, f"{folder}/*.gif")
        self.fails(DATA, ["names no image"], *predict, "-", input="")

    def test_predict_with_bad_images(self):
        good, huge, text = (self.dir / name for name in ("good.png", "huge.png", "text.png"))
        write_png(good, numpy.full((10, 10, 3), 30, numpy.uint8))
        content = bytearray(good.read_bytes())
        content[16:24] = struct.pack(">2I", 12000, 12000)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        huge.write_bytes(content)
        text.write_text("no image")
        predict = ["predict", f"--checkpoint={self.step_20}", "--threads=1", "--top=1", "--batch=2"]
        right = self.succeeds(*predict, good, good, good)
        mixed = self.fails(DATA, [f"{huge}: image of 12000 x 12000 pixels", f"{text}: ", "missing.png", "3 of 6 images"],
                           *predict, good, huge, text, good, "missing.png", good)
        self.assertEqual(mixed.stdout, right)
        self.assertEqual(len(mixed.stderr.splitlines()), 4)
        self.assertEqual(self.fails(DATA, [str(text), "1 of 1 images"], *predict, text).stdout, "")

    def test_output_that_cannot_be_written(self):
        image = self.dir / "written.png"
        write_png(image, numpy.full((10, 10, 3), 30, numpy.uint8))
        checkpoint, data = f"--checkpoint={self.step_20}", f"--data={self.data}"
        for command in (["predict", checkpoint, "--threads=1", image], ["eval", checkpoint, data, "--threads=1"], ["verify", data], ["help"],
                        ["describe", "--model=nin"], ["checkpoint", "list", self.checkpoints], [*self.train, "--max_steps=1", "--eval_every=1000"],
                        ["predict", "--help"], ["bench", "op", *MODEL, "--op=pool1", "--batch=1", "--repeats=1", "--runs=1"]):
            with self.subTest(command=command), open("/dev/full", "w") as full:
                self.fails(DATA, ["cannot write the standard output"], *command, stdout=full)

    def test_a_split_that_is_asked_for_must_exist(self):
        self.fails(DATA, ["vall"], *self.train, "--max_steps=1", "--val_split=vall")

    def test_training_without_evaluation(self):
        output = self.succeeds(*self.train, "--max_steps=2", "--eval_every=1", "--val_split=none")
        self.assertIn("evaluation    none: --val_split=none\n", output)
        self.assertNotIn("evaluation at step", output)
        self.succeeds("doctor", f"--data={self.data}", *MODEL, "--threads=1")  # which trains without evaluation

    def test_wrong_checkpoints(self):
        other = ["train", f"--data={self.data}", *TRAIN, "--max_steps=30", "--model=googlenet", "--stem=small"]
        self.fails(CHECKPOINT, ["model"], *other, f"--checkpoint_dir={self.checkpoints}")
        self.fails(CHECKPOINT, ["step"], *self.train, "--max_steps=30", "--resume=7", f"--checkpoint_dir={self.checkpoints}")
        self.fails(CHECKPOINT, ["nowhere"], "eval", f"--data={self.data}", f"--checkpoint={self.dir}/nowhere")
        (self.dir / "file").write_text("")
        self.fails(CHECKPOINT, [f"{self.dir}/file"], *self.train, "--max_steps=1", f"--checkpoint_dir={self.dir}/file/x")

    def test_checkpoints_in_the_way(self):
        """What could not be saved is refused before step 0, and a copy of the step is a way out."""
        metrics, branch = self.dir / "in-the-way", self.dir / "branch"
        train = [*self.train, "--max_steps=21", f"--metrics_out={metrics}"]
        self.fails(CHECKPOINT, ["also holds later steps, up to 20", "step-000000010 into another directory"], *train, "--resume=10",
                   f"--checkpoint_dir={self.checkpoints}")
        self.fails(CHECKPOINT, ["already holds checkpoints up to step 20", "another directory"], *train, "--resume=never",
                   f"--checkpoint_dir={self.checkpoints}", ranks=2)
        self.assertFalse(metrics.exists())
        shutil.copytree(self.checkpoints / "step-000000010", branch / "step-000000010")
        self.assertIn("10 steps done", self.succeeds(*train, "--resume=10", f"--checkpoint_dir={branch}"))

    def test_damaged_checkpoint(self):
        run_dir = pathlib.Path(shutil.copytree(self.checkpoints, self.dir / "damaged"))
        shard = next((run_dir / self.step_20.name).glob("shard-*.h5"))
        flip_bit(shard, shard.stat().st_size // 2)
        self.assertIn(shard.name, self.fails(CHECKPOINT, ["problem"], "verify", f"--checkpoint={run_dir}").stdout)
        self.fails(CHECKPOINT, [self.step_20.name], "predict", f"--checkpoint={run_dir / self.step_20.name}", "x.png")
        resumed = self.succeeds(*self.train, "--max_steps=20", f"--checkpoint_dir={run_dir}")
        self.assertIn("10 steps done", resumed)
        self.assertNotIn("NOT saved", resumed)
        self.assertEqual(shards(run_dir / self.step_20.name), shards(self.step_20))
        self.assertTrue((run_dir / f"{self.step_20.name}.damaged").is_dir())


if __name__ == "__main__":
    main()
