#!/usr/bin/env python3
"""The arrows of docs/design.md, section "The map", checked against every #include of the sources."""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
BASE = {f"kernels/{name}.h" for name in ("device", "buffer", "tensor", "check", "rng", "bf16", "parallel", "images", "trace", "cuda_check")}
# folder: folders it may include anything of, and single headers besides.
ARROWS = {
    "kernels": ({"kernels"}, set()),
    "data": ({"data"}, BASE),
    "comm": ({"comm"}, BASE),
    "trainer": ({"trainer", "kernels", "data", "comm"}, set()),
    "launch": ({"launch", "trainer", "kernels", "data", "comm"}, set()),
}
# Libraries that only these files may touch, so that the rest neither compiles nor thinks in their terms.
OWNERS = {
    "dnnl.hpp": re.compile(r"kernels/(\w+_cpu\.cpp|onednn\.(h|cpp))"),
    "cudnn_backend.h": re.compile(r"kernels/cudnn\.cpp"),
    "cublasLt.h": re.compile(r"kernels/cublaslt\.(h|cpp)"),
    "nccl.h": re.compile(r"comm/nccl_\w+\.(h|cpp)"),
    "mpi.h": re.compile(r"comm/mpi_\w+\.(h|cpp)"),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def forbidden_arrows(sources):
    """sources: {path: text}. Yields a sentence for each include that the map forbids."""
    for path, text in sources.items():
        folders, headers = ARROWS[path.split("/")[0]]
        for target in INCLUDE.findall(text):
            folder = target.split("/")[0]
            if folder in (*ARROWS, "tests") and folder not in folders and target not in headers:
                yield f"{path} includes {target}, an arrow that the map does not have"


def stray_libraries(sources):
    for path, text in sources.items():
        for target in INCLUDE.findall(text):
            for library, owners in OWNERS.items():
                if library in target.split("/") and not owners.fullmatch(path):
                    yield f"{path} includes {target}, which only {owners.pattern} may"


class Rules(unittest.TestCase):
    """The checks find what they are there to find."""

    def check(self, check, sources, *args, finds=()):
        found = list(check(sources, *args))
        self.assertEqual(len(found), len(finds), found)
        for sentence, words in zip(found, finds):
            for word in words:
                self.assertIn(word, sentence)

    def test_arrows(self):
        allowed = {
            "kernels/x.cpp": '#include "kernels/ops.h"\n#include <vector>',
            "data/x.cpp": '#include "data/a.h"\n#include "kernels/check.h"\n#include "absl/status/status.h"',
            "trainer/x.cpp": '#include "data/a.h"\n#include "comm/b.h"\n#include "kernels/ops.h"',
            "launch/x.cpp": '#include "trainer/c.h"\n#include "data/a.h"',
        }
        self.check(forbidden_arrows, allowed)
        for path, target in [("kernels/x.cu", "data/a.h"), ("data/x.cpp", "comm/b.h"), ("comm/x.h", "data/a.h"),
                             ("data/x.cpp", "kernels/ops.h"), ("comm/x.cpp", "kernels/ops.h"),
                             ("trainer/x.cpp", "launch/d.h"), ("kernels/x.cpp", "trainer/c.h"),
                             ("launch/x.cpp", "tests/e.h")]:
            with self.subTest(path=path, target=target):
                self.check(forbidden_arrows, {path: f'  #  include "{target}"'}, finds=[(path, target)])

    def test_libraries(self):
        dnnl, mpi = '#include "oneapi/dnnl/dnnl.hpp"', "#include <mpi.h>"
        self.check(stray_libraries, {"kernels/lrn_cpu.cpp": dnnl, "kernels/onednn.h": dnnl, "comm/mpi_communicator.cpp": mpi})
        self.check(stray_libraries, {"kernels/lrn.h": dnnl}, finds=[("kernels/lrn.h", "dnnl.hpp")])
        self.check(stray_libraries, {"comm/nccl_library.h": "#include <nccl.h>"})
        self.check(stray_libraries, {"comm/device_communicator.cpp": "#include <nccl.h>"}, finds=[("comm/device", "nccl.h")])
        self.check(stray_libraries, {"launch/main.cpp": mpi}, finds=[("launch/main.cpp", "mpi.h")])


class Repository(unittest.TestCase):
    def setUp(self):
        files = [path for folder in ARROWS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
        self.sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}

    def test_is_all_there(self):
        self.assertEqual({path.split("/")[0] for path in self.sources}, set(ARROWS))

    def test_keeps_the_rules(self):
        broken = [*forbidden_arrows(self.sources), *stray_libraries(self.sources)]
        self.assertFalse(broken, "\n" + "\n".join(broken))


if __name__ == "__main__":
    unittest.main()
