"""What a client chooses has an end, and no character that does more than be seen."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanclose.core import Facts
from cleanclose.core.bounded import MOST_OF_A_TEXT, bounded
from tests.harness.made import departed, facts

CHOSEN = ("method", "client", "route", "request_id", "trace_id", "idempotency_key")


@given(st.text(max_size=400))
def test_whatever_it_is_it_can_be_written(text: str) -> None:
    written = bounded(text)
    assert len(written) == min(len(text), MOST_OF_A_TEXT)
    assert not {unicodedata.category(each) for each in written} & {
        *("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    }
    assert written.encode().decode() == written
    assert bounded(written) == written


@pytest.mark.parametrize(
    "character",
    ["\0", "\n", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\u202e", "\u2066", "\ud800"],
    ids=ascii,
)
def test_each_of_these_is_a_question_mark(character: str) -> None:
    assert bounded(f"a{character}b") == "a?b"


@pytest.mark.parametrize("text", ["GET", "Grüße, 日本", "a" * MOST_OF_A_TEXT, ""])
def test_what_is_harmless_is_as_it_was(text: str) -> None:
    assert bounded(text) == text


def test_what_is_cut_says_so() -> None:
    assert bounded("x" * 20_000) == "x" * (MOST_OF_A_TEXT - 3) + "..."


@pytest.mark.parametrize("name", CHOSEN)
def test_every_outlet_gets_bounded_values(name: str) -> None:
    made = facts(**{name: "\x1b[2J" + "x" * 20_000})
    assert getattr(made, name) == "?[2J" + "x" * (MOST_OF_A_TEXT - 7) + "..."


def test_no_text_of_an_event_is_left_out() -> None:
    """A new fact is a client's choice, unless somebody says that it is not."""
    names = {name for name, field in Facts.__dataclass_fields__.items() if "str" in field.type}
    assert names == {*CHOSEN, "framework", "server"}
    values = list(departed(client="\n" * 500).fields().values())
    assert not [each for each in values if isinstance(each, str) and not each.isprintable()]
