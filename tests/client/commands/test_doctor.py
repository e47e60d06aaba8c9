"""The command as a hospital's IT calls it."""

import json

import pytest
import typer
from typer.testing import CliRunner

from fedcad.client.commands.doctor import doctor

APP = typer.Typer()
APP.command()(doctor)


def test_no_go_is_exit_code_1_and_the_last_line(tmp_path):
    result = CliRunner().invoke(APP, [str(tmp_path)])
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "NO-GO: 2 problems"
    assert "FAILED   enrolment" in result.stdout
    assert "--study FILE" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines() if str(tmp_path) not in line) <= 80


def test_json_alone_is_on_standard_output(tmp_path):
    result = CliRunner().invoke(APP, [str(tmp_path), "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["go"] is False
    assert report["problems"] == sum(check["verdict"] == "failed" for check in report["checks"]) == 2


@pytest.mark.parametrize("words", [["absent"], ["."], ["--study", "x.yaml"]])
def test_mistakes_of_the_call(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(APP, words)
    assert (result.exit_code == 2) == (words != ["."])
