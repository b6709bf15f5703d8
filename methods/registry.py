"""Finding methods: in-tree files, installed entry points and plugin files; listing them imports none of these."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import plugins as outside
from ..errors import UserError, brief, shown, unknown
from ..models.recipe import compact
from ..seeds import digest

if TYPE_CHECKING:
    from .base import Method

GROUP = "tdabench.methods"
READ_ELSEWHERE = ("name", "origin", "summary", "description")  # of a listing: from the decorator, file and docstring


@dataclass(frozen=True)
class Listing:
    """A method as its file's literals describe it; ``origin`` is a module name, or the path of a plugin.

    summary: the first paragraph of its docstring; description: the others.
    """

    name: str
    origin: str
    summary: str = ""
    description: str = ""
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
    package = __package__ or ""
    own = [outside.Source(path, f"{package}.{path.stem}") for path in sorted(Path(__file__).parent.glob("*.py"))]
    return outside.collected("method", own, GROUP, plugins, _read)


def method_class(name: str, plugins: tuple[Path, ...] = ()) -> type[Method]:
    """Import and return a method's class; raises UserError for an unknown name or a file that does not import."""
    known = listings(plugins)
    if name not in known:
        raise unknown("method", name, known)
    origin = known[name].origin
    from .base import CLASSES

    if name not in CLASSES:
        outside.imported(origin)
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
        digest(given)  # raises ValueError where a number is not finite
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"preset {shown(preset)} of method {cls.name!r} is not valid JSON ({brief(str(error))})"
        ) from None
    start = cls.presets["quick"] if "quick" in cls.presets else cls.Params()
    return params_from_json(cls, {**asdict(start), **given})


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


def _read(source: outside.Source) -> list[Listing]:
    classes = [node for node in outside.parsed(source).body if isinstance(node, ast.ClassDef)]
    named = [(node, _registered(node, source.origin)) for node in classes]
    return [_listing(node, name, source.origin) for node, name in named if name is not None]


def _registered(node: ast.ClassDef, origin: str) -> str | None:
    names = (outside.literal_name(call, "register", node.name, origin) for call in node.decorator_list)
    name = next((name for name in names if name is not None), None)
    if name is not None and not outside.NAME.fullmatch(name):
        raise UserError(f"{origin}: {shown(name)} is no name of a method: use letters, digits, - and _")
    return name


def _listing(node: ast.ClassDef, name: str, origin: str) -> Listing:
    summary, _, description = (ast.get_docstring(node) or "").partition("\n\n")
    literals: dict[str, Any] = {}
    for key, value in outside.assigned(node.body):
        if key in ("presets", "ablations") and isinstance(value, ast.Dict):
            literals[key] = tuple(_literal(item, key, name, origin) for item in value.keys if item is not None)
        elif key in Listing.__dataclass_fields__ and key not in READ_ELSEWHERE:
            literals[key] = _literal(value, key, name, origin)
    typed = {key: _typed(value, key, name, origin) for key, value in literals.items()}
    return Listing(name, origin, summary.replace("\n", " "), description, **typed)


def _literal(value: ast.expr, key: str, name: str, origin: str) -> Any:
    try:
        return outside.literal(value)
    except ValueError:
        raise UserError(
            f"{origin}: {key} of method {name!r} must be a literal, because listings do not import the file"
        ) from None


def _typed(value: Any, key: str, name: str, origin: str) -> Any:
    """Return an attribute in the type that listings have it in; raises UserError for one of another."""
    found, default = tuple(value) if isinstance(value, list) else value, Listing.__dataclass_fields__[key].default
    texts = not isinstance(found, tuple) or all(isinstance(item, str) for item in found)
    if type(found) is not type(default) or not texts:
        kind = "a tuple of strings" if isinstance(default, tuple) else f"of type {type(default).__name__}"
        raise UserError(f"{origin}: {key} of method {name!r} must be {kind}, and is {shown(value)}")
    odd = [item for item in found if not outside.NAME.fullmatch(item)] if key in ("presets", "ablations") else []
    if odd:
        raise UserError(
            f"{origin}: {shown(odd[0])} in {key} of method {name!r} is no name: use letters, digits, - and _"
        )
    return found
