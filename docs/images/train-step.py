#!/usr/bin/env python3
"""Draws train-step.svg: the way of the data in one training step."""

from svg import Arrow, Box, Text, write

W, H = 960, 500
parts = [Text(30, 38, "One training step on one rank", 17, bold=True)]
# Loader.
parts += [Text(30, 76, "Beside the step: threads of the loader", 13, "soft")]
parts += [
    Box(30, 90, 150, 62, "amber", ["Shards", "HDF5 files on disk"]),
    Arrow((180, 121), (226, 121)),
    Box(228, 90, 210, 62, "amber", ["Loader", "read, check, decode, augment"]),
    Arrow((438, 121), (484, 121)),
    Box(486, 90, 150, 62, "amber", ["Ring of batches", "in host memory"]),
]
# Compute.
parts += [Arrow((561, 152), (561, 178), (105, 178), (105, 216)), Text(333, 196, "Next, Load", 12, "soft", "middle")]
parts += [Text(30, 322, "The thread that trains, from left to right", 13, "soft")]
parts += [
    Box(30, 218, 150, 76, "blue", ["Batch", "images, labels"]),
    Arrow((180, 256), (206, 256)),
    Box(208, 218, 170, 76, "blue", ["Forward", "loss of each head"]),
    Arrow((378, 256), (404, 256)),
    Box(406, 218, 260, 76, "blue", ["Backward", "last layer first: fc, ..., conv1"]),
    Arrow((666, 256), (742, 256)),
    Box(744, 218, 186, 76, "blue", ["Optimizer", "new weights, momentum"]),
]
parts += [Text(704, 246, "if finite", 12, "soft", "middle")]
# Communication.
for number, x in enumerate((412, 500, 588)):
    parts += [Arrow((x + 36, 294), (x + 36, 344)), Box(x, 346, 72, 34, "violet", [f"bucket {number}"], 12)]
parts += [Text(30, 368, "Buckets leave while backward still runs", 13, "soft")]
for x in (448, 536, 624):
    parts.append(Arrow((x, 380), (x, 414)))
parts += [
    Box(406, 416, 260, 54, "violet", ["All-reduce over all ranks", "MPI or NCCL"]),
    Arrow((666, 443), (837, 443), (837, 296)),
    Text(680, 434, "sums, complete at Finish", 12, "soft"),
]
parts += [
    Box(30, 416, 220, 54, "grey", ["Other ranks", "the same step, other samples"]),
    Arrow((250, 436), (404, 436)),
    Arrow((406, 452), (252, 452)),
]
write(__file__, W, H, parts, "Data flow of a training step: shards, loader, batch, forward, backward, buckets, all-reduce, optimizer")
