#!/usr/bin/env python3
"""launch/deeper-run on two hosts: trains, and continues when one of them is lost.

two_hosts_test.py DEEPER_RUN DEEPER MPIRUN [unittest arguments]
"""
import pathlib
import signal
import sys
import time
import unittest

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "multinode"))
import hosts
from launch_test import COMMUNICATION, PREEMPTED, RUN, STEPS, TRAIN, Launch, newest, state, unittest_arguments


class TwoHosts(Launch):
    def setUp(self):
        super().setUp()
        self.hosts = self.enterContext(hosts.Hosts())

    def job(self, *launcher, flags=()):
        where = ",".join(f"{address}:1" for address in hosts.ADDRESSES.values())
        command = [*self.hosts.enter("host-a"), *RUN, f"--hosts={where}", f"--rsh_agent={hosts.HERE / 'enter_host'}", *launcher, "--", *TRAIN,
                   "--deterministic=elastic", "--elastic_slices=2", f"--checkpoint_dir={self.dir}/run", f"--metrics_out={self.dir}/run.jsonl", *flags]
        return self.hosts.job_of(command, self.dir / "output")

    def test_trains(self):
        with self.job() as job:
            self.gone(job, 0)
            self.assertIn("network: eth0: the route to 10.77.0.2 (10.77.0.2) uses eth0", job.text())
            self.assertRegex(" ".join(job.text().split()), r"ranks 2 over mpi \(Open MPI v[\d.]+, pml \w+, btl self, tcp\)")
            self.assertIn("OMPI_MCA_btl_tcp_if_include=10.77.0.0/24", job.text())
        self.assertGreater(self.hosts.received_bytes("host-b"), STEPS * 966986 * 4 / 2)

    def test_goes_on_without_a_lost_host(self):
        with self.job(flags=["--checkpoint_dir=" + str(self.dir / "whole"), f"--metrics_out={self.dir}/whole.jsonl"]) as job:
            self.gone(job, 0)
        with self.job("--restarts=3", "--backoff=0.5", "--shrink", flags=["--watchdog_seconds=4"]) as job:
            end = time.monotonic() + 60
            while newest(self.dir / "run") < 40 and time.monotonic() < end:
                time.sleep(0.02)
            self.hosts.lose("host-b")
            self.gone(job, 0)
            self.assertRegex(job.text(), r"10\.77\.0\.2 does not answer .*Continuing with 10\.77\.0\.1:1")
        shown = [event["event"] for event in self.shown(self.dir / "run.jsonl")["events"]]
        self.assertEqual([event for event in shown if event in ("start", "restart", "resume", "done")], ["start", "restart", "resume", "done"])
        numpy.testing.assert_array_equal(state(self.dir / "run"), state(self.dir / "whole"))

    def test_takes_back_a_host_that_returns(self):
        down = self.dir / "down"
        down.touch()
        self.executable("agent", f'[ ! -e {down} ] || exit 1; exec {hosts.HERE / "enter_host"} "$@"')
        grow = ["--shrink", "--grow_minutes=0.02", "--probe_seconds=1", f"--rsh_agent={self.dir}/bin/agent"]
        with self.job(*grow, flags=["--max_steps=1000000", "--checkpoint_every=1000000"]) as job:
            self.assertTrue(job.wait_for_text("Continuing with 10.77.0.1:1", 60), job.text())
            self.assertTrue(job.wait_for_text("step 20/", 60), job.text())
            self.assertEqual(newest(self.dir / "run"), 0)
            down.unlink()
            self.assertTrue(job.wait_for_text("10.77.0.2 answers again", 60), job.text())
            self.assertTrue(job.wait_for_text(" over mpi", 60), job.text())
            self.assertTrue(job.wait_for_text(" steps done, next is batch", 60), job.text())
            saved = newest(self.dir / "run")
            self.assertTrue(job.wait_for_text(f"step {saved + 20 - saved % 20}/", 60), job.text())
            self.assertRegex(job.text(), r"ranks +2 over mpi")
            job.process.send_signal(signal.SIGTERM)
            self.gone(job, PREEMPTED)

    def test_a_stop_while_the_job_saves_to_grow(self):
        """Does not end ranks that are saving. They die at a second SIGUSR1, as those of deeper do."""
        down = self.dir / "down"
        down.touch()
        self.executable("agent", f'[ ! -e {down} ] || exit 1; exec {hosts.HERE / "enter_host"} "$@"')
        self.executable("deeper", f"trap 'trap - USR1; touch {self.dir}/saving; sleep 3 & wait $!; exit 75' USR1\n"
                                  f"touch {self.dir}/started; while :; do sleep 0.05; done")
        with self.job("--shrink", "--grow_minutes=0.02", "--probe_seconds=1", "--restarts=3", f"--rsh_agent={self.dir}/bin/agent",
                      f"--deeper={self.dir}/bin/deeper") as job:
            self.appears(job, "started")
            down.unlink()
            self.appears(job, "saving")
            job.process.send_signal(signal.SIGTERM)
            self.gone(job, PREEMPTED)
            self.assertIn("SIGTERM: stopping with a checkpoint", job.text())

    def appears(self, job, name):
        end = time.monotonic() + 60
        while not (self.dir / name).exists():
            self.assertTrue(job.process.poll() is None and time.monotonic() < end, job.text())
            time.sleep(0.02)

    def test_lost_host_without_restarts(self):
        with self.job(flags=["--max_steps=1000000", "--watchdog_seconds=4"]) as job:
            self.assertTrue(job.wait_for_text("step 40/", 60), job.text())
            self.hosts.lose("host-b")
            self.gone(job, COMMUNICATION)
        failure = self.shown(self.dir / "run.jsonl")["events"][-1]
        self.assertEqual((failure["event"], failure["exit_code"]), ("failure", COMMUNICATION))


if __name__ == "__main__":
    if reason := hosts.obstacle():
        print(f"not run: {reason}")
        sys.exit(hosts.NOT_RUN)
    unittest.main(argv=[sys.argv[0], *unittest_arguments])
