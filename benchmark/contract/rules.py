"""The rules of the contract: what every method promises, each as a function that looks at its runs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ...datasets.queries import KINDS
from ...methods import registry
from ...methods.base import Method
from ...methods.registry import Listing
from ...methods.support import unsupported
from ...models.encoders import BUILT_IN
from ...models.problem import Problem
from ..run.forecast import sizes_of
from ..run.worker import BadScores, place_of
from .subject import BackwardsView, Outcome, Subject
from .tiny import TWIN, offering, planted_ids

TOLERANCE = 1e-3
TOP = 0.1
SMALL_MICRO_BATCH = 20

Status = Literal["pass", "fail", "skip"]


class Broken(Exception):
    """The method breaks the rule; the message says how."""


class NotApplicable(Exception):
    """The rule says nothing about this method; the message says why."""


@dataclass(frozen=True)
class Rule:
    """One check: a name, a function that returns what it found, and the rules without which it tells nothing."""

    name: str
    test: Callable[[Subject], str]
    after: tuple[str, ...]


RULES: list[Rule] = []
LISTING = "listing"
KEYED = ("presets", "ablations")  # of which a listing holds the names only


def _rule(name: str, *after: str) -> Callable[[Callable[[Subject], str]], Callable[[Subject], str]]:
    def add(test: Callable[[Subject], str]) -> Callable[[Subject], str]:
        RULES.append(Rule(name, test, after if name == LISTING else (LISTING, *after)))
        return test

    return add


@_rule(LISTING)
def _listed(subject: Subject) -> str:
    """Class attributes read as literals from the file are those of the imported class."""
    names = [f.name for f in fields(Listing) if f.name not in ("name", "origin", "summary", "description", *KEYED)]
    pairs = {name: (getattr(subject.listing, name), getattr(subject.cls, name)) for name in names}
    pairs |= {name: (getattr(subject.listing, name), tuple(getattr(subject.cls, name))) for name in KEYED}
    wrong = [f"{name} lists as {read}, but is {real}" for name, (read, real) in pairs.items() if read != real]
    if wrong:
        raise Broken("; ".join(wrong) + ": assign each of them a literal in the class itself")
    if not set(subject.cls.query_kinds) <= set(KINDS):
        raise Broken(f"query_kinds {subject.cls.query_kinds} are not among {KINDS}")
    return f"version {subject.cls.version}, needs {', '.join(subject.cls.needs) or 'nothing special'}"


@_rule("presets")
def _presets(subject: Subject) -> str:
    """There are the presets ``paper`` and ``quick``, and each is an instance of Params."""
    presets = subject.cls.presets
    missing = [name for name in ("paper", "quick") if name not in presets]
    if missing:
        raise Broken(f"no preset {' and '.join(missing)}: every method has paper and quick")
    odd = [name for name, params in presets.items() if not isinstance(params, subject.cls.Params)]
    if odd:
        raise Broken(f"presets {', '.join(odd)} are no {subject.cls.Params.__name__}")
    return ", ".join(presets)


@_rule("params", "presets")
def _params(subject: Subject) -> str:
    """Every preset survives a trip through JSON, with the same hash."""
    for name, params in subject.cls.presets.items():
        rebuilt = registry.params_from_json(subject.cls, json.loads(json.dumps(asdict(params), allow_nan=False)))
        if rebuilt != params or registry.params_hash(rebuilt) != registry.params_hash(params):
            raise Broken(
                f"preset {name} comes back from JSON as {rebuilt}: its fields must be JSON values, none a dataclass"
            )
    return "presets survive JSON: " + ", ".join(map(registry.params_hash, subject.cls.presets.values()))


@_rule("support")
def _support(subject: Subject) -> str:
    """A problem without something that the method needs, or without its kinds of queries, gives a reason."""
    cls, optional = subject.cls, [need for need in subject.cls.needs if need != "gradients"]
    for need in optional:
        poorer = offering(_without(subject, need), set(cls.needs) - {need})
        stored = () if need == "stored-scores" else cls.members
        encoders = () if need == "encoder" else cls.encoders
        given = {"stored": stored, "open_truth": need != "open-truth", "encoders": encoders}
        if unsupported(cls, poorer, **given) is None and not (need == "encoder" and set(cls.encoders) <= set(BUILT_IN)):
            raise Broken(f"a problem without {need} gives no reason")
    if cls.unit == "group":
        optional.append("groups")
        if unsupported(cls, replace(subject.twin, groups=None), **_everything(cls)) is None:
            raise Broken("a problem without groups gives no reason")
    others = [kind for kind in KINDS if kind not in cls.query_kinds]
    for kind in others:
        foreign = replace(subject.twin.queries, kinds=(kind,) * len(subject.twin.queries))
        if unsupported(cls, replace(subject.twin, queries=foreign), **_everything(cls)) is None:
            raise Broken(f"a problem whose queries are all {kind} gives no reason")
    found = ", ".join(optional + others)
    return f"a problem without {found} gives a reason" if found else "needs nothing that a problem may lack"


def _without(subject: Subject, need: str) -> Problem:
    if need == "cond":
        return subject.source(TWIN)
    queries = subject.twin.queries
    silent = replace(queries, noise=torch.zeros_like(queries.noise)) if need == "trajectory" else queries
    return replace(subject.twin, queries=silent)


def _everything(cls: type[Method]) -> dict[str, Any]:
    return {"stored": cls.members, "open_truth": True, "encoders": cls.encoders}


@_rule("runs")
def _runs(subject: Subject) -> str:
    """Fit and attribute end, on a problem with nothing optional beyond what the method declares to need."""
    if subject.preset not in subject.cls.presets and not subject.preset.startswith("{"):
        raise NotApplicable(f"there is no preset {subject.preset} to run")
    lacking = unsupported(subject.cls, subject.problem, **_everything(subject.cls))
    if lacking is not None:
        raise NotApplicable(f"the twin of digits cannot tell: the method {lacking}")
    error = subject.plain.error
    if error is not None and not isinstance(error, BadScores):
        files = [Path(inspect.getfile(base)) for base in subject.cls.__mro__ if issubclass(base, Method)]
        place = place_of(error, files) or "called by the suite"
        after = ", ".join(subject.plain.effects.truth[:3])
        raise Broken(
            f"{type(error).__name__}: {error} ({place}), on a problem with no more than `needs` names"
            f"{after and f', once it opened the truth: {after}'}"
        )
    return f"{len(subject.queries)} queries, {len(subject.twin.train)} training images"


@_rule("scores", "runs")
def _scores(subject: Subject) -> str:
    """Scores are [Q, N] float32, of a method of groups [Q, G]; blocks cover every id once (the runner's own test)."""
    if subject.plain.error is not None:
        raise Broken(str(subject.plain.error))
    return f"{list(subject.scores.shape)} float32"


@_rule("finite", "scores")
def _finite(subject: Subject) -> str:
    """Scores are finite."""
    bad = int((~np.isfinite(subject.scores)).sum())
    if bad:
        raise Broken(f"{bad} of {subject.scores.size} scores are NaN or infinite")
    return f"from {subject.scores.min():.3g} to {subject.scores.max():.3g}"


@_rule("random state", "runs")
def _random_state(subject: Subject) -> str:
    """The global generators of torch, numpy and random are left alone."""
    if subject.plain.effects.random:
        raise Broken(f"draws from the global generator of {', '.join(subject.plain.effects.random)}: use view.rng")
    return "global generators as they were"


@_rule("process state", "runs")
def _process_state(subject: Subject) -> str:
    """Working directory, environment, default dtype, thread count and grad mode are left alone."""
    if subject.plain.effects.process:
        raise Broken(f"changes {', '.join(subject.plain.effects.process)}")
    return "working directory, environment and torch settings as they were"


@_rule("scratch", "runs")
def _scratch(subject: Subject) -> str:
    """Files are written in the view's scratch folder only."""
    if subject.plain.effects.written:
        raise Broken(f"changes {', '.join(subject.plain.effects.written[:3])} outside view.scratch")
    return "nothing written outside the scratch folder"


@_rule("truth", "runs")
def _truth(subject: Subject) -> str:
    """No truth file is opened."""
    if subject.plain.effects.truth:
        raise Broken(f"opens the truth: {', '.join(subject.plain.effects.truth[:3])}")
    return "no truth file opened"


@_rule("problem", "runs")
def _problem(subject: Subject) -> str:
    """Weights and training images are not changed in place."""
    if subject.plain.changed:
        raise Broken(
            f"changes {', '.join(subject.plain.changed[:3])} in place: work on a copy, as view.model() returns it"
        )
    return "weights and images as they were"


@_rule("sign", "finite")
def _sign(subject: Subject) -> str:
    """Scores of which ``sign`` says that they are a magnitude are nowhere below zero."""
    if subject.cls.sign != "magnitude":
        return f"{subject.cls.sign}: scores may have either sign"
    below = int((subject.scores < 0).sum())
    if below:
        raise Broken(f"{below} of {subject.scores.size} scores are below zero: a magnitude is not, or sign is another")
    return "a magnitude, and no score is below zero"


@_rule("estimate", "runs")
def _estimate(subject: Subject) -> str:
    """``estimate`` bounds the passes that fit and attribute make."""
    method = subject.cls(registry.preset_params(subject.cls, subject.preset))
    found, passes = method.estimate(sizes_of(subject.problem, len(subject.queries), slices=2)), subject.plain.passes
    if found is None:
        return "no estimate is given"
    most = {"backward": found.trained + found.per_sample}
    most["forward"] = most["backward"] + found.forward
    wrong = [f"{getattr(passes, way)} {way} passes, not {n}" for way, n in most.items() if getattr(passes, way) > n]
    if wrong:
        raise Broken(f"makes {' and '.join(wrong)} at most, as its estimate says")
    return f"at most {most['forward']:,} forward and {most['backward']:,} backward passes"


@_rule("deterministic", "finite", "random state")
def _deterministic(subject: Subject) -> str:
    """A second run with the same seed gives the same bits, whatever state the global generators are in."""
    again, scores = _completed(subject.run([subject.last], chance=1)), subject.scores[subject.last]
    if not np.array_equal(again, scores):
        raise Broken(f"a second run differs by up to {deviation(again, scores):.1e} of the scores' spread")
    return "bit for bit"


@_rule("query slicing", "deterministic")
def _query_slicing(subject: Subject) -> str:
    """Queries attributed one at a time, in another order, score as when attributed together."""
    index = subject.few  # the last one last, which is the first in the plain run
    return _same(subject, subject.run([[i] for i in index]), index, "when queries come one at a time")


@_rule("micro-batch", "query slicing")
def _micro_batch(subject: Subject) -> str:
    """``view.micro_batch`` changes speed, not scores."""
    found = subject.run([subject.last], micro_batch=SMALL_MICRO_BATCH)
    return _same(subject, found, subject.last, f"with a micro-batch of {SMALL_MICRO_BATCH}")


@_rule("training order", "query slicing")
def _training_order(subject: Subject) -> str:
    """Scores belong to ids, in whatever order and batches ``view.batches`` visits the training set."""
    found = subject.run([subject.last], view=BackwardsView)
    return _same(subject, found, subject.last, "when view.batches goes backwards in uneven batches")


@_rule("planted copy", "finite", "problem")
def _planted_copy(subject: Subject) -> str:
    """A training image that equals a query is in the top tenth for it, and scores higher for it than for other queries.

    Chance puts one of them into the top tenth 1 time in 12, and all three 1 time in 1,728. A method whose ``sign`` is
    arbitrary may have its copies at the other end.
    """
    if not subject.cls.query_specific:
        raise NotApplicable("the method does not claim to be query-specific")
    if subject.cls.unit == "group":
        raise NotApplicable("the method scores groups, and a copy is one item of its group")
    rows = {query: i for i, query in enumerate(subject.queries.ids)}
    copies = {rows[query]: item for query, item in planted_ids(subject.twin).items() if query in rows}
    if not copies:
        raise NotApplicable("none of the queries that the method takes has a copy")
    standardised = _standardised(subject.scores)
    if subject.cls.sign == "arbitrary":
        standardised = np.abs(standardised)
    ranks = [int((standardised[row] >= standardised[row, item]).sum()) for row, item in copies.items()]
    allowed = int(TOP * standardised.shape[1])
    if max(ranks) > allowed:
        raise Broken(f"copies of queries rank {ranks} of {standardised.shape[1]}, not all in the top {allowed}")
    strangers = [row for row, item in copies.items() if standardised[:, item].argmax() != row]
    if strangers:
        raise Broken(f"the copy of {subject.queries.ids[strangers[0]]} scores higher for another query")
    return f"copies of queries rank {ranks} of {standardised.shape[1]}"


@_rule("other models", "finite", "problem")
def _other_models(subject: Subject) -> str:
    """Scores are finite on models of other kinds; those of a method that needs conditions depend on them."""
    skipped = [f"not tried on {what} ({found})" for what, found in subject.elsewhere.items() if isinstance(found, str)]
    tried = {what: found for what, found in subject.elsewhere.items() if not isinstance(found, str)}
    for what, outcome in tried.items():
        scores = _completed(outcome)
        bad = int((~np.isfinite(scores)).sum())
        if bad:
            raise Broken(f"{bad} of {scores.size} scores are NaN or infinite on {what}")
    if "cond" in subject.cls.needs:
        change = deviation(_completed(subject.confused), subject.scores[subject.last])
        if not change > TOLERANCE:
            raise Broken("scores stay as they are when training images swap their conditions, which are thus lost")
    return "; ".join([f"finite on {' and on '.join(tried)}", *skipped])


def _completed(outcome: Outcome) -> np.ndarray:
    if outcome.scores is None:
        raise Broken(f"does not run: {type(outcome.error).__name__}: {outcome.error}")
    return outcome.scores


def _same(subject: Subject, outcome: Outcome, index: list[int], when: str) -> str:
    change = deviation(_completed(outcome), subject.scores[index])
    if not change <= TOLERANCE:
        raise Broken(f"scores change by up to {change:.1e} of their spread {when}; {TOLERANCE:g} is allowed")
    return f"scores change by at most {change:.1e} of their spread"


def deviation(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest change of a score in units of its row's standard deviation."""
    error = np.abs(found.astype(np.float64) - expected).max(1)
    spread = expected.astype(np.float64).std(1)
    return float(np.divide(error, spread, out=np.where(error == 0, 0.0, np.inf), where=spread > 0).max())


def _standardised(scores: np.ndarray) -> np.ndarray:
    centred = scores.astype(np.float64) - scores.mean(1, dtype=np.float64, keepdims=True)
    spread = centred.std(1, keepdims=True)
    return centred / np.where(spread > 0, spread, 1)
