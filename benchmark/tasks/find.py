"""Where tasks are found, and where their ground truth lies."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ... import plugins as outside
from ...datasets.find import dataset_listings
from ...datasets.truth import SHIPPED, Assets
from ...errors import CorruptFile, UserError, shown, unknown
from ...methods.registry import listings
from ...store import home
from .spec import TaskSpec

GROUP = "tdabench.tasks"
FOLDERS = {Path(__file__).parent: "", Path(__file__).parent / "published": ".published"}  # ours; the literature's


class TaskListing(NamedTuple):
    """A task's name, and the module or plugin's path that it is assigned in."""

    name: str
    origin: str


def task_listings(plugins: tuple[Path, ...] = ()) -> dict[str, TaskListing]:
    """Return all tasks by name, the package's first; none is imported. Raises UserError where two share a name."""
    own = [
        outside.Source(path, f"{__package__}{inside}.{path.stem}")
        for folder, inside in FOLDERS.items()
        for path in sorted(folder.glob("[a-z]*.py"))
        if re.search(r"^TASK\b", path.read_text(), re.M)
    ]
    return outside.collected("task", own, GROUP, plugins, _read)


def task_names(plugins: tuple[Path, ...] = ()) -> list[str]:
    """Return the names of the tasks; none is imported."""
    return sorted(task_listings(plugins))


def find_task(name: str, plugins: tuple[Path, ...] = ()) -> TaskSpec:
    """Return a task by name, or by ``name@version``; raises UserError with the nearest names."""
    (bare, _, version), known = name.partition("@"), task_listings(plugins)
    if bare not in known:
        raise unknown("task", bare, known)
    spec = _spec(*known[bare])
    if version and version != str(spec.version):
        raise UserError(f"task {bare!r} is at version {spec.version}, not {shown(version)}: ask for {spec.label}")
    return spec


def check_plugins(plugins: tuple[Path, ...]) -> None:
    """Raise UserError for a plugin that cannot be read, that brings nothing, or whose names are taken."""
    found = [*listings(plugins).values(), *dataset_listings(plugins).values(), *task_listings(plugins).values()]
    origins = {listing.origin for listing in found}
    for path in plugins:
        if str(path) not in origins:
            ways = '@register("name") on a method\'s class, @dataset("name") on a function that loads one, or TASK'
            raise UserError(f"{path} registers no method, dataset or task: it needs {ways}")


def _spec(name: str, origin: str) -> TaskSpec:
    if origin.startswith(f"{__package__}."):
        return importlib.import_module(origin).TASK
    module = outside.imported(origin)
    specs = [getattr(module, "TASK", None), *getattr(module, "TASKS", ())]
    found = [spec for spec in specs if isinstance(spec, TaskSpec) and spec.name == name]
    if not found:
        raise UserError(f"{origin} was imported but its TASK is no TaskSpec called {name!r}: mend the file")
    return found[0]


def _read(source: outside.Source) -> Iterator[TaskListing]:
    """Yield a task of the package by its file's name, and those that a file elsewhere assigns to TASK and TASKS."""
    if source.path.parent in FOLDERS:
        yield TaskListing(source.path.stem.replace("_", "-"), source.origin)
        return
    values = dict(outside.assigned(outside.parsed(source).body))
    several = values.get("TASKS", ast.Tuple([]))
    listed = [values.get("TASK"), *(several.elts if isinstance(several, ast.Tuple | ast.List) else [several])]
    for value in listed:
        if value is not None:
            name = _name(values.get(value.id, value) if isinstance(value, ast.Name) else value, source.origin)
            yield TaskListing(name, source.origin)


def _name(value: ast.expr, origin: str) -> str:
    named = [word.value for word in value.keywords if word.arg == "name"] if isinstance(value, ast.Call) else []
    name = named[0].value if named and isinstance(named[0], ast.Constant) else None
    if not isinstance(name, str) or not outside.NAME.fullmatch(name):
        how = 'TaskSpec(name="my-task", ...) or replace(OTHER, name="my-task", ...)'
        raise UserError(f"{origin}: a task must be written as {how}, because listings do not import the file")
    return name


def has_assets(spec: TaskSpec) -> bool:
    """Say whether a task's assets are at hand."""
    return any(map(_is_assets, _places(spec)))


def _places(spec: TaskSpec) -> tuple[Path, Path]:
    return home() / "truth" / spec.label, SHIPPED / spec.label


def _is_assets(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()


def assets_folder(spec: TaskSpec) -> Path:
    """Return where a task's assets lie: built or imported ones in ``home()`` before those that ship."""
    for folder in filter(_is_assets, _places(spec)):
        return folder
    raise UserError(
        f"task {spec.name!r} has no ground truth here: run `tdabench truth build {spec.name}` or import one"
    )


def open_assets(spec: TaskSpec) -> Assets:
    """Return a task's assets; raises CorruptFile where they are not of the task as it is."""
    assets = Assets(assets_folder(spec))
    check_assets(assets, spec, assets.folder)
    return assets


def known_groups(spec: TaskSpec) -> int | None:
    """Return how many groups a task leaves out, by its truth or its names of them; None where only its data tell."""
    if spec.groups is None:
        return 0
    if has_assets(spec):
        return len(open_assets(spec).manifest["groups"]["names"])
    return len(spec.groups.names) or None


def check_assets(assets: Assets, spec: TaskSpec, where: Path) -> None:
    """Raise CorruptFile, which names ``where``, for assets of another recipe, plan or grouping than the task's."""
    plain, found = json.loads(json.dumps(spec.to_json())), assets.manifest
    pairs = {"recipe": "recipe", "n_train": "n_train", "truth": "truth_plan"}
    other = [name for name, stored in pairs.items() if plain[name] != found.get(stored)]
    if (plain.get("groups") or {}).get("by") != (found.get("groups") or {}).get("by"):
        other.append("groups")
    if other:
        raise CorruptFile(f"{where} was built from another {other[0]} than {spec.label}'s: rebuild it")
