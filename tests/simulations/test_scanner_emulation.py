import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedcad.shared.errors import DataError
from fedcad.simulations.scanner_emulation import SCANNERS, ScannerProfile, emulate_scanner

PLAIN = ScannerProfile(vendor="V", model="M", bits_stored=12)
RAMP = np.tile(np.arange(256, dtype=np.uint8), (8, 1))


def _emulate(profile: ScannerProfile, pixels: np.ndarray = RAMP, **facts: str) -> np.ndarray:
    return emulate_scanner(pixels, profile=profile, content_id="a" * 64, facts=facts)


def test_a_plain_scanner_only_changes_the_depth() -> None:
    shown = _emulate(PLAIN)
    assert shown.dtype == np.uint16
    assert np.array_equal(shown, np.rint(RAMP / 255 * 4095).astype(np.uint16))


def test_gamma_exposure_and_window_by_hand() -> None:
    pixels = np.array([[0, 51, 102, 255]], dtype=np.uint8)  # 0, 0.2, 0.4, 1
    assert _emulate(replace(PLAIN, bits_stored=8, gamma=2.0), pixels).tolist() == [[0, 10, 41, 255]]
    assert _emulate(replace(PLAIN, bits_stored=8, exposure=0.5), pixels).tolist() == [[0, 26, 51, 128]]
    # (x - 0.2) / 0.4, clipped
    assert _emulate(replace(PLAIN, bits_stored=8, window=(0.2, 0.6)), pixels).tolist() == [[0, 0, 128, 255]]


def test_noise_is_keyed_by_content_and_grows_with_the_signal() -> None:
    profile = replace(PLAIN, noise=0.05)
    grey = np.full((64, 64), 64, dtype=np.uint8)
    bright = np.full((64, 64), 192, dtype=np.uint8)
    first = _emulate(profile, grey)
    assert np.array_equal(first, _emulate(profile, grey))
    other = emulate_scanner(grey, profile=profile, content_id="b" * 64, facts={})
    assert not np.array_equal(first, other)
    # Poisson: 3 times the signal, sqrt(3) times the noise.
    assert np.std(_emulate(profile, bright)) / np.std(first) == pytest.approx(3**0.5, rel=0.1)


def test_blur_spreads_and_sharpening_overshoots_an_edge() -> None:
    edge = np.repeat(np.array([[60] * 16 + [180] * 16], dtype=np.uint8), 8, axis=0)
    blurred = _emulate(replace(PLAIN, bits_stored=8, blur_px=2.0), edge)
    assert 60 < blurred[4, 15] < 180
    sharp = _emulate(replace(PLAIN, bits_stored=8, sharpening=1.0), edge)
    assert sharp[4, 15] < 60
    assert sharp[4, 16] > 180


def test_a_record_s_window_is_applied_first() -> None:
    pixels = np.array([[0, 1000, 2000, 3000]], dtype=np.uint16)
    facts = {"bits_stored": "12", "window_center": "1500.5", "window_width": "1001"}
    # c - 1/2 - (w - 1)/2 = 1000 is black, 2000 is white: PS3.3 C.11.2.1.2.1.
    assert _emulate(replace(PLAIN, bits_stored=8), pixels, **facts).tolist() == [[0, 0, 255, 255]]


def test_without_a_window_the_range_that_occurs_is_shown() -> None:
    pixels = np.array([[1000, 1500, 2000]], dtype=np.uint16)
    assert _emulate(replace(PLAIN, bits_stored=8), pixels, window="none").tolist() == [[0, 128, 255]]


def test_values_beyond_the_stated_depth_are_refused() -> None:
    with pytest.raises(DataError, match="reach 5000; bits_stored allows 4095"):
        _emulate(PLAIN, np.full((2, 2), 5000, dtype=np.uint16), bits_stored="12")


def test_the_scanner_writes_its_own_attributes() -> None:
    facts = {"vendor": "X", "view": "PA", "window_center": "1", "window_width": "2", "bits_stored": "16"}
    assert SCANNERS[2].acquisition(facts) == {
        "vendor": "Cassiopeia Health",
        "model": "Plate Reader 7",
        "view": "PA",
        "photometric": "MONOCHROME1",
        "bits_stored": "10",
    }


def test_scanners_differ_and_have_keys_of_their_own() -> None:
    shown = [_emulate(profile).astype(np.float64) / (2**profile.bits_stored - 1) for profile in SCANNERS]
    means = [float(values.mean()) for values in shown]
    assert max(means) - min(means) > 0.1
    assert len({profile.key for profile in SCANNERS}) == len(SCANNERS)
    assert replace(SCANNERS[0], gamma=1.01).key != SCANNERS[0].key


@given(
    hnp.arrays(st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)),
    st.sampled_from(SCANNERS),
)
@settings(max_examples=60, deadline=None)
def test_any_image_keeps_its_shape_and_the_scanner_s_range(
    pixels: np.ndarray, profile: ScannerProfile
) -> None:
    before = pixels.copy()
    shown = _emulate(profile, pixels)
    assert shown.shape == pixels.shape
    assert shown.dtype == (np.uint8 if profile.bits_stored <= 8 else np.uint16)
    assert int(shown.max()) < 2**profile.bits_stored
    assert np.array_equal(shown, _emulate(profile, pixels))
    assert np.array_equal(pixels, before)


def test_a_simulation_without_emulated_scanners_does_not_load_their_filters() -> None:
    code = """
import sys
import fedcad.simulations.simulate
print("scipy" in sys.modules, "fedcad.simulations.scanner_emulation" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
