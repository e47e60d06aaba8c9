import io

from rich.console import Console

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
        ("federated", 0, 2, "a counted (1/2)"),
        ("federated", 0, 2, "b lost (2/2)"),
        ("federated", 1, 2, "validation loss 1.250"),
        ("federated", 1, 2, "validation loss 1.250"),
        ("federated", 2, 2, "validation loss 1.000, AUROC 0.750"),
    ]


def test_lines_print_starts_and_ends_and_not_everything_between(capsys):
    with Lines() as lines:
        for done in range(101):
            lines.update("part", done, 100, "x" if done else "")
        lines.say("note")
    assert capsys.readouterr().out == "part: 0/100\npart: 100/100  x\nnote\n"


def test_display_follows_the_terminal():
    assert isinstance(make_display(Console(file=io.StringIO(), force_terminal=True)), Bars)
    assert isinstance(make_display(Console(file=io.StringIO())), Lines)


def test_bars_show_parts_and_lines():
    out = io.StringIO()
    with Bars(Console(file=out, force_terminal=True, width=120)) as bars:
        bars.update("federated", 1, 4, "detail")
        bars.update("federated", 2, 4)
        bars.say("a note")
    assert "federated" in out.getvalue()
    assert "2/4" in out.getvalue()
    assert "a note" in out.getvalue()
