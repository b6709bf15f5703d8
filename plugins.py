"""What lies outside the package: plugin files and installed modules, read before they are imported.

A plugin's module lives in a package of its own, made of the plugin's folder: so an ``import helper`` finds the
``helper.py`` beside it, and neither another plugin's nor anything for others on ``sys.path``.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, resolve_name, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

from .errors import Stop, UserError
from .seeds import digest
from .store import read_file, sha256

PREFIX = "tdabench_plugin_"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of a task or dataset
PACKAGE = __name__.partition(".")[0]


class Listed(Protocol):
    """What a file lists: its name, and where it is from, a module's name or the path of a plugin."""

    @property
    def name(self) -> str:
        """Under which it is asked for."""
        ...

    @property
    def origin(self) -> str:
        """Where it is from."""
        ...


L = TypeVar("L", bound=Listed)


class Source(NamedTuple):
    """A file that may bring something; ``origin`` is a module's name, or the path of a plugin as it was given."""

    path: Path
    origin: str


def sources(group: str, plugins: tuple[Path, ...]) -> list[Source]:
    """Return what may bring tasks, datasets or methods: modules of an entry-point group, then plugin files."""
    for path in plugins:
        if path.suffix != ".py":
            raise UserError(f"{path} is no plugin: a plugin is a Python file, whose name ends with .py")
    points = [Source(_entry_point_file(point), point.module) for point in entry_points(group=group)]
    return [*points, *(Source(path, str(path)) for path in plugins)]


def collected(
    kind: str, own: Iterable[Source], group: str, plugins: tuple[Path, ...], read: Callable[[Source], Iterable[L]]
) -> dict[str, L]:
    """Return what files list, by name: the package's ``own``, those of an entry-point group, and plugins.

    ``read`` returns what a file lists, importing nothing. Raises UserError where two share a name.
    """
    found: dict[str, L] = {}
    for source in [*own, *sources(group, plugins)]:
        for listing in read(source):
            if listing.name in found:
                origins = f"{found[listing.name].origin} and {listing.origin}"
                raise UserError(f"two {kind}s are called {listing.name!r}: {origins}; rename one")
            found[listing.name] = listing
    return found


def parsed(source: Source) -> ast.Module:
    """Return a file's syntax tree; raises UserError where it cannot be read or is no Python."""
    path, origin = source
    try:
        return ast.parse(read_file(path).decode())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{origin} is not valid Python: {error}; mend the file and try again") from error


def literal_name(call: ast.expr, function: str, of: str, origin: str) -> str | None:
    """Return the name in a decorator ``@function("name")``, None for another one.

    Raises UserError for a name that is not literal.
    """
    if not isinstance(call, ast.Call) or getattr(call.func, "id", getattr(call.func, "attr", "")) != function:
        return None
    name = call.args[0] if call.args else None
    if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
        raise UserError(f"{origin}: the name in @{function} of {of} must be a literal string")
    return name.value


def literal(value: ast.expr) -> Any:
    """Return the value of a literal; raises ValueError for an expression that only an import could tell."""
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ValueError("it is no literal") from None


def assigned(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Yield what the statements of a module or class assign to names, annotated or not."""
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            yield from ((target.id, statement.value) for target in targets if isinstance(target, ast.Name))


def imported(origin: str) -> ModuleType:
    """Import what an origin names, once per process; raises UserError where that fails."""
    try:
        with _without_exit():
            return _file_module(Path(origin).resolve()) if is_file(origin) else importlib.import_module(origin)
    except Stop:
        raise
    except BaseException as error:  # a module may raise anything
        raise UserError(
            f"{origin} does not import: {type(error).__name__}: {error}; mend the file and try again"
        ) from error


@contextmanager
def _without_exit() -> Iterator[None]:
    """Let ``os._exit`` raise SystemExit while a module is imported, or a command would end without a word."""

    def refuse(code: int = 0) -> NoReturn:
        raise SystemExit(code)

    before, os._exit = os._exit, refuse
    try:
        yield
    finally:
        os._exit = before


def is_file(origin: str) -> bool:
    """Say whether an origin is a plugin file, and no module's name."""
    return origin.endswith(".py")


def code_hash(origin: str) -> str:
    """Return the hash of a plugin's source and of all beside it that it imports, directly or not."""
    return sha256(repr(sorted(code_files(origin).items())).encode())[:16]


def code_files(origin: str) -> dict[str, bytes]:
    """Return a plugin's source and all beside it that it imports, by path below its folder; nothing is imported.

    Raises UserError for a file that is no Python.
    """
    if is_file(origin):
        path = Path(origin).resolve()
        return _files_of(path, path.parent, "")
    spec, top = find_module(origin), origin.partition(".")[0]
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin)
    depth = origin.count(".") + (path.stem == "__init__")
    return _files_of(path, path.parents[depth], top)


def actual_name(importer: str, name: str) -> str:
    """Return the full name of the module that ``importer`` gets by ``import name``: of a sibling, its private one."""
    package = importer.partition(".")[0]
    inside = package.startswith(PREFIX) and package in sys.modules and _is_sibling(_folder(package), name)
    return f"{package}.{name}" if inside else name


@lru_cache(maxsize=256)
def imported_names(package: str, source: bytes) -> frozenset[str]:
    """Return the full names that a source imports, wherever in it; of ``from a import b`` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def find_module(name: str) -> ModuleSpec | None:
    """Return where a module lies, or None; unlike importlib's ``find_spec`` it imports none of the packages above."""
    top, *below = name.split(".")
    try:
        spec = find_spec(top)
    except ValueError:  # a module that says of itself that it lies nowhere
        return None
    at = top
    for part in below:
        folders = [] if spec is None else _folders_of(spec)
        at = f"{at}.{part}"
        spec = PathFinder.find_spec(at, folders) if folders else None
    return spec


def _folders_of(spec: ModuleSpec) -> list[str]:
    try:
        return list(spec.submodule_search_locations or ())
    except KeyError:  # a namespace below one that is not imported: only the import system knows its folders
        return []


def module_file(module: str) -> Path:
    """Return the file of a module, which is not imported; raises UserError where there is none."""
    spec = find_module(module)
    if spec is None or spec.origin is None:
        raise UserError(f"{module} cannot be found: reinstall its package")
    return Path(spec.origin)


def _entry_point_file(point: EntryPoint) -> Path:
    try:
        return module_file(point.module)
    except UserError as error:
        raise UserError(f"entry point {point.name!r}: {error}") from error


class _Loader(SourceFileLoader):
    """Loads a plugin's modules, whose import statements look beside the plugin first."""

    def get_code(self, fullname: str) -> Any:
        """Compile the source as it is: cached bytecode may be of one that had the same size a second ago."""
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        package = module.__name__.partition(".")[0]
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _importer(package)}
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds the modules of plugins' packages, and no others."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name.startswith(PREFIX) else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, str(spec.origin))
        return spec


_FINDER = _Finder()


def _file_module(path: Path) -> ModuleType:
    stem = path.stem if path.stem.isidentifier() else f"{path.stem.replace('.', '_')}_{digest(path.name, 8)}"
    name = f"{_package(path.parent)}.{stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _package(folder: Path) -> str:
    name = f"{PREFIX}{digest(str(folder), 8)}"
    importlib.invalidate_caches()  # a sibling may have been written since the folder was last looked at
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    if name not in sys.modules:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[name] = module_from_spec(spec)
    return name


def _importer(package: str) -> Callable[..., ModuleType]:
    def find(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> ModuleType:
        if level or not _is_sibling(_folder(package), name):
            return builtins.__import__(name, globals, locals, fromlist, level)
        found = builtins.__import__(f"{package}.{name}", globals, locals, fromlist)
        return found if fromlist else sys.modules[f"{package}.{name.partition('.')[0]}"]

    return find


def _folder(package: str) -> Path:
    return Path(sys.modules[package].__path__[0])


def _is_sibling(folder: Path, name: str) -> bool:
    """Say whether a name is a module or package in a folder; Python's own and this package's cannot be replaced."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top == PACKAGE:
        return False
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()


def _files_of(path: Path, root: Path, only: str) -> dict[str, bytes]:
    """Return a file and what it imports below ``root``; only: the one top-level package that counts, if any."""
    found, waiting = {}, [path]
    while waiting:
        path = waiting.pop()
        where = path.relative_to(root)
        if where.as_posix() not in found:
            source = found[where.as_posix()] = path.read_bytes()
            try:
                waiting += _beside(root, ".".join(["", *where.parts[:-1]]), source, only)
            except (SyntaxError, ValueError, ImportError, RecursionError, MemoryError) as error:
                raise UserError(f"{path} is not valid Python: {error}; mend the file and try again") from error
    return found


def _beside(root: Path, package: str, source: bytes, only: str) -> Iterator[Path]:
    inside = f"{PREFIX}here{package}"
    for name in imported_names(inside, source):
        private = name.removeprefix(f"{PREFIX}here").removeprefix(".")
        top = private.partition(".")[0]
        if top and (name != private or _is_sibling(root, private)) and only in ("", top):
            parts = private.split(".")
            ends = (root.joinpath(*parts[: i + 1]) for i in range(len(parts)))
            files = (file for end in ends for file in (end.with_suffix(".py"), end / "__init__.py"))
            yield from (file for file in files if file.is_file())
