"""The page as a file: its numbers are the views', nothing in a row is read as HTML, and it asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time

import numpy as np
import pytest

from tdabench.errors import UserError
from tdabench.leaderboard.page.build import build_page
from tdabench.leaderboard.page.facts import Facts, MethodFacts, Sprite, TaskFacts
from tdabench.leaderboard.rows.files import RESULTS, load_rows
from tdabench.leaderboard.rows.reported import load_reported
from tdabench.leaderboard.views.catalogue import build_view
from tdabench.leaderboard.views.lds import build_tables
from tdabench.leaderboard.views.reported import reported_sheets

from ..helpers import failed_row, lds_row, lds_rows, make_source
from .helpers import HOSTILE, Reader, data_of, every_kind_of_row, hostile_rows, many_rows, with_tops


@pytest.fixture(scope="module")
def committed():
    rows = load_rows(RESULTS)
    return rows, build_page(rows, Facts())


def table(page, label, place="scores"):
    (task,) = (one for one in data_of(page)["tasks"] if one["label"] == label)
    return task["tables"][place][0]


def texts(table):
    return [[cell[0] for cell in line["cells"]] for line in table["lines"]]


def test_the_scores_are_those_of_the_view_with_mean_queries_and_source(committed):
    rows, page = committed
    test = [row for row in rows if row.key.query_set == "test"]
    for sheet, view in zip(build_view("lds", test), build_tables(test), strict=True):
        shown = table(page, view.task)
        names = [column["name"] for column in shown["columns"]]
        extra = [names.index(name) for name in ("Mean", "Queries", "Source")]
        assert [[t for i, t in enumerate(line) if i not in extra] for line in texts(shown)] == [
            list(r) for r in sheet.rows
        ]
        assert [line[names.index("Mean")] for line in texts(shown)] == [line.overall.text() for line in view.lines]
        counts = [f"{line.done} of {line.asked}" for line in view.lines]
        assert [line[names.index("Queries")] for line in texts(shown)] == counts


@pytest.mark.parametrize(("place", "view"), [("removal", "removal"), ("alone", "per-query"), ("sanity", "sanity")])
def test_other_tables_are_their_views(committed, place, view):
    rows, page = committed
    own = [row for row in rows if row.key.query_set == "test" and row.key.label == "digits@1"]
    sheets = build_view(view, own, "loss")
    assert texts(table(page, "digits@1", place)) == [list(row) for row in sheets[0].rows]
    assert table(page, "digits@1", place)["notes"] == list(sheets[0].notes)


def test_the_overview_is_the_view_of_tasks_and_removal_beside_it(committed):
    rows, page = committed
    test = [row for row in rows if row.key.query_set == "test"]
    (sheet,), shown = build_view("tasks", test), data_of(page)["overview"]
    width = len(sheet.headings)
    assert [line[:width] for line in texts(shown)] == [list(row) for row in sheet.rows]
    removals = build_view("removal", test, "loss")
    names = [column["name"] for column in shown["columns"]]
    for removal in removals:
        column = names.index(f"{removal.title.partition(',')[0]} removal, loss×1000", width)
        above = {(row[1], row[2]): f"{row[6]}, {row[0]}" for row in removal.rows}
        assert [line[column] for line in texts(shown)[1:]] == [
            above.get((line[0], line[1]), "-") for line in texts(shown)[1:]
        ]


def test_the_committed_rows_make_a_small_page(committed):
    rows, page = committed
    assert len(page.encode()) < 3e6
    assert f"{len(rows)} rows" in page


def test_the_page_asks_for_nothing(committed):
    _, page = committed
    markup = re.sub(r"<(script|style)\b[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    for tag, attributes in Reader(markup).elements:
        assert tag not in ("link", "iframe", "object", "embed", "form", "base", "img")
        named = {
            name: value
            for name, value in attributes.items()
            if name in ("src", "href", "srcset", "action", "xlink:href")
        }
        assert all((value or "").startswith("#") for value in named.values()), (tag, named)
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert not re.search(r"fetch\(|XMLHttpRequest|importScripts|innerHTML|eval\(", "".join(script))


@pytest.mark.parametrize("live", [False, True])
def test_the_policy_names_these_very_scripts_and_styles(live):
    page = build_page(with_tops(), Facts(), live)
    (policy,) = (a["content"] for t, a in Reader(page).elements if a.get("http-equiv") == "Content-Security-Policy")
    parts = {part.split()[0]: part.split()[1:] for part in policy.split("; ")}
    assert parts["default-src"] == ["'none'"] and "unsafe" not in policy
    for kind in ("script", "style"):
        found = re.findall(rf"<{kind}(?: id=\"look\")?>(.*?)</{kind}>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found]
        assert parts[f"{kind}-src"] == [f"'sha256-{one}'" for one in hashes]
    assert parts["connect-src"] == (["'self'"] if live else ["'none'"])


def test_nothing_in_a_row_is_read_as_html():
    facts = Facts(
        {"digits@1": TaskFacts(HOSTILE, {HOSTILE: HOSTILE}, None, HOSTILE)}, {HOSTILE: MethodFacts(*[HOSTILE] * 3)}
    )
    page = build_page(hostile_rows(), facts)
    plain = build_page(lds_rows(), Facts())
    counts = [sum(tag == "script" for tag, _ in Reader(one).elements) for one in (page, plain)]
    assert counts[0] == counts[1] and "<img" not in page and "onerror=alert(2)>" not in page
    assert "\x00" not in page and "\x1b" not in page and "\u202e" not in page
    found = json.dumps(data_of(page), ensure_ascii=False)
    assert "</script><script>alert(1)" in found and "\ufffd" in found  # it is shown, as text


def test_reported_numbers_stand_apart_and_rank_nobody():
    rows = lds_rows()
    claimed = lds_row("claimed", 0.9, 0.9, source=make_source(kind="reported"))
    alone, together = build_page(rows, Facts()), build_page([*rows, claimed], Facts())
    assert texts(table(alone, "digits@1")) == texts(table(together, "digits@1"))
    assert [line[1] for line in texts(table(together, "digits@1", "reported"))] == ["claimed@1"]
    assert "Reported by others" in together and "Reported by others" not in alone


def test_published_tables_are_shown_as_they_are_and_in_no_ranking():
    published = load_reported()
    page = build_page(lds_rows(), Facts(reported=tuple(published)))
    for one, sheet in zip(published, reported_sheets(published), strict=True):
        assert texts(table(page, one.label, "reported")) == [list(row) for row in sheet.rows]
    assert texts(data_of(page)["overview"]) == texts(data_of(build_page(lds_rows(), Facts()))["overview"])


def test_every_truth_and_task_has_its_tables():
    data = data_of(build_page(every_kind_of_row(), Facts()))
    found = {task["label"]: set(task["tables"]) for task in data["tasks"]}
    assert found["digits@1"] == {"scores", "reported", "agreement"} and found["scans@1"] == {"scores", "overlap"}
    assert found["letters@1"] == {
        "removal",
        "alone",
        "published",
        "groups",
        "exemplars",
        "agreement",
        "sanity",
        "overlap",
    }


def test_a_task_with_failures_only_is_shown():
    page = build_page([failed_row(), failed_row("clip", "oom", "killed: out of memory")], Facts())
    lines = table(page, "digits@1")["lines"]
    assert [line["status"] for line in lines] == ["oom", "timeout"] and "killed: out of memory" in page


def test_a_query_has_its_picture_scores_and_top_items():
    sprite = Sprite(b"png", 8, 5, {"q0": 0, "q3": 1}, {0: 2, 7: 3, 41: 4, 999: 5})
    page = build_page(with_tops(), Facts({"scans@1": TaskFacts("Scans", {}, sprite)}))
    (task,) = data_of(page)["tasks"]
    assert [entry[0] for entry in task["entries"]] == ["alpha:quick", "beta:quick", "gamma:quick"]
    assert task["queries"][1] == ["q1", "heldout"] and task["tops"][1][1] == [1, 7, 41]
    assert task["scores"][2] == [pytest.approx(10.0)] * 20
    assert task["sprite"]["items"] == {"0": 2, "7": 3, "41": 4} and task["sprite"]["queries"] == {"q0": 0, "q3": 1}
    assert base64.b64decode(task["sprite"]["uri"].split(",")[1]) == b"png"


def test_no_rows_are_an_error_in_one_line():
    with pytest.raises(UserError, match="no rows to report"):
        build_page([], Facts())


def test_twenty_thousand_rows_are_a_page_in_seconds():
    rows = many_rows(tasks=10, entries=10, seeds=200)
    start = time.process_time()
    page = build_page(rows, Facts())
    assert time.process_time() - start < 30
    assert len(rows) == 20_000 and len(page.encode()) < 3e6
    lines = table(page, "t7@1")["lines"]
    assert len(lines) == 10 and np.isclose(lines[3]["cells"][3][1], 48.5)
