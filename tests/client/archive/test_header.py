"""Parsing headers: values, character sets, limits, hostile structures."""

import pytest
from dicom_factory import NATIVE, gradient, write, xray
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from fedcad.client.archive.header import PixelLimits, first_item_of, integer_of, read_header, text_of
from fedcad.client.archive.reasons import Reason, UnusableFile


def parse(path, tags=("Rows", "PatientID", "WindowCenter", "VOILUTSequence"), **kwargs):
    with path.open("rb") as stream:
        header = read_header(stream, list(tags), **kwargs)
        return header, stream.read(4)


def refusal(path, **kwargs) -> Reason:
    with pytest.raises(UnusableFile) as caught:
        parse(path, **kwargs)
    return caught.value.reason


@pytest.mark.parametrize("syntax", NATIVE)
def test_values_in_every_byte_order_and_the_stream_at_the_pixels(tmp_path, syntax):
    image = xray(gradient(), PatientID="Müller ", SpecificCharacterSet="ISO_IR 192", WindowCenter=[4.5, 7])
    header, following = parse(write(tmp_path / "x", image, syntax))
    dataset = header.dataset
    assert (integer_of(dataset, "Rows"), text_of(dataset, "PatientID")) == (8, "Müller")
    assert (text_of(dataset, "WindowCenter"), text_of(dataset, "Columns")) == ("4.5", "")
    assert header.transfer_syntax == NATIVE[syntax]
    assert following == (b"\x7f\xe0\x00\x10" if syntax == "big-endian" else b"\xe0\x7f\x10\x00")
    assert header.byte_order == (">" if syntax == "big-endian" else "<")


def test_first_items(tmp_path):
    item = Dataset()
    item.LUTExplanation = "x"
    header, _ = parse(write(tmp_path / "x", xray(gradient(), VOILUTSequence=[item])))
    assert first_item_of(header.dataset, "VOILUTSequence").LUTExplanation == "x"
    header, _ = parse(write(tmp_path / "x", xray(gradient(), VOILUTSequence=[])))
    assert first_item_of(header.dataset, "VOILUTSequence") is None
    assert first_item_of(header.dataset, "ModalityLUTSequence") is None


def test_numbers_that_are_none(tmp_path):
    header, _ = parse(write(tmp_path / "x", xray(gradient(), WindowCenter="", PatientID="abc")))
    assert integer_of(header.dataset, "WindowCenter") is None
    assert integer_of(header.dataset, "PatientID") is None


def test_a_deflated_file_is_refused_without_inflating_it(tmp_path):
    dataset = xray(gradient())
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "x", enforce_file_format=True)
    assert refusal(tmp_path / "x") is Reason.UNSUPPORTED_TRANSFER_SYNTAX


def test_a_syntax_that_is_no_uid_is_not_echoed(tmp_path):
    path = write(tmp_path / "x", xray(gradient()))
    path.write_bytes(
        path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"Smith^John\0\0\0\0\0\0\0\0\0\0", 1)
    )
    with pytest.raises(UnusableFile) as caught:
        parse(path)
    assert "Smith" not in str(caught.value)


def test_limits_and_other_files(tmp_path):
    path = write(tmp_path / "x", xray(gradient()))
    assert refusal(path, limits=PixelLimits(max_file_bytes=100)) is Reason.TOO_LARGE_FILE
    (tmp_path / "y").write_bytes(b"PK\3\4" * 50)
    assert refusal(tmp_path / "y") is Reason.NOT_DICOM
    (tmp_path / "z").write_bytes(b"\0" * 128 + b"DICM")
    assert refusal(tmp_path / "z") is Reason.BROKEN_HEADER


def test_sequences_nested_without_end_do_not_end_the_process(tmp_path):
    path = write(tmp_path / "x", xray(gradient()))
    content = path.read_bytes()
    pixels = content.index(b"\xe0\x7f\x10\x00")
    nested = b"\x28\x00\x10\x30SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    path.write_bytes(content[:pixels] + nested + content[pixels:])
    assert refusal(path) is Reason.BROKEN_HEADER
