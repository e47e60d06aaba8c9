import json
from datetime import timedelta
from pathlib import Path

import pytest
from consortium_factory import NOW, build_hospital

from fedcad.client.enrolment import request
from fedcad.client.hospital import Hospital
from fedcad.server.commands import sites as module
from fedcad.server.consortium import Consortium, make_config
from fedcad.server.enrolment import enrol
from fedcad.shared import dialogue
from fedcad.shared.cli import run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a consortium and a hospital's request, and nobody at the terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dialogue, "is_somebody_there", lambda: False)
    monkeypatch.setenv("COLUMNS", "200")
    Consortium.create(tmp_path / "c", make_config("lungs", "fedcad.example.org:8443"))
    request(build_hospital(tmp_path))
    return tmp_path


def consortium() -> Consortium:
    return Consortium.load(Path("c"))


def asked() -> str:
    return request(Hospital.load(Path("north"))).fingerprint


def enrol_words(*more: str) -> list[str]:
    return ["server", "enrol", "c", "north/request.json", *more]


def test_enrolling_needs_a_comparison(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(enrol_words()) == 2
    out, err = capsys.readouterr()
    assert "north" in out
    assert dialogue.to_read_out(asked()) in out
    assert "give --fingerprint, or --yes" in err
    assert run(enrol_words("--fingerprint", consortium().fingerprint)) == 2
    assert "Nobody was enrolled" in capsys.readouterr().err
    assert consortium().sites() == {}
    assert not Path("enrolment-north.json").exists()


@pytest.mark.parametrize("how", ["fingerprint", "yes", "asked"])
def test_enrolling_writes_the_file_that_goes_back(
    how: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"fingerprint": ["--fingerprint", asked()], "yes": ["--yes"], "asked": []}[how]
    if how == "asked":
        monkeypatch.setattr(dialogue, "is_somebody_there", lambda: True)
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "y")
    assert run(enrol_words(*words)) == 0
    out = capsys.readouterr().out
    assert dialogue.to_read_out(consortium().fingerprint) in out
    assert list(consortium().sites()) == ["north"]
    assert (
        run(["client", "join", "north", "enrolment-north.json", "--fingerprint", consortium().fingerprint])
        == 0
    )
    assert run(enrol_words()) == 0  # the same again: no question, the same file
    assert "was enrolled already" in capsys.readouterr().out


def test_no_at_the_question_enrols_nobody(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogue, "is_somebody_there", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    assert run(enrol_words()) == 2
    assert consortium().sites() == {}


def test_a_file_of_somebody_else_is_not_replaced(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("enrolment-north.json").write_text("mine")
    assert run(enrol_words("--yes")) == 2
    assert "give another file with --out" in capsys.readouterr().err
    assert Path("enrolment-north.json").read_text() == "mine"
    assert consortium().sites() == {}
    assert run(enrol_words("--yes", "--out", "other.json")) == 0


def test_other_keys_need_replace(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(enrol_words("--yes")) == 0
    assert run(["client", "request", "north", "--new-keys"]) == 0
    assert run(enrol_words("--yes")) == 2
    assert "--replace" in capsys.readouterr().err
    assert run(enrol_words("--yes", "--replace")) == 0
    assert consortium().sites()["north"].signing_key.fingerprint == asked()


def test_the_table_shows_status_and_what_to_do(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["server", "sites", "c"]) == 0
    assert "no site is enrolled yet" in capsys.readouterr().out
    for name, age in (("old", 731), ("soon", 720), ("fresh", 1)):
        hospital = build_hospital(place, name)
        enrol(consortium(), request(hospital, now=NOW), now=NOW - timedelta(days=age))
    assert run(enrol_words("--yes")) == 0
    assert run(["server", "revoke", "c", "north", "--reason", "[bold]left\x1b[2J", "--yes"]) == 0
    capsys.readouterr()

    class Fixed:
        @staticmethod
        def now(zone: object) -> object:
            return NOW

    monkeypatch.setattr(module, "datetime", Fixed)
    assert run(["server", "sites", "c"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "expired" in rows["old"]
    assert "renew old" in rows["old"]
    assert "10 days left" in rows["soon"]
    assert "renew soon" in rows["soon"]
    assert "729 days left" in rows["fresh"]
    assert "renew" not in rows["fresh"]
    assert "revoked" in rows["north"]
    assert "[bold]left?[2J" in rows["north"]
    assert run(["server", "sites", "c", "--json"]) == 0
    plain = {site["site"]: site for site in json.loads(capsys.readouterr().out)}
    assert (plain["soon"]["days_left"], plain["old"]["status"]) == (10, "expired")
    assert plain["fresh"]["fingerprint"] == consortium().sites()["fresh"].signing_key.fingerprint
    assert run(["server", "sites", "c", "--full"]) == 0
    assert plain["fresh"]["fingerprint"][40:] in capsys.readouterr().out


def test_renewal_reaches_the_hospital_without_a_new_comparison(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(enrol_words("--yes")) == 0
    assert (
        run(["client", "join", "north", "enrolment-north.json", "--fingerprint", consortium().fingerprint])
        == 0
    )
    before = Path("north/enrolment.json").read_bytes()
    assert run(["server", "renew", "c", "north", "--out", "renewed.json"]) == 0
    assert run(["client", "join", "north", "renewed.json"]) == 0
    assert "the same authority as before" in capsys.readouterr().out
    assert Path("north/enrolment.json").read_bytes() != before


def test_renewing_the_server(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = consortium().listener_certificate()
    assert run(["server", "renew", "c", "--server"]) == 0
    assert "hospitals need to do nothing" in capsys.readouterr().out
    assert consortium().listener_certificate() != before
    for words in ([], ["north", "--server"]):
        assert run(["server", "renew", "c", *words]) == 2
        assert "either the name of a site or --server" in capsys.readouterr().err


def test_revoking_asks(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(enrol_words("--yes")) == 0
    assert run(["server", "revoke", "c", "north", "--reason", "left"]) == 2
    assert "give --yes" in capsys.readouterr().err
    assert consortium().sites()["north"].status == "enrolled"
    assert run(["server", "revoke", "c", "south", "--reason", "left", "--yes"]) == 2
    assert "the sites are: north" in capsys.readouterr().err
