"""submit, amend, pause, resume and stopping one study, as a person gives them."""

from pathlib import Path

import pytest
from study_factory import make_contract
from study_folders import Wanted, add_study, make_consortium, run_rounds

from fedcad.server.consortium import Consortium
from fedcad.server.study_folder import newest_of
from fedcad.shared.cli import run


@pytest.fixture
def home(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


def wanted(home: Consortium, name: str = "small") -> Wanted:
    wish = newest_of(home.studies, name).wish()
    assert wish is not None
    return wish.wanted


def test_a_study_file_is_no_contract(home: Consortium, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "study.yaml"
    path.write_text("name: x\n")
    assert run(["server", "submit", str(home.folder), str(path)]) == 2
    assert "fedcad study freeze" in capsys.readouterr().err


def test_without_sites_nothing_is_submitted(home: Consortium, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    make_contract(name="small").save(tmp_path / "contract")
    assert run(["server", "submit", str(home.folder), str(tmp_path / "contract")]) == 2
    assert "0 sites are enrolled" in capsys.readouterr().err


def test_pause_resume_stop(home: Consortium) -> None:
    add_study(home)
    for command, expected in [
        ("pause", Wanted.PAUSED),
        ("resume", Wanted.RUNNING),
        ("stop", Wanted.STOPPED),
        ("resume", Wanted.RUNNING),
    ]:
        assert run(["server", command, str(home.folder), "small"]) == 0
        assert wanted(home) is expected


def test_a_finished_study_does_not_go_on(home: Consortium, capsys) -> None:  # type: ignore[no-untyped-def]
    run_rounds(add_study(home))
    assert run(["server", "resume", str(home.folder), "small"]) == 2
    assert "is finished" in capsys.readouterr().err


def test_an_unknown_study_is_named_with_those_that_exist(home: Consortium, capsys) -> None:  # type: ignore[no-untyped-def]
    add_study(home)
    assert run(["server", "pause", str(home.folder), "smal"]) == 2
    assert "the studies are small" in capsys.readouterr().err


def test_amending_shows_the_difference_and_can_be_declined(
    home: Consortium,
    tmp_path: Path,
    capsys,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[no-untyped-def]
) -> None:
    first = add_study(home)
    make_contract(name="small", rounds=9, participation={"quorum": 1}).save(tmp_path / "contract")
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: PTH123, SIM115
    assert run(["server", "amend", str(home.folder), str(tmp_path / "contract")]) != 0
    assert "+rounds: 9" in capsys.readouterr().out
    assert newest_of(home.studies, "small").path == first.path
    assert wanted(home) is Wanted.RUNNING
