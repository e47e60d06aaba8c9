from pathlib import Path

import pytest

from fedcad.client.enrolment import request
from fedcad.client.hospital import Hospital
from fedcad.client.supervisor import LOCK_FILE
from fedcad.server.consortium import Consortium, make_config
from fedcad.server.enrolment import enrol
from fedcad.shared import dialogue
from fedcad.shared.cli import run
from fedcad.shared.enrolment import file_text
from fedcad.shared.instance_lock import InstanceLock

INIT = ["client", "init", "north", "--name", "north", "--archive", "dicom", "--labels", "labels.csv"]


@pytest.fixture(autouse=True)
def nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dialogue, "is_somebody_there", lambda: False)


def answered(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    """Put a person at the terminal who gives these answers."""
    given = iter(answers)
    monkeypatch.setattr(dialogue, "is_somebody_there", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: next(given))


def test_init_with_flags_asks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dicom").mkdir()
    assert run(INIT) == 0
    out = capsys.readouterr().out
    assert f"labels: {tmp_path / 'labels.csv'} does not exist yet" in out
    assert "archive:" not in out
    assert "next: fedcad client request north" in out
    site = Hospital.load(Path("north")).site
    assert (site.archive, site.state) == (str(tmp_path / "dicom"), "state")
    assert run(["check", "north/site.yaml"]) == 0
    assert run(INIT) == 2
    assert "nothing was changed" in capsys.readouterr().err


def test_init_asks_for_what_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, "north", str(tmp_path / "dicom"), "~/labels.csv")
    assert run(["client", "init", "north", "--proxy", "http://proxy:3128"]) == 0
    site = Hospital.load(Path("north")).site
    assert site.labels == str(Path("~/labels.csv").expanduser())
    assert site.proxy == "http://proxy:3128"


def test_a_script_that_forgot_something_is_told_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(INIT[:-2]) == 2
    assert "--labels is missing" in capsys.readouterr().err
    assert not Path("north").exists()


def test_request_shows_the_same_fingerprint_again(capsys: pytest.CaptureFixture[str]) -> None:
    run(INIT)
    capsys.readouterr()
    shown = []
    for _ in range(2):
        assert run(["client", "request", "north"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert dialogue.to_read_out(request(Hospital.load(Path("north"))).fingerprint) in shown[0]
    assert "PRIVATE" not in shown[0]
    assert run(["client", "request", "north", "--new-keys"]) == 0
    assert "the old keys are kept in" in capsys.readouterr().out


def prepared() -> Consortium:
    run(INIT)
    consortium = Consortium.create(Path("c"), make_config("lungs", "fedcad.example.org:8443"))
    enrolment = enrol(consortium, request(Hospital.load(Path("north"))))
    Path("e.json").write_bytes(file_text(enrolment))
    return consortium


def test_join_needs_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    consortium = prepared()
    assert run(["client", "join", "north", "e.json"]) == 2
    out, err = capsys.readouterr()
    assert dialogue.to_read_out(consortium.fingerprint) in out
    assert "give --fingerprint" in err
    assert not Path("north/enrolment.json").exists()
    assert run(["client", "join", "north", "e.json", "--fingerprint", consortium.fingerprint]) == 0
    assert "north has joined lungs" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2)])
def test_join_asks(answer: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared()
    answered(monkeypatch, answer)
    assert run(["client", "join", "north", "e.json"]) == code
    assert Path("north/enrolment.json").exists() is (code == 0)


def test_another_authority_is_asked_about_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    consortium = prepared()
    run(["client", "join", "north", "e.json", "--fingerprint", consortium.fingerprint])
    other = Consortium.create(tmp_path / "other", make_config("lungs", "fedcad.example.org:8443"))
    path = tmp_path / "other.json"
    path.write_bytes(file_text(enrol(other, request(Hospital.load(Path("north"))))))
    capsys.readouterr()
    assert run(["client", "join", "north", str(path)]) == 2
    assert "give --fingerprint" in capsys.readouterr().err


def test_a_running_node_must_be_restarted_to_take_a_renewal(capsys: pytest.CaptureFixture[str]) -> None:
    consortium = prepared()
    join = ["client", "join", "north", "e.json", "--fingerprint", consortium.fingerprint]
    assert run(join) == 0
    assert "then: fedcad client start north" in capsys.readouterr().out
    folder = Hospital.load(Path("north")).run
    folder.mkdir(exist_ok=True)
    with InstanceLock(folder / LOCK_FILE, "the node"):
        assert run(join) == 0
    assert "restart it: fedcad client stop north" in capsys.readouterr().out
