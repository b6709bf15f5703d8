"""The command doctor: what is installed and at hand, and what to do where something is not."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
from packaging.requirements import Requirement
from rich.markup import escape

from ... import __version__
from ...errors import UserError
from ...store import home
from ..processes import cores
from ..tasks.find import find_task, has_assets, open_assets, task_names
from .terminal import amount, console

State = Literal["ok", "note", "wrong"]
COLOURS: dict[State, str] = {"ok": "green", "note": "yellow", "wrong": "bold red"}
INSTALL = "pip install -c constraints.txt -e"
PACKAGE = "tdabench"
BUILT_WITH = ("torch", "diffusers", "numpy")
LITTLE = 2 * 2**30


class Finding(NamedTuple):
    """One line: what was looked at, how it is, what was found, and what to do about it."""

    what: str
    state: State
    found: str
    fix: str = ""


def doctor() -> int:
    """Print a line for each thing and return the exit code: 1 where something is wrong, as opposed to not there."""
    found = []
    for one in chain(packages(requires_of()), devices(), folders(), truths()):
        fix = f": {one.fix}" if one.fix else ""
        text = escape(f"{one.what}: {one.found}{fix}")
        console.print(f"[{COLOURS[one.state]}]{one.state:5}[/] {text}", soft_wrap=True, emoji=False)
        found.append(one.state)
    return int("wrong" in found)


def requires_of() -> list[Requirement] | None:
    """Return what the installed package asks for, or None where it runs without being installed."""
    try:
        return [Requirement(line) for line in requires(PACKAGE) or ()]
    except PackageNotFoundError:
        return None


def packages(wanted: list[Requirement] | None) -> Iterator[Finding]:
    """Yield how Python, this package and what it asks for are; an extra that is not there is no fault."""
    yield Finding("python", "ok", platform.python_version())
    if wanted is None:
        yield Finding(PACKAGE, "note", f"{__version__}, not installed as a package", f"{INSTALL} .")
        return
    yield _own(version(PACKAGE))
    extras: dict[str, list[str]] = {}
    for one in wanted:
        extra = re.search(r"extra == ['\"]([^'\"]+)", str(one.marker))
        extras.setdefault(extra[1] if extra else "", []).extend(filter(None, [unmet(one)]))
    for extra, problems in extras.items():
        name, fix = (f"extra {extra}", f"{INSTALL} '.[{extra}]'") if extra else ("packages", f"{INSTALL} .")
        state: State = "ok" if not problems else "note" if extra else "wrong"
        yield Finding(name, state, "; ".join(problems) or "all there", fix if problems else "")


def _own(installed: str) -> Finding:
    if installed != __version__:
        return Finding(PACKAGE, "note", f"{__version__}, installed as {installed}", f"{INSTALL} .")
    return Finding(PACKAGE, "ok", __version__)


def unmet(wanted: Requirement) -> str | None:
    """Return in what way a requirement is not met, or None."""
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return f"no {wanted.name}"
    return (
        None if wanted.specifier.contains(found, prereleases=True) else f"{wanted.name} {found}, not {wanted.specifier}"
    )


def devices() -> Iterator[Finding]:
    """Yield the processor with its memory, and each GPU that torch can use."""
    import torch

    memory = psutil.virtual_memory()
    free = f"{amount(memory.available)} of {amount(memory.total)} free"
    yield Finding("cpu", "ok", f"{cores()} cores, {free}")
    for i in range(torch.cuda.device_count()):
        left, total = torch.cuda.mem_get_info(i)
        yield Finding(f"cuda:{i}", "ok", f"{torch.cuda.get_device_name(i)}, {amount(left)} of {amount(total)} free")
    if not torch.cuda.is_available():
        fix = "" if torch.version.cuda else "for a GPU, install a build of torch with CUDA"
        yield Finding("cuda", "note", "no GPU that torch can use; tasks of digits need none", fix)


def folders() -> Iterator[Finding]:
    """Yield whether the folders can be written to, how much is free, and how much lies in each cache."""
    where = home()
    yield _writable("TDABENCH_HOME", where, "set TDABENCH_HOME to a folder of yours")
    yield _writable("results", Path.cwd(), "name another folder with --results")
    for folder in sorted(where.iterdir()) if where.is_dir() else ():
        if folder.is_dir():
            yield Finding(f"cache {folder.name}", "ok", f"{amount(_size(folder))} in {folder}")


def _writable(what: str, folder: Path, fix: str) -> Finding:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(what, "wrong", f"cannot write to {folder}: {error.strerror or error}", fix)
    if free < LITTLE:
        return Finding(what, "note", f"{folder}, only {amount(free)} free", "free space, or " + fix)
    return Finding(what, "ok", f"{folder}, {amount(free)} free")


def _size(folder: Path) -> int:
    return sum(os.lstat(Path(at) / name).st_size for at, _, names in os.walk(folder) for name in names)


def truths() -> Iterator[Finding]:
    """Yield each truth that is here, and with which other versions it was built."""
    for spec in filter(has_assets, map(find_task, task_names())):
        try:
            skew = list(_skew(open_assets(spec).manifest["provenance"]))
        except UserError as error:
            yield Finding(f"truth {spec.label}", "wrong", str(error), "build or import it again")
            continue
        said = f"built with {', '.join(skew)}" if skew else "built with the versions that are here"
        advice = "scores hold, and `truth verify` may differ in the last bits" if skew else ""
        yield Finding(f"truth {spec.label}", "note" if skew else "ok", said, advice)


def _skew(built: dict[str, str]) -> Iterable[str]:
    here = {name: version(name).partition("+")[0] for name in BUILT_WITH}
    return (
        f"{name} {built[name]}, here {here[name]}" for name in BUILT_WITH if built.get(name) not in (None, here[name])
    )
