"""The settings of a run folder."""

from pathlib import Path

import pytest

from fedcad.server.settings import RunSettings
from fedcad.shared.errors import CheckpointError


@pytest.mark.parametrize("virtual_clock", [True, False])
def test_what_is_saved_comes_back(tmp_path: Path, virtual_clock: bool) -> None:
    settings = RunSettings(contract="contract", sites=("a", "b"), virtual_clock=virtual_clock)
    settings.save(tmp_path / "new" / "folder")
    assert RunSettings.load(tmp_path / "new" / "folder") == settings


def test_wall_time_is_the_default() -> None:
    assert RunSettings(contract="contract", sites=("a",)).virtual_clock is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"contract":"c","sites":[]}',
        '{"contract":"c","sites":"ab"}',
        '{"contract":"c","sites":["a",1]}',
        '{"contract":"c","sites":["a"],"virtual_clock":"yes"}',
        '{"contract":"c","sites":["a"],"more":1}',
    ],
)
def test_damaged_settings_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(CheckpointError, match="settings cannot be read"):
        RunSettings.load(tmp_path)


def test_missing_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run\.json"):
        RunSettings.load(tmp_path)
