"""From a validator's errors to sentences that a person can act on."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from fedcad.shared.config.schema import ROOTS
from fedcad.shared.config.shapes import Shape, dotted_paths, shape_of_field, shape_of_model
from fedcad.shared.config.yaml_document import Document, KeyPath, Problem
from fedcad.shared.errors import ConfigError

MOST_PROBLEMS_SHOWN = 50
_CLEARLY_MORE = 3
"""So many more known keys at the root, and a file is of another kind rather than full of slips."""
NEAR = 0.7
"""Similarity from which a word may be a slip of another: 'sise' of 'size', but not 'gpu' of 'cpu'."""
_YES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a validator's error is: key path, what is allowed there, and the union around it."""

    path: KeyPath
    shape: Shape | None
    parent: type[BaseModel] | None
    union: Shape | None


def refuse(document: Document, problems: Iterable[Problem]) -> ConfigError:
    """Return the one error that lists every problem of a file, in order of line."""
    ordered = sorted(problems, key=lambda problem: problem.line)
    shown = [
        f"{document.path}:{one.line}: {_where(one.path)}{one.text}" for one in ordered[:MOST_PROBLEMS_SHOWN]
    ]
    if len(ordered) > MOST_PROBLEMS_SHOWN:
        shown.append(f"{document.path}: and {len(ordered) - MOST_PROBLEMS_SHOWN} more problems")
    return ConfigError("\n".join(shown))


def problems_of(document: Document, model: type[BaseModel], error: ValidationError) -> list[Problem]:
    """Turn a validator's errors into problems with lines, leaving out echoes of other problems.

    Args:
        document: The file that was validated.
        model: The model of its root.
        error: What the validator found.

    Returns:
        One problem for each mistake in the file.
    """
    confused = _confused(document, model)
    if confused:
        return [Problem(document.line_of(()), (), confused)]
    details = error.errors(include_url=False, include_context=True)
    places = [_locate(model, detail["loc"]) for detail in details]
    known = {problem.path for problem in document.problems}
    problems = []
    for detail, place in zip(details, places, strict=True):
        # A list whose items are wrong also counts as too short.
        echo = detail["type"] == "too_short" and any(
            other.path[: len(place.path)] == place.path and len(other.path) > len(place.path)
            for other in places
        )
        if not echo and place.path not in known:
            problems.append(_problem(document, model, detail, place))
    return problems


def _confused(document: Document, model: type[BaseModel]) -> str:
    """Say so when the keys are those of another kind of file; empty otherwise."""
    known = {kind: len(root.model_fields.keys() & document.value.keys()) for kind, root in ROOTS.items()}
    wanted = next((kind for kind, root in ROOTS.items() if root is model), None)
    likely = max(known, key=known.__getitem__)
    if wanted is None or known[likely] < known[wanted] + _CLEARLY_MORE:
        return ""
    text = f"got what looks like a {likely} file; allowed: a {wanted} file"
    return f"{text}, which names the study file under 'study'" if wanted == "simulation" else text


def name_path(path: KeyPath) -> str:
    """Write a key path as people do: ``faults[0].rounds``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if re.fullmatch(r"[\w-]{1,64}", part) else repr(part[:64])
            text += f".{shown}" if text else shown
    return text


def _where(path: KeyPath) -> str:
    return f"{name_path(path)}: " if path else ""


def _locate(model: type[BaseModel], location: Sequence[str | int]) -> _Place:
    """Follow a validator's location through the models; its tags of unions are no keys of the file."""
    shape: Shape | None = shape_of_model(model)
    path: KeyPath = ()
    parent: type[BaseModel] | None = None
    union: Shape | None = None
    for part in location:
        if shape is None:
            path = (*path, part)
        elif shape.discriminator and part in shape.models:
            union, shape = shape, shape_of_model(shape.models[str(part)])
        elif shape.models:
            parent = next(iter(shape.models.values()))
            info = parent.model_fields.get(str(part))
            if parent not in (union.models.values() if union else ()):
                union = None
            path, shape = (*path, part), shape_of_field(info) if info else None
        else:
            path, shape, parent = (*path, part), shape.item, None
    return _Place(path=path, shape=shape, parent=parent, union=union)


def _problem(document: Document, model: type[BaseModel], detail: Any, place: _Place) -> Problem:
    kind, given = detail["type"], detail["input"]
    path, shape = place.path, place.shape
    if kind == "extra_forbidden" and place.parent:
        text = _unknown_key(model, place)
    elif kind == "missing" and shape:
        text = f"missing; allowed: {shape.text}"
    elif kind == "union_tag_not_found" and shape:
        path, text = _missing_tag(place.path, shape, given)
    elif kind == "union_tag_invalid" and shape:
        path = (*path, shape.discriminator)
        text = _wrong_value(given[shape.discriminator], _tag_shape(shape))
    elif kind == "value_error":
        path, text = _culprit(document, path, str(detail["ctx"]["error"]))
    elif shape:
        text = _wrong_value(given, shape)
    else:
        text = f"got {_given(given)}; {detail['msg']}"
    return Problem(document.line_of(path), path, text)


def _unknown_key(model: type[BaseModel], place: _Place) -> str:
    key = str(place.path[-1])
    allowed = list(place.parent.model_fields) if place.parent else []
    text = f"unknown key; allowed here: {', '.join(allowed)}"
    owners = (
        [tag for tag, one in place.union.models.items() if key in one.model_fields] if place.union else []
    )
    if owners and place.union:
        return f"{text}; {key!r} belongs to {place.union.discriminator} {' or '.join(owners)}"
    near = nearest(key, allowed)
    if not near:
        elsewhere = [".".join(path) for path in dotted_paths(model) if path[-1] == key]
        near = elsewhere[0] if elsewhere else ""
    return f"{text}; did you mean {near!r}?" if near else text


def _missing_tag(path: KeyPath, shape: Shape, given: Mapping[str, Any]) -> tuple[KeyPath, str]:
    text = f"missing; allowed: {_tag_shape(shape).text}"
    near = nearest(shape.discriminator, [str(key) for key in given])
    if near:
        text += f"; did you mean {shape.discriminator!r} instead of {near!r}?"
    return (*path, shape.discriminator), text


def _tag_shape(shape: Shape) -> Shape:
    choices = tuple(shape.models)
    return Shape(text=f"one of: {', '.join(choices)}", scalar=str, choices=choices)


def _wrong_value(given: Any, shape: Shape) -> str:
    text = f"got {_given(given)}; allowed: {shape.text}"
    meant = _meant(given, shape)
    return f"{text}; did you mean {meant}?" if meant else text


def _meant(given: Any, shape: Shape) -> str:
    """Guess the value that was meant; empty when there is no good guess."""
    if shape.choices and isinstance(given, str):
        near = nearest(given, shape.choices)
        return repr(near) if near else ""
    if shape.item and isinstance(given, str):
        fits = not shape.item.choices or given in shape.item.choices
        return f"[{given}]" if fits and shape.item.scalar is str and len(given) < 60 else ""
    if shape.item and shape.item.scalar is int and type(given) is int:
        return f"[{given}]"
    if shape.scalar is bool and isinstance(given, str):
        return _YES.get(given.lower(), "")
    if shape.scalar is str and isinstance(given, str | int | float):
        return _text_meant(given, shape.pattern)
    if shape.scalar in (int, float) and isinstance(given, str | float):
        return _number_meant(given, whole=shape.scalar is int)
    return ""


def _text_meant(given: str | float, pattern: str) -> str:
    """Guess text: a number in quotation marks, or a name without capitals and blanks."""
    text = str(given).lower() if isinstance(given, bool) else str(given)
    if pattern:
        text = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
    return repr(text) if re.fullmatch(pattern or ".*", text) else ""


def _number_meant(given: str | float, *, whole: bool) -> str:
    try:
        value = float(given)
    except ValueError:
        return ""
    if whole:
        return f"{int(value)}" if value.is_integer() and abs(value) < 1e15 else ""
    return f"{value:g}" if isinstance(given, str) and abs(value) < 1e15 else ""


def _given(value: Any) -> str:
    """Describe what a file holds, shortly."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:57] + '...'!r}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "an empty list" if not value else f"a list of {len(value)}"
    return f"{value}"


def _culprit(document: Document, path: KeyPath, text: str) -> tuple[KeyPath, str]:
    """Narrow a rule about a whole mapping down to the key that its sentence starts with."""
    first = re.match(r"[a-z_0-9]+(?:\.[a-z_0-9]+)*", text)
    narrowed = (*path, *first.group().split(".")) if first else path
    if not first or narrowed not in document.lines:
        return path, text
    rest = text[first.end() :]
    return narrowed, rest.lstrip() if re.match(r" [\w']", rest) else text


def nearest(word: str, words: Iterable[str]) -> str:
    """Return the most similar word, or an empty text when none is similar."""
    lowered = {candidate.lower().replace("_", "-"): candidate for candidate in words}
    found = difflib.get_close_matches(word.lower().replace("_", "-"), list(lowered), n=1, cutoff=NEAR)
    return lowered[found[0]] if found else ""
