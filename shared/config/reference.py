"""The configuration reference in Markdown, made from the models, so that it cannot go stale."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedcad.shared.config.schema import ROOTS
from fedcad.shared.config.shapes import Shape, shape_of_field

_INTRODUCTION = """\
# Configuration reference

<!-- Made by `python -m fedcad.shared.config.generated`; change the models in shared/config, not this. -->

FedCAD reads four kinds of YAML file, each with its own owner:

| File | Owner | Says |
|---|---|---|
| [study](#study-file) | the researchers | what is learnt and how: task, model, training, algorithm, rounds |
| [simulation](#simulation-file) | who tries a study out | data set, partition into sites, seeds, faults |
| [site](#site-file) | one hospital, for itself | where its data lie and how its node runs |
| [consortium](#consortium-file) | the coordinator | how sites reach it, ports, validity of certificates |

In this folder, `studies/`, `simulations/`, `sites/` and `consortia/` hold files to start from, `schemas/` the
JSON Schemas of all four.

**Completion in the editor.** With the YAML extension of VS Code (or another editor with a YAML language
server), the first line of a file names its schema; unknown keys are underlined and values complete:

```yaml
# yaml-language-server: $schema=../schemas/study.schema.json
```

`fedcad schema study --out study.schema.json` writes the schema next to a file that lies elsewhere.

**Checking a file.** `fedcad check FILE` lists every mistake with file, line and key, or prints the file with
all defaults filled in.

**The YAML.** YAML 1.2: `1e-3` is a number; only `true` and `false` are truth values (`no`, `off` are text).
Each key once; no tags, anchors or aliases; at most 1 MB; UTF-8. Nothing is converted silently: `"3"` is text
and `3.0` is no integer. A whole number may stand where a number is asked for.

**The folder given by `--data`.** Each kind of data set has its layout:

- `image-folder`: any number of folders, each with a `labels.csv` and the images that it names (PNG, JPEG,
  TIFF or BMP; grey of 8 or 16 bits, or colour, which becomes grey). Columns: `file` (relative to the table),
  `patient_id`, `site`, `label`.
- `dicom-tree`: one `labels.csv` and the DICOM files that it names. Columns: `file`, `patient_id`, `label`.
- `medmnist`: one `.npz` with `train_images`, `train_labels`, and the same for `val` and `test`. It names no
  patients, so each image counts as one.
- `phantom`: no folder; the images are computed.

```
FOLDER/
  hospital-a/            labels.csv:   file,patient_id,site,label
    labels.csv                         images/001.png,p01,hospital-a,normal
    images/001.png                     images/002.png,p01,hospital-a,pneumonia
    images/002.png
  hospital-b/
    labels.csv
    …
```

Tables are CSV in UTF-8 with commas. The labels are those of the study's `task.classes`. A further column can
divide the patients (partition `column`), and those named `modality`, `vendor`, `model`, `view` or
`pixel_spacing_mm` describe the acquisition. The same `patient_id` in two image folders is two patients. What
cannot be used (no label, damaged, listed twice, named by no table, …) is counted on the terminal and listed
with its reason in the run's `left-out.csv`; what a site refuses itself, such as a label that the study does
not name, is counted in the report.
"""


def reference_markdown() -> str:
    """Return the whole reference as Markdown."""
    parts = [_INTRODUCTION]
    for kind, model in ROOTS.items():
        parts.append(f"## {kind.capitalize()} file\n\n{_prose(model.__doc__)}\n")
        parts.extend(_sections(model, ""))
    return "\n".join(parts)


def _sections(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Yield the table of one mapping, then those of the mappings inside it."""
    yield _table(model)
    for name, info in model.model_fields.items():
        shape = shape_of_field(info)
        listed = shape.item is not None
        inner = shape.item if shape.item is not None else shape
        key = f"{prefix}{name}{'[]' if listed else ''}"
        for tag, branch in inner.models.items():
            suffix = f" with {inner.discriminator}: {tag}" if tag else ""
            yield f"### `{key}`{suffix}\n\n{_prose(branch.__doc__)}\n"
            yield from _sections(branch, f"{key}.")


def _table(model: type[BaseModel]) -> str:
    rows = ["| Key | Allowed | Default | Meaning |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        cells = (f"`{name}`", _allowed(shape_of_field(info)), _default(info), _prose(info.description))
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _allowed(shape: Shape) -> str:
    if shape.choices:
        return ", ".join(f"`{choice}`" for choice in shape.choices)
    if shape.discriminator:
        return f"one of these by `{shape.discriminator}`: " + ", ".join(f"`{tag}`" for tag in shape.models)
    if shape.models:
        return "mapping, see below"
    if shape.item and shape.item.models:
        return f"{shape.text.partition(' mappings')[0]} mappings, see below"
    return shape.text


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "*required*"
    value: Any = info.default
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "absent"
    return f"`{json.dumps(_plain(value), ensure_ascii=False)}`"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


def _prose(text: str | None) -> str:
    """Join the lines of a docstring."""
    return " ".join((text or "").split())
