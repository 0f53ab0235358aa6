#!/usr/bin/env python3
"""Draws restarts.svg: what deeper-run does when a rank is lost."""

from svg import Arrow, Box, Text, write

WIDTH, HEIGHT = 820, 320
FIRST, LAST = 100, 790
KILL, AGAIN, SAVES = 392, 590, (200, 310)  # x of what happens


def lane(y, name, end):
    return [
        Text(20, y + 21, name, bold=True),
        Box(FIRST, y, end - FIRST, 32, "blue", ["steps 1 to 2300"]),
        Box(AGAIN, y, LAST - AGAIN - 20, 32, "blue", ["step 2001 and later"]),
    ]


def saved(x, step):
    return [Arrow((x, 152), (x, 180)), Box(x - 46, 180, 92, 44, "green", ["checkpoint", f"step {step}"], size=12)]


parts = [
    Text(20, 36, "A rank is lost, and deeper-run restarts the job", 16, bold=True),
    *lane(72, "rank 0", KILL + 40),
    *lane(120, "rank 1", KILL),
    Text(KILL + 10, 141, "killed", 12, bold=True),
    Box(KILL + 66, 72, AGAIN - KILL - 86, 80, "grey", ["pause", "--backoff"]),
    *saved(SAVES[0], 1000),
    *saved(SAVES[1], 2000),
    Arrow((SAVES[1] + 46, 202), (AGAIN + 40, 202), (AGAIN + 40, 154), dashed=True),
    Text(SAVES[1] + 58, 194, "resume from the newest valid checkpoint", 12, "soft"),
    Arrow((FIRST, 254), (LAST, 254)),
    Text(20, 259, "time", kind="soft"),
    Text(FIRST, 292, "Steps 2001 to 2300 are trained again, with the same samples in the same order.", kind="soft"),
]
write(
    __file__,
    WIDTH,
    HEIGHT,
    parts,
    "A job with two ranks saves checkpoints at steps 1000 and 2000. At step 2300 rank 1 is killed, the watchdog ends "
    "rank 0, deeper-run waits for the backoff time, and both ranks resume at step 2001.",
)
