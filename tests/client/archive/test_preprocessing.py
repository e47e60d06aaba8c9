"""Crop, square, resize and scaling against hand-computed pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedcad.client.archive.preprocessing import FULL_SCALE, preprocess, to_network_input
from fedcad.client.archive.reasons import UnusableFile
from fedcad.shared.config.study import PreprocessingConfig


def config(**kwargs) -> PreprocessingConfig:
    return PreprocessingConfig(**{"size": 16, **kwargs})


def test_values_are_scaled_to_int16_and_rounded():
    image = np.zeros((16, 16), np.float32)
    image[0, :4] = [1, 0.5, 1 / 32767, 0.6 / 32767]
    cached = preprocess(image, config())
    assert cached.dtype == np.int16
    assert cached[0, :5].tolist() == [32767, 16384, 1, 1, 0]  # 16383.5 rounds to even


def test_reduction_averages_instead_of_dropping_pixels():
    stripes = np.zeros((64, 64), np.float32)
    stripes[:, ::2] = 1  # every second column: plain sampling would give all black or all white
    inner = preprocess(stripes, config())[:, 1:-1] / FULL_SCALE
    np.testing.assert_allclose(inner, 0.5, atol=0.02)


def test_crop_top_drops_rows_of_the_original():
    image = np.ones((100, 92), np.float32)
    image[:8] = 0  # the band with markers
    assert (preprocess(image, config(crop_top=0.08)) == FULL_SCALE).all()


@pytest.mark.parametrize("shape", [(16, 32), (32, 16)])
def test_crop_keeps_the_centre(shape):
    image = np.zeros(shape, np.float32)
    image[tuple(slice(side // 2 - 8, side // 2 + 8) for side in shape)] = 1
    assert (preprocess(image, config(square="crop")) == FULL_SCALE).all()


def test_pad_adds_black_on_both_sides():
    cached = preprocess(np.ones((16, 8), np.float32), config(square="pad"))
    assert (
        (cached[:, 4:12] == FULL_SCALE).all() and (cached[:, :4] == 0).all() and (cached[:, 12:] == 0).all()
    )


def test_stretch_keeps_everything():
    image = np.zeros((16, 64), np.float32)
    image[:, :32] = 1
    cached = preprocess(image, config(square="stretch"))
    assert (cached[:, :7] == FULL_SCALE).all() and (cached[:, 9:] == 0).all()


def test_nothing_left_is_refused():
    with pytest.raises(UnusableFile):
        preprocess(np.ones((1, 8), np.float32)[:0], config())


SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)


@settings(max_examples=40, deadline=None)
@given(
    image=hnp.arrays(np.float32, SHAPES, elements=st.floats(0, 1, width=32)),
    square=st.sampled_from(["crop", "pad", "stretch"]),
    crop_top=st.sampled_from([0.0, 0.08, 0.5]),
)
def test_the_range_is_kept_for_any_image(image, square, crop_top):
    if round(image.shape[0] * crop_top) == image.shape[0]:
        return
    cached = preprocess(image, config(square=square, crop_top=crop_top))
    assert cached.shape == (16, 16) and cached.min() >= 0
    assert cached.max() <= round(float(image.max()) * FULL_SCALE) + 1
    assert (preprocess(image, config(square=square, crop_top=crop_top)) == cached).all()


def test_display_input_is_zero_to_one():
    cached = torch.tensor([[[0, 32767]] * 2], dtype=torch.int16)
    inputs = to_network_input(cached, config())
    assert inputs.dtype == torch.float32 and inputs.shape == (1, 1, 2, 2)
    assert inputs.flatten().tolist() == [0, 1, 0, 1]


def test_standardised_input_has_zero_mean_and_unit_variance_per_image():
    # Mean 0.5 and population standard deviation 0.5 give -1 and 1; a constant image gives 0.
    cached = torch.tensor([[[0, 32767]], [[500, 500]]], dtype=torch.int16)
    inputs = to_network_input(cached, config(intensity="standardise"))
    torch.testing.assert_close(inputs.reshape(2, 2), torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))


def test_the_cached_tensor_is_not_changed():
    cached = torch.tensor([[[1, 2]]], dtype=torch.int16)
    to_network_input(cached, config(intensity="standardise"))
    assert cached.tolist() == [[[1, 2]]]
