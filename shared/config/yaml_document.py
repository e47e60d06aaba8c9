"""One YAML file read once: plain values, the line of every key, and what the file itself does wrong.

The dialect is the JSON-like heart of YAML 1.2 (core schema, section 10.3.2), because YAML 1.1 surprises:
``1e-3`` is a number here and ``no``, ``off``, ``1:30`` and ``2024-01-01`` are text. Whatever could make a
small file large or run code (anchors, aliases, merge keys, tags) is refused.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from fedcad.shared.errors import ConfigError

KeyPath = tuple[str | int, ...]

LARGEST_FILE_BYTES = 1_000_000
DEEPEST_NESTING = 32
LARGEST_INTEGER = 2**63 - 1

_NULL = r"~|null|Null|NULL|"
_BOOLEAN = r"true|True|TRUE|false|False|FALSE"
_INTEGER = r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
_NUMBER = (
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
# Control characters and halves of surrogate pairs survive YAML's escapes but no file name, log or JSON.
_UNUSABLE_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file.

    Attributes:
        line: Line in the file, counted from 1.
        path: Where: keys and list positions from the root; empty for the file as a whole.
        text: What was given, what is allowed and, where one is near, what may have been meant.
    """

    line: int
    path: KeyPath
    text: str


@dataclass(frozen=True)
class Document:
    """A parsed file.

    Attributes:
        path: The file, as it was named by the caller.
        value: Its root mapping in plain Python values.
        lines: Line of each key and list item, counted from 1; the root is the empty path.
        problems: What the text itself does wrong (duplicate keys, unusable numbers), in order of line.
    """

    path: Path
    value: dict[str, Any]
    lines: Mapping[KeyPath, int]
    problems: tuple[Problem, ...]

    def line_of(self, path: KeyPath) -> int:
        """Return the line of a key, or of the nearest parent that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_document(path: Path) -> Document:
    """Read and parse one YAML file.

    Raises:
        ConfigError: The file cannot be read, is larger than 1 MB, is not UTF-8, is empty, is not YAML, nests
            deeper than 32 levels, uses tags, anchors or aliases, or is not a mapping of keys.
    """
    text = _read_text(path)
    root = _compose(path, text)
    if root is None or _is_nothing(root):
        raise ConfigError(f"{path}: the file is empty; allowed: a mapping of keys, such as 'name: my-study'")
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        raise ConfigError(
            f"{path}:{_line(root)}: got {kind}; allowed: a mapping of keys, such as 'name: my-study'"
        )
    reader = _Reader()
    value = reader.mapping(root, ())
    return Document(path, value, reader.lines, tuple(reader.problems))


class _Loader(yaml.SafeLoader):
    """PyYAML's parser without YAML 1.1's types, and without anything that expands."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        refusal = _refusal_of(event)
        if self._depth >= DEEPEST_NESTING:
            refusal = f"nested deeper than {DEEPEST_NESTING} levels; allowed: less"
        if refusal:
            raise yaml.MarkedYAMLError(problem=refusal, problem_mark=event.start_mark)
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}  # its own, not YAML 1.1's
for _tag, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOLEAN, list("tTfF")),
    ("int", _INTEGER, list("-+0123456789")),
    ("float", _NUMBER, list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})\Z"), _first)


def _refusal_of(event: Any) -> str:
    """Say why an event is not allowed in a configuration file; empty if it is."""
    if isinstance(event, yaml.AliasEvent):
        return f"got the alias *{event.anchor}; allowed: the value written out (no anchors and aliases)"
    if getattr(event, "anchor", None) is not None:
        return f"got the anchor &{event.anchor}; allowed: plain values (no anchors and aliases)"
    if getattr(event, "tag", None) is not None:
        return f"got the tag {event.tag!r}; allowed: plain values (no tags)"
    return ""


def _read_text(path: Path) -> str:
    """Read a regular file as UTF-8; refuse everything else by name."""
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: got a folder; allowed: a YAML file")
        if not path.exists():
            raise ConfigError(f"{path}: no such file; allowed: an existing YAML file{_nearest_file(path)}")
        if not path.is_file():
            raise ConfigError(f"{path}: not a regular file; allowed: a YAML file")
        with path.open("rb") as stream:
            content = stream.read(LARGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL byte
        raise ConfigError(
            f"{path!s}: cannot be read ({error.__class__.__name__}: {error}); allowed: a readable YAML file"
        ) from error
    if len(content) > LARGEST_FILE_BYTES:
        raise ConfigError(
            f"{path}: larger than {LARGEST_FILE_BYTES} bytes; allowed: a configuration file, not data"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: not UTF-8 text (byte {error.start}); allowed: a YAML file saved as UTF-8"
        ) from error


def _nearest_file(path: Path) -> str:
    """Suggest a neighbour with a similar name."""
    if not path.parent.is_dir():
        return ""
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix in {".yaml", ".yml"})
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {str(path.parent / near[0])!r}?" if near else ""


def _compose(path: Path, text: str) -> yaml.Node | None:
    """Parse text into nodes, every failure of the parser being a ConfigError with line and column."""
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        _refuse_marked(path, error)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{path}:{line}: got the control character U+{ord(text[error.position]):04X}; "
            "allowed: printable text"
        ) from error
    except (ValueError, OverflowError) as error:
        # PyYAML converts \U escapes and %YAML versions unchecked.
        raise ConfigError(
            f"{path}: not valid YAML ({error}); allowed: escapes of existing characters"
        ) from error


def _refuse_marked(path: Path, error: yaml.MarkedYAMLError) -> NoReturn:
    mark = error.problem_mark or error.context_mark
    place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    problem = error.problem or str(error)
    if "; allowed" in problem:
        raise ConfigError(f"{place}: {problem}") from error
    if "'\\t'" in problem:
        problem = f"{problem}; indent with spaces, not tabs"
    context = f" {error.context}" if error.context else ""
    raise ConfigError(f"{place}: not valid YAML{context}: {problem}") from error


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_nothing(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null" and not node.value


class _Reader:
    """Turns nodes into plain values and keeps the lines."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        self.lines.setdefault(path, _line(node))
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(key_node, path, "got a list or a mapping as a key; allowed: a name as the key")
                continue
            key = key_node.value  # 1, true and null as keys are just their text
            here = (*path, key)
            if _UNUSABLE_TEXT.search(key):
                self._report(key_node, path, "got a key with a control character; allowed: printable text")
            elif key in result:
                first = self.lines[here]
                self._report(
                    key_node, here, f"given twice (first in line {first}); allowed: once; remove one"
                )
            else:
                self.lines[here] = _line(key_node)
                result[key] = self._value(value_node, here)
        return result

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, (*path, position)) for position, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _item(self, node: yaml.Node, path: KeyPath) -> Any:
        self.lines[path] = _line(node)
        return self._value(node, path)

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        text = node.value
        kind = node.tag.rpartition(":")[2]
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            return self._integer(node, path)
        if kind == "float":
            return self._number(node, path)
        if _UNUSABLE_TEXT.search(text):
            self._report(node, path, "got text with a control character; allowed: printable text")
        return text

    def _integer(self, node: yaml.Node, path: KeyPath) -> int:
        text = node.value
        base = 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10
        value = (
            int(text, base) if len(text) < 100 else LARGEST_INTEGER + 1
        )  # int() itself refuses 4301 digits
        if abs(value) > LARGEST_INTEGER:
            self._report(node, path, f"got an integer beyond ±{LARGEST_INTEGER}; allowed: a smaller one")
        return value

    def _number(self, node: yaml.Node, path: KeyPath) -> float:
        # float() knows no leading dot before inf and nan.
        value = float(re.sub(r"\.(?=[iInN])", "", node.value))
        if not math.isfinite(value):
            self._report(node, path, f"got {node.value[:20]!s}; allowed: a finite number")
        return value

    def _report(self, node: yaml.Node, path: KeyPath, text: str) -> None:
        self.problems.append(Problem(_line(node), path, text))
