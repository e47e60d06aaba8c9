"""Questions that commands ask a person, and how fingerprints are shown to be read out."""

import sys

import typer

from fedcad.shared.errors import ConfigError

_HALF_OF_A_FINGERPRINT = 39


def ask_yes(question: str, *, otherwise: str) -> None:
    """Ask a person, and go on only after a yes.

    Args:
        question: The question.
        otherwise: What a script, where nobody can answer, gives instead.

    Raises:
        ConfigError: Nobody is there to answer, or the answer was no.
    """
    if not is_somebody_there():
        raise ConfigError(f"nobody is there to answer: {question} In a script, {otherwise}")
    if not typer.confirm(question):
        raise ConfigError("the answer was no; nothing was changed")


def ask(question: str, flag: str, default: str | None = None) -> str:
    """Ask a person for a text.

    Args:
        question: The question.
        flag: The command's flag that answers it.
        default: The answer where none is given.

    Raises:
        ConfigError: Nobody is there to answer.
    """
    if not is_somebody_there():
        raise ConfigError(f"{flag} is missing, and nobody is there to ask for it")
    answer: str = typer.prompt(question, default=default)
    return answer.strip()


def is_somebody_there() -> bool:
    """Whether a person sits at the terminal."""
    return sys.stdin.isatty()


def to_read_out(fingerprint: str) -> str:
    """Return a fingerprint as two indented lines of eight groups."""
    first, second = fingerprint[:_HALF_OF_A_FINGERPRINT], fingerprint[_HALF_OF_A_FINGERPRINT + 1 :]
    return f"  {first}\n  {second}"


def printable(text: str) -> str:
    """Return text that others wrote, without characters that steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
