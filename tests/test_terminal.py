"""Text of others cannot steer a terminal."""

from __future__ import annotations

import pytest

from sprintrunner.terminal import count, dollars, duration, printable


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J\x1b]0;owned\x07text",
        "\x9b31mred",
        "a\x08\x08\x08b",
        "\u202egnp.exe",
        "\u2066x\u2069",
        "line\rover",
        "nul\0",
        "\ud800",
        "para\u2029graph",
    ],
)
def test_nothing_that_steers_is_left(hostile: str) -> None:
    clean = printable(hostile)
    assert clean.isprintable()
    assert clean.encode("utf-8")


def test_plain_text_of_any_script_stays_as_it_is() -> None:
    assert printable("Größe 日本語 🚀 <b>&") == "Größe 日本語 🚀 <b>&"


def test_several_lines_become_one() -> None:
    assert printable("one\n\ttwo  \r\n three ") == "one two three"


def test_a_long_text_is_cut_with_an_ellipsis() -> None:
    assert printable("abcdef", 4) == "abc…"
    assert printable("abcd", 4) == "abcd"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (-3, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_amounts_and_counts_read_as_people_say_them() -> None:
    assert (dollars(1234.5), dollars(0), dollars(None)) == ("$1,234.50", "$0.00", "unknown")
    assert (count(1, "story", "stories"), count(2, "story", "stories")) == ("1 story", "2 stories")
