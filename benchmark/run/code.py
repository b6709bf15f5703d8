"""The code that scores depend on: the files that a method's class imports, and the versions of other packages."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import resolve_name
from pathlib import Path

from ... import methods
from ...methods.base import Method
from ...plugins import actual_name, find_module, imported_names
from ...store import sha256

PACKAGE = __name__.partition(".")[0]
# Of this package: what a method computes with. What stores, tables and commands do to scores is not among it.
COMPUTING = tuple(f"{PACKAGE}.{part}" for part in ("seeds", "datasets", "models", "methods"))
ENGINES = (f"{PACKAGE}.methods.engines.features",)
WORKER = f"{__package__}.worker"  # hands the method its view and takes its scores


def code_hash(cls: type[Method]) -> str:
    """Return the hash of a method's code: stored scores are stale when it changes.

    It covers the files of the class and of its bases, those that they import from this package's computing parts, from
    their own package, from beside a plugin's file or from no distribution at all, and the versions of all other
    packages that these files import. Comments count, because telling them apart is not worth a wrong reuse.
    """
    return _hash({base.__module__ for base in cls.__mro__ if issubclass(base, Method)})


def engine_hashes() -> dict[str, str]:
    """Return the hashes of the engines whose rows methods share, by module, over what each of them imports."""
    return {engine: _hash({engine}) for engine in ENGINES}


def _hash(roots: set[str]) -> str:
    sources, packages = _closure(roots)
    return sha256(b"".join(sources[name] for name in sorted(sources)) + repr(packages).encode())[:16]


def _closure(roots: set[str]) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """Return the sources that modules lead to, by module name, and (package, version) of all others they import."""
    own = {root.partition(".")[0] for root in roots} - {PACKAGE}
    sources, others, waiting = {WORKER: (_source(WORKER) or (b"", ""))[0]}, set(), list(roots)
    while waiting:
        module = waiting.pop()
        if module in sources or (found := _source(module)) is None:
            continue
        sources[module], package = found
        for name in (_home(actual_name(module, name)) for name in imported_names(package, sources[module])):
            top = name.partition(".")[0]
            if top in own:
                waiting += _with_parents(name)
            elif name.startswith(COMPUTING) or (top != PACKAGE and _of_nobody(top)):
                waiting.append(name)
            elif top != PACKAGE:
                others.add(top)
    return sources, _versions(others)


def _home(name: str) -> str:
    """Return where a name lies that authors import from ``tdabench.methods``: not everything there is what they use."""
    folder, _, public = name.rpartition(".")
    if folder == methods.__name__ and public in methods.HOME:
        return resolve_name(methods.HOME[public], folder)
    return f"{name}.base" if name == methods.__name__ else name


def _with_parents(name: str) -> list[str]:
    """Return a module's name and those of the packages that it is in, whose ``__init__`` is run before it."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _of_nobody(top: str) -> bool:
    return top not in sys.stdlib_module_names and top not in _distributions()


def _source(module: str) -> tuple[bytes, str] | None:
    """Return a module's source and the package it is in, or None for what is no module of source: a class, say."""
    spec = sys.modules[module].__spec__ if module in sys.modules else find_module(module)
    path = Path(spec.origin) if spec and spec.origin else None
    if spec is None or path is None or path.suffix != ".py" or not path.is_file():
        return None
    return path.read_bytes(), module if spec.submodule_search_locations is not None else module.rpartition(".")[0]


def _versions(modules: set[str]) -> list[tuple[str, str]]:
    """Return the distributions that top-level modules are from, with their versions without the build."""
    found = {name for module in modules for name in _distributions().get(module, [])}
    return [(name, _version(name)) for name in sorted(found)]


@cache
def _version(name: str) -> str:
    return version(name).partition("+")[0]


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()
