"""No text of a site steers a terminal."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fedcad.server.live import read_live
from fedcad.server.printable import printable


@given(st.text())
def test_what_prints_stays_and_nothing_else(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert shown.isprintable()
    assert all(new in (old, " ") for old, new in zip(text, shown, strict=True))


def test_by_hand() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed é") == "a [2Jb c d é"


def test_live_state_is_read_that_way(tmp_path: Path) -> None:
    site = {"phase": "a\x1b[2J", "version": "\x07", "reason": "x\ny"}
    plain = {
        "updated": 1,
        "round": 1,
        "rounds": 2,
        "phase": "p\x1b",
        "waiting_for": ["a\x1b"],
        "reason": "\x1b",
    }
    (tmp_path / "live.json").write_text(json.dumps({**plain, "sites": {"a\x1b": site}}))
    live = read_live(tmp_path / "live.json")
    assert live is not None
    texts = [live.phase, live.reason, *live.waiting_for, *live.sites]
    texts += [getattr(live.sites["a "], key) for key in ("phase", "version", "reason")]
    assert all(text.isprintable() for text in texts)
