#!/usr/bin/env python3
"""Checks every #include against the rooms of the source tree, their order, and the includes that each room allows.

    architecture_test.py               prints the rooms in their order, then checks the sources
    architecture_test.py --markdown    prints the table for docs/design/index.md
"""
import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
MOST_FILES = 40  # in one folder
MOST_LINES = 450  # in one file, tests included

# room: (content, other rooms that it may include). A room includes only rooms listed above it. A name includes all rooms below it, if
# listed above the room: "comm" stands for comm, comm/mpi, ...
ROOMS = {
    "kernels/base": ("tensor, buffer, device, interface of an op, checks, statuses, random numbers, bf16, tracing", ()),
    "kernels/cpu": ("the CPU device and its use of oneDNN", ("kernels/base",)),
    "kernels/cuda/base": ("base of the CUDA ops: interface of the CUDA device, kernels over an index space", ("kernels/base",)),
    "kernels/cuda/plans": ("calls of cuDNN and cuBLASLt: prepared, tuned, cached", ("kernels/base", "kernels/cuda")),
    "kernels/cuda/tensor_core": ("own convolution kernels for tensor cores", ("kernels/base", "kernels/cuda")),
    "kernels/cuda": ("CUDA devices: real, planning only, or absent from this build", ("kernels/base", "kernels/cuda")),
    "kernels/ops": ("every op, with its CPU and CUDA files side by side, and the table of ops", ("kernels",)),
    "data/io": ("files, checksums and container formats: HDF5, tar, WebDataset, CSV, MAT, deflate, protobuf", ("kernels/base",)),
    "data/image": ("images: decoding, resizing, random choices of augmentation", ("data/io", "kernels/base")),
    "data/load": ("data sets, order of samples, loader", ("data", "kernels/base")),
    "data/shards": ("packed shards: format, manifest, writing, reading, verifying, staging", ("data", "kernels/base")),
    "data/sources": ("inputs of `pack`: one file per format, and the table of formats", ("data/io", "data/image", "data/load", "kernels/base")),
    "data/pack": ("packing: plan, encoding, writing of shards", ("data", "kernels/base")),
    "comm": ("interface of communicators, gradient reducer, agreement between ranks", ("kernels/base",)),
    "comm/mpi": ("communication over MPI", ("comm", "kernels/base")),
    "comm/nccl": ("communication between GPUs: over NCCL, or through host memory", ("comm", "kernels/base")),
    "comm/watchdog": ("detection of ranks that are lost, silent, late or deadlocked", ("comm", "kernels/base")),
    "trainer/models": ("topologies and their costs", ("kernels",)),
    "trainer/engine": ("network, parameters, training step, optimizer, evaluation", ("kernels", "data", "comm", "trainer")),
    "trainer/checkpoint": ("checkpoints and weights files", ("kernels", "data", "comm", "trainer")),
    "trainer/interchange": ("weights and networks in the formats of other programs", ("kernels", "data", "comm", "trainer")),
    "trainer/scaling": ("models of speed: one GPU, many ranks, a healthy cluster", ("kernels", "data", "comm", "trainer")),
    "trainer/monitor": ("metrics, warnings and traces of a run", ("kernels", "data", "comm", "trainer")),
    "trainer/run": ("a training run from its configuration to its end", ("kernels", "data", "comm", "trainer")),
    "launch/cli": ("common to all commands: flags, help, devices", ("kernels", "data", "comm", "trainer")),
    "launch/bench": ("the commands `deeper bench ...`", ("kernels", "data", "comm", "trainer", "launch")),
    "launch/report": ("the command `deeper report`", ("kernels", "data", "comm", "trainer", "launch")),
    "launch/commands": ("the other commands, one file each", ("kernels", "data", "comm", "trainer", "launch")),
    "launch": ("main, and the scripts", ("kernels", "data", "comm", "trainer", "launch")),
}
# Libraries that only these files may use, so that no other file depends on them.
OWNERS = {
    "dnnl.hpp": re.compile(r"kernels/(ops/.*_cpu\.cpp|cpu/\w+\.(h|cpp))"),
    "cudnn_backend.h": re.compile(r"kernels/cuda/plans/cudnn_descriptor\.h"),
    "cublasLt.h": re.compile(r"kernels/cuda/plans/cublaslt\.(h|cpp)"),
    "nccl.h": re.compile(r"comm/nccl/nccl_\w+\.(h|cpp)"),
    "mpi.h": re.compile(r"comm/mpi/mpi_\w+\.(h|cpp)"),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
TOP_FOLDERS = {room.split("/")[0] for room in ROOMS}


def within(path, folder):
    return path == folder or path.startswith(folder + "/")


def room_of(path):
    """The innermost room that a file is in, or None."""
    return max((room for room in ROOMS if within(path, room)), key=len, default=None)


def forbidden_arrows(sources):
    """sources: {path: text}. Yields a sentence for each forbidden include."""
    order = list(ROOMS)
    for path, text in sources.items():
        room = room_of(path)
        if room is None:
            yield f"{path} is in no room"
            continue
        above = order[:order.index(room)]
        for target in INCLUDE.findall(text):
            if target.split("/")[0] not in TOP_FOLDERS | {"tests"}:
                continue
            other = room_of(target)
            allowed = other in above and any(within(other, folder) for folder in ROOMS[room][1])
            if other != room and not allowed:
                yield f"{path} includes {target}: room {room} may not include room {other}"


def stray_libraries(sources):
    for path, text in sources.items():
        for target in INCLUDE.findall(text):
            for library, owners in OWNERS.items():
                if library in target.split("/") and not owners.fullmatch(path):
                    yield f"{path} includes {target}, which only {owners.pattern} may"


def full_folders(paths):
    folders = [path.rsplit("/", 1)[0] for path in paths]
    for folder in sorted(set(folders)):
        if folders.count(folder) > MOST_FILES:
            yield f"{folder} has {folders.count(folder)} source files, more than {MOST_FILES}"


def long_files(sources):
    for path, text in sources.items():
        if text.count("\n") > MOST_LINES:
            yield f"{path} has {text.count(chr(10))} lines, more than {MOST_LINES}"


def markdown():
    rows = "".join(f"| `{room}/` | {what} | {', '.join(f'`{other}`' for other in may) or '-'} |\n" for room, (what, may) in ROOMS.items())
    return f"| room | content | includes |\n|---|---|---|\n{rows}"


class Rules(unittest.TestCase):
    """Each check finds the violation that it is made for."""

    def check(self, check, sources, finds=()):
        found = list(check(sources))
        self.assertEqual(len(found), len(finds), found)
        for sentence, words in zip(found, finds):
            for word in words:
                self.assertIn(word, sentence)

    def test_arrows(self):
        allowed = {
            "kernels/ops/x.cpp": '#include "kernels/cpu/onednn.h"\n#include "kernels/ops/conv2d/y.h"\n#include <vector>',
            "kernels/cuda/x.cpp": '#include "kernels/cuda/plans/a.h"',
            "data/pack/x.cpp": '#include "data/io/a.h"\n#include "kernels/base/check.h"\n#include "absl/status/status.h"',
            "trainer/run/x.cpp": '#include "data/load/a.h"\n#include "comm/mpi/b.h"\n#include "trainer/engine/c.h"',
            "launch/main.cpp": '#include "launch/cli/c.h"\n#include "data/io/a.h"',
        }
        self.check(forbidden_arrows, allowed)
        for path, target in [("kernels/ops/x.cu", "data/io/a.h"), ("data/load/x.cpp", "comm/b.h"), ("comm/x.h", "data/io/a.h"),
                             ("data/load/x.cpp", "kernels/ops/ops.h"), ("comm/x.cpp", "kernels/ops/ops.h"),
                             ("kernels/base/x.h", "kernels/cpu/onednn.h"), ("data/load/x.cpp", "data/shards/a.h"),
                             ("comm/x.cpp", "comm/mpi/a.h"), ("trainer/engine/x.cpp", "trainer/run/d.h"),
                             ("trainer/run/x.cpp", "launch/cli/d.h"), ("launch/commands/x.cpp", "tests/e.h")]:
            with self.subTest(path=path, target=target):
                self.check(forbidden_arrows, {path: f'  #  include "{target}"'}, finds=[(path, target)])
        self.check(forbidden_arrows, {"kernels/x.cpp": ""}, finds=[("kernels/x.cpp", "no room")])

    def test_libraries(self):
        dnnl, mpi = '#include "oneapi/dnnl/dnnl.hpp"', "#include <mpi.h>"
        self.check(stray_libraries, {"kernels/ops/lrn_cpu.cpp": dnnl, "kernels/cpu/onednn.h": dnnl, "comm/mpi/mpi_communicator.cpp": mpi})
        self.check(stray_libraries, {"kernels/ops/lrn.h": dnnl}, finds=[("kernels/ops/lrn.h", "dnnl.hpp")])
        self.check(stray_libraries, {"comm/nccl/nccl_library.h": "#include <nccl.h>"})
        self.check(stray_libraries, {"comm/nccl/device_communicator.cpp": "#include <nccl.h>"}, finds=[("comm/nccl/device", "nccl.h")])
        self.check(stray_libraries, {"launch/main.cpp": mpi}, finds=[("launch/main.cpp", "mpi.h")])

    def test_full_folders(self):
        self.check(full_folders, [f"kernels/ops/{i}.h" for i in range(MOST_FILES)])
        self.check(full_folders, [f"kernels/ops/{i}.h" for i in range(MOST_FILES + 1)], finds=[("kernels/ops has 41",)])


    def test_long_files(self):
        self.check(long_files, {"kernels/ops/x.h": "\n" * MOST_LINES})
        self.check(long_files, {"kernels/ops/x.h": "\n" * (MOST_LINES + 1)}, finds=[("kernels/ops/x.h has 451",)])


class Repository(unittest.TestCase):
    def setUp(self):
        files = [path for folder in TOP_FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
        self.sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}
        tests = [path for path in (ROOT / "tests").rglob("*") if path.suffix in SUFFIXES | {".py"}]
        self.tests = {path.relative_to(ROOT).as_posix(): path.read_text() for path in tests}

    def test_is_all_there(self):
        self.assertEqual({room_of(path) for path in self.sources}, set(ROOMS))

    def test_is_the_map_of_the_docs(self):
        self.assertIn(markdown(), (ROOT / "docs/design/index.md").read_text(), "run architecture_test.py --markdown")

    def test_keeps_the_rules(self):
        broken = [*forbidden_arrows(self.sources), *stray_libraries(self.sources), *full_folders(self.sources),
                  *long_files(self.sources | self.tests)]
        self.assertFalse(broken, "\n" + "\n".join(broken))


def files_in(room):
    sources = [path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*") if path.suffix in SUFFIXES]
    return sum(room_of(path) == room for path in sources)


def print_rooms():
    for number, (room, (what, _)) in enumerate(ROOMS.items(), start=1):
        print(f"{number:2} {room:25} {files_in(room):3} files  {what}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--markdown"]:
        print(markdown(), end="")
    else:
        print_rooms()
        unittest.main()
