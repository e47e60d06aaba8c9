"""What every network of the registry, and every norm of it, must do."""

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from fedcad.shared.config.models import ConfigurableCNN, CovidNet, LogisticRegression, ModelConfig
from fedcad.shared.models.registry import NETWORKS, build_model

CLASSES = 3
EXAMPLES = [entry.example for entry in NETWORKS.values()]
VARIANTS = [
    *EXAMPLES,
    CovidNet(name="covid-net", form="large"),
    CovidNet(name="covid-net", form="large", head="flatten"),
]
WITHOUT_BATCH_NORM = [
    *VARIANTS,
    *(
        example.model_copy(update={"norm": norm})
        for example in EXAMPLES
        if hasattr(example, "norm")
        for norm in ("instance", "none")
    ),
]
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


def identify(config: object) -> str:
    return "-".join(
        str(getattr(config, key)) for key in ("name", "form", "head", "norm") if hasattr(config, key)
    )


def build(config: ModelConfig, *, size: int = 64, channels: int = 1, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(config, classes=CLASSES, size=size, channels=channels)


def images(cases: int, *, size: int = 64, channels: int = 1, seed: int = 2) -> Tensor:
    return torch.rand(cases, channels, size, size, generator=torch.Generator().manual_seed(seed))


every_variant = pytest.mark.parametrize("config", VARIANTS, ids=identify)
every_private = pytest.mark.parametrize("config", WITHOUT_BATCH_NORM, ids=identify)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_registry_holds_every_network_that_a_study_can_name():
    union = get_args(get_args(ModelConfig)[0])
    names = {get_args(member.model_fields["name"].annotation)[0] for member in union}
    assert names == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_example_is_of_its_name_and_a_valid_configuration(name):
    example = NETWORKS[name].example
    assert example.name == name
    assert TypeAdapter(ModelConfig).validate_python(example.model_dump()) == example


@every_variant
@pytest.mark.parametrize(("size", "channels", "cases"), [(64, 1, 1), (128, 1, 2), (75, 3, 2), (32, 1, 1)])
def test_logits_have_one_row_per_case_and_are_finite(config, size, channels, cases):
    logits = build(config, size=size, channels=channels)(images(cases, size=size, channels=channels))
    assert logits.shape == (cases, CLASSES)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@every_variant
def test_the_seed_alone_fixes_parameters_and_outputs(config):
    first, second = build(config), build(config)
    for (name, one), (same_name, other) in zip(
        first.state_dict().items(), second.state_dict().items(), strict=True
    ):
        assert name == same_name
        assert torch.equal(one, other)
    assert torch.equal(first(images(2)), second(images(2)))
    assert torch.equal(first(images(2)), first(images(2)))


@every_private
def test_the_gradient_reaches_every_parameter(config):
    model = build(config)
    nn.functional.cross_entropy(model(images(4)), torch.tensor([0, 1, 2, 0])).backward()
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not torch.isfinite(parameter.grad).all() or not parameter.grad.any()
    ]
    assert silent == []


@every_private
def test_no_case_sees_another(config):
    model = build(config)
    alone = images(1, seed=3)
    others = images(3, seed=4)
    with torch.no_grad():
        logits = model(torch.cat((alone, others)))
        changed = model(torch.cat((alone, 1000.0 * others.flip(0))))
    assert torch.equal(logits[0], changed[0])
    assert not logits.isnan().any()


@every_private
def test_the_gradient_of_a_batch_is_the_sum_of_its_cases(config):
    model = build(config).double()
    batch, labels = images(3).double(), torch.tensor([0, 1, 2])

    def gradient(cases: slice) -> Tensor:
        loss = nn.functional.cross_entropy(model(batch[cases]), labels[cases], reduction="sum")
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    total = gradient(slice(0, 3))
    single = sum(gradient(slice(case, case + 1)) for case in range(3))
    assert (total - single).norm() <= 1e-9 * total.norm()


@every_private
def test_state_is_float_parameters_only(config):
    model = build(config)
    assert not any(isinstance(module, BATCH_NORMS) for module in model.modules())
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()]


@every_private
def test_nothing_changes_a_tensor_in_place(config):
    model = build(config)
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    image = images(2)
    before = image.clone()
    model(image)
    assert torch.equal(image, before)


@every_variant
def test_functional_call_uses_the_parameters_it_is_given(config):
    model, other = build(config), build(config, seed=7)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01)
        logits = torch.func.functional_call(model, dict(other.named_parameters()), (images(2),))
        assert torch.equal(logits, other(images(2)))


@every_variant
def test_gradients_per_case_by_vmap(config):
    model = build(config, size=32)
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, parameters, (image[None],))
        return nn.functional.cross_entropy(logits, label[None])

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(
        parameters, images(2, size=32), torch.tensor([0, 2])
    )
    assert all(gradients[name].shape == (2, *parameters[name].shape) for name in parameters)


@every_variant
def test_eight_images_can_be_learned_by_heart(config):
    shallow = isinstance(config, LogisticRegression | ConfigurableCNN)
    most_steps, learning_rate = (80, 1e-2) if shallow else (40, 3e-4)
    model = build(config)
    batch, labels = images(8), torch.arange(8) % CLASSES
    # A dark band at another height gives each class something to be known by.
    for case, label in enumerate(labels.tolist()):
        batch[case, :, 16 * label : 16 * label + 16] *= 0.25
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for _ in range(most_steps):
        logits = model(batch)
        if torch.equal(logits.argmax(dim=1), labels):
            return
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
    pytest.fail(f"not learned in {most_steps} steps")
