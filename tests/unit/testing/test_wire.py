"""The parser must see what HTTP libraries hide, and must not see ghosts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanclose.testing.wire import Ending, Fault, Framing, Transcript, WireReader, read_transcript

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
REFUSED = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nbig\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'4\r\nwiki\r\nA;name="value"\r\n0123456789\r\n0\r\nTrailer: yes\r\n\r\n'
)


def statuses(transcript: Transcript) -> list[int]:
    return [response.status for response in transcript.responses]


@pytest.mark.parametrize(
    ("data", "body", "framing"),
    [
        pytest.param(OK, b"ok\n", "length", id="length"),
        pytest.param(CHUNKED, b"wiki0123456789", "chunked", id="chunked"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nuntil", b"until", "close", id="close"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", "none", id="204"),
        pytest.param(
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", "none", id="304"
        ),
        pytest.param(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b"", "length", id="no-reason"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nContent-Length: 3\r\n\r\nok\n",
            b"ok\n",
            "length",
            id="the-same-length-twice",
        ),
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 7, 1 << 20])
def test_a_response_in_any_pieces(data: bytes, body: bytes, framing: Framing, piece: int) -> None:
    reader = WireReader()
    reader.expect("POST")
    for start in range(0, len(data), piece):
        reader.feed(data[start : start + piece])
    reader.end("fin")
    transcript = reader.transcript()
    assert transcript.clean
    assert transcript.complete
    assert transcript.first is not None
    assert (transcript.first.body, transcript.first.framing) == (body, framing)


def test_headers_are_found_whatever_their_case() -> None:
    data = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a:  2 \r\nContent-Length: 0\r\n\r\n"
    response = read_transcript(data).first
    assert response is not None
    assert response.header("X-a") == "1, 2"
    assert response.header("X-B") is None


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0", True),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close", False),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, close", False),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0", False),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive", True),
        ("HTTP/1.1 200 OK", False),
    ],
    ids=["1.1", "close", "close-in-list", "1.0", "1.0-keep-alive", "no-length"],
)
def test_whether_the_server_keeps_the_connection(head: str, keeps: bool) -> None:
    response = read_transcript(head.encode() + b"\r\n\r\n").first
    assert response is not None
    assert response.keeps_alive is keeps


def test_the_answer_to_head_has_a_length_and_no_body() -> None:
    transcript = read_transcript(OK[:-3], "HEAD")
    assert transcript.complete
    assert transcript.clean
    assert read_transcript(OK, "HEAD").stray == b"ok\n"


def test_two_requests_have_two_answers_in_order() -> None:
    transcript = read_transcript(REFUSED + OK, "POST", "GET")
    assert statuses(transcript) == [413, 200]
    assert transcript.complete
    assert transcript.clean


def test_nothing_at_all_is_clean_and_incomplete() -> None:
    transcript = read_transcript(b"", "POST", ended_by="reset")
    assert transcript.clean
    assert not transcript.complete
    assert transcript.first is None


def test_an_awaited_100_belongs_to_its_answer() -> None:
    transcript = read_transcript(CONTINUE + OK, "POST", continue_expected=True)
    assert transcript.clean
    assert [response.status for response in transcript.informational] == [100]
    assert transcript.first is not None
    assert [response.status for response in transcript.first.informational] == [100]


def test_other_informational_responses_are_no_fault() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    transcript = read_transcript(early + early + OK, "GET")
    assert transcript.clean
    assert [response.status for response in transcript.informational] == [103, 103]


@pytest.mark.parametrize(
    ("data", "fault", "stray"),
    [
        pytest.param(REFUSED + CONTINUE, Fault.INFORMATIONAL_AFTER_FINAL, CONTINUE, id="late-100"),
        pytest.param(REFUSED + OK, Fault.UNEXPECTED_RESPONSE, OK, id="second-final"),
        pytest.param(REFUSED + b"?", Fault.STRAY_BYTES, b"?", id="one-byte"),
        pytest.param(REFUSED + b"\r\n", Fault.STRAY_BYTES, b"\r\n", id="line-end"),
        pytest.param(CONTINUE + OK, Fault.UNASKED_CONTINUE, b"", id="unasked-100"),
        pytest.param(b"HTP/1.1 200 OK\r\n\r\n", Fault.MALFORMED_HEAD, None, id="no-http"),
        pytest.param(b"HTTP/1.1 2x0 OK\r\n\r\n", Fault.MALFORMED_HEAD, None, id="status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", Fault.MALFORMED_HEAD, None, id="name"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Fault.MALFORMED_HEAD, None, id="fold"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + b"a" * 200_000, Fault.MALFORMED_HEAD, None, id="endless"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n", Fault.TRUNCATED_HEAD, None, id="half-head"),
        pytest.param(OK[:-1], Fault.TRUNCATED_BODY, b"", id="short-body"),
        pytest.param(CHUNKED[:-2], Fault.UNTERMINATED_CHUNKED_BODY, b"", id="no-last-line"),
        pytest.param(CHUNKED[:60], Fault.UNTERMINATED_CHUNKED_BODY, b"", id="half-chunk"),
        pytest.param(
            CHUNKED.replace(b"4\r\nwiki", b"4x\r\nwiki"),
            Fault.MALFORMED_CHUNK,
            None,
            id="chunk-size",
        ),
        pytest.param(
            CHUNKED.replace(b"wiki", b"wikis"), Fault.MALFORMED_CHUNK, None, id="long-chunk"
        ),
        pytest.param(
            CHUNKED.replace(b"A;name", b"A;" + b"n" * 5000),
            Fault.MALFORMED_CHUNK,
            None,
            id="extension",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nok\n",
            Fault.CONTRADICTORY_FRAMING,
            b"",
            id="two-lengths",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nok\n",
            Fault.CONTRADICTORY_FRAMING,
            b"",
            id="odd-length",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Fault.CONTRADICTORY_FRAMING,
            b"",
            id="length-and-chunks",
        ),
    ],
)
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_what_is_wrong_is_named(data: bytes, fault: Fault, stray: bytes | None, piece: int) -> None:
    reader = WireReader()
    reader.expect("POST")
    for start in range(0, len(data), piece):
        reader.feed(data[start : start + piece])
    reader.end("fin")
    transcript = reader.transcript()
    assert transcript.faults == (fault,)
    assert not transcript.clean
    if stray is not None:
        assert transcript.stray == stray


def test_a_second_100_for_one_request_is_one_too_many() -> None:
    transcript = read_transcript(CONTINUE * 2 + OK, "POST", continue_expected=True)
    assert transcript.faults == (Fault.UNASKED_CONTINUE,)


@pytest.mark.parametrize("ended_by", ["reset", "timeout"])
def test_an_unbounded_body_is_only_whole_with_a_fin(ended_by: Ending) -> None:
    transcript = read_transcript(b"HTTP/1.1 400 Bad Request\r\n\r\n", ended_by=ended_by)
    assert transcript.faults == (Fault.TRUNCATED_BODY,)
    assert transcript.first is None
    assert statuses(transcript) == [400]


def test_an_answer_behind_an_announced_end_is_a_fault() -> None:
    closing = REFUSED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    transcript = read_transcript(closing + OK, "POST", "GET")
    assert transcript.faults == (Fault.RESPONSE_AFTER_CLOSE,)


def test_stray_bytes_are_told_from_the_answer_to_a_request_that_comes_later() -> None:
    """The same bytes, before and after the second request is sent."""
    early, late = WireReader(), WireReader()
    for reader in (early, late):
        reader.expect("POST")
        reader.feed(REFUSED)
    early.feed(OK)
    early.expect("GET")
    late.expect("GET")
    late.feed(OK)
    assert early.transcript().faults == (Fault.UNEXPECTED_RESPONSE,)
    assert early.waiting
    assert late.transcript().clean
    assert not late.waiting


def test_a_late_100_before_the_next_answer_is_seen() -> None:
    reader = WireReader()
    reader.expect("POST", continue_expected=True)
    reader.feed(REFUSED)
    reader.expect("GET")
    reader.feed(CONTINUE + OK)
    assert reader.transcript().faults == (Fault.UNASKED_CONTINUE,)


def test_switching_protocols_takes_the_rest() -> None:
    transcript = read_transcript(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n\x00\x01")
    assert transcript.first is not None
    assert (transcript.first.status, transcript.first.body) == (101, b"\x00\x01")


def test_nothing_comes_after_the_end() -> None:
    reader = WireReader()
    reader.expect()
    reader.end("fin")
    reader.end("reset")
    with pytest.raises(ValueError, match="ended already"):
        reader.feed(b"x")


@given(
    data=st.binary(max_size=300),
    cut=st.integers(0, 300),
    ended_by=st.sampled_from(["fin", "reset"]),
)
def test_any_bytes_are_read_without_an_exception(data: bytes, cut: int, ended_by: Ending) -> None:
    for start in (b"", CHUNKED[:48], OK[:-1], REFUSED):
        whole = read_transcript(start + data, "POST", "GET", ended_by=ended_by)
        reader = WireReader()
        reader.expect("POST")
        reader.expect("GET")
        reader.feed((start + data)[:cut])
        reader.feed((start + data)[cut:])
        reader.end(ended_by)
        assert reader.transcript() == whole


@given(body=st.binary(max_size=2000), sizes=st.lists(st.integers(1, 300), min_size=1, max_size=9))
def test_chunked_bodies_survive(body: bytes, sizes: list[int]) -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    position, number = 0, 0
    while position < len(body):
        piece = body[position : position + sizes[number % len(sizes)]]
        data += b"%X\r\n%b\r\n" % (len(piece), piece)
        position += len(piece)
        number += 1
    transcript = read_transcript(data + b"0\r\n\r\n")
    assert transcript.clean
    assert transcript.first is not None
    assert transcript.first.body == body
