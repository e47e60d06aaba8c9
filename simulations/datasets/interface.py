"""What a data set reader gives: records whose pixels are read only when asked for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image of a public data set, on its way into an emulated hospital.

    Attributes:
        record_id: Unique within the data set and stable between runs, for instance ``cxr_nih/images/x.png``.
        content_id: SHA-256 of the bytes or parameters that the pixels derive from; keys caches.
        patient_id: Patient, namespaced by folder where a data set has several.
        label: Name of the class.
        folder: Folder (source) that the record came from; the partition ``folder`` uses it.
        columns: Further columns of the label table; the partition ``column`` uses them.
        acquisition: Facts for the DICOM attributes: ``modality`` (CR or DX), ``vendor``, ``model``, ``view``,
            ``photometric`` (MONOCHROME1 or MONOCHROME2), ``bits_stored``, ``pixel_spacing_mm``. All optional.
        truth: Ground truth that a phantom knows (positions in pixels, traits), else empty.
        read_pixels: Reads grey values, shape (rows, columns), uint8 or uint16, larger is brighter.
    """

    record_id: str
    content_id: str
    patient_id: str
    label: str
    folder: str
    read_pixels: Callable[[], Pixels]
    columns: Mapping[str, str] = field(default_factory=dict)
    acquisition: Mapping[str, str] = field(default_factory=dict)
    truth: Mapping[str, object] = field(default_factory=dict)


class DataSet(Protocol):
    """A readable data set."""

    def records(self) -> Iterator[Record]:
        """Yield every record in a stable order.

        Raises:
            DataError: The data set is absent or its tables are wrong.
        """
        ...
