import numpy as np
import pytest
import tiny_study
import torch

from fedcad.client.evaluation import BATCH, evaluate, outputs_of
from fedcad.client.workbench import Workbench, freeze
from fedcad.shared.models.registry import build_model
from fedcad.shared.parameters import load


def ones(cases):
    return np.ones((1, cases), dtype=np.int64)


def models(bench, count):
    generator = torch.Generator().manual_seed(4)
    return [
        bench.contract.initial + 0.3 * torch.randn(bench.contract.initial.shape, generator=generator)
        for _ in range(count)
    ]


def test_outputs_are_the_probabilities_of_a_plain_model_in_evaluation_mode():
    study = tiny_study.make_study(
        model={"name": "cnn", "convolutions": [{"features": 4}], "norm": "batch", "dropout": 0.5}
    )
    bench, data = Workbench(freeze(study)), tiny_study.spread_cases(test=5)
    model = bench.contract.initial + 0.1
    bench.networks["classifier"].train()
    plain = build_model(study.model, classes=3, size=32, channels=1).eval()
    load({"classifier": plain}, bench.contract.layout, model)
    with torch.no_grad():
        expected = torch.softmax(plain(data.inputs("test", range(5))["image"]), dim=1)
    assert torch.equal(torch.from_numpy(outputs_of(bench, model, data, "test")), expected)


@pytest.mark.parametrize("cases", [1, BATCH - 1, BATCH, BATCH + 1])
def test_every_case_is_there_once_in_order(bench, cases):
    data = tiny_study.MemoryCases({"test": cases})
    [model] = models(bench, 1)
    whole = outputs_of(bench, model, data, "test")
    assert whole.shape == (cases, 3)

    class Last(tiny_study.MemoryCases):
        def patients(self, part):
            return np.zeros(1, dtype=np.int64)

        def inputs(self, part, indices):
            return data.inputs(part, [cases - 1])

    np.testing.assert_allclose(outputs_of(bench, model, Last({}), "test")[0], whole[-1], atol=1e-6)


def test_ensemble_is_the_mean_of_probabilities(bench):
    data, members = tiny_study.spread_cases(test=6), models(bench, 3)
    outputs = [outputs_of(bench, member, data, "test").astype(np.float64) for member in members]
    mean = (sum(outputs) / 3).astype(np.float32)
    labels = np.array([tiny_study.CLASSES.index(label) for label in data.labels("test")])
    expected = bench.task.statistics.collect(mean, labels, ones(6))
    found = evaluate(bench, members, data=data, part="test", weights=ones(6))
    assert np.array_equal(found, expected)
    single = evaluate(bench, members[:1], data=data, part="test", weights=ones(6))
    assert not np.array_equal(found, single)
    assert np.array_equal(evaluate(bench, members[:1] * 2, data=data, part="test", weights=ones(6)), single)


def test_statistics_of_two_sites_add_up_to_those_of_all_cases(bench):
    """The exact merge: the sum over sites equals collecting everything in one place."""
    from fedcad.simulations.pooling import PooledCases

    parts, [model] = [tiny_study.spread_cases(test=5, seed=s) for s in (1, 2)], models(bench, 1)
    apart = sum(evaluate(bench, [model], data=data, part="test", weights=ones(5)) for data in parts)
    together = evaluate(bench, [model], data=PooledCases(parts), part="test", weights=ones(10))
    assert np.array_equal(apart, together)
