"""A given study at this hospital: its cases, and whether a round fits into memory, disk and time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedcad.client.archive.cache import cache_key
from fedcad.client.archive.splits import PARTS
from fedcad.client.doctor.archive import about, duration, reasons_text
from fedcad.client.doctor.check import Finding, NotCheckable, Tell, failed, ok, warning
from fedcad.client.doctor.isolated import Outcome, run
from fedcad.client.doctor.machine import gib, memory_bytes
from fedcad.client.doctor.remembered import Remembered
from fedcad.client.doctor.study_file import StudyFile
from fedcad.shared.config.study import StudyConfig

LIMIT_S = 4 * 3600.0
"""The first reading of a large archive's headers takes an hour; it says all the time how far it is."""
_COMFORT = 0.5
"""Share of the deadline, or of the memory, above which a round is called tight."""


class Rehearsal:
    """The checks of one study at one site, answered by one run of :mod:`rehearsal`."""

    def __init__(self, given: StudyFile, request: Mapping[str, Any]) -> None:
        """Take the study and what :func:`fedcad.client.doctor.rehearsal.rehearse` needs."""
        self._study = given.study
        self._request = request
        self._tell: Tell = lambda _: None
        self._outcome = Remembered(self._run)

    def _run(self) -> Outcome:
        return run("fedcad.client.doctor.rehearsal", self._request, tell=self._tell, limit_s=LIMIT_S)

    def _rehearsed(self, tell: Tell) -> Outcome:
        self._tell = tell
        return self._outcome()

    def cases(self, tell: Tell) -> Finding:
        """Which cases the study gets here, and why others are left out."""
        outcome = self._rehearsed(tell)
        if "cases" in outcome.found:
            return judge_cases(self._study, outcome.found["cases"])
        return failed(
            outcome.refused or f"counting the cases {outcome.death}",
            "See the checks of the data above." if outcome.refused else "Report this to FedCAD.",
        )

    def training(self, tell: Tell) -> Finding:
        """Whether training steps work here, and what a round takes."""
        outcome = self._rehearsed(tell)
        if "training" in outcome.found:
            return judge_training(self._study, outcome.found["training"], outcome.found["cases"])
        if "cases" not in outcome.found or not outcome.found["cases"]["parts"]["train"]:
            raise NotCheckable("see 'cases'")
        if outcome.refused:
            return failed(outcome.refused, "Tell the coordinator if the study, not this site, is at fault.")
        return failed(
            f"the training process {outcome.death}",
            "Give this machine more memory, or ask the coordinator for a smaller batch_size.",
        )


def judge_cases(study: StudyConfig, cases: Mapping[str, Any]) -> Finding:
    """Judge a study's cases.

    Args:
        study: The study.
        cases: Number of ``patients``, counts by label for each of ``parts``, and ``left_out`` by reason.
    """
    parts, patients = cases["parts"], cases["patients"]
    lines = [f"{patients} patients (the study needs {study.data.minimum_patients})"]
    lines += [f"{part}: {_by_label(study, parts[part])}" for part in PARTS]
    lines += [f"left out: {reasons_text(cases['left_out'])}"] if cases["left_out"] else []
    found = "\n".join(lines)
    if patients < study.data.minimum_patients or not parts["train"]:
        return failed(found, _why_so_few(study))
    missing = [label for label in study.task.classes if not parts["train"].get(label)]
    if missing:
        return warning(
            found,
            f"No training case is labelled {', '.join(missing)}. If you have such cases, export them with "
            "exactly this label; else tell the coordinator.",
        )
    return ok(found)


def _by_label(study: StudyConfig, counts: Mapping[str, int]) -> str:
    labels = ", ".join(f"{counts.get(label, 0)} {label}" for label in study.task.classes)
    return f"{sum(counts.values())} cases ({labels})"


def _why_so_few(study: StudyConfig) -> str:
    data = study.data
    views = f", view {' or '.join(data.views)}" if data.views else ""
    return (
        f"The study takes modality {' or '.join(data.modalities)}{views} and the labels "
        f"{', '.join(study.task.classes)}. Compare with your export; the reasons above say what to change."
    )


def judge_training(study: StudyConfig, measured: Mapping[str, Any], cases: Mapping[str, Any]) -> Finding:
    """Judge what a few training steps took.

    Args:
        study: The study.
        measured: As reported by the rehearsal; times in seconds. ``device_bytes`` is 0 on the processor.
        cases: As for :func:`judge_cases`.
    """
    round_s = measured["steps"] * measured["step_s"] + measured["evaluation_s"]
    count = sum(sum(labels.values()) for labels in cases["parts"].values())
    deadline_s, peak = study.participation.deadline_s, measured["memory_bytes"]
    on_gpu = f", {gib(measured['device_bytes'])} on {measured['device']}" if measured["device_bytes"] else ""
    found = "\n".join(
        [
            f"{measured['parameters']:,} parameters, batches of {measured['batch']}: "
            f"{duration(measured['step_s'])} a step, {gib(peak)} of memory{on_gpu}",
            f"a round: {about(round_s)} for {measured['steps']} steps and the validation; the study "
            f"waits {duration(deadline_s)}; {study.rounds} rounds: {about(round_s * study.rounds)}",
            f"before the first round, once: {about(measured['decoding_s'] * count)} to decode {count} images",
        ]
    )
    if round_s > deadline_s:
        return failed(
            found,
            "This machine is too slow for the study: its rounds would be closed without you. Use a faster "
            "one, or ask the coordinator for a longer deadline_s or fewer local steps.",
        )
    _, free = memory_bytes()
    if round_s > _COMFORT * deadline_s:
        return warning(found, "There is little time to spare; ask the coordinator for a longer deadline_s.")
    if peak > free:
        return warning(found, f"Only {gib(free)} of memory are free now: close other programs, or add some.")
    return ok(found)


def cache_bytes(study: StudyConfig, labels: int, state: Path) -> int:
    """Return what a study will still write into the state folder, at most.

    Args:
        study: The study.
        labels: Number of labelled images: no more can become cases.
        state: The state folder; what its cache holds is written already.
    """
    pixels = labels * study.preprocessing.size**2 * 2
    cache = state / "tensors" / cache_key(study.preprocessing) / "pixels.int16"
    return max(0, pixels - (cache.stat().st_size if cache.is_file() else 0))
