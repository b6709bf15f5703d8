"""The contract suite in a process that is shut in: native code too opens, links and writes nothing that is closed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from ...errors import UserError, printable
from ...leaderboard.rows.strict import first_problem
from ..run.described import Answers, Host
from .suite import Check, check_method, file_of

CONTRACT_S = 1800.0  # which the suite may take
_CHECKS = TypeAdapter(Annotated[list[Check], Field(min_length=1)])


class Suite(Answers):
    """Answers with what the contract suite finds."""

    def contract(self, entry: str, preset: str) -> list[dict[str, str]]:
        """Return the outcome of every check for a method's name, or for the file of one."""
        return [asdict(check) for check in check_method(entry, preset, self.plugins)]


def check_shut_in(entry: str | Path, preset: str = "quick", plugins: tuple[Path, ...] = ()) -> list[Check]:
    """Return what ``check_method`` does, of a process that is shut in where the system can do it; it raises the same.

    Raises UserError too where the method ends that process, or does not answer.
    """
    file = file_of(entry) if str(entry).endswith(".py") else None
    paths = (*(path.resolve() for path in plugins), *([file] if file else ()))
    found = Host(paths, True, Suite).ask("contract", str(file or entry), preset, within=CONTRACT_S)
    try:
        checks = _CHECKS.validate_python(found)
    except ValidationError as error:
        raise UserError(f"{entry} spoils the suite's answer ({first_problem(error, 'the answer')})") from None
    return [Check(printable(one.name), one.status, printable(one.detail)) for one in checks]
