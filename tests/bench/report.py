# SPDX-License-Identifier: LGPL-2.1-or-later
"""From measurements to a document of plain lists and dictionaries, and to text and JSON."""

import json
import os
import platform
import statistics
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import lock_rig

COLUMNS = ("what", "stock", "Holdfast", "ratio", "goal", "met")


# ---- the machine ---------------------------------------------------------------------------

def _version(program):
    """What a program says of its version, without the path that it was called by."""
    result = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, check=False)
    return result.stdout.strip().split("\n")[0].rpartition("/")[2] or "unknown"


def _cpu_model():
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _build_type(build):
    try:
        options = json.loads((build / "meson-info" / "intro-buildoptions.json").read_text())
    except OSError:
        return "unknown"
    return next((option["value"] for option in options if option["name"] == "buildtype"), "unknown")


def machine(build):
    """What the figures depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "stock": _version(lock_rig.daemon_binary("stock")),
        "holdfast": _version(build / "holdfastd"),
        "build": _build_type(build),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


# ---- the document --------------------------------------------------------------------------

def _values(results, figure):
    """The figure in each round; None in one that was blocked."""
    if not figure:
        return []
    return [result[figure.field] for result in results.get((figure.measurement, figure.daemon), [])]


def _side(results, figure, never):
    """All rounds of a figure; without an answer in any of them, the word for that."""
    values = _values(results, figure)
    known = [value for value in values if value is not None]
    return {"rounds": values, "median": statistics.median(known) if known else None,
            "never": never if values and not known else None}


def _row(row, results):
    base, ours = _side(results, row.base, row.never), _side(results, row.ours, row.never)
    ratio = None
    if base["median"] and ours["median"] is not None:
        ratio = ours["median"] / base["median"]
    goal = row.goal
    return {
        "key": row.key, "title": row.title, "unit": row.unit, "note": row.note,
        "more_is_better": row.more_is_better,
        "base_is": row.base.daemon if row.base else None,
        "ours_is": row.ours.daemon if row.ours else None,
        "base": base, "ours": ours, "ratio": ratio,
        "goal": goal and {"text": goal.text(row.unit), "most": goal.most, "least": goal.least,
                          "of_value": goal.of_value},
        "met": goal.met(ours["median"], ratio) if goal else None,
    }


def document(rows, results, about, disturbed, quick):
    """Everything that was measured; `disturbed` is which part of the CPUs others took, or False."""
    return {"machine": about, "disturbed": disturbed, "quick": quick,
            "rounds": max((len(values) for values in results.values()), default=0),
            "rows": [_row(row, results) for row in rows]}


def as_json(whole):
    """The document as JSON."""
    return json.dumps(whole, indent=2) + "\n"


# ---- text ----------------------------------------------------------------------------------

def number(value, unit):
    """A value with its unit, to three digits or so."""
    digits = 0 if abs(value) >= 100 or value == round(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{'' if unit.startswith('/') else ' '}{unit}".rstrip()


def cell(side, unit):
    """One side of a row."""
    if side["never"]:
        return side["never"]
    return "" if side["median"] is None else number(side["median"], unit)


def _cells(row):
    ours = cell(row["ours"], row["unit"]) or ("not measured" if row["goal"] else "")
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    goal = row["goal"]["text"] if row["goal"] else ""
    met = {True: "yes", False: "NO", None: ""}[row["met"]]
    base = cell(row["base"], row["unit"])
    return (row["title"], base, ours, ratio, goal, met)


def heading(about):
    """The machine and the versions in two lines."""
    return (f"{about['cpu']}, {about['cores']} CPUs, Linux {about['kernel']}, {about['date']}",
            f"stock: {about['stock']}; Holdfast: {about['holdfast']} ({about['build']} build)")


def text(whole):
    """The document as a table for people."""
    rows = [_cells(row) for row in whole["rows"]]
    widths = [max(len(line[column]) for line in [COLUMNS, *rows]) for column in range(len(COLUMNS))]
    lines = [*heading(whole["machine"]), f"medians of {whole['rounds']} rounds, stock and Holdfast "
             "in turn; ratio: Holdfast / stock", ""]
    if whole["quick"]:
        lines.insert(0, "QUICK: this shows that it works; the figures mean nothing")
    if whole["disturbed"]:
        lines.insert(0, f"DISTURBED: other programs took {whole['disturbed']:.0%} of the CPUs")
    for line in [COLUMNS, tuple("-" * width for width in widths), *rows]:
        cells = [f"{value:<{width}}" if column in (0, 4, 5) else f"{value:>{width}}"
                 for column, (value, width) in enumerate(zip(line, widths))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"
