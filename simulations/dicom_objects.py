"""One radiograph as a valid DICOM object: CR Image, or Digital X-Ray Image for Presentation.

IODs: DICOM PS3.3 A.2 (Computed Radiography) and A.26 (Digital X-Ray). Attributes that nobody knows are
written empty where the standard allows that (type 2) and left out where it must not be invented (type 3).
Objects claim to be originals, because they stand for what a hospital's own archive holds.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from fedcad.shared.canonical import hash_of
from fedcad.shared.errors import DataError
from fedcad.simulations.acquisition import Acquisition
from fedcad.simulations.datasets.interface import Pixels

CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"
"""SOP class Computed Radiography Image Storage."""
DX_IMAGE = "1.2.840.10008.5.1.4.1.1.1.1"
"""SOP class Digital X-Ray Image Storage - For Presentation."""

_IMPLEMENTATION_UID = generate_uid(entropy_srcs=["fedcad emulated hospital"])
_LONGEST_SIDE = 65535  # Rows and Columns are unsigned 16 bits: PS3.5 6.2, VR US.
_FORBIDDEN = str.maketrans({"\\": "/", **{chr(code): " " for code in (*range(32), 127)}})

# SNOMED CT: CID 4009 DX Anatomy Imaged and CID 4010 DX View, PS3.16.
_ANATOMY = {
    "CHEST": ("816094009", "Chest"),
    "ABDOMEN": ("818981001", "Abdomen"),
    "BREAST": ("76752008", "Breast"),
    "HEAD": ("69536005", "Head"),
    "HAND": ("85562004", "Hand"),
    "SKULL": ("89546000", "Skull"),
}
_VIEW_CODES = {
    "AP": ("399348003", "antero-posterior"),
    "PA": ("272479007", "postero-anterior"),
    "LL": ("399173006", "left lateral"),
    "RL": ("399198007", "right lateral"),
}
# Directions of rows and columns as films are hung: PS3.3 C.7.6.1.1.1.
_ORIENTATION = {"LL": ["A", "F"], "RL": ["P", "F"]}
_FRONTAL_ORIENTATION = ["L", "F"]


@dataclass(frozen=True, kw_only=True)
class DicomIdentity:
    """Who and what an object belongs to; everything is derived, nothing is drawn.

    Attributes:
        patient_id: Pseudonym, Patient ID (0010,0020).
        accession: Accession Number (0008,0050).
        study_uid: DICOM study.
        series_uid: Series.
        sop_uid: The object itself.
        institution: Name of the emulated hospital.
    """

    patient_id: str
    accession: str
    study_uid: str
    series_uid: str
    sop_uid: str
    institution: str


def derive_identity(*, patient_id: str, record_id: str, site: str) -> DicomIdentity:
    """Derive pseudonym and UIDs from what the data set calls patient and record.

    The pseudonym is a plain hash: data sets are public, so it shortens names and hides nothing.
    """
    record_hash = hash_of(["record", site, patient_id, record_id])
    uids = (generate_uid(entropy_srcs=[part, record_hash]) for part in ("study/", "series/", "object/"))
    study_uid, series_uid, sop_uid = (str(uid) for uid in uids)
    return DicomIdentity(
        patient_id=f"P{hash_of(['patient', patient_id])[:15]}".upper(),
        accession=f"A{record_hash[:15]}".upper(),
        study_uid=study_uid,
        series_uid=series_uid,
        sop_uid=sop_uid,
        institution=site,
    )


def encode_object(pixels: Pixels, *, identity: DicomIdentity, acquisition: Acquisition) -> bytes:
    """Return a DICOM file (explicit VR little endian) that shows the grey values.

    Args:
        pixels: Grey values, shape (rows, columns), larger is brighter. 8-bit values are spread over the
            range where ``bits_stored`` is larger.
        identity: Patient, study, series, object.
        acquisition: How the image was taken.

    Raises:
        DataError: The image is empty or too large, its values need more than ``bits_stored`` bits, or it is
            DX without pixel spacing (Imager Pixel Spacing is type 1 there).
    """
    stored, bits = _stored_values(pixels, acquisition)
    dataset = Dataset()
    _add_identity(dataset, identity)
    _add_equipment(dataset, identity, acquisition)
    _add_pixels(dataset, stored, bits, acquisition)
    if acquisition.has_window:
        _add_window(dataset, bits, acquisition)
    _add_geometry(dataset, acquisition)
    if acquisition.modality == "DX":
        _add_digital_xray(dataset, acquisition)
    else:
        dataset.ViewPosition = acquisition.view or ""
    return _file_bytes(dataset)


def _stored_values(pixels: Pixels, acquisition: Acquisition) -> tuple[NDArray[Any], int]:
    """Return the values to store, MONOCHROME1 inverted, and the number of their bits."""
    if pixels.ndim != 2 or not 0 < min(pixels.shape) <= max(pixels.shape) <= _LONGEST_SIDE:
        raise DataError(f"the image has shape {pixels.shape}; expected rows and columns from 1 to 65535")
    bits = acquisition.bits_stored or 8 * pixels.dtype.itemsize
    top = 2**bits - 1
    if pixels.dtype == np.uint8 and bits > 8:
        values: NDArray[Any] = ((pixels.astype(np.uint32) * top + 127) // 255).astype(np.uint16)
    else:
        values = pixels
    if int(values.max()) > top:
        raise DataError(f"grey values reach {int(values.max())}; bits_stored {bits} allows {top}")
    kind = np.dtype("u1") if bits <= 8 else np.dtype("<u2")
    values = values.astype(kind, copy=False)
    return (kind.type(top) - values if acquisition.photometric == "MONOCHROME1" else values), bits


def _add_identity(dataset: Dataset, identity: DicomIdentity) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPInstanceUID = identity.sop_uid
    dataset.StudyInstanceUID = identity.study_uid
    dataset.SeriesInstanceUID = identity.series_uid
    dataset.PatientName = f"Pseudonym^{identity.patient_id}"
    dataset.PatientID = identity.patient_id
    dataset.AccessionNumber = identity.accession
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = 1
    for unknown in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName"):
        setattr(dataset, unknown, "")
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Public data set; identity replaced by derived pseudonym"


def _add_equipment(dataset: Dataset, identity: DicomIdentity, acquisition: Acquisition) -> None:
    dataset.SOPClassUID = DX_IMAGE if acquisition.modality == "DX" else CR_IMAGE
    dataset.Modality = acquisition.modality
    dataset.Manufacturer = _long_string(acquisition.vendor)
    dataset.InstitutionName = _long_string(identity.institution)
    if acquisition.model:
        dataset.ManufacturerModelName = _long_string(acquisition.model)
    dataset.BodyPartExamined = acquisition.body_part


def _add_pixels(dataset: Dataset, stored: NDArray[Any], bits: int, acquisition: Acquisition) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = acquisition.photometric
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    if acquisition.lossy is not None:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod, ratio = acquisition.lossy
        dataset.LossyImageCompressionRatio = f"{ratio:.6g}"
    content = stored.tobytes()
    # Values have even length: PS3.5 7.1.1.
    dataset.add_new("PixelData", "OB" if bits <= 8 else "OW", content + b"\0" * (len(content) % 2))


def _add_window(dataset: Dataset, bits: int, acquisition: Acquisition) -> None:
    """Write the linear window; without one, the window that shows every stored value: C.11.2.1.2.1."""
    top = 2**bits - 1
    center, width = acquisition.window or (2.0 ** (bits - 1), 2.0**bits)
    if acquisition.window is not None and acquisition.photometric == "MONOCHROME1":
        # Inversion mirrors the window too; a linear window is symmetric about center - 1/2.
        center = top - center + 1.0
    dataset.WindowCenter = f"{center:.6g}"
    dataset.WindowWidth = f"{width:.6g}"


def _add_geometry(dataset: Dataset, acquisition: Acquisition) -> None:
    dataset.PatientOrientation = _orientation(acquisition) if acquisition.view else ""
    if acquisition.spacing_mm is not None:
        spacing = [f"{value:.6g}" for value in acquisition.spacing_mm]
        dataset.ImagerPixelSpacing = spacing
        # Equal to the imager's: not corrected for magnification, PS3.3 10.7.1.3.
        dataset.PixelSpacing = spacing


def _add_digital_xray(dataset: Dataset, acquisition: Acquisition) -> None:
    """Add what a DX object needs beyond a CR one: PS3.3 C.8.11."""
    if acquisition.spacing_mm is None:
        raise DataError("a DX object needs pixel_spacing_mm; give it, or use the modality CR")
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.PatientOrientation = _orientation(acquisition)
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = Sequence([_code(*_ANATOMY[acquisition.body_part])])
    dataset.PixelIntensityRelationship = "LOG"
    # 1: higher values mean more X-rays at the detector; inverted grey values are such.
    dataset.PixelIntensityRelationshipSign = 1 if acquisition.photometric == "MONOCHROME1" else -1
    dataset.RescaleIntercept = "0"
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "US"
    dataset.PresentationLUTShape = "INVERSE" if acquisition.photometric == "MONOCHROME1" else "IDENTITY"
    dataset.DetectorType = ""
    dataset.PositionerType = ""
    dataset.AcquisitionContextSequence = Sequence([])
    if acquisition.view:
        dataset.ViewPosition = acquisition.view
    if acquisition.view in _VIEW_CODES:
        view = _code(*_VIEW_CODES[acquisition.view])
        view.ViewModifierCodeSequence = Sequence([])
        dataset.ViewCodeSequence = Sequence([view])


def _orientation(acquisition: Acquisition) -> list[str]:
    return _ORIENTATION.get(acquisition.view or "", _FRONTAL_ORIENTATION)


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "SCT"
    item.CodeMeaning = meaning
    return item


def _long_string(text: str) -> str:
    """Fit text to VR LO: 64 characters, no backslash, no control characters (PS3.5 6.2)."""
    return text.translate(_FORBIDDEN).strip()[:64]


def _file_bytes(dataset: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION_UID
    meta.ImplementationVersionName = "FEDCAD"
    dataset.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()
