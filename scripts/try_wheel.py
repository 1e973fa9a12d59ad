"""Install the wheel into a bare environment and use it from a folder that has nothing of the clone.

Shows that the wheel holds only ``agentgym``, that every data file in it opens, and that the
command runs. ``python scripts/try_wheel.py FOLDER`` expects the wheel in ``FOLDER/dist``.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path


def main(folder: Path) -> None:
    """Try the one wheel in ``folder / "dist"``."""
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        data = [n for n in archive.namelist() if n.startswith("agentgym/data/")]
    foreign = {top for top in tops if top != "agentgym" and not top.endswith(".dist-info")}
    if foreign or not data:
        raise SystemExit(f"the wheel holds {sorted(tops)} and {len(data)} data files")
    python = folder / "venv" / "bin" / "python"
    run([sys.executable, "-m", "venv", str(folder / "venv")], folder)
    before = installed(python, folder)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, str(wheel)], folder)
    gained = {name for name in installed(python, folder) - before if name.startswith("agentgym")}
    own = {name for name in gained if not name.endswith(".dist-info")}
    if own != {"agentgym"}:
        raise SystemExit(f"site-packages gained {sorted(own)}; expected agentgym alone")
    check = (
        "from importlib.resources import files; import sys\n"
        "for name in sys.argv[1:]: assert files('agentgym').joinpath(name).read_bytes(), name"
    )
    names = [n.removeprefix("agentgym/") for n in data if not n.endswith("/")]
    run([str(python), "-c", check, *names], folder)
    command = str(python.with_name("agentgym"))
    run([command, "--version"], folder)
    run([command, "envs", "list"], folder)
    run([command, "eval", "--suite", "corridor/test", "--policy", "expert"], folder)
    run(
        [command, "eval", "--suite", "alfworld/gen-unseen", "--policy", "expert", "-n", "6"], folder
    )


def installed(python: Path, folder: Path) -> set[str]:
    """Return the entries of the environment's site-packages."""
    code = "import sysconfig, os; print('\\n'.join(os.listdir(sysconfig.get_path('purelib'))))"
    return set(run([str(python), "-c", code], folder).split())


def run(command: list[str], folder: Path) -> str:
    """Run a command in ``folder`` and return what it printed; stop with its output if it fails."""
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
