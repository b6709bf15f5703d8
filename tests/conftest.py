"""Fixtures that several test files share."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: models this small are slower with more

# What hypothesis draws is the same in every run; HYPOTHESIS_PROFILE=long, or TDABENCH_FUZZ=N cases a test, draws anew.
settings.register_profile("default", derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile(
    "long",
    max_examples=int(os.environ.get("TDABENCH_FUZZ", "10000")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "long" if "TDABENCH_FUZZ" in os.environ else "default"))

# What these ask for takes hours, and no test of it is cut short.
if {"TDABENCH_KILLS", "TDABENCH_INJECTED", "TDABENCH_SOAK", "TDABENCH_FUZZ", "HYPOTHESIS_PROFILE"} & set(os.environ):
    os.environ.setdefault("PYTEST_TIMEOUT", "0")

if TYPE_CHECKING:
    from tdabench.methods.view import View
    from tdabench.models.problem import Problem


@pytest.fixture(scope="session")
def tiny_problem() -> Problem:
    from . import tiny

    return tiny.make_problem()


@pytest.fixture
def view(tiny_problem: Problem, tmp_path) -> View:
    from tdabench.methods.view import View

    return View(tiny_problem, tmp_path)


# Files that take longest, which xdist hands out first: one that came last would leave its other workers idle.
LONG = (
    "benchmark/run/test_runner.py",
    "benchmark/run/test_hostile.py",
    "test_docs.py",
    "faults/test_bytes.py",
    "faults/test_injected.py",
    "benchmark/commands/test_attribute.py",
    "benchmark/contract/test_contract.py",
    "benchmark/commands/test_removal.py",
    "benchmark/commands/test_exemplars.py",
    "benchmark/commands/test_sanity.py",
)
PART = 4  # of the cases of a test marked slow, one in so many runs, and at least one


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run every case of the tests marked slow, not a part of them")


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # or xdist would take files by their numbers of tests, and not as below


def pytest_runtest_setup(item: pytest.Item) -> None:
    if marker := item.get_closest_marker("landlock"):
        from .landlock import need_landlock

        need_landlock(*marker.args)
    if item.get_closest_marker("seccomp"):
        from .landlock import need_seccomp

        need_seccomp()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long files first, and leave out most cases of tests marked slow, the same ones each time.

    A test that is asked for by its name runs whole.
    """
    ranks = {f"tests/{name}": rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(LONG)))
    if config.getoption("--slow") or os.environ.get("TDABENCH_SLOW") or any("::" in word for word in config.args):
        return
    cases = defaultdict(list)
    for item in items:
        if item.get_closest_marker("slow"):
            cases[item.nodeid.partition("[")[0]].append(item.nodeid)
    left_out = {name for names in cases.values() for name in sorted(names, key=_drawn)[-(-len(names) // PART) :]}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]


def _drawn(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
