"""The removal metric of a run: plans the retrainings that all methods share, does them, and adds results to rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar

from rich.table import Table

from ...errors import UserError
from ...leaderboard.rows.removal import PerQuery, Removal, Union
from ...leaderboard.rows.row import Row
from ...models.problem import Problem, read_problem
from ...models.recipe import Recipe
from ...seeds import digest
from ...store import LONG_CLAIM_S, FolderStore
from ..metrics.removal.evidence import Evidence, per_query_result, union_result
from ..metrics.removal.protocol import Ranking, protocol_of
from ..metrics.removal.similarities import Similarities, open_similarities, parse_encoders
from ..metrics.scores import ranked
from ..processes import one_thread
from ..run.plan import PlannedCell
from ..tasks.find import home
from ..truth.counterfactuals import Counterfactual, Laboratory
from ..truth.retraining import seconds_per_update
from .session import Session
from .terminal import Bar, console, duration

Part = Literal["union", "per-query"]
R = TypeVar("R", Union, PerQuery)
PARTS: tuple[Part, ...] = ("union", "per-query")
VERSION = 2  # of what is computed from outcomes: rows of another one are computed again


@dataclass(frozen=True)
class Settings:
    """What is measured: parts of the protocol, encoders (None: where meaningful); ``budget`` caps new retrainings."""

    parts: tuple[Part, ...] = PARTS
    encoders: Mapping[str, str | None] | None = None
    budget: int | None = None
    dry_run: bool = False


def parse_settings(parts: tuple[Part, ...], encoders: str, budget: int, dry_run: bool) -> Settings:
    """Return settings for what the command line says; raises UserError."""
    if budget < -1:
        raise UserError("--budget must not be negative; leave it out for no limit")
    return Settings(parts, parse_encoders(encoders), None if budget == -1 else budget, dry_run)


@dataclass(frozen=True)
class Request:
    """The retrainings that one line of the plan asks for."""

    label: str
    counterfactuals: list[Counterfactual]


@dataclass(frozen=True)
class Ready:
    """A cell whose stored scores rank every target."""

    planned: PlannedCell
    row: Row
    ranking: Ranking


class Removing:
    """Measures removal for the cells of one task."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self.session, self.assets, self.settings = session, session.assets, settings
        self.protocol = protocol_of(session.spec, session.assets)
        self.laboratory = Laboratory(session.assets, FolderStore(home()), session.options.device, session.plugins)
        self.problem: Problem = read_problem(session.assets.folder, session.plugins)

    def measure(self, cells: Iterable[PlannedCell]) -> None:
        """Retrain what is missing within the budget, and write ``metrics.removal`` of every cell that has its share."""
        cells = [planned for planned in cells if self._scores_items(planned)]
        ready = [one for planned in cells if (one := self._ready(planned)) is not None]
        requests = self.requests(ready)
        missing = self.missing(requests)
        self.announce(requests, missing, len(cells) - len(ready))
        if self.settings.dry_run:
            return
        self._make(missing[: self.settings.budget])
        self._write(ready)

    def _make(self, wanted: list[Counterfactual]) -> None:
        if not wanted:
            return
        with self.laboratory.store.claim(f"counterfactual-{self.laboratory.identity}", LONG_CLAIM_S) as held:
            if not held:
                raise UserError("another tdabench is training counterfactual models of this task: wait for it")
            with Bar("retrainings") as bar:
                self.laboratory.make(wanted, self.session.options.jobs, bar.update)

    def _scores_items(self, planned: PlannedCell) -> bool:
        if planned.cls.unit == "group":
            console.print(f"{planned.entry}: no removal, because it scores groups and names no items")
        return planned.cls.unit == "item"

    def _ready(self, planned: PlannedCell) -> Ready | None:
        row = self.session.results.row(planned.key)
        if row is None or row.metrics is None or row.diagnostics.get("identity") != planned.identity:
            return None
        ranking = self._ranking(planned)
        if lacking := len(set(self.protocol.targets) - ranking.keys()):
            console.print(f"{planned.entry}: no removal, because {lacking} targets have no finite scores")
            return None
        if len(self.protocol.union(ranking)) > self.protocol.curve_sizes[-1]:
            console.print(f"{planned.entry}: no removal, because its union would leave nothing to train on")
            return None
        return Ready(planned, row, ranking)

    def _ranking(self, planned: PlannedCell) -> Ranking:
        """Return the targets' items as far down as any removal goes."""
        record = self.session.results.scored_record(planned)
        depth = max(self.protocol.top_k, *self.protocol.per_query_sizes)
        rows = [
            row for names, scores in record.blocks(planned.attributed_ids) for row in zip(names, scores, strict=True)
        ]
        orders = {query: ranked(scores) for query, scores in rows if query in self.protocol.targets}
        return {query: order[:depth] for query, order in orders.items() if order is not None}

    def requests(self, ready: list[Ready]) -> list[Request]:
        """Return the plan: the floor and the random curve, then each method's unions, then single queries."""
        wanted = [Request("nothing removed", self.protocol.floor()), Request("random curve", self.protocol.curve())]
        if "union" in self.settings.parts:
            wanted += [Request(f"{one.planned.entry} union", self._union(one)) for one in ready]
        if "per-query" in self.settings.parts:
            wanted += [Request(f"{r.planned.entry} per query", self.protocol.per_query(r.ranking)) for r in ready]
        return wanted

    def _union(self, one: Ready) -> list[Counterfactual]:
        return self.protocol.without(self.protocol.union(one.ranking))

    def missing(self, requests: list[Request]) -> list[Counterfactual]:
        """Return what is to be trained, each once, in the plan's order."""
        return self.laboratory.lacking(one for request in requests for one in request.counterfactuals)

    def announce(self, requests: list[Request], missing: list[Counterfactual], unscored: int) -> None:
        """Print how many retrainings each line of the plan asks for, shares, has and lacks, and how long they take."""
        console.print(self._table(requests))
        if unscored:
            each = len(self.protocol.seeds) + len(self.protocol.sampled) * len(self.protocol.per_query_sizes)
            console.print(f"{unscored} cells have no scores of all targets yet: each adds up to {each} retrainings")
        asked = sum(len(request.counterfactuals) for request in requests)
        budget = self.settings.budget
        capped = "" if budget is None or budget >= len(missing) else f", of which --budget allows {budget}"
        count = min(len(missing), len(missing) if budget is None else budget)
        console.print(
            f"{asked} retrainings asked for, {asked - len(missing)} shared or stored, {len(missing)} to train{capped}: "
            f"about {duration(count * self._seconds_each())} with {self.session.options.jobs} at a time",
            soft_wrap=True,
        )

    def _table(self, requests: list[Request]) -> Table:
        table = Table("retrainings", title=f"removal on {self.assets.manifest['task']}")
        for name in ("asked for", "shared", "stored", "to train"):
            table.add_column(name, justify="right")
        seen: set[Counterfactual] = set()
        for request in requests:
            own = [one for one in dict.fromkeys(request.counterfactuals) if one not in seen]
            asked, lacking = len(request.counterfactuals), len(self.laboratory.lacking(own))
            counts = asked, asked - len(own), len(own) - lacking, lacking
            table.add_row(request.label, *map(str, counts))
            seen |= set(own)
        return table

    def _seconds_each(self) -> float:
        recipe = Recipe.from_json(self.assets.manifest["recipe"])
        with one_thread():
            update = seconds_per_update(recipe, self.problem, self.session.options.device)
        return recipe.steps * update / self.session.options.jobs

    def _write(self, ready: list[Ready]) -> None:
        similarities = self._similarities()
        queries = self.problem.queries.where(kind="generated")
        evidence = Evidence(self.protocol, queries, self.laboratory.read)
        for one in ready:
            if lacking := len(self.missing(self.requests([one]))):
                self._say(one, f"removal waits for {lacking} retrainings; run again with more --budget")
                continue
            try:
                self._write_one(one, evidence, similarities)
            except ValueError as error:  # a retraining that diverged has no finite similarities
                self._say(one, f"no removal, because {error}")

    def _say(self, one: Ready, what: str) -> None:
        console.print(f"{one.planned.entry}: {what}", soft_wrap=True, markup=False)

    def _similarities(self) -> Similarities:
        side = min(self.problem.queries.pixels.shape[-2:])
        return open_similarities(self.settings.encoders, side, self.session.options.device)

    def _write_one(self, one: Ready, evidence: Evidence, similarities: Similarities) -> None:
        """Write what was asked for into the cell's row; what else it holds of the same scores stays."""
        old, inputs = one.row.metrics.removal if one.row.metrics else None, self._inputs(one)
        old = _by_the_same(old, similarities.weights) if old is not None and old.inputs == inputs else None
        union, per_query = (old.union, old.per_query) if old else (None, None)
        if "union" in self.settings.parts:
            fresh = union_result(evidence, one.ranking, similarities.found, encoders_of(one.planned))
            union = _merged(fresh, union)
        if "per-query" in self.settings.parts:
            per_query = _merged(per_query_result(evidence, one.ranking, similarities.found), per_query)
        removal = Removal(
            inputs=inputs,
            laboratory=self.laboratory.identity,
            n_train=self.protocol.n_train,
            top_k=self.protocol.top_k,
            union=union,
            per_query=per_query,
            skipped=_still_skipped(similarities.skipped, old, union, per_query),
            provenance=self.laboratory.provenance,
            encoders=_still_used({**(old.encoders if old else {}), **similarities.weights}, union, per_query),
        )
        if not self.session.results.add_metrics(one.planned.key, one.row.source.scores_sha256, removal=removal):
            self._say(one, "scored again meanwhile, so its removal is not stored; run again")

    def _inputs(self, one: Ready) -> str:
        measured = self.laboratory.identity, self.protocol.seeds, asdict(self.protocol.plan)
        return digest([VERSION, one.row.source.scores_sha256, *measured])


def encoders_of(planned: PlannedCell) -> set[str]:
    """Return what a method, or any member of an ensemble, compares images by."""
    members = (encoders_of(member) for member in planned.members.values())
    return set(planned.compares).union(*members)


def _by_the_same(old: Removal, weights: Mapping[str, str]) -> Removal:
    """Return an earlier result without what other weights, or unknown ones, measured under a name that is here too."""
    stale = {name for name, known in weights.items() if old.encoders.get(name) != known}
    parts = {"union": _without(old.union, stale), "per_query": _without(old.per_query, stale)}
    return old.model_copy(update=parts)


def _without(part: R | None, names: Set[str]) -> R | None:
    if part is None:
        return None
    kept = {name: one for name, one in part.similarities.items() if name not in names}
    return part.model_copy(update={"similarities": kept})


def _merged(fresh: R, old: R | None) -> R:
    """Return a result with the similarities that only an earlier one of the same retrainings has."""
    if old is None:
        return fresh
    return fresh.model_copy(update={"similarities": old.similarities | fresh.similarities})


def _still_skipped(skipped: dict[str, str], old: Removal | None, *parts: Union | PerQuery | None) -> dict[str, str]:
    found = _measured(*parts)
    reasons = (old.skipped if old else {}) | skipped
    return {name: reason for name, reason in reasons.items() if name not in found}


def _still_used(weights: dict[str, str], *parts: Union | PerQuery | None) -> dict[str, str]:
    return {name: one for name, one in weights.items() if name in _measured(*parts)}


def _measured(*parts: Union | PerQuery | None) -> set[str]:
    return {name for part in parts if part is not None for name in part.similarities}
