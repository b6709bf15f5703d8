"""Searching ensembles on dev queries and open subsets: which members may be combined, and how they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product

import numpy as np
from torch import Tensor

from ....datasets.truth import Assets
from ....errors import UserError
from ....leaderboard.rows.row import Metrics, Row
from ....leaderboard.stats.ranking import RANDOM, Standing, standings
from ....leaderboard.views.lds import paired_gain
from ....leaderboard.views.sheet import Interval
from ....methods.ensemble import Combine, Ensemble, Params, combined
from ....methods.registry import Entry, Listing, params_hash
from ...metrics.scores import lds_metrics
from ...run.plan import PlannedCell, parse_entries

COMBINES: tuple[Combine, ...] = ("rank", "z")
SIZES = (2, 3)
UNFIT = {
    "stored-scores": "an ensemble itself",
    "open-truth": "a reference that learns from what ensembles are chosen on",
}


@dataclass(frozen=True)
class Candidate:
    """An entry that may be a member, with its dev row's standing and its stored dev scores [Q, N]."""

    planned: PlannedCell
    row: Row
    standing: Standing
    scores: Tensor

    @property
    def entry(self) -> Entry:
        """The method and preset."""
        return self.planned.entry


@dataclass(frozen=True)
class Found:
    """An ensemble as dev queries and open subsets see it; gain: over its best member there, paired."""

    label: str
    params: Params
    members: tuple[Entry, ...]
    standing: Standing
    best: Candidate
    gain: Interval


def parse_members(names: list[str], preset: str, known: dict[str, Listing]) -> list[Entry]:
    """Return the entries to combine: those named, or every method but ensembles, references and random scores.

    Raises UserError for one that cannot be a member, and for fewer than two.
    """
    default = [name for name, listing in known.items() if _fit(listing) and name != RANDOM]
    entries = parse_entries(names or default, [], preset, known)
    for entry in entries:
        for need in UNFIT.keys() & set(known[entry.method].needs):
            raise UserError(f"{entry} cannot be a member: it is {UNFIT[need]}; leave it out of --methods")
        if known[entry.method].unit != "item":
            raise UserError(f"{entry} cannot be a member: it scores groups; leave it out of --methods")
    if len(entries) < min(SIZES):
        raise UserError("an ensemble needs at least two members: name more with --methods")
    return sorted(entries, key=str)


def _fit(listing: Listing) -> bool:
    return listing.unit == "item" and not UNFIT.keys() & set(listing.needs)


def search(
    assets: Assets, candidates: Sequence[Candidate], preset: str, on_try: Callable[[int, int], None]
) -> list[Found]:
    """Return all pairs and triples of candidates in both normalisations, best mean LDS over kinds first.

    ``on_try`` sees how many of how many are tried.
    """
    groups = [group for size in SIZES for group in combinations(candidates, size)]
    tries = list(product(groups, COMBINES))
    truth, ids, found = assets.truth("open"), candidates[0].planned.query_ids, []
    for done, (group, combine) in enumerate(tries, 1):
        scores = combined([one.scores for one in group], combine).numpy()
        found.append(_found(group, combine, preset, lds_metrics(assets, truth, [(ids, scores)], ids)))
        on_try(done, len(tries))
    return sorted(found, key=lambda one: -mean(one.standing))


def _found(group: Sequence[Candidate], combine: Combine, preset: str, metrics: Metrics) -> Found:
    members = tuple(one.entry for one in group)
    best = max(group, key=lambda one: mean(one.standing))
    name, params = label(members, combine, preset), Params(combine, tuple(map(str, members)))
    names = {"method": Ensemble.name, "method_version": Ensemble.version, "preset": name}
    hashed = {"params": asdict(params), "params_hash": params_hash(params)}
    key = best.row.key.model_copy(update=names | hashed)
    standing = standings([best.row.model_copy(update={"key": key, "metrics": metrics})])[0]
    return Found(name, params, members, standing, best, paired_gain(standing, best.standing))


def label(members: Iterable[Entry], combine: Combine, preset: str) -> str:
    """Return an ensemble's preset name, such as ``z-pixel+trak-paper``; of ``preset``, its members' names suffice."""
    names = [one.method if one.preset == preset else f"{one.method}-{one.preset}" for one in members]
    return ("" if combine == "rank" else f"{combine}-") + "+".join(names)


def mean(standing: Standing) -> float:
    """Return an entry's mean LDS over query kinds, minus infinity where there is none."""
    return -np.inf if standing.overall.mean is None else standing.overall.mean


def choose(found: Sequence[Found], keep: int) -> list[Found]:
    """Return the best ``keep`` of ensembles that come best first, the better normalisation of each set of members.

    Raises UserError where none has all its scores.
    """
    best: dict[tuple[Entry, ...], Found] = {}
    for one in found:
        if one.standing.rankable:
            best.setdefault(one.members, one)
    if not best:
        raise UserError("no ensemble has a score for every dev query: name other members with --methods")
    return list(best.values())[:keep]
