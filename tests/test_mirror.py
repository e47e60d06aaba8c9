"""Every module has its test file, in the same place under ``tests``."""

import ast
from pathlib import Path

import fedcad.shared

ROOT = Path(fedcad.shared.__path__[0]).parent
FOLDERS = ("server", "client", "shared", "simulations")
WITHOUT_TESTS = {
    "server/channel.py": "a protocol and two records; the tests of rounds and app use them",
    "shared/algorithms/interface.py": "a protocol and records; tests/contracts/test_algorithms.py",
    "shared/tasks/interface.py": "a protocol and records; tests/contracts/test_tasks.py",
    "shared/metrics/interface.py": "a protocol and a record; the tests of its families use them",
    "simulations/datasets/interface.py": "a protocol and records; the tests of the data sets use them",
    "shared/version.py": "a constant",
}
"""Modules whose behaviour is tested where they are used, each with the reason."""


def modules() -> list[Path]:
    """Every module that defines anything, relative to the root."""
    found = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return [path.relative_to(ROOT) for path in found if _has_code(path)]


def _has_code(path: Path) -> bool:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def test_every_module_has_its_test_file() -> None:
    missing = [
        f"tests/{module.parent}/test_{module.name}"
        for module in modules()
        if str(module) not in WITHOUT_TESTS
        and not (ROOT / "tests" / module.parent / f"test_{module.name}").is_file()
    ]
    assert not missing, "these test files are missing:\n" + "\n".join(missing)


def test_every_test_file_has_its_module() -> None:
    """A module that was renamed or removed takes its test file with it."""
    orphans = [
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in sorted((ROOT / "tests" / folder).rglob("test_*.py"))
        if not (ROOT / path.relative_to(ROOT / "tests").with_name(path.name.removeprefix("test_"))).is_file()
    ]
    assert not orphans, "no module stands behind these test files:\n" + "\n".join(orphans)


def test_exceptions_exist_and_still_need_to_be_exceptions() -> None:
    names = {str(module) for module in modules()}
    assert set(WITHOUT_TESTS) <= names
    assert not [
        name
        for name in WITHOUT_TESTS
        if (ROOT / "tests" / Path(name).with_name(f"test_{Path(name).name}")).is_file()
    ]
