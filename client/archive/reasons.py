"""Why a file or a case is left out: one code for counting, one sentence for the person who can repair it.

Why: a hospital must see what was skipped without reading code, and counts per code may leave the site while
nothing about a patient may. So a sentence here never contains a value from a file's patient attributes.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from fedcad.shared.errors import ArchiveError


class Reason(StrEnum):
    """Code of a reason, stable between versions: reports and tables count by it."""

    UNREADABLE = "unreadable"
    SYMBOLIC_LINK = "symbolic_link"
    TOO_LARGE_FILE = "too_large_file"
    NOT_DICOM = "not_dicom"
    TRUNCATED = "truncated"
    BROKEN_HEADER = "broken_header"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported_transfer_syntax"
    NO_IDENTIFIERS = "no_identifiers"
    UNSUPPORTED_SOP_CLASS = "unsupported_sop_class"
    MISSING_PIXEL_ATTRIBUTES = "missing_pixel_attributes"
    ABSURD_DIMENSIONS = "absurd_dimensions"
    MULTI_FRAME = "multi_frame"
    UNSUPPORTED_BITS = "unsupported_bits"
    UNSUPPORTED_COLOUR = "unsupported_colour"
    NO_PIXELS = "no_pixels"
    DUPLICATE_INSTANCE = "duplicate_instance"
    INVALID_TRANSFORM = "invalid_transform"
    IMPLAUSIBLE_ASPECT = "implausible_aspect"
    CODESTREAM_MISMATCH = "codestream_mismatch"
    NO_DECODER = "no_decoder"
    UNDECODABLE = "undecodable"
    DECODER_CRASHED = "decoder_crashed"
    EMPTY_IMAGE = "empty_image"
    CHANGED_WHILE_READING = "changed_while_reading"
    INCOMPLETE_ROW = "incomplete_row"
    EMPTY_LABEL = "empty_label"
    DUPLICATE_LABEL_ROW = "duplicate_label_row"
    CONFLICTING_LABELS = "conflicting_labels"
    UNKNOWN_INSTANCE = "unknown_instance"
    LABEL_NOT_IN_STUDY = "label_not_in_study"
    NO_LABEL = "no_label"
    NO_PATIENT = "no_patient"
    PATIENT_MISMATCH = "patient_mismatch"
    OTHER_MODALITY = "other_modality"
    OTHER_VIEW = "other_view"


TEMPORARY = frozenset({Reason.UNREADABLE, Reason.NO_DECODER, Reason.CHANGED_WHILE_READING})
"""Reasons that may vanish without the file changing: tried again at every opening."""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """One file, instance or table row that is left out.

    Attributes:
        reason: Why, as a code.
        subject: Which one: path relative to the archive, SOP instance UID or row number. Stays at the site.
        sentence: Why, in words, without anything about a patient.
    """

    reason: Reason
    subject: str
    sentence: str


class UnusableFile(ArchiveError):  # noqa: N818 - the domain's word, not an "...Error"
    """A DICOM file cannot be used.

    Attributes:
        reason: Why, as a code.
        sentence: Why, in words, without anything about a patient.
    """

    def __init__(self, reason: Reason, sentence: str) -> None:
        """Keep the code beside the sentence."""
        super().__init__(f"{reason}: {sentence}")
        self.reason = reason
        self.sentence = sentence


def count_reasons(rejects: Iterable[Reject]) -> tuple[tuple[Reason, int], ...]:
    """Return how many rejects each reason has, most frequent first, then by code."""
    counts = Counter(reject.reason for reject in rejects)
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
