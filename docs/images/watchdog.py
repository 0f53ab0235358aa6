#!/usr/bin/env python3
"""Draws watchdog.svg: who sends heartbeats to whom, and how rank 0 judges."""

from svg import Arrow, Box, Text, write

W, H = 960, 470
parts = [Text(30, 38, "Every rank: one thread trains and leaves marks, one thread watches", 17, bold=True)]
for y, rank, mark in ((70, 1, "backward, step 17"), (180, 2, "waiting for peers, step 17"), (290, 3, "in the loader, step 17")):
    parts += [
        Box(30, y, 400, 86, "grey"),
        Text(46, y + 24, f"rank {rank}", 13, bold=True),
        Box(46, y + 34, 190, 40, "blue", [mark], 12),
        Arrow((236, y + 54), (280, y + 54)),
        Text(258, y + 46, "mark", 11, "soft", "middle"),
        Box(282, y + 34, 132, 40, "amber", ["watchdog"], 12),
    ]
    parts += [Arrow((414, y + 47), (560, 216 + (rank - 2) * 20)), Arrow((560, 228 + (rank - 2) * 20), (416, y + 61))]
parts += [Text(496, 88, "beat: mark, its age", 12, "soft", "middle"), Text(496, 372, "4 per second, TCP", 12, "soft", "middle")]
parts += [Text(496, 392, "up to 16 children per rank", 12, "soft", "middle")]
parts += [
    Box(562, 70, 368, 306, "grey"),
    Text(578, 94, "rank 0", 13, bold=True),
    Box(578, 106, 336, 42, "blue", ["trains, leaves marks"], 12),
    Arrow((746, 148), (746, 166)),
    Box(578, 168, 336, 192, "amber"),
    Text(594, 192, "watchdog: judges all ranks, in this order", 12, bold=True),
]
for number, text in enumerate(
    (
        "gone: the connection ended without a farewell",
        "silent: no beat for --watchdog_seconds",
        "late: one phase lasts longer than that, and the",
        "   rank does not wait for its peers",
        "deadlock: all ranks wait; names the rank with",
        "   the fewest marks",
    )
):
    parts.append(Text(594, 218 + 24 * number, text, 12))
parts += [
    Text(30, 412, "Verdict: one message names rank, phase, step and duration. All ranks end with exit code 5.", 13, "soft"),
    Text(30, 436, "A rank that waits for its peers is never late: the cause is another rank. Other ranks judge only their parent.", 13, "soft"),
]
write(__file__, W, H, parts, "The watchdog: heartbeats from every rank to its parent, up to rank 0, and the order of its judgement")
