"""What a row says of counterfactual removal: similarities before and after, per retraining seed and query."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from .strict import (
    Count,
    Fraction,
    Hash,
    Name,
    Number,
    Strict,
    Text,
    check_distinct,
    check_interval,
    without_empty,
    without_usual,
)

LOSS = "loss"  # the name of the similarity that is minus the queries' own diffusion loss
Grid = list[list[float]]


class Published(Strict):
    """The published pipeline's statistics; all ignore that the targets share one retraining per seed.

    change_percent: of the similarity against random removal's median, with 1.98 standard errors (None where it is never
    positive, as minus a distance or a loss); auc: how often random removal leaves a query more similar; p-values:
    Mann-Whitney U and paired Wilcoxon (targets: one-sided, less similar than under random; controls: two-sided).
    """

    change_percent: float | None
    change_margin: float | None
    auc: Fraction
    mann_whitney_p: Fraction
    wilcoxon_p: Fraction


class Change(Strict):
    """Similarities of queries to what the base model made, [seed][query], higher = more alike.

    floor: retrained with nothing removed; after: without the method's union; random: without as many random items.
    """

    floor: Grid
    after: Grid
    random: Grid
    published: Published

    @model_validator(mode="after")
    def _shapes_agree(self) -> Change:
        shapes = {tuple(map(len, grid)) for grid in (self.floor, self.after, self.random)}
        if len(shapes) != 1 or len(set(next(iter(shapes)))) != 1:
            raise ValueError("floor, after and random are not of one shape [seeds][queries]")
        return self


class CurvePoint(Strict):
    """Random removal at one union size: the mean effect on the targets with its 95 % interval."""

    size: Count
    mean: float
    low: float | None
    high: float | None

    @model_validator(mode="after")
    def _interval_is_one(self) -> CurvePoint:
        check_interval(self.low, self.high)
        return self


class Similarity(Strict):
    """One similarity: targets and controls apart, and the curve of random removal that it was compared with.

    circular: the method compares images by the same encoder; meaningful: images are large enough for the encoder.
    """

    targets: Change
    controls: Change
    curve: list[CurvePoint]
    circular: bool = False
    meaningful: bool = True


class PerQueryChange(Strict):
    """Similarities under removal of one query's own top items: floor [query], after and random [size][query]."""

    floor: list[float]
    after: Grid
    random: Grid


class PerQuery(Strict):
    """Removal of each sampled query's top ``sizes`` items alone, one retraining each (D-TRAK's protocol)."""

    query_ids: list[Text]
    sizes: list[Count]
    seed: int
    similarities: dict[Name, PerQueryChange]


class Union(Strict):
    """Removal of all targets' top items at once, retrained under each seed (MUCS' protocol).

    random_by: in what random removal is linear between the sizes that were tried.
    """

    size: Count
    seeds: list[int]
    target_ids: list[Text]
    control_ids: list[Text]
    similarities: dict[Name, Similarity]
    random_by: Literal["size", "items left"] = "size"

    @model_serializer(mode="wrap")
    def _without_the_usual_reading(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_usual(handler(self), random_by="size")

    @model_validator(mode="after")
    def _every_seed_and_query_has_a_value(self) -> Union:
        for ids, what in ((self.seeds, "seeds"), (self.target_ids, "targets"), (self.control_ids, "controls")):
            check_distinct(ids, what)
        for one in self.similarities.values():
            for change, ids in ((one.targets, self.target_ids), (one.controls, self.control_ids)):
                if len(change.floor) != len(self.seeds) or any(len(line) != len(ids) for line in change.floor):
                    raise ValueError("a similarity has not a value for every seed and query")
        return self


class Removal(Strict):
    """Counterfactual removal; ``inputs`` is the hash of the scores, the retrainings and how they are evaluated.

    laboratory: the hash of what retrained models depend on besides seed and removed ids, without which two methods'
    removals do not compare; top_k: items removed per query; skipped: similarities that could not be had, with the
    reason; provenance: version of torch and kind of device of the retrainings; encoders: by similarity, the
    hash of the weights and code of what compared the images, without which numbers do not compare either.
    """

    inputs: Hash
    laboratory: Hash
    n_train: Number
    top_k: Count
    union: Union | None = None
    per_query: PerQuery | None = None
    skipped: dict[Name, Text] = {}
    provenance: dict[str, Any] = {}
    encoders: dict[Name, Hash] = {}

    @model_serializer(mode="wrap")
    def _without_encoders_that_are_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_empty(handler(self), "encoders")

    @model_validator(mode="after")
    def _sizes_are_below_that_of_the_training_set(self) -> Removal:
        alone = self.per_query.sizes if self.per_query else []
        largest = max([self.top_k, self.union.size if self.union else 0, *alone])
        if largest > self.n_train:
            raise ValueError(f"{largest} items are removed of {self.n_train}")
        return self
