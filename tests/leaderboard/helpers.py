"""Rows as the tests of the leaderboard need them: some with an LDS, some with removal, top items and sanity checks."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tdabench.leaderboard.readme import markers
from tdabench.leaderboard.rows.exemplars import ExemplarMeasure, Exemplars, ExemplarScores
from tdabench.leaderboard.rows.groups import GroupScore, GroupsResult
from tdabench.leaderboard.rows.removal import (
    Change,
    CurvePoint,
    PerQuery,
    PerQueryChange,
    Published,
    Removal,
    Similarity,
    Union,
)
from tdabench.leaderboard.rows.row import Cost, Key, LdsResult, Metrics, Row, Source
from tdabench.leaderboard.rows.sanity import Sanity, SanityCheck
from tdabench.leaderboard.rows.top import TopK
from tdabench.leaderboard.views.catalogue import VIEWS, build_view
from tdabench.leaderboard.views.sheet import Sheet
from tdabench.seeds import digest

SHARED = np.random.default_rng(0).normal(scale=0.05, size=1000)  # what resampling the same queries does to every method
MACHINE = {"cpu": "EPYC 9654", "gpu": "A100", "torch": "2.13.0"}
N_TRAIN, K, SEEDS, SIZES = 500, 10, 5, [5, 10, 20]
TARGETS = [f"generated-{i}" for i in range(8)]
CONTROLS = [f"control-{i}" for i in range(6)]
RNG = np.random.default_rng(7)
PARAMS = {"draws": 10}
HASH = digest(PARAMS, 8)
NOISE = {n: RNG.normal(scale=0.02, size=(3, SEEDS, n)) for n in (len(TARGETS), len(CONTROLS))}
OTHER_VIEWS = [view for view in VIEWS if view not in ("lds", "tasks", "ablations")]  # those of test rows without LDS


def make_key(method: str = "trak", **changes: Any) -> Key:
    fields = {"task": "digits", "task_version": 1, "method": method, "method_version": 1, "preset": "paper"}
    hashed = {"params": PARAMS, "params_hash": digest(PARAMS), "query_set": "test", "seed": 0}
    return Key.model_validate(fields | hashed | changes)


def make_lds(mean: float, spread: float = 0.002, missing: int = 0, offset: int = 1) -> LdsResult:
    noise = np.random.default_rng([int(1e4 * mean + 1e4), offset]).normal(scale=spread, size=1000)
    replicates = (mean + SHARED + noise).clip(-1, 1)
    low, high = np.quantile(replicates, [0.025, 0.975])
    values = [None] * missing + [mean] * (20 - missing)
    return LdsResult(
        query_ids=[f"q{index}" for index in range(20)],
        values=values,
        mean=mean,
        low=float(low),
        high=float(high),
        replicates=replicates.tolist(),
        n_nan=missing,
        n_subsets=96,
        ceiling=0.73,
        ceiling_low=0.68,
        ceiling_high=0.77,
        shuffled_mean=0.01,
    )


def make_cost(**changes: Any) -> Cost:
    times = {"setup_s": 1.5, "fit_s": 12.25, "attribute_s": [1.0, 3.0], "seconds_per_query": 0.1, "wall_s": 18.0}
    memory = {"peak_rss_bytes": {"fit": 2**30, "attribute": 2**29}, "peak_gpu_bytes": {"fit": None}, "scratch_bytes": 0}
    passes = {"forward_passes": {"fit": 1_200_000, "attribute": 34_000}, "backward_passes": {"fit": 999_900}}
    return Cost.model_validate(
        times | memory | passes | {"n_queries": 40, "micro_batch": 64, "resumed": False} | changes
    )


def make_source(**changes: Any) -> Source:
    fields = {
        "kind": "verified",
        "command": "tdabench run",
        "started_utc": "2026-11-22T03:00:00Z",
        "truth_sha256": "a" * 64,
    }
    return Source.model_validate(fields | changes)


def lds_row(method: str = "trak", heldout: float = 0.4, generated: float | None = None, **changes: Any) -> Row:
    means = {"heldout": heldout} | ({} if generated is None else {"generated": generated})
    fields = {
        "status": "ok",
        "key": make_key(method),
        "metrics": Metrics(lds={kind: make_lds(mean) for kind, mean in means.items()}),
        "cost": make_cost(),
        "environment": MACHINE,
        "source": make_source(),
    }
    return Row.model_validate(fields | changes)


def failed_row(
    method: str = "mucs", status: str = "timeout", reason: str = "killed after 600 s", **changes: Any
) -> Row:
    fields = {"status": status, "reason": reason, "key": make_key(method), "environment": {}}
    return Row.model_validate(fields | {"source": make_source(truth_sha256=None)} | changes)


def lds_rows() -> list[Row]:
    """Rows of which one was resumed, one lacks queries and two failed."""
    rows = [lds_row("mucs-retain", 0.453, 0.291), lds_row("d-trak", 0.42, 0.31), lds_row("random", 0.001, -0.002)]
    slow = make_cost(fit_s=4321.0, resumed=True, peak_gpu_bytes={"fit": 3 * 2**30})
    rows.append(lds_row("ek-fac", 0.2, 0.1, cost=slow))
    lds = {"heldout": make_lds(0.3, missing=8), "generated": make_lds(0.2)}
    rows.append(lds_row("unlearn", status="partial", metrics=Metrics(lds=lds)))
    rows += [failed_row(), failed_row("clip", "skipped", "needs an encoder | <none here>\nsee the card")]
    return rows


def change(effect: float, n: int, own: int = 0) -> Change:
    """Similarities of ``n`` queries under removal that lowers them by ``effect``, 0.05 of which random does too."""
    floor, random = 0.8 + NOISE[n][0], 0.75 + NOISE[n][1]
    after = 0.8 - effect + NOISE[n][2] + np.random.default_rng(own).normal(scale=0.004, size=(SEEDS, n))
    published = Published(change_percent=-12.34, change_margin=4.56, auc=0.875, mann_whitney_p=3.2e-5, wilcoxon_p=0.04)
    return Change(floor=floor.tolist(), after=after.tolist(), random=random.tolist(), published=published)


def similarity(effect: float, own: int = 0, **marks: bool) -> Similarity:
    targets, controls = change(effect, len(TARGETS), own), change(0.05, len(CONTROLS), own)
    curve = [CurvePoint(size=40, mean=0.021, low=0.01, high=0.03), CurvePoint(size=80, mean=0.05, low=None, high=None)]
    return Similarity(targets=targets, controls=controls, curve=curve, **marks)


def removal(effect: float, own: int = 0, **changes: Any) -> Removal:
    compared = {"ssim": similarity(effect, own), "loss": similarity(effect / 10, own)}
    ids = {"target_ids": TARGETS, "control_ids": CONTROLS}
    union = Union(size=60, seeds=list(range(1, SEEDS + 1)), similarities=compared, **ids)
    alone = PerQuery(query_ids=TARGETS, sizes=SIZES, seed=1, similarities={"ssim": alone_change(effect)})
    fields = {"inputs": "0" * 16, "laboratory": "1" * 16, "n_train": N_TRAIN, "top_k": K}
    fields |= {"union": union, "per_query": alone}
    return Removal(**(fields | {"skipped": {"dino": "too | small"}} | changes))


def alone_change(effect: float) -> PerQueryChange:
    shift = np.linspace(0, 0.1, len(TARGETS))
    after = [(0.7 - effect * size - shift).tolist() for size in SIZES]
    return PerQueryChange(floor=[0.8] * 8, after=after, random=[[0.7] * 8] * len(SIZES))


def top(seed: int, pool: int = N_TRAIN) -> TopK:
    """Top items drawn from the first ``pool``; held-out queries and one query without scores are among them."""
    rng = np.random.default_rng(seed)
    queries, kinds = ["heldout-0", *TARGETS], ["heldout"] + ["generated"] * len(TARGETS)
    ids: list[Any] = [rng.permutation(pool)[:K].tolist() for _ in queries]
    ids[-1] = None if seed == 2 else ids[-1]
    return TopK(k=K, n_train=N_TRAIN, query_ids=queries, kinds=kinds, ids=ids)


def sanity(**skipped: str) -> Sanity:
    recall = SanityCheck(query_ids=["a", "b"], values=[1.0, 0.5], mean=0.75, chance=0.002)
    rank = SanityCheck(query_ids=["a"], values=[1234.0], mean=1234.0)
    checks = {name: check for name, check in (("recall", recall), ("rank", rank)) if name not in skipped}
    return Sanity(inputs="0" * 16, checks=checks, skipped=skipped)


def groups(
    means: dict[str, float], unit: str = "item", missing: int = 0, noise: int = 0, size: float | None = None
) -> GroupsResult:
    """Results of queries whose values spread around these means by measure; the same spread for every method.

    size: the mean that groups' sizes get, where they are known.
    """
    spread = np.random.default_rng(0).normal(scale=0.1, size=8)
    spread = spread - spread.mean() + 0.001 * np.random.default_rng(noise).normal(size=8)
    scores = {}
    for name, mean in ({"spearman": 0.5, "ndcg": 0.6, "top1": 0.5} | means).items():
        values = [None] * missing + [float(max(mean + shift, -1.0)) for shift in spread[missing:]]
        known = [value for value in values if value is not None]
        limits = {"shuffled": 0.1, "ceiling": 0.73, "ceiling_low": 0.68, "ceiling_high": 0.77}
        sizes = [] if size is None else (size + spread).tolist()
        scores[name] = GroupScore(values=values, mean=sum(known) / len(known), sizes=sizes, **limits)
    ids, names = [f"heldout-{i}" for i in range(8)], ["cats", "dogs", "emus"]
    return GroupsResult.model_validate(
        {"query_ids": ids, "unit": unit, "names": names, "n_replicates": 2, "scores": scores}
    )


def exemplars(means: dict[tuple[int, int], float], noise: int = 0, missing: int = 0) -> Exemplars:
    """Results of 6 cases of 2 samples by (k, steps), whose cases spread around the means, the same for every method."""
    spread = np.repeat(np.random.default_rng(0).normal(scale=0.05, size=6), 2)
    spread = spread - spread.mean() + 0.001 * np.random.default_rng(noise).normal(size=12)
    ids, cases, scores = [f"q{i}" for i in range(12)], [i // 2 for i in range(12)], []
    for (k, steps), mean in means.items():
        values: list[Any] = [None] * missing + [float(mean + shift) for shift in spread[missing:]]
        known = [value for value in values if value is not None]
        measure = ExemplarMeasure(values=values, mean=sum(known) / len(known), chance=0.02 * k)
        measures = {"ap": measure, "percentile": measure}
        scores.append(ExemplarScores(k=k, steps=steps, query_ids=ids, cases=cases, measures=measures))
    skipped = {"exemplars-k1-steps5-case0": "timeout: killed | after\n600 s"} if missing else {}
    return Exemplars(inputs="0" * 16, truth="2" * 16, n_before=N_TRAIN, scores=scores, skipped=skipped)


def removal_row(method: str, effect: float = 0.05, own: int = 0, **changes: Any) -> Row:
    """A row without an LDS; ``changes``: of its key, of the ``truth`` and of what it holds."""
    key = {name: changes.pop(name) for name in list(changes) if name in Key.model_fields}
    source = make_source(truth_sha256=changes.pop("truth", "a" * 64))
    held = {"top": top(own), "removal": removal(effect, own), "sanity": sanity()}
    held |= {"groups": {"heldout": groups({"spearman": effect}, noise=own)}}
    held |= {"exemplars": exemplars({(1, 5): effect, (1, 50): 2 * effect}, own)} | changes
    parts = {"key": make_key(method, **({"preset": "quick"} | key)), "metrics": Metrics(**held), "cost": make_cost()}
    return Row(status="ok", environment={}, source=source, **parts)


def with_union(method: str, **changes: Any) -> Row:
    union = removal(0.3).union
    assert union is not None
    return removal_row(method, removal=removal(0.3, union=union.model_copy(update=changes)))


def removal_rows() -> list[Row]:
    """An oracle, one a little behind it, one half as good, random, and one that names what must stay."""
    effects = {"oracle": 0.35, "near": 0.3495, "half": 0.15, "random": 0.05, "inverted": -0.05}
    return [removal_row(name, effect, own) for own, (name, effect) in enumerate(effects.items())]


def cells(sheet: Sheet) -> dict[str, dict[str, str]]:
    """The text of each method's cells by heading."""
    names = [name.replace("\n", " ") for name in sheet.headings]
    return {line[names.index("Method")]: dict(zip(names, line, strict=True)) for line in sheet.rows}


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", text)]


def only(view: str, given: list[Row] | None = None, **options: str) -> Sheet:
    (sheet,) = build_view(view, removal_rows() if given is None else given, **options)
    return sheet


def readme(*sections: str) -> str:
    return "\n".join(f"# {section}\n{markers(section)[0]}\nstale\n{markers(section)[1]}\n" for section in sections)
