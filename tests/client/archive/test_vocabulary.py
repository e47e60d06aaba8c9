"""Closed lists: real spellings are found, everything else is "other"."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.client.archive import vocabulary
from fedcad.client.archive.vocabulary import known_vendor, known_view
from fedcad.simulations import acquisition
from fedcad.simulations.phantom.vendors import DETECTORS
from fedcad.simulations.scanner_emulation import SCANNERS

COUNTED = {*vocabulary._NAMES.values(), "other", "unknown"}


@pytest.mark.parametrize(
    ("manufacturer", "vendor"),
    [
        ("GE MEDICAL SYSTEMS", "GE"),
        ('"GE Healthcare"', "GE"),
        ("General Electric", "GE"),
        ("SIEMENS", "Siemens"),
        ("Siemens Healthineers", "Siemens"),
        ("Philips Medical Systems", "Philips"),
        ("FUJIFILM Corporation", "Fujifilm"),
        ("FUJI PHOTO FILM Co., ltd.", "Fujifilm"),
        ("CANON_MEC", "Canon"),
        ("Agfa-Gevaert", "Agfa"),
        ("CARESTREAM HEALTH", "Carestream"),
        ("EASTMAN KODAK COMPANY", "Kodak"),
        ("KONICA MINOLTA", "Konica Minolta"),
        ("Samsung Electronics", "Samsung"),
        ("TOSHIBA_MEC", "Toshiba"),
        ("  hologic, Inc.", "Hologic"),
        ("", "unknown"),
        (" ", "unknown"),
        ("Gesine Müller", "other"),
        ("Doe^Jane", "other"),
        ("Doe^Jane Siemens", "other"),
        ("Siemensstadt", "other"),
        ("???", "other"),
    ],
)
def test_vendors(manufacturer, vendor):
    assert known_vendor(manufacturer) == vendor


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("PA", "PA"),
        (" ap ", "AP"),
        ("LLO", "LLO"),
        ("", "unknown"),
        ("Doe^Jane", "other"),
        ("PA Doe", "other"),
    ],
)
def test_views(text, view):
    assert known_view(text) == view


@given(st.text())
def test_nothing_but_the_lists_is_ever_counted(text):
    assert known_vendor(text) in COUNTED
    assert known_vendor(f"Siemens {text}") == "Siemens"
    assert known_view(text) in {*vocabulary.VIEWS, "other", "unknown"}


def test_vendors_of_simulations_are_told_apart():
    names = [source.vendor for source in (*DETECTORS, *SCANNERS)]
    assert [known_vendor(name) for name in names] == names


def test_views_are_those_that_the_dicom_writer_writes():
    assert set(vocabulary.VIEWS) == set(acquisition.VIEWS)
