"""MedMNIST-style .npz files (Yang et al. 2023, doi:10.1038/s41597-022-01721-8)."""

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcad.shared.config.simulation import MedMNISTData
from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.interface import Pixels, Record
from fedcad.simulations.datasets.listed_files import resolve_inside

SPLITS = ("train", "val", "test")
"""The splits of a file, each with ``<split>_images`` and ``<split>_labels``."""

_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    KeyError,
    MemoryError,
)
"""What zipfile, zlib and numpy raise on damaged or encrypted files."""

_LUMINANCE = np.array([19595, 38470, 7471], dtype=np.uint32)  # ITU-R BT.601, in 1/65536, as Pillow rounds


class MedMNISTDataSet:
    """One .npz file. It names no patients, so every image counts as a patient of its own.

    The split that the file gives is kept in the column ``split``; FedCAD splits by patient at the site.
    """

    def __init__(self, config: MedMNISTData, root: Path) -> None:
        """Remember where to read; nothing is read yet."""
        self._config = config
        self._root = root

    def records(self) -> Iterator[Record]:
        """Yield the records split by split in the file's order; see :class:`DataSet`.

        Raises:
            DataError: The file is absent, no such .npz, or its arrays have other shapes, types or labels.
        """
        try:
            path = resolve_inside(self._root, self._config.file)
        except DataError as error:
            raise DataError(
                f"data.file {self._config.file!r} in {self._root}: {error}; point --data at the folder that "
                "holds the file, or give its path below --data in data.file"
            ) from error
        arrays = _load(path)
        for split in SPLITS:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
            _check_images(path, split, images)
            classes = _class_numbers(path, split, labels, len(images), len(self._config.classes))
            for number, (image, label) in enumerate(zip(images, classes, strict=True)):
                yield self._record(f"{path.stem}/{split}/{number:06d}", split, image, int(label))

    def _record(self, name: str, split: str, image: NDArray[Any], label: int) -> Record:
        little = np.ascontiguousarray(image)
        content = hashlib.sha256(f"{little.dtype.str}{little.shape}".encode() + little.tobytes())
        return Record(
            record_id=name,
            content_id=content.hexdigest(),
            patient_id=name,
            label=self._config.classes[label],
            folder=name.split("/", 1)[0],
            read_pixels=partial(_grey, little),
            columns={"split": split},
        )


def _load(path: Path) -> dict[str, NDArray[Any]]:
    wanted = [f"{split}_{part}" for split in SPLITS for part in ("images", "labels")]
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise DataError(f"{path}: is one array (.npy); expected an .npz with {', '.join(wanted)}")
        with archive:
            missing = [name for name in wanted if name not in archive.files]
            if missing:
                raise DataError(
                    f"{path}: lacks {', '.join(missing)}; there is: {', '.join(archive.files) or 'nothing'}"
                )
            arrays = {name: archive[name] for name in wanted}
    except _UNREADABLE as error:
        raise DataError(f"{path}: is not a readable .npz of plain arrays ({type(error).__name__})") from error
    for array in arrays.values():
        # Records hand out views: whoever changed one would change what the next reader gets.
        array.flags.writeable = False
    return arrays


def _check_images(path: Path, split: str, images: NDArray[Any]) -> None:
    is_grey = images.ndim == 3
    is_colour = images.ndim == 4 and images.shape[3] == 3
    if images.dtype not in (np.uint8, np.uint16) or not (is_grey or is_colour) or 0 in images.shape[1:]:
        raise DataError(
            f"{path}: {split}_images has shape {images.shape} and type {images.dtype}; expected "
            "(images, rows, columns) or (images, rows, columns, 3) of uint8 or uint16"
        )


def _class_numbers(
    path: Path, split: str, labels: NDArray[Any], images: int, classes: int
) -> NDArray[np.integer[Any]]:
    if labels.shape not in ((images, 1), (images,)) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {split}_labels has shape {labels.shape} and type {labels.dtype}; expected one whole "
            f"number for each of the {images} images, shape ({images}, 1)"
        )
    flat: NDArray[np.integer[Any]] = labels.reshape(-1)
    if images and (int(flat.min()) < 0 or int(flat.max()) >= classes):
        raise DataError(
            f"{path}: {split}_labels holds {int(flat.min())} to {int(flat.max())}; data.classes names "
            f"{classes} classes, 0 to {classes - 1}. Name every class"
        )
    return flat


def _grey(image: NDArray[Any]) -> Pixels:
    """Return grey values; colour becomes luminance."""
    if image.ndim == 2:
        return image
    luminance = (image.astype(np.uint32) @ _LUMINANCE + 32768) >> 16
    return luminance.astype(image.dtype)
