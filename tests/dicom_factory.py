"""Real DICOM X-ray files for tests, written by pydicom; encoders of GDCM, CharLS and OpenJPEG."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

CR = "1.2.840.10008.5.1.4.1.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
DX_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
NATIVE = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
}
_GDCM = {
    "jpeg-baseline": (JPEGBaseline8Bit, gdcm.TransferSyntax.JPEGBaselineProcess1),
    "jpeg-lossless": (JPEGLosslessSV1, gdcm.TransferSyntax.JPEGLosslessProcess14_1),
}
LOSSLESS = ("rle", "jpeg-ls", "jpeg2000", "jpeg-lossless")
COMPRESSED = (*LOSSLESS, "jpeg-baseline")


def uid(number: int) -> str:
    """Return a UID below the arc of UUIDs."""
    return f"2.25.{1000 + number}"


def xray(
    pixels: NDArray[Any], *, number: int = 1, bits_stored: int | None = None, **elements: Any
) -> Dataset:
    """Return an uncompressed DX object with stored values (rows, columns) or (rows, columns, 3).

    Further elements override: None deletes one.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = elements.get("SOPClassUID") or DX
    meta.MediaStorageSOPInstanceUID = uid(number)
    dataset = Dataset()
    dataset.file_meta = meta
    bits = 8 * pixels.dtype.itemsize
    defaults: dict[str, Any] = {
        "SOPClassUID": DX,
        "SOPInstanceUID": uid(number),
        "StudyInstanceUID": uid(10_000 + number),
        "SeriesInstanceUID": uid(20_000 + number),
        "PatientID": f"P{number}",
        "PatientName": "Secret^Name",
        "Modality": "DX",
        "ViewPosition": "PA",
        "Manufacturer": "Acme",
        "ManufacturerModelName": "Ray 1",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": pixels.shape[2] if pixels.ndim == 3 else 1,
        "PhotometricInterpretation": "RGB" if pixels.ndim == 3 else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits_stored or bits,
        "HighBit": (bits_stored or bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if pixels.ndim == 3:
        defaults["PlanarConfiguration"] = 0
    for keyword, value in {**defaults, **elements}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    content = pixels.tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    return dataset


def write(path: Path, dataset: Dataset, syntax: str = "explicit") -> Path:
    """Write an object from :func:`xray` in a named transfer syntax."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax in NATIVE:
        _write_native(path, dataset, NATIVE[syntax])
    elif syntax in _GDCM:
        _write_native(path, dataset, ExplicitVRLittleEndian)
        _recode(path, _GDCM[syntax][1])
    elif syntax == "jpeg2000":
        frame = encode_array(
            dataset.pixel_array,
            bits_stored=dataset.BitsStored,
            photometric_interpretation=1 if dataset.SamplesPerPixel == 3 else 2,
        )
        write_frame(path, dataset, frame, JPEG2000Lossless)
    else:
        target, plugin = {"rle": (RLELossless, "pydicom"), "jpeg-ls": (JPEGLSLossless, "pyjpegls")}[syntax]
        dataset.compress(target, encoding_plugin=plugin, generate_instance_uid=False)
        dataset.save_as(path, enforce_file_format=True)
    return path


def write_frame(path: Path, dataset: Dataset, frame: bytes, syntax: str) -> Path:
    """Write an object whose pixels are one given compressed frame."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return path


def _write_native(path: Path, dataset: Dataset, syntax: str) -> None:
    """Write uncompressed, with the bytes of words in the order of the syntax."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].VR = "OW"
    big = syntax == ExplicitVRBigEndian
    if big:
        # OW words are swapped whatever they hold, also two 8-bit pixels (PS3.5 section 8.1.2).
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").byteswap().tobytes()
    dcmwrite(
        path,
        dataset,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=not big,
        enforce_file_format=True,
    )


def _recode(path: Path, syntax: int) -> None:
    """Let GDCM compress a file in place."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    if not reader.Read():
        raise RuntimeError("GDCM cannot read the file")
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise RuntimeError("GDCM cannot encode the file")
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    if not writer.Write():
        raise RuntimeError("GDCM cannot write the file")


def gradient(rows: int = 8, columns: int = 6, *, dtype: Any = np.uint16, step: int = 1) -> NDArray[Any]:
    """Return stored values 0, step, 2 step, … row by row."""
    return (np.arange(rows * columns).reshape(rows, columns) * step).astype(dtype)


def write_labels(path: Path, rows: Sequence[Mapping[str, str] | tuple[str, str, str]]) -> Path:
    """Write a label table of (sop_instance_uid, patient_id, label)."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["sop_instance_uid", "patient_id", "label"])
        for row in rows:
            table.writerow(row.values() if isinstance(row, Mapping) else row)
    return path
