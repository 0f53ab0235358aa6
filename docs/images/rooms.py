#!/usr/bin/env python3
"""Draws rooms.svg: the top-level folders, and which of them include which."""

from svg import Arrow, Box, Text, write

W, H = 960, 430
parts = [Text(30, 38, "An arrow means: includes. No arrow points up.", 17, bold=True)]
parts += [Box(30, 66, 900, 66, "grey", ["launch/", "main, one file per command, flags, benchmarks, the report; scripts for clusters"])]
parts += [Arrow((480, 132), (480, 164))]
parts += [Box(30, 166, 900, 66, "blue", ["trainer/", "models, network, training step, checkpoints, metrics, the run as a whole"])]
for x in (165, 480, 795):
    parts.append(Arrow((x, 232), (x, 264)))
parts += [
    Box(30, 266, 270, 66, "amber", ["data/", "shards, order of samples, loader"]),
    Box(345, 266, 270, 66, "green", ["kernels/", "every op on CPU and CUDA; devices"]),
    Box(660, 266, 270, 66, "violet", ["comm/", "collectives, gradient reducer, watchdog"]),
]
parts += [Arrow((165, 332), (165, 376), (343, 376)), Arrow((480, 332), (480, 352)), Arrow((795, 332), (795, 376), (617, 376))]
parts += [Box(345, 354, 270, 48, "green", ["kernels/base/", "tensor, buffer, device, op, status"])]
parts += [Text(30, 410, "data/ and comm/ never include each other", 12, "soft")]
write(__file__, W, H, parts, "The top-level folders and the direction of their includes")
