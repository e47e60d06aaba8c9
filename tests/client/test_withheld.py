"""What leaves the site of an error: its kind."""

import logging

from fedcad.client.withheld import AWAY_CODE, ERROR_CODE, withhold_reason
from fedcad.shared.errors import ArchiveError


def test_kind_leaves_and_text_stays(caplog):
    with caplog.at_level(logging.ERROR, "fedcad.client"):
        said = withhold_reason(ArchiveError("/archive/DOE^JOHN/1.dcm: cannot be read"))
    assert said == "the site failed (ArchiveError); the site's own log says why"
    assert "DOE^JOHN" in caplog.text


def test_of_unforeseen_errors_even_the_log_gets_the_place_only(caplog):
    values = {}
    try:
        values["DOE^JOHN".lower()]
    except KeyError as error:
        with caplog.at_level(logging.ERROR, "fedcad.client"):
            said = withhold_reason(error)
    assert "KeyError" in said
    assert "doe^john" not in said + caplog.text
    assert "test_withheld.py" in caplog.text


def test_codes_are_flowers_own():
    from flwr.common.constant import ErrorCode

    assert ErrorCode.CLIENT_APP_RAISED_EXCEPTION == ERROR_CODE
    assert ErrorCode.NODE_UNAVAILABLE == AWAY_CODE
