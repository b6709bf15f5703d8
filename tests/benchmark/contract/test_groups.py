"""The contract suite on methods that score groups."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tdabench.benchmark.contract.suite import check_method
from tdabench.benchmark.contract.tiny import tiny_problem
from tdabench.datasets.groups import group_items
from tdabench.methods.base import Method, register
from tdabench.methods.support import unsupported
from tdabench.methods.view import View

from ...run_helpers import MEAN_SIMILARITY

torch.set_num_threads(1)


def check(folder: Path, end: str = "return scores") -> dict[str, tuple[str, str]]:
    path = folder / "probe.py"
    path.write_text(MEAN_SIMILARITY.format(name=f"group-probe-{abs(hash(end))}", end=end))
    return {one.name: (one.status, one.detail) for one in check_method(path)}


def test_a_method_of_groups_passes(tmp_path: Path) -> None:
    found = check(tmp_path)
    assert {status for status, _ in found.values()} == {"pass", "skip"}
    assert [name for name, (status, _) in found.items() if status == "skip"] == ["planted copy"]
    assert found["scores"][1] == "[5, 10] float32"
    assert found["support"][1] == "a problem without groups gives a reason"


@pytest.mark.parametrize(
    ("end", "rule", "message"),
    [
        ("return scores[:, 1:]", "scores", "shape (1, 9) where [queries, groups] is (1, 10)"),
        ("return [(slice(0, 4), scores[:, :4])]", "scores", "cover 6 groups never, 0 twice"),
        ("view.groups.assignment.sub_(10).add_(11).remainder_(10); return scores", "problem", "changes the groups in"),
    ],
)
def test_a_bad_one_fails_the_right_rule(tmp_path: Path, end: str, rule: str, message: str) -> None:
    found = check(tmp_path, end)
    failed = [name for name, (status, _) in found.items() if status == "fail"]
    assert rule in failed and (rule != "scores" or failed == [rule])
    assert message in found[rule][1]


def test_a_view_has_the_problems_groups_or_says_what_to_declare(tmp_path: Path) -> None:
    problem = tiny_problem()
    with pytest.raises(ValueError, match="unit = 'group'"):
        View(problem, tmp_path).groups  # noqa: B018
    problem.__dict__["groups"] = group_items(problem.train, "classes")
    assert torch.equal(View(problem, tmp_path).groups.assignment, problem.train.classes)


def test_another_unit_is_no_method() -> None:
    with pytest.raises(ValueError, match="scores by 'pixel'"):

        @register("odd-unit")
        class Odd(Method):
            unit = "pixel"  # type: ignore[assignment]

            def attribute(self, view, state, queries):
                return torch.zeros(0)


def test_without_groups_a_method_of_groups_is_unsupported() -> None:
    class OfGroups(Method):
        unit = "group"

        def attribute(self, view, state, queries):
            return torch.zeros(0)

    assert unsupported(OfGroups, tiny_problem()) == "scores groups, of which this problem has none"
