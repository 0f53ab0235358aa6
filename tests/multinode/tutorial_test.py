#!/usr/bin/env python3
"""Runs the commands of docs/start/two-machines.md on two hosts.

tutorial_test.py BINARIES DEEPER_RUN MPIRUN [unittest arguments]: the folder of `deeper`, the script, and Open MPI's launcher
"""
import json
import os
import pathlib
import re
import sys
import tempfile
import unittest

import numpy
import PIL.Image

import hosts

BINARIES, DEEPER_RUN, MPIRUN = sys.argv[1:4]
PAGE = hosts.HERE.parents[1] / "docs/start/two-machines.md"


def commands():
    return "".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))


class Tutorial(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = pathlib.Path(temporary.name)
        random = numpy.random.default_rng(1)
        for number in range(64):
            path = self.dir / "photos" / ("cats", "dogs")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(random.integers(0, 255, (40, 48, 3), dtype=numpy.uint8)).save(path)
        self.hosts = self.enterContext(hosts.Hosts())

    def test_as_it_is_written(self):
        path = os.pathsep.join([BINARIES, os.path.dirname(DEEPER_RUN), os.path.dirname(MPIRUN), os.environ["PATH"]])
        ssh_and_root = {"OMPI_MCA_plm_rsh_agent": str(hosts.HERE / "enter_host"), "OMPI_ALLOW_RUN_AS_ROOT": "1",
                        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        (self.dir / "commands").write_text(f"cd {self.dir}\n" + commands())
        command = [*self.hosts.enter("host-a"), "env", f"PATH={path}", *(f"{name}={value}" for name, value in ssh_and_root.items()),
                   "bash", "-eu", self.dir / "commands"]
        with self.hosts.job_of(command, self.dir / "output") as job:
            took = job.wait_until_gone(240)
            self.assertIsNotNone(took, f"processes are left: {list(job.pids())}\n{job.text()}")
            self.assertEqual(job.process.returncode, 0, job.text())
            print(f"{took:.1f} s", flush=True)
            for words in "network: eth0", "images/s predicted on 2 ranks", "restart 1 in 1 s, from step ", "held out":
                self.assertIn(words, job.text())
        page = (self.dir / "report.html").read_text()
        shown = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
        (run,), (study,) = shown["runs"], shown["studies"]
        self.assertEqual([event["event"] for event in run["events"] if event["event"] in ("start", "restart", "resume", "failure", "done")],
                         ["start", "restart", "resume", "done", "resume", "done"])
        self.assertEqual(run["steps"]["step"], list(range(5, 621, 5)))
        self.assertEqual([(point["ranks"], point["global_batch"]) for point in study["points"] if point["held_out"]], [(1, 8), (2, 16)])
        self.assertEqual([prediction["ranks"] for prediction in study["predictions"]], [4, 8, 16])


if __name__ == "__main__":
    if reason := hosts.obstacle():
        print(f"not run: {reason}")
        sys.exit(hosts.NOT_RUN)
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
