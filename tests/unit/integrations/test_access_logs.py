"""The filter of access logs, without a server."""

from __future__ import annotations

import gc
import logging


def test_the_filter_is_installed_once() -> None:
    from cleanclose.core.blame.departures import DEPARTURE_LISTENERS
    from cleanclose.integrations.uvicorn import AccessFilter

    logger = logging.getLogger("uvicorn.access")
    before = len(DEPARTURE_LISTENERS)
    made = AccessFilter.install()
    try:
        assert AccessFilter.install() is made
        assert logger.filters.count(made) == 1
        assert len(DEPARTURE_LISTENERS) == before + 1
    finally:
        AccessFilter.uninstall()
    assert made not in logger.filters
    assert len(DEPARTURE_LISTENERS) == before, "although somebody still has the filter"
    AccessFilter.uninstall()


def test_filters_that_are_gone_leave_nothing_behind() -> None:
    from cleanclose.core.blame.departures import DEPARTURE_LISTENERS
    from cleanclose.integrations.uvicorn import AccessFilter

    before = len(DEPARTURE_LISTENERS)
    for _ in range(1000):
        AccessFilter()
    gc.collect()
    assert len(DEPARTURE_LISTENERS) == before


def test_lines_outside_of_a_request_pass() -> None:
    from cleanclose.integrations.uvicorn import AccessFilter

    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, "%s", ("a",), None)
    assert AccessFilter().filter(record)
    five = logging.LogRecord(
        "uvicorn.access", logging.INFO, "", 0, "%s %s %s %s %s", tuple("abcde"), None
    )
    assert AccessFilter().filter(five)
