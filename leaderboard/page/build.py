"""The page: rows and facts in, one HTML file out that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps

from ...errors import UserError
from ..rows.row import Row
from .facts import Facts, rows_by_task
from .figures.drawing import stylesheet
from .method_cards import method_cards
from .overview import finding, overview
from .tables import table_of
from .task_sections import Section, section
from .wording import all_printable

HERE = Path(__file__).parent
STATIC = HERE / "static"
OnTask = Callable[[int, int], None]
WRITTEN_OUT = 50  # a table's lines that are there without JavaScript


def sections(rows: Sequence[Row], facts: Facts, on_task: OnTask = lambda done, total: None) -> list[Section]:
    """Return the parts of the page for all tasks, those with most rows first; raises UserError without any row.

    ``on_task`` is told how many are done, of how many.
    """
    if not rows:
        raise UserError("no rows to report: run `tdabench run` first")
    by_task = rows_by_task(rows, facts.reported)
    found: list[Section] = []
    for label in sorted(by_task, key=lambda label: (-len(by_task[label]), label)):
        on_task(len(found), len(by_task))
        found.append(section(label, by_task[label], facts))
    on_task(len(found), len(found))
    return found


def payload(rows: Sequence[Row], facts: Facts, found: Sequence[Section]) -> dict[str, Any]:
    """Return all that the page shows but figures, as JSON values with printable text."""
    own = [row for row in rows if row.key.query_set == "test" and row.source.kind != "reported"]
    sheet = overview(own, {one.label: one.views for one in found})
    tasks = [
        {
            "label": one.label,
            "title": one.facts.title,
            "facts": dict(one.facts.facts),
            "tables": one.tables,
            "similarities": list(one.similarities),
            **one.panels,
        }
        for one in found
    ]
    return all_printable(
        {
            "about": _about(rows, facts),
            "findings": [said for one in found if one.ranked and (said := finding(one.ranked))],
            "overview": table_of(sheet) if sheet else None,
            "tasks": tasks,
            "methods": method_cards(rows, facts),
        }
    )


def _about(rows: Sequence[Row], facts: Facts) -> dict[str, Any]:
    latest = max(row.source.started_utc for row in rows)
    return {
        "version": facts.version,
        "rows": len(rows),
        "latest": latest[:10],
        "sources": dict(sorted(Counter(row.source.kind for row in rows).items())),
        "statuses": dict(sorted(Counter(row.status for row in rows).items())),
    }


def build_page(rows: Sequence[Row], facts: Facts, live: bool = False) -> str:
    """Return the page as one HTML file; ``live``: it asks the server it is from whether rows have changed.

    Raises UserError without rows.
    """
    return page_of(rows, facts, sections(rows, facts), live)


def page_of(rows: Sequence[Row], facts: Facts, found: Sequence[Section], live: bool = False) -> str:
    """Return the page of rows whose sections were made already."""
    figures = {one.label: one.figures for one in found}
    return render_page(payload(rows, facts, found), figures, live)


def render_page(data: dict[str, Any], figures: dict[str, Any], live: bool = False) -> str:
    """Return the page of a payload; ``figures``: of each task by where they stand."""
    style = (STATIC / "base.css").read_text() + (STATIC / "page.css").read_text()
    scripts = [(STATIC / name).read_text() for name in ("page.js", *["live.js"] * live)]
    look = stylesheet()
    template = _environment().get_template("page.html.j2")
    return template.render(
        data=data,
        json=htmlsafe_json_dumps(_brief(data), dumps=_dumps),
        figures=figures,
        written_out=WRITTEN_OUT,
        style=style,
        look=look,
        scripts=scripts,
        policy=_policy([style, look], scripts, live),
    )


def _brief(data: dict[str, Any]) -> dict[str, Any]:
    """Return what the script needs: methods and findings are written out."""
    return {"overview": data["overview"], "tasks": data["tasks"]}


def _dumps(value: Any, **options: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _policy(styles: Sequence[str], scripts: Sequence[str], live: bool) -> str:
    """Return the content security policy: nothing but these very styles and scripts, and pictures inside the page."""
    parts = {
        "default-src": "'none'",
        "style-src": " ".join(map(_source, styles)),
        "script-src": " ".join(map(_source, scripts)),
        "img-src": "data: blob:",
        "connect-src": "'self'" if live else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
