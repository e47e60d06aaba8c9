"""Seeds: the same for the same place, different for any other, in every process and version."""

import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.seeds import derive_seed, numpy_generator, torch_generator

places = st.lists(st.text(max_size=4) | st.integers(-5, 5), max_size=3)


def test_known_values_stay_for_ever() -> None:
    """Another seed for the same place would silently change every simulation."""
    assert derive_seed(1, "batches", "a", 3) == _by_hand('[1,"batches","a",3]')
    assert derive_seed(2**63 - 1, "é") == _by_hand('[9223372036854775807,"é"]')


def _by_hand(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") // 2


@given(st.integers(0, 3), st.text(max_size=3), places, st.integers(0, 3), st.text(max_size=3), places)
@settings(max_examples=100, deadline=None)
def test_different_places_have_different_seeds_of_63_bits(
    seed, purpose, where, seed_2, purpose_2, where_2
) -> None:  # type: ignore[no-untyped-def]
    one, other = (seed, purpose, *where), (seed_2, purpose_2, *where_2)
    assert 0 <= derive_seed(*one) < 2**63
    same_place = json.dumps(one) == json.dumps(other)
    assert (derive_seed(*one) == derive_seed(*other)) == same_place


def test_a_number_and_its_text_are_different_places() -> None:
    assert derive_seed(1, "a", 1) != derive_seed(1, "a", "1")


@pytest.mark.parametrize("where", [1.5 + 1j, np.int64(1), b"x", object()])
def test_what_is_not_a_name_or_number_is_refused(where: object) -> None:
    with pytest.raises(TypeError):
        derive_seed(1, "a", where)  # type: ignore[arg-type]


def test_generators_start_from_the_seed_and_leave_the_global_ones_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = torch.rand(3, generator=torch_generator(1, "a", "b"))
    assert torch.equal(one, torch.rand(3, generator=torch_generator(1, "a", "b")))
    assert not torch.equal(one, torch.rand(3, generator=torch_generator(1, "a", "c")))
    assert numpy_generator(1, "a").random() == numpy_generator(1, "a").random()
    assert numpy_generator(1, "a").random() != numpy_generator(2, "a").random()
    assert torch.equal(torch.random.get_rng_state(), before)
