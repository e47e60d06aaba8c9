"""The size that a compressed frame claims for itself, read from its own header before it is decoded.

Why: the DICOM attributes may say 100 × 100 while the JPEG inside says 60 000 × 60 000; a decoder believes
the latter and allocates it.
"""

_MARKER = 0xFF
_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
_START_OF_SCAN = 0xDA
_JPEG2000_START = b"\xff\x4f\xff\x51"


def codestream_size(frame: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) that a JPEG, JPEG-LS, JPEG 2000 or HTJ2K codestream declares, else None.

    References:
        ITU-T T.81 B.2.2 (frame header), T.87 C.2.2 (SOF55), T.800 A.5.1 (SIZ).
    """
    if frame[:4] == _JPEG2000_START:
        return _jpeg2000_size(frame)
    if frame[:2] == b"\xff\xd8":
        return _jpeg_size(frame)
    return None


def _jpeg2000_size(frame: bytes) -> tuple[int, int] | None:
    """Image area of the SIZ segment: reference grid minus offset."""
    if len(frame) < 24:
        return None
    width, height, left, top = (int.from_bytes(frame[start : start + 4], "big") for start in (8, 12, 16, 20))
    return height - top, width - left


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """Lines and samples per line of the first frame header."""
    position = 2
    while position + 9 <= len(frame) and frame[position] == _MARKER:
        marker = frame[position + 1]
        if marker == _MARKER:  # a fill byte
            position += 1
        elif marker in _START_OF_FRAME:
            return (
                int.from_bytes(frame[position + 5 : position + 7], "big"),
                int.from_bytes(frame[position + 7 : position + 9], "big"),
            )
        elif marker == _START_OF_SCAN:
            return None
        else:
            position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None
