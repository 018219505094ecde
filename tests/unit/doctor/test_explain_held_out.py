"""The confusion table of `cleanclose explain`, on lines that its rules were not written with."""

from __future__ import annotations

from tests.harness.confusion import PAGE, counted, page_with_table


def test_no_line_of_an_upstreams_is_called_the_clients() -> None:
    rows = [row for (_, truth), row in counted().items() if truth == "upstream"]
    assert sum(row["cases"] for row in rows) > 60
    assert sum(row["client"] for row in rows) == 0


def test_most_lines_are_called_what_they_are() -> None:
    right = total = 0
    for (_, truth), row in counted().items():
        right += row[truth]
        total += sum(row[side] for side in ("client", "upstream", "server"))
    # HAProxy takes a client that leaves while it waits for the server's own delay.
    assert total > 80
    assert total - right == 1


def test_the_page_has_the_table_as_it_is() -> None:
    text = PAGE.read_text("utf-8")
    assert text == page_with_table(text), "run `python -m tests.harness.confusion`"
