#!/usr/bin/env python3
"""Runs the Python of docs/guides/python.md, as one script, with a short training:  guide_test.py DEEPER MPIRUN [unittest arguments]"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/docs"))
from commands_test import WRAPPER, make_photos  # noqa: E402

SHORTENED = "--image_size=32 --global_batch=8 --max_steps=2 --epochs=0 --log_every=1 --threads=1"


class Guide(unittest.TestCase):
    deeper = None

    def test_page(self):
        try:
            import torchvision  # noqa: F401
        except ImportError:
            self.skipTest("needs torchvision")
        blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/guides/python.md").read_text(), re.DOTALL | re.MULTILINE)
        with tempfile.TemporaryDirectory() as name:
            directory = pathlib.Path(name)
            make_photos(directory / "photos")
            for split in "train", "val":
                subprocess.run([self.deeper, "pack", "--format=folder", f"--input=photos/{split}", "--output=datasets/photos", f"--split={split}"],
                               cwd=name, check=True, stdout=subprocess.DEVNULL)
            wrapper = directory / "deeper"
            wrapper.write_text(WRAPPER.replace("@BINARY@", repr(self.deeper)))
            wrapper.chmod(0o755)
            environment = os.environ | {"PATH": f"{name}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "python"), "DEEPER_SHORTENED": SHORTENED}
            script = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=name, env=environment, capture_output=True, text=True, timeout=240)
        self.assertEqual(script.returncode, 0, script.stderr)
        printed = script.stdout.splitlines()
        self.assertEqual([line.split()[0] for line in printed[:2]], ["1", "2"], "the steps")
        self.assertIn("top-1", script.stdout)
        self.assertIn("(64, 3, 7, 7)", printed)
        self.assertEqual(sum(line.startswith("torch.Size([4, 3, 32, 32])") for line in printed), 8)


if __name__ == "__main__":
    Guide.deeper = str(pathlib.Path(sys.argv[1]).resolve())
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
