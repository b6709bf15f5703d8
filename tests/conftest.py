"""Fixtures that several test files share."""

from __future__ import annotations

import os
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
