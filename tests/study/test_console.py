import io
import sys

from gradflow.study import progress, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_puts_words_left_and_numbers_right():
    rows = [
        {"cell": "lstm", "decay": "-0.05", "says": "vanishing"},
        {"cell": "gru_reset_before", "decay": "-10", "half-life": "1e3"},
    ]
    assert table(rows).splitlines() == [
        "cell              decay  says       half-life",
        "----------------  -----  ---------  ---------",
        "lstm              -0.05  vanishing",
        "gru_reset_before    -10                   1e3",
    ]


def test_a_table_without_rows_is_empty():
    assert table([]) == ""


def test_progress_is_silent_in_a_pipe(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(progress(range(3), "cells")) == [0, 1, 2]
    assert sys.stderr.getvalue() == ""


def test_progress_shows_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress(range(3), "cells")) == [0, 1, 2]
    assert "cells: 100%" in sys.stderr.getvalue()
    assert "3/3" in sys.stderr.getvalue()
