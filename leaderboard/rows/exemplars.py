"""What a row says of exemplars: how well scores find what a model was tuned on among all training items."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from .strict import Count, Hash, Name, Number, Strict, Text, check_mean, without_empty


class ExemplarMeasure(Strict):
    """One measure's value per query, None where it has none, their mean, and what random scores get on average."""

    values: list[float | None]
    mean: float | None
    chance: float

    @model_validator(mode="after")
    def _mean_is_that_of_the_values(self) -> ExemplarMeasure:
        check_mean(self.mean, self.values)
        return self


class ExemplarScores(Strict):
    """Measures by name on samples of models tuned for ``steps`` updates on ``k`` exemplars; cases: each query's.

    controls: the same on what the base model made of each sample's noise; none in rows of before there were controls.
    """

    k: Number
    steps: Count
    query_ids: list[Text]
    cases: list[Count]
    measures: dict[Name, ExemplarMeasure]
    controls: dict[Name, ExemplarMeasure] = {}

    @model_validator(mode="after")
    def _counts_agree(self) -> ExemplarScores:
        found = (*self.measures.values(), *self.controls.values())
        counts = {len(self.cases), *(len(measure.values) for measure in found)}
        if counts != {len(set(self.query_ids))} or len(set(self.query_ids)) != len(self.query_ids):
            raise ValueError("not every measure has a value for each distinct query, or not every query a case")
        if self.controls and self.controls.keys() != self.measures.keys():
            raise ValueError("controls have other measures than samples")
        return self

    @model_serializer(mode="wrap")
    def _without_controls_that_are_not_known(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_empty(handler(self), "controls")


class Exemplars(Strict):
    """Results by k and strength; ``inputs``: the hash of what they were computed from; skipped: cases, with the reason.

    truth: the hash of the cases' problems and queries, without which two methods' results do not compare; provenance:
    with what the models were tuned, where that is known.
    """

    inputs: Hash
    truth: Hash
    n_before: Number
    scores: list[ExemplarScores]
    skipped: dict[Name, Text] = {}
    provenance: dict[str, Any] = {}

    @model_serializer(mode="wrap")
    def _without_provenance_that_is_not_known(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_empty(handler(self), "provenance")
