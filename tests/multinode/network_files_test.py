#!/usr/bin/env python3
"""Training on a network file system, GlusterFS with FUSE, whose server and clients are hosts of their own (hosts.py).

Counted as not run where namespaces are not allowed, there is no FUSE, or Debian's glusterfs-server and glusterfs-client are missing.
DEEPER_LONG_TESTS=1 also waits until a dead owner of a directory is replaced, which takes half a minute.

network_files_test.py DEEPER MPIRUN [unittest arguments]
"""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import hosts
from jobs import write_idx

DEEPER, MPIRUN = sys.argv[1:3]
DONE, DATA, CHECKPOINT, PREEMPTED = 0, 3, 4, 75
SERVER = "server"
VOLUMES = {"server": """
volume disk
  type storage/posix
  option directory {dir}/disk
end-volume
volume locks
  type features/locks
  subvolumes disk
end-volume
volume export
  type protocol/server
  option transport-type socket
  option transport.socket.listen-port 24007
  option auth.addr.locks.allow *
  subvolumes locks
end-volume
""", "client": """
volume remote
  type protocol/client
  option transport-type socket
  option remote-host {address}
  option remote-port 24007
  option remote-subvolume locks
  option ping-timeout 30
end-volume
"""}


def obstacle():
    for tool in "glusterfs", "glusterfsd":
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return hosts.obstacle() or (None if pathlib.Path("/dev/fuse").exists() else "there is no /dev/fuse")


class NetworkFiles(unittest.TestCase):
    """The hosts mount the server's disk on DIR/shared, and have kernels of different names."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = pathlib.Path(temporary.name)
        self.hosts = self.enterContext(hosts.Hosts((SERVER, *hosts.NAMES), own_mounts=True))
        self.shared, self.disk = self.dir / "shared", self.dir / "disk"
        self.shared.mkdir()
        self.disk.mkdir()
        for name, text in VOLUMES.items():
            (self.dir / f"{name}.vol").write_text(text.format(dir=self.dir, address=self.hosts.addresses[SERVER]))
        self.server = self.start_server()
        for host in hosts.NAMES:
            (self.dir / host).write_text(host + "\n")
            self.hosts.inside(host, f"mount --bind {self.dir}/{host} /proc/sys/kernel/random/boot_id")
            self.mount(host)

    def daemon(self, host, *command):
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self.hosts.enter(host), *command, "--no-daemon",
                                    f"--log-file={self.dir}/{host}.log"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def start_server(self):
        server = self.daemon(SERVER, "glusterfsd", f"--volfile={self.dir}/server.vol", f"--pid-file={self.dir}/server.pid")
        end = time.monotonic() + 30
        while ":24007" not in self.hosts.inside(SERVER, "ss --listening --tcp --numeric"):
            self.assertIsNone(server.poll(), self.log(SERVER))
            self.assertLess(time.monotonic(), end, self.log(SERVER))
            time.sleep(0.05)
        return server

    def log(self, host):
        path = self.dir / f"{host}.log"
        return path.read_text()[-2000:] if path.exists() else ""

    def stop_server(self):
        self.server.kill()
        self.server.wait()

    def mount(self, host):
        """Without caches, so that each read and look asks the server."""
        client = self.daemon(host, "glusterfs", f"--volfile={self.dir}/client.vol", "--attribute-timeout=0", "--entry-timeout=0",
                             "--direct-io-mode=enable", str(self.shared))
        end = time.monotonic() + 30
        while "fuse.glusterfs" not in self.hosts.inside(host, "cat /proc/self/mounts"):
            if client.poll() is not None or time.monotonic() > end:
                self.skipTest(f"GlusterFS cannot be mounted here: {self.log(host)}")
            time.sleep(0.05)

    def deeper(self, host, *arguments):
        run = subprocess.run([*self.hosts.enter(host), DEEPER, *map(str, arguments)], capture_output=True, text=True, timeout=120)
        return run.returncode, run.stdout + run.stderr

    def pack(self):
        write_idx(self.dir, 200)
        for split in "train", "val":
            code, text = self.deeper("host-a", "pack", "--format=idx", f"--input={self.dir}", f"--output={self.shared}/data", f"--split={split}")
            self.assertEqual(code, DONE, text)

    def train(self, *flags):
        return [DEEPER, "train", "--model=nin-cifar", "--image_size=10", "--num_classes=10", "--threads=1", "--global_batch=4", "--log_every=10",
                f"--data={self.shared}/data", f"--checkpoint_dir={self.shared}/run", "--eval_every=1000000", *flags]

    def job(self, host, *flags):
        return self.hosts.job_of([*self.hosts.enter(host), *self.train(*flags)], self.dir / f"{host}.output")

    def wait_for(self, condition, job, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, job.text())
            time.sleep(0.05)

    def assert_says(self, job, words, seconds=60):
        self.assertTrue(job.wait_for_text(words, seconds), job.text())

    def continues(self, job, steps):
        """-> the last step before."""
        step = int(re.findall(r"step (\d+)/", job.text())[-1])
        self.assert_says(job, f"step {step + steps}/")
        return step

    def ends(self, job, code, seconds=60):
        self.assertIsNotNone(job.wait_until_gone(seconds), job.text())
        self.assertEqual(job.process.returncode, code, job.text())

    def steps(self):
        return [int(path.name.split("-")[1]) for path in sorted((self.disk / "run").glob("step-*"))]

    @contextlib.contextmanager
    def suspended(self, process):
        process.send_signal(signal.SIGSTOP)
        yield
        process.send_signal(signal.SIGCONT)


class Training(NetworkFiles):
    def test_on_two_hosts(self):
        """What one host has written, the other reads: shards, checkpoints, and the owner of the directory."""
        self.pack()
        code, text = self.deeper("host-b", "verify", f"--data={self.shared}/data")
        self.assertEqual(code, DONE, text)
        ranks = self.hosts.launch(MPIRUN, hosts.NAMES)
        with self.hosts.job_of([*ranks, *self.train("--max_steps=20", "--checkpoint_every=5", "--keep=2")], self.dir / "output") as job:
            self.ends(job, DONE, 120)
        self.assertEqual(self.steps(), [15, 20])
        for host in hosts.NAMES:
            code, text = self.deeper(host, "verify", f"--checkpoint={self.shared}/run")
            self.assertEqual(code, DONE, text)
        with self.job("host-b", "--max_steps=1000000") as job:
            self.assert_says(job, "20 steps done")
            self.assert_says(job, "step 40/")
            code, text = self.deeper("host-a", *self.train("--max_steps=1000000")[1:])
            self.assertEqual(code, CHECKPOINT, text)
            self.assertRegex(text, r"in use by another process \(process \d+ on host host-b")


class Pause(NetworkFiles):
    def test_calls_wait_for_the_server(self):
        """It is suspended, then cut off. As with a hard mount, nothing fails and nothing is reported."""
        self.pack()
        with self.job("host-a", "--max_steps=1000000", "--checkpoint_every=20") as job:
            self.assert_says(job, "step 40/")
            with self.suspended(self.server):
                time.sleep(3)
            self.continues(job, 20)
            for name in SERVER, "host-a":  # the connection must survive if this machine pauses the test
                self.hosts.inside(name, "echo 8 > /proc/sys/net/ipv4/tcp_retries2")
            self.hosts.cut(SERVER)
            time.sleep(2)
            self.hosts.mend(SERVER)
            self.continues(job, 20)
            job.process.send_signal(signal.SIGUSR1)
            self.ends(job, PREEMPTED)
            self.assertNotIn("warning: checkpoint", job.text())


class Outage(NetworkFiles):
    def setUp(self):
        super().setUp()
        self.pack()

    def beat(self):
        path = self.disk / "run/.deeper-lock"
        return int(re.search(r"beat (\d+)", path.read_text())[1])

    def test_the_server_restarts(self):
        """Training waits for its data, continues, and still owns the directory: other hosts see it alive."""
        with self.job("host-a", "--max_steps=1000000", "--checkpoint_every=20") as job:
            self.assert_says(job, "step 40/")
            before = self.beat()
            self.stop_server()
            self.assert_says(job, "is not connected; check the server of this file system and the network; waiting for it")
            time.sleep(6)  # longer than between two signs of life
            self.server = self.start_server()
            self.assert_says(job, "can be read again after")
            step = self.continues(job, 20)
            self.wait_for(lambda: self.beat() > before, job)
            self.wait_for(lambda: self.steps() and self.steps()[-1] > step, job)
            code, text = self.deeper("host-b", *self.train("--max_steps=1000000")[1:])
            self.assertEqual(code, CHECKPOINT, text)
            self.assertIn("on host host-a", text)
            job.process.send_signal(signal.SIGUSR1)
            self.ends(job, PREEMPTED)

    def test_the_last_save_waits_for_the_server(self):
        with self.job("host-a", "--max_steps=1500", "--synthetic", "--data=") as job:
            self.assert_says(job, "resume ")
            self.stop_server()
            self.assert_says(job, "saving step 1500 again", 180)
            self.server = self.start_server()
            self.ends(job, DONE)
        self.assertEqual(self.steps(), [1500])

    def test_resuming_takes_no_older_checkpoint(self):
        """The newest one is not damaged, only out of reach."""
        with self.job("host-a", "--max_steps=20", "--checkpoint_every=10") as job:
            self.ends(job, DONE)
        shard = next((self.disk / "run/step-000000020").glob("*.h5"))
        self.stop_server()
        code, text = self.deeper("host-a", *self.train("--max_steps=30")[1:])
        self.assertIn(code, (DATA, CHECKPOINT), text)
        self.assertEqual(len(text.splitlines()), 1, text)
        self.assertIn("check the server of this file system", text)
        self.assertTrue(shard.exists())

    def test_a_file_that_the_server_does_not_know_any_more(self):
        """A shard is restored from a copy while the server is away: descriptors of the old one are stale."""
        with self.job("host-a", "--max_steps=1000000") as job:
            self.assert_says(job, "step 40/")
            self.stop_server()
            for shard in (self.disk / "data").glob("*.h5"):
                shutil.copy(shard, self.dir / "copy")
                shard.unlink()
                shutil.copy(self.dir / "copy", shard)
            self.server = self.start_server()
            self.continues(job, 60)
            job.process.send_signal(signal.SIGUSR1)
            self.ends(job, PREEMPTED)


if os.environ.get("DEEPER_LONG_TESTS"):
    class Owner(NetworkFiles):
        def test_a_killed_owner_is_replaced(self):
            self.pack()
            with self.job("host-a", "--max_steps=1000000") as job:
                self.assert_says(job, "step 10/")
            with self.job("host-b", "--max_steps=20") as job:
                self.ends(job, DONE, 90)
                self.assertRegex(job.text(), r"taken over from process\s+\d+\s+on\s+host\s+host-a")


if __name__ == "__main__":
    if reason := obstacle():
        print(f"not run: {reason}")
        sys.exit(hosts.NOT_RUN)
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
