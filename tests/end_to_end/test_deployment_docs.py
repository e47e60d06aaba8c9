"""Both deployment documents, followed literally: every block of theirs is run, so they cannot drift.

Replaced is only what a reader replaces: host name, folders, the site's name, and what was read out by
telephone. Blocks marked ``admin`` need root, and are checked for what they name.
"""

import configparser
import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from followed_documents import (
    DOCUMENTS,
    PATIENCE_S,
    ROOT,
    SITES,
    Consortium,
    Person,
    sections_of,
    text_of,
)
from safetensors.torch import load_file

from fedcad.shared.cli import COMMANDS, CommandFamily, CommandSource, load_command

UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
WORDS_IN_A_QUARTER_OF_AN_HOUR = 3000
_COMMAND = re.compile(r"(?:^|`)fedcad (?:(server|client|study) )?([a-z]+)([^`\n]*)", re.MULTILINE)


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[Consortium]:
    made = Consortium(tmp_path)
    try:
        yield made
    finally:
        for person in reversed(made.everybody):
            person.leave()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_documents_followed_literally_end_with_a_finished_study(consortium: Consortium) -> None:
    coordinator, hospitals = consortium.coordinator, consortium.hospitals
    coordinator.follow("Install")
    consortium.mail_wheel()
    coordinator.follow("Make the consortium", only=0)
    require_own_installation(coordinator)
    consortium.use_free_ports()
    coordinator.follow("Make the consortium", only=1)
    for name, hospital in hospitals.items():
        hospital.follow("Install")
        consortium.mail_request(name, hospital.follow("Make the node and its request"))
        consortium.enrol("Take in a hospital", name)
        hospital.follow("Join")

    coordinator.follow("Start", only=0)
    consortium.until_listening()
    coordinator.follow("Start", only=1)
    coordinator.follow("Freeze and submit a study", only=0)  # the study file
    coordinator.follow("Freeze and submit a study", only=1)
    for hospital in hospitals.values():
        shutil.copy(coordinator.home / "trial.yaml", hospital.home)
        assert hospital.follow("Check: go or no-go").splitlines()[-1].startswith("GO")
        hospital.follow("Start", patience_s=PATIENCE_S)
    coordinator.follow("Freeze and submit a study", only=2)
    coordinator.follow("Watch and steer")
    coordinator.follow("Take the result")
    for hospital in hospitals.values():
        assert "verified" in hospital.follow("See the result")
        hospital.follow("Logs and disk")
    require_result(consortium)

    coordinator.follow("Change a study, or end it early")
    coordinator.follow("Back up and restore")
    coordinator.follow("Renew", only=0)
    consortium.mail_enrolment("north")
    hospitals["north"].follow("Renew")
    coordinator.follow("Renew", only=1)
    consortium.until_listening()
    coordinator.follow("Exclude a site", only=0)
    consortium.mail_request("north", hospitals["north"].follow("New keys"))
    consortium.enrol("Exclude a site", "north", only=1)
    hospitals["north"].follow("Renew")
    hospitals["north"].follow("Start", only=1, patience_s=PATIENCE_S)
    for person in consortium.everybody:
        person.follow("Remove")
    require_everything_done(consortium)


def require_own_installation(person: Person) -> None:
    """Fail where somebody uses this environment's FedCAD instead of the wheel that they installed."""
    code = "import fedcad.shared as found; print(list(found.__path__)[0])"
    assert person.run(f"python -c '{code}'", 0.0).startswith(person.replacements["/opt/fedcad"])


def require_result(consortium: Consortium) -> None:
    """Fail unless the study is complete, with every site in every round, and the sites have its model."""
    result = consortium.coordinator.home / "trial-result"
    participation = list(csv.DictReader((result / "participation.csv").open()))
    assert {(row["site"], row["status"]) for row in participation} == {(site, "counted") for site in SITES}
    assert len({row["round"] for row in participation}) == 3
    model = load_file(result / "model.safetensors")
    for hospital in consortium.hospitals.values():
        theirs = load_file(hospital.home / "trial-model.safetensors")
        assert theirs.keys() == model.keys()
        assert all(bool((theirs[name] == model[name]).all()) for name in model)


def require_everything_done(consortium: Consortium) -> None:
    """Fail where a document says something that nobody did."""
    for document, person in (
        ("coordinator", consortium.coordinator),
        ("hospital", consortium.hospitals["north"]),
    ):
        runnable = {
            title
            for title, blocks in sections_of(document).items()
            if any(block.mark != "admin" for block in blocks)
        }
        assert set(person.done) == runnable


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_is_read_in_a_quarter_of_an_hour(document: str) -> None:
    assert len(text_of(document).split()) <= WORDS_IN_A_QUARTER_OF_AN_HOUR


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_is_run_or_marked_as_the_administrators(document: str) -> None:
    for blocks in sections_of(document).values():
        for block in blocks:
            assert (block.language, block.mark) in {
                ("bash", ""),
                ("bash", "admin"),
                ("yaml", "trial.yaml"),
            }
            if block.mark == "admin":
                assert all(line.startswith("sudo ") for line in block.text.strip().splitlines())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_is_named_exists_with_its_options(document: str) -> None:
    """In tables and sentences too, where nothing is run."""
    named = _COMMAND.findall(text_of(document))
    assert len(named) > 10
    for family, word, rest in named:
        found = COMMANDS[family] if family else None
        table = found.commands if isinstance(found, CommandFamily) else COMMANDS
        source = table.get(word)
        if isinstance(source, CommandFamily) and rest.strip() == "--help":
            continue
        assert isinstance(source, CommandSource), f"fedcad {family} {word}"
        options = {name for option in load_command(word, source).params for name in option.opts}
        used = set(re.findall(r"(?<=\s)--[a-z-]+", rest)) - {"--help"}
        assert used <= options, f"fedcad {family} {word}: {used - options}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_names_exist(document: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", text_of(document))
    assert links
    for link in links:
        assert (ROOT / "docs" / link).resolve().is_file(), link
    for unit in re.findall(r"fedcad-[a-z]+\.service", text_of(document)):
        assert (ROOT / "deploy/systemd" / unit).is_file()


def test_the_study_of_the_document_is_a_study(tmp_path: Path) -> None:
    blocks = [block for blocks in sections_of("coordinator").values() for block in blocks]
    (study,) = [yaml.safe_load(block.text) for block in blocks if block.language == "yaml"]
    assert study["participation"]["quorum"] == len(SITES)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_unit_restarts_for_ever_and_is_confined(unit: Path) -> None:
    content = configparser.ConfigParser(strict=False, interpolation=None)
    content.optionxform = str  # type: ignore[assignment,method-assign]
    content.read_string(unit.read_text())
    service = content["Service"]
    assert content["Unit"]["StartLimitIntervalSec"] == "0"
    assert service["Restart"] == "always"
    assert service["User"] == "fedcad"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["ReadWritePaths"] == "/var/lib/fedcad"
    program, family, verb, folder = service["ExecStart"].split()
    assert program == "/opt/fedcad/bin/fedcad"
    assert f"fedcad {family} {verb} {folder}" in text_of("coordinator" if family == "server" else "hospital")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_has_nothing_to_object_to(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / unit.name
    program = Path(sys.executable).parent / "fedcad"
    copy.write_text(unit.read_text().replace("/opt/fedcad/bin/fedcad", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr
