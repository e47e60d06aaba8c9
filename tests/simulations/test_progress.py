import io
import re

from rich.console import Console

from fedcad.simulations import progress
from fedcad.simulations.progress import Bars, Lines, follow, make_display


class Recorder:
    def __init__(self):
        self.shown, self.said = [], []

    def update(self, part, done, total, detail=""):
        self.shown.append((part, done, total, detail))

    def say(self, text):
        self.said.append(text)


EVENTS = [
    {"event": "started", "round": 1, "sites": ["a", "b"]},
    {"event": "answered", "round": 1, "site": "a", "status": "counted", "reason": ""},
    {"event": "answered", "round": 1, "site": "b", "status": "lost", "reason": "no connection"},
    {"event": "validation", "version": 0, "union": {"loss": 1.25, "macro_auroc": None}},
    {"event": "round", "round": 1},
    {"event": "started", "round": 2, "sites": ["a", "b"]},
    {"event": "validation", "version": 1, "union": {"loss": 1.0, "macro_auroc": 0.75}},
    {"event": "round", "round": 2},
    {"event": "answered", "round": 0, "site": "a", "status": "counted", "reason": ""},
    {"event": "stopped", "round": 3},
]


def test_rounds_sites_and_validation_are_shown():
    display = Recorder()
    observe = follow(display, "federated", 2)
    for event in EVENTS:
        observe(event)
    assert display.said == ["  federated, round 1: b lost: no connection"]
    assert display.shown == [
        ("federated", 0, 2, ""),
        ("federated", 0, 2, "a (1/2)"),
        ("federated", 0, 2, "b (2/2)"),
        ("federated", 1, 2, "validation loss 1.250"),
        ("federated", 1, 2, "validation loss 1.250"),
        ("federated", 2, 2, "validation loss 1.000, AUROC 0.750"),
    ]


def test_lines_print_starts_and_ends_and_not_everything_between(capsys):
    with Lines() as lines:
        for done in range(101):
            lines.update("part", done, 100, "x" if done else "")
        lines.update("part", 100, 100)
        lines.say("note")
    assert capsys.readouterr().out == "part: 0/100\npart: 100/100  x\nnote\n"


def test_lines_do_without_a_total(capsys):
    with Lines() as lines:
        for done in range(10):
            lines.update("reading", done, None)
        lines.update("reading", 9, 9)
        lines.update("reading", 0, 3)
    assert capsys.readouterr().out == "reading\nreading: 9/9\nreading: 0/3\n"


def test_lines_need_something_done_or_a_long_pause(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = Lines()
    for seconds, done in [(0, 1), (10, 1), (10, 2), (3, 3), (59, 3), (2, 3)]:
        now[0] += seconds
        lines.update("part", done, 9, f"{now[0]:.0f}")
    assert capsys.readouterr().out == "part: 1/9  100\npart: 2/9  120\npart: 3/9  182\n"


def test_display_follows_the_terminal():
    assert isinstance(make_display(Console(file=io.StringIO(), force_terminal=True)), Bars)
    assert isinstance(make_display(Console(file=io.StringIO())), Lines)


def show(*steps):
    out = io.StringIO()
    with Bars(Console(file=out, force_terminal=True, width=80)) as bars:
        for step in steps:
            bars.update(*step)
        bars.say("a [note]")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())


def test_bars_show_parts_and_lines():
    text = show(("federated", 1, 4, "detail"), ("federated", 2, 4))
    assert "federated" in text
    assert "2/4" in text
    assert "a [note]" in text


def test_a_finished_bar_becomes_one_line():
    text = show(("part", 0, 4), ("part", 4, 4, "last"), ("part", 4, 4))
    assert text.count("part: 4/4 in 0 s  last") == 1
    assert "━" not in text.rpartition("part: 4/4 in 0 s")[2]
    text = show(("part", 0, 4), ("part", 4, 4), ("part", 0, 4), ("part", 4, 4))
    assert text.count("part: 4/4 in 0 s") == 2, "a part of the next seed is a part of its own"


def test_long_details_never_wrap():
    text = show(("federated", 1, 4, "site " * 60))
    assert re.search(r"federated \S+ +1/4 0:00:00 +site .*…", text), "the detail squeezes out the rest"
    assert all(len(line) <= 80 for line in re.split(r"[\r\n]", text))


def test_bars_do_without_a_total():
    assert "7/?" in show(("reading", 7, None))
