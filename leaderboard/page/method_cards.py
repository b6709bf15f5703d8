"""What the page says of each method: its file's words, its presets as rows have them, and where each row is from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..rows.row import Row, row_key
from ..views.lds import machine_of
from .facts import Facts, MethodFacts

SHOWN_ROWS = 60
CODE = "``"  # around names in docstrings


def method_cards(rows: Sequence[Row], facts: Facts) -> list[dict[str, Any]]:
    """Return a card for each method that has rows, in order of name."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.key.method, []).append(row)
    return [_card(name, by_name[name], facts.methods.get(name, MethodFacts())) for name in sorted(by_name)]


def _card(name: str, rows: Sequence[Row], facts: MethodFacts) -> dict[str, Any]:
    shown = sorted((row for row in rows if row.key.query_set == "test"), key=lambda row: row_key(row.key)) or list(rows)
    return {
        "name": name,
        "summary": facts.summary.replace(CODE, ""),
        "details": facts.details.replace(CODE, ""),
        "facts": _facts(facts, rows),
        "presets": _presets(shown),
        "rows": [_row(row) for row in shown[:SHOWN_ROWS]],
        "left_out": len(rows) - len(shown[:SHOWN_ROWS]),
    }


def _facts(facts: MethodFacts, rows: Sequence[Row]) -> dict[str, str]:
    versions = ", ".join(str(version) for version in sorted({row.key.method_version for row in rows}))
    said = {
        "Paper": facts.citation,
        "Version": versions,
        "Needs": ", ".join(facts.needs) or ("nothing but images" if facts.origin else ""),
        "Scores": {"item": "each training item", "group": "groups of items"}.get(facts.unit, ""),
        "Sign": facts.sign,
        "Presets": ", ".join(facts.presets),
        "Source": facts.origin,
    }
    return {name: value for name, value in said.items() if value}


def _presets(rows: Sequence[Row]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = row.key.preset, row.key.params_hash
        params = {name: json.dumps(value) for name, value in row.key.params.items()}
        preset = found.setdefault(
            key, {"name": row.key.preset, "hash": row.key.params_hash, "params": params, "notes": []}
        )
        preset["notes"] += [note for note in row.source.notes if note not in preset["notes"]]
    return [found[key] for key in sorted(found)]


def _row(row: Row) -> dict[str, str]:
    source = row.source
    revision = (source.git_revision or "unknown")[:10] + (" with changes" if source.git_dirty else "")
    return {
        "cell": f"{row.key.label} {row.key.setting}, {row.key.query_set} seed {row.key.seed}",
        "status": f"{row.status}, {source.kind}",
        "started": source.started_utc[:16].replace("T", " "),
        "machine": machine_of(row) or "unknown",
        "revision": revision,
        "code": source.code_sha256 or "unknown",
        "scores": (source.scores_sha256 or "unknown")[:16],
        "command": source.command,
    }
