"""The command check-method."""

from __future__ import annotations

from pathlib import Path

from ...contract.shut import check_shut_in
from ...contract.suite import check_method as check_here
from ...contract.suite import render, summary
from ...sandbox.enclosure import shelter
from ...sandbox.isolation import NONE
from ..terminal import console, plain

OPEN = "the method was not shut in: what its native code or its processes read and write elsewhere was not seen"


def check_method(name: str, preset: str, plugins: tuple[Path, ...], isolated: bool = True) -> int:
    """Run the contract suite on a method, shut in if it can be, and return the exit code."""
    entry = Path(name) if name.endswith(".py") else name
    checks = (check_shut_in if isolated else check_here)(entry, preset, plugins)
    console.print(render(checks))
    plain.print(summary(checks))
    if shelter(isolated) == NONE:
        plain.print(OPEN, soft_wrap=True)
    return int(any(one.status == "fail" for one in checks))
