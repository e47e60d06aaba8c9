"""The process of an emulated deployment says what is wrong with its folder and ends."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("kind", "text"), [("coordinator", "no consortium's folder"), ("site", "no hospital")]
)
def test_a_folder_that_is_none_ends_the_process(tmp_path: Path, kind: str, text: str) -> None:
    command = [sys.executable, "-m", "fedcad.simulations.engines.deployed_process", kind, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode != 0
    assert text in found.stderr
