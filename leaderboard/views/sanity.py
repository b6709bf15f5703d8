"""Sanity checks: one column a check."""

from __future__ import annotations

from collections.abc import Sequence

from ..rows.row import Row
from ..rows.sanity import Sanity, SanityCheck
from .selection import Place, holding, identity, lacking_notes, names_of, place_of
from .sheet import MISSING, Sheet

RESULTS = "sanity checks"
COMMAND = "tdabench run TASK --metrics sanity"
MEANINGS = {
    "planted-recall-1": "how often a copy of the query that was put among the training images ranks first",
    "planted-mean-rank": "the mean rank of that copy",
    "self-recall-1": "how often a training image as the query ranks itself first",
    "self-mean-rank": "the mean rank of that image",
    "randomised": "Spearman's correlation with the scores of an untrained model; 1 = the model plays no part",
    "stability": "Spearman's correlation with the scores of another seed of the method; 1 = its noise plays no part",
}

Found = list[tuple[Row, Sanity]]


def sanity_sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Return one table per task version, query set and truth; raises UserError where no row holds checks."""
    places: dict[Place, Found] = {}
    for row, sanity in holding(rows, lambda row: row.metrics.sanity if row.metrics else None, RESULTS, COMMAND):
        places.setdefault(place_of(row), []).append((row, sanity))
    return [_sheet(rows, place, places[place]) for place in sorted(places, key=str)]


def _sheet(rows: Sequence[Row], place: Place, found: Found) -> Sheet:
    checks = sorted({name for _, sanity in found for name in (*sanity.checks, *sanity.skipped)})
    shown = [row for row, _ in found]
    names = names_of(shown)
    cells = [
        [*name, *(_value(sanity.checks.get(check)) for check in checks)]
        for name, (_, sanity) in zip(names, found, strict=True)
    ]
    labels = [" ".join(name) for name in names]
    meanings = [f"{check}: {MEANINGS[check]}" for check in checks if check in MEANINGS]
    notes = [f"Means over queries. {'; '.join(meanings)}." if meanings else "Means over queries."]
    notes += [*_chance_notes(checks, found), *_skipped_notes(checks, labels, found)]
    notes += lacking_notes(rows, place, shown, RESULTS)
    lines = [identity(row) | {name: _record(check) for name, check in sanity.checks.items()} for row, sanity in found]
    shared = {"view": "sanity", **place.record()}
    return Sheet.of(f"{place.title}: sanity checks", ["Method", "Preset", *checks], cells, notes, shared, lines)


def _value(check: SanityCheck | None) -> str:
    return MISSING if check is None else _number(check.mean)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _record(check: SanityCheck) -> dict[str, float | int | None]:
    return {"mean": check.mean, "chance": check.chance, "n_queries": len(check.values)}


def _chance_notes(checks: Sequence[str], found: Found) -> list[str]:
    parts = []
    for name in checks:
        values = {check.chance for _, sanity in found if (check := sanity.checks.get(name))}
        known = sorted(value for value in values if value is not None)
        parts += [f"{name} {' or '.join(map(_number, known))}"] if known else []
    return [f"Random scores would get: {'; '.join(parts)}."] if parts else []


def _skipped_notes(checks: Sequence[str], labels: Sequence[str], found: Found) -> list[str]:
    skipped: dict[tuple[str, str], list[str]] = {}
    for name in checks:
        for label, (_, sanity) in zip(labels, found, strict=True):
            if reason := sanity.skipped.get(name):
                skipped.setdefault((name, " ".join(reason.split())), []).append(label)
    return [f"{name} skipped for {', '.join(who)}: {reason}" for (name, reason), who in skipped.items()]
