"""Exact sums: the same bits in any order and grouping, refused before anything changes."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from fedcad.server.aggregation import (
    BLOCK,
    FRACTION_BITS,
    LIMIT,
    SCALE,
    SMALL,
    Aggregator,
    ExactSum,
)
from fedcad.server.spill import Spill
from fedcad.shared.errors import InvalidUpdate
from fedcad.shared.messages import LARGEST_WEIGHT

SIZE = 5
vectors = arrays(np.float32, SIZE, elements=st.floats(-100, 100, width=32))
weights = st.integers(1, 10_000)
updates = st.lists(st.tuples(vectors, weights), min_size=1, max_size=6)
Updates = list[tuple[Any, int]]


TOTAL = 100_000
"""Σ weight that most sums here are opened for; values must stay below 2³⁰ / 100 000."""


def summed(pairs: Updates) -> ExactSum:
    total = ExactSum(SIZE, total_weight=TOTAL)
    for vector, weight in pairs:
        total.add(torch.from_numpy(vector), weight=weight)
    return total


def fixed_point(value: Any) -> int:
    """The float32 value in units of 2⁻³², halves to even, in Python's unbounded integers."""
    return round(float(value) * 2**FRACTION_BITS)


def state_of(total: ExactSum) -> tuple[Any, ...]:
    return total.total.tolist(), total.weight, total.count


@given(updates)
@settings(max_examples=60, deadline=None)
def test_the_sum_is_the_big_integer_sum(pairs: Updates) -> None:
    expected = [sum(weight * fixed_point(vector[i]) for vector, weight in pairs) for i in range(SIZE)]
    assert summed(pairs).total.tolist() == expected


@given(updates, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_order_and_any_grouping_give_the_same_bits(pairs: Updates, random: Any) -> None:
    whole = summed(pairs)
    shuffled = list(pairs)
    random.shuffle(shuffled)
    cuts = sorted(random.randint(0, len(pairs)) for _ in range(2))
    groups = [shuffled[: cuts[0]], shuffled[cuts[0] : cuts[1]], shuffled[cuts[1] :]]
    random.shuffle(groups)
    combined = ExactSum(SIZE, total_weight=TOTAL)
    for group in filter(None, groups):
        combined.combine(summed(group))
    assert torch.equal(combined.total, whole.total)
    assert (combined.weight, combined.count) == (whole.weight, whole.count)
    assert combined.mean().numpy().tobytes() == whole.mean().numpy().tobytes()


@given(updates)
@settings(max_examples=60, deadline=None)
def test_the_mean_is_the_float64_mean_within_one_float32_rounding(pairs: Updates) -> None:
    total = sum(weight * vector.astype(np.float64) for vector, weight in pairs)
    reference = total / sum(weight for _, weight in pairs)
    # Half a unit of the fixed point comes from rounding values below 2⁻⁹, which float32 resolves finer.
    bound = np.spacing(np.abs(reference).astype(np.float32)).astype(np.float64) + 2.0 ** -(FRACTION_BITS + 1)
    assert (np.abs(summed(pairs).mean().numpy().astype(np.float64) - reference) <= bound).all()


def test_a_mean_worked_by_hand() -> None:
    total = ExactSum(2, total_weight=TOTAL)
    total.add(torch.tensor([1.0, -2.0]), weight=3)
    total.add(torch.tensor([5.0, 6.0]), weight=1)
    assert total.total.tolist() == [8 * 2**32, 0]
    assert (total.weight, total.count) == (4, 2)
    assert total.mean().tolist() == [2.0, 0.0]
    assert total.mean().dtype == torch.float32


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_blocks_have_no_seams(size: int) -> None:
    vector = torch.linspace(-3, 7, size) if size else torch.zeros(0)
    total = ExactSum(size, total_weight=TOTAL)
    total.add(vector, weight=2)
    assert torch.equal(total.total, (vector.double() * SCALE).round().long() * 2)
    total.add(vector, weight=1)
    torch.testing.assert_close(total.mean(), vector, rtol=0, atol=2e-10)


def test_a_view_with_gaps_is_added_like_its_copy() -> None:
    gaps = torch.arange(10.0)[::2]
    one, other = ExactSum(5, total_weight=TOTAL), ExactSum(5, total_weight=TOTAL)
    one.add(gaps, weight=1)
    other.add(gaps.clone(), weight=1)
    assert torch.equal(one.total, other.total)


def test_halves_go_to_even_whatever_the_sign() -> None:
    unit = 2.0**-FRACTION_BITS
    total = ExactSum(4, total_weight=TOTAL)
    total.add(torch.tensor([0.5, 1.5, -0.5, -1.5]) * unit, weight=1)
    assert total.total.tolist() == [0, 2, 0, -2]


# Refusals change nothing.

REFUSED: dict[str, tuple[Any, Any]] = {
    "nan": (torch.tensor([0, np.nan, 0, 0, 0]), 1),
    "infinity": (torch.tensor([0, 0, 0, 0, np.inf]), 1),
    "minus infinity": (torch.tensor([-np.inf, 0, 0, 0, 0]), 1),
    "short": (torch.zeros(4), 1),
    "long": (torch.zeros(6), 1),
    "matrix": (torch.zeros(5, 1), 1),
    "scalar": (torch.tensor(0.0), 1),
    "float64": (torch.zeros(5, dtype=torch.float64), 1),
    "integers": (torch.zeros(5, dtype=torch.int64), 1),
    "half": (torch.zeros(5, dtype=torch.float16), 1),
    "no weight": (torch.zeros(5), 0),
    "negative weight": (torch.zeros(5), -3),
    "weight beyond the protocol": (torch.zeros(5), LARGEST_WEIGHT + 1),
    "weight beyond int64": (torch.zeros(5), 2**70),
    "too large": (torch.full((5,), 2.0**31), 1),
    "too large for all weights": (torch.full((5,), -10738.0), 1),
    "weight beyond the announced total": (torch.zeros(5), TOTAL - 6),
    "largest float": (torch.full((5,), torch.finfo(torch.float32).max), 1),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_added_is_refused_and_leaves_the_sum(kind: str) -> None:
    vector, weight = REFUSED[kind]
    total = ExactSum(5, total_weight=TOTAL)
    total.add(torch.arange(5.0), weight=7)
    before = state_of(total)
    with pytest.raises(InvalidUpdate):
        total.add(vector, weight=weight)
    assert state_of(total) == before


whole = st.lists(
    st.tuples(st.floats(0, 2.0**31, width=32), st.integers(1, LARGEST_WEIGHT)), min_size=1, max_size=12
)


@given(whole, st.sampled_from([-1.0, 1.0]))
@settings(max_examples=150, deadline=None)
def test_whatever_is_accepted_never_overflows(pairs: list[tuple[float, int]], sign: float) -> None:
    total, exact = ExactSum(1, total_weight=sum(weight for _, weight in pairs)), 0
    for value, weight in pairs:
        vector = torch.tensor(
            [sign * min(value, np.nextafter(np.float32(total.bound), np.float32(0)).item())]
        )
        total.add(vector, weight=weight)
        exact += weight * fixed_point(vector.item())
    assert total.total.item() == exact
    assert abs(exact) < 2**63


@given(whole, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_which_updates_are_accepted_depends_on_each_alone(
    pairs: list[tuple[float, int]], random: Any
) -> None:
    """In any order, and if any others are left out, the same ones are accepted."""
    announced = sum(weight for _, weight in pairs)

    def accepted(order: list[int]) -> set[int]:
        total, found = ExactSum(1, total_weight=announced), set()
        for index in order:
            value, weight = pairs[index]
            try:
                total.add(torch.tensor([value]), weight=weight)
            except InvalidUpdate:
                continue
            found.add(index)
        return found

    numbers = list(range(len(pairs)))
    everybody = accepted(numbers)
    random.shuffle(numbers)
    assert accepted(numbers) == everybody
    some = numbers[: random.randint(0, len(numbers))]
    assert accepted(some) == everybody & set(some)


def test_one_large_update_cannot_push_out_an_honest_one() -> None:
    """At the bound, and yet the next two fit: the old bound on what had been added refused them."""
    total = ExactSum(1, total_weight=3)
    for value in (total.bound * 0.999, 1.0, total.bound * 0.999):
        total.add(torch.tensor([value]), weight=1)
    assert total.count == 3


@given(st.lists(st.tuples(st.floats(2.0**-34, 2.0**-31, width=32), st.just(LARGEST_WEIGHT)), max_size=20))
@settings(max_examples=30, deadline=None)
def test_rounding_adds_at_most_half_of_the_weights(pairs: list[tuple[float, int]]) -> None:
    total = ExactSum(1, total_weight=20 * LARGEST_WEIGHT)
    for value, weight in pairs:
        total.add(torch.tensor([value]), weight=weight)
    assert total.total.item() <= SCALE * sum(weight * value for value, weight in pairs) + total.weight / 2


def test_the_limit_is_sharp_from_both_sides() -> None:
    total = ExactSum(1, total_weight=4)
    assert total.bound == LIMIT / SCALE / 4
    with pytest.raises(InvalidUpdate, match="overflow"):
        total.add(torch.tensor([total.bound]), weight=1)
    below = np.nextafter(np.float32(total.bound), np.float32(0)).item()
    total.add(torch.tensor([below]), weight=4)
    assert total.total.item() == 4 * fixed_point(below) < LIMIT


def test_weight_beyond_the_announced_total_is_refused() -> None:
    total = ExactSum(1, total_weight=10)
    total.add(torch.ones(1), weight=7)
    with pytest.raises(InvalidUpdate, match="got weight 4; 7 of the announced 10"):
        total.add(torch.ones(1), weight=4)
    total.add(torch.ones(1), weight=3)
    assert (total.weight, total.count) == (10, 2)


@pytest.mark.parametrize("total", [-1, LIMIT + 1])
def test_a_total_beyond_the_accumulator_is_refused(total: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to"):
        ExactSum(1, total_weight=total)


def test_where_no_weight_is_announced_nothing_can_be_added() -> None:
    with pytest.raises(InvalidUpdate, match="announced 0"):
        ExactSum(1, total_weight=0).add(torch.ones(1), weight=1)


PARTIAL = {
    "another size": (ExactSum(1, total_weight=10), "got a sum of 1 values; expected 2"),
    "empty": (ExactSum(2, total_weight=10), "empty"),
    "another total": (ExactSum(2, total_weight=9), "opened for weights of 9; expected 10"),
    "too much weight": (ExactSum(2, total_weight=10), "got weight 8; 4 of the announced 10"),
}


@pytest.mark.parametrize("kind", PARTIAL)
def test_partial_sums_that_do_not_fit_are_not_combined(kind: str) -> None:
    other, words = PARTIAL[kind]
    if kind != "empty" and not other.count:
        other.add(torch.ones(len(other.total)), weight=8)
    one = ExactSum(2, total_weight=10)
    one.add(torch.full((2,), 2.0), weight=4)
    before = state_of(one)
    with pytest.raises(InvalidUpdate, match=words):
        one.combine(other)
    assert state_of(one) == before


def test_nothing_has_no_mean() -> None:
    with pytest.raises(InvalidUpdate, match="no mean"):
        ExactSum(3, total_weight=TOTAL).mean()


# The aggregator of a round.


def begin(aggregator: Aggregator, total: int = TOTAL, spill: Spill | None = None, **sizes: int) -> None:
    aggregator.begin(sizes, dict.fromkeys(sizes, total), enrolled=7, spill=spill)


def both(weight: int) -> dict[str, int]:
    return {"model": weight, "variate": weight}


def opened(**sizes: int) -> Aggregator:
    aggregator = Aggregator()
    begin(aggregator, **sizes)
    return aggregator


def vector(*values: float) -> Any:
    return np.array(values, dtype=np.float32)


def test_each_vector_has_its_own_weight() -> None:
    """The model's mean is (1 · 1 + 2 · 4) / 3, the variate's (3 + 9) / 2."""
    aggregator = opened(model=2, variate=1)
    aggregator.add({"model": vector(1, 2), "variate": vector(3)}, weights={"model": 1, "variate": 1})
    aggregator.add({"model": vector(4, 5), "variate": vector(9)}, weights={"variate": 1, "model": 2})
    sums = aggregator.close()
    assert sums.means["model"].tolist() == [3.0, 4.0]
    assert sums.means["variate"].tolist() == [6.0]
    assert (sums.weights, sums.count, tuple(sums.individual)) == ({"model": 3, "variate": 2}, 2, ())
    assert sums.enrolled == 7


@pytest.mark.parametrize("weights", [{}, {"model": 1}, {"model": 1, "variate": 1, "more": 1}])
def test_each_vector_has_a_weight_and_nothing_else_has(weights: dict[str, int]) -> None:
    aggregator = opened(model=1, variate=1)
    with pytest.raises(InvalidUpdate, match=r"weights of .*expected \['model', 'variate'\]"):
        aggregator.add({"model": vector(1), "variate": vector(1)}, weights=weights)
    with pytest.raises(ValueError, match="a total weight for each"):
        Aggregator().begin({"model": 1, "variate": 1}, weights, enrolled=1)


def test_each_vector_has_its_own_total() -> None:
    """One weight beyond its total refuses the whole update."""
    aggregator = Aggregator()
    aggregator.begin({"model": 1, "variate": 1}, {"model": 9, "variate": 2}, enrolled=2)
    update = {"model": vector(1), "variate": vector(1)}
    aggregator.add(update, weights={"model": 4, "variate": 1})
    for weights in ({"model": 6, "variate": 1}, {"model": 5, "variate": 2}):
        with pytest.raises(InvalidUpdate, match="announced"):
            aggregator.add(update, weights=weights)
    aggregator.add(update, weights={"model": 5, "variate": 1})
    assert aggregator.close().weights == {"model": 9, "variate": 2}


BAD = {
    "nan": vector(np.nan),
    "infinity": vector(np.inf),
    "long": vector(1, 2),
    "matrix": vector(1).reshape(1, 1),
    "scalar": np.float32(1).reshape(()),
    "float64": np.zeros(1),
    "big-endian": np.zeros(1, dtype=">f4"),
    "objects": np.zeros(1, dtype=object),
    "texts": np.array(["1"]),
    "records": np.zeros(1, dtype=[("x", "f4")]),
    "dates": np.zeros(1, dtype="datetime64[s]"),
    "too large": vector(2.0**31),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("spoilt", ["model", "variate"])
def test_an_update_is_added_whole_or_not_at_all(kind: str, spoilt: str) -> None:
    aggregator = opened(model=1, variate=1)
    good = {"model": vector(1), "variate": vector(2)}
    aggregator.add(good, weights=both(1))
    with pytest.raises(InvalidUpdate):
        aggregator.add({**good, spoilt: BAD[kind]}, weights=both(5))
    with pytest.raises(InvalidUpdate, match="weight"):
        aggregator.add(good, weights=both(0))
    sums = aggregator.close()
    assert (sums.means["model"].tolist(), sums.means["variate"].tolist()) == ([1.0], [2.0])
    assert (sums.weights, sums.count) == (both(1), 1)


@pytest.mark.parametrize("names", [(), ("model",), ("model", "variate", "more"), ("model", "other")])
def test_names_must_be_those_of_the_round(names: tuple[str, ...]) -> None:
    aggregator = opened(model=1, variate=1)
    with pytest.raises(InvalidUpdate, match=r"expected \['model', 'variate'\]"):
        aggregator.add({name: vector(1) for name in names}, weights=dict.fromkeys(names, 1))


def test_a_read_only_vector_is_added_and_stays_as_it_was() -> None:
    values = vector(1, 2)
    values.flags.writeable = False
    aggregator = opened(model=2)
    aggregator.add({"model": values}, weights={"model": 3})
    assert aggregator.close().means["model"].tolist() == [1.0, 2.0]
    assert values.tolist() == [1.0, 2.0]


def test_a_round_must_be_open_and_is_closed_once() -> None:
    with pytest.raises(ValueError, match="begin"):
        Aggregator().add({"model": vector(1)}, weights={"model": 1})
    aggregator = opened(model=1)
    aggregator.add({"model": vector(1)}, weights={"model": 1})
    aggregator.close()
    with pytest.raises(ValueError, match="begin"):
        aggregator.close()
    with pytest.raises(ValueError, match="at least one"):
        Aggregator().begin({}, {}, enrolled=1)


def test_an_empty_round_has_no_mean_and_a_new_one_starts_from_nothing() -> None:
    aggregator = opened(model=1)
    with pytest.raises(InvalidUpdate):
        aggregator.close()
    begin(aggregator, model=1)
    aggregator.add({"model": vector(2)}, weights={"model": 1})
    assert aggregator.close().means["model"].tolist() == [2.0]


def test_memory_does_not_grow_with_the_number_of_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch is asked for nothing larger than a block after the round was opened."""
    size, allocated = 3 * BLOCK, list[int]()
    aggregator = opened(model=size)
    update = {"model": np.ones(size, dtype=np.float32)}
    real = torch.empty

    def counting(*shape: Any, **options: Any) -> Tensor:
        allocated.append(int(np.prod(shape)))
        return real(*shape, **options)

    monkeypatch.setattr(torch, "empty", counting)
    tracemalloc.start()
    aggregator.add(update, weights={"model": 1})
    after_one = tracemalloc.get_traced_memory()[0]
    for _ in range(50):
        aggregator.add(update, weights={"model": 1})
    grown = tracemalloc.get_traced_memory()[0] - after_one
    tracemalloc.stop()
    assert allocated
    assert max(allocated) <= BLOCK
    assert grown < update["model"].nbytes / 10


def test_single_updates_are_kept_only_where_they_were_accepted(tmp_path: Path) -> None:
    aggregator = Aggregator()
    begin(aggregator, model=1, spill=Spill(tmp_path))
    aggregator.add({"model": vector(1)}, weights={"model": 1})
    with pytest.raises(InvalidUpdate):
        aggregator.add({"model": vector(np.nan)}, weights={"model": 1})
    sums = aggregator.close()
    assert [update.vectors["model"].tolist() for update in sums.individual] == [[1.0]]


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.floats(-(2.0**19), 2.0**19, width=32),
                st.floats(-(2.0**-20), 2.0**-20, width=32),
                st.sampled_from(
                    [SMALL, -SMALL, SMALL - 2.0**-5, SMALL - 2.0**-4, 1.5 * 2.0**-32, 2.0**-33, 0.0]
                ),
            ),
            st.integers(1, 200),
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 8),
)
@settings(max_examples=200, deadline=None)
def test_small_and_large_values_give_the_same_fixed_point(pairs: list[tuple[float, int]], cut: int) -> None:
    """Both ways of conversion, mixed, read in between, and combined, are the sum of big integers."""
    first, second = (ExactSum(1, total_weight=8 * 200) for _ in range(2))
    for number, (value, weight) in enumerate(pairs):
        part = first if number < cut else second
        part.add(torch.tensor([value]), weight=weight)
        if number % 3 == 0:
            assert part.total.dtype == torch.int64
    before = first.total.item() + second.total.item()
    if second.count:
        first.combine(second)
    exact = sum(weight * fixed_point(value) for value, weight in pairs)
    assert (first.total.item(), before) == (exact, exact)
    mean = np.float32(np.float64(exact) / (first.weight * SCALE))
    assert first.mean().numpy().tobytes() == mean.tobytes()


# Sums of sums.


def partial_of(pairs: Updates, *, total_weight: int = TOTAL) -> dict[str, ExactSum]:
    sums = {name: ExactSum(SIZE, total_weight=total_weight) for name in ("model", "variate")}
    for values, weight in pairs:
        sums["model"].add(torch.from_numpy(values), weight=weight)
        sums["variate"].add(torch.from_numpy(-2 * values), weight=2 * weight)
    return sums


@given(updates, st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_sums_of_sums_are_sums(pairs: Updates, one: int, other: int) -> None:
    """Updates that come one by one and as partial sums give the bits of updates that all come one by one."""
    flat, levels = Aggregator(), Aggregator()
    cuts = sorted((one, other))
    for aggregator in (flat, levels):
        begin(aggregator, total=2 * TOTAL, model=SIZE, variate=SIZE)
    for values, weight in pairs:
        flat.add({"model": values, "variate": -2 * values}, weights={"model": weight, "variate": 2 * weight})
    for group in filter(None, (pairs[: cuts[0]], pairs[cuts[1] :])):
        levels.add_partial(partial_of(group, total_weight=2 * TOTAL))
    for values, weight in pairs[cuts[0] : cuts[1]]:
        levels.add(
            {"model": values, "variate": -2 * values}, weights={"model": weight, "variate": 2 * weight}
        )
    expected, found = flat.close(), levels.close()
    assert (found.weights, found.count) == (expected.weights, expected.count)
    assert all(torch.equal(found.means[name], expected.means[name]) for name in expected.means)


def uneven(name: str) -> dict[str, ExactSum]:
    """A partial result in which one sum has an update more than the other."""
    partial = partial_of([(vector(1, 1, 1, 1, 1), 2)])
    partial[name].add(torch.ones(SIZE), weight=1)
    return partial


def test_a_partial_result_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    honest = partial_of([(vector(1, 2, 3, 4, 5), 2)])
    aggregator = Aggregator()
    begin(aggregator, model=SIZE, variate=SIZE)
    aggregator.add_partial(honest)
    other = partial_of([(vector(1, 1, 1, 1, 1), 2)], total_weight=TOTAL + 1)
    bad = {
        "expected": {"model": honest["model"]},
        "differ": uneven("variate"),
        "opened for": {"model": honest["model"], "variate": other["variate"]},
        "empty": partial_of([]),
    }
    for words, partial in bad.items():
        with pytest.raises(InvalidUpdate, match=words):
            aggregator.add_partial(partial)
    sums = aggregator.close()
    assert (sums.weights, sums.count) == ({"model": 2, "variate": 4}, 1)
    assert sums.means["model"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    begin(aggregator, model=SIZE, variate=SIZE, spill=Spill(tmp_path))
    with pytest.raises(InvalidUpdate, match="each update on its own"):
        aggregator.add_partial(honest)


def test_a_round_takes_no_more_weight_than_was_announced() -> None:
    aggregator = Aggregator()
    begin(aggregator, total=5, model=1)
    aggregator.add({"model": vector(1)}, weights={"model": 5})
    with pytest.raises(InvalidUpdate, match="announced 5"):
        aggregator.add({"model": vector(1)}, weights={"model": 1})
    assert (sums := aggregator.close()).weights == {"model": 5}
    assert sums.count == 1
