import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcad.simulations.phantom.findings import Label, Nodule
from fedcad.simulations.phantom.radiograph import (
    Radiograph,
    anatomy_of,
    draw_radiograph,
    finding_mask,
    line_integrals_of,
    render,
)
from fedcad.simulations.phantom.thorax import WATER_PER_MM


def _without_finding(radiograph: Radiograph) -> Radiograph:
    return dataclasses.replace(radiograph, label="normal", finding=None)


@given(
    seed=st.integers(0, 10**6),
    patient=st.integers(0, 10**6),
    label=st.sampled_from(["normal", "opacity", "nodule"]),
    size=st.sampled_from([64, 65, 100, 127, 192, 193]),
)
@settings(max_examples=12, deadline=None)
def test_pixels_follow_from_the_record_alone(seed: int, patient: int, label: Label, size: int) -> None:
    one = draw_radiograph(seed, patient, 0, label=label, size=size)
    again = draw_radiograph(seed, patient, 0, label=label, size=size)
    assert one == again and one.content_id() == again.content_id()
    pixels = render(one)
    np.testing.assert_array_equal(pixels, render(again))
    bits = one.detector.bits_stored
    assert pixels.shape == (size, size)
    assert pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert pixels.max() < 2**bits
    assert pixels.max() > 0.8 * 2**bits and pixels.std() > 0.1 * 2**bits


def test_content_ids_differ_with_every_drawn_thing() -> None:
    base = draw_radiograph(1, 2, 0, label="nodule", size=64)
    others = [
        draw_radiograph(2, 2, 0, label="nodule", size=64),
        draw_radiograph(1, 3, 0, label="nodule", size=64),
        draw_radiograph(1, 2, 1, label="nodule", size=64),
        draw_radiograph(1, 2, 0, label="opacity", size=64),
        draw_radiograph(1, 2, 0, label="nodule", size=65),
    ]
    assert len({radiograph.content_id() for radiograph in [base, *others]}) == 6


def test_images_of_one_patient_share_body_and_finding_only() -> None:
    first, second = (draw_radiograph(1, 2, image, label="opacity", size=64) for image in range(2))
    assert first.patient == second.patient and first.finding == second.finding
    assert (first.vendor, first.model) == (second.vendor, second.model)
    assert first.exposure != second.exposure


@pytest.mark.parametrize("patient", range(8))
def test_nodule_shows_where_the_truth_says(patient: int) -> None:
    drawn = draw_radiograph(5, patient, 0, label="nodule", size=128)
    assert isinstance(drawn.finding, Nodule)
    difference = render(drawn).astype(float) - render(_without_finding(drawn)).astype(float)
    row, column = drawn.beam.pixels(np.array(drawn.finding.position_mm))
    # The automatic window shifts all greys a little: the nodule is where the change stands out.
    change = np.abs(difference - np.median(difference))
    radius = drawn.finding.diameter_mm / 2 * 1.2 / drawn.pixel_spacing_mm
    rows, columns = np.nonzero(change > 0.5 * change.max())
    distance = np.hypot(rows - row, columns - column)
    assert np.median(distance) < radius
    assert change.max() > 0.06 * 2**drawn.detector.bits_stored


def test_nodule_adds_its_chord_to_the_line_integral() -> None:
    drawn = draw_radiograph(5, 1, 0, label="nodule", size=256)
    nodule = drawn.finding
    assert isinstance(nodule, Nodule)
    smooth = dataclasses.replace(drawn, finding=dataclasses.replace(nodule, spiculation=0.0, lobulation=0.0))
    added = line_integrals_of(smooth, 256) - line_integrals_of(_without_finding(drawn), 256)
    chord = nodule.density * WATER_PER_MM * nodule.diameter_mm
    assert added.max() == pytest.approx(chord, rel=0.12)  # the core is stretched by up to a tenth
    row, column = np.unravel_index(int(added.argmax()), added.shape)
    assert np.hypot(*(smooth.beam.pixels(np.array(nodule.position_mm)) - (row, column))) < 2.5


@pytest.mark.parametrize("label", ["opacity", "nodule"])
def test_mask_covers_the_position_and_normal_has_none(label: Label) -> None:
    for patient in range(4):
        drawn = draw_radiograph(6, patient, 0, label=label, size=96)
        mask = finding_mask(drawn)
        share = mask.mean()
        assert mask.shape == (96, 96) and 0.0005 < share < 0.2
    assert not finding_mask(_without_finding(drawn)).any()


def test_sizes_show_the_same_patient() -> None:
    small = render(draw_radiograph(1, 3, 0, label="normal", size=64)).astype(float)
    large = render(draw_radiograph(1, 3, 0, label="normal", size=256)).astype(float)
    averaged = large.reshape(64, 4, 64, 4).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), averaged.ravel())[0, 1] > 0.97


def test_projection_agrees_with_the_voxels_of_the_body() -> None:
    drawn = draw_radiograph(1, 4, 0, label="normal", size=64)
    anatomy, beam = anatomy_of(drawn), drawn.beam
    exact = anatomy.project(beam)
    origins, directions = beam.rays
    middle = drawn.exposure.source_to_detector_mm - beam.detector_from_origin_mm
    t = np.arange(-200.0, 200.0, 1.0) + middle
    for row, column in ((20, 20), (30, 32), (45, 18), (28, 45), (55, 32)):
        u, v = (column - 31.5) * beam.spacing_mm, (row - 31.5) * beam.spacing_mm
        points = origins @ [1, u, v] + t[:, None] * (directions @ [1, u, v])
        length = np.linalg.norm(directions @ [1, u, v])
        assert exact[row, column] == pytest.approx(anatomy.attenuation_at(points).sum() * length, abs=0.06)
