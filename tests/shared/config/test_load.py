from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import fedcad.configs
from fedcad.shared.config.load import load_simulation, load_simulation_with_study, load_site, load_study
from fedcad.shared.config.models import ConfigurableCNN, ModelConfig
from fedcad.shared.config.shapes import dotted_paths
from fedcad.shared.config.simulation import DataSetConfig, SimulationConfig
from fedcad.shared.config.study import AlgorithmConfig, StudyConfig
from fedcad.shared.errors import ConfigError

CONFIGS = Path(fedcad.configs.__path__[0])

STUDY = """\
name: small
task:
  kind: classification
  classes: [normal, opacity]
preprocessing:
  size: 64
model:
  name: cnn
  convolutions:
    - {features: 8}
training:
  optimizer:
    learning_rate: 1e-3
  batch_size: 4
  local_epochs: 1
algorithm:
  name: fedavg
rounds: 2
"""

SIMULATION = """\
name: small
study: study.yaml
data:
  kind: phantom
  patients: 60
  classes: [normal, opacity]
partition:
  kind: iid
  sites: 3
"""


def write(folder: Path, text: str, name: str = "study.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(load: Callable[[Path], object], path: Path) -> list[str]:
    """Return the message's lines without the path of the file."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [line.replace(f"{path}:", "F:") for line in str(caught.value).splitlines()]


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def test_a_study_loads_into_frozen_values(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, STUDY))
    assert study.task.classes == ("normal", "opacity")
    assert study.training.optimizer.learning_rate == 1e-3
    assert isinstance(study.model, ConfigurableCNN)
    assert study.model.convolutions[0].features == 8
    assert study.participation.deadline_s == 3600.0


def test_whole_numbers_stand_for_numbers_and_become_floats(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, changed(STUDY, "1e-3", "1")))
    assert study.training.optimizer.learning_rate == 1.0
    assert isinstance(study.training.optimizer.learning_rate, float)


ROUNDS = "integer, at least 1 and at most 100000"
STUDY_KEYS = (
    "name, description, seed, task, data, preprocessing, augmentation, model, training, algorithm, rounds, "
    "exchange, participation, privacy, evaluation"
)
CNN_KEYS = "name, convolutions, pooling, fully_connected, norm, activation, dropout, global_pooling"


def choices(union: Any, key: str) -> str:
    """Return the values of a union's discriminator, so that a new network or data set changes no test."""
    members = get_args(get_args(union)[0])
    return ", ".join(get_args(member.model_fields[key].annotation)[0] for member in members)


KINDS = choices(DataSetConfig, "kind")
NETWORKS = choices(ModelConfig, "name")
ALGORITHMS = choices(AlgorithmConfig, "name")
NO_FILE = "which is not a file; allowed: the path of a study file, relative to this file"
NAME = "name (1 to 64 of a-z, 0-9, '.', '_', '-'; the first a letter or digit)"


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        (
            "  size: 64",
            "  sise: 64",
            [
                "F:5: preprocessing.size: missing; allowed: integer, at least 16 and at most 2048",
                "F:6: preprocessing.sise: unknown key; allowed here: size, crop_top, square, intensity; "
                "did you mean 'size'?",
            ],
        ),
        (
            "rounds: 2",
            "rounds: 2\nbatch_size: 4",
            [
                f"F:19: batch_size: unknown key; allowed here: {STUDY_KEYS}; "
                "did you mean 'training.batch_size'?",
            ],
        ),
        ("rounds: 2", "", [f"F:1: rounds: missing; allowed: {ROUNDS}"]),
        (
            "rounds: 2",
            "rounds: '2'",
            [f"F:18: rounds: got the text '2'; allowed: {ROUNDS}; did you mean 2?"],
        ),
        ("rounds: 2", "rounds: true", [f"F:18: rounds: got true; allowed: {ROUNDS}"]),
        (
            "rounds: 2",
            "rounds: 2.0",
            [f"F:18: rounds: got 2.0; allowed: {ROUNDS}; did you mean 2?"],
        ),
        ("rounds: 2", "rounds: 0", [f"F:18: rounds: got 0; allowed: {ROUNDS}"]),
        (
            "rounds: 2",
            "rounds:",
            [f"F:18: rounds: got nothing; allowed: {ROUNDS}"],
        ),
        (
            "rounds: 2",
            "rounds: 2\nrounds: 3",
            ["F:19: rounds: given twice (first in line 18); allowed: once; remove one"],
        ),
        (
            "1e-3",
            "true",
            ["F:13: training.optimizer.learning_rate: got true; allowed: number, above 0 and at most 10"],
        ),
        (
            "1e-3",
            "'1e-3'",
            [
                "F:13: training.optimizer.learning_rate: got the text '1e-3'; "
                "allowed: number, above 0 and at most 10; did you mean 0.001?"
            ],
        ),
        ("1e-3", ".nan", ["F:13: training.optimizer.learning_rate: got .nan; allowed: a finite number"]),
        (
            "name: small",
            "name: My Study",
            [f"F:1: name: got the text 'My Study'; allowed: {NAME}; did you mean 'my-study'?"],
        ),
        (
            "[normal, opacity]",
            "[normal, 1]",
            [f"F:4: task.classes[1]: got 1; allowed: {NAME}; did you mean '1'?"],
        ),
        (
            "[normal, opacity]",
            "[normal, normal]",
            ["F:4: task.classes: must be distinct; remove the repeated name"],
        ),
        (
            "  name: cnn",
            "  name: cn",
            [f"F:8: model.name: got the text 'cn'; allowed: one of: {NETWORKS}; did you mean 'cnn'?"],
        ),
        (
            "  name: cnn",
            "  nme: cnn",
            [f"F:7: model.name: missing; allowed: one of: {NETWORKS}; did you mean 'name' instead of 'nme'?"],
        ),
        (
            "  name: cnn",
            "  name: cnn\n  form: small",
            [f"F:9: model.form: unknown key; allowed here: {CNN_KEYS}; 'form' belongs to name covid-net"],
        ),
        (
            "    - {features: 8}",
            "    - {features: 8}\n    - 3",
            ["F:11: model.convolutions[1]: got 3; allowed: mapping with the keys features, kernel, stride"],
        ),
        (
            "  convolutions:\n    - {features: 8}",
            "  convolutions: []",
            [
                "F:9: model.convolutions: got an empty list; "
                "allowed: list of at least 1 and at most 32 mappings with the keys features, kernel, stride"
            ],
        ),
        (
            "    - {features: 8}",
            "    - {features: 0}",
            ["F:10: model.convolutions[0].features: got 0; allowed: integer, at least 1 and at most 4096"],
        ),
        (
            "algorithm:\n  name: fedavg",
            "algorithm: fedavg",
            [f"F:16: algorithm: got the text 'fedavg'; allowed: mapping whose name is one of: {ALGORITHMS}"],
        ),
        (
            "algorithm:\n  name: fedavg",
            "algorithm:\n  name: fedprox",
            ["F:16: algorithm.proximal_mu: missing; allowed: number, above 0 and at most 1000"],
        ),
        (
            "  local_epochs: 1",
            "  local_epochs: 1\n  local_steps: 5",
            ["F:11: training: give exactly one of local_epochs and local_steps"],
        ),
        (
            "rounds: 2",
            "rounds: 2\nprivacy: {mechanism: patient}",
            ["F:19: privacy.mechanism: 'patient' is not yet available in this version; only 'none' is"],
        ),
        (
            "rounds: 2",
            "rounds: 2\naugmentation: {horizontal_flip: no}",
            [
                "F:19: augmentation.horizontal_flip: got the text 'no'; "
                "allowed: true or false; did you mean false?"
            ],
        ),
        (
            "rounds: 2",
            "rounds: 2\ndata: {modalities: CR}",
            [
                "F:19: data.modalities: got the text 'CR'; "
                "allowed: list of at least 1 values, each one of: CR, DX; did you mean [CR]?"
            ],
        ),
        (
            "rounds: 2",
            "rounds: 2\ndata: {split: {train: 0.9}}",
            ["F:19: data.split.train: train + validation + test is 1.3; it must be 1"],
        ),
    ],
)
def test_a_wrong_study_is_refused_in_exact_words(
    tmp_path: Path, old: str, new: str, messages: list[str]
) -> None:
    path = write(tmp_path, changed(STUDY, old, new))
    assert refusal(load_study, path) == messages


def test_a_rule_between_sections_names_the_key(tmp_path: Path) -> None:
    path = write(tmp_path, changed(STUDY, "  batch_size: 4", "  batch_size: 4\n  class_weights: [1, 2, 3]"))
    assert refusal(load_study, path) == [
        "F:15: training.class_weights: has 3 values for 2 classes; give one for each class, or none"
    ]


def test_every_problem_is_listed_in_order_of_line(tmp_path: Path) -> None:
    text = changed(changed(STUDY, "rounds: 2", "rounds: -1\nprivcy: {}"), "size: 64", "size: big")
    lines = refusal(load_study, write(tmp_path, text))
    assert [line.split(": ")[:2] for line in lines] == [
        ["F:6", "preprocessing.size"],
        ["F:18", "rounds"],
        ["F:19", "privcy"],
    ]


def test_a_flood_of_problems_is_cut(tmp_path: Path) -> None:
    path = write(tmp_path, STUDY + "".join(f"unknown{number}: 1\n" for number in range(60)))
    lines = refusal(load_study, path)
    assert len(lines) == 51
    assert lines[-1] == "F: and 10 more problems"


def test_hostile_keys_are_shown_shortened_and_quoted(tmp_path: Path) -> None:
    (line,) = refusal(load_study, write(tmp_path, STUDY + f'"{"k" * 500} [bold]": 1\n'))
    assert line.startswith(f"F:19: '{'k' * 64}': unknown key")


def test_simulation_alone_does_not_open_the_study(tmp_path: Path) -> None:
    simulation = load_simulation(write(tmp_path, SIMULATION, "simulation.yaml"))
    assert simulation.study == "study.yaml"


def test_simulation_with_study(tmp_path: Path) -> None:
    write(tmp_path, STUDY)
    simulation, study = load_simulation_with_study(write(tmp_path, SIMULATION, "simulation.yaml"))
    assert (simulation.name, study.name) == ("small", "small")
    assert simulation.seeds == (1,)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "study: study.yaml",
            "study: absent.yaml",
            f"F:2: study: got 'absent.yaml', {NO_FILE}",
        ),
        (
            "study: study.yaml",
            "study: .",
            f"F:2: study: got '.', {NO_FILE}",
        ),
        (
            "[normal, opacity]",
            "[normal, nodule]",
            "F:6: data.classes: got normal, nodule; the study's task.classes are normal, opacity; "
            "name the same classes in both",
        ),
        (
            "  classes: [normal, opacity]\n",
            "",
            "F:3: data.classes: got normal, opacity, nodule; the study's task.classes are normal, opacity; "
            "name the same classes in both",
        ),
    ],
)
def test_simulation_against_study(tmp_path: Path, old: str, new: str, message: str) -> None:
    write(tmp_path, STUDY)
    path = write(tmp_path, changed(SIMULATION, old, new), "simulation.yaml")
    assert refusal(load_simulation_with_study, path) == [message]


def test_mistakes_in_the_named_study_name_the_study_file(tmp_path: Path) -> None:
    study = write(tmp_path, changed(STUDY, "rounds: 2", "rounds: 0"))
    path = write(tmp_path, SIMULATION, "simulation.yaml")
    with pytest.raises(ConfigError) as caught:
        load_simulation_with_study(path)
    assert str(caught.value).startswith(f"{study}:18: rounds: got 0")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "{kind: fantom, patients: 3}",
            f"F:3: data.kind: got the text 'fantom'; allowed: one of: {KINDS}; did you mean 'phantom'?",
        ),
        (
            "{kind: image-folder, images_per_patient: 3}",
            "F:3: data.images_per_patient: unknown key; allowed here: kind, pattern, "
            "exclude; 'images_per_patient' belongs to kind phantom",
        ),
        ("{kind: medmnist, classes: [a, b]}", "F:3: data.file: missing; allowed: text"),
        ("3", f"F:3: data: got 3; allowed: mapping whose kind is one of: {KINDS}"),
    ],
)
def test_data_kinds_are_judged_by_their_own_branch(tmp_path: Path, data: str, message: str) -> None:
    text = f"name: a\nstudy: b\ndata: {data}\npartition: {{kind: folder}}\n"
    assert refusal(load_simulation, write(tmp_path, text)) == [message]


def test_site(tmp_path: Path) -> None:
    text = "name: a\narchive: dicom\nlabels: labels.csv\nstate: state\n"
    assert load_site(write(tmp_path, text)).archive == "dicom"
    (problem,) = refusal(load_site, write(tmp_path, text + "device: gpu\n"))
    assert problem.startswith("F:5: device: ")


@pytest.mark.parametrize("path", sorted((CONFIGS / "studies").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_studies_load_and_name_their_schema(path: Path) -> None:
    load_study(path)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=../schemas/study.schema.json"


@pytest.mark.parametrize("path", sorted((CONFIGS / "simulations").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_simulations_load_and_name_their_schema(path: Path) -> None:
    load_simulation_with_study(path)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=../schemas/simulation.schema.json"


def test_configs_are_shipped() -> None:
    assert len(list((CONFIGS / "studies").glob("*.yaml"))) >= 2
    assert len(list((CONFIGS / "simulations").glob("*.yaml"))) >= 2


def accept_or_refuse(folder: Path, text: str) -> None:
    """A model or ConfigError; any other exception fails the test."""
    path = folder / "fuzz.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for load in (load_study, load_simulation, load_site, load_simulation_with_study):
        try:
            load(path)
        except ConfigError as error:
            str(error).encode("utf-8")


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(text="{}: ")
@example(text="? [a]\n: b\n")
@example(text="%YAML 1." + "9" * 5000 + "\n---\na: 1")
@example(text='a: "\\UFFFFFFFF"')
@example(text="a: !!float x")
@example(text="study: '\\0'\nname: a")
@example(text="a: \ud800")
@given(text=st.text() | st.text("abk:-[]{}#&*!|>'\"%@`\n\t ,?0123456789.eE~\\<=\r\ufeff", max_size=60))
def test_any_text_is_accepted_or_refused(tmp_path: Path, text: str) -> None:
    accept_or_refuse(tmp_path, text)


WORDS = sorted({path[-1] for model in (StudyConfig, SimulationConfig) for path in dotted_paths(model)})
VALUES = st.recursive(
    st.sampled_from(["cnn", "fedavg", "phantom", "iid", "classification", "a", "", "study.yaml"])
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=10,
)


def mutate(value: object, draw: st.DrawFn) -> object:
    """Change one place of a valid file, at any depth."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: mutate(value[key], draw)}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        return [mutate(value[0], draw), *value[1:]]
    if isinstance(value, dict):
        return {**value, draw(st.sampled_from(WORDS)): draw(VALUES)}
    return draw(VALUES)


@st.composite
def nearly_right(draw: st.DrawFn) -> str:
    base = yaml.safe_load(draw(st.sampled_from([STUDY, SIMULATION])))
    for _ in range(draw(st.integers(1, 3))):
        base = mutate(base, draw)
    return yaml.safe_dump(base, allow_unicode=True)


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=nearly_right())
def test_files_that_are_nearly_right_are_accepted_or_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    accept_or_refuse(tmp_path, text)


@pytest.mark.parametrize("path", sorted((CONFIGS / "studies").glob("*.yaml")), ids=lambda path: path.name)
def test_a_resolved_study_loads_as_the_same_study(tmp_path: Path, path: Path) -> None:
    study = load_study(path)
    resolved = write(tmp_path, yaml.safe_dump(study.model_dump(mode="json")))
    assert load_study(resolved) == study
