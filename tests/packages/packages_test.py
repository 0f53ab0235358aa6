#!/usr/bin/env python3
"""launch/packages.txt: what reads it, and whether the packages `run` are what the program needs.

packages_test.py DEEPER MPIRUN [unittest arguments]
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

DEEPER = pathlib.Path(sys.argv[1]).resolve()
BUILD = DEEPER.parents[1]
ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "launch/deploy/kubernetes/Dockerfile"
APPTAINER = ROOT / "launch/deploy/apptainer/deeper.def"
NVIDIA = re.compile(r"lib(cud|cublas|nvrtc|nccl)")
ALWAYS_THERE = {"libc6", "libgcc-s1", "libstdc++6"}  # in every Debian


def output(*command):
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True).stdout


def release():
    known = dict(line.split("=", 1) for line in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return known.get("ID"), known.get("VERSION_ID", "").strip('"')


ON_DEBIAN = release() in (("debian", "12"), ("debian", "13"))


class InstallDeps(unittest.TestCase):
    """On systems that os-release and programs in front of the PATH pretend."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.dir = pathlib.Path(temporary.name)
        text = (ROOT / "launch/install-deps").read_text()
        self.assertEqual(text.count("/etc/os-release"), 1)
        (self.dir / "install-deps").write_text(text.replace("/etc/os-release", str(self.dir / "os-release")))
        shutil.copy(ROOT / "launch/packages.txt", self.dir)
        for name, body in {"dpkg-query": "exit 1", "apt-get": f'echo "$@" >>{self.dir}/calls', "id": "echo 0"}.items():
            (self.dir / name).write_text(f"#!/bin/sh\n{body}\n")
            (self.dir / name).chmod(0o755)

    def run_on(self, system, *arguments):
        (self.dir / "os-release").write_text(system)
        return subprocess.run(["bash", self.dir / "install-deps", *arguments], env=os.environ | {"PATH": f"{self.dir}:{os.environ['PATH']}"},
                              capture_output=True, text=True)

    def listed(self, version, *arguments):
        run = self.run_on(f'ID=debian\nVERSION_ID="{version}"\n', "--list", *arguments)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        return run.stdout.split()

    def test_names_of_each_release(self):
        self.assertIn("libabsl20220623", self.listed(12, "--run"))
        self.assertIn("libabsl20240722", self.listed(13, "--run"))
        for version in 12, 13:
            every, build, run = self.listed(version), self.listed(version, "--build"), self.listed(version, "--run")
            self.assertTrue(set(run) < set(build) < set(every))
            self.assertEqual(len(every), len(set(every)))
            for names, name, there in (run, "python3", True), (run, "g++", False), (build, "g++", True), (build, "libgtest-dev", False):
                self.assertEqual(name in names, there, (version, name))
        self.assertEqual(self.listed(12, "--run", "more"), [*self.listed(12, "--run"), "more"])

    def test_installs_what_is_missing(self):
        run = self.run_on("ID=debian\nVERSION_ID=13\n", "--run", "more")
        self.assertEqual(run.returncode, 0, run.stderr)
        update, install = (self.dir / "calls").read_text().splitlines()
        self.assertTrue(update.startswith("update"))
        self.assertEqual(install.split()[-1], "more")
        self.assertIn("libabsl20240722", install.split())

    def test_of_another_system(self):
        for system in 'ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04 LTS"\n', 'ID=debian\nPRETTY_NAME="Ubuntu 24.04 LTS"\n':
            run = self.run_on(system)
            self.assertEqual((run.returncode, run.stdout), (1, ""))
            self.assertRegex(run.stderr, r"names of Debian 12 and 13, and this is Ubuntu 24\.04 LTS\. Install .*docs/start/install\.md")
        self.assertFalse((self.dir / "calls").exists())

    def test_wrong_option(self):
        run = self.run_on("ID=debian\nVERSION_ID=12\n", "--lst")
        self.assertEqual(run.returncode, 2)
        self.assertIn("--list", run.stderr)

    def test_without_the_list(self):
        (self.dir / "packages.txt").unlink()
        run = self.run_on("ID=debian\nVERSION_ID=12\n")
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("packages.txt", run.stderr)


class Containers(unittest.TestCase):
    def test_package_names_come_from_the_list(self):
        for file in DOCKERFILE, APPTAINER:
            text = file.read_text()
            self.assertIn("./launch/install-deps --build", text)
            self.assertIn("/opt/packages/install-deps --run", text)
            self.assertNotIn("apt-get install", text)
            self.assertIn("launch/deploy/install-program build/", text)

    def test_licences(self):
        for file in DOCKERFILE, APPTAINER, ROOT / "launch/deploy/image":
            self.assertRegex(file.read_text(), r'cmake/collect-licenses"? deeper \S*/opt/deeper/licenses', file.name)

    @unittest.skipUnless(ON_DEBIAN, "not Debian 12 or 13")
    def test_licences_of_what_the_program_contains(self):
        with tempfile.TemporaryDirectory() as directory:
            output(ROOT / "cmake/collect-licenses", "deeper", directory)
            self.assertLessEqual({"nlohmann-json3-dev.txt", "libjs-dygraphs.txt", "deeper.md"}, set(os.listdir(directory)))
            table = pathlib.Path(directory, "deeper.md").read_text()
            self.assertRegex(table, r"\| libjs-dygraphs \| (\S+) \| .*\| https://snapshot\.debian\.org/package/dygraphs/\1/ \|")

    def test_copied_files_exist(self):
        copied = re.findall(r"^COPY ((?!--from).*)$", DOCKERFILE.read_text(), re.MULTILINE)
        sources = [source for words in copied for source in words.split()[:-1]]
        sections = re.findall(r"^%files\n((?: +.*\n)+)", APPTAINER.read_text(), re.MULTILINE)
        sources += [line.split()[0] for section in sections for line in section.splitlines()]
        self.assertGreater(len(sources), 10)
        for source in sources:
            self.assertTrue((ROOT / source).exists(), source)

    def test_apptainer_copies_what_cmake_reads(self):
        read = re.findall(r"^add_subdirectory\((\w+)\)", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
        self.assertIn("trainer", read)
        for folder in ["CMakeLists.txt", "CMakePresets.json", "cmake", "python", *read]:
            self.assertIn(f"    {folder} /source/{folder}\n", APPTAINER.read_text())


class Recipes(unittest.TestCase):
    def test_version(self):
        """Of the recipes for EasyBuild and Spack: that of the program."""
        version = re.search(r"^deeper ([\d.]+)", output(DEEPER, "--version"))[1]
        (easyconfig,) = (ROOT / "launch/deploy/easybuild").glob("deeper-*.eb")
        self.assertTrue(easyconfig.name.startswith(f"deeper-{version}-"), easyconfig.name)
        self.assertIn(f"version = '{version}'", easyconfig.read_text())
        self.assertIn(f'version("{version}")', (ROOT / "launch/deploy/spack/package.py").read_text())
        self.assertEqual(set(re.findall(r"deeper-(\d[\d.]*\d)", easyconfig.read_text())), {version})


def run_packages():
    return output(ROOT / "launch/install-deps", "--list", "--run").split()


def package_of(library):
    """The package of a shared library: dpkg knows it by its path before or after the merge of /lib and /usr/lib."""
    for path in library, os.path.realpath(library):
        for name in path, path.removeprefix("/usr"):
            found = subprocess.run(["dpkg-query", "--search", name], capture_output=True, text=True).stdout
            if found:
                return found.split(":")[0]
    raise AssertionError(f"no package has {library}")


@unittest.skipUnless(ON_DEBIAN, "needs Debian 12 or 13")
class RunPackages(unittest.TestCase):
    def test_are_those_of_the_libraries(self):
        needed = re.findall(r"NEEDED.*\[(.*)\]", output("readelf", "-d", DEEPER))
        paths = dict(re.findall(r"(\S+) => (\S+) ", output("ldd", DEEPER)))
        packages = {package_of(paths[name]) for name in needed if not NVIDIA.match(name)} - ALWAYS_THERE
        listed = {name for name in run_packages() if name.startswith("lib") or name == "zlib1g"}
        self.assertEqual(packages, listed)

    def test_train_in_a_root_of_nothing_else(self):
        """Two ranks train and resume, and the scripts start, where only these packages are installed and what they depend on."""
        if NVIDIA.search(output("ldd", DEEPER)):
            self.skipTest("a build with CUDA also needs NVIDIA's libraries")
        with tempfile.TemporaryDirectory() as name:
            root = pathlib.Path(name)
            copy_packages(closure(run_packages()), root)
            subprocess.run([ROOT / "launch/deploy/install-program", BUILD, root / "opt/deeper"], check=True)
            inside = self.enter(root)
            synthetic = ("--synthetic --synthetic_samples=32 --image_size=16 --model=nin-cifar --num_classes=10 --global_batch=8 --threads=1"
                         " --checkpoint_dir=/tmp/run --max_steps=")
            ranks = "deeper-run -n 2 --oversubscribe -- train " + synthetic
            said = inside(f"{ranks}2 && {ranks}4 && deeper-sweep --help && deeper-track --help")
            self.assertRegex(said, r"resume +/tmp/run/step-0+2: 2 steps done")
            self.assertRegex(said, r"step +4/4")

    def enter(self, root):
        """-> a function that runs a shell command in a root, in namespaces of its own."""
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        spaces = ["unshare", *user, "--mount", "--pid", "--net", "--fork", "--kill-child"]
        probe = subprocess.run([*spaces, "mount", "-t", "tmpfs", "tmpfs", root / "dev"], capture_output=True, text=True)
        if probe.returncode != 0:
            self.skipTest(f"no namespaces here: {probe.stderr.strip()}")

        def inside(command):
            mounts = ("mount -t proc proc proc && mount --rbind /sys sys && mount --rbind /dev dev && mount -t tmpfs tmpfs dev/shm"
                      " && ip link set lo up")
            run = subprocess.run([*spaces, "sh", "-c", f'{mounts} && exec chroot . sh -c "$1"', "sh", command], cwd=root, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
                                 env={"PATH": "/opt/deeper:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"})
            self.assertEqual(run.returncode, 0, run.stdout)
            return run.stdout

        return inside


def closure(names):
    """These packages, the essential ones, and all that they depend on, as they are installed here."""
    wanted = "${Package}\t${Essential}\t${Provides}\t${Pre-Depends}, ${Depends}\n"
    rows = [line.split("\t") for line in output("dpkg-query", "--show", "--showformat", wanted).splitlines()]

    def split(text):  # "a (>= 1) | b, c:any" -> [[a, b], [c]]
        return [[re.split(r"[ :(]", choice.strip())[0] for choice in group.split("|")] for group in text.split(",") if group.strip()]

    depends = {name: split(text) for name, _, _, text in rows}
    provider = {virtual: name for name, _, provides, _ in rows for group in split(provides) for virtual in group}
    found, left = set(), [*names, *(name for name, essential, _, _ in rows if essential == "yes")]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            for choices in depends[name]:
                left += [choice if choice in depends else provider[choice] for choice in choices if choice in depends or choice in provider][:1]
    return found


def copy_packages(names, root):
    for top in "bin", "sbin", "lib", "lib64":
        (root / "usr" / top).mkdir(parents=True)
        (root / top).symlink_to(f"usr/{top}")
    for folder in "dev", "proc", "sys", "tmp", "root", "etc":
        (root / folder).mkdir()
    paths = {line for line in output("dpkg-query", "--listfiles", *sorted(names)).splitlines() if line.startswith("/")}
    links = [path for folder in ("/usr/bin", "/usr/lib/x86_64-linux-gnu") for path in pathlib.Path(folder).iterdir() if path.is_symlink()]
    paths |= {str(path) for path in links if os.readlink(path).startswith("/etc/alternatives/")}
    paths |= {str(path) for path in pathlib.Path("/etc/alternatives").iterdir()} | {"/etc/passwd", "/etc/group", "/etc/nsswitch.conf"}
    for path in sorted(paths):
        if path.startswith(("/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/zoneinfo")) or not os.path.lexists(path):
            continue
        to = pathlib.Path(f"{root}{path}")
        if os.path.isdir(path) and not os.path.islink(path):
            to.mkdir(exist_ok=True)
        elif not os.path.isdir(path) or os.path.islink(path):
            to.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(to):
                shutil.copy2(path, to, follow_symlinks=False)
    subprocess.run(["ldconfig", "-r", root], check=True)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
