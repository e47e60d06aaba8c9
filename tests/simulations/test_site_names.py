import re

from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.simulations.site_names import name_sites

PATTERN = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")


def test_site_names_are_kept_and_others_written_in_ascii() -> None:
    assert name_sites(["cxr_nih", "Saudi Arabia", "Zürich/USZ"]) == {
        "cxr_nih": "cxr_nih",
        "Saudi Arabia": "saudi-arabia",
        "Zürich/USZ": "zurich-usz",
    }


def test_of_two_that_collide_the_one_that_had_to_change_gets_a_suffix() -> None:
    named = name_sites(["korea", "Korea"])
    assert named["korea"] == "korea"
    assert re.fullmatch(r"korea-[0-9a-f]{8}", named["Korea"])


def test_names_without_a_latin_letter_still_get_a_name() -> None:
    named = name_sites(["北京", "上海"])
    assert len(set(named.values())) == 2
    assert all(PATTERN.fullmatch(name) for name in named.values())


@given(st.lists(st.text(max_size=80), max_size=12))
@settings(deadline=None)
def test_every_source_gets_a_valid_name_of_its_own_in_any_order(raw: list[str]) -> None:
    named = name_sites(raw)
    assert set(named) == set(raw)
    assert len(set(named.values())) == len(named)
    assert all(PATTERN.fullmatch(name) for name in named.values())
    assert name_sites(reversed(raw)) == named


def test_names_that_results_use_are_not_given_to_a_site() -> None:
    named = name_sites(["union", "Pooled", "other"])
    assert named["other"] == "other"
    assert named["union"].startswith("union-")
    assert named["Pooled"].startswith("pooled-")
