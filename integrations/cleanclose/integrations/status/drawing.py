"""The page as HTML: one document without scripts, pictures or fonts to load."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cleanclose.core import KERNEL_COUNTERS, Outcome, Phase

__all__ = ["BARS", "PHASES", "POLICY", "render"]

BARS: Final = 120
"""How many bars a plot has."""
PHASES: Final = (
    Phase.REQUEST_BODY,
    Phase.HANDLER,
    Phase.RESPONSE_START,
    Phase.RESPONSE_BODY,
    Phase.WEBSOCKET,
)
"""The phases that have a plot."""
_PHASE_TITLES: Final = {
    Phase.REQUEST_BODY: "left during the upload",
    Phase.HANDLER: "left while the handler worked",
    Phase.RESPONSE_START: "left before the first byte",
    Phase.RESPONSE_BODY: "left during the response",
    Phase.WEBSOCKET: "left a websocket",
}
_OUTCOME_TITLES: Final = {
    Outcome.DELIVERED: "early responses delivered",
    Outcome.CUT: "early responses cut by a limit",
    Outcome.RESET: "early responses reset",
    Outcome.UNKNOWN: "early responses, end unknown",
}

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #5b6675; --paper: #f6f7f9;
  --card: #fff; --line: #dfe3e8; --bar: #2f6fde; --bad: #c4432b; --good: #1f7a4d; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --dim: #98a3b3; --paper: #12161c; --card: #1a2028; --line: #2b333e;
    --bar: #6ea0ff; --bad: #ff8a70; --good: #5ecb95; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper);
  color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; }
h1 { margin: 0; font-size: 1.4rem; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .6rem; font-size: 1.05rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
.dim { color: var(--dim); font-size: .85rem; }
.grid { display: grid; gap: .7rem; margin-top: .6rem;
  grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); }
.plots { grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr));
  align-items: start; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem .8rem; min-width: 0; }
.number { font-size: 1.6rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.plot { display: flex; justify-content: space-between; gap: .5rem; }
.plot b { font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: 4rem; margin: .4rem 0 .2rem; color: var(--bar); }
svg.bad { color: var(--bad); }
svg.good { color: var(--good); }
.axis { display: flex; justify-content: space-between; }
.surge { border-left: 4px solid var(--bad); margin-bottom: .6rem; }
.surge b { color: var(--bad); }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
  align-items: start; }
.columns { columns: 21rem; column-gap: .7rem; }
.columns .card { break-inside: avoid; margin-bottom: .7rem; }
h3 { display: flex; justify-content: space-between; gap: .7rem; margin: 0; font-size: .95rem;
  font-weight: normal; }
h3 code { overflow-wrap: anywhere; font-size: .8rem; }
table { width: 100%; border-collapse: collapse; margin-top: .4rem; }
td, th { padding: .25rem 0; border-top: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; font-weight: normal; font-size: .9rem; }
td.n { padding-left: .7rem; text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; overflow-wrap: normal; }
th small { display: block; color: var(--dim); }
ul { padding-left: 1.1rem; font-size: .85rem; color: var(--dim); overflow-wrap: anywhere; }
code { font: .9em ui-monospace, monospace; }
details { margin-top: .6rem; }
summary { cursor: pointer; color: var(--dim); }
"""

POLICY: Final = (
    "default-src 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)
"""The page's ``Content-Security-Policy``: nothing but its own style."""


def render(figures: Mapping[str, Any]) -> str:
    """The page as HTML: one document that loads nothing.

    Args:
        figures: What `StatusPage.figures` returns.
    """
    process = figures["process"]
    title = _text(figures["title"])
    kernel = figures["kernel"]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}: status</title><style>{_STYLE}</style></head><body>",
        f'<header><h1>{title}</h1><span class="dim">process {_text(process["pid"])}, '
        f"Python {_text(process['python'])}, since {_time(process['since'])}, "
        f"shown {_time(process['now'])}</span></header>",
        '<p class="dim">These are the figures of this one process. Where there are several '
        "workers, the next look may meet another one.</p>",
        _tiles(figures["counters"]),
        "<h2>Surges</h2>",
        _surges(figures["surges"]),
        "<h2>Over time</h2>",
        _plots(figures["series"]),
        "<h2>Counters</h2>",
        _counters(figures["counters"]),
    ]
    if kernel is not None:
        parts += ["<h2>The kernel</h2>", _kernel_tables(kernel)]
    parts.append("</body></html>")
    return "\n".join(parts)


def _text(value: object) -> str:
    return html.escape(str(value))


def _time(iso: str) -> str:
    shown = iso.replace("T", " ").replace("+00:00", " UTC")
    return f'<time datetime="{_text(iso)}">{_text(shown)}</time>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _sum(counters: Mapping[str, float], name: str, label: str = "") -> float:
    return sum(
        value
        for key, value in counters.items()
        if key.partition("{")[0] == f"cleanclose_{name}_total" and label in key
    )


def _tiles(counters: Mapping[str, float]) -> str:
    early = _sum(counters, "early_responses")
    delivered = _sum(counters, "early_responses", 'outcome="delivered"')
    by_server = _sum(counters, "departures", 'side="server"')
    tiles = (
        ("departures", _sum(counters, "departures"), f"{_number(by_server)} by this process"),
        ("early responses", early, f"{_number(delivered)} delivered"),
        (
            "responses undelivered",
            _sum(counters, "responses_undelivered"),
            "of requests that were carried out",
        ),
        ("upstream resets", _sum(counters, "upstream_resets"), "errors that are not the client's"),
        ("surges", _sum(counters, "departure_surges"), "warnings"),
        (
            "wasted seconds",
            _sum(counters, "wasted_seconds"),
            f"of work for nobody; {_number(_sum(counters, 'stopped'))} times it was stopped",
        ),
    )
    cells = (
        f'<div class="card"><div>{_text(name)}</div><div class="number">{_number(value)}</div>'
        f'<div class="dim">{_text(more)}</div></div>'
        for name, value, more in tiles
    )
    return f'<div class="grid">{"".join(cells)}</div>'


def _surges(surges: Sequence[Mapping[str, Any]]) -> str:
    if not surges:
        return '<p class="dim">None: departures have nothing in common.</p>'
    return "".join(map(_surge_card, surges))


def _surge_card(surge: Mapping[str, Any]) -> str:
    usual = surge.get("usual_share")
    lines = [
        f"<b>{_text(surge['cause'])}</b> {_time(surge['at'])}",
        f"{_text(surge['count'])} of {_text(surge['of'])} departures "
        f"({surge['share']:.0%}{'' if usual is None else f', usually {usual:.0%}'}) "
        f"in {surge['seconds']:.0f} s",
    ]
    details = [
        f"{word} <code>{_text(surge[name])}</code>{unit}"
        for name, word, unit in (
            ("route", "on", ""),
            ("network", "from", ""),
            ("seconds_each", "each after", " s"),
            ("bytes_each", "each after", " bytes"),
        )
        if name in surge
    ]
    if details:
        lines.append(", ".join(details))
    if "likely_cause" in surge:
        lines.append(f'<span class="dim">{_text(surge["likely_cause"])}</span>')
    return f'<div class="card surge">{"".join(f"<p>{line}</p>" for line in lines)}</div>'


def _plots(series: Mapping[str, Any]) -> str:
    minutes = series["seconds_each"] * BARS / 60
    cards = [
        _plot(_PHASE_TITLES[phase], series["departures"][phase.value], "", minutes)
        for phase in PHASES
    ]
    cards += [
        _plot(
            _OUTCOME_TITLES[outcome],
            series["early_responses"][outcome.value],
            "good" if outcome is Outcome.DELIVERED else "bad",
            minutes,
        )
        for outcome in Outcome
    ]
    return f'<div class="grid plots">{"".join(cards)}</div>'


def _plot(title: str, numbers: Sequence[int], style: str, minutes: float) -> str:
    highest = max(numbers)
    bars = "".join(
        f"M{2 * place} 40v-{40 * number / highest:.1f}h1.6V40z"
        for place, number in enumerate(numbers)
        if number
    )
    label = f"{title}: {sum(numbers)} in {minutes:g} minutes, at most {highest} in one bar"
    return (
        f'<div class="card"><div class="plot"><span>{_text(title)}</span>'
        f"<b>{_number(sum(numbers))}</b></div>"
        f'<svg class="{style}" viewBox="0 0 {2 * BARS} 40" preserveAspectRatio="none" role="img" '
        f'aria-label="{_text(label)}"><path d="M0 39.8h{2 * BARS}" stroke="currentColor" '
        f'stroke-opacity=".35" stroke-width=".5"/><path d="{bars}" fill="currentColor"/></svg>'
        f'<div class="axis dim"><span>{minutes:g} min ago</span>'
        f"<span>highest {_number(highest)}</span><span>now</span></div></div>"
    )


def _counters(counters: Mapping[str, float]) -> str:
    families: dict[str, list[tuple[str, float]]] = {}
    for name, value in counters.items():
        family, _, labels = name.partition("{")
        families.setdefault(family, []).append((labels, value))
    cards = [
        _family(family, seen)
        for family, rows in families.items()
        if (seen := [(labels, value) for labels, value in rows if value])
    ]
    unseen = [
        f"<li><code>{_text(name)}</code></li>" for name, value in counters.items() if not value
    ]
    text = f'<div class="columns">{"".join(cards)}</div>'
    if unseen:
        summary = f"<summary>{len(unseen)} at 0</summary>"
        text += f"<details>{summary}<ul>{''.join(unseen)}</ul></details>"
    return text


def _family(family: str, rows: Sequence[tuple[str, float]]) -> str:
    total = _number(sum(value for _, value in rows))
    names = " · ".join(re.findall(r'(\w+)="', rows[0][0]))
    head = f"<h3><code>{_text(family)}</code> <b>{total}</b></h3>"
    if not names:
        return f'<div class="card">{head}</div>'
    cells = "".join(
        _row(" · ".join(re.findall(r'="([^"]*)"', labels)), _number(value))
        for labels, value in rows
    )
    return f'<div class="card">{head}<p class="dim">{_text(names)}</p><table>{cells}</table></div>'


def _row(name: str, value: str, more: str = "") -> str:
    small = f"<small>{_text(more)}</small>" if more else ""
    return f'<tr><th>{_text(name)}{small}</th><td class="n">{_text(value)}</td></tr>'


def _kernel_tables(kernel: Mapping[str, Any]) -> str:
    counters = "".join(
        _row(name, _number(value), KERNEL_COUNTERS.get(name, ""))
        for name, value in kernel["counters"].items()
    )
    cards = f'<div class="card"><h3>resets</h3><table>{counters}</table></div>'
    listeners = "".join(map(_listener, kernel["listeners"]))
    if listeners:
        cards += (
            f'<div class="card"><h3>connections waiting to be accepted</h3>'
            f"<table>{listeners}</table></div>"
        )
    return (
        '<p class="dim">Of everything that shares this network namespace, other programs '
        f'included.</p><div class="grid wide">{cards}</div>'
    )


def _listener(listener: Mapping[str, Any]) -> str:
    limit = listener["limit"]
    queue = f"{listener['queue']}" + ("" if limit is None else f" of {limit}")
    return _row(f"{listener['address']}:{listener['port']}", queue)
