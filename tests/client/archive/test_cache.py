"""The tensor cache: once decoded, never again; killed, shared or damaged, never wrong."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from case_factory import make_facts
from dicom_factory import gradient, uid, write, xray

from fedcad.client.archive import cache as cache_module
from fedcad.client.archive.cache import TensorCache, cache_key
from fedcad.client.archive.cases import Case
from fedcad.client.archive.pixels import read_display_pixels
from fedcad.client.archive.preprocessing import preprocess
from fedcad.client.archive.reasons import Reason
from fedcad.shared.config.study import PreprocessingConfig
from fedcad.shared.errors import DataError

FORK = multiprocessing.get_context("fork")
CONFIG = PreprocessingConfig(size=16)


def make_case(folder: Path, number: int) -> Case:
    pixels = np.random.default_rng(number).integers(0, 4096, (20, 24)).astype(np.uint16)
    path = write(folder / f"{number}.dcm", xray(pixels, number=number, WindowCenter=2048, WindowWidth=4096))
    return identify(path, number)


def identify(path: Path, number: int) -> Case:
    status = path.stat()
    return Case(uid(number), f"P{number}", "a", path, status.st_size, status.st_mtime_ns, make_facts())


def expected(case: Case) -> np.ndarray:
    return preprocess(read_display_pixels(case.path), CONFIG)


def check(cache: TensorCache, cases: list[Case]) -> None:
    images = cache.gather(cache.slots(cases))
    assert images.shape == (len(cases), 16, 16)
    for image, case in zip(images.numpy(), cases, strict=True):
        np.testing.assert_array_equal(image, expected(case))


def test_gathers_what_was_decoded_in_any_order(tmp_path):
    cases = [make_case(tmp_path / "a", n) for n in range(5)]
    cache = TensorCache(tmp_path / "cache", CONFIG)
    calls: list[tuple[int, int]] = []
    assert cache.fill(cases, progress=lambda done, total: calls.append((done, total))) == ()
    assert calls == [(5, 5)]
    check(cache, [cases[n] for n in (3, 0, 0, 4)])


def test_a_second_fill_and_a_restart_decode_only_what_is_new(tmp_path, monkeypatch):
    cases = [make_case(tmp_path / "a", n) for n in range(4)]
    TensorCache(tmp_path / "cache", CONFIG).fill(cases[:3])
    decoded: list[Path] = []

    def spy(path, **kwargs):
        decoded.append(path)
        return read_display_pixels(path, **kwargs)

    monkeypatch.setattr(cache_module, "read_display_pixels", spy)
    again = TensorCache(tmp_path / "cache", CONFIG)
    again.fill(cases)
    assert decoded == [cases[3].path]
    check(again, cases)


def test_the_intensity_shares_a_cache_and_everything_else_does_not():
    assert cache_key(CONFIG) == cache_key(PreprocessingConfig(size=16, intensity="standardise"))
    others = [{"size": 17}, {"crop_top": 0.1}, {"square": "pad"}]
    assert len({cache_key(PreprocessingConfig(**{"size": 16, **other})) for other in ({}, *others)}) == 4


def test_a_changed_file_is_decoded_again_and_its_old_slot_left_to_readers(tmp_path):
    case = make_case(tmp_path / "a", 1)
    cache = TensorCache(tmp_path / "cache", CONFIG)
    cache.fill([case])
    old, before = cache.slots([case]), expected(case)
    write(case.path, xray(gradient(20, 24), number=1, WindowCenter=100, WindowWidth=200))
    os.utime(case.path, ns=(5, 5))
    changed = identify(case.path, 1)
    cache.fill([changed])
    check(cache, [changed])
    np.testing.assert_array_equal(cache.gather(old)[0].numpy(), before)


def test_undecodable_files_become_rejects_and_stay_so(tmp_path):
    good, bad = make_case(tmp_path / "a", 1), make_case(tmp_path / "a", 2)
    bad.path.write_bytes(bad.path.read_bytes()[:-9])
    bad = identify(bad.path, 2)
    cache = TensorCache(tmp_path / "cache", CONFIG)
    for _ in range(2):
        (reject,) = cache.fill([good, bad])
        assert (reject.reason, reject.subject) == (Reason.TRUNCATED, bad.case_id)
    check(cache, [good])


def test_a_file_that_changes_or_vanishes_after_indexing_is_a_temporary_reject(tmp_path):
    case, gone = make_case(tmp_path / "a", 1), make_case(tmp_path / "a", 2)
    gone.path.rename(tmp_path / "moved")
    cache = TensorCache(tmp_path / "cache", CONFIG)
    rejects = cache.fill([replace(case, mtime_ns=1), gone])
    assert [reject.reason for reject in rejects] == [Reason.CHANGED_WHILE_READING, Reason.UNREADABLE]
    (tmp_path / "moved").rename(gone.path)
    assert cache.fill([case, gone]) == ()
    check(cache, [case, gone])


def test_files_are_private(tmp_path):
    cache = TensorCache(tmp_path / "cache", CONFIG)
    cache.fill([make_case(tmp_path / "a", 1)])
    assert {path.stat().st_mode & 0o777 for path in cache.folder.iterdir()} == {0o600}
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_a_lost_pixel_file_is_written_anew(tmp_path):
    cases = [make_case(tmp_path / "a", n) for n in range(3)]
    cache = TensorCache(tmp_path / "cache", CONFIG)
    cache.fill(cases)
    os.truncate(cache.folder / "pixels.int16", 2 * 16 * 16)
    again = TensorCache(tmp_path / "cache", CONFIG)
    again.fill(cases)
    check(again, cases)


def test_a_damaged_table_and_missing_cases_are_data_errors(tmp_path):
    cache = TensorCache(tmp_path / "cache", CONFIG)
    with pytest.raises(DataError, match="fill it first"):
        cache.slots([make_case(tmp_path / "a", 1)])
    (cache.folder / "slots.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(DataError, match="remove the folder"):
        TensorCache(tmp_path / "cache", CONFIG)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be made"):
        TensorCache(tmp_path / "file", CONFIG)


def test_an_empty_gather(tmp_path):
    cache = TensorCache(tmp_path / "cache", CONFIG)
    assert cache.fill([]) == ()
    assert cache.gather(cache.slots([])).shape == (0, 16, 16)


def fill_and_die(folder: Path, moment: str) -> None:
    """Fill a cache in chunks of 3 and end by SIGKILL at a moment; runs in a process of its own."""
    append, read = TensorCache._append, read_display_pixels
    written: list[int] = []

    def dying_append(self, images, slot):
        written.append(slot)
        if moment == "half" and len(written) == 2:
            images = [image + 1 for image in images[:2]]  # wrong pixels reach the disk
        append(self, images, slot)
        if moment != "decode" and len(written) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_read(path, **kwargs):
        if moment == "decode" and path.name == "4.dcm":
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path, **kwargs)

    cache_module._CHUNK = 3
    TensorCache._append = dying_append
    cache_module.read_display_pixels = dying_read
    cases = [identify(folder / "a" / f"{number}.dcm", number) for number in range(8)]
    TensorCache(folder / "cache", CONFIG).fill(cases)


def run_killed(folder: Path, moment: str) -> None:
    process = FORK.Process(target=fill_and_die, args=(folder, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["half", "whole"])
def test_killed_between_writing_and_committing_the_slots_are_written_anew(tmp_path, moment):
    cases = [make_case(tmp_path / "a", n) for n in range(8)]
    run_killed(tmp_path, moment)
    cache = TensorCache(tmp_path / "cache", CONFIG)
    with pytest.raises(DataError, match="5 of 8"):
        cache.slots(cases)
    check(cache, cases[:3])
    calls: list[tuple[int, int]] = []
    assert cache.fill(cases, progress=lambda done, total: calls.append((done, total))) == ()
    assert calls == [(5, 5)]
    check(cache, cases)


def test_a_file_that_kills_the_process_is_left_out_after_three_deaths(tmp_path):
    cases = [make_case(tmp_path / "a", n) for n in range(8)]
    for _ in range(3):
        run_killed(tmp_path, "decode")
    cache = TensorCache(tmp_path / "cache", CONFIG)
    (reject,) = cache.fill(cases)
    assert (reject.reason, reject.subject) == (Reason.DECODER_CRASHED, cases[4].case_id)
    check(cache, [case for case in cases if case is not cases[4]])


def fill_in_process(folder: Path, cases: list[Case], barrier) -> None:
    barrier.wait()
    cache = TensorCache(folder, CONFIG)
    cache.fill(cases)
    check(cache, cases)


def test_two_processes_may_fill_at_once(tmp_path):
    cases = [make_case(tmp_path / "a", n) for n in range(40)]
    barrier = FORK.Barrier(3)
    parts = (cases, cases[::-1], cases[10:30])
    processes = [FORK.Process(target=fill_in_process, args=(tmp_path / "c", part, barrier)) for part in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    cache = TensorCache(tmp_path / "c", CONFIG)
    check(cache, cases)
    assert (cache.folder / "pixels.int16").stat().st_size == 40 * 16 * 16 * 2  # nothing is there twice


def test_an_open_reader_sees_what_another_process_adds(tmp_path):
    first, second = make_case(tmp_path / "a", 1), make_case(tmp_path / "a", 2)
    reader = TensorCache(tmp_path / "cache", CONFIG)
    reader.fill([first])
    check(reader, [first])
    TensorCache(tmp_path / "cache", CONFIG).fill([second])
    check(reader, [first, second])
