"""Draw the Grafana dashboard from a real run, without Grafana.

``python -m docs.dashboard_picture``, from the root of a checkout with the ``demo`` and
``prometheus`` extras and a Prometheus, starts the metered example service on four workers, has
clients use it and leave it for some minutes while Prometheus scrapes it, asks Prometheus for
every panel's expressions, and draws the answers where the dashboard has its panels. Nothing in
the picture is made up; its look is this script's, not Grafana's.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any, Final

from tests.harness import dashboard, metered
from tests.harness.prometheus import Prometheus
from tests.harness.quitter import quitter

PICTURE: Final = Path(__file__).with_name("dashboard.svg")

COLUMN: Final = 50
ROW: Final = 28
HEAD: Final = 40
WIDTH: Final = 24 * COLUMN
MARGIN: Final = 44
"""Pixels for the figures on the left of a plot."""

COLORS: Final = (
    *("#3274d9", "#e0752d", "#56a64b", "#a352cc", "#e02f44", "#e0b400", "#37872d", "#8ab8ff"),
)
INTERVAL: Final = "2s"
RATE: Final = "12s"
STEP: Final = 2.0

Point = tuple[float, float]
Line = tuple[str, Sequence[Point]]


def main() -> None:
    """Run, ask and draw."""
    parser = argparse.ArgumentParser(description="Draw the dashboard from a real run.")
    parser.add_argument("--seconds", type=int, default=180, help="how long to run (180)")
    seconds: int = parser.parse_args().seconds
    with (
        tempfile.TemporaryDirectory() as folder,
        quitter() as prices,
        metered.metered_service(Path(folder), prices.url) as service,
        Prometheus(service.port, interval=INTERVAL) as prometheus,
    ):
        prometheus.wait_for("sum(cleanclose_departures_total)", 0)
        begun = time.time()
        with metered.visitors(service.port, pause=0.05):
            leave(service.port, seconds)
        text = picture(prometheus, begun, time.time())
    PICTURE.write_text(text, "utf-8")


def leave(port: int, seconds: int) -> None:
    """Have clients leave: a few all the time, and more of them in the middle."""
    chance = random.Random(1)  # noqa: S311 - the same clients in each picture
    over = threading.Event()
    begun = time.monotonic()

    def one() -> None:
        while not over.wait(chance.expovariate(1.0)):
            part = (time.monotonic() - begun) / seconds
            with contextlib.suppress(OSError, AssertionError):
                act(port, chance, busy=0.45 < part < 0.6)

    with ThreadPoolExecutor(6) as pool:
        for _ in range(6):
            pool.submit(one)
        time.sleep(seconds)
        over.set()


def act(port: int, chance: random.Random, *, busy: bool) -> None:
    """Do one thing that is counted."""
    if busy:
        # A network that breaks, and with it an upstream.
        if chance.random() < 0.2:
            metered.visit(port, "GET", "/prices")
        for _ in range(3):
            metered.cut_upload(port, "rst")
        return
    match chance.choices(range(5), (4, 2, 3, 4, 0.3))[0]:
        case 0:
            metered.cut_upload(port, chance.choice(("rst", "fin")))
        case 1:
            metered.leave_order(port, "fin", stays=chance.uniform(0.05, 0.4))
        case 2:
            metered.leave_report(port, "rst")
        case 3:
            metered.refused_upload(port)
        case _:
            metered.visit(port, "GET", "/prices")


def picture(prometheus: Prometheus, begun: float, ended: float) -> str:
    """The dashboard as an SVG."""
    parts: list[str] = []
    height = 0
    for panel in dashboard.load()["panels"]:
        place = panel["gridPos"]
        x, y = place["x"] * COLUMN, HEAD + place["y"] * ROW
        w, h = place["w"] * COLUMN, place["h"] * ROW
        height = max(height, y + h)
        if panel["type"] == "row":
            parts.append(text_at(x + 8, y + 20, panel["title"], 15, weight="bold"))
            continue
        parts.append(f'<g transform="translate({x + 4},{y + 4})">')
        parts.append(
            f'<rect width="{w - 8}" height="{h - 8}" rx="3" fill="#fff" stroke="#d8d9dd"/>'
        )
        parts.append(text_at(10, 19, panel["title"], 12, weight="bold"))
        parts += PAINTERS[panel["type"]](prometheus, panel, (begun, ended), (w - 8, h - 8))
        parts.append("</g>")
    note = (
        f"The dashboard's queries, answered by Prometheus for {ended - begun:.0f} s of the metered "
        "example service and drawn by docs/dashboard_picture.py. No screenshot of Grafana."
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 8}" '
            'font-family="Helvetica, Arial, sans-serif" fill="#24292e">',
            f'<rect width="{WIDTH}" height="{height + 8}" fill="#f4f5f5"/>',
            text_at(10, 26, "cleanclose", 18, weight="bold"),
            text_at(120, 26, note, 12, color="#6e7075"),
            *parts,
            "</svg>\n",
        ]
    )


Times = tuple[float, float]
Size = tuple[float, float]


def stat(
    prometheus: Prometheus, panel: Mapping[str, Any], times: Times, size: Size
) -> Iterator[str]:
    """One number."""
    (target,) = panel["targets"]
    span = f"{times[1] - times[0]:.0f}s"
    value = prometheus.value(dashboard.expression(target, interval=RATE, span=span))
    defaults = panel["fieldConfig"]["defaults"]
    limits = [step["value"] for step in defaults["thresholds"]["steps"] if step["value"]]
    color = "#e02f44" if limits and value is not None and value >= limits[0] else "#37872d"
    shown = "No data" if value is None else figure(value, defaults["unit"], whole=True)
    yield text_at(size[0] / 2, size[1] / 2 + 22, shown, 32, color=color, anchor="middle")


def plot(
    prometheus: Prometheus, panel: Mapping[str, Any], times: Times, size: Size
) -> Iterator[str]:
    """Lines over time, or areas on top of each other."""
    lines = [line for target in panel["targets"] for line in series_of(prometheus, target, times)]
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    # What has been 0 all the time would only fill the legend.
    busy = [line for line in lines if any(value > 0 for _, value in line[1])]
    lines = busy or lines[:1]
    if stacked:
        lines = list(stack_up(lines))
    top = max((value for _, points in lines for _, value in points), default=0) or 1
    left, right, upper, lower = MARGIN, size[0] - 10, 32.0, size[1] - 44

    def spot(point: Point) -> str:
        x = left + (right - left) * (point[0] - times[0]) / (times[1] - times[0])
        return f"{x:.1f},{lower - (lower - upper) * point[1] / top:.1f}"

    yield from axes(times, (left, right, upper, lower), top, defaults["unit"])
    below: Sequence[Point] = ()
    x = float(left)
    for number, (name, points) in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        if stacked and points:
            base = below or [(moment, 0.0) for moment, _ in points]
            area = " ".join(map(spot, [*points, *reversed(base)]))
            yield f'<polygon points="{area}" fill="{color}" fill-opacity="0.25"/>'
        yield (
            f'<polyline points="{" ".join(map(spot, points))}" fill="none" stroke="{color}" '
            'stroke-width="1.3"/>'
        )
        below = points
        yield f'<rect x="{x:.0f}" y="{size[1] - 19}" width="10" height="3" fill="{color}"/>'
        yield text_at(x + 14, size[1] - 14, name, 11)
        x += 26 + 6.1 * len(name)


def heatmap(
    prometheus: Prometheus, panel: Mapping[str, Any], times: Times, size: Size
) -> Iterator[str]:
    """How many in which bucket, over time: what the buckets have above the one below."""
    (target,) = panel["targets"]
    buckets = sorted(
        ((float(name), dict(points)) for name, points in series_of(prometheus, target, times)),
        key=lambda bucket: bucket[0],
    )
    left, right, upper, lower = MARGIN, size[0] - 10, 32.0, size[1] - 24
    high = (lower - upper) / len(buckets)
    cells: list[tuple[float, int, float]] = []
    before: Mapping[float, float] = {}
    for row, (_, counted) in enumerate(buckets):
        cells += [
            (moment, row, value - before.get(moment, 0.0)) for moment, value in counted.items()
        ]
        before = counted
    most = max((value for _, _, value in cells), default=0) or 1
    wide = (right - left) * STEP / (times[1] - times[0])
    for moment, row, value in cells:
        if value > 0.01:
            x = left + (right - left) * (moment - times[0]) / (times[1] - times[0])
            yield (
                f'<rect x="{x:.1f}" y="{lower - (row + 1) * high:.1f}" width="{wide:.1f}" '
                f'height="{high:.1f}" fill="#e0752d" fill-opacity="{value / most:.2f}"/>'
            )
    for row, (bound, _) in enumerate(buckets):
        if row % 2 == 0:
            name = "more" if math.isinf(bound) else f"{bound:g} s"
            yield text_at(left - 4, lower - row * high - 2, name, 10, anchor="end", color="#6e7075")
    yield from moments(times, (left, right), size[1] - 9)


PAINTERS: Final = {"stat": stat, "timeseries": plot, "heatmap": heatmap}


def series_of(prometheus: Prometheus, target: Mapping[str, Any], times: Times) -> Iterator[Line]:
    """A target's series over the time of the run, with the names of its legend."""
    data = prometheus.get(
        "query_range",
        query=dashboard.expression(target, interval=RATE),
        start=times[0],
        end=times[1],
        step=STEP,
    )
    for series in data["result"]:
        name: str = target["legendFormat"]
        for label, value in series["metric"].items():
            name = name.replace(f"{{{{{label}}}}}", value)
        points = [(float(moment), float(value)) for moment, value in series["values"]]
        yield name, [point for point in points if math.isfinite(point[1])]


def stack_up(lines: Sequence[Line]) -> Iterator[Line]:
    """Each line on top of those before it."""
    below: dict[float, float] = {}
    for name, points in lines:
        for moment, value in points:
            below[moment] = below.get(moment, 0.0) + value
        yield name, [(moment, below[moment]) for moment, _ in points]


def axes(
    times: Times, edges: tuple[float, float, float, float], top: float, unit: str
) -> Iterator[str]:
    """Three lines with their figures, and the time."""
    left, right, upper, lower = edges
    for part in (0.0, 0.5, 1.0):
        y = lower - (lower - upper) * part
        yield f'<path d="M{left} {y:.1f}H{right}" stroke="#e6e7ea"/>'
        name = figure(top * part, unit)
        yield text_at(left - 4, y + 3, name, 10, anchor="end", color="#6e7075")
    yield from moments(times, (left, right), lower + 13)


def moments(times: Times, edges: tuple[float, float], y: float) -> Iterator[str]:
    """The seconds of the run, below a plot."""
    left, right = edges
    whole = times[1] - times[0]
    for second in range(0, int(whole) + 1, 60):
        x = left + (right - left) * second / whole
        anchor = "start" if second == 0 else "middle" if second + 10 < whole else "end"
        yield text_at(x, y, f"{second} s", 10, anchor=anchor, color="#6e7075")


def figure(value: float, unit: str, *, whole: bool = False) -> str:
    """A number with its unit."""
    match unit:
        case "percentunit":
            return f"{value:.1%}"
        case "Bps":
            return f"{value / 1024 / 1024:.2g} MiB"
        case "s":
            return f"{value:.2g} s"
        case "reqps" | "cps":
            return f"{value:.0f}/s" if value >= 100 else f"{value:.2g}/s"
        case _:
            # Prometheus extrapolates an increase.
            return f"{value:.0f}" if whole or value >= 100 else f"{value:.2g}"


def text_at(
    x: float,
    y: float,
    text: str,
    size: int,
    *,
    weight: str = "normal",
    color: str = "#24292e",
    anchor: str = "start",
) -> str:
    """A piece of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{color}" text-anchor="{anchor}">{escape(text)}</text>'
    )


if __name__ == "__main__":
    main()
