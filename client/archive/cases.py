"""Cases: images of the archive joined with their labels, as far as the study accepts them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fedcad.client.archive.facts import ImageFacts
from fedcad.client.archive.index import IndexedImage
from fedcad.client.archive.labels import LabelRow, LabelTable
from fedcad.client.archive.reasons import Reason, Reject, count_reasons
from fedcad.shared.config.study import DataConfig
from fedcad.shared.errors import DataError


@dataclass(frozen=True)
class Case:
    """One labelled image.

    Attributes:
        case_id: SOP Instance UID.
        patient: Patient ID at the site.
        label: Name of the class.
        path: The file.
        size: Its size in bytes, when it was indexed.
        mtime_ns: Its time of modification, when it was indexed.
        facts: What its header says.
    """

    case_id: str
    patient: str
    label: str
    path: Path
    size: int
    mtime_ns: int
    facts: ImageFacts


@dataclass(frozen=True)
class CaseTable:
    """Cases that a study may use, and what was left out.

    Attributes:
        cases: Sorted by case_id.
        rejects: Images and labels left out.
    """

    cases: tuple[Case, ...]
    rejects: tuple[Reject, ...]

    def reject_counts(self) -> tuple[tuple[Reason, int], ...]:
        """Return how many were left out, by reason."""
        return count_reasons(self.rejects)


_SENTENCES = {
    Reason.UNKNOWN_INSTANCE: "the label table names an image that the archive does not hold (or not usably)",
    Reason.NO_LABEL: "the image is in the archive and not in the label table",
    Reason.NO_PATIENT: "the image has no Patient ID, so it cannot be assigned to train or test",
    Reason.PATIENT_MISMATCH: "the label table and the image name different patients",
    Reason.OTHER_MODALITY: "the study does not accept the image's modality",
    Reason.OTHER_VIEW: "the study does not accept the image's view position",
    Reason.LABEL_NOT_IN_STUDY: "the label is none of the study's classes",
}


def build_cases(
    images: Iterable[IndexedImage],
    labels: LabelTable,
    data: DataConfig,
    *,
    archive: Path,
    classes: tuple[str, ...] = (),
) -> CaseTable:
    """Join images and labels.

    Args:
        images: Usable images of the archive, each SOP instance once.
        labels: The label table.
        data: What the study accepts.
        archive: Folder that the images' paths are relative to.
        classes: Labels that the study knows; empty accepts any.

    Guarantees:
        Every image and every label row becomes a case or a reject; the order of the inputs has no influence.
    """
    by_instance = {row.sop_instance_uid: row for row in labels.rows}
    listed_elsewhere = {reject.subject for reject in labels.rejects}
    cases: list[Case] = []
    rejects = list(labels.rejects)
    for image in sorted(images, key=lambda image: image.facts.sop_instance_uid):
        instance = image.facts.sop_instance_uid
        row = by_instance.pop(instance, None)
        if row is None and instance in listed_elsewhere:
            continue
        reason = _refusal(image.facts, row, data, classes)
        if reason is not None:
            rejects.append(Reject(reason=reason, subject=instance, sentence=_SENTENCES[reason]))
        elif row is not None:
            cases.append(_case(image, row, archive))
    rejects += [
        Reject(reason=Reason.UNKNOWN_INSTANCE, subject=instance, sentence=_SENTENCES[Reason.UNKNOWN_INSTANCE])
        for instance in sorted(by_instance)
    ]
    return CaseTable(tuple(cases), tuple(rejects))


def _refusal(
    facts: ImageFacts, row: LabelRow | None, data: DataConfig, classes: tuple[str, ...]
) -> Reason | None:
    """Return why an image cannot enter the study, the first reason that applies."""
    views = {view.upper() for view in data.views}
    checks = (
        (facts.modality not in data.modalities, Reason.OTHER_MODALITY),
        (bool(views) and facts.view.upper() not in views, Reason.OTHER_VIEW),
        (row is None, Reason.NO_LABEL),
        (not facts.patient_id, Reason.NO_PATIENT),
        (row is not None and row.patient_id != facts.patient_id, Reason.PATIENT_MISMATCH),
        (row is not None and bool(classes) and row.label not in classes, Reason.LABEL_NOT_IN_STUDY),
    )
    return next((reason for applies, reason in checks if applies), None)


def _case(image: IndexedImage, row: LabelRow, archive: Path) -> Case:
    """Join one image and its label."""
    return Case(
        case_id=image.facts.sop_instance_uid,
        patient=image.facts.patient_id,
        label=row.label,
        path=archive / image.path,
        size=image.size,
        mtime_ns=image.mtime_ns,
        facts=image.facts,
    )


def require_patients(
    cases: Iterable[Case], data: DataConfig, *, site: str, left_out: Iterable[Reject]
) -> None:
    """Refuse a site that has too few usable patients.

    Raises:
        DataError: Names the site, the numbers, and the most frequent reasons why images were left out.
    """
    patients = len({case.patient for case in cases})
    if patients >= data.minimum_patients:
        return
    reasons = ", ".join(f"{count} {reason}" for reason, count in count_reasons(left_out)[:5]) or "nothing"
    raise DataError(
        f"site {site} has {patients} usable patients; the study needs {data.minimum_patients} "
        f"(data.minimum_patients). Left out: {reasons}. Check the archive, the label table and the views."
    )
