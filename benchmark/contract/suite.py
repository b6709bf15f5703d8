"""Running the contract suite on a method, and showing what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ...errors import UserError, unknown
from ...methods import registry
from ...methods.registry import Listing
from ..processes import one_thread
from .rules import LISTING, RULES, Broken, NotApplicable, Rule, Status
from .subject import Subject


@dataclass(frozen=True)
class Check:
    """The outcome of one check: what was found, or why it failed or was skipped."""

    name: str
    status: Status
    detail: str


def check_method(entry: str | Path, preset: str = "quick", plugins: Iterable[str | Path] = ()) -> list[Check]:
    """Return the outcome of every check for a method's name, or for the file of one that need not be installed.

    Raises UserError for an unknown method, or a file that is missing, does not import, or holds not just one method.
    """
    paths = tuple(Path(path).resolve() for path in plugins)
    try:
        listing, paths = _find(entry, paths)
    except Broken as error:
        return [Check(LISTING, "fail", str(error)), *(_not_run(rule, LISTING) for rule in RULES[1:])]
    cls = registry.method_class(listing.name, paths)
    if preset not in ("paper", "quick"):
        registry.preset_params(cls, preset)
    with one_thread():  # as cells run; more threads would wait for each other on images this small
        return _judged(Subject(cls, listing, preset))


def _judged(subject: Subject) -> list[Check]:
    checks: dict[str, Check] = {}
    for rule in RULES:
        blocker = next((name for name in rule.after if checks[name].status != "pass"), None)
        checks[rule.name] = _not_run(rule, blocker) if blocker else _judge(rule, subject)
    return list(checks.values())


def render(checks: list[Check]) -> Table:
    """Return the checks as a table for the terminal."""
    colours = {"pass": "green", "fail": "bold red", "skip": "yellow"}
    table = Table("check", "result", "what was found", box=None)
    for check in checks:
        table.add_row(escape(check.name), f"[{colours[check.status]}]{check.status}[/]", escape(check.detail))
    return table


def summary(checks: list[Check]) -> str:
    """Return one line: how many checks passed, failed and were skipped, and which failed."""
    counts = Counter(check.status for check in checks)
    failed = ", ".join(check.name for check in checks if check.status == "fail")
    return f"{counts['pass']} passed, {counts['fail']} failed{failed and f' ({failed})'}, {counts['skip']} skipped"


def file_of(entry: str | Path) -> Path:
    """Return the file of a method that is named by one; raises UserError where there is none."""
    file = Path(entry).resolve()
    if not file.is_file():
        raise UserError(f"no file {entry}: name a method or a Python file that registers one")
    return file


def _find(entry: str | Path, plugins: tuple[Path, ...]) -> tuple[Listing, tuple[Path, ...]]:
    known = registry.listings(plugins)
    if not str(entry).endswith(".py"):
        if str(entry) not in known:
            raise unknown("method", str(entry), known)
        return known[str(entry)], plugins
    file = file_of(entry)
    own = [listing for listing in known.values() if _source(listing) == file]
    if not own:
        plugins = (*plugins, file)
        try:
            own = [listing for listing in registry.listings(plugins).values() if _source(listing) == file]
        except UserError as error:
            raise Broken(str(error)) from error
    if len(own) != 1:
        raise UserError(f"{entry} registers {len(own)} methods, not one: pass it as a plugin and name the method")
    return own[0], plugins


def _source(listing: Listing) -> Path:
    if listing.origin.endswith(".py"):
        return Path(listing.origin).resolve()
    return Path(registry.__file__).resolve().parent / f"{listing.origin.rpartition('.')[2]}.py"


def _not_run(rule: Rule, blocker: str) -> Check:
    return Check(rule.name, "skip", f"not run, because {blocker!r} did not pass")


def _judge(rule: Rule, subject: Subject) -> Check:
    try:
        return Check(rule.name, "pass", rule.test(subject))
    except NotApplicable as reason:
        return Check(rule.name, "skip", str(reason))
    except Broken as reason:
        return Check(rule.name, "fail", str(reason))
    except Exception as error:
        return Check(rule.name, "fail", f"{type(error).__name__}: {error}")
