"""What a configuration model allows at each place, in words and as data.

Error messages, the reference and suggestions all read the models through this one view, so that they cannot
disagree with what is validated.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_PATTERNS = {
    r"^[a-z0-9][a-z0-9._-]{0,63}$": (
        "name (1 to 64 of a-z, 0-9, '.', '_', '-'; the first a letter or digit)"
    ),
}
_SCALARS: dict[Any, str] = {bool: "true or false", int: "integer", float: "number", str: "text"}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is allowed at one place.

    Attributes:
        text: In words, for instance ``integer, at least 1``.
        scalar: The Python type of a single value, else None.
        choices: The values allowed, where they are listed.
        item: Shape of the items, where this is a list.
        models: The mappings allowed, by tag; a single model without a tag stands under the empty tag.
        discriminator: The key whose value is the tag; empty where there is only one model.
        pattern: Regular expression that text must match; empty for any.
    """

    text: str
    scalar: type | None = None
    choices: tuple[str, ...] = ()
    item: "Shape | None" = None
    models: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    discriminator: str = ""
    pattern: str = ""


def shape_of_model(model: type[BaseModel]) -> Shape:
    """Return the shape of a mapping that one model validates."""
    return Shape(text=f"mapping with the keys {', '.join(model.model_fields)}", models={"": model})


def shape_of_field(info: FieldInfo) -> Shape:
    """Return the shape of a model's field."""
    discriminator = info.discriminator if isinstance(info.discriminator, str) else ""
    return _shape(info.annotation, list(info.metadata), discriminator)


def dotted_paths(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield every key of a model and of the mappings inside it, depth first."""
    for name, info in model.model_fields.items():
        yield (*prefix, name)
        for inner in shape_of_field(info).models.values():
            yield from dotted_paths(inner, (*prefix, name))


def _shape(annotation: Any, metadata: list[Any], discriminator: str) -> Shape:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        return _annotated(inner, [*extra, *metadata], discriminator)
    if origin in (Union, UnionType):
        return _union(get_args(annotation), metadata, discriminator)
    if origin is Literal:
        return _literal(tuple(str(value) for value in get_args(annotation)))
    if origin is tuple:
        item = _shape(get_args(annotation)[0], [], "")
        return Shape(text=f"list of{_count(metadata)} {_plural(item)}", item=item)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return shape_of_model(annotation)
    return _scalar(annotation, metadata)


def _annotated(inner: Any, extra: list[Any], discriminator: str) -> Shape:
    metadata: list[Any] = []
    for one in extra:
        if isinstance(one, FieldInfo):
            metadata.extend(one.metadata)
            discriminator = str(one.discriminator or discriminator)
        else:
            metadata.append(one)
    return _shape(inner, metadata, discriminator)


def _union(members: tuple[Any, ...], metadata: list[Any], discriminator: str) -> Shape:
    rest = [member for member in members if member is not NoneType]
    if len(rest) == 1:
        inner = _shape(rest[0], metadata, discriminator)
        return replace(inner, text=f"{inner.text}, or null")
    models = {
        str(tag): model for model in rest for tag in get_args(model.model_fields[discriminator].annotation)
    }
    text = f"mapping whose {discriminator} is one of: {', '.join(models)}"
    return Shape(text=text, models=models, discriminator=discriminator)


def _literal(choices: tuple[str, ...]) -> Shape:
    text = f"one of: {', '.join(choices)}" if len(choices) > 1 else f"{choices[0]}"
    return Shape(text=text, scalar=str, choices=choices)


def _scalar(annotation: Any, metadata: list[Any]) -> Shape:
    pattern = next((str(one.pattern) for one in metadata if getattr(one, "pattern", None)), "")
    text = _PATTERNS.get(pattern, f"text matching {pattern}") if pattern else _SCALARS[annotation]
    limits = _limits(metadata, "characters" if annotation is str else "")
    return Shape(text=f"{text}, {limits}" if limits else text, scalar=annotation, pattern=pattern)


def _limits(metadata: list[Any], unit: str) -> str:
    """Say the bounds in words."""
    words = (
        ("ge", "at least"),
        ("gt", "above"),
        ("min_length", "at least"),
        ("le", "at most"),
        ("lt", "below"),
        ("max_length", "at most"),
    )
    found = [
        f"{word} {getattr(one, name):g}"
        if isinstance(getattr(one, name), float)
        else f"{word} {getattr(one, name)}"
        for name, word in words
        for one in metadata
        if getattr(one, name, None) is not None
    ]
    text = " and ".join(found)
    return f"{text} {unit}" if text and unit else text


def _count(metadata: list[Any]) -> str:
    limits = _limits(metadata, "")
    return f" {limits}" if limits else ""


def _plural(item: Shape) -> str:
    if item.models:
        return f"mappings with the keys {', '.join(next(iter(item.models.values())).model_fields)}"
    if item.scalar is str and not item.pattern and not item.choices:
        return "texts"
    return f"values, each {item.text}"
