from dataclasses import FrozenInstanceError

import pytest

from fedcad.simulations.datasets.rejection import Rejection


def test_a_rejection_is_a_frozen_value() -> None:
    assert Rejection("a.png", "damaged") == Rejection("a.png", "damaged")
    with pytest.raises(FrozenInstanceError):
        Rejection("a.png", "damaged").reason = "other"  # type: ignore[misc]
