"""The archive and the label table: can they be read, and do they belong together."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedcad.client.archive.labels import read_labels
from fedcad.client.archive.reasons import count_reasons
from fedcad.client.doctor.check import Finding, NotCheckable, Tell, failed, ok, warning
from fedcad.client.doctor.isolated import Outcome, run
from fedcad.client.doctor.remembered import Remembered

_LIMIT_S = 120.0
_MOST_REASONS = 3
_MOST_LABELS = 8
_CLASS = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What a study may call a class. Anything else is not shown: it may be a column of names."""
_FEW_USABLE = 0.5
_SLOW_INDEX_S = 600.0
_SHORT_S = 0.1


class Data:
    """The checks of one site's archive and label table."""

    def __init__(self, archive: Path, labels: Path) -> None:
        """Take where both are."""
        self._archive = archive
        self._labels = labels
        self._tell: Tell = lambda _: None
        self._sample = Remembered(self._take)

    def _take(self) -> Outcome:
        request = {"archive": str(self._archive), "labels": str(self._labels)}
        return run("fedcad.client.doctor.sample", request, tell=self._tell, limit_s=_LIMIT_S)

    def _sampled(self, tell: Tell) -> Outcome:
        self._tell = tell
        return self._sample()

    def archive(self, tell: Tell) -> Finding:
        """Whether the archive can be listed and its files read."""
        outcome = self._sampled(tell)
        if outcome.refused:
            return failed(outcome.refused, "Check 'archive' in site.yaml, and the account's read access.")
        if "headers" not in outcome.found:
            return failed(
                f"reading {self._archive} {outcome.death or 'gave nothing'}",
                "Check that the archive's disk or network share answers: ls -l on it must be quick.",
            )
        return judge_headers(self._archive, outcome.found["files"], outcome.found["headers"])

    def decoding(self, tell: Tell) -> Finding:
        """Whether the pixels of a few images can be decoded."""
        outcome = self._sampled(tell)
        images = outcome.found.get("images")
        if images is None or not outcome.found["headers"]["usable"]:
            raise NotCheckable("see 'archive'")
        decoded, unusable = images["decoded"], images["unusable"]
        if outcome.death:
            return failed(
                f"decoding an image {outcome.death}",
                "Report this to FedCAD with the name of the scanner's vendor. In training, such a file is "
                "left out after three tries.",
            )
        if not decoded:
            return failed(f"no image could be decoded: {reasons_text(unusable)}", _reinstall())
        if unusable:
            return warning(f"{decoded} decoded, {reasons_text(unusable)}", _reinstall())
        return ok(f"{decoded} image{'' if decoded == 1 else 's'} decoded")

    def label_table(self) -> Finding:
        """Whether the label table can be read."""
        return judge_labels(self._labels)

    def fit(self, tell: Tell) -> Finding:
        """Whether the label table speaks of the archive's images."""
        found = self._sampled(tell).found.get("labels")
        if found is None or not found["images"]:
            raise NotCheckable("see 'archive' and 'labels'")
        return judge_fit(found["images"], found["known"], found["same_patient"])


def _reinstall() -> str:
    return "The decoders come with: pip install 'fedcad[client]'. Files that stay unreadable are left out."


def judge_headers(archive: Path, files: Mapping[str, Any], headers: Mapping[str, Any]) -> Finding:
    """Judge what a sample of the archive's headers gave.

    Args:
        archive: The folder.
        files: ``count`` of files, and whether that is the ``whole`` archive.
        headers: Number of ``usable`` files, the ``unusable`` ones by reason, and ``seconds`` taken.
    """
    usable, unusable = headers["usable"], headers["unusable"]
    looked_at = usable + sum(item["count"] for item in unusable)
    count = f"{'' if files['whole'] else 'more than '}{files['count']} files"
    if not files["count"]:
        return failed(f"{archive} holds no file", "Check 'archive' in site.yaml, and whether it is mounted.")
    if not usable:
        return failed(
            f"{count}, none of {looked_at} looked at is usable: {reasons_text(unusable)}",
            "Check that 'archive' in site.yaml is the folder of the exported X-rays.",
        )
    index_s = headers["seconds"] / looked_at * files["count"]
    later = f"; the first index takes {about(index_s)}" if index_s > _SLOW_INDEX_S else ""
    found = f"{count}; {usable} of {looked_at} looked at are usable X-rays{later}"
    if not unusable:
        return ok(found)
    found = f"{found}; others: {reasons_text(unusable)}"
    if usable >= _FEW_USABLE * looked_at:
        return ok(found)  # other objects than X-rays are usual in an archive
    return warning(found, "The others are left out: check the export if you expect more images.")


def reasons_text(unusable: Sequence[Mapping[str, Any]]) -> str:
    """Write the most frequent reasons, each with its number."""
    texts = [f"{item['count']} because {item['sentence']}" for item in unusable[:_MOST_REASONS]]
    rest = sum(item["count"] for item in unusable[_MOST_REASONS:])
    return "; ".join([*texts, f"{rest} for other reasons"] if rest else texts)


def judge_fit(images: int, known: int, same_patient: int) -> Finding:
    """Judge how many images of a sample the label table knows, and with the same patient."""
    found = f"{known} of {images} images looked at are in the label table"
    remedy = (
        "Compare the table's sop_instance_uid and patient_id with the files': both must come from the same "
        "export, de-identified the same way or not at all."
    )
    if not known or not same_patient:
        why = "" if not known else ", all under another patient_id"
        return failed(f"{found}{why}: nothing could be learned", remedy)
    if same_patient < known:
        return warning(f"{found}, {known - same_patient} under another patient_id (left out)", remedy)
    return ok(found)


def judge_labels(path: Path) -> Finding:
    """Whether the label table can be read, and what it holds.

    Raises:
        DataError: It cannot be read; the message says why and what to do.
    """
    table = read_labels(path)
    counts = Counter(row.label for row in table.rows)
    if not counts:
        return failed(
            "the label table has no usable row", "Export it anew: sop_instance_uid, patient_id, label."
        )
    named = [label for label, _ in counts.most_common() if _CLASS.fullmatch(label)]
    if not named:
        return failed(
            f"none of the {len(counts)} different labels can be the name of a class",
            "Write class names in the column 'label': small letters, digits, '.', '_' and '-', at most 64.",
        )
    shown = ", ".join(f"{counts[label]} {label}" for label in named[:_MOST_LABELS])
    others = len(counts) - len(named[:_MOST_LABELS])
    found = f"{len(table.rows)} labelled images: {shown}" + (f", {others} other labels" if others else "")
    if table.rejects:
        left = ", ".join(
            f"{count} {str(reason).replace('_', ' ')}" for reason, count in count_reasons(table.rejects)
        )
        return warning(
            f"{found}; rows left out: {left}",
            "Correct these rows in the export, or accept that they are left out.",
        )
    return ok(found)


def about(seconds: float) -> str:
    """Write an estimated time for people."""
    return f"{'' if seconds < _SHORT_S else 'about '}{duration(seconds)}"


def duration(seconds: float) -> str:
    """Write a time for people."""
    if seconds < _SHORT_S:
        return "less than 0.1 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
