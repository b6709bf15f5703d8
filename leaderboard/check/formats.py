"""A verdict as text, Markdown, JSON, JUnit XML, or annotations of GitHub's pull requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from ...errors import brief, unknown
from ..views.selection import identity
from ..views.sheet import MISSING, Sheet, render
from .finding import Finding
from .quality import LEVEL
from .verdict import Judged, Verdict

HEADINGS = ("Method", "Preset", "Task", "Seed", "LDS×100", "Passes", "Time", "Memory", "Worse")
PERCENT = round(100 * LEVEL)


def report(verdict: Verdict, format: str = "text", width: int = 100) -> str:
    """Return the verdict in one of FORMATS; raises UserError for another."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    return FORMATS[format](verdict, width)


def _sheets(verdict: Verdict) -> list[Sheet]:
    lines = [_line(cell) for cell in verdict.cells]
    falls = [(cell.name, [brief(f.sentence) for f in cell.findings if f.worse]) for cell in verdict.cells]
    worse = [f"WORSE {name}: {'; '.join(sentences)}" for name, sentences in falls if sentences]
    said = [f"{cell.name}: {brief(note)}" for cell in verdict.cells for note in cell.notes]
    rules = (
        f"LDS×100: its change with its {PERCENT} % interval, mean over kinds; passes, time and memory: largest factor.",
        "A metric is worse where a fall that large is rare (5 %) among all metrics tested, by Holm's adjusted p.",
    )
    notes = [*worse, *rules, *_folded(said), *map(brief, verdict.notes)]
    return [Sheet.of(verdict.summary[0].upper() + verdict.summary[1:], HEADINGS, lines, notes, {}, [])]


def _folded(notes: Sequence[str]) -> list[str]:
    """Return notes that differ in the cell alone as one, with how many cells they are of."""
    cells: dict[str, list[str]] = {}
    for note in notes:
        name, _, said = note.partition(": ")
        cells.setdefault(said, []).append(name)
    return [f"{names[0] if len(names) == 1 else f'{len(names)} cells'}: {said}" for said, names in cells.items()]


def _line(cell: Judged) -> list[str]:
    entry, worse = cell.pair.entry, sum(finding.worse for finding in cell.findings)
    quality = [finding for finding in cell.findings if finding.what.startswith("LDS")]
    lds = quality[-1].change if quality else "same bits" if cell.pair.same_scores else MISSING
    costs = [_largest([f for f in cell.findings if f.kind == kind]) for kind in ("passes", "time", "memory")]
    names = [entry.versioned, entry.preset, f"{entry.task}@{entry.task_version}"]
    return [*names, cell.pair.seeds, lds, *costs, str(worse) if worse else "-"]


def _largest(findings: Sequence[Finding]) -> str:
    """Return the change that is worse, if one is, or else the largest."""
    chosen = max((f for f in findings if f.worse or f.factor), key=lambda f: (f.worse, f.factor), default=None)
    return MISSING if chosen is None else chosen.change


def _markdown(verdict: Verdict, width: int) -> str:
    mark = "✅" if verdict.passed else "❌"
    return render(_sheets(verdict), "markdown").replace("### ", f"### {mark} ", 1)


def _json(verdict: Verdict, width: int) -> str:
    cells = [
        {
            "task": cell.pair.entry.task,
            "task_version": cell.pair.entry.task_version,
            "query_set": cell.pair.entry.query_set,
            **identity(cell.pair.after[0]),
            "seeds": {"baseline": _seeds(cell.pair.before), "current": _seeds(cell.pair.after)},
            "findings": [asdict(finding) for finding in cell.findings],
            "notes": cell.notes,
        }
        for cell in verdict.cells
    ]
    whole = {"passed": verdict.passed, "summary": verdict.summary, "cells": cells, "notes": verdict.notes}
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def _seeds(rows: Sequence[Any]) -> list[int]:
    return [row.key.seed for row in rows]


def _junit(verdict: Verdict, width: int) -> str:
    counts = {"tests": str(max(verdict.compared, 1)), "failures": str(len(verdict.worse) or int(not verdict.passed))}
    suite = ElementTree.Element("testsuite", {"name": "tdabench check", **counts})
    for cell in verdict.cells:
        for finding in cell.findings:
            case = ElementTree.SubElement(suite, "testcase", classname=cell.name, name=finding.what)
            if finding.worse:
                ElementTree.SubElement(case, "failure", message=brief(finding.sentence))
    if not verdict.compared:
        case = ElementTree.SubElement(suite, "testcase", classname="tdabench check", name="something was compared")
        ElementTree.SubElement(case, "failure", message=brief(verdict.summary))
    said = [f"{cell.name}: {brief(note)}" for cell in verdict.cells for note in cell.notes]
    ElementTree.SubElement(suite, "system-out").text = "\n".join([*said, *map(brief, verdict.notes)])
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _github(verdict: Verdict, width: int) -> str:
    lines = [_annotation("error", f"{cell.name}: {finding.what}", finding.sentence) for cell, finding in verdict.worse]
    if not verdict.compared:
        lines.append(_annotation("error", "nothing compared", verdict.summary))
    lines += [_annotation("notice", "not compared", note) for note in verdict.notes]
    return "\n".join([*lines, _annotation("notice", "verdict", verdict.summary)]) + "\n"


def _annotation(level: str, title: str, message: str) -> str:
    # A workflow command: https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
    title = "".join({"%": "%25", ",": "%2C", ":": "%3A"}.get(c, c) for c in f"tdabench check: {brief(title)}")
    return f"::{level} title={title}::{brief(message).replace('%', '%25')}"


FORMATS: dict[str, Callable[[Verdict, int], str]] = {
    "text": lambda verdict, width: render(_sheets(verdict), "table", width),
    "markdown": _markdown,
    "json": _json,
    "junit": _junit,
    "github": _github,
}
