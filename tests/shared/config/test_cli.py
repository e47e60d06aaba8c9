import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fedcad.configs
from fedcad.shared.cli import app, run
from fedcad.shared.config.cli import guess_kind
from fedcad.shared.config.schema import schema_of

CONFIGS = Path(fedcad.configs.__path__[0])


def test_schema_prints_the_committed_schema() -> None:
    result = CliRunner().invoke(app, ["schema", "site"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == schema_of("site")
    assert result.stdout == (CONFIGS / "schemas" / "site.schema.json").read_text(encoding="utf-8")


def test_schema_out(tmp_path: Path) -> None:
    out = tmp_path / "s.json"
    result = CliRunner().invoke(app, ["schema", "study", "--out", str(out)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert json.loads(out.read_text(encoding="utf-8")) == schema_of("study")
    for bad in (tmp_path, tmp_path / "absent" / "s.json"):
        assert run(["schema", "study", "--out", str(bad)]) == 2


def test_schema_of_an_unknown_kind_lists_the_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "studdy"]) == 2
    assert "simulation" in capsys.readouterr().err


def test_check_prints_every_setting_and_marks_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    path = CONFIGS / "studies" / "chest-xray-phantom.yaml"
    assert run(["check", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path} is a valid study file"
    words = [line.split() for line in lines]
    assert ["seed", "1", "(default)"] in words
    assert ["task.classes", "[normal,", "opacity,", "nodule]"] in words
    assert ["model.convolutions[0].kernel", "3"] in words
    assert ["privacy.mechanism", "none", "(default)"] in words


def test_check_of_a_simulation_checks_its_study_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(CONFIGS / "simulations" / "chest-xray-phantom.yaml")]) == 0
    out = capsys.readouterr().out
    assert "is a valid simulation file" in out
    assert "chest-xray-phantom.yaml is a valid study file" in out


def test_check_of_a_site_and_of_a_given_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("name: '[red]a'\narchive: '[bold]x'\nlabels: l\nstate: s\n")
    assert run(["check", str(path)]) == 2
    assert f"{path}:1: name: got the text '[red]a'" in capsys.readouterr().err
    path.write_text("name: a\narchive: '[bold]x'\nlabels: l\nstate: s\n")
    assert run(["check", str(path)]) == 0
    assert "archive             [bold]x" in capsys.readouterr().out  # not taken for markup
    assert run(["check", str(path), "--kind", "study"]) == 2
    expected = f"error: {path}:1: got what looks like a site file; allowed: a study file\n"
    assert capsys.readouterr().err == expected


def test_files_of_another_kind_are_one_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    study, simulation = (CONFIGS / part / "chest-xray-phantom.yaml" for part in ("studies", "simulations"))
    assert run(["check", str(study), "--kind", "simulation"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "looks like a study file; allowed: a simulation file, which names the study file under 'study'"
    )
    assert run(["check", str(simulation), "--kind", "study"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("got what looks like a simulation file; allowed: a study file")


def test_one_value_where_a_list_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (CONFIGS / "simulations" / "chest-xray-phantom.yaml").read_text(encoding="utf-8")
    path = tmp_path / "s.yaml"
    path.write_text(text.replace("seeds: [1]", "seeds: 7"), encoding="utf-8")
    assert run(["check", str(path)]) == 2
    assert "seeds: got 7; allowed: list of" in (shown := capsys.readouterr().err)
    assert "did you mean [7]?" in shown


def test_check_shortens_long_texts_and_names_files_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(CONFIGS / "simulations" / "chest-xray-real.yaml")]) == 0
    out = capsys.readouterr().out
    assert str(CONFIGS / "studies" / "chest-xray-covid.yaml") + " is a valid study file" in out
    descriptions = [line for line in out.splitlines() if line.split()[:1] == ["description"]]
    assert len(descriptions) == 2
    assert all(line.endswith("…") and len(line) < 150 for line in descriptions)


def test_check_lists_every_mistake_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: a\nrouns: 3\n")
    assert run(["check", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0] == "error:"
    assert len(lines) == 8
    assert all(line.startswith(f"{path}:") for line in lines[1:])


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"task", "model"}, "study"),
        ({"partition"}, "simulation"),
        ({"study", "data"}, "simulation"),
        ({"archive"}, "site"),
        ({"name", "address"}, "consortium"),
        (set(), "study"),
    ],
)
def test_guess_kind(keys: set[str], kind: str) -> None:
    assert guess_kind(dict.fromkeys(keys)) == kind
