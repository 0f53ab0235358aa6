#!/usr/bin/env python3
"""deeper-track on metrics of the real binary and on written ones:  track_test.py DEEPER MPIRUN [unittest arguments]"""
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests/launch")]
import cli  # noqa: E402
from mlflow_server import MlflowServer, Refusal  # noqa: E402

from deeper.track import Follower  # noqa: E402

TRACK = ["/usr/bin/python3", "-I", "-S", "-W", "error", str(ROOT / "python/deeper/track.py")]  # -S: the standard library alone
SAMPLE = re.compile(r'([a-z_:][a-z0-9_:]*)\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\} (NaN|[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)', re.IGNORECASE)


def samples(text):
    """{(name, labels): value} of Prometheus's text format; every name has its # TYPE before it."""
    assert text.endswith("\n"), text
    types, found = {}, {}
    for line in text.splitlines():
        if line.startswith("#"):
            _, _, name, kind = line.split(" ")
            assert name not in types and kind in ("gauge", "counter"), line
            types[name] = kind
            continue
        match = SAMPLE.fullmatch(line)
        assert match and match[1] in types, line
        assert (types[match[1]] == "counter") == match[1].endswith("_total"), line
        found[match[1], match[2]] = float(match[3])
    return found


def step(number, **facts):
    return {"event": "step", "step": number, "loss": 1 / number, "lr": 0.1, "samples": "00ff", "time": 100.0 + number, **facts}


def start(begun=100.0):
    return {"event": "start", "config": {"model": "m", "classes": ["name"] * 1000}, "run": {"ranks": 2, "lr": 0.1, "data": "d"}, "time": begun}


DONE = {"event": "done", "step": 9, "seconds": 1.5, "time": 200.0}


class Tracking(cli.Cli):
    def setUp(self):
        self.folder = self.dir / self.id().rsplit(".", 1)[1]
        self.folder.mkdir()
        self.metrics, self.prom = self.folder / "metrics.jsonl", self.folder / "out" / "run.prom"
        self.prom.parent.mkdir()
        self.server = MlflowServer()
        self.addCleanup(self.server.stop)

    def tearDown(self):
        self.assertEqual(self.server.complaints, [])
        self.assertLessEqual({path.name for path in self.prom.parent.iterdir()}, {"run.prom"}, "only whole files stay")

    def write(self, *events, mode="a"):
        with self.metrics.open(mode) as file:
            file.writelines(event if isinstance(event, str) else json.dumps(event) + "\n" for event in events)

    def begin(self, *flags, **environment):
        command = [*TRACK, str(self.metrics), f"--mlflow={self.server.url}", f"--prometheus={self.prom}", "--poll_seconds=0.02", *flags]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        return process

    def track(self, *flags, code=0, **environment):
        process = self.begin(*flags, **environment)
        _, said = process.communicate(timeout=60)
        self.assertEqual(process.returncode, code, said)
        return said

    def wait(self, condition):
        end = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def run_of(self, number=0):
        return list(self.server.runs.values())[number]

    def curve(self, key, number=0):
        return [(at, value) for name, at, _, value in self.run_of(number)["metrics"] if name == key]

    def prometheus(self):
        return samples(self.prom.read_text())

    def test_real_run(self):
        self.succeeds("train", *cli.TRAIN, f"--data={self.data}", "--max_steps=4", "--eval_every=2", f"--checkpoint_dir={self.folder / 'c'}",
                      f"--metrics_out={self.metrics}")
        self.track("--experiment=photos", "--name=first")
        run = self.run_of()
        self.assertEqual((run["name"], run["status"], list(self.server.experiments)), ("first", "FINISHED", ["photos"]))
        self.assertEqual((run["params"]["model"], run["params"]["global_batch"]), ("nin-cifar", "12"))
        steps, evals = cli.events(self.metrics, "step"), cli.events(self.metrics, "eval")
        for field in "loss", "lr", "images_per_second", "compute_ms":
            self.assertEqual(self.curve(f"train/{field}"), [(event["step"], event[field]) for event in steps])
        self.assertEqual(self.curve("eval/top1"), [(event["step"], event["top1"]) for event in evals])
        self.assertEqual(run["metrics"][0][2], round(1000 * steps[0]["time"]))
        self.assertFalse([key for key, *_ in run["metrics"] if key.endswith(("/samples", "/step", "/time", "/path"))])
        found, label = self.prometheus(), 'run="first"'
        self.assertEqual(found["deeper_train_loss", label], steps[-1]["loss"])
        self.assertEqual(found["deeper_eval_top1", label], evals[-1]["top1"])
        self.assertEqual((found["deeper_step", label], found["deeper_finished", label]), (4, 1))
        self.assertEqual(found["deeper_events_total", label + ',event="step"'], 4)

    def test_growing_file(self):
        process = self.begin()
        self.write(start(), step(1), json.dumps(step(2))[:20])
        self.wait(lambda: self.curve("train/loss") if self.server.runs else False)
        self.assertEqual(self.curve("train/loss"), [(1, 1)])
        self.write(json.dumps(step(2))[20:] + "\n")
        self.wait(lambda: len(self.curve("train/loss")) == 2)
        self.assertEqual(self.run_of()["status"], "RUNNING")
        self.assertEqual(self.prometheus()["deeper_finished", 'run="test_growing_file"'], 0)
        self.write(json.dumps(step(3))[:20], "\n", {"event": "resume", "step": 2, "path": "c", "run": {"ranks": 1}}, step(3), DONE)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(self.curve("train/loss"), [(1, 1), (2, 1 / 2), (3, 1 / 3)])
        self.assertEqual((self.run_of()["status"], self.run_of()["end_time"], self.run_of()["params"]["ranks"]), ("FINISHED", 200000, "2"))
        self.assertEqual(self.run_of()["params"]["classes"], json.dumps(["name"] * 1000)[:500])

    def test_second_tracker_continues(self):
        self.write(start(), *map(step, range(1, 120)))
        process = self.begin()
        self.wait(lambda: self.server.runs and len(self.curve("train/loss")) == 119)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        self.write(*map(step, range(120, 130)), {"event": "failure", "exit_code": 5, "time": 300.0})
        self.track()
        self.track()  # nothing new
        self.assertEqual([at for at, _ in self.curve("train/loss")], [*range(1, 130)])
        self.assertEqual((len(self.server.runs), self.run_of()["status"]), (1, "FAILED"))
        self.write({"event": "resume", "step": 129, "path": "c", "run": {}, "time": 301.0}, step(130))
        self.track("--once")
        self.assertEqual(self.run_of()["status"], "RUNNING")

    def test_server_that_fails(self):
        """Does not answer, at first; then loses one answer after it did what was asked, each in turn."""
        answer = self.server.answer
        for lost in range(6):
            self.write(start(100.0 + lost), *map(step, range(1, 99)), DONE, mode="w")
            requests = []

            def lose(endpoint, fields, requests=requests, lost=lost):
                requests.append(endpoint)
                result = answer(endpoint, fields)
                if len(requests) == lost + 1:
                    raise Refusal(500, "INTERNAL_ERROR", "lost")
                return result

            self.server.failing, self.server.answer = [503, 0], lose
            self.assertIn("503", self.track())
            self.assertGreater(len(requests), lost)
            self.assertEqual([at for at, _ in self.curve("train/loss", lost)], [*range(1, 99)])
            self.assertEqual((len(self.server.runs), self.run_of(lost)["status"]), (lost + 1, "FINISHED"))
        self.write(start(50.0), DONE, mode="w")
        self.server.failing = [429]
        self.assertIn("429", self.track("--once", code=cli.COMMUNICATION))

    def test_no_server(self):
        self.write(start(), DONE)
        said = self.track("--mlflow=http://127.0.0.1:1", "--once", code=cli.COMMUNICATION)
        self.assertRegex(said, r"127.0.0.1:1 does not answer experiments/get-by-name: .*refused")

    def test_credentials(self):
        self.write(start(), step(1), DONE)
        self.server.token = "Bearer secret"
        said = self.track(code=cli.USAGE)
        self.assertIn("401 UNAUTHENTICATED", said)
        self.track(MLFLOW_TRACKING_TOKEN="secret")
        self.server.token = "Basic dXNlcjpwYXNz"
        self.track(MLFLOW_TRACKING_USERNAME="user", MLFLOW_TRACKING_PASSWORD="pass")
        self.assertEqual(len(self.server.runs), 1)

    def test_file_begun_anew(self):
        process = self.begin()
        self.write(start(1.0), step(1), step(2))
        self.wait(lambda: self.server.runs and len(self.curve("train/loss")) == 2)
        self.write(start(2.0), *map(step, range(1, 9)), DONE, mode="w")  # longer than before
        process.communicate(timeout=60)
        self.assertEqual([len(self.curve("train/loss", number)) for number in range(2)], [2, 8])
        self.assertEqual(self.prometheus()["deeper_events_total", 'run="test_file_begun_anew",event="step"'], 8)

    def test_long_run(self):
        facts = {f"loss_{number}": 0.5 for number in range(10)}
        self.write(start(), *(step(number, **facts) for number in range(1, 3001)), DONE)
        self.track()
        self.assertEqual([at for at, _ in self.curve("train/loss_9")], [*range(1, 3001)])

    def test_not_finite_and_warnings(self):
        self.write(start(), step(1, loss=None), {"event": "nonfinite", "step": 1, "reason": "rank 1: fc.weight", "time": 3.0},
                   {"event": "diagnosis", "step": 1, "what": "", "time": 3.5}, DONE)
        self.track("--name=a \"b\" \\c")
        self.assertEqual(self.curve("train/loss"), [])
        self.assertEqual(self.curve("train/lr"), [(1, 0.1)])
        self.assertEqual(self.run_of()["tags"]["deeper.warning"], "step 1, nonfinite: rank 1: fc.weight")
        found, label = self.prometheus(), r'run="a \"b\" \\c"'
        self.assertTrue(math.isnan(found["deeper_train_loss", label]))
        self.assertEqual(found["deeper_events_total", label + ',event="nonfinite"'], 1)

    def test_other_evaluations(self):
        """`eval --metrics_out` adds them to the file of a run that has ended."""
        def evaluation(top1, split, tta="none"):
            return {"event": "eval", "step": 1, "time": 1, "top1": top1, "split": split, "tta": tta}
        self.write(start(), step(1), evaluation(0.5, "val"), {"event": "done", "step": 1, "time": 2},
                   evaluation(0.9, "train"), evaluation(0.8, "val", "flip"))
        self.track()  # ends
        self.assertEqual([value for _, value in self.curve("eval/top1")], [0.5])
        run = 'run="test_other_evaluations"'
        self.assertEqual(self.prometheus()["deeper_eval_top1", run], 0.5)
        self.assertEqual(self.prometheus()["deeper_finished", run], 1)

    def test_readers_see_whole_files(self):
        process, key = self.begin(), ("deeper_step", 'run="test_readers_see_whole_files"')
        self.write(start(), step(1))
        self.wait(self.prom.exists)
        self.wait(lambda: self.prometheus().get(key) == 1)
        with self.prom.open() as reader:
            self.write(step(2))
            self.wait(lambda: self.prometheus()[key] == 2)
            self.assertEqual(samples(reader.read())[key], 1, "a new file takes the place of the old one")
        self.write(DONE)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)

    def test_mistakes(self):
        self.assertIn("no file", self.track("--once", code=cli.DATA))
        self.write("hello\n", step(1))
        self.assertIn("is not a metrics file", self.track(code=cli.DATA))
        for wrong in {"step": None}, {"time": "now"}, {"run": []}:
            self.write({**start(), **wrong}, step(1), mode="w")
            self.assertIn("is not a metrics file", self.track(code=cli.DATA))
        self.write(start(), mode="w")
        self.assertIn("out/none", self.track(f"--prometheus={self.folder}/out/none/x.prom", code=cli.DATA))
        for flags, words in ([], "give --mlflow=URL or --prometheus=FILE"), (["--mlflow=host:5000"], "begins with http"), \
                            (["--prometheus=x", "--poll_seconds=0"], "must be above 0"):
            result = subprocess.run([*TRACK, "metrics.jsonl", *flags], capture_output=True, text=True)
            self.assertEqual(result.returncode, cli.USAGE)
            self.assertIn(words, result.stderr)

    def test_follower(self):
        follower = Follower(self.metrics)
        self.assertEqual(follower.read(), [])
        self.write(json.dumps(start())[:9])
        self.assertEqual(follower.read(), [])
        self.write(json.dumps(start())[9:] + "\n", step(1))
        self.assertEqual([event["event"] for _, event in follower.read()], ["start", "step"])
        self.assertEqual(follower.read(), [])
        self.metrics.unlink()
        self.assertEqual(follower.read(), [])


if __name__ == "__main__":
    cli.main()
