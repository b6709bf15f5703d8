"""The code that scores depend on: the files that a method's class imports, and the versions of other packages."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec, resolve_name
from pathlib import Path

from ...methods.base import Method
from ...store import sha256

PACKAGE = __name__.partition(".")[0]
# Of this package: what a method computes with. What stores, tables and commands do to scores is not among it.
COMPUTING = tuple(f"{PACKAGE}.{part}" for part in ("seeds", "datasets", "models", "methods"))
WORKER = f"{__package__}.worker"  # hands the method its view and takes its scores


def code_hash(cls: type[Method]) -> str:
    """Return the hash of a method's code: stored scores are stale when it changes.

    It covers the files of the class and of its bases, those that they import from this package's computing parts or
    from their own package, and the versions of all other packages that these files import. Comments count, because
    telling them apart is not worth a wrong reuse.
    """
    roots = {base.__module__ for base in cls.__mro__ if issubclass(base, Method)}
    sources, packages = _closure(roots)
    return sha256(b"".join(sources[name] for name in sorted(sources)) + repr(packages).encode())[:16]


def _closure(roots: set[str]) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """Return the sources that modules lead to, by module name, and (package, version) of all others they import."""
    own = {root.partition(".")[0] for root in roots} - {PACKAGE}
    sources, others, waiting = {WORKER: _source(WORKER) or b""}, set(), list(roots)
    while waiting:
        module = waiting.pop()
        if module in sources or (source := _source(module)) is None:
            continue
        sources[module] = source
        for name in _imported(_package(module), source):
            top = name.partition(".")[0]
            if top in own or name.startswith(COMPUTING):
                waiting.append(name)
            elif top != PACKAGE and top not in sys.stdlib_module_names:
                others.add(top)
    return sources, _versions(others)


def _source(module: str) -> bytes | None:
    """Return a module's source, or None for what is no module of source: a class, say, or a folder."""
    loaded = sys.modules.get(module)
    try:
        spec = loaded.__spec__ if loaded else find_spec(module)
    except (ImportError, ValueError):
        return None
    path = Path(spec.origin) if spec and spec.origin else None
    return path.read_bytes() if path is not None and path.suffix == ".py" and path.is_file() else None


def _package(module: str) -> str:
    return module if hasattr(sys.modules.get(module), "__path__") else module.rpartition(".")[0]


@lru_cache(maxsize=256)
def _imported(package: str, source: bytes) -> frozenset[str]:
    """Return the full names that a source imports, wherever in it; of ``from a import b`` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def _versions(modules: set[str]) -> list[tuple[str, str]]:
    """Return the distributions that top-level modules are from, with their versions without the build."""
    found = {name for module in modules for name in _distributions().get(module, [])}
    return [(name, version(name).partition("+")[0]) for name in sorted(found)]


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()
