"""The removal metric of a run: plans the retrainings that all methods share, does them, and adds results to rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from rich.table import Table

from ..datasets.truth import Assets
from ..errors import UserError
from ..leaderboard.removal_rows import Removal
from ..leaderboard.rows import Row
from ..models.problem import Problem, read_problem
from ..models.recipe import Recipe
from ..seeds import digest
from ..store import FolderStore
from .counterfactuals import Counterfactual, Laboratory
from .display import Bar, console, duration
from .environment import environment
from .plan import Options, PlannedCell
from .removal import Evidence, Protocol, Ranking, per_query_result, union_result
from .results import Results
from .retraining import seconds_per_update
from .scoring import ranked
from .similarities import Similarities, open_similarities
from .task import TaskSpec, home

Part = Literal["union", "per-query"]
PARTS: tuple[Part, ...] = ("union", "per-query")
VERSION = 1  # of what is computed from outcomes: rows of another one are computed again
CLAIM_S = 7 * 86400.0  # longer than a run; on this host a claim ends with its process anyway


@dataclass(frozen=True)
class Settings:
    """What is measured: parts of the protocol, encoders (None: where meaningful); ``budget`` caps new retrainings."""

    parts: tuple[Part, ...] = PARTS
    encoders: Mapping[str, str | None] | None = None
    budget: int | None = None
    dry_run: bool = False


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


def protocol(spec: TaskSpec, assets: Assets) -> Protocol:
    """Return the task's removals; raises UserError for a task without generated test queries."""
    chosen = {
        role: tuple(q["id"] for q in assets.manifest["queries"] if q["role"] == role and q["kind"] == "generated")
        for role in ("test", "control")
    }
    if not chosen["test"]:
        raise UserError(f"task {spec.name!r} has no generated test queries, so nothing can be removed for them")
    first = assets.manifest["base_seed"] + 1
    seeds = tuple(range(first, first + spec.removal.seeds))
    axes = spec.name, spec.version
    return Protocol(axes, assets.manifest["n_train"], chosen["test"], chosen["control"], seeds, spec.removal)


class Removing:
    """Measures removal for the cells of one task."""

    def __init__(self, spec: TaskSpec, assets: Assets, results: Results, options: Options, settings: Settings) -> None:
        self.assets, self.results, self.options, self.settings = assets, results, options, settings
        self.protocol = protocol(spec, assets)
        self.laboratory = Laboratory(assets, FolderStore(home()), options.device)
        self.problem: Problem = read_problem(assets.folder)
        self.workers = len(os.sched_getaffinity(0)) if options.device == "cpu" else 1

    def measure(self, cells: Iterable[PlannedCell]) -> None:
        """Retrain what is missing within the budget, and write ``metrics.removal`` of every cell that has its share."""
        cells = list(cells)
        ready = [one for planned in cells if (one := self._ready(planned)) is not None]
        requests = self.requests(ready)
        missing = self.missing(requests)
        self.announce(requests, missing, len(cells) - len(ready))
        if self.settings.dry_run:
            return
        with self.laboratory.store.claim(f"counterfactual-{self.laboratory.identity}", CLAIM_S) as held:
            if not held:
                raise UserError("another tdabench is training counterfactual models of this task: wait for it")
            with Bar("retrainings") as bar:
                self.laboratory.make(missing[: self.settings.budget], self.workers, bar.update)
        self._write(ready)

    def _ready(self, planned: PlannedCell) -> Ready | None:
        row = self.results.row(planned.key)
        if row is None or row.metrics is None:
            return None
        record, ids = self.results.cell(planned.key, planned.identity), planned.attributed_ids
        depth, ranking = max(self.protocol.top_k, *self.protocol.per_query_sizes), {}
        for part in record.parts():
            for query, scores in zip(ids[part], record.scores(part), strict=True):
                if query in self.protocol.targets and (order := ranked(scores)) is not None:
                    ranking[query] = order[:depth]
        if lacking := set(self.protocol.targets) - ranking.keys():
            console.print(f"{planned.entry}: no removal, because {len(lacking)} targets have no finite scores")
            return None
        return Ready(planned, row, ranking)

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
        unique = dict.fromkeys(one for request in requests for one in request.counterfactuals)
        return [one for one in unique if not self.laboratory.has(one)]

    def announce(self, requests: list[Request], missing: list[Counterfactual], unscored: int) -> None:
        """Print how many retrainings each line of the plan asks for, shares, has and lacks, and how long they take."""
        table = Table("retrainings", title=f"removal on {self.assets.manifest['task']}")
        for name in ("asked for", "shared", "stored", "to train"):
            table.add_column(name, justify="right")
        seen: set[Counterfactual] = set()
        for request in requests:
            own = [one for one in dict.fromkeys(request.counterfactuals) if one not in seen]
            lacking = sum(not self.laboratory.has(one) for one in own)
            counts = len(request.counterfactuals), len(request.counterfactuals) - len(own), len(own) - lacking, lacking
            table.add_row(request.label, *map(str, counts))
            seen |= set(own)
        console.print(table)
        if unscored:
            console.print(f"{unscored} cells have no scores to rank by, so what they ask for is not counted")
        asked = sum(len(request.counterfactuals) for request in requests)
        budget = self.settings.budget
        capped = "" if budget is None or budget >= len(missing) else f", of which --budget allows {budget}"
        count = min(len(missing), len(missing) if budget is None else budget)
        console.print(
            f"{asked} retrainings asked for, {asked - len(missing)} shared or stored, {len(missing)} to train{capped}: "
            f"about {duration(count * self._seconds_each())} with {self.workers} at a time",
            soft_wrap=True,
        )

    def _seconds_each(self) -> float:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        recipe = Recipe.from_json(self.assets.manifest["recipe"])
        seconds = recipe.steps * seconds_per_update(recipe, self.problem.train, self.options.device) / self.workers
        torch.set_num_threads(threads)
        return seconds

    def _write(self, ready: list[Ready]) -> None:
        similarities = self._similarities()
        queries = self.problem.queries.where(kind="generated")
        evidence = Evidence(self.protocol, queries, self.laboratory.read)
        shared = [*self.protocol.floor(), *self.protocol.curve()]
        for one in ready:
            asked = [request.counterfactuals for request in self.requests([one])]
            lacking = sum(not self.laboratory.has(each) for each in dict.fromkeys(sum(asked, shared)))
            if lacking:
                console.print(
                    f"{one.planned.entry}: removal waits for {lacking} retrainings; run again with more --budget"
                )
            else:
                self._write_one(one, evidence, similarities)

    def _similarities(self) -> Similarities:
        side = min(self.problem.queries.x.shape[-2:])
        return open_similarities(self.settings.encoders, side, self.options.device)

    def _write_one(self, one: Ready, evidence: Evidence, similarities: Similarities) -> None:
        row, inputs = self.results.row(one.planned.key), self._inputs(one, similarities)
        if row is None or row.metrics is None or row.source.scores_sha256 != one.row.source.scores_sha256:
            console.print(f"{one.planned.entry}: scored again meanwhile, so its removal is not stored; run again")
            return
        old = row.metrics.removal
        kept = old if old is not None and old.inputs == inputs else None
        union, per_query = (kept.union, kept.per_query) if kept else (None, None)
        if "union" in self.settings.parts:
            union = union or union_result(evidence, one.ranking, similarities.found, one.planned.cls.encoders)
        if "per-query" in self.settings.parts:
            per_query = per_query or per_query_result(evidence, one.ranking, similarities.found)
        removal = Removal(
            inputs=inputs,
            n_train=self.protocol.n_train,
            top_k=self.protocol.top_k,
            union=union,
            per_query=per_query,
            skipped=similarities.skipped,
            provenance=self._provenance(),
        )
        if removal != old:
            self.results.write(row.model_copy(update={"metrics": row.metrics.model_copy(update={"removal": removal})}))

    def _inputs(self, one: Ready, similarities: Similarities) -> str:
        names = [similarity.name for similarity in similarities.found]
        plan = asdict(self.protocol.plan)
        return digest(
            [VERSION, one.row.source.scores_sha256, self.laboratory.identity, self.protocol.seeds, plan, names]
        )

    def _provenance(self) -> dict[str, object]:
        here = environment(self.options.device, 1, self.workers)
        return {name: here[name] for name in ("device", "gpu", "python", "packages", "threads")}
