"""Whether a problem offers what a method needs: the reason why a cell is skipped, derived from class attributes."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ..models.encoders import BUILT_IN

if TYPE_CHECKING:
    from ..models.problem import Problem
    from .base import Method
    from .registry import Listing

WHAT = {
    "recipe": "the training recipe",
    "checkpoints": "checkpoints along training",
    "cond": "a conditional model",
    "trajectory": "generated queries with their initial noise",
}


def unsupported(
    method: type[Method] | Listing,
    problem: Problem,
    *,
    stored: Collection[str] = (),
    open_truth: bool = False,
    members: Collection[str] | None = None,
    encoders: Collection[str] = (),
    compares: Collection[str] | None = None,
) -> str | None:
    """Return why a method cannot run on a problem, or None where it can.

    stored: entries or methods whose scores are stored; open_truth: whether the method would be handed the open truth;
    members: the entries that are read, where they are not the class's. encoders: those whose weights are here;
    compares: those that it compares images by, where they are not the class's.
    """
    read = method.members if members is None else members
    reasons = (
        _lacking(method, problem),
        "scores groups, of which this problem has none" if method.unit == "group" and problem.groups is None else None,
        "needs the open truth, which it is not given here" if "open-truth" in method.needs and not open_truth else None,
        _missing_scores(method, read, stored),
        _missing_encoders(method, method.encoders if compares is None else compares, encoders),
        _no_queries(method, problem),
    )
    return next((reason for reason in reasons if reason is not None), None)


def _lacking(method: type[Method] | Listing, problem: Problem) -> str | None:
    lacking = [WHAT[need] for need in method.needs if need in WHAT and not _offers(problem, need)]
    return f"needs {' and '.join(lacking)}, which this problem does not have" if lacking else None


def _missing_scores(method: type[Method] | Listing, read: Collection[str], stored: Collection[str]) -> str | None:
    missing = [member for member in read if not {member, member.partition(":")[0]} & set(stored)]
    if missing or ("stored-scores" in method.needs and not stored):
        return f"needs the stored scores of {', '.join(missing) or 'other methods'}, which are missing"
    return None


def _missing_encoders(
    method: type[Method] | Listing, compares: Collection[str], encoders: Collection[str]
) -> str | None:
    if "encoder" not in method.needs:
        return None
    if not compares:
        return "needs an image encoder, and names none in `encoders`"
    missing = [name for name in compares if name not in {*encoders, *BUILT_IN}]
    if missing:
        advice = f"run it with --encoders {missing[0]}=WEIGHTS"
        return f"needs the image encoder {' and '.join(missing)}, which is not given here: {advice}"
    return None


def _no_queries(method: type[Method] | Listing, problem: Problem) -> str | None:
    if set(method.query_kinds) & set(problem.queries.kinds):
        return None
    return f"takes {' and '.join(method.query_kinds)} queries only, of which this problem has none"


def _offers(problem: Problem, need: str) -> bool:
    offers = {
        "recipe": problem.recipe is not None,
        "checkpoints": any(0 < step < problem.checkpoints[-1] for step in problem.checkpoints),
        "cond": bool(problem.train.cond),
        "trajectory": bool(problem.queries.where(kind="generated").noise.any()) and not problem.spec.sampler.eta,
    }
    return offers.get(need, False)
