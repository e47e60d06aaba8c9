"""Reader of the procedural phantom: a data set that needs no download and knows its ground truth."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from fedcad.shared.config.simulation import PhantomData
from fedcad.shared.errors import DataError
from fedcad.shared.seeds import numpy_generator
from fedcad.simulations.datasets.interface import Record
from fedcad.simulations.phantom.findings import Label, Nodule, Opacity
from fedcad.simulations.phantom.radiograph import Radiograph, draw_radiograph, render

_FOLDER = "phantom"


def _acquisition(radiograph: Radiograph) -> dict[str, str]:
    """Return the facts that the archive writes into DICOM attributes."""
    detector = radiograph.detector
    return {
        "modality": detector.modality,
        "vendor": detector.vendor,
        "model": detector.model,
        "view": radiograph.exposure.view,
        "photometric": detector.photometric,
        "bits_stored": str(detector.bits_stored),
        "pixel_spacing_mm": repr(round(radiograph.pixel_spacing_mm, 6)),
    }


def truth_of(radiograph: Radiograph) -> dict[str, object]:
    """Return the ground truth of one image.

    Returns:
        ``drawn``: the frozen record of all drawn values, from which image and mask can be rendered again.
        For a nodule also ``position_px`` (row, column; fractional, counted from the first pixel's centre),
        ``position_mm`` (patient coordinates, LPS), ``diameter_mm``, ``diameter_px``, ``spiculation``,
        ``lobulation``, ``density``, ``upper_lobe``, ``malignancy_points`` and ``malignant``. For an opacity
        ``position_px``, ``position_mm``, ``density`` and ``patches``.
    """
    truth: dict[str, object] = {"drawn": radiograph}
    finding, beam = radiograph.finding, radiograph.beam
    if finding is None:
        return truth
    centre_mm = finding.position_mm if isinstance(finding, Nodule) else finding.centre_mm
    row, column = beam.pixels(np.array(centre_mm))
    truth |= {
        "position_mm": centre_mm,
        "position_px": (float(row), float(column)),
        "density": finding.density,
    }
    if isinstance(finding, Opacity):
        return truth | {"patches": finding.patches}
    magnification = beam.magnification_at(np.array(centre_mm))
    return truth | {
        "diameter_mm": finding.diameter_mm,
        "diameter_px": finding.diameter_mm * magnification / beam.spacing_mm,
        "spiculation": finding.spiculation,
        "lobulation": finding.lobulation,
        "upper_lobe": finding.upper_lobe,
        "malignancy_points": finding.malignancy_points,
        "malignant": finding.malignant,
    }


@dataclass(frozen=True)
class PhantomDataSet:
    """Chest X-rays of invented patients, drawn from a seed and rendered when asked for.

    Guarantees:
        A record depends on the seed, the classes, the size and its own patient's and image's number only:
        more patients or more images leave the earlier ones as they are.
        Every run of ``len(classes)`` patients, counted from the first, has one patient of each class.

    Attributes:
        config: What to draw.
    """

    config: PhantomData

    def __post_init__(self) -> None:
        """Refuse classes named twice.

        Raises:
            DataError: A class is repeated.
        """
        classes = self.config.classes
        if len(set(classes)) != len(classes):
            raise DataError(
                f"data.classes is {list(classes)}, which names a class twice; expected each of them once. "
                "Remove the repetition: all classes are equally frequent"
            )

    def label_of(self, patient_index: int) -> Label:
        """Return a patient's class: blocks of patients hold every class once, in random order."""
        classes = self.config.classes
        block, place = divmod(patient_index, len(classes))
        order = numpy_generator(self.config.seed, "phantom-classes", block).permutation(len(classes))
        return classes[int(order[place])]

    def radiograph(self, patient_index: int, image_index: int) -> Radiograph:
        """Draw one image without rendering it."""
        label = self.label_of(patient_index)
        return draw_radiograph(
            self.config.seed, patient_index, image_index, label=label, size=self.config.size
        )

    def _record(self, patient_index: int, image_index: int) -> Record:
        """Make one record; its pixels are not rendered yet."""
        radiograph = self.radiograph(patient_index, image_index)
        patient_id = f"{_FOLDER}-{self.config.seed}-{patient_index:06d}"
        patient = radiograph.patient
        return Record(
            record_id=f"{_FOLDER}/{patient_id}/{image_index:02d}",
            content_id=radiograph.content_id(),
            patient_id=patient_id,
            label=radiograph.label,
            folder=_FOLDER,
            read_pixels=partial(render, radiograph),
            columns={"sex": patient.sex, "age_years": str(int(patient.age_years))},
            acquisition=_acquisition(radiograph),
            truth=truth_of(radiograph),
        )

    def records(self) -> Iterator[Record]:
        """Yield every record, by patient, then by image."""
        for patient_index in range(self.config.patients):
            for image_index in range(self.config.images_per_patient):
                yield self._record(patient_index, image_index)
