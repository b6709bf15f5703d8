"""Fixtures that several test files share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: models this small are slower with more

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
