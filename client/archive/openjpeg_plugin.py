"""Decode JPEG 2000, also High-Throughput, with OpenJPEG, as a plugin in the form that pydicom asks for.

Why: pydicom reaches OpenJPEG only through the package pylibjpeg; the wheel
``pylibjpeg-openjpeg`` alone is enough.
"""

from openjpeg.utils import decode_pixel_data
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import HTJ2K, JPEG2000, UID, HTJ2KLossless, HTJ2KLosslessRPCL, JPEG2000Lossless

SYNTAXES = (JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K)
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("pylibjpeg-openjpeg>=2.5",))
PLUGIN = "fedcad-openjpeg"


def is_available(uid: str) -> bool:
    """Return whether this plugin decodes a transfer syntax."""
    return uid in SYNTAXES


def decode_frame(source: bytes, runner: DecodeRunner) -> bytearray:
    """Decode one frame; called by pydicom.

    Raises:
        RuntimeError: The codestream is damaged.
    """
    frame = bytearray(decode_pixel_data(source, version=2))
    # OpenJPEG undoes the colour transform, and packs by the codestream's precision (T.800 A.5.1).
    if runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
        runner.set_option("photometric_interpretation", "RGB")
    precision = runner.get_option("j2k_precision", runner.bits_stored)
    runner.set_option("bits_allocated", 8 if precision <= 8 else 16)
    return frame


def register() -> None:
    """Offer this plugin to pydicom; a second call changes nothing."""
    for syntax in SYNTAXES:
        decoder = get_decoder(UID(syntax))
        if PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, decode_frame.__name__))
