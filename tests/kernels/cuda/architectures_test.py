#!/usr/bin/env python3
"""Which values of CMAKE_CUDA_ARCHITECTURES the build refuses. Needs only CMake."""
import pathlib
import subprocess
import unittest

CHECK = pathlib.Path(__file__).parents[3] / "cmake/cuda_architectures.cmake"


class Architectures(unittest.TestCase):
    def check(self, architectures):
        return subprocess.run(["cmake", f"-DCMAKE_CUDA_ARCHITECTURES={architectures}", "-P", CHECK], capture_output=True, text=True, check=False)

    def test_accepts(self):
        for architectures in "80-real;90", "80;90", "80", "80;86", "90", "90a", "80-real;90-real", "80;90a;90-virtual", "80;120", "native", "all":
            done = self.check(architectures)
            self.assertEqual(done.returncode, 0, architectures + done.stderr)

    def test_refuses_old_ptx_for_later_gpus(self):
        for architectures in "80;90a", "80;90-real", "80-virtual;90a-real", "86;120a", "89-virtual;100f":
            done = self.check(architectures)
            self.assertNotEqual(done.returncode, 0, architectures)
            self.assertIn("Add 90-virtual", " ".join(done.stderr.split()))


if __name__ == "__main__":
    unittest.main()
