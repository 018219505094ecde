"""Ask one address whether an answer sent before the upload's end arrives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cleanclose.doctor.address.client import Address, Seen, Sending, send
from cleanclose.doctor.address.signatures import Maker, made_by, proxies
from cleanclose.doctor.application.cases import Endpoint
from cleanclose.doctor.output import EXIT_CLEAN, EXIT_FINDINGS, Trouble, print_json
from cleanclose.testing.wire import Response

__all__ = ["Case", "Finding", "ask", "find"]

FailOn = Literal["error", "warning", "never"]
_KIB: Final = 1024
_MORE_TRIES: Final = 2
_GATEWAY_ERRORS: Final = (502, 503, 504)
_SLOW_SIZE: Final = 2 * 1024 * _KIB
_SLOW_PAUSE: Final = 0.06
"""A pause for each 64 KiB: 2 s for 2 MiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One upload and its result."""

    id: str
    title: str
    size: int
    seen: Seen
    maker: Maker | None

    @property
    def early(self) -> bool:
        """Whether the answer came before the upload's end."""
        return self.seen.response is not None and self.seen.bytes_sent < self.size


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that is wrong."""

    id: str
    cases: tuple[str, ...]
    sentence: str
    advice: str
    severity: Literal["error", "warning"] = "error"


def ask(
    url: str,
    endpoint: Endpoint,
    out: Console,
    *,
    fail_on: FailOn,
    as_document: bool,
) -> int:
    """Test the address, and print the result.

    Args:
        url: The address.
        endpoint: The method, the headers, the upload's size and the time for an answer.
        out: The console to print to.
        fail_on: The lowest severity for which the exit status is 1.
        as_document: Whether to print JSON.

    Returns:
        The exit status.

    Raises:
        Trouble: The address cannot be tested.
    """
    address = Address.of(url)
    base = Sending(
        method=endpoint.method,
        size=endpoint.body_size,
        headers=endpoint.headers,
        timeout=endpoint.timeout,
    )
    small = send(address, replace(base, size=64))
    answer = _check(address, small, endpoint.timeout)
    cases = [_case(address, *sending) for sending in _sendings(base)]
    findings = find(cases, answer)
    notes = _notes(cases)
    shown = proxies(answer)
    if as_document:
        print_json(_as_json(url, answer, shown, cases, findings, notes))
    else:
        _show(url, answer, shown, cases, findings, notes, out)
    severe = [
        finding for finding in findings if fail_on == "warning" or finding.severity == fail_on
    ]
    return EXIT_FINDINGS if severe and fail_on != "never" else EXIT_CLEAN


def _check(address: Address, small: Seen, timeout: float) -> Response:
    """Get the answer to a small request, which the uploads' answers are compared with."""
    response = small.response
    if response is None and small.hung:
        raise Trouble(f"{address.host} did not answer a small request within {timeout:g} s.")
    if response is None:
        why = small.error or "it closed the connection"
        raise Trouble(f"{address.host} did not answer a small request: {why}.")
    location = response.header("Location")
    if 300 <= response.status < 400 and location:
        raise Trouble(f"The address redirects to {location[:200]}: use that one.")
    return response


def _sendings(base: Sending) -> tuple[tuple[str, str, Sending], ...]:
    slow = replace(base, size=min(base.size, _SLOW_SIZE), pause=_SLOW_PAUSE)
    return (
        ("strict", "writes all, then reads", base),
        ("reading", "reads while it sends", replace(base, manner="reading")),
        ("close", "writes all, Connection: close", replace(base, close=True)),
        ("chunked", "writes all, chunked", replace(base, chunked=True)),
        ("slow", "slow uplink", slow),
        ("expect", "Expect: 100-continue", replace(base, expect=True)),
    )


def _case(address: Address, id: str, title: str, sending: Sending) -> Case:
    seen = send(address, sending)
    # Behind a proxy the outcome is a race: the worst attempt counts.
    for _ in range(0 if sending.pause or sending.expect else _MORE_TRIES):
        if seen.response is None or seen.response.status in _GATEWAY_ERRORS:
            break
        seen = send(address, sending)
    maker = None if seen.response is None else made_by(seen.response)
    return Case(id=id, title=title, size=sending.size, seen=seen, maker=maker)


def find(cases: Sequence[Case], small: Response) -> tuple[Finding, ...]:
    """Find what is wrong between the server and here.

    Args:
        cases: The uploads.
        small: The answer to a small request.
    """
    hung = [case for case in cases if case.seen.hung]
    lost = [case for case in cases if case.seen.response is None and not case.seen.hung]
    gateway = [case for case in cases if _is_gateways(case, small)]
    found = (
        (
            lost,
            "early-answer-lost",
            "The connection was reset or closed while the upload ran, and no answer has reached"
            " the client.",
            "Run cleanclose doctor on the application itself: if it loses the answer there as"
            " well, put the middleware around it; if not, look at the proxy.",
        ),
        (
            gateway,
            "bad-gateway",
            f"Uploads get an error of {_makers(gateway)} instead of the application's answer"
            f" ({small.status} to a small request).",
            "The server behind it closes connections with the upload unread: put the middleware"
            " around the application.",
        ),
        (
            hung,
            "connection-hung",
            "Uploads get neither an answer nor an end.",
            "Check whether the server's worker is busy, or the proxy's timeout is longer than"
            " this client's.",
        ),
    )
    return tuple(
        Finding(id=id, cases=tuple(case.id for case in against), sentence=sentence, advice=advice)
        for against, id, sentence, advice in found
        if against
    )


def _is_gateways(case: Case, small: Response) -> bool:
    """Whether the upload got a proxy's error that a small request does not get."""
    response = case.seen.response
    return (
        response is not None
        and response.status in _GATEWAY_ERRORS
        and response.status != small.status
    )


def _makers(cases: Sequence[Case]) -> str:
    makers = [case.maker for case in cases if case.maker is not None]
    names = " or ".join(sorted({maker.name or "the application" for maker in makers}))
    return names if all(maker.sure for maker in makers) else f"{names} (it seems)"


def _notes(cases: Sequence[Case]) -> tuple[str, ...]:
    notes: list[str] = []
    reading = next(case for case in cases if case.id == "reading")
    if reading.seen.response is not None and not reading.early:
        notes.append(
            "The answer came only after the whole upload: this address does not refuse it early,"
            " or a proxy reads all of it first (nginx does so by default)."
        )
    return tuple(notes)


def _as_json(
    url: str,
    small: Response,
    shown: dict[str, str],
    cases: Sequence[Case],
    findings: Sequence[Finding],
    notes: Sequence[str],
) -> dict[str, Any]:
    return {
        "version": 1,
        "kind": "address",
        "target": url,
        "small_request": {"status": small.status},
        "proxies": shown,
        "notes": notes,
        "cases": [
            {
                "id": case.id,
                "title": case.title,
                "status": None if case.seen.response is None else case.seen.response.status,
                "made_by": case.maker,
                "early": case.early,
                "bytes_sent": case.seen.bytes_sent,
                "body_size": case.size,
                "error": case.seen.error,
                "hung": case.seen.hung,
                "seconds": case.seen.seconds,
            }
            for case in cases
        ],
        "findings": findings,
    }


def _show(
    url: str,
    small: Response,
    shown: dict[str, str],
    cases: Sequence[Case],
    findings: Sequence[Finding],
    notes: Sequence[str],
    out: Console,
) -> None:
    out.print(Text(f"{url}: {small.status} to a small request", style="bold"))
    for name, evidence in shown.items():
        out.print(Text(f"On the way: {name} ({evidence})"))
    table = Table(title="\nWhat an upload gets", title_justify="left", title_style="bold", box=None)
    for column in ("client", "answer", "made by", "body sent", "seconds"):
        table.add_column(column)
    for case in cases:
        table.add_row(
            case.title, _got(case, small), _maker(case), _part(case), f"{case.seen.seconds:.1f}"
        )
    out.print(table)
    for note in notes:
        out.print(Text(f"\n{note}", style="yellow"))
    for finding in findings:
        out.print(Text(f"\n{finding.severity}: {finding.id}", style="bold red"))
        out.print(Padding(Text(finding.sentence), (0, 0, 0, 2), expand=False))
        out.print(Padding(Text(finding.advice, style="cyan"), (0, 0, 0, 2), expand=False))
    count = len(findings)
    summary = f"{count} finding{'s' if count > 1 else ''}." if count else "No findings."
    out.print(Text(f"\n{summary}", style="bold red" if count else "bold green"))


def _got(case: Case, small: Response) -> Text:
    if case.seen.response is not None:
        style = "bold red" if _is_gateways(case, small) else "green"
        return Text(str(case.seen.response.status), style=style)
    return Text("hangs" if case.seen.hung else f"lost ({case.seen.error})", style="bold red")


def _maker(case: Case) -> str:
    if case.maker is None:
        return "-"
    if case.maker.name is None:
        return "the application" if case.maker.sure else "unknown"
    return case.maker.name if case.maker.sure else f"{case.maker.name}, it seems"


def _part(case: Case) -> str:
    return "all" if case.seen.bytes_sent >= case.size else f"{case.seen.bytes_sent // _KIB} KiB"
