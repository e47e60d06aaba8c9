import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.shared.config.models import LogisticRegression
from fedcad.shared.errors import ConfigError
from fedcad.shared.models.logistic_regression import (
    ImageStatistics,
    build_logistic_regression,
    soft_histogram,
)


def build(*, size: int = 32, channels: int = 1, **knobs):
    config = LogisticRegression(name="logistic-regression", **knobs)
    return build_logistic_regression(config, classes=3, size=size, channels=channels)


def test_features_by_hand():
    # left half 0.25, right half 0.75: cell means ∓ 1 scale, no deviation in a cell, image values at − 1 and 1
    image = torch.full((1, 1, 4, 4), 0.25)
    image[..., 2:] = 0.75
    features = ImageStatistics(grid=2, bins=7)(image)[0]
    means, deviations, histogram = features[:4], features[4:8], features[8:]
    assert torch.allclose(means, torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    assert torch.allclose(deviations, torch.full((4,), (1e-3 - 0.1) / 0.1), atol=1e-5)
    # bin centres − 3 … 3 in steps of 1: half of the pixels in the bins − 1 and 1
    assert torch.allclose(histogram, 7 * torch.tensor([0, 0, 0.5, 0, 0.5, 0, 0]) - 1, atol=1e-4)


def test_a_value_between_two_centres_counts_in_both_by_nearness():
    shares = soft_histogram(torch.full((1, 1, 1, 1), 0.75), bins=7)
    assert torch.allclose(shares, torch.tensor([[[0, 0, 0, 0.25, 0.75, 0, 0]]]))


@settings(deadline=None)
@given(bins=st.integers(2, 64), seed=st.integers(0, 1000), scale=st.floats(0.0, 1e6))
def test_shares_are_not_negative_and_sum_to_one(bins, seed, scale):
    values = scale * torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(seed))
    shares = soft_histogram(values, bins=bins)
    assert shares.shape == (2, 3, bins)
    assert (shares >= 0).all()
    assert torch.allclose(shares.sum(dim=2), torch.ones(2, 3), atol=1e-4)


@settings(deadline=None)
@given(gain=st.floats(0.5, 2.0), offset=st.floats(-1.0, 1.0))
def test_the_histogram_does_not_see_brightness_and_contrast(gain, offset):
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    statistics = ImageStatistics(grid=1, bins=16)
    assert torch.allclose(statistics(image)[:, 2:], statistics(gain * image + offset)[:, 2:], atol=2e-2)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e6])
def test_a_constant_image_gives_finite_features_and_gradients(value):
    image = torch.full((1, 1, 32, 32), value, requires_grad=True)
    features = ImageStatistics(grid=8, bins=16)(image)
    features.sum().backward()
    assert torch.isfinite(features).all()
    assert torch.isfinite(image.grad).all()


def test_a_pixel_has_an_influence_that_a_saliency_map_can_show():
    model, image = build(), torch.rand(1, 1, 32, 32, requires_grad=True)
    torch.nn.init.normal_(model[1].weight)
    model(image)[0, 0].backward()
    assert (image.grad != 0).float().mean() > 0.9


def test_it_starts_with_every_class_equally_likely():
    assert torch.equal(build()(torch.rand(2, 1, 32, 32)), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("size", "channels", "grid", "bins"), [(32, 1, 8, 16), (45, 3, 7, 2), (128, 1, 64, 256)]
)
def test_the_linear_layer_fits_the_features(size, channels, grid, bins):
    model = build(size=size, channels=channels, grid=grid, histogram_bins=bins)
    assert model[1].in_features == channels * (2 * grid**2 + bins)
    assert model(torch.rand(2, channels, size, size)).shape == (2, 3)


def test_cells_below_two_pixels_are_refused():
    with pytest.raises(ConfigError, match=r"model.grid is 17.*at most 16 cells"):
        build(grid=17)
