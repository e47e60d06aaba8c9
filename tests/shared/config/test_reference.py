import re

from fedcad.shared.config.reference import reference_markdown
from fedcad.shared.config.shapes import dotted_paths
from fedcad.shared.config.simulation import SimulationConfig
from fedcad.shared.config.study import StudyConfig


def test_every_key_has_a_row() -> None:
    text = reference_markdown()
    for model in (StudyConfig, SimulationConfig):
        for path in dotted_paths(model):
            assert f"| `{path[-1]}` |" in text, path


def test_rows_say_what_is_allowed_and_the_default() -> None:
    text = reference_markdown()
    assert "| `rounds` | integer, at least 1 and at most 100000 | *required* | Number of rounds. |" in text
    assert '| `selection` | `best_validation`, `last_round` | `"best_validation"` |' in text
    assert "| `convolutions` | list of at least 1 and at most 32 mappings, see below | *required* |" in text
    assert "| `workers` | integer, at least 1 and at most 1024, or null | absent |" in text


def test_every_branch_and_list_has_a_section() -> None:
    headings = re.findall(r"^### (.*)$", reference_markdown(), flags=re.M)
    assert "`model` with name: covid-net" in headings
    assert "`model.convolutions[]`" in headings
    assert "`algorithm.server_optimizer`" in headings
    assert "`faults[]`" in headings
    assert len(headings) == len(set(headings))


def test_tables_are_rectangular() -> None:
    for line in reference_markdown().splitlines():
        if line.startswith("| `"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5, line


def test_links_of_the_introduction_lead_to_headings() -> None:
    text = reference_markdown()
    for anchor in re.findall(r"\]\(#([a-z-]+)\)", text):
        assert f"## {anchor.replace('-', ' ').capitalize()}" in text
