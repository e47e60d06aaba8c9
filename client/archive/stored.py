"""Stored pixel values of one frame: straight from the bytes where uncompressed, else through a decoder.

Why two ways: most archives hold uncompressed X-rays, for which reading the bytes once is several times faster
than any general machinery. Compressed frames go to pydicom's decoders, whose corrections (sign, precision,
colour planes) are many; their cost is small against decoding.
"""

from typing import Any, BinaryIO

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, RLELossless

from fedcad.client.archive import openjpeg_plugin
from fedcad.client.archive.codestream import codestream_size
from fedcad.client.archive.header import NATIVE_SYNTAXES, PARSE_FAILURES, Header, quiet_parser
from fedcad.client.archive.layout import COLOUR, PixelElement, PixelLayout
from fedcad.client.archive.reasons import Reason, UnusableFile

Stored = NDArray[np.uint8] | NDArray[np.int8] | NDArray[np.uint16] | NDArray[np.int16]

_PLUGINS: dict[str, str] = {
    "1.2.840.10008.1.2.5": "pydicom",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    **{str(syntax): openjpeg_plugin.PLUGIN for syntax in openjpeg_plugin.SYNTAXES},
}
# GDCM ends the process on some damaged input, so it decodes only what nothing else here does: JPEG.
_REMAINING = "gdcm"

openjpeg_plugin.register()
# GDCM prints to the terminal what it finds odd in a file.
gdcm.Trace.WarningOff()
gdcm.Trace.ErrorOff()


def read_value(stream: BinaryIO, element: PixelElement) -> NDArray[np.uint8]:
    """Read the bytes of the Pixel Data element, padded to an even number, shape (bytes,)."""
    stream.seek(element.offset)
    # Pixels of 8 bits may come in swapped pairs, so the pad byte is read where there is one.
    content = np.empty(element.length + element.length % 2, dtype=np.uint8)
    content[element.length :] = 0
    stream.readinto(content.data)  # type: ignore[attr-defined]
    return content


def stored_values(
    content: NDArray[np.uint8], header: Header, layout: PixelLayout, element: PixelElement
) -> Stored:
    """Decode one frame.

    Args:
        content: From :func:`read_value`; changed in place.
        header: The file's header; compressed pixels are put into it.
        layout: Its pixel attributes.
        element: The Pixel Data element.

    Returns:
        Grey and palette: shape (rows, columns), overlay bits removed, sign extended. Colour: RGB, shape
        (rows, columns, 3).

    Raises:
        UnusableFile: The frame cannot be decoded, or claims another size than the attributes.
    """
    is_native = header.transfer_syntax in NATIVE_SYNTAXES
    if is_native and layout.photometric not in COLOUR:
        return align(_native(content, layout, element, header.byte_order), layout)
    value = content.tobytes()
    if not is_native:
        _check_codestream(value, layout)
    return _decoded(value, header, layout, element)


def _native(content: NDArray[np.uint8], layout: PixelLayout, element: PixelElement, order: str) -> Stored:
    """View uncompressed bytes as numbers, in the machine's byte order."""
    kind = "i" if layout.signed else "u"
    values = content.view(f"{order}{kind}{layout.bits_allocated // 8}")
    if layout.bits_allocated == 8 and order == ">" and element.vr == "OW":
        # PS3.5 section 8.1.2: two 8-bit pixels share a 16-bit word, whose bytes are swapped in big endian.
        values = values.reshape(-1, 2)[:, ::-1].ravel()
    values = values[: layout.rows * layout.columns].reshape(layout.rows, layout.columns)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def align(values: Stored, layout: PixelLayout) -> Stored:
    """Move the stored bits to the bottom, clear what other bits hold (overlays), extend the sign.

    References:
        DICOM PS3.5 section 8.1.1: bits outside Bits Stored may hold anything.
    """
    up = layout.bits_allocated - 1 - layout.high_bit
    down = layout.bits_allocated - layout.bits_stored
    if not down:
        return values
    # Right shift of a signed type repeats the sign bit; of an unsigned type it brings zeros.
    if not values.flags.writeable:
        values = values.copy()
    if up:
        np.left_shift(values, up, out=values)
    return np.right_shift(values, down, out=values)


def _check_codestream(content: bytes, layout: PixelLayout) -> None:
    """Refuse a compressed frame that claims another size than the attributes."""
    try:
        frame = next(generate_frames(content, number_of_frames=1))
    except (StopIteration, *PARSE_FAILURES) as error:
        raise UnusableFile(Reason.TRUNCATED, "the compressed frame cannot be found in its element") from error
    claimed = codestream_size(frame)
    if claimed is not None and claimed != (layout.rows, layout.columns):
        raise UnusableFile(
            Reason.CODESTREAM_MISMATCH,
            f"the compressed frame is {claimed[0]} x {claimed[1]}; the attributes say "
            f"{layout.rows} x {layout.columns}",
        )


def _decoded(value: bytes, header: Header, layout: PixelLayout, element: PixelElement) -> Stored:
    """Decode with pydicom's plugins."""
    syntax = UID(header.transfer_syntax)
    decoder: Any = get_decoder(syntax)
    compressed = header.transfer_syntax not in NATIVE_SYNTAXES
    dataset = header.dataset
    plugin = _PLUGINS.get(header.transfer_syntax, _REMAINING) if compressed else ""
    if plugin and plugin not in decoder.available_plugins:
        raise UnusableFile(Reason.NO_DECODER, f"no decoder for {syntax.name} is installed")
    dataset.PixelData = value
    dataset["PixelData"].VR = element.vr
    dataset["PixelData"].is_undefined_length = compressed
    # RLE stores the allocated bits as they are, so alignment is ours; other codecs store the value itself.
    ours = syntax == RLELossless and layout.samples == 1
    try:
        with quiet_parser():
            values, _ = decoder.as_array(
                dataset,
                index=0,
                raw=layout.samples == 1,
                correct_unused_bits=not ours,
                decoding_plugin=plugin,
            )
    except PARSE_FAILURES as error:
        raise UnusableFile(
            Reason.UNDECODABLE, f"the pixels cannot be decoded as {syntax.name} ({type(error).__name__})"
        ) from error
    shape = (layout.rows, layout.columns, 3)[: 2 if layout.samples == 1 else 3]
    if values.shape != shape:
        raise UnusableFile(Reason.UNDECODABLE, f"decoding gave shape {values.shape} instead of {shape}")
    decoded: Stored = values
    return align(decoded, layout) if ours else decoded
