import io
import threading

import pytest
from rich.console import Console

from fedcad.client.doctor.check import Check
from fedcad.client.doctor.progress import Progress

CHECK = Check("Network", "TLS", lambda tell: None)


class Signalling(io.StringIO):
    """Says when something was written."""

    def __init__(self):
        super().__init__()
        self.written = threading.Event()

    def write(self, text):
        count = super().write(text)
        self.written.set()
        return count


def test_a_long_check_says_what_it_does_where_there_is_no_terminal():
    stream = Signalling()
    with Progress(Console(file=stream), patience_s=0.02) as progress:
        progress(CHECK)("[bold]half[/bold] way")
        assert stream.written.wait(30)
    assert "checking TLS: [bold]half[/bold] way …\n" in stream.getvalue()


def test_short_checks_say_nothing():
    stream = io.StringIO()
    with Progress(Console(file=stream), patience_s=3600.0) as progress:
        progress(CHECK)("half way")
    assert stream.getvalue() == ""


def test_terminal_shows_the_check_at_once_and_is_cleared_by_an_error():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    with pytest.raises(KeyboardInterrupt), Progress(console) as progress:
        progress(CHECK)("[bold]half")
        raise KeyboardInterrupt
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is back
