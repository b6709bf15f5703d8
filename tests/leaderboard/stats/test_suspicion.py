"""Scores that are too good are marked, and others are not."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tdabench.leaderboard.page.build import build_page
from tdabench.leaderboard.page.entries import ranked_tables
from tdabench.leaderboard.page.facts import Facts
from tdabench.leaderboard.readme import update_readme
from tdabench.leaderboard.rows.files import RESULTS, load_rows
from tdabench.leaderboard.rows.row import Metrics, Row
from tdabench.leaderboard.stats.suspicion import above_ceiling, above_open, far_above_open
from tdabench.leaderboard.views.lds import MARKS, build_tables, lds_sheets
from tdabench.leaderboard.views.sheet import render
from tdabench.seeds import digest

from ..helpers import lds_row, make_cost, make_key, make_lds, make_source, readme
from ..page.helpers import data_of


def row(low: float, high: float, ceiling: tuple[float, float], kind: str = "heldout") -> Row:
    lds = make_lds((low + high) / 2)
    words = {
        "low": low,
        "high": high,
        "ceiling": sum(ceiling) / 2,
        "ceiling_low": ceiling[0],
        "ceiling_high": ceiling[1],
    }
    return lds_row(metrics=Metrics(lds={kind: lds.model_copy(update=words)}))


@pytest.mark.parametrize(("low", "expected"), [(0.9, True), (0.8, False), (0.3, False)])
def test_above_the_ceiling_is_wholly_above(low, expected):
    one = row(low, 0.99, (0.6, 0.85))
    assert above_ceiling(one) is expected
    [table] = build_tables([one])
    assert (table.lines[0].marks == ("above-ceiling",)) is expected
    assert (MARKS["above-ceiling"] in table.notes) is expected


def test_a_row_without_a_ceiling_or_metrics_is_not_suspected():
    one = lds_row()
    assert not above_ceiling(one)
    assert not above_ceiling(one.model_copy(update={"metrics": None}))


@pytest.mark.parametrize(
    ("report", "dev", "expected"),
    [
        ((0.80, 0.95), (0.10, 0.40), True),  # .80/.90 against .40/.50
        ((0.60, 0.95), (0.10, 0.40), False),  # .60/.90 against .40/.50
        ((0.80, 0.95), (-0.30, -0.10), True),
        ((-0.2, 0.1), (-0.30, -0.10), False),
    ],
)
def test_report_against_open_takes_the_ends_that_favour_the_method(report, dev, expected):
    one, other = row(*report, (0.7, 0.9)), row(*dev, (0.5, 0.7))
    assert above_open(one, other) is expected
    assert not above_open(one, row(*dev, (0.0, 0.7))), "an open ceiling that may be 0 says nothing"
    assert not above_open(one, row(*dev, (0.5, 0.7), "generated")), "other kinds do not compare"


def on_dev(one: Row, **changes) -> Row:
    """The row of a cell like that of ``row`` but for these, on dev queries, far below its ceiling."""
    key = make_key(query_set="dev", **changes)
    return row(0.10, 0.40, (0.5, 0.7)).model_copy(update={"key": key, "source": one.source})


def test_a_row_far_above_that_on_open_subsets_is_marked_in_every_table():
    one = row(0.80, 0.95, (0.7, 0.9))
    rows = [one, on_dev(one)]
    for found in (build_tables([one], rows)[0], ranked_tables([one], rows)[0].table, build_tables(rows)[1]):
        assert [line.marks for line in found.lines] == [("above-open",)]
        assert MARKS["above-open"] in found.notes
    assert build_tables(rows)[0].lines[0].marks == (), "the row on dev queries itself is none"
    assert "above-open" in update_readme(readme("leaderboard"), rows)
    tables = data_of(build_page(rows, Facts()))["tasks"][0]["tables"]["scores"]
    assert "above-open" in json.dumps(tables[0]["lines"])


def test_other_cells_on_open_subsets_say_nothing_of_a_row():
    one = row(0.80, 0.95, (0.7, 0.9))
    others = [on_dev(one, seed=1), on_dev(one, method="other"), on_dev(one, preset="quick"), on_dev(one, task="emoji")]
    others.append(on_dev(one.model_copy(update={"source": make_source(truth_sha256="b" * 64)})))
    others.append(row(0.10, 0.40, (0.5, 0.7)))
    assert build_tables([one], others)[0].lines[0].marks == ()


@pytest.mark.parametrize("end", ["low", "ceiling_high"])
def test_without_one_end_of_the_reported_intervals_nothing_is_suspected(end):
    one, dev = without(row(0.9, 0.99, (0.6, 0.8)), end), row(0.1, 0.2, (0.5, 0.7))
    assert not above_ceiling(one) and not above_open(one, dev)


@pytest.mark.parametrize("end", ["high", "ceiling_low"])
def test_without_one_end_of_the_open_intervals_nothing_is_suspected(end):
    one, dev = row(0.9, 0.99, (0.6, 0.8)), row(0.1, 0.2, (0.5, 0.7))
    assert above_open(one, dev) and not above_open(one, without(dev, end))


def without(one: Row, end: str) -> Row:
    lds = {kind: result.model_copy(update={end: None}) for kind, result in one.metrics.lds.items()}
    return one.model_copy(update={"metrics": Metrics.model_construct(lds=lds)})


def test_a_share_of_dev_queries_below_zero_counts_as_none():
    assert not above_open(row(-0.1, 0.1, (0.7, 0.9)), row(-0.9, -0.8, (0.5, 0.7)))


def test_plugins_that_ran_in_the_open_are_marked():
    for isolation, marks in (("none", ("no-isolation",)), ("landlock 7", ())):
        source = make_source(adapter_sha256="b" * 16, isolation=isolation)
        [table] = build_tables([lds_row(source=source)])
        assert table.lines[0].marks == marks


@pytest.mark.parametrize(
    ("members", "marks"),
    [
        (["mine:paper", "pixel"], ("no-isolation",)),
        (["mine"], ("no-isolation",)),
        (["mine:quick"], ()),
        (["pixel"], ()),
        ("mine", ()),
    ],
)
def test_an_ensemble_of_a_plugin_that_ran_in_the_open_is_marked(members, marks):
    plugin = lds_row("mine", 0.5, source=make_source(adapter_sha256="b" * 16, isolation="none"))
    params = {"combine": "z", "members": members}
    key = make_key("ensemble", params=params, params_hash=digest(params))
    ensemble = lds_row("ensemble", 0.4, key=key, source=make_source(isolation="landlock 7"))
    rows = [plugin, ensemble, lds_row("pixel", 0.3, source=make_source(isolation="none"))]
    [table] = build_tables(rows)
    assert {line.method: line.marks for line in table.lines} == {
        "mine@1": ("no-isolation",),
        "ensemble@1": marks,
        "pixel@1": (),
    }


def test_marks_are_in_every_format_and_beside_missing_queries():
    source, cost = make_source(adapter_sha256="b" * 16, isolation="none"), make_cost(resumed=True)
    lds = row(0.9, 0.99, (0.6, 0.85)).metrics.lds["heldout"]
    lacking = make_lds(0.945, missing=1).model_copy(
        update={name: getattr(lds, name) for name in ("low", "high", "ceiling", "ceiling_low", "ceiling_high")}
    )
    sheets = lds_sheets([lds_row(metrics=Metrics(lds={"heldout": lacking}), source=source, cost=cost)])
    assert "19 of 20, above-ceiling, no-isolation, resumed" in render(sheets, "markdown")
    [data], [record] = json.loads(render(sheets, "json")), list(csv.DictReader(io.StringIO(render(sheets, "csv"))))
    assert data["lines"][0]["marks"] == record["marks"].split() == ["above-ceiling", "no-isolation", "resumed"]


def test_no_committed_row_is_suspected():
    rows = load_rows(RESULTS)
    assert rows and not [row for row in rows if above_ceiling(row)]
    assert not far_above_open(rows, rows)
