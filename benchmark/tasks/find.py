"""Where tasks are found, and where their ground truth lies."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

from ...datasets.truth import SHIPPED, Assets
from ...errors import CorruptFile, UserError, unknown
from ...store import home
from .spec import TaskSpec


def task_names() -> list[str]:
    """Return the names of the tasks: the files beside this one that assign TASK; none is imported."""
    files = [path for path in Path(__file__).parent.glob("[a-z]*.py") if re.search(r"^TASK\b", path.read_text(), re.M)]
    return sorted(path.stem.replace("_", "-") for path in files)


def find_task(name: str) -> TaskSpec:
    """Return a task by name, or by ``name@version``; raises UserError with the nearest names."""
    bare, _, version = name.partition("@")
    if bare not in task_names():
        raise unknown("task", bare, task_names())
    spec: TaskSpec = importlib.import_module(f".{bare.replace('-', '_')}", __package__).TASK
    if version and version != str(spec.version):
        raise UserError(f"task {bare!r} is at version {spec.version}, not {version}: ask for {spec.label}")
    return spec


def assets_folder(spec: TaskSpec) -> Path:
    """Return where a task's assets lie: built or imported ones in ``home()`` before those that ship."""
    own = home() / "truth" / spec.label
    for folder in (own, SHIPPED / spec.label):
        if (folder / "manifest.json").is_file():
            return folder
    raise UserError(
        f"task {spec.name!r} has no ground truth here: run `tdabench truth build {spec.name}` or import one"
    )


def open_assets(spec: TaskSpec) -> Assets:
    """Return a task's assets; raises CorruptFile where they are not of the task as it is."""
    assets = Assets(assets_folder(spec))
    if assets.manifest.get("recipe") != json.loads(json.dumps(spec.recipe.to_json())):
        raise CorruptFile(f"{assets.folder} was built from another recipe than {spec.label}'s: rebuild it")
    return assets
