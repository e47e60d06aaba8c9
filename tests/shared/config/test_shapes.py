import pytest
from pydantic import BaseModel

from fedcad.shared.config.models import ConfigurableCNN
from fedcad.shared.config.shapes import dotted_paths, shape_of_field, shape_of_model
from fedcad.shared.config.simulation import SimulationConfig
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.config.study import AugmentationConfig, OptimizerConfig, StudyConfig, TrainingConfig

NAME = "name (1 to 64 of a-z, 0-9, '.', '_', '-'; the first a letter or digit)"


@pytest.mark.parametrize(
    ("model", "field", "text"),
    [
        (StudyConfig, "name", NAME),
        (StudyConfig, "description", "text, at most 2000 characters"),
        (StudyConfig, "seed", "integer, at least 0 and below 9223372036854775808"),
        (
            SimulationConfig,
            "partition",
            "mapping whose kind is one of: folder, column, acquisition, iid, dirichlet, quantity, "
            "feature-shift",
        ),
        (OptimizerConfig, "learning_rate", "number, above 0 and at most 10"),
        (OptimizerConfig, "name", "one of: sgd, adam, adamw"),
        (AugmentationConfig, "horizontal_flip", "true or false"),
        (TrainingConfig, "local_steps", "integer, at least 1 and at most 1000000, or null"),
        (TrainingConfig, "class_weights", "list of values, each number"),
        (
            ConfigurableCNN,
            "convolutions",
            "list of at least 1 and at most 32 mappings with the keys features, kernel, stride",
        ),
        (SiteConfig, "archive", "text"),
    ],
)
def test_what_is_allowed_in_words(model: type[BaseModel], field: str, text: str) -> None:
    assert shape_of_field(model.model_fields[field]).text == text


def test_unions_keep_each_tags_model() -> None:
    shape = shape_of_field(StudyConfig.model_fields["model"])
    assert shape.discriminator == "name"
    assert list(shape.models)[:2] == ["cnn", "covid-net"]
    assert shape.models["cnn"] is ConfigurableCNN


@pytest.mark.parametrize("model", [StudyConfig, SimulationConfig, SiteConfig])
def test_every_field_of_every_model_has_a_shape_and_a_description(model: type[BaseModel]) -> None:
    pending = [model]
    while pending:
        current = pending.pop()
        assert current.__doc__
        for name, info in current.model_fields.items():
            shape = shape_of_field(info)
            inner = shape.item or shape
            assert shape.text, name
            assert info.description, f"{current.__name__}.{name} has no meaning"
            pending += inner.models.values()


def test_dotted_paths_reach_into_branches() -> None:
    paths = set(dotted_paths(StudyConfig))
    assert {("rounds",), ("training", "optimizer", "momentum"), ("model", "form"), ("model", "grid")} <= paths


def test_shape_of_model_lists_its_keys() -> None:
    assert shape_of_model(SiteConfig).text == (
        "mapping with the keys name, archive, labels, state, proxy, worker_idle_s, checkpoint_s, threads, "
        "device, largest_payload_mb"
    )
