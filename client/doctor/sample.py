"""A bounded look into the archive: some headers, a few decoded images, whether the label table knows them.

Runs as ``python -m fedcad.client.doctor.sample`` in a process of its own: see :mod:`isolated`.
"""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedcad.client.archive.facts import ImageFacts, read_facts
from fedcad.client.archive.labels import read_labels
from fedcad.client.archive.pixels import read_display_pixels
from fedcad.client.archive.reasons import Reason, Reject, UnusableFile, count_reasons
from fedcad.client.archive.walk import Found, walk_archive
from fedcad.client.doctor.isolated import Reporter, serve
from fedcad.shared.errors import DataError

MOST_HEADERS = 300
MOST_IMAGES = 12
PART_S = 20.0
"""Seconds for each part; what was looked at until then is the sample."""
_TELL_EVERY = 2000
_LINKS = {
    Reason.SYMBOLIC_LINK: "the path is a symbolic link; links are not followed",
    Reason.UNREADABLE: "the file or folder cannot be read; grant read access",
}


def take_sample(request: dict[str, Any], reporter: Reporter) -> None:
    """Look into an archive and report ``files``, ``headers``, ``labels`` and ``images``, in this order.

    Args:
        request: Paths ``archive`` and ``labels``.
        reporter: Where to; nothing reported says anything about a patient.

    Raises:
        ArchiveError: The archive cannot be listed.
    """
    archive = Path(request["archive"])
    chosen, files, whole = _choose(archive, reporter)
    reporter.report("files", {"count": files, "whole": whole})
    usable = _read_headers(archive, chosen, reporter)
    _match([facts for _, facts in usable], Path(request["labels"]), reporter)
    _decode([path for path, _ in usable], reporter)


def _choose(archive: Path, reporter: Reporter) -> tuple[list[Found], int, bool]:
    """Walk for a while and keep entries at random, each with equal probability (reservoir sampling).

    Returns:
        The entries, in random order, how many there were, and whether the walk came to its end.

    References:
        Vitter (1985), Random sampling with a reservoir, algorithm R.
    """
    generator, end = random.Random(0), time.monotonic() + PART_S
    chosen: list[Found] = []
    files, whole = 0, True
    for found in walk_archive(archive):
        files += 1
        if len(chosen) < MOST_HEADERS:
            chosen.append(found)
        elif (place := generator.randrange(files)) < MOST_HEADERS:
            chosen[place] = found
        if files % _TELL_EVERY == 0:
            reporter.tell(f"{files} files listed")
            if time.monotonic() > end:
                whole = False
                break
    generator.shuffle(chosen)
    return chosen, files, whole


def _read_headers(
    archive: Path, chosen: Sequence[Found], reporter: Reporter
) -> list[tuple[Path, ImageFacts]]:
    """Read headers until the time is over; report counts, reasons and seconds."""
    start = time.monotonic()
    usable: list[tuple[Path, ImageFacts]] = []
    rejects: list[Reject] = []
    for found in chosen:
        if time.monotonic() - start > PART_S:
            break
        path = archive / found.path
        try:
            if found.reason is not None:
                raise UnusableFile(found.reason, _LINKS[found.reason])
            usable.append((path, read_facts(path)))
        except UnusableFile as error:
            rejects.append(Reject(reason=error.reason, subject="", sentence=error.sentence))
    counts = {"usable": len(usable), "unusable": summarise(rejects), "seconds": time.monotonic() - start}
    reporter.report("headers", counts)
    return usable


def summarise(rejects: Sequence[Reject]) -> list[dict[str, Any]]:
    """Return reasons with their number and one sentence each, most frequent first; no subject."""
    sentences = {reject.reason: reject.sentence for reject in reversed(rejects)}
    return [
        {"reason": str(reason), "count": count, "sentence": sentences[reason]}
        for reason, count in count_reasons(rejects)
    ]


def _match(usable: Sequence[ImageFacts], labels: Path, reporter: Reporter) -> None:
    """Report how many images of the sample the label table knows, and under the same patient."""
    try:
        patients = {row.sop_instance_uid: row.patient_id for row in read_labels(labels).rows}
    except DataError:
        return  # the check of the label table says why
    known = [facts for facts in usable if facts.sop_instance_uid in patients]
    same = sum(patients[facts.sop_instance_uid] == facts.patient_id for facts in known)
    reporter.report("labels", {"images": len(usable), "known": len(known), "same_patient": same})


def _decode(paths: Sequence[Path], reporter: Reporter) -> None:
    """Decode a few images until the time is over; report after each: a decoder may end the process."""
    end = time.monotonic() + PART_S
    rejects: list[Reject] = []
    reporter.report("images", {"decoded": 0, "unusable": []})
    for number, path in enumerate(paths[:MOST_IMAGES], start=1):
        if time.monotonic() > end:
            break
        reporter.tell(f"decoding image {number}")
        try:
            read_display_pixels(path)
        except UnusableFile as error:
            rejects.append(Reject(reason=error.reason, subject="", sentence=error.sentence))
        reporter.report("images", {"decoded": number - len(rejects), "unusable": summarise(rejects)})


if __name__ == "__main__":
    serve(take_sample)
