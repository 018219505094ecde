"""Which requests are stopped as a whole: what a user names."""

from __future__ import annotations

from typing import Any

import pytest

from cleanclose.core import Stoppable


@pytest.mark.parametrize("wish", [None, False])
def test_nothing_is_named(wish: bool | None) -> None:
    assert Stoppable.of(wish) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "CONNECT"])
def test_unsafe_methods_only_where_they_are_named(method: str) -> None:
    everything = Stoppable.of(True)
    by_predicate = Stoppable.of(lambda request: True)
    assert everything is not None
    assert by_predicate is not None
    assert not everything.applies(method, "/", None)
    assert not by_predicate.applies(method, "/", None)
    assert Stoppable(methods=[method]).applies(method, "/", None)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_safe_methods_need_no_name(method: str) -> None:
    everything = Stoppable.of(True)
    assert everything is not None
    assert everything.applies(method, "/anything", None)


@pytest.mark.parametrize(
    ("pattern", "path", "applies"),
    [
        ("/chat", "/chat", True),
        ("/chat", "/chat/1", False),
        ("/chat/{id}", "/chat/1", True),
        ("/chat/{id}", "/chat/1/more", False),
        ("/chat/{id}", "/chat/", False),
        ("/files/{rest:path}", "/files/a/b", True),
        ("/files/*", "/files/a/b", True),
        ("/files/*", "/file", False),
        ("/a.b", "/aXb", False),
        ("*", "/whatever/there/is", True),
    ],
)
def test_paths_are_written_like_routes(pattern: str, path: str, applies: bool) -> None:
    assert Stoppable(paths=[pattern]).applies("GET", path, None) is applies


def test_a_condition_is_asked_last_and_with_the_request() -> None:
    asked: list[object] = []

    def where(request: object) -> bool:
        asked.append(request)
        return request == "yes"

    which = Stoppable(paths=["/a"], where=where)
    assert not which.applies("POST", "/a", "yes")
    assert not which.applies("GET", "/b", "yes")
    assert asked == []
    assert which.applies("GET", "/a", "yes")
    assert not which.applies("GET", "/a", "no")


@pytest.mark.parametrize(
    "settings",
    [
        {"methods": "GET"},
        {"methods": ["get"]},
        {"methods": [1]},
        {"methods": None},
        {"paths": "/a"},
        {"paths": ["a"]},
        {"paths": [b"/a"]},
        {"where": "yes"},
    ],
)
def test_wrong_values_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Stoppable(**settings)


@pytest.mark.parametrize("wish", ["yes", 1, {}])
def test_a_wish_that_is_none_is_refused(wish: Any) -> None:
    with pytest.raises(ValueError, match="stop_work"):
        Stoppable.of(wish)
