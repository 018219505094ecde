"""Write the parts of the documentation that are taken from the code.

``python docs/generate.py`` brings the pages up to date; with ``--check`` it only says which ones
are not, and fails if there are any. A generated part stands between two comments that name it.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import enum
import inspect
import logging
import re
import runpy
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cleanclose.core import (
    Cap,
    Cause,
    ClientDeparted,
    DepartureSurge,
    Event,
    Facts,
    Mechanism,
    Outcome,
    Phase,
    ResponseUndelivered,
    Settings,
    Side,
    SurgeThresholds,
    TruncatedUpload,
    UploadDrained,
    UpstreamReset,
    Verdict,
    Witness,
    snapshot,
)
from cleanclose.core.deliver import linger, table
from cleanclose.core.deliver.patience import Patience
from cleanclose.core.levels import DEFAULT, GRADED
from cleanclose.servers import PRIVATE

FOLDER: Final = Path(__file__).parent


def _transitions(states: type[enum.Enum], table: Mapping[Any, enum.Enum]) -> str:
    """A state machine's table, one part for each state."""
    parts: list[str] = []
    for state in states:
        rows = [
            (f"`{happening.name}`", f"`{after.name}`")
            for (before, happening), after in table.items()
            if before is state
        ]
        title = f"### {state.name}\n\n{_sentence(state.value)}"
        parts.append(f"{title}\n\n{_table(('happening', 'then'), rows)}" if rows else title)
    return "\n\n".join(parts)


def _happenings(kind: type[enum.Enum]) -> str:
    """What the names in a table mean."""
    rows = [(f"`{happening.name}`", str(happening.value)) for happening in kind]
    return _table(("happening", "meaning"), rows)


def drain_transitions() -> str:
    """The table of drain and respond."""
    return _transitions(table.State, table.TRANSITIONS)


def drain_happenings() -> str:
    """What can happen to an exchange."""
    return _happenings(table.Happening)


def patience() -> str:
    """How long a body is drained."""
    rows = [(f"`{each.name}`", each.value) for each in Patience]
    return _table(("patience", "the body is drained"), rows)


def linger_transitions() -> str:
    """The table of linger and hold."""
    return _transitions(linger.State, linger.TRANSITIONS)


def linger_happenings() -> str:
    """What can happen to a lingering connection."""
    return _happenings(linger.Happening)


def settings() -> str:
    """The fields of Settings: the defaults, and what the docstring says."""
    plain = Settings()
    meanings = _arguments(Settings)
    rows: list[tuple[str, ...]] = []
    for field in dataclasses.fields(Settings):
        type_ = str(field.type).replace(" | ", " or ")
        rows.append((f"`{field.name}`", f"`{type_}`", _value(getattr(plain, field.name))))
    fields = _table(("setting", "type", "default"), rows)
    texts = [
        f"### {field.name}\n\n{meanings[field.name]}" for field in dataclasses.fields(Settings)
    ]
    return "\n\n".join((fields, *texts))


def outcomes() -> str:
    """What may become of an early response."""
    meanings = _member_docs(Outcome)
    return _table(
        ("outcome", "meaning"), [(f"`{outcome}`", meanings[outcome.name]) for outcome in Outcome]
    )


def caps() -> str:
    """The limits that an event can name."""
    meanings = _member_docs(Cap)
    fields = {field.name for field in dataclasses.fields(Settings)}
    rows: list[tuple[str, str]] = []
    for cap in Cap:
        meaning = meanings.get(cap.name)
        if meaning is None:
            if cap.value not in fields:
                raise ValueError(f"Cap.{cap.name} is neither documented nor a setting")
            meaning = f"The setting [`{cap}`](settings.md#{cap})."
        rows.append((f"`{cap}`", meaning))
    return _table(("cap", "meaning"), rows)


def common_fields() -> str:
    """The fields that every event has, as a log line has them."""
    return _fields(Facts, Event)


def drained_fields() -> str:
    """The fields of `upload_drained`."""
    return _fields(UploadDrained)


def departed_fields() -> str:
    """The fields of `client_departed` and of the events that are a kind of it."""
    return _fields(Verdict, ClientDeparted, TruncatedUpload)


def upstream_fields() -> str:
    """The fields of `upstream_reset`."""
    return _fields(Verdict, UpstreamReset)


def surge_fields() -> str:
    """The fields of `departure_surge`."""
    return _fields(DepartureSurge)


def causes() -> str:
    """What departures that are no longer random have in common."""
    meanings = _member_docs(Cause)
    return _table(("cause", "meaning"), [(f"`{cause}`", meanings[cause.name]) for cause in Cause])


def thresholds() -> str:
    """The fields of SurgeThresholds."""
    return _fields(SurgeThresholds)


def departures() -> str:
    """The events that tell of a departure, by what they are about."""
    rows: list[tuple[str, str]] = []
    for event in (ClientDeparted, ResponseUndelivered, TruncatedUpload):
        summary = (inspect.getdoc(event) or "").split("\n\n")[0]
        rows.append((f"`{event.name}`", _markdown(summary)))
    return _table(("event", "meaning"), rows)


def closed_sets() -> str:
    """The values of a verdict's parts."""
    rows: list[tuple[str, str, str]] = []
    for name, documented in (
        ("side", Side),
        ("phase", Phase),
        ("mechanism", Mechanism),
        ("witnesses", Witness),
    ):
        meanings = _member_docs(documented)
        rows += [
            (f"`{name}`", f"`{member.value}`", meanings.get(member.name, ""))
            for member in documented
        ]
    return _table(("field", "value", "meaning"), rows)


def levels() -> str:
    """The table of levels."""
    rows = [
        (
            f"`{row}`",
            logging.getLevelName(level).lower(),
            logging.getLevelName(GRADED.get(row, level)).lower(),
        )
        for row, level in DEFAULT.items()
    ]
    return _table(("row", "level", "with `graded_levels`"), rows)


def counters() -> str:
    """The names in a snapshot, each with the values that its labels have from the start."""
    families: dict[str, dict[str, list[str]]] = {}
    for key in snapshot():
        name, _, labels = key.partition("{")
        family = families.setdefault(name, {})
        for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
            values = family.setdefault(label, [])
            if value not in values:
                values.append(value)
    rows = [
        (
            f"`{name}`",
            "; ".join(
                f"`{label}`: " + ", ".join(f"`{value}`" for value in values)
                for label, values in labels.items()
            ),
        )
        for name, labels in families.items()
    ]
    return _table(("counter", "labels"), rows)


def private_attributes() -> str:
    """What others do not promise: for each package, the attributes with the same consequence."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in PRIVATE:
        package, _, rest = row.owner.partition(".")
        owner = rest.rpartition(".")[2]
        names = groups.setdefault((package, row.without), [])
        name = f"`{owner}.{row.attribute}`"
        if name not in names:
            names.append(name)
    rows = [(package, ", ".join(names), without) for (package, without), names in groups.items()]
    return _table(("package", "attributes", "if one of them is gone"), rows)


def _constructs() -> Mapping[str, Any]:
    """The tables that the tests on real servers run over."""
    return runpy.run_path(str(FOLDER.parent / "tests" / "harness" / "constructs.py"))


def _servers_with(path: str, table: Mapping[str, frozenset[str]]) -> str:
    """The servers in whose row a path is."""
    found = [server for server, paths in table.items() if path in paths]
    for package in ("uvicorn", "hypercorn"):
        kinds = [server for server in table if server.startswith(package)]
        if len(kinds) > 1 and set(kinds) <= set(found):
            found = [package if server == kinds[0] else server for server in found]
            found = [server for server in found if server not in kinds or server == package]
    return ", ".join(dict.fromkeys(found)) or "-"


def masking_constructs() -> str:
    """What a bare server does not tell, construct by construct."""
    tables = _constructs()
    rows: list[tuple[str, ...]] = []
    for name, construct in tables["ASYNC"].items():
        hidden = [
            _servers_with(f"{prefix}{name}", tables["BARE_HIDES"]) for prefix in ("/", "/ws/")
        ]
        untold = _servers_with(f"/ws/{name}", tables["NOT_SHOWN"])
        rows.append(
            (construct.code, *hidden, "once" if untold == "-" else f"once; not on {untold}")
        )
    heads = ("the application", "body: bare, nobody tells on", "websocket: bare, nobody tells on")
    return _table((*heads, "with cleanclose"), rows)


def masking_frameworks() -> str:
    """The same for what frameworks add."""
    tables = _constructs()
    rows = [
        (what, _servers_with(path, tables["BARE_HIDES"]), "once")
        for path, what in tables["FRAMEWORKS"].items()
    ]
    return _table(("the application", "bare, nobody tells on", "with cleanclose"), rows)


def masking_servers() -> str:
    """The servers, and how many paths are tried on each."""
    tables = _constructs()
    rows: list[tuple[str, ...]] = []
    for server in tables["ASGI_SERVERS"]:
        tried = tables["asgi_cases"](server)
        hidden = tables["BARE_HIDES"][server]
        untold = tables["NOT_SHOWN"].get(server, frozenset())
        rows.append((server, str(len(tried)), str(len(hidden)), str(len(untold))))
    return _table(("server", "tried", "bare, nobody tells", "with cleanclose, nobody tells"), rows)


PAGES: Final[Mapping[str, Mapping[str, Callable[[], str]]]] = {
    "surges.md": {"causes": causes, "surge_fields": surge_fields, "thresholds": thresholds},
    "closing-rules.md": {
        "patience": patience,
        "drain_transitions": drain_transitions,
        "drain_happenings": drain_happenings,
        "linger_transitions": linger_transitions,
        "linger_happenings": linger_happenings,
    },
    "settings.md": {"settings": settings},
    "a-client-cannot-hide-an-error.md": {
        "masking_servers": masking_servers,
        "masking_constructs": masking_constructs,
        "masking_frameworks": masking_frameworks,
    },
    "private-attributes.md": {"private_attributes": private_attributes},
    "events-and-counters.md": {
        "common_fields": common_fields,
        "drained_fields": drained_fields,
        "outcomes": outcomes,
        "caps": caps,
        "departures": departures,
        "departed_fields": departed_fields,
        "upstream_fields": upstream_fields,
        "closed_sets": closed_sets,
        "levels": levels,
        "counters": counters,
    },
}


def generated(page: str, text: str) -> str:
    """The text of a page with all of its generated parts up to date.

    Args:
        page: The page's file name.
        text: The page as it is.

    Raises:
        ValueError: The page has no place for one of its parts.
    """
    for name, make in PAGES[page].items():
        begin, end = f"<!-- generated: {name}, by docs/generate.py -->", f"<!-- end: {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{page} has no lines {begin} and {end}")
        text = f"{before}{begin}\n\n{make()}\n\n{end}{after}"
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Write the generated parts of the docs.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail if a page is old"
    )
    check: bool = parser.parse_args(arguments).check
    old: list[str] = []
    for page in PAGES:
        path = FOLDER / page
        text = path.read_text("utf-8")
        wanted = generated(page, text)
        if wanted != text:
            old.append(page)
            if not check:
                path.write_text(wanted, "utf-8")
    for page in old:
        sys.stdout.write(f"{page} {'is not up to date' if check else 'rewritten'}\n")
    return 1 if check and old else 0


def _fields(*holders: type) -> str:
    found: dict[str, str] = {}
    for holder in holders:
        for name, meaning in _arguments(holder).items():
            if name not in ("facts", "verdict", "exception"):
                found.setdefault(name, meaning)
    return _table(("field", "meaning"), [(f"`{name}`", text) for name, text in found.items()])


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _value(value: object) -> str:
    if value is None:
        return "`None`"
    text = f"`{value}`"
    mib = 1024 * 1024
    if isinstance(value, int) and value >= mib and value % mib == 0:
        text += f" ({value // mib} MiB)"
    return text


def _arguments(documented: type) -> dict[str, str]:
    """What the part ``Args:`` of a class's docstring says, by name, on one line each."""
    doc = inspect.getdoc(documented) or ""
    part = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)+)", doc, re.MULTILINE)
    if part is None:
        raise ValueError(f"{documented.__name__} documents no arguments")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\w)", textwrap.dedent(part[1]).strip()):
        name, _, meaning = entry.partition(":")
        found[name] = _markdown(meaning)
    return found


def _member_docs(documented: type[enum.Enum]) -> dict[str, str]:
    """The strings that stand below the members of an enum, which Python itself throws away."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(documented))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for member, below in zip(definition.body, definition.body[1:], strict=False):
        match member, below:
            case (
                ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = _markdown(text)
            case _:
                pass
    return found


def _markdown(text: str) -> str:
    # Sphinx has double backticks for code, and single ones for references.
    return " ".join(text.split()).replace("``", "`").replace("`cleanclose.core.", "`")


if __name__ == "__main__":
    sys.exit(main())
