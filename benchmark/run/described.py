"""Methods from outside the package as the runner knows them: described by a process that imports them for it.

The runner writes rows and computes metrics, so no code of a submitted method may run in its process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from ...errors import UserError, brief, shown
from ...leaderboard.rows.strict import Hash, Number, Strict, Text, first_problem, parse_json
from ...methods.base import Estimate, Method, Sign, Sizes, Unit
from ...methods.registry import method_class, params_from_json, params_json
from ...models.recipe import LATER
from ...plugins import code_hash as plugin_hash
from ...plugins import is_file
from ...store import HOME, home, sha256
from ..sandbox.enclosure import closed_to_methods, code_beside, enclose, kept_from_methods, use_temporary
from ..sandbox.fork_server import forkserver, start_guard, temporary_of_process
from ..sandbox.frames import receive, send
from ..sandbox.lifetime import kill_cell
from .code import code_hash

ANSWER_S = 120.0  # which importing a method, with all that it imports, may take
T = TypeVar("T")
COPIED = ("version", "needs", "query_kinds", "unit", "slice_size", "members", "query_specific", "sign", "encoders")


class _Parameter(Strict):
    """A field of a method's parameters: as JSON, with its default if it has one."""

    name: str
    later: bool
    default: Any = None


class _Said(Strict):
    """What a description has to say, in the types that a class has its attributes in."""

    version: int
    needs: list[str]
    query_kinds: list[str]
    unit: Unit
    slice_size: Number
    members: list[str]
    query_specific: bool
    sign: Sign
    encoders: list[str]
    code: Hash
    parameters: list[_Parameter]
    presets: dict[str, dict[str, Any]]
    search: dict[str, list[Any]]
    ablations: dict[str, dict[str, Any]]
    notes: dict[str, Text]


_NAMES = TypeAdapter(list[str])
_COUNTS = TypeAdapter(dict[str, float] | None, config=_Said.model_config)


class Described(Method):
    """What a method of another process says of itself; it cannot be run."""

    origin: ClassVar[str]
    code: ClassVar[str]
    host: ClassVar[Host]

    @classmethod
    def reads(cls, params: Any) -> tuple[str, ...]:
        """Ask the method itself."""
        return tuple(cls._told(_NAMES, "reads", params_json(params)))

    @classmethod
    def encoders_of(cls, params: Any) -> tuple[str, ...]:
        """Ask the method itself."""
        return tuple(cls._told(_NAMES, "encoders_of", params_json(params)))

    def estimate(self, sizes: Sizes) -> Estimate | None:
        """Ask the method itself."""
        found = self._told(_COUNTS, "estimate", params_json(self.params), asdict(sizes))
        try:
            return None if found is None else Estimate(**{name: int(value) for name, value in found.items()})
        except TypeError as error:
            raise UserError(f"estimate of method {self.name!r} makes no sense ({brief(str(error))})") from None

    @classmethod
    def _told(cls, kind: TypeAdapter[T], question: str, *words: Any) -> T:
        """Return an answer of a kind; raises UserError for one of another."""
        try:
            return kind.validate_python(cls.host.ask(question, cls.name, *words))
        except ValidationError as error:
            problem = first_problem(error, "the answer")
            raise UserError(f"{question} of method {cls.name!r} makes no sense ({problem})") from None

    def attribute(self, view: Any, state: Any, queries: Any) -> Any:
        """Raise TypeError: only the process of a cell runs a method."""
        raise TypeError(f"{self.name} is only described here")


def planning_class(name: str, origin: str, plugins: tuple[Path, ...], isolated: bool = True) -> type[Method]:
    """Return what planning takes of a method: its class, or of one from outside the package its description.

    Raises UserError where its file does not import, or does not answer.
    """
    if origin.startswith(f"{Method.__module__.rpartition('.')[0]}."):
        return method_class(name, plugins)
    host = _host(plugins, isolated)
    try:
        if name not in host.classes:
            said = _Said.model_validate(host.ask("describe", name))
            host.classes[name] = _described(name, origin, host, said)
        return host.classes[name]
    except ValidationError as error:
        raise UserError(
            f"{origin} describes {name!r} in a way that makes no sense ({first_problem(error, 'the answer')})"
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{origin} describes {name!r} in a way that makes no sense ({brief(str(error))})") from None


def code_of(cls: type[Method]) -> str:
    """Return the hash of a method's code: of one that is only described, of its files too, which it has no say in."""
    if not issubclass(cls, Described):
        return code_hash(cls)
    return sha256(f"{plugin_hash(cls.origin)} {cls.code}".encode())[:16]


def adapter_of(cls: type[Method]) -> str | None:
    """Return the hash of the plugin file that a method is in and of what this imports from beside it.

    None for a method of a package. Unlike ``code_of`` it is the same under other versions of packages.
    """
    return plugin_hash(cls.origin) if issubclass(cls, Described) and is_file(cls.origin) else None


class Host:
    """The process that imports plugins and answers for their methods, as ``answers``; it ends with this one."""

    def __init__(self, plugins: tuple[Path, ...], isolated: bool, answers: type[Answers] | None = None) -> None:
        self.classes: dict[str, type[Method]] = {}  # what it described so far; an edited file has another host
        self._connection, theirs = multiprocessing.Pipe()
        self._named = ", ".join(map(str, plugins)) or "an installed method"
        temporary = tempfile.mkdtemp(prefix="host-", dir=temporary_of_process())
        closed = closed_to_methods() if isolated else ()
        words = tuple(map(str, plugins)), theirs, str(home()), temporary, closed, answers or Answers
        self._process = forkserver().Process(target=serve, args=words, daemon=True)
        start_guard()
        self._process.start()
        theirs.close()

    def ask(self, *words: Any, within: float = ANSWER_S) -> Any:
        """Return the answer to a question of ``Answers``; raises UserError where it is an error, or none comes."""
        found = self._answer(json.dumps(words).encode(), within)
        if not isinstance(found, dict) or not ({"answer", "error"} & set(found)):
            raise UserError(f"{self._named} answers in a way that makes no sense")
        if "error" in found:
            said = found["error"]
            raise UserError(brief(said) if isinstance(said, str) and said.strip() else f"{self._named}: {shown(said)}")
        return found["answer"]

    def _answer(self, question: bytes, within: float) -> Any:
        try:
            send(self._connection, question, within)
            return parse_json(receive(self._connection, within))
        except TimeoutError:
            wrong = f"does not answer within {within:g} s"
        except (EOFError, OSError):
            wrong = "ended the process that imports it"
        except (ValueError, RecursionError) as error:
            wrong = f"answers in a way that makes no sense ({brief(str(error))})"
        kill_cell(self._process, None)
        raise UserError(f"{self._named} {wrong}: see what it does when imported")


_HOSTS: dict[Any, Host] = {}


def _host(plugins: tuple[Path, ...], isolated: bool) -> Host:
    """Return the process for plugins as they are now; one that was closed to less is none for what came later."""
    asked = plugins, tuple(plugin_hash(str(path)) for path in plugins), isolated and kept_from_methods()
    if asked not in _HOSTS:
        _HOSTS[asked] = Host(plugins, isolated)
    return _HOSTS[asked]


@dataclass
class Answers:
    """What a host answers, in the process that imports the plugins."""

    plugins: tuple[Path, ...]

    def describe(self, name: str) -> dict[str, Any]:
        """Return what a class says by its attributes, as JSON values."""
        cls = method_class(name, self.plugins)
        return {
            **{attribute: getattr(cls, attribute) for attribute in COPIED},
            "code": code_hash(cls),
            "parameters": [_parameter(one) for one in fields(cls.Params)],
            "presets": {preset: params_json(params) for preset, params in cls.presets.items()},
            "search": {parameter: list(values) for parameter, values in cls.search.items()},
            "ablations": {ablation: dict(changes) for ablation, changes in cls.ablations.items()},
            "notes": dict(cls.notes),
        }

    def reads(self, name: str, params: dict[str, Any]) -> list[str]:
        """Return the entries that are read."""
        return list(self._class(name).reads(self._params(name, params)))

    def encoders_of(self, name: str, params: dict[str, Any]) -> list[str]:
        """Return the encoders that images are compared by."""
        return list(self._class(name).encoders_of(self._params(name, params)))

    def estimate(self, name: str, params: dict[str, Any], sizes: dict[str, Any]) -> dict[str, int] | None:
        """Return what a cell will cost."""
        asked = Sizes(**{**sizes, "shape": tuple(sizes["shape"])})
        found = self._class(name)(self._params(name, params)).estimate(asked)
        return None if found is None else asdict(found)

    def _class(self, name: str) -> type[Method]:
        return method_class(name, self.plugins)

    def _params(self, name: str, values: dict[str, Any]) -> Any:
        return params_from_json(self._class(name), values)


def serve(
    plugins: tuple[str, ...], connection: Any, stored: str, temporary: str, closed: tuple[str, ...], kind: type[Answers]
) -> None:
    """Be a host: shut in where something is closed, silent, answering until the connection closes."""
    os.setsid()
    os.environ[HOME] = stored
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    use_temporary(temporary)
    refusal = _shut_in(closed, temporary, plugins) if closed else None
    answers = kind(tuple(map(Path, plugins)))
    try:
        while True:
            question, *words = json.loads(connection.recv_bytes())
            connection.send_bytes(json.dumps(refusal or _answer(answers, question, words)).encode())
    except EOFError:
        os._exit(0)


def _shut_in(closed: tuple[str, ...], temporary: str, plugins: tuple[str, ...]) -> dict[str, Any] | None:
    """Shut this process in, and return what it answers to all questions where that fails."""
    try:
        enclose(closed, [Path(temporary)], code_beside(plugins))
    except RuntimeError as error:
        return {"error": str(error)}
    return None


def _answer(answers: Answers, question: str, words: list[Any]) -> dict[str, Any]:
    try:
        return {"answer": json.loads(json.dumps(getattr(answers, question)(*words)))}
    except UserError as error:
        return {"error": str(error)}
    except (Exception, SystemExit) as error:
        return {"error": f"{question} of method {words[0]!r} failed: {type(error).__name__}: {error}"}


def _parameter(one: Field[Any]) -> dict[str, Any]:
    given = {"default": one.default} if one.default is not MISSING else {}
    made = {"default": one.default_factory()} if one.default_factory is not MISSING else {}
    return {"name": one.name, "later": bool(one.metadata.get("later")), **given, **made}


def _described(name: str, origin: str, host: Host, said: _Said) -> type[Method]:
    params = make_dataclass("Params", [_field(one) for one in said.parameters], frozen=True)
    told = {attribute: _tuples(getattr(said, attribute)) for attribute in COPIED}
    own = {
        "__module__": __name__,
        "origin": origin,
        "code": said.code,
        "host": host,
        "name": name,
        "Params": params,
    }
    search = {parameter: tuple(map(_tuples, values)) for parameter, values in said.search.items()}
    more = {"search": search, "ablations": said.ablations, "notes": said.notes}
    cls = cast("type[Method]", type("Described", (Described,), {**told, **own, **more}))
    cls.presets = {preset: params_from_json(cls, values) for preset, values in said.presets.items()}
    return cls


def _field(one: _Parameter) -> tuple[str, Any, Any]:
    given = {"default": _tuples(one.default)} if "default" in one.model_fields_set else {}
    return one.name, Any, field(metadata=LATER if one.later else {}, **given)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
