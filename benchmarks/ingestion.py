"""Benchmark of ingestion: reading DICOM files, decoding, and what a second epoch costs.

    python benchmarks/ingestion.py [--out ingestion.json]

Every figure is CPU time of this process with one thread. Both sides of a ratio are timed in turn within one
repetition; the table gives the median ratio with the lowest and highest. The page cache is warm.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import gdcm
import numpy as np
import torch
from jpeg_ls import decode_from_buffer
from monai.data import PersistentDataset, PydicomReader
from monai.transforms import Transform
from numpy.typing import NDArray
from openjpeg.utils import decode_pixel_data, encode_array
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.rle import _rle_decode_frame
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from fedcad.client.archive.cache import TensorCache
from fedcad.client.archive.cases import Case
from fedcad.client.archive.facts import read_facts
from fedcad.client.archive.pixels import read_display_pixels
from fedcad.client.archive.preprocessing import preprocess, to_network_input
from fedcad.shared.config.study import PreprocessingConfig

BATCH = 16
CONFIG = PreprocessingConfig(size=256)
Calls = list[Callable[[], object]]


@dataclass(frozen=True)
class Row:
    """One line of the table: ratio of two costs, and the goal that it should meet."""

    name: str
    ours_ms: float
    other_ms: float
    other: str
    ratio: float
    lowest: float
    highest: float
    goal: str
    met: bool


def radiograph(side: int, seed: int) -> NDArray[np.uint16]:
    """Return smooth 12-bit anatomy with detector noise, so that compression works as hard as on an X-ray."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side] / side
    image = 1500 + 900 * np.cos(5 * rows + seed) * np.sin(4 * columns) + 200 * np.sin(60 * rows)
    return np.clip(image + rng.normal(0, 12, (side, side)), 0, 4095).astype(np.uint16)


def xray(pixels: NDArray[np.uint16], number: int) -> Dataset:
    """Return a digital X-ray object."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = f"2.25.{number + 1}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.Modality = f"B{number}", "Bench^Mark", "DX"
    dataset.Manufacturer, dataset.ViewPosition, dataset.KVP = "Benchmark", "PA", "110"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.ImagerPixelSpacing = [0.2, 0.2]
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def write_native(folder: Path, side: int, count: int) -> list[Path]:
    """Write uncompressed files."""
    paths = [folder / f"native{side}-{number}.dcm" for number in range(count)]
    for number, path in enumerate(paths):
        dcmwrite(path, xray(radiograph(side, number), number), enforce_file_format=True)
    return paths


def gdcm_encode(pixels: NDArray[np.uint16]) -> bytes:
    """Encode JPEG Lossless, through a file: GDCM's images do not outlive what they are made from."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.dcm"
        dcmwrite(plain, xray(pixels, 0), enforce_file_format=True)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(plain))
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        if not reader.Read():
            raise RuntimeError("GDCM cannot read the file")
        change.SetInput(reader.GetImage())
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(plain))
        writer.SetFile(reader.GetFile())
        if not change.Change():
            raise RuntimeError("GDCM cannot encode JPEG Lossless")
        writer.SetImage(change.GetOutput())
        if not writer.Write():
            raise RuntimeError("GDCM cannot write the file")
        return next(generate_frames(dcmread(plain).PixelData, number_of_frames=1))


def gdcm_decode(frame: bytes, side: int) -> bytes:
    """Decode JPEG Lossless with nothing around GDCM."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((side, side, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    image.SetPhotometricInterpretation(grey)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    return image.GetBuffer().encode("utf-8", "surrogateescape")


def encode(codec: str, pixels: NDArray[np.uint16]) -> bytes:
    """Encode one frame."""
    if codec == "JPEG 2000":
        return encode_array(pixels, bits_stored=12, photometric_interpretation=2)
    if codec == "JPEG Lossless":
        return gdcm_encode(pixels)
    dataset = xray(pixels, 0)
    syntax, plugin = {"JPEG-LS": (JPEGLSLossless, "pyjpegls"), "RLE": (RLELossless, "pydicom")}[codec]
    dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def bare_decoder(codec: str, frame: bytes, side: int) -> Callable[[], object]:
    """Return the call that decodes a frame with the codec's library alone."""
    return {
        "JPEG 2000": lambda: decode_pixel_data(frame, version=2),
        "JPEG Lossless": lambda: gdcm_decode(frame, side),
        "JPEG-LS": lambda: decode_from_buffer(frame),
        "RLE": lambda: _rle_decode_frame(frame, side, side, 1, 16),
    }[codec]


def write_compressed(folder: Path, codec: str, side: int, count: int) -> tuple[list[Path], Calls]:
    """Write compressed files; return them and the bare decoding of each one's frame."""
    syntaxes = {
        "JPEG 2000": JPEG2000Lossless,
        "JPEG Lossless": JPEGLosslessSV1,
        "JPEG-LS": JPEGLSLossless,
        "RLE": RLELossless,
    }
    paths, bare = [], []
    for number in range(count):
        frame = encode(codec, radiograph(side, number))
        dataset = xray(radiograph(side, number), number)
        dataset.file_meta.TransferSyntaxUID = syntaxes[codec]
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        paths.append(folder / f"{codec}-{number}.dcm")
        dcmwrite(paths[-1], dataset, enforce_file_format=True)
        bare.append(bare_decoder(codec, frame, side))
    return paths, bare


def cost_ms(calls: Calls) -> float:
    """Return CPU milliseconds of one call."""
    start = time.process_time()
    for call in calls:
        call()
    return (time.process_time() - start) / len(calls) * 1e3


def compare(
    name: str, ours: Calls, others: Calls, *, other: str, goal: tuple[str, float], repetitions: int
) -> Row:
    """Time both sides in turn. Goal ``at least x`` bounds other / ours, ``at most x`` ours / other."""
    cost_ms(ours[:2]), cost_ms(others[:2])  # warm up
    pairs = [(cost_ms(ours), cost_ms(others)) for _ in range(repetitions)]
    kind, bound = goal
    ratios = [theirs / mine if kind == "at least" else mine / theirs for mine, theirs in pairs]
    ratio = statistics.median(ratios)
    return Row(
        name=name,
        ours_ms=statistics.median(mine for mine, _ in pairs),
        other_ms=statistics.median(theirs for _, theirs in pairs),
        other=other,
        ratio=ratio,
        lowest=min(ratios),
        highest=max(ratios),
        goal=f"{kind} {bound:g}",
        met=ratio >= bound if kind == "at least" else ratio <= bound,
    )


def reading(folder: Path, sides: Sequence[int], images: int, repetitions: int) -> list[Row]:
    """Uncompressed files: against MONAI's reader and against reading the bare pixels."""
    rows = []
    reader = PydicomReader()
    for side in sides:
        paths = write_native(folder, side, images)
        for path in paths:
            radiograph(side, 0).tofile(path.with_suffix(".raw"))
        ours: Calls = [lambda path=path: read_display_pixels(path) for path in paths]
        monai: Calls = [lambda path=path: reader.get_data(reader.read(path)) for path in paths]
        raw_paths = [path.with_suffix(".raw") for path in paths]
        raw: Calls = [lambda p=path: np.fromfile(p, np.uint16).astype(np.float32) for path in raw_paths]
        goals = (("MONAI PydicomReader", monai, ("at least", 6.0)), ("np.fromfile", raw, ("at most", 5.0)))
        name = f"uncompressed {side} x {side}"
        rows += [
            compare(name, ours, others, other=other, goal=goal, repetitions=repetitions)
            for other, others, goal in goals
        ]
    return rows


def decoding(folder: Path, side: int, images: int, repetitions: int) -> list[Row]:
    """Compressed files, with everything around decoding, against the decoder alone."""
    rows = []
    for codec in ("JPEG 2000", "JPEG Lossless", "JPEG-LS", "RLE"):
        paths, bare = write_compressed(folder, codec, side, images)
        ours: Calls = [lambda path=path: read_display_pixels(path) for path in paths]
        goal = ("at most", 1.10)
        name = f"{codec} {side} x {side}"
        rows.append(compare(name, ours, bare, other="bare decoder", goal=goal, repetitions=repetitions))
    return rows


def make_case(path: Path) -> Case:
    """Return the case of a file."""
    facts, status = read_facts(path), path.stat()
    return Case(
        facts.sop_instance_uid, facts.patient_id, "a", path, status.st_size, status.st_mtime_ns, facts
    )


class FromFile(Transform):
    """The network input of a file; PersistentDataset keeps results of MONAI's own kind of transform only."""

    def __call__(self, data: str) -> torch.Tensor:
        """Read and preprocess."""
        image = torch.from_numpy(preprocess(read_display_pixels(Path(data)), CONFIG))
        return to_network_input(image[None], CONFIG)[0]


def second_epoch(folder: Path, images: int, repetitions: int) -> list[Row]:
    """An epoch from what is kept: our memory map against MONAI's PersistentDataset."""
    paths = write_native(folder, 512, images)
    cases = [make_case(path) for path in paths]
    cache = TensorCache(folder / "tensors", CONFIG)
    if cache.fill(cases):
        raise RuntimeError("a file of the benchmark cannot be decoded")
    slots = cache.slots(cases)
    kept = PersistentDataset([str(path) for path in paths], FromFile(), cache_dir=folder / "persistent")
    for index in range(images):
        kept[index]
    starts = range(0, images, BATCH)
    ours: Calls = [
        lambda s=start: to_network_input(cache.gather(slots[s : s + BATCH]), CONFIG) for start in starts
    ]
    theirs: Calls = [
        lambda s=start: torch.stack([kept[i] for i in range(s, min(s + BATCH, images))]) for start in starts
    ]
    if not all(torch.equal(mine(), their()) for mine, their in zip(ours, theirs, strict=True)):
        raise RuntimeError("both caches must give the same tensors")
    name = f"second epoch, {BATCH} x {CONFIG.size} x {CONFIG.size}"
    goal = ("at least", 2.0)
    timing = compare(name, ours, theirs, other="PersistentDataset", goal=goal, repetitions=repetitions)
    return [timing, disk_row(cache.folder, folder / "persistent", images)]


def disk_row(ours: Path, theirs: Path, images: int) -> Row:
    """Compare bytes on disk; the columns of cost hold KiB per image here."""
    mine, other = (
        sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) for folder in (ours, theirs)
    )
    ratio, kib = mine / other, [size / images / 1024 for size in (mine, other)]
    name = "disk (KiB an image, not ms)"
    return Row(name, *kib, "PersistentDataset", ratio, ratio, ratio, "at most 0.5", round(ratio, 2) <= 0.5)


def print_table(rows: Sequence[Row]) -> None:
    """Print the rows."""
    print(f"{'what':<32}{'ours ms':>9}{'other ms':>10}  {'against':<21}{'ratio':>6}  {'range':<15}goal")
    for row in rows:
        spread = f"{row.lowest:.2f} to {row.highest:.2f}"
        print(
            f"{row.name:<32}{row.ours_ms:>9.3f}{row.other_ms:>10.3f}  {row.other:<21}{row.ratio:>6.2f}  "
            f"{spread:<15}{row.goal} {'met' if row.met else 'NOT MET'}"
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the table as JSON to this file")
    parser.add_argument("--images", type=int, default=16, help="images of each kind (default 16)")
    parser.add_argument("--repetitions", type=int, default=5, help="interleaved repetitions (default 5)")
    parser.add_argument(
        "--sides", type=int, nargs="+", default=[512, 1024], help="sides of uncompressed images"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    images, repetitions = arguments.images, arguments.repetitions
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = reading(folder, arguments.sides, images, repetitions)
        rows += decoding(folder, 1024, max(2, images // 4), repetitions)
        rows += second_epoch(folder, 4 * images, repetitions)
    print_table(rows)
    if arguments.out:
        environment = {name: version(name) for name in ("monai", "torch", "numpy", "pydicom", "python-gdcm")}
        environment["machine"] = platform.processor() or platform.machine()
        content = {"environment": environment, "rows": [asdict(row) for row in rows]}
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
