import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcad.client.augmentation import Drawn, apply, augment, draw, is_active
from fedcad.shared.config.study import AugmentationConfig
from fedcad.shared.errors import UnsupportedError

EVERYTHING = AugmentationConfig(
    rotation_degrees=30, shift=0.1, zoom=0.2, brightness=0.3, horizontal_flip=True
)


def changes(**given):
    plain = {
        "angle": 0.0,
        "shift_rows": 0.0,
        "shift_columns": 0.0,
        "zoom": 1.0,
        "brightness": 1.0,
        "mirror": 1.0,
    }
    return Drawn(**{name: torch.tensor([value]) for name, value in (plain | given).items()})


def picture(size=8):
    return torch.rand((1, 1, size, size), generator=torch.Generator().manual_seed(1))


def test_nothing_drawn_changes_nothing():
    torch.testing.assert_close(apply(changes(), picture()), picture(), rtol=0, atol=1e-6)
    drawn = draw(AugmentationConfig(), 5, torch.Generator().manual_seed(1))
    images = torch.rand((5, 1, 8, 8))
    torch.testing.assert_close(apply(drawn, images), images, rtol=0, atol=1e-6)
    assert not is_active(AugmentationConfig())
    assert is_active(AugmentationConfig(horizontal_flip=True))


def test_only_the_input_named_image_is_changed():
    inputs = {"mask": torch.ones(2, 3), "image": torch.rand((2, 1, 8, 8)), "age": torch.ones(2)}
    assert augment(AugmentationConfig(), inputs, torch.Generator()) is inputs
    changed = augment(EVERYTHING, inputs, torch.Generator().manual_seed(4))
    expected = apply(draw(EVERYTHING, 2, torch.Generator().manual_seed(4)), inputs["image"])
    assert list(changed) == list(inputs)
    assert torch.equal(changed["image"], expected)
    assert not torch.equal(changed["image"], inputs["image"])
    assert changed["mask"] is inputs["mask"]
    assert changed["age"] is inputs["age"]


def test_augmentation_of_cases_without_an_image_is_refused():
    with pytest.raises(UnsupportedError, match="they have volume"):
        augment(EVERYTHING, {"volume": torch.zeros(1, 1, 4, 4, 4)}, torch.Generator())


def test_shift_by_whole_pixels():
    image = picture()
    down = apply(changes(shift_rows=-2 / 8), image)
    expected = torch.zeros_like(image)
    expected[..., 2:, :] = image[..., :-2, :]
    torch.testing.assert_close(down, expected, rtol=0, atol=1e-5)
    left = apply(changes(shift_columns=1 / 8), image)
    expected = torch.zeros_like(image)
    expected[..., :-1] = image[..., 1:]
    torch.testing.assert_close(left, expected, rtol=0, atol=1e-5)


def test_mirror_exchanges_left_and_right():
    torch.testing.assert_close(apply(changes(mirror=-1.0), picture()), picture().flip(-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_by_right_angles(turns):
    turned = apply(changes(angle=turns * math.pi / 2), picture())
    expected = torch.rot90(picture(), turns, dims=(-2, -1))
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-5)


def test_zoom_magnifies_about_the_centre():
    image = torch.zeros((1, 1, 8, 8))
    image[..., 3:5, 3:5] = 1.0
    assert apply(changes(zoom=2.0), image).sum() > 3 * image.sum()
    assert apply(changes(zoom=0.5), image).sum() < image.sum()
    torch.testing.assert_close(apply(changes(zoom=2.0), image).flip(-1), apply(changes(zoom=2.0), image))


def test_brightness_multiplies():
    torch.testing.assert_close(apply(changes(brightness=1.5), picture()), picture() * 1.5)


def test_each_case_has_its_own_changes():
    drawn = Drawn(
        **{
            name: torch.cat([getattr(changes(), name), getattr(changes(mirror=-1.0), name)])
            for name in ("angle", "shift_rows", "shift_columns", "zoom", "brightness", "mirror")
        }
    )
    both = apply(drawn, picture().repeat(2, 1, 1, 1))
    torch.testing.assert_close(both[:1], picture(), rtol=0, atol=1e-5)
    torch.testing.assert_close(both[1:], picture().flip(-1), rtol=0, atol=1e-5)


@given(
    st.builds(
        AugmentationConfig,
        rotation_degrees=st.sampled_from([0.0, 20.0]),
        shift=st.sampled_from([0.0, 0.5]),
        zoom=st.sampled_from([0.0, 0.3]),
        brightness=st.sampled_from([0.0, 0.4]),
        horizontal_flip=st.booleans(),
    ),
    st.integers(1, 40),
)
def test_same_numbers_are_consumed_and_limits_hold(config, cases):
    generator, other = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    drawn = draw(config, cases, generator)
    draw(EVERYTHING, cases, other)
    assert torch.equal(torch.rand(4, generator=generator), torch.rand(4, generator=other))
    assert drawn.angle.abs().max() <= math.radians(config.rotation_degrees)
    assert max(drawn.shift_rows.abs().max(), drawn.shift_columns.abs().max()) <= config.shift
    assert (drawn.zoom - 1).abs().max() <= config.zoom + 1e-6
    assert (drawn.brightness - 1).abs().max() <= config.brightness + 1e-6
    assert set(drawn.mirror.tolist()) <= ({1.0, -1.0} if config.horizontal_flip else {1.0})


def test_switching_one_off_leaves_the_others():
    with_all = draw(EVERYTHING, 6, torch.Generator().manual_seed(3))
    without = draw(EVERYTHING.model_copy(update={"zoom": 0.0}), 6, torch.Generator().manual_seed(3))
    assert torch.equal(with_all.angle, without.angle)
    assert torch.equal(with_all.mirror, without.mirror)
    assert torch.equal(without.zoom, torch.ones(6))


def test_flips_are_about_half():
    drawn = draw(EVERYTHING, 4000, torch.Generator().manual_seed(3))
    assert 0.45 < (drawn.mirror < 0).float().mean() < 0.55
