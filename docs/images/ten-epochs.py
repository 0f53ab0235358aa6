#!/usr/bin/env python3
"""Draws ten-epochs.svg: the top-1 after each of ten epochs on Fashion-MNIST, of the runs whose metrics are in docs/results/ten-epochs/."""
import json
import pathlib
import statistics

from svg import Text, write

FILES = pathlib.Path(__file__).parents[1] / "results/ten-epochs"
# recipe: name, colour that is visible in the light and the dark scheme
RECIPES = {
    "googlenet-bn": ("GoogLeNet-BN", "#3b82f6"),
    "nin-cifar-bn": ("NIN-CIFAR-BN", "#16a34a"),
    "googlenet": ("GoogLeNet", "#d97706"),
    "nin-cifar": ("NIN-CIFAR", "#a855f7"),
}
LEFT, RIGHT, TOP, BOTTOM = 70, 700, 84, 440  # pixels
LOW, HIGH = 0.80, 0.95  # top-1


def x_of(epoch):
    return LEFT + (RIGHT - LEFT) * (epoch - 1) / 9


def y_of(top1):
    return BOTTOM - (BOTTOM - TOP) * (max(top1, LOW) - LOW) / (HIGH - LOW)


def top1_of(path):
    """After each epoch."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    return [event["top1"] for event in events if event["event"] == "eval"]


def points(values):
    return [f"{x_of(epoch):.1f} {y_of(value):.1f}" for epoch, value in enumerate(values, 1)]


parts = [Text(30, 36, "Fashion-MNIST: top-1 on the test images after each of ten epochs", 17, bold=True),
         Text(30, 60, "mean of the seeds; the shaded area is from the least to the largest; values below 80 % are drawn at 80 %", 13, "soft")]
for percent in range(80, 96, 5):
    y = y_of(percent / 100)
    parts += [f'<path class="path" d="M{LEFT} {y:g} L{RIGHT} {y:g}" opacity="0.25"/>', Text(LEFT - 10, y + 5, f"{percent} %", 12, "soft", "end")]
parts += [Text(x_of(epoch), BOTTOM + 20, str(epoch), 12, "soft", "middle") for epoch in range(1, 11)]
labels = []
for recipe, (name, colour) in RECIPES.items():
    runs = [top1_of(path) for path in sorted(FILES.glob(f"{recipe}-[0-9].jsonl"))]
    if not runs:
        continue
    epochs = list(zip(*runs, strict=True))
    mean = [statistics.fmean(values) for values in epochs]
    area = points(map(max, epochs)) + points(map(min, epochs))[::-1]
    parts += [f'<path d="M{" L".join(area)} z" fill="{colour}" opacity="0.25"/>',
              f'<path d="M{" L".join(points(mean))}" fill="none" stroke="{colour}" stroke-width="2.5"/>']
    labels.append((y_of(mean[-1]), f"{name} {100 * mean[-1]:.2f} %", colour))
y = 0
for wanted, text, colour in sorted(labels):
    y = max(wanted, y + 20)
    parts += [f'<path d="M{RIGHT + 8} {y:g} h16" stroke="{colour}" stroke-width="4"/>', Text(RIGHT + 30, y + 5, text)]
write(__file__, 920, BOTTOM + 40, parts, "Top-1 on the test images of Fashion-MNIST after each of ten epochs, by recipe")
