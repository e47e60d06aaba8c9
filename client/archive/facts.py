"""What the index keeps about one image: identifiers, acquisition and encoding, from the header alone."""

from dataclasses import dataclass, fields
from pathlib import Path

from pydicom.dataset import Dataset

from fedcad.client.archive.header import (
    DEFAULT_LIMITS,
    Header,
    PixelLimits,
    read_header,
    text_of,
)
from fedcad.client.archive.layout import LAYOUT_TAGS, PixelLayout, find_pixels, read_layout
from fedcad.client.archive.reasons import Reason, UnusableFile
from fedcad.client.archive.walk import open_read_only

SUPPORTED_SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "Computed Radiography",
    "1.2.840.10008.5.1.4.1.1.1.1": "Digital X-Ray, for presentation",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "Digital X-Ray, for processing",
}
"""Kinds of objects that this version reads."""

_TEXT_TAGS = {
    "sop_instance_uid": "SOPInstanceUID",
    "dicom_study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "patient_id": "PatientID",
    "modality": "Modality",
    "view": "ViewPosition",
    "vendor": "Manufacturer",
    "model": "ManufacturerModelName",
    "body_part": "BodyPartExamined",
    "laterality": "ImageLaterality",
    "presentation_intent": "PresentationIntentType",
    "kvp": "KVP",
    "burned_in": "BurnedInAnnotation",
}
_TAGS = ["SOPClassUID", *_TEXT_TAGS.values(), *LAYOUT_TAGS]
_LONGEST_TEXT = 128


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """One usable X-ray. Texts are stripped and empty where the file says nothing.

    Attributes:
        sop_instance_uid: SOP Instance UID; identifies the image worldwide.
        dicom_study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        patient_id: Patient ID.
        modality: CR or DX.
        view: View Position, for instance PA.
        vendor: Manufacturer.
        model: Manufacturer's Model Name.
        body_part: Body Part Examined.
        laterality: Image Laterality.
        presentation_intent: FOR PRESENTATION, FOR PROCESSING or empty.
        kvp: Peak kilovoltage, as text.
        burned_in: Burned In Annotation, YES, NO or empty.
        rows: Rows.
        columns: Columns.
        bits_stored: Bits per value.
        photometric: Photometric Interpretation.
        transfer_syntax: Transfer Syntax UID.
    """

    sop_instance_uid: str
    dicom_study_uid: str
    series_uid: str
    patient_id: str
    modality: str
    view: str
    vendor: str
    model: str
    body_part: str
    laterality: str
    presentation_intent: str
    kvp: str
    burned_in: str
    rows: int
    columns: int
    bits_stored: int
    photometric: str
    transfer_syntax: str


FACT_NAMES = tuple(field.name for field in fields(ImageFacts))
"""Names of the facts, in order; the index has a column for each."""


def read_facts(path: Path, *, limits: PixelLimits = DEFAULT_LIMITS) -> ImageFacts:
    """Read and check the header of one file; its pixels are neither read nor decoded.

    Raises:
        UnusableFile: The file is no single-frame X-ray that can be decoded within the limits.
    """
    try:
        with open_read_only(path) as stream:
            header = read_header(stream, _TAGS, limits=limits)
            _check_object(header.dataset)
            layout = read_layout(header.dataset, limits)
            find_pixels(stream, layout, header.transfer_syntax)
    except OSError as error:
        raise UnusableFile(Reason.UNREADABLE, f"reading failed ({error.strerror})") from error
    return _facts(header, layout)


def _check_object(dataset: Dataset) -> None:
    """Refuse files without identifiers and kinds of objects that are no X-ray."""
    if not text_of(dataset, "SOPInstanceUID"):
        raise UnusableFile(Reason.NO_IDENTIFIERS, "the file has no SOP Instance UID")
    sop_class = text_of(dataset, "SOPClassUID")
    if sop_class not in SUPPORTED_SOP_CLASSES:
        named = sop_class if sop_class.replace(".", "").isdigit() else "absent or invalid"
        raise UnusableFile(
            Reason.UNSUPPORTED_SOP_CLASS, f"the SOP class is {named[:64]}; CR and DX images are read"
        )


def _facts(header: Header, layout: PixelLayout) -> ImageFacts:
    """Collect the facts of a checked header."""
    texts = {name: text_of(header.dataset, tag)[:_LONGEST_TEXT] for name, tag in _TEXT_TAGS.items()}
    return ImageFacts(
        **texts,
        rows=layout.rows,
        columns=layout.columns,
        bits_stored=layout.bits_stored,
        photometric=layout.photometric,
        transfer_syntax=header.transfer_syntax,
    )
