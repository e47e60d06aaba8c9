"""The mapping of top-level folders to ``fedcad.*`` holds at run time, in wheels and for type checkers."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fedcad.shared

ROOT = Path(fedcad.shared.__path__[0]).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = ("server", "client", "shared", "simulations", "configs")


def packages_on_disk() -> set[str]:
    found = {folder for name in FOLDERS for folder in (ROOT / name).rglob("__init__.py")}
    return {f"fedcad.{'.'.join(path.parent.relative_to(ROOT).parts)}" for path in found}


def test_listed_packages_are_the_folders_with_init() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_every_folder_with_modules_is_a_package() -> None:
    for name in FOLDERS:
        for module in (ROOT / name).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), (
                f"{module.relative_to(ROOT)} would not be packaged"
            )


def test_every_folder_is_mapped() -> None:
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {f"fedcad.{name}": name for name in FOLDERS}


@pytest.mark.parametrize("name", FOLDERS)
def test_links_of_the_type_checker_resolve(name: str) -> None:
    """With a broken link mypy would pass, having checked nothing."""
    link = ROOT / ".typing" / "fedcad" / name
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT / name


@pytest.mark.parametrize("name", ["server", "client", "shared", "simulations"])
def test_packages_say_that_they_are_typed(name: str) -> None:
    assert (ROOT / name / "py.typed").is_file()


def test_no_module_is_loaded_under_its_bare_name() -> None:
    """A bare ``shared`` would be a second copy of every class in it."""
    code = (
        "import sys, fedcad.shared.config.load, fedcad.shared.cli\n"
        f"bare = [name for name in sys.modules if name.partition('.')[0] in {FOLDERS!r}]\n"
        "print(bare)"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert result.stdout == "[]\n"
    loaded = [name for name in sys.modules if name.partition(".")[0] in FOLDERS]
    assert loaded == []


IDLE = [
    "fedcad.client.app",
    "fedcad.client.supervisor",
    "fedcad.client.supernode",
    "fedcad.client.worker_keeper",
    "fedcad.server.executor",
    "fedcad.server.superlink",
    "fedcad.server.supervisor",
    "fedcad.shared.flower_records",
    "fedcad.shared.messages",
]
"""What runs all the time, or anew for each message: torch would cost 200 MB and two seconds each time."""


def test_processes_that_idle_never_load_torch() -> None:
    code = (
        "import sys\nfrom importlib import import_module\n"
        f"for name in {IDLE!r}:\n"
        "    import_module(name)\n"
        "    heavy = [one for one in ('torch', 'monai', 'pydicom', 'scipy') if one in sys.modules]\n"
        "    if heavy: print(name, heavy)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == ""


def test_the_command_is_declared() -> None:
    module, _, function = PROJECT["project"]["scripts"]["fedcad"].partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_data_files_are_packaged() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["fedcad.configs"]
    packaged = {path for pattern in patterns for path in (ROOT / "configs").glob(pattern)}
    present = {path for path in (ROOT / "configs").rglob("*") if path.suffix in {".yaml", ".json", ".md"}}
    assert packaged == present
