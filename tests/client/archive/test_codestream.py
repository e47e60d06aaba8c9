"""Sizes that codestreams declare."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.client.archive.codestream import codestream_size

SOF = b"\xff\xc0\x00\x0b\x08\x01\x02\x03\x04\x01\x11\x00\x00"  # 8 bits, 258 lines of 772 samples


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        (b"\xff\xd8" + SOF, (258, 772)),
        (b"\xff\xd8\xff\xe0\x00\x04ab\xff" + SOF, (258, 772)),  # a comment and a fill byte before
        (b"\xff\xd8" + SOF.replace(b"\xc0", b"\xf7", 1), (258, 772)),  # JPEG-LS
        (
            b"\xff\x4f\xff\x51" + bytes(4) + bytes([0, 0, 1, 0, 0, 0, 0, 200, 0, 0, 0, 16, 0, 0, 0, 8]),
            (192, 240),
        ),
        (b"\xff\xd8\xff\xda\x00\x02" + SOF, None),
        (b"\xff\xd8", None),
        (b"\xff\x4f\xff\x51", None),
        (b"", None),
    ],
)
def test_sizes(frame, size):
    assert codestream_size(frame) == size


@given(st.sampled_from([b"\xff\xd8", b"\xff\x4f\xff\x51", b""]), st.binary(max_size=80))
def test_any_bytes_give_a_size_or_nothing(start, rest):
    size = codestream_size(start + rest)
    assert size is None or len(size) == 2
