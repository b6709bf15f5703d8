"""The adapter contract: a method is one class in one file with two calls, ``fit`` and ``attribute``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_args

from torch import Tensor

from ..datasets.queries import Queries
from .view import View

M = TypeVar("M", bound="type[Method]")
Scores = Tensor | Iterable[tuple[slice, Tensor]]
Sign = Literal["theory", "arbitrary", "magnitude"]

CLASSES: dict[str, type[Method]] = {}

Unit = Literal["item", "group"]
UNITS: tuple[Unit, ...] = ("item", "group")
NEEDS = ("gradients", "checkpoints", "recipe", "encoder", "cond", "trajectory", "stored-scores", "open-truth")


@dataclass(frozen=True)
class NoParams:
    """The parameters of a method that has none."""


@dataclass(frozen=True)
class Estimate:
    """What a cell will cost, from counts alone: sample passes by kind, and bytes held at once.

    forward: passes without gradients; trained: forward and backward in batches; per_sample: forward and backward with
    one gradient per image; bytes: features, gradients and losses beyond the model itself.
    """

    forward: int = 0
    trained: int = 0
    per_sample: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Sizes:
    """What the cost of a cell depends on.

    n_items: N training items; n_queries: Q, attributed in ``slices`` calls; parameters: numbers of each parameter that
    trains, by its name; n_parameters: of all parameters, frozen ones too; checkpoints: stored ones but the untrained;
    shape: of an item as the model sees it.
    """

    n_items: int
    n_queries: int
    n_parameters: int
    parameters: Mapping[str, int]
    checkpoints: int = 1
    slices: int = 1
    shape: tuple[int, ...] = ()

    @property
    def n_trained(self) -> int:
        """Numbers in a gradient: of the parameters that train."""
        return sum(self.parameters.values())


class Method(ABC):
    """A training-data-attribution method.

    Class attributes are literals, because listings read them without importing the file. ``version`` is bumped when
    scores can change; ``needs`` is drawn from ``NEEDS``; ``unit`` is ``item`` (scores [Q, N]) or ``group`` ([Q, G]);
    ``members`` are the entries an ensemble reads; ``slice_size`` is how many queries one call gets, and a kill can
    lose; ``encoders`` are those it compares images with, which makes a counterfactual measured with the same one
    circular, and which a method that needs ``encoder`` is given; ``query_specific`` says that different queries should
    get different rankings (random need not), ``sign`` whether ``theory`` fixes the scores' sign, it is ``arbitrary``,
    or scores are a ``magnitude``: the size of an effect, never negative; ``search`` maps parameters to the values that
    ``tdabench tune`` may try; ``ablations`` names changes of parameters, so that ``quick+name`` is the preset ``quick``
    so changed; ``notes`` says per preset how it departs from the paper, and goes into its rows.

    A method may note what happened in ``diagnostics`` (JSON values), which the row keeps.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ()
    query_kinds: ClassVar[tuple[str, ...]] = ("heldout", "generated", "external")
    unit: ClassVar[Unit] = "item"
    slice_size: ClassVar[int] = 20
    members: ClassVar[tuple[str, ...]] = ()
    query_specific: ClassVar[bool] = True
    sign: ClassVar[Sign] = "theory"
    encoders: ClassVar[tuple[str, ...]] = ()
    citation: ClassVar[str] = ""
    Params: ClassVar[type] = NoParams
    presets: ClassVar[Mapping[str, Any]] = {"paper": NoParams(), "quick": NoParams()}
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    notes: ClassVar[Mapping[str, str]] = {}

    def __init__(self, params: Any = None) -> None:
        self.params = self.Params() if params is None else params
        self.diagnostics: dict[str, Any] = {}

    @classmethod
    def reads(cls, params: Any) -> tuple[str, ...]:
        """Return the entries whose stored scores it reads: those of its parameters, or else of its class."""
        return getattr(params, "members", ()) or cls.members

    @classmethod
    def encoders_of(cls, params: Any) -> tuple[str, ...]:
        """Return the encoders it compares images by: those of its parameters, or else of its class."""
        return getattr(params, "encoders", ()) or cls.encoders

    def fit(self, view: View) -> Any:
        """Do the train-side work that any query can reuse, and return it as the state; no query is in reach."""
        return None

    def estimate(self, sizes: Sizes) -> Estimate | None:
        """Return what fit and all queries will cost (an upper bound where it depends on data), or None if unknown."""
        return None

    @abstractmethod
    def attribute(self, view: View, state: Any, queries: Queries) -> Scores:
        """Return scores [Q, N] float32 (higher = removing the item hurts the query more), whole or as pairs.

        A pair is (slice of training ids, block [Q, n]); together they cover every id once. Of a method of groups the
        same with groups for items: [Q, G], higher = leaving the whole group out hurts the query more.
        """


def register(name: str) -> Callable[[M], M]:
    """Make a method known under ``name``; raises ValueError where another class has that name."""

    def add(cls: M) -> M:
        known = CLASSES.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"two methods are called {name!r}: {known.__module__} and {cls.__module__}")
        unknown_needs = set(cls.needs) - set(NEEDS)
        if unknown_needs:
            raise ValueError(f"method {name!r} needs {sorted(unknown_needs)}, which is none of {NEEDS}")
        if cls.sign not in get_args(Sign):
            raise ValueError(f"method {name!r} has the sign {cls.sign!r}, which is none of {get_args(Sign)}")
        if cls.unit not in UNITS:
            raise ValueError(f"method {name!r} scores by {cls.unit!r}, which is none of {UNITS}")
        cls.name = name
        CLASSES[name] = cls
        return cls

    return add
