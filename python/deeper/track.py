#!/usr/bin/env python3
"""Follows a metrics file of `deeper train` to an MLflow server and to a file for Prometheus (docs/guides/runs.md).

  deeper-track runs/photos/metrics.jsonl --mlflow=http://mlflow.example:5000
  deeper-track runs/photos/metrics.jsonl --prometheus=/var/lib/node_exporter/photos.prom

Ends when the run ends: at an event `done` or `failure`. Needs Python 3.9 and its standard library alone.
"""
from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import pathlib
import re
import signal
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from types import FrameType
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

Event = Dict[str, Any]

USAGE, DATA, COMMUNICATION = 2, 3, 5
STATUS = {"resume": "RUNNING", "done": "FINISHED", "failure": "FAILED"}  # of MLflow
ENDS = ("done", "failure")
KINDS: Dict[str, Tuple[type, ...]] = {  # of fields of events
    "event": (str,), "step": (int, float), "time": (int, float), "config": (dict,), "run": (dict,)}
WARNINGS = ("checkpoint_failed", "nonfinite", "straggler", "stuck_head", "diagnosis", "bottleneck", "bad_sample")
CURVES = {"step": "train", "eval": "eval", "checkpoint": "checkpoint"}  # events with numbers, and the folder of their names, as in TensorBoard
# One log-batch of MLflow may have 1000 entries: 50 events of up to 18 numbers, and these parameters.
EVENTS_PER_BATCH, MOST_PARAMS = 50, 90
MOST_VALUE = 500  # characters of a parameter or a tag
MOST_SECONDS = 60  # between two tries to reach a server


class Follower:
    """Reads a metrics file that another process writes. Opens it anew for each look, so that it also works on network file systems."""

    def __init__(self, path: Union[str, "os.PathLike[str]"]) -> None:
        self.path = pathlib.Path(path)
        self._first_line = b""
        self._position = 0

    def read(self) -> List[Tuple[int, Event]]:
        """Events since the last call, each with the position in the file behind it; none while there is no file. A line that a killed process
        cut off is left out. A file that was begun anew is read from its start. Raises ValueError if it is not a metrics file."""
        try:
            with self.path.open("rb") as file:
                first_line = file.readline()
                if first_line != self._first_line:  # it has the time of the start
                    self._position = 0
                file.seek(self._position)
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        if not first_line.endswith(b"\n"):
            return []
        if self._position == 0 and event_of(first_line) is None:
            raise ValueError(f"{self.path} is not a metrics file: its first line is no event")
        self._first_line = first_line
        events = []
        for line in lines:
            if not line.endswith(b"\n"):
                break  # not written to its end yet
            self._position += len(line)
            if (event := event_of(line)) is not None:
                events.append((self._position, event))
        return events


def event_of(line: bytes) -> Optional[Event]:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or "event" not in event:
        return None
    return event if all(isinstance(event[name], kind) for name, kind in KINDS.items() if name in event) else None


def numbers(event: Event) -> Iterator[Tuple[str, Optional[float]]]:
    """Name and value of what in an event is a curve; None for what was not finite."""
    for name, value in event.items():
        if name not in ("event", "time", "step") and (value is None or type(value) in (int, float)):
            yield name, value


def milliseconds(event: Event) -> int:
    return round(1000 * float(event.get("time", time.time())))


class Unreachable(Exception):
    """The server did not answer, or answered that it cannot now: the same request may succeed later."""


class Refused(Exception):
    """The server does not accept a request, and will not accept it later. code: MLflow's name of the reason."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Rest:
    """MLflow's REST API. Credentials are those of MLflow's own clients: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.headers = {"Content-Type": "application/json"}
        if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
            self.headers["Authorization"] = f"Bearer {token}"
        elif user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
            pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
            self.headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()

    def call(self, endpoint: str, **fields: Any) -> Dict[str, Any]:
        """A GET for what begins with get, else a POST."""
        path, body = f"/api/2.0/mlflow/{endpoint}", json.dumps(fields).encode()
        if endpoint.split("/")[1].startswith("get"):
            request = urllib.request.Request(f"{self.url}{path}?{urllib.parse.urlencode(fields)}", headers=self.headers)
        else:
            request = urllib.request.Request(self.url + path, body, self.headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code in (408, 429) or error.code >= 500:
                raise Unreachable(f"{self.url} answers {error.code} to {endpoint}: {text[:200]}") from None
            code = event_code(text)
            raise Refused(f"{self.url} answers {error.code} {code} to {endpoint}: {text[:500]}", code) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url} does not answer {endpoint}: {error}") from None


def event_code(text: str) -> str:
    """MLflow's error_code in the body of an answer."""
    try:
        return str(json.loads(text)["error_code"])
    except (KeyError, TypeError, ValueError):
        return ""


class Mlflow:
    """Sends events to a run on the server, which it finds again by a tag. Another tag says up to where the metrics file has been sent, so that
    a second deeper-track continues. A file that was begun anew is another run."""

    def __init__(self, url: str, experiment: str, name: str, path: pathlib.Path) -> None:
        self.rest, self.experiment, self.name, self.path = Rest(url), experiment, name, path
        self._run_id = ""  # empty: to be asked for
        self._first: Event = {}  # of the file
        self._sent = 0  # position in the file

    def write(self, waiting: List[Tuple[int, Event]]) -> None:
        """Removes from `waiting` what it has sent. Raises Unreachable or Refused."""
        while waiting:
            names = [event["event"] for _, event in waiting[:EVENTS_PER_BATCH]]
            count = names.index("start", 1) if "start" in names[1:] else len(names)
            try:
                self._send(waiting[:count])
            except Unreachable:
                self._run_id = ""  # the server may have got the request, and not its sender the answer
                raise
            del waiting[:count]

    def _send(self, events: List[Tuple[int, Event]]) -> None:
        if not self._first or events[0][1]["event"] == "start":
            self._run_id, self._first = "", events[0][1]
        if not self._run_id:
            self._find_or_create()
        params = params_of(self._first) if self._sent == 0 else {}
        new = [(position, event) for position, event in events if position > self._sent]
        if not new:
            return
        tags = {"deeper.position": str(new[-1][0])}
        changes: Dict[str, Any] = {}
        for _, event in new:
            said = event.get("what") or event.get("reason")
            if event["event"] in WARNINGS and said:  # a diagnosis may have no warning
                tags["deeper.warning"] = f"step {event.get('step')}, {event['event']}: {said}"[:MOST_VALUE]
            if event["event"] in STATUS:
                changes = {"status": STATUS[event["event"]]}
                if event["event"] in ENDS:
                    changes["end_time"] = milliseconds(event)
        if changes:
            self.rest.call("runs/update", run_id=self._run_id, **changes)
        metrics = [metric for _, event in new for metric in metrics_of(event)]
        self.rest.call("runs/log-batch", run_id=self._run_id, metrics=metrics, params=pairs(params), tags=pairs(tags))
        self._sent = new[-1][0]

    def _find_or_create(self) -> None:
        experiment, begun = self._experiment_id(), milliseconds(self._first)
        identity = f"{self.path} {begun}".replace("'", "_")
        found = self.rest.call("runs/search", experiment_ids=[experiment], filter=f"tags.`deeper.run` = '{identity}'", max_results=1).get("runs")
        run = found[0] if found else self.rest.call(
            "runs/create", experiment_id=experiment, run_name=self.name, start_time=begun, tags=pairs({"deeper.run": identity}))["run"]
        tags = {tag["key"]: tag["value"] for tag in run.get("data", {}).get("tags", [])}
        self._run_id, self._sent = run["info"]["run_id"], int(tags.get("deeper.position", 0))
        say(f"{'continuing' if found else 'new'} run {self._run_id} of experiment {self.experiment!r} on {self.rest.url}")

    def _experiment_id(self) -> str:
        try:
            return str(self.rest.call("experiments/get-by-name", experiment_name=self.experiment)["experiment"]["experiment_id"])
        except Refused as refusal:
            if refusal.code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return str(self.rest.call("experiments/create", name=self.experiment)["experiment_id"])


def pairs(values: Dict[str, str]) -> List[Dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def metrics_of(event: Event) -> List[Dict[str, Any]]:
    if event["event"] not in CURVES:
        return []
    folder, step, time_ms = CURVES[event["event"]], int(event.get("step", 0)), milliseconds(event)
    return [{"key": f"{folder}/{name}", "value": value, "timestamp": time_ms, "step": step} for name, value in numbers(event) if value is not None]


def params_of(event: Event) -> Dict[str, str]:
    """Of a start or resume."""
    facts = {**event.get("config", {}), **event.get("run", {})}
    return {name: (value if isinstance(value, str) else json.dumps(value))[:MOST_VALUE] for name, value in list(facts.items())[:MOST_PARAMS]}


class Evaluations:
    """Separates those of the run from those that `deeper eval` adds: of another split, or with test-time augmentation."""

    def __init__(self) -> None:
        self.split: Optional[str] = None  # of the run's first evaluation

    def is_foreign(self, event: Event) -> bool:
        """To be called with every event, in order."""
        if event["event"] == "start":
            self.split = None
        if event["event"] != "eval":
            return False
        self.split = self.split or event.get("split")
        return event.get("tta", "none") != "none" or event.get("split", self.split) != self.split


class Prometheus:
    """Keeps the newest values in a file for node_exporter's text-file collector, which never sees a part of it."""

    def __init__(self, path: pathlib.Path, name: str) -> None:
        self.path, self.label = path, re.sub(r'(["\\])', r"\\\1", name).replace("\n", " ")
        self._begin()

    def _begin(self) -> None:
        self._gauges: Dict[str, Optional[float]] = {"finished": 0}
        self._counts: Dict[str, int] = {}

    def write(self, events: List[Tuple[int, Event]]) -> None:
        for _, event in events:
            kind = event["event"]
            if kind == "start":
                self._begin()
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._gauges.update({name: event[name] for name in ("step", "time") if name in event})
            if kind != "eval":  # one may follow the end
                self._gauges["finished"] = int(kind == "done")
            if kind in CURVES:
                self._gauges.update({f"{CURVES[kind]}_{name}": value for name, value in numbers(event)})
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        temporary.write_text(self.text())
        temporary.replace(self.path)

    def text(self) -> str:
        lines = []
        for name, value in self._gauges.items():
            metric = "deeper_" + {"time": "last_event_timestamp_seconds"}.get(name, re.sub(r"\W", "_", name))
            lines += [f"# TYPE {metric} gauge", f'{metric}{{run="{self.label}"}} {"NaN" if value is None else repr(value)}']
        lines.append("# TYPE deeper_events_total counter")
        lines += [f'deeper_events_total{{run="{self.label}",event="{kind}"}} {count}' for kind, count in self._counts.items()]
        return "\n".join(lines) + "\n"


def say(message: object) -> None:
    print(f"deeper-track: {message}", file=sys.stderr, flush=True)


def parse(arguments: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deeper-track", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", type=pathlib.Path, metavar="METRICS", help="file of train's --metrics_out; it may appear later")
    parser.add_argument("--mlflow", metavar="URL", help="tracking server")
    parser.add_argument("--experiment", default="deeper", metavar="NAME", help="of MLflow; made if there is none (default: deeper)")
    parser.add_argument("--prometheus", type=pathlib.Path, metavar="FILE", help="text file to keep up to date, FILE.prom for node_exporter")
    parser.add_argument("--name", help="of the run (default: the folder of METRICS)")
    parser.add_argument("--once", action="store_true", help="send what the file holds now, and end")
    parser.add_argument("--poll_seconds", type=float, default=2, metavar="S", help="between two looks at the file (default: 2)")
    options = parser.parse_args(arguments)
    if not (options.mlflow or options.prometheus):
        parser.error("give --mlflow=URL or --prometheus=FILE, or both")
    if options.mlflow and not options.mlflow.startswith(("http://", "https://")):
        parser.error(f"--mlflow={options.mlflow}: a URL that begins with http:// or https://")
    if options.poll_seconds <= 0:
        parser.error("--poll_seconds must be above 0")
    options.metrics = options.metrics.absolute()
    options.name = options.name or options.metrics.parent.name
    return options


def follow(options: argparse.Namespace) -> int:
    """-> exit code."""
    follower = Follower(options.metrics)
    prometheus = Prometheus(options.prometheus, options.name) if options.prometheus else None
    mlflow = Mlflow(options.mlflow, options.experiment, options.name, options.metrics) if options.mlflow else None
    waiting: List[Tuple[int, Event]] = []  # for MLflow
    evaluations = Evaluations()
    last, failures = "", 0
    if not options.metrics.exists():
        if options.once:
            say(f"no file {options.metrics}")
            return DATA
        say(f"waiting for {options.metrics}")
    while True:
        if events := [(number, event) for number, event in follower.read() if not evaluations.is_foreign(event)]:
            last = next((event["event"] for _, event in reversed(events) if event["event"] != "eval"), last)
            if prometheus:
                prometheus.write(events)
        if mlflow:
            waiting += events
            try:
                mlflow.write(waiting)
                failures = 0
            except Unreachable as reason:
                failures += 1
                if options.once or failures == 1:
                    say(f"{reason}{'' if options.once else '. Trying again until it answers'}")
                if options.once:
                    return COMMUNICATION
        if options.once or (last in ENDS and not waiting):
            return 0
        time.sleep(min(options.poll_seconds * 2 ** min(failures, 10), max(options.poll_seconds, MOST_SECONDS)))


def interrupt(number: int, frame: Optional[FrameType]) -> None:
    raise KeyboardInterrupt


def main(arguments: Optional[List[str]] = None) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        return follow(options)
    except KeyboardInterrupt:
        return 0  # a later deeper-track continues
    except Refused as refusal:
        say(refusal)
        return USAGE
    except ValueError as error:
        say(error)
        return DATA
    except OSError as error:
        say(error)
        return DATA


if __name__ == "__main__":
    sys.exit(main())
