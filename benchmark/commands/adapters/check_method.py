"""The command check-method."""

from __future__ import annotations

from pathlib import Path

from ...contract.suite import check_method as check_on
from ...contract.suite import render, summary
from ..terminal import console


def check_method(name: str, preset: str, plugins: tuple[Path, ...]) -> int:
    """Run the contract suite on a method and return the exit code."""
    checks = check_on(Path(name) if name.endswith(".py") else name, preset, plugins)
    console.print(render(checks))
    console.print(summary(checks))
    return int(any(one.status == "fail" for one in checks))
