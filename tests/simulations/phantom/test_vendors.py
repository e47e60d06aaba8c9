import re

import pytest

from fedcad.simulations.phantom.vendors import DETECTORS, detector_named


def test_at_least_five_invented_vendors_that_differ() -> None:
    assert len({detector.vendor for detector in DETECTORS}) == len(DETECTORS) >= 5
    assert all(re.fullmatch("Phantom Vendor [A-Z]", detector.vendor) for detector in DETECTORS)
    assert {detector.bits_stored for detector in DETECTORS} == {8, 10, 12}
    assert [detector.photometric for detector in DETECTORS].count("MONOCHROME1") == 1
    assert {detector.modality for detector in DETECTORS} == {"DX", "CR"}


def test_detector_by_name() -> None:
    for detector in DETECTORS:
        assert detector_named(detector.vendor, detector.model) is detector
    with pytest.raises(KeyError, match="no detector"):
        detector_named("Phantom Vendor A", "unknown")
