"""One row a cell: what it holds, and by which key."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from .exemplars import Exemplars
from .groups import GroupsResult
from .removal import Removal
from .sanity import Sanity
from .strict import (
    Correlation,
    Count,
    Free,
    Hash,
    Name,
    Number,
    Seconds,
    Strict,
    Text,
    check_interval,
    check_mean,
    without_empty,
    without_usual,
)
from .top import TopK

SCHEMA_VERSION = 1
REPLICATE_DECIMALS = 6

Status = Literal["ok", "partial", "skipped", "timeout", "oom", "error"]


class Key(Strict):
    """The cell that a row reports."""

    task: Name
    task_version: Number
    method: Name
    method_version: Number
    preset: Name
    params: Free
    params_hash: Hash
    query_set: Name
    seed: int
    precision: Literal["float32", "tf32", "bf16"] = "float32"

    @property
    def label(self) -> str:
        """``name@version`` of the task."""
        return f"{self.task}@{self.task_version}"

    @property
    def versioned(self) -> str:
        """``name@version`` of the method."""
        return f"{self.method}@{self.method_version}"

    @property
    def setting(self) -> str:
        """The preset, and the precision where it is not float32: what tells one method's entries apart."""
        return self.preset if self.precision == "float32" else f"{self.preset} ({self.precision})"

    @model_serializer(mode="wrap")
    def _without_the_usual_precision(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_usual(handler(self), precision="float32")


class LdsResult(Strict):
    """The LDS of one query kind: per-query values and the bootstrap replicates of their mean, as fractions.

    None stands for a query or replicate without a value; ``n_nan`` counts such queries.
    """

    query_ids: list[Text]
    values: list[Correlation | None]
    mean: Correlation | None
    low: Correlation | None
    high: Correlation | None
    replicates: list[Correlation | None]
    n_nan: Count
    n_subsets: Count
    ceiling: Correlation | None = None
    ceiling_low: Correlation | None = None
    ceiling_high: Correlation | None = None
    shuffled_mean: Correlation | None = None

    @field_validator("replicates")
    @classmethod
    def _shorten(cls, replicates: list[float | None]) -> list[float | None]:
        return [None if value is None else round(value, REPLICATE_DECIMALS) for value in replicates]

    @model_validator(mode="after")
    def _counts_agree(self) -> LdsResult:
        if len(self.values) != len(self.query_ids) or len(set(self.query_ids)) != len(self.query_ids):
            raise ValueError(f"{len(self.values)} values for {len(set(self.query_ids))} distinct query ids")
        if self.n_nan != self.values.count(None):
            raise ValueError(f"n_nan is {self.n_nan}, but {self.values.count(None)} values are null")
        check_mean(self.mean, self.values)
        check_interval(self.low, self.high)
        check_interval(self.ceiling_low, self.ceiling_high, "ceiling_")
        return self


class Metrics(Strict):
    """What was computed from the scores: LDS and groups by query kind (a metric added later needs a default)."""

    lds: dict[Name, LdsResult] = {}
    top: TopK | None = None
    removal: Removal | None = None
    sanity: Sanity | None = None
    groups: dict[Name, GroupsResult] = {}
    exemplars: Exemplars | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_empty(handler(self), "groups", "exemplars")


class Cost(Strict):
    """What a cell cost: seconds, bytes and sample passes; dicts are by phase (``fit``, ``attribute``).

    ``attribute_s`` holds one raw time per query slice; ``resumed`` says that slices are from several starts, while
    ``setup_s``, ``fit_s`` and ``wall_s`` are the last one's.
    """

    setup_s: Seconds
    fit_s: Seconds
    attribute_s: list[Seconds]
    seconds_per_query: Seconds | None
    n_queries: Count
    peak_rss_bytes: dict[Name, Count | None]
    peak_gpu_bytes: dict[Name, Count | None]
    forward_passes: dict[Name, Count]
    backward_passes: dict[Name, Count]
    scratch_bytes: Count | None
    wall_s: Seconds
    micro_batch: Number | None
    resumed: bool


class Source(Strict):
    """Where a row comes from: what was run, when, from which code, on which truth, problem and scores.

    kind: ``measured`` by a run, ``verified`` by the maintainers' own, or ``reported`` by others without a run;
    adapter_sha256: of a method outside the package, the hash of its file and all that this imports from beside it;
    isolation: by what the method was kept from truths, other results and the network, or ``none``, as where an
    ensemble reads scores of a cell that was not.
    """

    kind: Literal["verified", "measured", "reported"]
    command: Text
    started_utc: Text
    git_revision: Text | None = None
    git_dirty: bool | None = None
    truth_sha256: Hash | None = None
    problem_sha256: Hash | None = None
    scores_sha256: Hash | None = None
    code_sha256: Hash | None = None
    notes: list[Text] = []
    adapter_sha256: Hash | None = None
    isolation: Text | None = None

    @model_serializer(mode="wrap")
    def _without_what_few_have(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        optional = ("adapter_sha256", "isolation")
        return {name: value for name, value in handler(self).items() if name not in optional or value is not None}


class Row(Strict):
    """The outcome of one cell, whatever it is: a failure is a row with a reason."""

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Status
    reason: Text | None = None
    log_tail: Text | None = None
    key: Key
    metrics: Metrics | None = None
    cost: Cost | None = None
    environment: Free
    source: Source
    diagnostics: Free = {}

    @model_validator(mode="after")
    def _says_what_its_status_promises(self) -> Row:
        if self.status in ("ok", "partial") and self.metrics is None:
            raise ValueError(f"a row with status {self.status!r} needs metrics")
        if self.status == "ok" and self.cost is None:
            raise ValueError("a row with status 'ok' needs a cost")
        if self.status not in ("ok", "partial") and not self.reason:
            raise ValueError(f"a row with status {self.status!r} needs a reason")
        return self


def row_key(key: Key) -> str:
    """Return where a cell's row lies: ``<task>@<v>/<method>@<v>/<preset>-<hash8>/<query_set>-seed<k>.json``.

    With ``-<precision>`` after the seed where it is not float32.
    """
    method = f"{key.versioned}/{key.preset}-{key.params_hash[:8]}"
    precision = "" if key.precision == "float32" else f"-{key.precision}"
    return f"{key.label}/{method}/{key.query_set}-seed{key.seed}{precision}.json"
