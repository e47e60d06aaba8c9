import pytest

from fedcad.shared import dialogue
from fedcad.shared.dialogue import ask, ask_yes, printable, to_read_out
from fedcad.shared.errors import ConfigError
from fedcad.shared.signing import fingerprint_of


def test_nobody_at_the_terminal_is_told_what_a_script_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogue, "is_somebody_there", lambda: False)
    with pytest.raises(ConfigError, match="Sure\\? In a script, give --yes"):
        ask_yes("Sure?", otherwise="give --yes.")
    with pytest.raises(ConfigError, match="--name is missing"):
        ask("Name", "--name")


@pytest.mark.parametrize(("answer", "goes_on"), [("y", True), ("n", False), ("", False)])
def test_only_yes_goes_on(answer: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogue, "is_somebody_there", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: answer)
    if goes_on:
        ask_yes("Sure?", otherwise="give --yes.")
        return
    with pytest.raises(ConfigError, match="nothing was changed"):
        ask_yes("Sure?", otherwise="give --yes.")


def test_an_answer_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialogue, "is_somebody_there", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: " north ")
    assert ask("Name", "--name") == "north"


def test_a_fingerprint_is_shown_in_two_lines_of_eight_groups() -> None:
    text = fingerprint_of(b"abc")
    lines = to_read_out(text).split("\n")
    assert [len(line.split()) for line in lines] == [8, 8]
    assert " ".join(" ".join(lines).split()) == text


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    assert printable("left\x1b[2J\r\n\u202e é") == "left?[2J??? é"
