"""Runs of `deeper` as subprocesses, with their metrics."""
from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
import weakref
from collections import deque
from types import TracebackType
from typing import Deque, Dict, Iterator, Optional, Sequence, Tuple, Type, cast

from deeper.track import Event, Follower
from deeper.weights import Path

POLL_SECONDS = 0.1
TERMINATE_SECONDS = 10  # from SIGTERM to SIGKILL
LOG_LINES = 20  # of the log in an error


class RunError(RuntimeError):
    """The command did not end with exit code 0.

    exit_code: docs/reference/exit-codes.md; 128 plus the number of a signal that ended it.  log: all that it printed.
    """

    def __init__(self, command: Sequence[str], exit_code: int, log: str) -> None:
        last = "\n".join(log.strip().splitlines()[-LOG_LINES:])
        super().__init__(f"`{' '.join(command)}` ended with exit code {exit_code}:\n{last}")
        self.command, self.exit_code, self.log = command, exit_code, log

    def __reduce__(self) -> Tuple[Type[RunError], Tuple[Sequence[str], int, str]]:
        return RunError, (self.command, self.exit_code, self.log)  # so that a process of a pool can raise it


def stop(process: subprocess.Popen[bytes], seconds: float) -> None:
    """SIGUSR1, at which a training with --checkpoint_dir saves; SIGTERM when the seconds have passed; SIGKILL for its process group."""
    try:
        for number, patience in (signal.SIGUSR1, seconds), (signal.SIGTERM, TERMINATE_SECONDS):
            if process.poll() is None:
                process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
    finally:  # also when the user interrupts the wait
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def environment() -> Dict[str, str]:
    """With the programs that pip installed next to this Python last on the PATH: its environment need not be activated."""
    return {**os.environ, "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")])}


class Run(Iterator[Event]):
    """The events of a running command, each as a dict, as docs/reference/metrics.md describes them. `run` starts one.

    Iteration ends when the command ends with exit code 0, and raises RunError when it ends with another. `close`, the end of a `with` block,
    the end of the last reference and the end of Python stop a command that still runs.
    """

    def __init__(self, arguments: Sequence[str], metrics_out: Optional[Path], log: Optional[Path], stop_seconds: float) -> None:
        scratch = pathlib.Path(tempfile.mkdtemp(prefix="deeper-"))
        weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        metrics = pathlib.Path(metrics_out or scratch / "metrics.jsonl")
        self.log = pathlib.Path(log or scratch / "log.txt")
        self.command = [*arguments, f"--metrics_out={metrics}"]
        self._follower = Follower(metrics)
        self._follower.read()  # events of earlier runs
        self._events: Deque[Event] = deque()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment(),
                                            start_new_session=True)
        self._stop = weakref.finalize(self, stop, self.process, stop_seconds)

    def __next__(self) -> Event:
        while not self._events:
            if not self._stop.alive:
                raise StopIteration
            ended = self.process.poll() is not None  # before the last look at the file
            self._events.extend(event for _, event in self._follower.read())
            if ended and not self._events:
                self._stop.detach()
                self._raise_failure()
                raise StopIteration
            if not self._events:
                time.sleep(POLL_SECONDS)
        return self._events.popleft()

    def _raise_failure(self) -> None:
        code = cast(int, self.process.returncode)
        if code != 0:
            raise RunError(self.command, code if code > 0 else 128 - code, self.log.read_text(errors="replace"))

    def close(self) -> None:
        """Stops the command and waits for its end. Nothing is raised for its exit code, which is in process.returncode."""
        self._events.clear()
        self._stop()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()


def run(arguments: Sequence[str], *, command: Sequence[str] = ("deeper",), metrics_out: Optional[Path] = None, log: Optional[Path] = None,
        stop_seconds: float = 60) -> Run:
    """Starts `deeper` and returns an iterator over its metrics events.

    arguments: a command that takes --metrics_out, and its flags: ["train", "--data=..."].
    command: what starts deeper: ["deeper"], ["deeper-run", "-n", "4", "--"], or ["mpirun", "-n", "4", "deeper"].
    metrics_out: file of the metrics; None: a temporary file. Events that are in the file already are not repeated.
    log: file for what the command prints; None: a temporary file. A RunError holds its content.
    stop_seconds: how long `close` waits for the last checkpoint before it ends the command.
    Raises FileNotFoundError if there is no such command.
    """
    if any(argument.lstrip("-").startswith("metrics_out") for argument in arguments):
        raise ValueError("give metrics_out=FILE to run() in place of --metrics_out")
    return Run([*command, *arguments], metrics_out, log, stop_seconds)
