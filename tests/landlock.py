"""What tests of isolation need of the kernel, without which they would be green with nothing tested."""

from __future__ import annotations

import os

import pytest

from tdabench.benchmark.sandbox import filtering, isolation

ALLOWED = "TDABENCH_NO_LANDLOCK"  # the variable by which somebody says that isolation is not to be tested here


def need_landlock(least: int) -> None:
    """Fail where the kernel's Landlock is older than this version, or skip where that is known and allowed."""
    if (spoken := isolation.version()) >= least:
        return
    _lack(f"this kernel has Landlock {spoken or 'not at all'}, and this test of isolation needs version {least}")


def need_seccomp() -> None:
    """Fail where calls cannot be filtered, or skip where that is known and allowed."""
    if not filtering.can_filter():
        _lack("this kernel, or machine, has no filter of calls, which this test of isolation needs")


def _lack(lacks: str) -> None:
    if os.environ.get(ALLOWED):
        pytest.skip(lacks)
    pytest.fail(f"{lacks}: set {ALLOWED}=1 to leave isolation untested", pytrace=False)
