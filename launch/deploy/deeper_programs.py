"""The commands of the wheel, which launch/deploy/wheel makes: each runs the program of its name in the archive inside the package."""
import os
import pathlib
import sys


def main() -> None:
    name = pathlib.Path(sys.argv[0]).name
    run = pathlib.Path(__file__).parent / "deeper" / "archive" / "bin" / "run"
    if sys.prefix != sys.base_prefix:  # a virtual environment: deeper-run finds its mpirun also where it is not activated
        os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    os.execv(run, [str(run), name, *sys.argv[1:]])
