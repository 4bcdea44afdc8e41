# SPDX-License-Identifier: LGPL-2.1-or-later
"""The chart: how many times better than stock, one bar a row, with a mark where the goal is.

SVG without scripts, fonts or links; it paints its own background, light or dark as the reader
likes it.
"""

import math
from xml.sax.saxutils import escape

from report import cell, heading

WIDTH = 1000
LABEL = 430  # where the bars begin
VALUES = 200  # room for the figures behind them
ROW = 26
BAR = 14
TOP = 92
BOTTOM = 64
STYLE = """
  svg { font-family: system-ui, sans-serif; font-size: 13px }
  .paper { fill: #ffffff } .ink { fill: #1f2328 } .faint { fill: #59636e }
  .title { font-size: 17px; font-weight: 600 }
  .grid { stroke: #d1d9e0 } .stock { stroke: #59636e; stroke-width: 1.5 }
  .better { fill: #1a7f64 } .worse { fill: #bc4c00 }
  .goal { stroke: #1f2328; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } .ink { fill: #e6edf3 } .faint { fill: #9198a1 }
    .grid { stroke: #3d444d } .stock { stroke: #9198a1 }
    .better { fill: #3fb994 } .worse { fill: #e0823d }
    .goal { stroke: #e6edf3 }
  }
"""


def _gain(row):
    """How many times better than stock."""
    ratio = row["ratio"]
    return ratio if row["more_is_better"] else 1 / ratio


def _goal(row):
    goal = row["goal"]
    if not goal:
        return None
    if goal["of_value"]:
        return row["base"]["median"] / goal["most"]
    return goal["least"] if goal["most"] is None else 1 / goal["most"]


def _shown(row):
    return bool(row["ratio"]) and row["base_is"] == "stock" and row["ours_is"] == "holdfast"


class Scale:
    """A logarithmic axis of powers of two, from `least` to `most`."""

    def __init__(self, values):
        self.least = min(-1, math.floor(math.log2(min(values))))
        self.most = max(1, math.ceil(math.log2(max(values))))

    def x(self, value):
        """Where a value is."""
        part = (math.log2(value) - self.least) / (self.most - self.least)
        return round(LABEL + part * (WIDTH - LABEL - VALUES), 1)

    def marks(self):
        """The values with a line, and their labels."""
        for power in range(self.least, self.most + 1):
            yield 2.0 ** power, f"{2 ** power}×" if power >= 0 else f"1/{2 ** -power}"


def _text(x, y, content, kind="ink", anchor="start"):
    return (f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(content)}'
            "</text>")


def _line(x, top, bottom, kind):
    return f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" class="{kind}"/>'


def _bar(row, scale, y):
    gain, middle = _gain(row), y + ROW / 2
    left, right = sorted((scale.x(1), scale.x(gain)))
    kind = "better" if gain >= 1 else "worse"
    title = escape(f"{row['title']}: {gain:.2f} times better than stock")
    figures = f"{cell(row['base'], row['unit'])} → {cell(row['ours'], row['unit'])}"
    parts = [_text(LABEL - 12, middle + 4, row["title"], anchor="end"),
             f'<rect x="{left}" y="{middle - BAR / 2}" width="{max(1, right - left):.1f}" '
             f'height="{BAR}" rx="2" class="{kind}"><title>{title}</title></rect>',
             _text(WIDTH - 16, middle + 4, figures, "faint", "end")]
    if _goal(row):
        parts.append(_line(scale.x(_goal(row)), middle - 10, middle + 10, "goal"))
    return parts


def svg(whole):
    """The document's rows that compare with stock."""
    rows = [row for row in whole["rows"] if _shown(row)]
    height = TOP + ROW * len(rows) + BOTTOM
    scale = Scale([1, *map(_gain, rows), *filter(None, map(_goal, rows))])
    end = TOP + ROW * len(rows)
    first, second = heading(whole["machine"])
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
             'role="img" aria-labelledby="title">', f"<style>{STYLE}</style>",
             f'<rect width="{WIDTH}" height="{height}" class="paper"/>',
             '<text id="title" x="16" y="30" class="ink title">Holdfast beside stock virtlockd: '
             "times better</text>",
             _text(16, 52, "Bars to the right are better than stock, on a logarithmic scale; the "
                   "upright mark is the goal.", "faint")]
    for mark, label in scale.marks():
        parts += [_line(scale.x(mark), TOP - 6, end, "stock" if mark == 1 else "grid"),
                  _text(scale.x(mark), TOP - 12, label, "faint", "middle")]
    parts.append(_text(WIDTH - 16, TOP - 12, "stock → Holdfast", "faint", "end"))
    for place, row in enumerate(rows):
        parts += _bar(row, scale, TOP + ROW * place)
    parts += [_text(16, end + 28, first, "faint"), _text(16, end + 46, second, "faint"), "</svg>"]
    return "\n".join(parts) + "\n"
