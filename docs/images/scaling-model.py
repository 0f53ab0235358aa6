#!/usr/bin/env python3
"""Draws scaling-model.svg: predicted and measured scaling. The figures are those of docs/design/scaling-model.md."""
import math

from svg import Box, Text, write

# By images a rank: images/s measured, error of the model in percent.
HELD_OUT = [
    ("4 ranks, full speed", "blue", {8: (121.7, -15.2), 32: (171.8, -4.4)}, (32, 171)),
    ("4 ranks, 400 Mbit/s", "green", {8: (35.9, -2.9), 32: (113.8, 2.3)}, (32, 116)),
    ("3 ranks, 400 Mbit/s", "amber", {8: (25.7, -9.7), 32: (86.8, -6.3)}, (32, 92)),
    ("2 ranks, 400 Mbit/s", "violet", {8: (24.2, 0.3), 32: (84.9, 0.8)}, (32, 74)),
]
# GPUs, efficiency published, efficiency of the model.
PUBLISHED = [("Goyal et al. 2017", 256, 90, 94.3), ("Mikami et al. 2018", 1088, 91.62, 91.2), ("Jia et al. 2018", 2048, 87.9, 87.0)]

TOP, BOTTOM = 118, 398


def line(points, dashed=False, opacity=1.0):
    path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path class="path" d="{path}" opacity="{opacity}"' + (' stroke-dasharray="5 4"/>' if dashed else "/>")


def dot(x, y, kind):
    return f'<circle class="box {kind}" cx="{x:g}" cy="{y:g}" r="6"/>'


def square(x, y):
    return Box(x - 6, y - 6, 12, 12, "amber", radius=2)


def axes(left, right, y_of, values, unit, x_of, counts, name):
    for value in values:
        yield line([(left, y_of(value)), (right, y_of(value))], opacity=0.2)
        yield Text(left - 8, y_of(value) + 4, f"{value}{unit}", 12, "soft", "end")
    for count in counts:
        yield Text(x_of(count), BOTTOM + 20, f"{count:,}", 12, "soft", "middle")
    yield Text((left + right) / 2, BOTTOM + 42, name, 12, "soft", "middle")


def held_out():
    left, right = 66, 330
    x_of = lambda images: left + 24 + (images - 8) / 24 * (right - left - 40)  # noqa: E731
    y_of = lambda rate: BOTTOM - rate / 200 * (BOTTOM - TOP)  # noqa: E731
    yield Text(30, 38, "Two hosts on one machine, CPU", 17, bold=True)
    yield Text(30, 62, "GoogLeNet, 32 px; the model was not calibrated on these points", 13, "soft")
    yield Text(30, 96, "images/s", 12, "soft")
    yield from axes(left, right, y_of, range(0, 201, 50), "", x_of, (8, 16, 24, 32), "images per rank")
    for name, kind, points, (images, rate) in HELD_OUT:
        yield line([(x_of(images), y_of(rate * (1 + error / 100))) for images, (rate, error) in points.items()], dashed=True)
        yield from (dot(x_of(images), y_of(rate), kind) for images, (rate, _) in points.items())
        yield Text(x_of(images) + 16, y_of(rate) + 5, name, 12)
    yield line([(66, 474), (100, 474)], dashed=True)
    yield Text(108, 478, "predicted", 12)
    yield dot(206, 474, "grey")
    yield Text(220, 478, "measured, median of five", 12)


def published():
    left, right = 574, 930
    x_of = lambda gpus: left + 50 + (math.log2(gpus) - 8) / 3 * (right - left - 100)  # noqa: E731
    y_of = lambda efficiency: BOTTOM - (efficiency - 80) / 20 * (BOTTOM - TOP)  # noqa: E731
    yield Text(520, 38, "Published runs on GPUs, ResNet-50", 17, bold=True)
    yield Text(520, 62, "the papers' runs, and what the model computes for them", 13, "soft")
    yield Text(520, 96, "efficiency", 12, "soft")
    yield from axes(left, right, y_of, range(80, 101, 5), " %", x_of, (256, 512, 1024, 2048), "GPUs")
    for name, gpus, measured, predicted in PUBLISHED:
        x = x_of(gpus)
        yield line([(x, y_of(measured)), (x, y_of(predicted))])
        yield square(x, y_of(predicted))
        yield dot(x, y_of(measured), "blue")
        yield Text(x, y_of(max(measured, predicted)) - 16, name, 12, anchor="middle")
    yield dot(580, 474, "blue")
    yield Text(594, 478, "published", 12)
    yield square(686, 474)
    yield Text(700, 478, "model", 12)


write(__file__, 960, 504, [*held_out(), *published()], "Predicted and measured scaling")
