import random
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.config.simulation import (
    ByAcquisition,
    ByColumn,
    ByFolder,
    Dirichlet,
    FeatureShift,
    Iid,
    PartitionConfig,
    QuantitySkew,
)
from fedcad.shared.errors import DataError
from fedcad.simulations.datasets.interface import Pixels, Record
from fedcad.simulations.partition import Partition, partition
from fedcad.simulations.scanner_emulation import SCANNERS

CONFIGS: tuple[PartitionConfig, ...] = (
    ByFolder(kind="folder"),
    ByColumn(kind="column", column="country"),
    ByAcquisition(kind="acquisition", attribute="view"),
    Iid(kind="iid", sites=3),
    Dirichlet(kind="dirichlet", sites=2, alpha=1.0),
    QuantitySkew(kind="quantity", sites=3, ratio=0.6),
    FeatureShift(kind="feature-shift", sites=3),
)


def _no_pixels() -> Pixels:
    return np.zeros((1, 1), dtype=np.uint8)


def _record(number: int, patient: int, label: str, place: str, view: str) -> Record:
    return Record(
        record_id=f"r{number:03d}",
        content_id=f"{number:064x}",
        patient_id=f"p{patient:03d}",
        label=label,
        folder=place or "nowhere",
        read_pixels=_no_pixels,
        columns={"country": place},
        acquisition={"view": view},
    )


@st.composite
def _data_sets(draw: st.DrawFn) -> list[Record]:
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 15),
                st.sampled_from(["normal", "opacity", "nodule"]),
                st.sampled_from(["Korea", "korea", "USA", "Österreich", ""]),
                st.sampled_from(["AP", "PA", ""]),
            ),
            min_size=1,
            max_size=40,
        )
    )
    return [_record(number, *row) for number, row in enumerate(rows)]


def _try(records: Sequence[Record], config: PartitionConfig, minimum: int) -> Partition | str:
    try:
        return partition(records, config, seed=7, minimum_patients=minimum)
    except DataError as error:
        return str(error)


@given(_data_sets(), st.sampled_from(CONFIGS), st.integers(1, 3), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_guarantees(
    records: list[Record], config: PartitionConfig, minimum: int, chance: random.Random
) -> None:
    result = _try(records, config, minimum)
    shuffled = list(records)
    chance.shuffle(shuffled)
    assert _try(shuffled, config, minimum) == result, "depends on the order of the records"
    if isinstance(result, str):
        return
    placed = [record for held in result.sites.values() for record in held]
    assert len({record.record_id for record in placed}) == len(placed), "a record is at two sites"
    patients = [{record.patient_id for record in held} for held in result.sites.values()]
    assert len(set().union(*patients)) == sum(map(len, patients)), "a patient is split"
    assert all(len(held) >= minimum for held in patients)
    left_out = {record.patient_id for record in records} - set().union(*patients)
    stated = sum(int(re.match(r"(\d+) patients", reason).group(1)) for _, reason in result.excluded)
    assert len(left_out) == stated, "a record is lost without a reason"
    whole = {patient: sum(r.patient_id == patient for r in records) for patient in set().union(*patients)}
    assert len(placed) == sum(whole.values()), "a patient lost a record"
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name) for name in result.sites)


def _simple(places: Sequence[str]) -> list[Record]:
    return [_record(number, number, "normal", place, "AP") for number, place in enumerate(places)]


def test_folders_become_sites_and_small_ones_are_named() -> None:
    result = partition(_simple(["a", "a", "b"]), ByFolder(kind="folder"), seed=1, minimum_patients=2)
    assert {name: len(held) for name, held in result.sites.items()} == {"a": 2}
    assert result.excluded == (("b", "1 patients, fewer than minimum_patients 2"),)


def test_records_without_a_value_are_excluded_by_name() -> None:
    config = ByColumn(kind="column", column="country")
    result = partition(_simple(["Korea", ""]), config, seed=1, minimum_patients=1)
    assert list(result.sites) == ["korea"]
    assert result.excluded == (("(empty)", "1 patients have no value"),)
    assert result.notes == ()


def test_only_names_that_a_reader_would_not_recognise_are_explained() -> None:
    places = ["Vendor A", "vendor b!", "Österreich", "Ost-Spital 3", "x", "X"]
    result = partition(_simple(places), ByFolder(kind="folder"), seed=1, minimum_patients=1)
    assert {"vendor-a", "vendor-b", "osterreich", "ost-spital-3", "x"} < set(result.sites)
    [note] = result.notes
    [renamed] = [name for name in result.sites if name.startswith("x-")]
    assert note == f"X is called {renamed}, Österreich is called osterreich"


def test_a_patient_at_two_values_stays_whole_at_the_most_frequent() -> None:
    records = [
        _record(0, 0, "normal", "x", "PA"),
        _record(1, 0, "normal", "x", "AP"),
        _record(2, 0, "normal", "x", "PA"),
        _record(3, 1, "normal", "x", "AP"),
    ]
    config = ByAcquisition(kind="acquisition", attribute="view")
    result = partition(records, config, seed=1, minimum_patients=1)
    assert {name: [r.record_id for r in held] for name, held in result.sites.items()} == {
        "ap": ["r003"],
        "pa": ["r000", "r001", "r002"],
    }
    assert result.notes[0].startswith("1 patients have records at more than one view")


def test_a_known_value_wins_over_an_empty_one() -> None:
    records = [_record(n, 0, "normal", place, "") for n, place in enumerate(["", "", "Korea"])]
    config = ByColumn(kind="column", column="country")
    assert len(partition(records, config, seed=1, minimum_patients=1).sites["korea"]) == 3


def test_an_unknown_column_is_refused_with_what_is_there() -> None:
    with pytest.raises(DataError, match="'hospital'; the data set has the columns country"):
        partition(_simple(["a"]), ByColumn(kind="column", column="hospital"), seed=1, minimum_patients=1)


def test_no_site_left_is_refused() -> None:
    with pytest.raises(DataError, match="no site is left: 2 sources, none with minimum_patients 2"):
        partition(_simple(["a", "b"]), ByFolder(kind="folder"), seed=1, minimum_patients=2)


def test_no_records_and_records_twice_are_refused() -> None:
    with pytest.raises(DataError, match="no usable record"):
        partition([], ByFolder(kind="folder"), seed=1, minimum_patients=1)
    twice = [_record(1, 1, "normal", "a", ""), _record(1, 2, "normal", "a", "")]
    with pytest.raises(DataError, match="record_id twice"):
        partition(twice, ByFolder(kind="folder"), seed=1, minimum_patients=1)
    with pytest.raises(DataError, match="record_id twice"):
        partition([twice[0], twice[0]], ByFolder(kind="folder"), seed=1, minimum_patients=1)


def test_sites_without_a_patient_are_excluded_by_name() -> None:
    result = partition(_simple(["a", "a"]), Iid(kind="iid", sites=12), seed=1, minimum_patients=1)
    assert list(result.sites) == ["site-01", "site-02"]
    assert len(result.excluded) == 10
    assert result.excluded[0] == ("site-03", "0 patients, fewer than minimum_patients 1")


def test_iid_is_stratified_by_patient() -> None:
    records = [_record(n, n, "normal" if n < 8 else "nodule", "a", "") for n in range(12)]
    result = partition(records, Iid(kind="iid", sites=4), seed=1, minimum_patients=1)
    for held in result.sites.values():
        assert sorted(record.label for record in held) == ["nodule", "normal", "normal"]


def test_feature_shift_gives_each_site_a_scanner() -> None:
    config = FeatureShift(kind="feature-shift", sites=7)
    result = partition(_simple(["a"] * 14), config, seed=1, minimum_patients=1)
    assert [result.scanners[name] for name in result.sites] == [*SCANNERS, SCANNERS[0]]
    assert result.notes == ("only 6 scanners are emulated, so 1 sites have one that another site has too",)


def test_the_study_seed_decides() -> None:
    records = _simple(["a"] * 30)
    config = Iid(kind="iid", sites=3)
    one = partition(records, config, seed=1, minimum_patients=1)
    assert partition(records, config, seed=1, minimum_patients=1) == one
    assert partition(records, config, seed=2, minimum_patients=1) != one
