"""A picture of what each strategy trains, as SVG text.

Counts differ by a factor of a million, so the axis is logarithmic, and each strategy has two bars
from its left end: the trained weights, and the frozen ones below.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 880
LEFT, RIGHT = 132, 188
"""Space for the names, and for the numbers."""
TOP, BOTTOM = 118, 40
ROW = 56
TRAINED_HEIGHT, FROZEN_HEIGHT = 18, 8

STYLE = """
  .card { fill: #ffffff; stroke: #e3e7ee }
  text { font-family: Inter, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #1d2633 }
  .title { font-size: 19px; font-weight: 600 }
  .quiet { font-size: 12.5px; fill: #667085 }
  .name { font-size: 15px; font-weight: 600 }
  .count { font-size: 14px; font-weight: 600 }
  .grid { stroke: #e9edf3 }
  .trained { fill: #0e7c86 }
  .frozen { fill: #c9d1de }
  @media (prefers-color-scheme: dark) {
    .card { fill: #12161d; stroke: #2a3240 }
    text { fill: #e7ecf4 }
    .quiet { fill: #98a4b8 }
    .grid { stroke: #222a37 }
    .trained { fill: #35b8c2 }
    .frozen { fill: #465166 }
  }
"""


@dataclass(frozen=True)
class Bar:
    """One strategy; no counts if the base does not support it."""

    name: str
    trainable: int | None
    frozen: int | None
    note: str = ""


def draw(model: str, weights: int, bars: Sequence[Bar]) -> str:
    """Return the SVG document for a base with this number of weights."""
    height = TOP + ROW * len(bars) + BOTTOM
    counts = [count for bar in bars for count in (bar.trainable, bar.frozen) if count]
    axis = _Axis(min(counts), max(counts))
    described = "; ".join(
        f"{bar.name}: {bar.trainable:,} trained" for bar in bars if bar.trainable is not None
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>What each strategy trains of {escape(model)}</title>",
        f"<desc>{escape(described)}</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="12"/>',
        *_heading(model, weights),
        *_grid(axis, height - BOTTOM),
    ]
    for index, bar in enumerate(bars):
        lines += _row(bar, axis, TOP + ROW * index)
    return "\n".join([*lines, "</svg>"]) + "\n"


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis that begins below the smallest count, so that it has a bar."""

    smallest: int
    largest: int

    @property
    def first(self) -> int:
        """The power of ten at the left end."""
        power = math.floor(math.log10(self.smallest))
        return max(0, power - 1 if self.smallest < 2 * 10**power else power)

    @property
    def last(self) -> float:
        return max(self.first + 1.0, math.log10(self.largest) * 1.005)

    def x(self, count: float) -> float:
        share = (math.log10(max(1.0, count)) - self.first) / (self.last - self.first)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def powers(self) -> range:
        return range(self.first, math.floor(self.last) + 1)


def _heading(model: str, weights: int) -> Iterator[str]:
    yield _text(28, 38, "title", f"What each strategy trains of {_shortened(model)}")
    yield _text(28, 60, "quiet", f"{weights:,} weights in the base · logarithmic scale")
    yield f'<rect class="trained" x="{LEFT}" y="76" width="12" height="12" rx="3"/>'
    yield _text(LEFT + 19, 86, "quiet", "trained")
    yield f'<rect class="frozen" x="{LEFT + 84}" y="76" width="12" height="12" rx="3"/>'
    yield _text(LEFT + 103, 86, "quiet", "frozen")
    yield _text(WIDTH - RIGHT + 20, 86, "quiet", "trained, share of all")


def _grid(axis: _Axis, bottom: int) -> Iterator[str]:
    for power in axis.powers():
        x = axis.x(10**power)
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP - 14}" x2="{x:.1f}" y2="{bottom}"/>'
        yield _text(x, bottom + 20, "quiet", short(10**power), anchor="middle")


def _row(bar: Bar, axis: _Axis, top: float) -> Iterator[str]:
    yield _text(LEFT - 14, top + 19, "name", bar.name, anchor="end")
    if bar.trainable is None:
        yield _text(LEFT + 8, top + 19, "quiet", bar.note)
        return
    yield _bar("trained", axis, bar.trainable, top + 5, TRAINED_HEIGHT)
    if bar.frozen:
        yield _bar("frozen", axis, bar.frozen, top + 5 + TRAINED_HEIGHT + 3, FROZEN_HEIGHT)
    total = bar.trainable + (bar.frozen or 0)
    x = WIDTH - RIGHT + 20
    yield _text(x, top + 19, "count", short(bar.trainable))
    yield _text(x + 64, top + 19, "quiet", share(bar.trainable / total))


def _bar(kind: str, axis: _Axis, count: int, y: float, height: int) -> str:
    width = max(2.0, axis.x(count) - LEFT)
    return (
        f'<rect class="{kind}" x="{LEFT}" y="{y:.1f}" width="{width:.1f}" height="{height}" '
        f'rx="{height / 4:g}"/>'
    )


def _text(x: float, y: float, kind: str, text: str, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _shortened(name: str) -> str:
    return name if len(name) <= 48 else f"{name[:47]}…"


def short(count: int) -> str:
    """Return a count with three digits at most: `1.18 M`."""
    for size, unit in ((10**9, " B"), (10**6, " M"), (10**3, " K")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def share(part: float) -> str:
    """Return a share in percent with two digits."""
    percent = 100 * part
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"
