"""What others may send: documents with fields changed, and bytes and texts that are none; and what a parser may do."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from hypothesis import event, settings
from hypothesis import strategies as st

from tdabench.errors import UserError

T = TypeVar("T")
LONG = "TDABENCH_FUZZ" in os.environ or os.environ.get("HYPOTHESIS_PROFILE") == "long"
# Cases a parser in each run of all tests: where a case takes milliseconds, and where it imports, unpacks or writes.
many, few = (settings() if LONG else settings(max_examples=cases) for cases in (200, 100))
LONGEST = 3000  # characters of a message: more is no line for people
DEPTHS = [19, 21, 90, 320, 480, 640, 800, 900, 950, 970, 980, 985, 990, 995, 2000, 100_000]

texts = st.text(max_size=12) | st.text(st.characters(), max_size=4) | st.text(st.characters(categories=["Cc", "Cs"]))
ODD_TEXTS = ["", "a\nb", "\x1b[31m", "\ud800", "\u202e", "../../x", "/", "x" * 300, "x" * 5000, "NaN", "1", "{}", "\0"]
ODD_NUMBERS = [0, 1, -1, 7, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308, 1e-320]
NOT_FINITE = [float("nan"), float("inf"), float("-inf")]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from(NOT_FINITE),
    st.sampled_from(ODD_TEXTS),
    st.integers(),
    st.floats(),
    texts,
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5
)
DEEP = "deep below here "  # and how many lists; json.dumps itself could not write them


def parsed(read: Callable[..., T], *args: Any) -> T | None:
    """Return what is read, None for a UserError of one printable line; any other exception is the test's."""
    try:
        found = read(*args)
    except UserError as error:
        event("refused")
        said = str(error)
        assert said.strip() and said.isprintable() and len(said) < LONGEST, said
        return None
    event("read")
    return found


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside another, the first three of a list."""
    yield here
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*here, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """Return a document with up to three changes: values of another kind, swapped, doubled or gone."""
    found = {"whole": copy.deepcopy(document)}
    for _ in range(draw(st.integers(0, 3))):
        paths = [path for path in places(found) if path]
        *above, name = draw(st.sampled_from(paths))
        parent = at(found, tuple(above))
        how = draw(st.sampled_from(["odd", "odd", "gone", "other", "new", "deep", "longer"]))
        if how == "gone" and above:
            del parent[name]
        elif how == "other":
            parent[name] = copy.deepcopy(at(found, draw(st.sampled_from(paths))))
        elif how == "new" and isinstance(parent[name], dict):
            parent[name][draw(texts)] = draw(values)
        elif how == "longer" and isinstance(parent[name], list) and parent[name]:
            parent[name] = parent[name] * 2
        elif how == "deep":
            parent[name] = f"{DEEP}{draw(st.sampled_from(DEPTHS))}"
        else:
            parent[name] = draw(values)
    return found["whole"]


def written(value: Any, ascii_only: bool = True) -> bytes:
    """Return JSON of a changed document, with numbers that are not finite, surrogates and deep lists as they come."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    for depth in DEPTHS:
        text = text.replace(f'"{DEEP}{depth}"', "[" * depth + "]" * depth)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Return bytes cut, with some in another's place, or with a stretch of them twice."""
    start, stop = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
    middle = draw(st.sampled_from([b"", data[start:stop] * 2]) | st.binary(max_size=8))
    return data[:start] + middle + data[stop:]


def documents(document: Any) -> st.SearchStrategy[bytes]:
    """Return JSON of a document that is changed, doubled names and damage to its bytes, and bytes of no document."""
    mutants = st.builds(written, changed(document), st.booleans())
    raw = st.binary(max_size=60) | values.map(written) | texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(mutants, mutants, mutants, damaged(written(document)), mutants.flatmap(damaged), raw)
