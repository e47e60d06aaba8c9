"""The OpenJPEG plugin: registered once, for every JPEG 2000 syntax."""

import numpy as np
from dicom_factory import gradient, write, xray
from pydicom import dcmread
from pydicom.pixels.decoders.base import get_decoder

from fedcad.client.archive import openjpeg_plugin


def test_registering_twice_changes_nothing():
    openjpeg_plugin.register()
    openjpeg_plugin.register()
    for syntax in openjpeg_plugin.SYNTAXES:
        assert get_decoder(syntax).available_plugins.count(openjpeg_plugin.PLUGIN) == 1
    assert not openjpeg_plugin.is_available("1.2.840.10008.1.2")


def test_decodes_what_was_encoded(tmp_path):
    openjpeg_plugin.register()
    pixels = gradient(40, 50)
    dataset = dcmread(write(tmp_path / "x", xray(pixels, bits_stored=12), "jpeg2000"))
    dataset.pixel_array_options(decoding_plugin=openjpeg_plugin.PLUGIN)
    np.testing.assert_array_equal(dataset.pixel_array, pixels)
