#!/usr/bin/env python3
"""The oldest system that a package runs on:  floor_test.py BUILD

Reads the versions of symbols that the programs and libraries of the archive need (component `deeper` of `cmake --install`, of which the wheel
is made). On Debian 12 none may be newer than FLOOR. Exit code 77, for ctest: this is another system, whose own libraries may need more.
"""
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

# glibc 2.34 and GCC 11: RHEL 9, Ubuntu 22.04, SLES 15 SP6 and later ones. manylinux_2_34 admits the same.
FLOOR = {"GLIBC": (2, 34), "GLIBCXX": (3, 4, 29), "CXXABI": (1, 3, 13), "GCC": (7, 0, 0)}


def needed(path):
    """{(symbol set, version): library that defines it}"""
    listed = subprocess.run(["readelf", "--version-info", "--wide", path], capture_output=True, text=True, check=True).stdout
    found, library = {}, None
    for line in listed.partition("Version needs section")[2].splitlines():
        if file := re.search(r"File: (\S+)", line):
            library = file[1]
        if name := re.search(r"Name: (\w+?)_(\d[\d.]*)\s", line):
            found[name[1], tuple(map(int, name[2].split(".")))] = library
    return found


def main():
    release = platform.freedesktop_os_release()
    if (release.get("ID"), release.get("VERSION_ID")) != ("debian", "12"):
        print(f"not run: packages are built on Debian 12, not on {release.get('PRETTY_NAME')}")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["cmake", "--install", sys.argv[1], "--prefix", directory, "--component", "deeper"], check=True, stdout=subprocess.DEVNULL)
        files = [path for folder in ("bin", "lib") for path in sorted(pathlib.Path(directory, folder).iterdir())
                 if path.read_bytes()[:4] == b"\x7fELF"]
        most, faults = {}, []
        for path in files:
            for (name, version), library in needed(path).items():
                most[name] = max(version, most.get(name, version))
                if version > FLOOR.get(name, version):
                    faults.append(f"{path.name} needs {name}_{'.'.join(map(str, version))} of {library}")
    print(f"{len(files)} files need at most " + ", ".join(f"{name} {'.'.join(map(str, most[name]))}" for name in FLOOR))
    assert {"deeper", "libdnnl.so.2"} <= {path.name for path in files} and most["GLIBC"] > (2, 30), "not an archive"
    if faults:
        sys.exit("newer than the floor (docs/start/install.md):\n  " + "\n  ".join(faults) + "\n`objdump -T FILE | grep VERSION` names the symbol")


if __name__ == "__main__":
    main()
