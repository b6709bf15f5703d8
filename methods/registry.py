"""Finding methods: in-tree files, installed entry points and plugin files; listing them imports none of these."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, unknown
from ..models.recipe import compact
from ..seeds import digest

if TYPE_CHECKING:
    from .base import Method

GROUP = "tdabench.methods"


@dataclass(frozen=True)
class Listing:
    """A method as its file's literals describe it; ``origin`` is a module name, or the path of a plugin."""

    name: str
    origin: str
    summary: str = ""
    version: int = 1
    needs: tuple[str, ...] = ()
    query_kinds: tuple[str, ...] = ("heldout", "generated", "external")
    unit: str = "item"
    members: tuple[str, ...] = ()
    query_specific: bool = True
    sign: str = "theory"
    slice_size: int = 20
    citation: str = ""
    encoders: tuple[str, ...] = ()
    presets: tuple[str, ...] = ("paper", "quick")
    ablations: tuple[str, ...] = ()

    def offers(self, preset: str) -> bool:
        """Say whether a preset is known: a declared one, or one with a declared ablation, as ``quick+name``."""
        base, plus, ablation = preset.partition("+")
        return base in self.presets and (not plus or ablation in self.ablations)


@dataclass(frozen=True)
class Entry:
    """A method with the name of one of its presets: what ``--methods`` selects and a row reports."""

    method: str
    preset: str

    def __str__(self) -> str:
        return f"{self.method}:{self.preset}"


def listings(plugins: tuple[Path, ...] = ()) -> dict[str, Listing]:
    """Return all methods by name, in-tree first; raises UserError where two share a name or a plugin is unreadable."""
    found: dict[str, Listing] = {}
    folder = Path(__file__).parent
    package = __package__ or ""
    sources = [(path, f"{package}.{path.stem}") for path in sorted(folder.glob("*.py"))]
    sources += [(_entry_point_file(point), point.module) for point in entry_points(group=GROUP)]
    sources += [(path, str(path)) for path in plugins]
    for path, origin in sources:
        for listing in _read(path, origin):
            if listing.name in found:
                raise UserError(f"two methods are called {listing.name!r}: {found[listing.name].origin} and {origin}")
            found[listing.name] = listing
    return found


def checked_listings(plugins: tuple[Path, ...] = ()) -> dict[str, Listing]:
    """Return ``listings``; raises UserError too for a plugin that brings no method."""
    known = listings(plugins)
    for path in plugins:
        if all(listing.origin != str(path) for listing in known.values()):
            raise UserError(f'{path} registers no method: decorate its class with @register("name")')
    return known


def method_class(name: str, plugins: tuple[Path, ...] = ()) -> type[Method]:
    """Import and return a method's class; raises UserError for an unknown name or a file that does not import."""
    known = listings(plugins)
    if name not in known:
        raise unknown("method", name, known)
    origin = known[name].origin
    from .base import CLASSES

    if name not in CLASSES:
        _import(origin)
    if name not in CLASSES:
        raise UserError(f"{origin} was imported but registers no method called {name!r}")
    return CLASSES[name]


def preset_params(cls: type[Method], preset: str) -> Any:
    """Return a preset's parameters: one by name, ``name+ablation``, or JSON of what differs from ``quick``."""
    if preset in cls.presets:
        return cls.presets[preset]
    base, _, ablation = preset.partition("+")
    if base in cls.presets and ablation in cls.ablations:
        return params_from_json(cls, {**asdict(cls.presets[base]), **cls.ablations[ablation]})
    if not preset.startswith("{"):
        raise unknown(f"preset of method {cls.name!r}:", preset, cls.presets)
    try:
        given = json.loads(preset)
    except ValueError as error:
        raise UserError(f"preset {preset!r} of method {cls.name!r} is not valid JSON ({error})") from None
    return params_from_json(cls, {**asdict(cls.presets.get("quick", cls.Params())), **given})


def params_from_json(cls: type[Method], values: Mapping[str, Any]) -> Any:
    """Rebuild parameters from JSON values; raises UserError for a field the method does not have."""
    names = {field.name for field in fields(cls.Params)}
    for name in values:
        if name not in names:
            raise unknown(f"parameter of method {cls.name!r}:", name, names)
    return cls.Params(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def params_json(params: Any) -> dict[str, Any]:
    """Return a method's parameters as rows keep them, JSON values, without defaults of fields marked LATER."""
    return json.loads(json.dumps(compact(params)))


def params_hash(params: Any) -> str:
    """Return the 8-digit hash of a method's parameters."""
    return digest(params_json(params), 8)


def _import(origin: str) -> None:
    try:
        if origin.endswith(".py"):
            spec = importlib.util.spec_from_file_location(f"tdabench_plugin_{digest(origin, 8)}", origin)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
        else:
            importlib.import_module(origin)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{origin} does not import: {type(error).__name__}: {error}; mend the file and try again"
        ) from error


def _entry_point_file(point: EntryPoint) -> Path:
    spec = importlib.util.find_spec(point.module)
    if spec is None or spec.origin is None:
        raise UserError(
            f"entry point {point.name!r} names {point.module}, which cannot be found: reinstall its package"
        )
    return Path(spec.origin)


def _read(path: Path, origin: str) -> list[Listing]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not valid Python: {error}; mend the file and try again") from error
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return [_listing(node, name, origin) for node in classes if (name := _registered(node, origin)) is not None]


def _registered(node: ast.ClassDef, origin: str) -> str | None:
    for call in node.decorator_list:
        if isinstance(call, ast.Call) and getattr(call.func, "id", getattr(call.func, "attr", "")) == "register":
            name = call.args[0] if call.args else None
            if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
                raise UserError(f"{origin}: the name in @register of {node.name} must be a literal string")
            return name.value
    return None


def _listing(node: ast.ClassDef, name: str, origin: str) -> Listing:
    summary = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
    literals: dict[str, Any] = {}
    for key, value in _assigned(node):
        if key in ("presets", "ablations") and isinstance(value, ast.Dict):
            literals[key] = tuple(ast.literal_eval(item) for item in value.keys if item is not None)
        elif key in Listing.__dataclass_fields__:
            literals[key] = _literal(value, key, name, origin)
    return Listing(name=name, origin=origin, summary=summary, **literals)


def _assigned(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Yield what a class's body assigns, annotated or not."""
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            yield from ((target.id, statement.value) for target in targets if isinstance(target, ast.Name))


def _literal(value: ast.expr, key: str, name: str, origin: str) -> Any:
    try:
        return ast.literal_eval(value)
    except ValueError:
        raise UserError(
            f"{origin}: {key} of method {name!r} must be a literal, because listings do not import the file"
        ) from None
