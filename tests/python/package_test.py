#!/usr/bin/env python3
"""`pip install ./python`:  package_test.py DEEPER MPIRUN [unittest arguments]"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Package(unittest.TestCase):
    def test_install(self):
        with tempfile.TemporaryDirectory() as name:
            copy, target = pathlib.Path(name, "python"), pathlib.Path(name, "target")
            shutil.copytree(ROOT / "python", copy)  # setuptools writes into it
            # Debian's setuptools, so that nothing is downloaded.
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--root-user-action=ignore", "--no-deps", "--no-build-isolation",
                            "--target", target, copy], check=True)
            program = subprocess.run([sys.argv[1], "--version"], check=True, capture_output=True, text=True).stdout
            version = re.match(r"deeper ([\d.]+)", program)[1]
            self.assertTrue((target / f"deeper-{version}.dist-info").is_dir(), "the version is that of the program")
            self.assertTrue((target / "deeper/py.typed").exists())

            def output(*command):
                return subprocess.run(command, check=True, capture_output=True, text=True, cwd=name, env={"PYTHONPATH": str(target)}).stdout

            self.assertIn("usage: deeper-track", output(target / "bin/deeper-track", "--help"))
            names = output(sys.executable, "-c", "import deeper, sys; print(*deeper.__all__, deeper.__file__); assert 'torch' not in sys.modules")
            self.assertIn("ShardDataset", names)
            self.assertIn(str(target), names)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
