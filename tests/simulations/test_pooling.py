import numpy as np
import pytest
import tiny_study
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcad.simulations.pooling import PARTS, PooledCases


def sources(*counts):
    return [
        tiny_study.MemoryCases(dict(zip(PARTS, count, strict=True)), seed=seed)
        for seed, count in enumerate(counts)
    ]


def test_cases_are_one_behind_the_other():
    parts = sources((3, 1, 0), (0, 2, 1), (2, 0, 4))
    pooled = PooledCases(parts)
    for part in PARTS:
        assert pooled.labels(part) == [label for each in parts for label in each.labels(part)]
        count = len(pooled.labels(part))
        assert len(pooled.patients(part)) == count
        images = [each.inputs(part, range(len(each.labels(part))))["image"] for each in parts]
        assert torch.equal(pooled.inputs(part, range(count))["image"], torch.cat(images))
    assert pooled.summary() == {"sources": 3}


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=4), st.data())
def test_any_choice_in_any_order(counts, data):
    parts = sources(*counts)
    pooled = PooledCases(parts)
    everything = [(each, index) for each in parts for index in range(len(each.labels("train")))]
    if not everything:
        return
    chosen = data.draw(st.lists(st.integers(0, len(everything) - 1), min_size=1, max_size=9))
    images = pooled.inputs("train", chosen)["image"]
    assert images.dtype == torch.float32
    for row, number in zip(images, chosen, strict=True):
        source, index = everything[number]
        assert torch.equal(row, source.inputs("train", [index])["image"][0])


class WithSpacing(tiny_study.MemoryCases):
    """Has a second input, of another shape."""

    def inputs(self, part, indices):
        images = super().inputs(part, indices)["image"]
        return {"image": images, "spacing": images.flatten(1).sum(1)}


def test_every_named_input_comes_in_the_order_of_the_indices():
    pooled = PooledCases([WithSpacing({"train": 3}, seed=seed) for seed in range(3)])
    found = pooled.inputs("train", [8, 0, 4, 0, 7])
    assert list(found) == ["image", "spacing"]
    assert torch.equal(found["spacing"], found["image"].flatten(1).sum(1))


def test_no_indices_give_no_rows():
    assert PooledCases(sources((2, 0, 0), (1, 0, 0))).inputs("train", [])["image"].shape == (0, 1, 32, 32)


class SharedPatients(tiny_study.MemoryCases):
    """Numbers its patients over all parts, as an archive does."""

    def patients(self, part):
        first = {"train": 0, "validation": 10, "test": 20}[part]
        return np.arange(len(self.labels(part)), dtype=np.int64) + first


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_two_patients_share_a_number(count):
    parts = [SharedPatients({"train": 3, "validation": 2, "test": 2}) for _ in range(count)]
    pooled = PooledCases(parts)
    numbers = [number for part in PARTS for number in pooled.patients(part).tolist()]
    assert len(set(numbers)) == 7 * count
