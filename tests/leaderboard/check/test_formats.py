"""A verdict in every format says the same, and text of others cannot break out of it."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from tdabench.errors import UserError
from tdabench.leaderboard.check.costs import Limits
from tdabench.leaderboard.check.formats import FORMATS, report
from tdabench.leaderboard.check.verdict import judge

from ..helpers import failed_row, lds_row, make_cost

HOSTILE = "it broke\n::error::mine & <script>|%0A"


@pytest.fixture
def verdict():
    before = [lds_row("trak"), lds_row("mucs"), lds_row("pixel")]
    dear = make_cost(forward_passes={"fit": 2_000_000, "attribute": 34_000})
    after = [failed_row("mucs", reason=HOSTILE), lds_row("trak", cost=dear), lds_row("pixel")]
    return judge(before, after, Limits())


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_names_what_is_worse(verdict, format: str) -> None:
    text = report(verdict, format)
    assert "forward passes" in text and "trak" in text and "mucs" in text
    assert "\x1b" not in text.replace("\\u001b", "")


def test_json_says_what_was_found(verdict) -> None:
    found = json.loads(report(verdict, "json"))
    assert found["passed"] is False
    worse = {(cell["method"], f["what"]) for cell in found["cells"] for f in cell["findings"] if f["worse"]}
    assert worse == {("mucs@1", "status"), ("trak@1", "forward passes")}


def test_junit_counts_failures_and_parses(verdict) -> None:
    suite = ElementTree.fromstring(report(verdict, "junit").encode())
    assert suite.get("failures") == "2" == str(len(suite.findall("testcase/failure")))
    assert suite.get("tests") == str(len(suite.findall("testcase")))


def test_annotations_are_one_line_each_and_carry_no_other_command(verdict) -> None:
    lines = report(verdict, "github").splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["::error", "::error", "::notice"]
    assert all(line.count("title=") == 1 for line in lines) and "%250A" in lines[0]


def test_markdown_escapes(verdict) -> None:
    text = report(verdict, "markdown")
    assert "&lt;script>\\|" in text and text.startswith("### ❌")


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_compared_is_a_failure_in_every_format(format: str) -> None:
    text = report(judge([], [lds_row()], Limits()), format)
    assert "othing compared" in text
    if format == "junit":
        assert ElementTree.fromstring(text.encode()).get("failures") == "1"


def test_another_format_is_a_mistake() -> None:
    with pytest.raises(UserError, match="yaml"):
        report(judge([], [], Limits()), "yaml")
