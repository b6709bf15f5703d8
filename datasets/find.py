"""Finding datasets: modules beside this one, installed entry points and plugin files; listing them imports none."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .. import plugins as outside
from ..errors import UserError
from ..store import home, recovered

if TYPE_CHECKING:
    from .base import ImageDataset

L = TypeVar("L", bound="Callable[[], ImageDataset]")
GROUP = "tdabench.datasets"
HERE = Path(__file__).parent
FOLDERS = {HERE: "", HERE / "published": ".published"}  # what is generated or ships; what is fetched


@dataclass(frozen=True)
class DatasetListing:
    """A dataset as its file's literals describe it; ``origin`` is a module's name, or the path of a plugin."""

    name: str
    origin: str
    function: str = "load"


def dataset(name: str) -> Callable[[L], L]:
    """Mark a plugin's function without arguments as what loads the dataset of that name, a literal string."""
    return lambda load: load


def dataset_listings(plugins: tuple[Path, ...] = ()) -> dict[str, DatasetListing]:
    """Return all datasets by name, the package's first; raises UserError where two share a name."""
    own = [
        outside.Source(path, f"{__package__}{inside}.{path.stem}")
        for folder, inside in FOLDERS.items()
        for path in sorted(folder.glob("*.py"))
        if re.search(r"^def load\(\)", path.read_text(), re.M)
    ]
    return outside.collected("dataset", own, GROUP, plugins, _read)


def store_folder(name: str, revision: str) -> Path:
    """Return where a dataset that is fetched lies: in ``home()``, by its name and revision."""
    return recovered(home() / "datasets" / f"{name}-{revision[:12]}")


def card_of(listing: DatasetListing) -> dict[str, Any]:
    """Return what a file's ``CARD = Card(...)`` says by name, as far as it is literal, importing nothing."""
    path = Path(listing.origin) if outside.is_file(listing.origin) else outside.module_file(listing.origin)
    values = dict(outside.assigned(outside.parsed(outside.Source(path, listing.origin)).body))
    call, found = values.get("CARD"), {}
    for word in call.keywords if isinstance(call, ast.Call) else ():
        try:
            found[str(word.arg)] = outside.literal(word.value)
        except ValueError:  # only an import would tell
            continue
    return found


def load_dataset(name: str, plugins: tuple[Path, ...] = ()) -> ImageDataset:
    """Return a dataset by name: what a module here or a marked function outside the package loads.

    Raises UserError where there is none, where it does not import or load, or where an outside one is malformed.
    """
    from .base import OWN

    if name.startswith(OWN):
        from .own.items import load_own

        return load_own(name)
    listing = dataset_listings(plugins).get(name)
    if listing is None and (HERE / f"{name}.py").is_file():
        raise UserError(f"datasets/{name}.py holds no dataset: name one of {', '.join(dataset_listings(plugins))}")
    if listing is None or listing.origin.startswith(f"{__package__}."):
        return _own(name, listing.origin if listing else f"{__package__}.{name}")
    load: Any = getattr(outside.imported(listing.origin), listing.function)
    try:
        data = load()
    except (Exception, SystemExit) as error:
        raise UserError(
            f"dataset {name!r} of {listing.origin} does not load: {type(error).__name__}: {error}"
        ) from error
    from .checks import check_dataset

    check_dataset(data, name)
    return data


def dataset_origin(name: str, plugins: tuple[Path, ...] = ()) -> dict[str, str]:
    """Return where a dataset from outside the package is from, and its code's hash, for a manifest; else nothing."""
    listing = dataset_listings(plugins).get(name)
    if listing is None or listing.origin.startswith(f"{__package__}."):
        return {}
    origin = listing.origin
    named = Path(origin).name if outside.is_file(origin) else origin
    return {"plugin": named, "code": outside.code_hash(origin)}


def _own(name: str, module: str) -> ImageDataset:
    try:
        return importlib.import_module(module).load()
    except ImportError as error:
        if error.name == module:
            raise UserError(
                f"no dataset {name!r}: add datasets/{name}.py with a load() function, or give its file with --plugin"
            ) from error
        raise UserError(f"dataset {name!r} does not load: {error}; install what datasets/{name}.py imports") from error


def _read(source: outside.Source) -> Iterator[DatasetListing]:
    if source.path.parent in FOLDERS:
        yield DatasetListing(source.path.stem, source.origin)
        return
    for node in (node for node in outside.parsed(source).body if isinstance(node, ast.FunctionDef)):
        for call in node.decorator_list:
            name = outside.literal_name(call, "dataset", node.name, source.origin)
            if name is not None and not outside.NAME.fullmatch(name):
                raise UserError(f"{source.origin}: {name!r} is no name of a dataset: use letters, digits, - and _")
            if name is not None:
                yield DatasetListing(name, source.origin, node.name)
