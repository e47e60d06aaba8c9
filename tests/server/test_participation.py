"""Participation as plain data."""

import json

from fedcad.server.participation import Participation, Status


def test_it_is_plain_data_that_json_can_hold() -> None:
    part = Participation("a", Status.LATE, "no answer within 5 s", delay_s=5.0)
    plain = json.loads(json.dumps(part.to_plain()))
    assert plain == {
        "site": "a",
        "status": "late",
        "reason": "no answer within 5 s",
        "weight": 0,
        "delay_s": 5.0,
    }


def test_every_status_is_a_word_of_the_log() -> None:
    assert {str(status) for status in Status} == {"counted", "late", "lost", "refused", "rejected"}
