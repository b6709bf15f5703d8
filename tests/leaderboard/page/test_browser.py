"""The page in headless Chromium: $TDABENCH_CHROMIUM, or the first of CHROMIUMS on PATH; skipped where there is none."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import shutil
from pathlib import Path
from statistics import median

import pytest
from PIL import Image

from tdabench.leaderboard.page.build import build_page, payload, render_page, sections
from tdabench.leaderboard.page.facts import Facts, MethodFacts, Sprite, TaskFacts

from .helpers import every_kind_of_row, hostile_rows, with_tops

pytestmark = pytest.mark.browser
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SCORES = "digits@1/scores/0"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="install the extra `browser`")
    found = os.environ.get("TDABENCH_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        pytest.skip(f"no {', '.join(CHROMIUMS)} on PATH, and $TDABENCH_CHROMIUM is not set")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=found)
        yield opened
        opened.close()


def sprite() -> Sprite:
    buffer = io.BytesIO()
    Image.new("L", (80, 80), 128).save(buffer, "PNG")
    return Sprite(buffer.getvalue(), 8, 10, {f"q{i}": i for i in range(20)}, {i: 20 + i for i in range(62)})


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    methods = {name: MethodFacts("What it is.", needs=("gradients",), origin="x.py") for name in ("d-trak", "ek-fac")}
    facts = Facts(
        {"scans@1": TaskFacts("Scans", {"Data": "scans"}, sprite())}, methods | {"random": MethodFacts("No.")}
    )
    path = tmp_path_factory.mktemp("site") / "index.html"
    path.write_text(build_page(every_kind_of_row(), facts))
    return path


@pytest.fixture
def visit(browser):
    """Open a file at an address; at the end nothing was complained about, and nothing was asked of any network."""
    opened, complaints = [], []

    def visit(file: Path, state: str = "", **options):
        context = browser.new_context(**({"viewport": DESK} | options))
        page = context.new_page()
        opened.append(context)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on(
            "request", lambda asked: asked.url.startswith(("file:", "data:", "blob:")) or complaints.append(asked.url)
        )
        page.goto(file.as_uri() + state)
        return page

    yield visit
    for context in opened:
        context.close()
    assert complaints == []


def block(page, name=SCORES):
    return page.locator(f'[data-table="{name}"]')


def column(page, heading, name=SCORES):
    """The shown texts of a column."""
    heads = block(page, name).locator("thead th").all_inner_texts()
    (index,) = (i for i, text in enumerate(heads) if text.startswith(heading))
    return block(page, name).locator(f"tbody tr > :nth-child({index + 1})").all_inner_texts()


def means(page):
    return [float(text.split()[0]) for text in column(page, "Mean") if text != "-"]


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_complaint_and_fits_the_width(visit, file, size, scheme):
    page = visit(file, viewport=size, color_scheme=scheme)
    for state in ("#task=digits%401", "#task=scans%401&at=query", "#task=letters%401&at=removal", "#method=trak"):
        page.evaluate("state => { location.hash = state }", state)
        page.wait_for_timeout(50)
        page.evaluate(
            "for (const id of ['a', 'b', 'q']) document.getElementById(id)?.add(new Option('long'.repeat(30), 'long'))"
        )
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(", ")
    assert (int(light[0]) > 128) == (scheme == "light")


def test_a_heading_sorts_down_then_up_then_not(visit, file):
    page = visit(file, "#task=digits%401")
    button = block(page).get_by_role("button", name="LDS×100 heldout")
    head, before = block(page).locator("th", has_text="LDS×100 heldout"), column(page, "Method")
    values = lambda: [float(text.split()[0]) for text in column(page, "LDS×100 heldout") if text != "-"]  # noqa: E731
    for order, reverse in (("descending", True), ("ascending", False)):
        button.click()
        assert head.get_attribute("aria-sort") == order
        assert values() == sorted(values(), reverse=reverse) and len(values()) == 5
        assert column(page, "LDS×100 heldout")[5:] == ["-", "-"]  # what has no number comes last, either way
    button.click()
    assert head.get_attribute("aria-sort") == "none" and column(page, "Method") == before


def test_ties_are_shaded_and_named(visit, file):
    page = visit(file, "#task=digits%401")
    lines = _data(page)["tasks"][0]["tables"]["scores"][0]["lines"]
    ties = {line["cells"][1][0]: line.get("tie") for line in lines}
    ranks = dict(zip(column(page, "Method"), column(page, "Rank"), strict=True))
    assert {name: rank.split()[1:] for name, rank in ranks.items()} == {
        name: [] if tie is None else ["ABCDEFG"[tie]] for name, tie in ties.items()
    }
    shades = block(page).locator("tbody tr").evaluate_all("found => found.map(one => one.className)")
    assert shades == [("tie odd" if tie % 2 else "tie even") if tie is not None else "" for tie in ties.values()]


def test_filters_say_what_they_hide_and_can_be_undone(visit, file):
    page = visit(file, "#task=digits%401")
    block(page).get_by_role("searchbox").fill("trak")
    assert column(page, "Method") == ["d-trak@1"]
    assert block(page).locator(".count").inner_text() == "1 of 7 rows, 6 hidden by filters"
    block(page).get_by_role("button", name="Show all").click()
    assert len(column(page, "Method")) == 7 and block(page).locator(".count").inner_text() == "7 rows"
    block(page).get_by_label("Status").select_option("timeout")
    assert column(page, "Method") == ["mucs@1"]
    block(page).get_by_label("Status").select_option("")
    block(page).get_by_label("Needs").select_option("gradients")
    assert sorted(column(page, "Method")) == ["d-trak@1", "ek-fac@1"]


def test_a_link_shows_the_same_view(visit, file):
    page = visit(file)
    page.locator("#choose-task").select_option("digits@1")
    block(page).get_by_role("searchbox").fill("a")
    block(page).get_by_role("button", name="Mean").click()
    block(page).get_by_role("button", name="Mean").click()
    shown = column(page, "Method")
    again = visit(file, page.evaluate("location.hash"))
    assert column(again, "Method") == shown and means(again) == sorted(means(again))
    assert again.locator("#choose-task").input_value() == "digits@1"
    assert block(again).get_by_role("searchbox").input_value() == "a"
    assert again.locator("section.task:visible").count() == 1


def test_reported_numbers_have_a_table_of_their_own(visit, file):
    page = visit(file, "#task=digits%401")
    assert column(page, "Method", "digits@1/reported/0") == ["claimed@1"] and "claimed@1" not in column(page, "Method")


def test_two_entries_are_compared_both_ways(visit, file):
    page = visit(file, "#task=digits%401&a=ek-fac%3Apaper&b=mucs-retain%3Apaper")
    (task,) = (one for one in _data(page)["tasks"] if one["label"] == "digits@1")
    names = [entry[0] for entry in task["entries"]]
    i, j = names.index("mucs-retain:paper"), names.index("ek-fac:paper")
    mean, low, high = next(pair[2:5] for pair in task["pairs"] if pair[:2] == [min(i, j), max(i, j)])
    text = page.locator("#verdict").inner_text()
    assert text.startswith("mucs-retain:paper is significantly better than ek-fac:paper")
    assert f"ek-fac:paper less mucs-retain:paper is {-mean:.1f} [{-high:.1f}, {-low:.1f}]" in text
    page.locator("#a").select_option(str(i))
    page.locator("#b").select_option(str(j))
    assert f"{mean:.1f} [{low:.1f}, {high:.1f}]" in page.locator("#verdict").inner_text()
    assert page.locator("#scatter .dot").count() == 20 + 20 - 20 * (len(task["queries"]) == 20)
    assert "a=mucs-retain%3Apaper&b=ek-fac%3Apaper" in page.evaluate("location.hash")


def _data(page):
    return json.loads(page.locator("#data").text_content())


def test_one_query_shows_its_picture_and_what_methods_name(visit, file):
    page = visit(file, "#task=scans%401")
    drill = page.locator("#drill")
    assert page.locator("#before").is_disabled()
    page.locator("#after").click()
    assert page.evaluate("new URLSearchParams(location.hash.slice(1)).get('q')") == "q1"
    assert drill.locator(".asked [role=img]").get_attribute("aria-label") == "query q1"
    first = drill.locator("ol").first
    assert first.locator("[role=img]").evaluate_all("found => found.map(one => one.ariaLabel)") == [
        "training image 0", "training image 7", "training image 41"
    ]  # fmt: skip
    image, place = (
        first.locator("[role=img]")
        .nth(2)
        .evaluate("one => { const s = getComputedStyle(one); return [s.backgroundImage, s.backgroundPosition] }")
    )
    assert image.startswith('url("data:image/png') and place == "-48px -288px"  # item 41 is tile 61 of ten in a row
    assert "×3" in first.locator("li").nth(1).inner_text()  # all three name item 7


def test_figures_and_tables_are_chosen_by_similarity(visit, file):
    page = visit(file, "#task=letters%401&similarity=ssim")
    chosen = page.locator('section.task:visible [data-chosen="similarity"] [data-choice]:visible')
    choices = "found => [...new Set(found.map(one => one.dataset.choice))]"
    assert chosen.evaluate_all(choices) == ["ssim"] and chosen.count() > 2
    page.locator('select[data-choose="similarity"]:visible').select_option("loss")
    assert chosen.evaluate_all(choices) == ["loss"]


def test_the_keyboard_is_enough(visit, file):
    page = visit(file, "#task=digits%401")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.locator("#overview-title:focus").wait_for()
    block(page).get_by_role("searchbox").focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Mean":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert means(page) == sorted(means(page))
    page.get_by_role("link", name="How to read this").focus()
    page.keyboard.press("Enter")
    page.locator("#how-title:focus").wait_for()


def test_names_and_roles_are_there_for_who_cannot_see(visit, file):
    page = visit(file, "#task=digits%401")
    assert not page.evaluate(
        """[...document.querySelectorAll('button, select, input, [role=img], [role=region], a')].filter(one =>
             !(one.hidden || one.ariaLabel || one.textContent.trim() || one.closest('label')
               || one.querySelector('title'))).map(one => one.outerHTML)"""
    )
    assert page.locator("[data-table] table:not(:has(caption))").count() == 0
    assert block(page).locator("tbody th[scope=row]").count() == 7
    assert page.locator('figure svg[role="img"]:not(:has(> title))').count() == 0
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1 and all(later - one <= 1 for one, later in itertools.pairwise(levels))


def saved(page, act) -> bytes:
    with page.expect_download() as waiting:
        act()
    return Path(waiting.value.path()).read_bytes()


def test_tables_are_exported_as_they_are_shown(visit, file):
    page = visit(file, "#task=digits%401")
    block(page).get_by_label("Status").select_option("ok")
    methods = column(page, "Method")
    take = lambda kind: saved(page, lambda: block(page).get_by_label("Export").select_option(kind)).decode()  # noqa: E731
    rows = list(csv.DictReader(io.StringIO(take("csv"))))
    assert [row["Method"] for row in rows] == methods
    assert [float(row["Mean"]) for row in rows] == means(page) and float(rows[0]["Mean low"]) < float(rows[0]["Mean"])
    assert [row["Mean"]["mean"] for row in json.loads(take("json"))["rows"]] == means(page)
    assert re.findall(r"^[^&\n]* & (\S+) & ", take("tex"), re.MULTILINE)[1:] == methods
    assert [line.split(" | ")[1] for line in take("md").splitlines()[2:]] == methods


def test_figures_are_saved_as_svg_and_png(visit, file):
    page = visit(file, "#task=digits%401")
    figure = page.locator("section.task:visible figure:visible").first
    svg = saved(page, figure.get_by_role("button", name="SVG").click).decode()
    assert svg.startswith("<svg") and "--f-text:#1b1b1f" in svg and "prefers-color-scheme" not in svg
    image = Image.open(io.BytesIO(saved(page, figure.get_by_role("button", name="PNG").click)))
    assert image.width > 1000 and len(image.convert("RGB").getcolors(1 << 24) or []) > 10


def test_a_method_has_its_part_of_the_page(visit, file):
    page = visit(file, "#task=digits%401")
    block(page).get_by_role("link", name="ek-fac@1").click()
    card = page.locator("#method-ek-fac[open]")
    card.wait_for()
    assert card.get_by_text("tdabench run").first.is_visible()
    assert page.evaluate("new URLSearchParams(location.hash.slice(1)).get('task')") == "digits@1"


def test_it_prints_without_its_tools_and_reads_without_javascript(visit, file):
    page = visit(file, "#task=digits%401")
    page.emulate_media(media="print")
    assert not page.get_by_role("navigation").is_visible() and not block(page).locator(".tools").is_visible()
    plain = visit(file, java_script_enabled=False)
    assert plain.locator("section.task:visible").count() == 3 and len(column(plain, "Method")) == 7


def test_hostile_rows_are_text(visit, tmp_path):
    path = tmp_path / "hostile.html"
    path.write_text(build_page(hostile_rows(), Facts()))
    page = visit(path)
    assert "<script>alert(1)" in block(page).inner_text() and page.locator("img").count() == 0
    block(page).get_by_role("searchbox").fill("<script>")
    assert block(page).locator("tbody tr").count() == 1


@pytest.fixture(scope="module")
def crowded(tmp_path_factory) -> Path:
    """A page whose one table of scores has 20,000 lines."""
    rows = with_tops()
    found = sections(rows, Facts())
    data = payload(rows, Facts(), found)
    table = data["tasks"][0]["tables"]["scores"][0]
    lines = table["lines"]
    table["lines"] = [_moved(lines[i % 3], i) for i in range(20_000)]
    path = tmp_path_factory.mktemp("crowded") / "index.html"
    path.write_text(render_page(data, {}))
    return path


def _moved(line, index):
    value = (index * 7919) % 20_000 / 200
    cells = [["-"], [f"method{index}@1"], *line["cells"][2:]]
    cells[3] = [f"{value} [{value - 1}, {value + 1}]", value, value - 1, value + 1]
    return {**line, "cells": cells}


def busy(client) -> float:
    """Seconds that the page's main thread has worked: what else the machine does is not in them."""
    metrics = client.send("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def test_twenty_thousand_rows_open_in_two_seconds_and_sort_in_a_fifth(visit, crowded):
    name = "scans@1/scores/0"
    page = visit(crowded, "#task=none")
    client = page.context.new_cdp_session(page)
    client.send("Performance.enable", {"timeDomain": "threadTicks"})
    start = busy(client)
    page.reload()
    opened, sorted_in = busy(client) - start, []
    button = block(page, name).get_by_role("button", name="Mean")
    for _ in range(4):
        start = busy(client)
        button.evaluate("button => { button.click(); document.body.offsetHeight }")
        sorted_in.append(busy(client) - start)
    print(f"opened in {opened:.2f} s, sorted in {', '.join(f'{one:.3f}' for one in sorted_in)} s")
    assert opened < 2 and median(sorted_in) < 0.2
    values = [float(text.split()[0]) for text in column(page, "Mean", name)]
    assert values == sorted(values, reverse=True) and values[0] == 99.995 and len(values) == 50
    block(page, name).get_by_role("searchbox").fill("method19999")
    assert block(page, name).locator(".count").inner_text() == "1 of 20000 rows, 19999 hidden by filters"
