import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.errors import DataError
from fedcad.simulations.acquisition import ACQUISITION_KEYS, Acquisition, parse_acquisition, view_position


def test_absent_and_empty_facts_take_the_defaults() -> None:
    assert parse_acquisition({}) == Acquisition()
    assert parse_acquisition(dict.fromkeys(ACQUISITION_KEYS, "")) == Acquisition()


def test_facts_become_numbers_and_enumerations() -> None:
    facts = {
        "modality": "dx",
        "photometric": "monochrome1",
        "bits_stored": "12",
        "pixel_spacing_mm": "0.2\\0.1",
        "window_center": "2000",
        "window_width": "3000.5",
        "lossy_method": "ISO_10918_1",
        "lossy_ratio": "9.5",
    }
    parsed = parse_acquisition(facts)
    assert (parsed.modality, parsed.photometric, parsed.bits_stored) == ("DX", "MONOCHROME1", 12)
    assert parsed.spacing_mm == (0.2, 0.1)
    assert parsed.window == (2000.0, 3000.5)
    assert parsed.lossy == ("ISO_10918_1", 9.5)


def test_one_spacing_is_that_of_rows_and_columns() -> None:
    assert parse_acquisition({"pixel_spacing_mm": "0.143"}).spacing_mm == (0.143, 0.143)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("modality", "MR"),
        ("photometric", "RGB"),
        ("bits_stored", "7"),
        ("bits_stored", "17"),
        ("bits_stored", "twelve"),
        ("bits_stored", "²"),
        ("pixel_spacing_mm", "0"),
        ("pixel_spacing_mm", "-1"),
        ("pixel_spacing_mm", "nan"),
        ("pixel_spacing_mm", "1 2 3"),
        ("body_part", "WING"),
        ("lossy_ratio", "much"),
    ],
)
def test_facts_that_no_object_can_carry_are_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(DataError, match=key):
        parse_acquisition({key: value})


def test_a_source_may_have_no_window() -> None:
    assert parse_acquisition({}).has_window
    assert not parse_acquisition({"window": "none"}).has_window


def test_a_window_narrower_than_one_grey_value_is_refused() -> None:
    with pytest.raises(DataError, match="window_width"):
        parse_acquisition({"window_center": "10", "window_width": "0.5"})


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("ap", "AP"),
        ("PA", "PA"),
        ("AP Supine", "AP"),
        ("AP_semi erect", "AP"),
        ("Lateral", "LL"),
        ("L", "LL"),
        ("frontal", None),
        ("", None),
        ("Axial", None),
    ],
)
def test_view_position(text: str, view: str | None) -> None:
    assert view_position(text) == view


@given(st.text())
@settings(deadline=None)
def test_any_text_gives_a_defined_term_or_none(text: str) -> None:
    assert view_position(text) in {None, "AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO"}


@given(st.dictionaries(st.sampled_from(ACQUISITION_KEYS), st.text(max_size=8)))
@settings(deadline=None)
def test_any_facts_are_parsed_or_refused(facts: dict[str, str]) -> None:
    try:
        parsed = parse_acquisition(facts)
    except DataError:
        return
    assert parsed.modality in ("CR", "DX")
    assert parsed.bits_stored is None or 8 <= parsed.bits_stored <= 16
