"""Facts of one file: what is read and what refused; the index's tests hold the wider list."""

import pytest
from dicom_factory import gradient, uid, write, xray

from fedcad.client.archive.facts import FACT_NAMES, read_facts
from fedcad.client.archive.header import PixelLimits
from fedcad.client.archive.reasons import Reason, UnusableFile


def test_nothing_but_the_listed_facts_is_kept(tmp_path):
    facts = read_facts(write(tmp_path / "x", xray(gradient(), number=4, Manufacturer="  A\\B ")))
    assert facts.sop_instance_uid == uid(4) and facts.vendor == "A"
    assert "patient_name" not in FACT_NAMES and "Secret" not in repr(facts)


def test_absent_texts_are_empty_and_long_ones_cut(tmp_path):
    facts = read_facts(
        write(tmp_path / "x", xray(gradient(), ViewPosition=None, ManufacturerModelName="m" * 900))
    )
    assert facts.view == "" and len(facts.model) == 128


def test_limits_hold_while_indexing(tmp_path):
    path = write(tmp_path / "x", xray(gradient()))
    with pytest.raises(UnusableFile) as caught:
        read_facts(path, limits=PixelLimits(max_side=7))
    assert caught.value.reason is Reason.ABSURD_DIMENSIONS
