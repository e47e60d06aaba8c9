from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fedcad.shared.errors import ConfigError
from fedcad.shared.models.cli import models
from fedcad.shared.models.registry import NETWORKS

STUDY = """\
name: small-study
task: {kind: classification, classes: [normal, pneumonia]}
preprocessing: {size: 64}
model:
  name: cnn
  convolutions: [{features: 8}, {features: 16}]
training:
  optimizer: {name: sgd, learning_rate: 0.1}
  batch_size: 4
  local_steps: 2
algorithm: {name: fedavg}
rounds: 1
"""


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    app.command()(models)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_all_networks_are_listed_with_parameters(run):
    result = run()
    assert result.exit_code == 0
    for name in NETWORKS:
        assert name in result.output
    assert "11,171,779" in result.output


def test_a_study_shows_its_layers_and_totals(run, tmp_path: Path):
    study = tmp_path / "study.yaml"
    study.write_text(STUDY, encoding="utf-8")
    result = run(study)
    assert result.exit_code == 0, result.output
    assert "small-study: cnn, 1 × 64 × 64 pixels, 2 classes" in result.output
    assert "16 × 32 × 32" in result.output
    # 72 + 16 + 1152 + 32 + 34 parameters; 64²·8·9 + 32²·16·72 + 32 multiply-accumulates
    assert "1,306" in result.output
    assert f"{64**2 * 72 + 32**2 * 16 * 72 + 32:,}" in result.output


def test_a_networks_name_is_told_from_a_file(run, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    for name in NETWORKS:
        error = run(name).exception
        assert isinstance(error, ConfigError)
        assert f"model: {{name: {name}}}" in str(error)
    assert "no such file" in str(run("covid-nets").exception)
    Path("cnn").write_text(STUDY, encoding="utf-8")
    assert "small-study: cnn" in run("cnn").output


def test_help_says_what_it_does(run):
    result = run("--help")
    assert result.exit_code == 0
    assert "List the networks that a study can name" in result.output
