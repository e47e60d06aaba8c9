"""Everything that training needs from one hospital: index, labels, cases, parts, pixels, in one call."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedcad.client.archive.cache import TensorCache
from fedcad.client.archive.cases import Case, build_cases, require_patients
from fedcad.client.archive.index import index_rejects, indexed_images, update_index
from fedcad.client.archive.labels import read_labels
from fedcad.client.archive.preprocessing import to_network_input
from fedcad.client.archive.reasons import Reject, count_reasons
from fedcad.client.archive.splits import PARTS, Part, split_cases
from fedcad.client.archive.vocabulary import known_vendor, known_view
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.config.study import PreprocessingConfig, StudyConfig
from fedcad.shared.errors import ArchiveError

Progress = Callable[[str, int, int], None]
"""Called with what is done (``index`` or ``decode``), how many are done, how many there are."""


@dataclass(frozen=True)
class _PartData:
    """Cases of one part and where their pixels are."""

    cases: tuple[Case, ...]
    slots: NDArray[np.int64]
    patients: NDArray[np.int64]


class SiteData:
    """The usable cases of one hospital, in three parts."""

    def __init__(
        self,
        parts: Mapping[Part, tuple[Case, ...]],
        *,
        cache: TensorCache,
        preprocessing: PreprocessingConfig,
        rejects: Sequence[Reject],
    ) -> None:
        """Look up where each case's pixels are; every case must be in the cache.

        Raises:
            DataError: A case is not in the cache.
        """
        names = sorted({case.patient for cases in parts.values() for case in cases})
        numbers = {patient: number for number, patient in enumerate(names)}
        self._cache = cache
        self._preprocessing = preprocessing
        self._parts = {
            part: _PartData(
                cases,
                cache.slots(cases),
                np.array([numbers[case.patient] for case in cases], dtype=np.int64),
            )
            for part, cases in parts.items()
        }
        self.rejects = tuple(rejects)

    def cases(self, part: Part) -> tuple[Case, ...]:
        """Return the cases of a part, sorted by case_id."""
        return self._parts[part].cases

    def patients(self, part: Part) -> NDArray[np.int64]:
        """Return the number of each case's patient, int64, shape (cases,); numbers count the site from 0."""
        return self._parts[part].patients

    def labels(self, part: Part) -> list[str]:
        """Return the label of each case of a part."""
        return [case.label for case in self._parts[part].cases]

    def inputs(self, part: Part, indices: Sequence[int] | NDArray[np.int64]) -> dict[str, Tensor]:
        """Return network inputs.

        Args:
            part: Which part.
            indices: Positions in ``cases(part)``, shape (B,).

        Returns:
            ``image`` float32, shape (B, 1, size, size), a copy.
        """
        slots = self._parts[part].slots[np.asarray(indices, dtype=np.int64)]
        return {"image": to_network_input(self._cache.gather(slots), self._preprocessing)}

    def summary(self) -> dict[str, Any]:
        """Return counts as plain data: no identifier, no text of a header.

        Counts of few patients can still say something about one; what leaves the site is decided elsewhere.
        """
        cases = [case for part in PARTS for case in self.cases(part)]
        return {
            "parts": {part: self._count(part) for part in PARTS},
            "vendors": _tally(known_vendor(case.facts.vendor) for case in cases),
            "views": _tally(known_view(case.facts.view) for case in cases),
            "rejects": {str(reason): count for reason, count in count_reasons(self.rejects)},
        }

    def _count(self, part: Part) -> dict[str, Any]:
        """Return counts of one part."""
        return {
            "patients": len(set(self.patients(part).tolist())),
            "cases": len(self.cases(part)),
            "labels": _tally(self.labels(part)),
        }


def _tally(names: Any) -> dict[str, int]:
    """Count names, in order of name."""
    return dict(sorted(Counter(names).items()))


def open_archive(
    site: SiteConfig,
    site_folder: Path,
    study: StudyConfig,
    *,
    external: bool = False,
    progress: Progress | None = None,
) -> SiteData:
    """Bring index and cache up to date and divide the cases.

    Args:
        site: The hospital's own file.
        site_folder: Folder that the site's paths are relative to: that of the site file.
        study: What is learned.
        external: The whole site is an external test set.
        progress: Told how far indexing and decoding are.

    Guarantees:
        The archive is only read. Files that cannot be used are left out with a reason before the division, so
        that the parts consist of usable cases. Interrupted at any moment, the next call goes on.

    Raises:
        ArchiveError: The archive cannot be read, or the state folder lies inside it.
        DataError: The label table cannot be used, or too few patients are usable.
    """
    archive, state = (site_folder / site.archive).resolve(), (site_folder / site.state).resolve()
    if state.is_relative_to(archive):
        raise ArchiveError(
            f"the state folder {state} lies inside the archive, which is only read; move it out"
        )
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = state / "index.sqlite"
    report = partial(progress, "index") if progress else None
    update_index(archive, database, progress=report)
    table = build_cases(
        indexed_images(database),
        read_labels(site_folder / site.labels),
        study.data,
        archive=archive,
        classes=study.task.classes,
    )
    rejects = [*index_rejects(database), *table.rejects]
    require_patients(table.cases, study.data, site=site.name, left_out=rejects)
    cache = TensorCache(state / "tensors", study.preprocessing)
    undecodable = cache.fill(table.cases, progress=partial(progress, "decode") if progress else None)
    rejects += undecodable
    lost = {reject.subject for reject in undecodable}
    cases = tuple(case for case in table.cases if case.case_id not in lost)
    require_patients(cases, study.data, site=site.name, left_out=rejects)
    parts = split_cases(cases, study.data.split, seed=study.seed, site=site.name, external=external)
    return SiteData(parts, cache=cache, preprocessing=study.preprocessing, rejects=rejects)
