"""What the command ensembles stores and prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ....datasets.truth import Assets
from ....leaderboard.rows.row import row_key
from ....leaderboard.stats.ranking import Standing
from ....leaderboard.views.lds import interval
from ....leaderboard.views.selection import failure_of
from ....leaderboard.views.sheet import MISSING, Failure, Sheet, yes_no
from ...run.environment import git_state
from ...run.plan import command_line
from .judging import Verdict
from .search import Candidate, Found

SHOWN = 10


NOTE = (
    "Searched on dev queries and open subsets: the best of so many looks better there than it is. Difference: to its "
    "best member there, paired; brackets are 95 % intervals."
)


GAIN_NOTE = "* the paired 95 % interval lies above 0, not corrected for the number of pairs."


REPORT_NOTE = (
    "On test queries and report subsets, which chose nothing. The best member is the best on these very data, which "
    "counts against the ensemble. p: one-sided, paired bootstrap; Holm: adjusted over the chosen ensembles."
)


def search_record(
    assets: Assets, candidates: Sequence[Candidate], left_out: dict[str, str], found: list[Found], chosen: list[Found]
) -> dict[str, Any]:
    """Return the whole search as JSON values."""
    revision, dirty = git_state()
    return {
        "task": assets.label,
        "query_set": "dev",
        "subsets": "open",
        "truth_sha256": assets.sha256,
        "command": command_line(),
        "git_revision": revision,
        "git_dirty": dirty,
        "candidates": [_candidate_record(one) for one in candidates],
        "left_out": left_out,
        "ensembles": [_found_record(one) for one in found],
        "chosen": [one.label for one in chosen],
    }


def _candidate_record(one: Candidate) -> dict[str, Any]:
    hashes = {"row": row_key(one.row.key), "scores_sha256": one.row.source.scores_sha256}
    return {"entry": str(one.entry)} | hashes | _standing_record(one.standing)


def _found_record(one: Found) -> dict[str, Any]:
    names = {"label": one.label, "members": list(one.params.members), "combine": one.params.combine}
    gain = {"best_member": str(one.best.entry), "difference": asdict(one.gain)}
    return names | _standing_record(one.standing) | gain


def _standing_record(standing: Standing) -> dict[str, Any]:
    scores = {"overall": standing.overall, **standing.kinds}
    return {"lds": {name: asdict(interval(score)) for name, score in scores.items()}}


def verdict_record(name: str, one: Verdict) -> dict[str, Any]:
    """Return what a chosen ensemble showed as JSON values."""
    found = {"label": name, "row": row_key(one.row.key), "status": one.row.status, "reason": one.row.reason}
    tested = {"p": one.p, "holm_p": one.holm, "better": one.better}
    best = row_key(one.best.rows[0].key) if one.best else None
    return found | tested | {"best_member": best, "difference": asdict(one.gain)}


def search_sheets(found: Sequence[Found], candidates: Sequence[Candidate]) -> list[Sheet]:
    """Return the tables of the best ensembles and of pairs."""
    entries = [str(one.entry) for one in candidates]
    title, best = f"best of {len(found)} ensembles, dev queries x open subsets", found[:SHOWN]
    headings = ["Preset", "mean LDS×100", "Best member", "its mean", "Difference"]
    gains = [[row, *(gain_text(found, row, column) for column in entries)] for row in entries]
    return [
        _sheet(title, headings, [_search_line(one) for one in best], NOTE),
        _sheet("gain of a pair's z ensemble over its better member, LDS×100", ["Method", *entries], gains, GAIN_NOTE),
    ]


def _sheet(title: str, names: list[str], rows: list[list[str]], note: str, failed: Sequence[Failure] = ()) -> Sheet:
    return Sheet(title, names, rows, [note], failed, data={}, records=[])


def _search_line(one: Found) -> list[str]:
    own, best = interval(one.standing.overall), interval(one.best.standing.overall)
    return [one.label, own.text(), str(one.best.entry), best.text(), one.gain.text()]


def gain_text(found: Sequence[Found], row: str, column: str) -> str:
    """Return the gain of two entries' z ensemble over the better one, x100, with ``*`` where it is significant."""
    for one in found:
        if one.gain.mean is not None and (one.params.combine, {*one.params.members}) == ("z", {row, column}):
            return f"{100 * one.gain.mean:+.1f}" + ("*" if one.gain.low is not None and one.gain.low > 0 else "")
    return MISSING


def report_sheet(reported: Sequence[tuple[str, Verdict]]) -> Sheet:
    """Return the table of chosen ensembles, by label."""
    verdicts = [verdict for _, verdict in reported]
    kinds = sorted({kind for one in verdicts if one.standing for kind in one.standing.kinds})
    scores = [*(f"LDS×100\n{kind}" for kind in kinds), "Mean"]
    headings = ["Preset", *scores, "Best member", "its mean", "Difference", "p", "Holm", "Better"]
    lines = [_report_line(label, verdict, kinds) for label, verdict in reported]
    failures = [failure_of(one.row) for one in verdicts if one.row.status != "ok"]
    return _sheet("chosen ensembles, test queries x report subsets", headings, lines, REPORT_NOTE, failures)


def _report_line(name: str, one: Verdict, kinds: Sequence[str]) -> list[str]:
    if one.standing is None or one.best is None:
        return [name, *[MISSING] * len(kinds), one.row.status, *[MISSING] * 6]
    scores = [interval(score).text() for score in (*(one.standing.kinds[kind] for kind in kinds), one.standing.overall)]
    best = [f"{one.best.entry.method}:{one.best.entry.preset}", interval(one.best.overall).text()]
    return [name, *scores, *best, one.gain.text(), f"{one.p:.3f}", f"{one.holm:.3f}", yes_no(one.better)]
