"""Jobs under mpirun, access to their processes, and data to train on."""
import os
import pathlib
import random
import signal
import struct
import subprocess
import time
import uuid

TAG = "DEEPER_FAULT_JOB"


def environment(pid):
    """The environment of a live process as {name: value}; empty for a dead process or a zombie."""
    try:
        entries = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def lives(pid):
    """Also without an environment: then the kernel still takes the process apart, or only its first thread has ended. It holds its locks."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # from `state` on, as in proc_pid_stat(5)
        return fields[0] not in "ZX" or int(fields[17]) > 1  # threads
    except OSError:
        return False


class Job:
    """`command` and all processes that it starts. Kills those that are left at the end. Also ends when this process does."""

    def __init__(self, command, output, variables=None):
        self.tag = uuid.uuid4().hex
        self.output = pathlib.Path(output)
        # In a process group of its own, with a parent in the session: the kernel drops SIGTSTP in an orphaned group.
        with open(self.output, "wb") as file:
            self.process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *command], stdout=file, stderr=subprocess.STDOUT,
                                            env=os.environ | (variables or {}) | {TAG: self.tag}, process_group=0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()

    def pids(self):
        """{pid: environment} of all its processes, on all hosts of this machine."""
        found = {int(path.name): environment(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit()}
        return {pid: variables for pid, variables in found.items() if variables.get(TAG) == self.tag}

    def rank(self, number):
        """The process id of this rank."""
        candidates = [pid for pid, variables in self.pids().items() if variables.get("OMPI_COMM_WORLD_RANK") == str(number)]
        return min(candidates)

    def text(self):
        return self.output.read_text(errors="replace")

    def wait_for_text(self, words, seconds):
        """Returns False if the job ends or the time passes without the text."""
        end = time.monotonic() + seconds
        while words not in self.text():
            if self.process.poll() is not None or time.monotonic() > end:
                return words in self.text()
            time.sleep(0.02)
        return True

    def wait_until_gone(self, seconds):
        """Returns after how many seconds the last process ended; None if one still runs."""
        start = time.monotonic()
        seen = set()
        while self.process.poll() is None or self.pids() or any(map(lives, seen)):
            seen |= self.pids().keys()
            if time.monotonic() > start + seconds:
                return None
            time.sleep(0.05)
        return time.monotonic() - start


def write_idx(directory, samples):
    """Packed by `pack --format=idx`: images of 10 x 10, of noise."""
    rng = random.Random(1)
    for name in "train", "t10k":
        (directory / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, samples, 10, 10) + rng.randbytes(samples * 100))
        (directory / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, samples) + bytes(i % 10 for i in range(samples)))
