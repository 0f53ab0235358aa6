#!/usr/bin/env python3
"""Draws timeline.svg from timeline.json: compute and communication of one real training step on two ranks.

timeline.py                     draws the picture
timeline.py TRACE STEP COMMAND  first makes timeline.json from a file of `deeper train --trace`
"""

import json
import pathlib
import sys

from svg import Arrow, Box, Text, write

DATA = pathlib.Path(__file__).with_suffix(".json")


def reduce(trace, step, command):
    """Keeps the spans of one step: [lane, name, first, last], in milliseconds from the step's start on rank 0."""
    events = json.loads(pathlib.Path(trace).read_text())["traceEvents"]
    lanes = {(event["pid"], event["tid"]): event["args"]["name"] for event in events if event["name"] == "thread_name"}
    spans = [event for event in events if event["ph"] == "X"]
    steps = {event["pid"]: event for event in spans if event["name"] == f"step {step}"}
    ranks = []
    for rank, whole in sorted(steps.items()):
        kept = []
        for event in spans:
            lane = lanes[event["pid"], event["tid"]]
            inside = event["pid"] == rank and whole["ts"] <= event["ts"] < whole["ts"] + whole["dur"]
            if inside and (lane != "compute" or event["dur"] >= 500):
                first = event["ts"] - steps[0]["ts"]
                kept.append([lane, event["name"], round(first / 1e3, 2), round((first + event["dur"]) / 1e3, 2)])
        ranks.append(kept)
    rows = ",\n".join("  [\n" + ",\n".join("   " + json.dumps(span) for span in rank) + "\n  ]" for rank in ranks)
    DATA.write_text(f'{{\n "command": {json.dumps(command)},\n "step": {step},\n "ranks": [\n{rows}\n ]\n}}\n')


def bars(rank, y, at):
    parts = [Text(24, y + 26, f"rank {rank['rank']}", 14, bold=True)]
    spans = rank["spans"]

    def bar(first, last, top, kind, label="", height=30):
        width = max(at(last) - at(first), 1.5)
        fits = label and width > 7.2 * len(label)
        return Box(at(first), y + top, width, height, kind, [label] if fits else [], 11, 2)

    for name in ("compute", "communication", "data"):
        parts.append(Text(150, y + {"compute": 26, "communication": 68, "data": 110}[name], name, 12, "soft", "end"))
    backward_ends = next(first for lane, name, first, _ in spans if lane == "compute" and name.startswith("all-reduce"))
    for lane, name, first, last in spans:
        if lane == "compute" and name.startswith("computing"):
            parts.append(bar(first, last, 6, "green", "forward"))
        elif lane == "compute" and name == "backward":
            parts.append(bar(first, backward_ends, 6, "blue", "backward"))
        elif lane == "compute" and name == "waiting for peers":
            parts.append(bar(first, last, 6, "red"))
        elif lane == "compute" and name.startswith("updating"):
            parts.append(bar(first, last, 6, "grey"))
        elif lane.startswith("communication"):
            parts.append(bar(first, last, 48 if lane == "communication" else 64, "violet", height=15))
        elif lane.startswith("data"):
            parts.append(bar(first, last, 90, "amber"))
    return parts


def draw():
    study = json.loads(DATA.read_text())
    end = max(last for rank in study["ranks"] for *_, last in rank)
    W, H = 960, 430

    def at(ms):
        return 164 + ms / end * (W - 164 - 30)

    parts = [Text(24, 38, f"Step {study['step']} of a run of GoogLeNet with auxiliary heads on two ranks", 17, bold=True)]
    for number, spans in enumerate(study["ranks"]):
        parts += bars({"rank": number, "spans": spans}, 66 + 136 * number, at)
    axis = 344
    parts.append(Arrow((164, axis), (W - 20, axis)))
    for ms in range(0, int(end), 100):
        parts += [Arrow((at(ms), axis), (at(ms), axis + 5), head=False), Text(at(ms), axis + 20, f"{ms}", 11, "soft", "middle")]
    parts.append(Text(150, axis + 20, "ms", 11, "soft", "end"))
    x = 164
    for kind, label in (
        ("green", "forward"),
        ("blue", "backward"),
        ("violet", "all-reduce"),
        ("red", "wait for peers"),
        ("grey", "update"),
        ("amber", "reading ahead"),
    ):
        parts += [Box(x, 388, 16, 16, kind, radius=2), Text(x + 22, 401, label, 12)]
        x += 44 + 7.4 * len(label)
    write(__file__, W, H, parts, "Timeline of compute, communication and data loading of one training step on two ranks")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        reduce(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    draw()
