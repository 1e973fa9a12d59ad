"""The layout, as promised: one import name, three links, nothing heavy before it is needed."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("envs", "policies", "trainers")


def pyproject() -> dict[str, dict[str, dict[str, object]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_package_list_equals_the_folders() -> None:
    setuptools = pyproject()["tool"]["setuptools"]
    assert setuptools["packages"] == ["agentgym", *(f"agentgym.{name}" for name in FOLDERS)]
    mapping = setuptools["package-dir"]
    assert mapping == {"agentgym": "agentgym"} | {f"agentgym.{name}": name for name in FOLDERS}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_root_folder_is_linked_into_the_package(name: str) -> None:
    link = ROOT / "agentgym" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name


@pytest.mark.parametrize("name", FOLDERS)
def test_a_root_folder_holds_no_packages_of_its_own(name: str) -> None:
    assert not list((ROOT / name).glob("*/__init__.py"))


@pytest.mark.parametrize("name", FOLDERS)
def test_a_root_folder_refuses_to_be_imported_under_its_own_name(name: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 1
    assert f"import this package as agentgym.{name}" in done.stderr


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "numpy", "gymnasium", "openai")
    code = (
        "import sys, runpy\n"
        "sys.argv = ['agentgym', '--help']\n"
        "try: runpy.run_module('agentgym', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"found = [name for name in {heavy!r} if name in sys.modules]\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
