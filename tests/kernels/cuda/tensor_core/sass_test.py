#!/usr/bin/env python3
"""Checks the compiled code of the kernels:  sass_test.py LIBRARY [CUOBJDUMP]

Every tensor core kernel must use the tensor cores of its GPU and keep all variables in registers. No kernel may use local memory.
cuobjdump and nvdisasm come with the CUDA toolkit, or from PyPI as nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm. Without them the
script checks nothing and exits with 77.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

NOT_RUN = 77
# object: (kernel name, number of kernels, tensor core instruction). Each kernel of the first object exists for two GPUs.
TENSOR_CORE = {
    "conv_sm80.cu.o": ("ConvSm80", 12, "HMMA.16816.F32.BF16"),
    "conv_pool_gradient.cu.o": ("PooledGradientSm80", 4, "HMMA.16816.F32.BF16"),
    "conv_sm90.cu.o": ("ConvSm90", 6, "HGMMA.64x"),
}
library = cuobjdump = None


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def kernels(listing, line):
    """Parses cuobjdump's listing: {(arch, kernel): the lines below its name that match}."""
    found, arch, lines = {}, None, []
    for text in listing.splitlines():
        if match := re.match(r"arch = (\S+)", text):
            arch = match[1]
        elif match := re.match(r"\s*Function\s*:? (\S+?):?$", text):
            lines = found.setdefault((arch, match[1]), [])
        elif re.search(line, text):
            lines.append(text.strip())
    return found


class TensorCores(unittest.TestCase):
    def test_are_used(self):
        for member, (name, count, instruction) in TENSOR_CORE.items():
            with tempfile.TemporaryDirectory() as directory:
                run("ar", "x", str(pathlib.Path(library).resolve()), member, cwd=directory)
                listing = run(cuobjdump, "-sass", member, cwd=directory)
            found = {key: lines for key, lines in kernels(listing, instruction.replace(".", r"\.")).items() if name in key[1]}
            self.assertEqual(len(found), count, sorted(found))
            for kernel, lines in found.items():
                self.assertTrue(lines, f"{kernel} has no {instruction}")


class Registers(unittest.TestCase):
    def setUp(self):
        self.usage = kernels(run(cuobjdump, "-res-usage", library), "REG:")
        self.assertGreater(len(self.usage), 100)

    def amount(self, kernel, of):
        return int(re.search(rf"\b{of}:(\d+)", self.usage[kernel][0])[1])

    def test_no_local_memory(self):
        self.assertEqual([kernel for kernel in self.usage if self.amount(kernel, "LOCAL") > 0], [])

    def test_tensor_core_kernels_have_no_stack(self):
        names = [kernel for kernel in self.usage if "deeper4conv" in kernel[1]]
        self.assertGreaterEqual(len(names), 20)
        self.assertEqual([kernel for kernel in names if self.amount(kernel, "STACK") > 0], [])


if __name__ == "__main__":
    library, cuobjdump = sys.argv[1], shutil.which(sys.argv[2] if len(sys.argv) > 2 else "cuobjdump")
    if cuobjdump is None:
        print("not run: cuobjdump not found")
        sys.exit(NOT_RUN)
    unittest.main(argv=sys.argv[:1])
