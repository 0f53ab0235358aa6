#!/usr/bin/env python3
"""Draws learning-rate.svg: the schedules of --lr_schedule, as in trainer/engine/schedule.cpp."""
import math

from svg import Arrow, Text, write

EPOCHS, WARMUP = 90, 5
LEFT, TOP, WIDTH, HEIGHT = 90, 70, 520, 240
CURVES = [  # name, colour, rate by the remaining part and the epoch
    ("constant", "#8a94a3", lambda part, epoch: 1),
    ("step", "#c2571a", lambda part, epoch: 0.1 ** (epoch // 30)),
    ("poly, --lr_power=0.5", "#2f8f5b", lambda part, epoch: part ** 0.5),
    ("linear", "#8b63c9", lambda part, epoch: part),
    ("cosine", "#4a7fd6", lambda part, epoch: (1 - math.cos(math.pi * part)) / 2),
]


def point(epoch, rate):
    return f"{LEFT + epoch / EPOCHS * WIDTH:.1f} {TOP + (1 - rate) * HEIGHT:.1f}"


def curve(rate):
    points = []
    for i in range(EPOCHS * 10 + 1):
        epoch = i / 10
        remaining = 1 - (epoch - WARMUP) / (EPOCHS - WARMUP)
        points.append(point(epoch, epoch / WARMUP if epoch < WARMUP else rate(max(0, remaining), min(epoch, EPOCHS - 0.1))))
    return "M" + " L".join(points)


parts = [Text(30, 36, "Learning rate over 90 epochs, with --warmup_epochs=5", 16, bold=True),
         Arrow((LEFT, TOP - 12), (LEFT, TOP + HEIGHT), (LEFT + WIDTH + 14, TOP + HEIGHT), head=False),
         Text(LEFT - 10, TOP + 5, "--lr", 12, "soft", "end"), Text(LEFT - 10, TOP + HEIGHT + 5, "0", 12, "soft", "end"),
         Text(LEFT + WIDTH / 2, TOP + HEIGHT + 44, "epoch", 12, "soft", "middle")]
for epoch in range(0, EPOCHS + 1, 15):
    x = LEFT + epoch / EPOCHS * WIDTH
    parts += [Arrow((x, TOP + HEIGHT), (x, TOP + HEIGHT + 5), head=False), Text(x, TOP + HEIGHT + 22, str(epoch), 12, "soft", "middle")]
for number, (name, colour, rate) in enumerate(CURVES):
    y = TOP + 20 + number * 34
    parts += [f'<path d="{curve(rate)}" fill="none" stroke="{colour}" stroke-width="2.5"/>',
              f'<path d="M{LEFT + WIDTH + 40} {y}h26" stroke="{colour}" stroke-width="3"/>', Text(LEFT + WIDTH + 76, y + 5, name)]
write(__file__, 850, 380, parts, "The learning rate of each schedule over 90 epochs")
