#!/usr/bin/env python3
"""The output of a run for people: `deeper report`, timelines, and event files for TensorBoard.

report_test.py DEEPER MPIRUN CLASS [unittest arguments]: exits with 77 where what the class needs is not there:
  Page         nothing
  Timeline     nothing
  Browser      chromium
  TensorBoard  TensorBoard's Python package, in build/tools/tensorboard or where Python looks
"""
import base64
import collections
import html
import io
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEEPER, MPIRUN = sys.argv[1:3]
USAGE, DATA, NOT_RUN = 2, 3, 77
HEADS = ["main", "aux1", "aux2"]


def run(*arguments, ranks=0):
    launcher = [MPIRUN, "--oversubscribe", "--bind-to", "none", "--allow-run-as-root", "--timeout", "200", "-n", str(ranks)]
    command = [*(launcher if ranks else []), DEEPER, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=220)


def example_run(speed=1.0):
    """The events of a run of 60 steps that was interrupted after step 40 and resumed from step 30."""
    config = {"model": "googlenet", "image_size": 32, "num_classes": 10}
    how = {"ranks": 2, "device": "a processor", "precision": "fp32", "data": "photos", "samples": 480, "eval_samples": 50, "global_batch": 8,
           "total_steps": 60, "epoch_steps": 60, "parameters": 7000000, "optimizer": "sgd", "lr": 0.01, "lr_schedule": "poly", "seed": 1,
           "flags": "--lr=0.01 --lr_schedule=poly"}
    events = [{"event": "start", "config": config, "run": how}]
    for first, last in (1, 40), (31, 60):
        if first > 1:
            events.append({"event": "restart", "exit_code": 137, "restart": 1})
            events.append({"event": "resume", "step": first - 1, "path": "runs/a", "run": how})
        for step in range(first, last + 1):
            fall = math.exp(-speed * step / 30)
            step_event = {"event": "step", "step": step, "epoch": 0, "loss": 3.7 * fall + 0.2}
            step_event.update({f"loss_{head}": (2.3 + 0.2 * i) * fall + 0.1 * i for i, head in enumerate(HEADS)})
            step_event.update({"lr": 0.01 * speed * (1 - step / 60), "images_per_second": 800 * speed + 10 * math.sin(step),
                               "data_wait_ms": 1.5 + first / 10,
                               "compute_ms": 8.0, "comm_exposed_ms": 1.0 + step / 30, "peer_wait_ms": 0.5 + step / 50, "nonfinite_steps": 0})
            events.append(step_event)
            if step % 10 == 0:
                events.append({"event": "eval", "step": step, "top1": 0.9 - 0.7 * fall, "top5": 0.99 - 0.4 * fall, "loss": 2.2 * fall + 0.3,
                               "count": 50})
                events.append({"event": "diagnosis", "step": step, "gradient_conv1": 0.3 * fall, "gradient_fc": 0.9 * fall, "dead_conv1": step / 100,
                               "what": "hardly any gradient reaches conv1" if step not in (10, 50) else ""})
                events.append({"event": "checkpoint", "step": step, "path": "runs/a/step", "seconds": 0.25, "stall_seconds": 0.01})
    events.insert(-5, {"event": "nonfinite", "step": 57, "reason": "rank 1: the gradient of fc.weight is not finite"})
    events.insert(-5, {"event": "straggler", "step": 50, "what": "rank 1 is slow, mostly in </script><b>computing"})
    events.append({"event": "done", "step": 60, "seconds": 12.5})
    return [{**event, "time": 1.7e9 + i} for i, event in enumerate(events)]


def write_run(path, events):
    path.parent.mkdir(exist_ok=True)
    whole = path.with_suffix(".new")  # `report --watch` never reads a part
    whole.write_text("".join(json.dumps(event) + "\n" for event in events))
    return whole.replace(path)


def scaling_study():
    def point(ranks, efficiency, **more):
        return {"kind": "weak", "ranks": ranks, "global_batch": 32 * ranks, **more,
                **({"predicted": 100 * ranks * efficiency} if ranks > 1 else {})}

    measured = [point(ranks, efficiency, images_per_second={"median": 98 * ranks * efficiency,
                                                            "ci95": [90 * ranks * efficiency, 104 * ranks * efficiency]},
                      compute_ms=300, comm_exposed_ms=20 * ranks, data_wait_ms=15, other_ms=12)
                for ranks, efficiency in ((1, 1), (2, 0.95), (4, 0.9))]
    predicted = {"ranks": 64, "global_batch": 2048, "images_per_second": 4400, "efficiency": 0.7}
    return {"benchmark": "scaling", "points": measured, "predictions": [predicted]}


def evaluation():
    """Of three classes: the last one is never right. Two mistakes with pictures of one pixel."""
    picture = io.BytesIO()
    Image.new("L", (1, 1), 128).save(picture, "JPEG")
    jpeg = base64.b64encode(picture.getvalue()).decode()
    mistakes = [{"sample": i, "name": f"</script>{i}", "label": 2, "predicted": 0, "probability": 0.9 - i / 10, "jpeg": jpeg} for i in range(2)]
    return {"report": "evaluation", "model": "googlenet", "weights": "w", "data": "d", "split": "val", "tta": "none", "step": 7, "top1": 0.5,
            "top5": 1, "loss": 1.5, "count": 10, "classes": ["cat", "dog", "<b>emu"],
            "confusion": [[0, 0, 3], [0, 1, 1], [1, 1, 2], [2, 0, 3], [2, 1, 1]], "mistakes": mistakes}


def data_of(page):
    text = page.read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.dir = pathlib.Path(temporary.name)

    def succeeds(self, *arguments, **how):
        result = run(*arguments, **how)
        self.assertEqual(result.returncode, 0, result.stderr + result.stdout)
        return result

    def report(self, *operands):
        page = self.dir / f"{self.id()}.html"
        return page, self.succeeds("report", *operands, f"--output={page}")


class Page(Case):
    def test_holds_what_was_logged(self):
        events = example_run()
        page, _ = self.report(write_run(self.dir / "logged" / "metrics.jsonl", events))
        (shown,) = data_of(page)["runs"]
        steps = {event["step"]: event for event in events if event["event"] == "step"}  # the last event of a repeated step
        self.assertEqual(shown["steps"]["step"], list(range(1, 61)))
        self.assertEqual(shown["repeated"], 10)
        for key in ["loss", *(f"loss_{head}" for head in HEADS), "lr", "images_per_second", "data_wait_ms", "peer_wait_ms"]:
            for value, step in zip(shown["steps"][key], shown["steps"]["step"], strict=True):
                self.assertAlmostEqual(value, steps[step][key], delta=1e-5 * abs(steps[step][key]))
        self.assertEqual(shown["evals"]["step"], [10, 20, 30, 40, 50, 60])
        self.assertEqual(shown["diagnoses"]["step"], [10, 20, 30, 40, 50, 60])
        self.assertEqual(shown["diagnoses"]["dead_conv1"], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
        kinds = collections.Counter(event["event"] for event in shown["events"])
        self.assertEqual(kinds, {"start": 1, "restart": 1, "resume": 1, "checkpoint": 7, "nonfinite": 1, "straggler": 1, "diagnosis": 2,
                                 "done": 1})
        self.assertEqual(shown["config"]["model"], "googlenet")

    def test_other_evaluations_are_not_in_the_curve(self):
        """Of `eval --metrics_out` into the file of a run, on another split or with test-time augmentation."""
        events = [{**event, "split": "val", "tta": "none"} if event["event"] == "eval" else event for event in example_run()]
        last = next(event for event in reversed(events) if event["event"] == "eval")
        later = [{**last, "top1": 1, "time": events[-1]["time"] + 1000, **other} for other in ({"split": "train"}, {"tta": "flip"})]
        page, _ = self.report(write_run(self.dir / "later.jsonl", [*events, *later]))
        (shown,) = data_of(page)["runs"]
        self.assertEqual(shown["evals"]["step"], [10, 20, 30, 40, 50, 60])
        self.assertEqual(shown["last_time"], events[-1]["time"])
        self.assertIn('an evaluation of split "train", test-time augmentation "none", is not in the curve', str(data_of(page)["warnings"]))

    def test_needs_nothing_else(self):
        page, _ = self.report(write_run(self.dir / "alone.jsonl", example_run()))
        text = page.read_text()
        self.assertNotRegex(text, r"""(src|href)=["']?(https?:)?//|@import|url\(["']?http""")
        self.assertEqual(text.count("</script>"), 3, "what a run says must not end the page's data")
        self.assertIn("Permission is hereby granted", text)

    def test_several_runs_and_directories(self):
        for name in "first", "second":
            write_run(self.dir / name / "metrics.jsonl", example_run())
        page, _ = self.report(self.dir / "first", self.dir / "second" / "metrics.jsonl")
        self.assertEqual([pathlib.Path(shown["name"]).parent.name for shown in data_of(page)["runs"]], ["first", "second"])

    def test_a_line_that_was_cut_off(self):
        cut = write_run(self.dir / "cut.jsonl", example_run()[:30])
        whole = len(data_of(self.report(cut)[0])["runs"][0]["steps"]["step"])
        cut.write_text(cut.read_text()[:-20])
        page, result = self.report(cut)
        self.assertEqual(result.stderr, f"warning: {cut}: the last line is incomplete\n")
        self.assertEqual(len(data_of(page)["runs"][0]["steps"]["step"]), whole - 1)
        with cut.open("a") as file:  # as a resumed run does
            file.write('\n{"event":"restart","exit_code":137,"restart":1}\n{"event":"resume","step":5,"path":"runs/a"}\n')
        page, result = self.report(cut)
        self.assertEqual(result.stderr, "")
        (shown,) = data_of(page)["runs"]
        self.assertEqual(shown["steps"]["step"], [1, 2, 3, 4, 5])
        self.assertEqual([event["event"] for event in shown["events"]][-2:], ["restart", "resume"])

    def test_other_files(self):
        lines = write_run(self.dir / "lines.jsonl", example_run()).read_text().splitlines()
        files = {"broken": ("\n".join([*lines[:6], "[1, 2", *lines[6:]]), ":7: "), "log": ("step 3\nstep 4\n", ":1: "),
                 "empty": ("", "is empty"), "other": ('{"benchmark": "step"}', "is other JSON"),
                 "nothing": ("{", "has no event"), "number": ('{"report": 1, "benchmark": 2}', "is other JSON"), "binary": ("\0\1\2", "has no event")}
        for name, (text, words) in files.items():
            path = self.dir / name
            path.write_text(text)
            self.fails(DATA, [f"{name}{words}" if words[0] == ":" else words, name], path)
        (self.dir / "bare").mkdir()
        self.fails(DATA, ["has no *.jsonl"], self.dir / "bare")
        self.fails(DATA, ["No such file"], self.dir / "missing")
        self.fails(USAGE, ["pass at least one metrics file"])

    def test_an_evaluation(self):
        path = self.dir / "eval.json"
        path.write_text(json.dumps(evaluation()))
        page, result = self.report(path, write_run(self.dir / "its-run.jsonl", example_run()))
        self.assertIn("1 runs, 1 evaluations, 0 scaling studies", result.stdout)
        self.assertEqual(data_of(page)["evaluations"], [{**evaluation(), "name": str(path)}])

    def test_replaces_nothing_but_files(self):
        pipe = self.dir / "pipe"
        os.mkfifo(pipe)
        result = run("report", write_run(self.dir / "run.jsonl", example_run()), f"--output={pipe}")
        self.assertEqual(result.returncode, DATA)
        self.assertIn("not a regular file", result.stderr)
        self.assertTrue(pipe.is_fifo())

    def fails(self, code, words, *arguments):
        page = self.dir / "never.html"
        result = run("report", *arguments, f"--output={page}")
        self.assertEqual((result.returncode, result.stderr.count("\n")), (code, 1), result.stderr)
        self.assertFalse(page.exists())
        for word in words:
            self.assertIn(word, result.stderr)

    def test_watch_follows_until_the_end(self):
        events = example_run()
        path, page = write_run(self.dir / "live.jsonl", events[:20]), self.dir / "live.html"
        with subprocess.Popen([DEEPER, "report", path, "--watch", "--watch_seconds=1", f"--output={page}"], stdout=subprocess.DEVNULL) as watcher:
            try:
                self.assertLess(len(self.wait_for(page, 1)["runs"][0]["steps"]["step"]), 20)
                write_run(path, events[:-1])
                while len(self.wait_for(page, 1)["runs"][0]["steps"]["step"]) < 60:
                    time.sleep(0.1)
                write_run(path, events)
                self.assertEqual(watcher.wait(60), 0)
            finally:
                watcher.kill()
        self.assertEqual(data_of(page)["reload_seconds"], 0)

    def test_watch_ends_with_a_failed_job(self):
        failure = {"event": "failure", "exit_code": 5, "time": 1.0}
        path, page = write_run(self.dir / "failed.jsonl", [*example_run()[:20], failure]), self.dir / "failed.html"
        watched = subprocess.run([DEEPER, "report", path, "--watch", "--watch_seconds=1", f"--output={page}"], capture_output=True, timeout=60)
        self.assertEqual(watched.returncode, 0, watched.stderr)

    def wait_for(self, page, reload_seconds):
        while not page.exists():
            time.sleep(0.1)
        seen = data_of(page)
        self.assertEqual(seen["reload_seconds"], reload_seconds)
        return seen


class Browser(Case):
    """The page in a real browser: no errors, and every curve in its colour on a canvas."""

    # Reports each figure: its title, and for each curve whether its colour is on the figure's canvases.
    PROBE = """<script>
      const figures = [...document.querySelectorAll("figure")].map((figure) => {
        const pixels = [...figure.querySelectorAll("canvas")].map((c) => c.getContext("2d").getImageData(0, 0, c.width, c.height).data);
        const drawn = (colour) => pixels.some((data) => {
          for (let i = 0; i < data.length; i += 4)
            if (data[i + 3] > 90 && colour.every((part, j) => Math.abs(part - data[i + j]) < 14)) return true;
          return false;
        });
        return { title: figure.querySelector("h3").textContent, curves: Object.fromEntries([...figure.querySelectorAll(".legend button")].map(
          (button) => [button.textContent,
            drawn(getComputedStyle(button.querySelector("i")).borderTopColor.match(/\\d+/g).map(Number).slice(0, 3))])) };
      });
      document.body.append(Object.assign(document.createElement("pre"), { id: "probe", textContent: JSON.stringify(figures) }));
    </script>"""

    def look(self, *operands, dark=False):
        """{title: [curves]} of the figures."""
        page, _ = self.report(*operands)
        page.write_text(page.read_text().replace("</body>", self.PROBE + "</body>"))
        browser = subprocess.run(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self.dir}/profile", "--enable-logging=stderr", "--v=0",
             "--virtual-time-budget=5000", "--window-size=1280,2000", *(["--force-dark-mode"] if dark else []), "--dump-dom", page.as_uri()],
            capture_output=True, text=True, timeout=120)
        self.assertEqual(re.findall(r".*CONSOLE.*", browser.stderr), [])
        self.dom = browser.stdout
        found = re.search(r'<pre id="probe">(.*?)</pre>', browser.stdout, re.DOTALL)
        self.assertTrue(found, browser.stdout[-2000:] + browser.stderr)
        figures = json.loads(html.unescape(found[1]))
        for figure in figures:
            self.assertEqual([curve for curve, drawn in figure["curves"].items() if not drawn], [], figure["title"])
        return {figure["title"]: list(figure["curves"]) for figure in figures}

    SPLIT = ["waiting for data", "waiting for peers", "exposed communication", "compute"]

    def test_a_run(self):
        path = write_run(self.dir / "one" / "metrics.jsonl", example_run())
        for dark in False, True:
            figures = self.look(path, dark=dark)
            self.assertIn('<span class="flag">--lr=0.01</span> <span class="flag">--lr_schedule=poly</span>', self.dom)
            self.assertEqual(figures, {"Loss": ["all heads, weighted", *HEADS, "evaluation"], "Accuracy": ["top-1", "top-5"], "Throughput": ["one"],
                                       "Time of a step": self.SPLIT, "Learning rate": ["one"], "Gradients": ["conv1", "fc"],
                                       "Dead ReLUs": ["conv1"]})

    def test_a_resume_that_replaces_all_evaluations(self):
        path = write_run(self.dir / "again" / "metrics.jsonl", [*example_run()[:30], {"event": "resume", "step": 5, "time": 1.0}])
        self.assertEqual(self.look(path), {"Loss": ["all heads, weighted", *HEADS], "Throughput": ["again"], "Time of a step": self.SPLIT,
                                           "Learning rate": ["again"]})

    def test_several_runs(self):
        paths = [write_run(self.dir / name / "metrics.jsonl", example_run(speed)) for name, speed in (("fast", 1.0), ("slow", 0.5))]
        figures = self.look(*paths)
        self.assertEqual({title for title, curves in figures.items() if curves == ["fast", "slow"]},
                         {"Loss", *(f"Loss of head {head}" for head in HEADS), "Loss in evaluation", "Top-1 accuracy", "Top-5 accuracy",
                          "Throughput", "Learning rate"})
        self.assertEqual(figures["Time of a step: slow"], self.SPLIT)

    def test_a_scaling_study(self):
        path = self.dir / "scaling.json"
        path.write_text(json.dumps(scaling_study()))
        curves = ["measured, 95 % interval", "ideal", "predicted"]
        self.assertEqual(self.look(path), {"Throughput": curves, "Efficiency": curves,
                                           "Time of a step": ["other", "waiting for data", "exposed communication", "compute"]})


    def test_an_evaluation(self):
        path = self.dir / "eval.json"
        path.write_text(json.dumps(evaluation()))
        self.assertEqual(self.look(path), {})
        classes, matrix = [re.findall(r"<tr>(.*?)</tr>", table) for table in re.findall(r"<tbody>(.*?)</tbody>", self.dom)]
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in classes]
        emu = "&lt;b&gt;emu"
        self.assertEqual(cells, [[emu, "4", "0.00 %", "cat, 75.00 %"], ["cat", "4", "75.00 %", "dog, 25.00 %"], ["dog", "2", "100.00 %", ""]])
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in matrix]
        self.assertEqual(cells, [["cat", "3", "1", ""], ["dog", "", "2", ""], [emu, "3", "1", ""]])
        self.assertEqual(re.findall(r"<img[^>]*><b>(.*?)</b><span[^>]*>(.*?)</span>", self.dom),
                         [("cat, 90.00 %", f"label: {emu}"), ("cat, 80.00 %", f"label: {emu}")])


class Timeline(Case):
    FIRST, STEPS = 3, 3

    def test_trace_of_two_ranks(self):
        trace, metrics = self.dir / "trace.json", self.dir / "metrics.jsonl"
        self.succeeds("train", "--synthetic", "--synthetic_samples=200", "--model=nin-cifar", "--image_size=10", "--num_classes=10",
                      "--global_batch=12",
                      "--threads=1", "--max_steps=8", "--checkpoint_every=1", f"--checkpoint_dir={self.dir}/run", f"--metrics_out={metrics}",
                      f"--trace={trace}", f"--trace_first={self.FIRST}", f"--trace_steps={self.STEPS}", ranks=2)
        file = json.loads(trace.read_text())
        lanes = self.check_format(file["traceEvents"])
        names = [{name for (rank, _), name in self.names.items() if rank == r} for r in (0, 1)]
        for of_rank in names:
            self.assertLessEqual({"compute", "communication", "data", "checkpoint"}, of_rank)
        last = self.FIRST + self.STEPS - 1
        wanted = [f"step {step}" for step in range(self.FIRST, last + 1)]
        spans = [[e for e in lanes[rank, "compute"] if re.fullmatch(r"step \d+", e["name"])] for rank in (0, 1)]
        for of_rank in spans:
            self.assertEqual([event["name"] for event in of_rank], wanted)
        # A step ends after all ranks have begun it, if the clocks agree.
        uncertainty = max(file["otherData"]["clock_uncertainty_us"])
        for ours, theirs in zip(*spans, strict=True):
            self.assertLess(ours["ts"], theirs["ts"] + theirs["dur"] + uncertainty)
            self.assertLess(theirs["ts"], ours["ts"] + ours["dur"] + uncertainty)
        done = {event["name"] for event in lanes[0, "compute"]}
        self.assertLessEqual({"in the loader", "computing micro-batch 0", "backward", "updating the weights", "waiting for peers"}, done)
        # Two saves may be in progress. The third waits for the first.
        self.assertIn(f"step {self.FIRST}", [event["name"] for event in lanes[0, "checkpoint"]])

    def test_trace_of_bench_step(self):
        trace = self.dir / "created" / "bench.json"
        self.succeeds("bench", "step", "--model=nin-cifar", "--image_size=10", "--num_classes=10", "--batch=4",
                      "--warmup=3", "--repeats=2", "--lr=0.01",
                      "--threads=1", f"--trace={trace}")
        lanes = self.check_format(json.loads(trace.read_text())["traceEvents"])
        names = [event["name"] for event in lanes[0, "compute"]]
        for phase in "forward", "backward", "update":
            self.assertEqual(names.count(phase), 2)

    def check_format(self, events):
        """Checks the format of complete and metadata events -> {(rank, lane): its events in order}."""
        self.names, threads = {}, collections.defaultdict(list)
        for event in events:
            self.assertIn(event["ph"], "XM")
            for key, kind in ("name", str), ("pid", int), ("tid", int):
                self.assertIsInstance(event[key], kind)
            if event["ph"] == "M":
                if event["name"] == "thread_name":
                    self.names[event["pid"], event["tid"]] = event["args"]["name"]
                continue
            self.assertGreaterEqual(event["ts"], 0)
            self.assertGreaterEqual(event["dur"], 0)
            threads[event["pid"], event["tid"]].append(event)
        self.assertEqual(len(set((rank, name) for (rank, _), name in self.names.items())), len(self.names))
        for thread, its_events in threads.items():
            self.assertIn(thread, self.names)
            self.check_nesting(its_events)
        return {(rank, self.names[rank, thread]): its_events for (rank, thread), its_events in threads.items()}

    def check_nesting(self, events):
        rounding = 0.01  # microseconds
        ends = []
        for event in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
            while ends and ends[-1] <= event["ts"] + rounding:
                ends.pop()
            if ends:
                self.assertLessEqual(event["ts"] + event["dur"], ends[-1] + rounding, event)
            ends.append(event["ts"] + event["dur"])


class TensorBoard(Case):
    def test_reads_the_same_curves(self):
        events, metrics = self.dir / "events", self.dir / "metrics.jsonl"
        train = ["train", "--synthetic", "--synthetic_samples=60", "--model=nin-cifar", "--image_size=10", "--num_classes=10",
                 "--global_batch=12", "--threads=1",
                 "--log_every=1", f"--checkpoint_dir={self.dir}/run", f"--metrics_out={metrics}", f"--tensorboard={events}"]
        self.succeeds(*train, "--max_steps=6", "--checkpoint_every=4")
        shutil.rmtree(next((self.dir / "run").glob("step-*6")))  # as if the run had been killed after step 6, before its checkpoint
        self.succeeds(*train, "--max_steps=9")
        files = sorted(events.iterdir())
        self.assertEqual(len(files), 2)
        logged = collections.defaultdict(dict)
        for event in map(json.loads, metrics.read_text().splitlines()):
            if event["event"] == "resume":
                logged = {tag: {step: at for step, at in steps.items() if step <= event["step"]} for tag, steps in logged.items()}
            for key, value in event.items():
                if event["event"] in ("step", "eval") and isinstance(value, (int, float)) and key not in ("step", "time"):
                    folder = {"step": "train", "eval": "eval"}[event["event"]]
                    logged[f"{folder}/{key}"][event["step"]] = (value, event["time"])
        self.assertGreaterEqual(len(logged), 12)
        read = self.read(events)
        self.assertEqual(set(read), set(logged))
        for tag, scalars in read.items():
            self.assertEqual([scalar.step for scalar in scalars], list(logged[tag]), tag)
            for scalar, (value, when) in zip(scalars, logged[tag].values(), strict=True):
                self.assertEqual((scalar.value, scalar.wall_time), (float(numpy.float32(value)), when))
        # Killed in the middle of a record: all earlier records remain.
        files[1].write_bytes(files[1].read_bytes()[:-5])
        self.assertEqual(self.read(events)["train/loss"], read["train/loss"])

    @staticmethod
    def read(directory):
        accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0})
        accumulator.Reload()
        return {tag: accumulator.Scalars(tag) for tag in accumulator.Tags()["scalars"]}


if __name__ == "__main__":
    needs = sys.argv[3]
    if needs == "Browser":
        CHROMIUM = shutil.which("chromium")
        if CHROMIUM is None:
            sys.exit(NOT_RUN)
    if needs == "TensorBoard":
        sys.path.append(str(ROOT / "build/tools/tensorboard"))
        try:
            import numpy
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        except ImportError:
            sys.exit(NOT_RUN)
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
