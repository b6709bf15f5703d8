"""Quality against cost: places by brute force, machines apart, and axes that hold what is drawn."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tdabench.leaderboard.page.entries import ranked_tables
from tdabench.leaderboard.page.figures.axes import apart, linear, logarithmic
from tdabench.leaderboard.page.figures.pareto import AXES, costly, pareto_figures
from tdabench.leaderboard.rows.row import Metrics

from ...helpers import lds_row, make_cost, make_key, make_lds

# (LDS, passes): cheap and weak, its equal for more, better for more, the best for most, dominated, free and useless.
CASES = {
    "weak": (0.2, 100),
    "tied": (0.2, 200),
    "good": (0.4, 1000),
    "best": (0.6, 9000),
    "waste": (0.3, 5000),
    "free": (0, 0),
}


def rows_of(machine="A"):
    rows = []
    for index, (name, (mean, passes)) in enumerate(CASES.items()):
        lds = {"heldout": make_lds(mean, offset=index)}
        cost = make_cost(forward_passes={"fit": passes}, backward_passes={"fit": 0}, fit_s=float(passes) + 1)
        parts = {"metrics": Metrics(lds=lds), "cost": cost, "environment": {"cpu": machine}}
        rows.append(lds_row(name, key=make_key(name), **parts))
    return rows


def test_places_are_those_of_comparing_all_pairs():
    (ranked,) = ranked_tables(rows_of())
    found = {one.entry.method: one.place for one in costly(ranked.entries, AXES["passes"])}
    replicates = {row.key.method: np.array(row.metrics.lds["heldout"].replicates) for row in rows_of()}
    for name, (_, passes) in CASES.items():
        rivals = [replicates[other] for other, (_, price) in CASES.items() if price <= passes and other != name]
        beaten = any(np.quantile(rival - replicates[name], 0.025) > 0 for rival in rivals)
        beats = all(np.quantile(replicates[name] - rival, 0.025) > 0 for rival in rivals)
        assert found[name] == ("dominated" if beaten else "front" if beats else "open")
    assert found == {
        "free": "front",
        "weak": "front",
        "tied": "open",
        "good": "front",
        "waste": "dominated",
        "best": "front",
    }


def test_costs_are_means_over_seeds_with_their_range_and_agree_with_the_view():
    rows = []
    for seed, passes in enumerate((100, 300)):
        cost = make_cost(forward_passes={"fit": passes}, backward_passes={"fit": 0})
        rows.append(lds_row("trak", key=make_key(seed=seed), cost=cost))
    (ranked,) = ranked_tables(rows)
    (one,) = costly(ranked.entries, AXES["passes"])
    line = ranked.entries[0].line
    assert (one.cost, one.low_cost, one.high_cost) == (200, 100, 300) and one.cost == line.forward_passes
    (fit,), (memory,) = (costly(ranked.entries, AXES[name]) for name in ("fit", "memory"))
    assert fit.cost == line.fit_s and memory.cost == line.peak_rss_bytes / 2**20


def test_machines_never_share_a_plot_of_seconds():
    second = [
        row.model_copy(update={"key": make_key(row.key.method, preset="quick", params_hash="f" * 16)})
        for row in rows_of("B")
    ]
    (ranked,) = ranked_tables([*rows_of("A"), *second])
    figures = pareto_figures(ranked)
    assert len(figures["passes"]) == 1 and len(figures["fit"]) == 2
    for machine, figure in zip("AB", figures["fit"], strict=True):
        assert figure.title.endswith(f"measured on {machine}")
        assert ("weak:paper" in figure.description) == (machine == "A")
        assert ("weak:quick" in figure.description) == (machine == "B")


def test_a_figure_is_well_formed_and_all_marks_lie_inside():
    (ranked,) = ranked_tables(rows_of("<&\"'>"))
    for figures in pareto_figures(ranked).values():
        for figure in figures:
            root = ElementTree.fromstring(figure.svg("a{}"))
            assert root.find("{http://www.w3.org/2000/svg}title").text == figure.title
            points = [point for mark in figure.marks for point in mark.points]
            assert all(0 <= x <= figure.width and 0 <= y <= figure.height for x, y in points)


def test_zero_has_a_place_on_a_logarithmic_axis():
    scale = logarithmic([0, 1e3, 1e6], 100, 700)
    assert 100 <= scale.at(0) < scale.at(1e3) < scale.at(1e6) <= 700
    assert scale.ticks()[0] == 0 and scale.at(1e6) - scale.at(1e5) == pytest.approx(scale.at(1e5) - scale.at(1e4))


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-9, 3e-9], [-5, 120], [7]])
def test_a_linear_axis_holds_its_values_and_has_ticks(values):
    scale = linear(values, 0, 100)
    assert all(0 <= scale.at(value) <= 100 for value in values)
    assert 2 <= len(scale.ticks()) <= 12 and all(scale.low <= tick <= scale.high for tick in scale.ticks())


def test_labels_are_moved_apart_in_their_order():
    wanted = [50, 50, 51, 10, 99, 100]
    found = apart(wanted, 14, 0, 100)
    order = sorted(range(6), key=lambda index: wanted[index])
    placed = [found[index] for index in order]
    assert placed == sorted(placed) and all(b - a >= 14 - 1e-9 for a, b in itertools.pairwise(placed))
    assert max(placed) <= 100 and apart([30, 60], 14, 0, 100) == [30, 60]


def test_hollow_and_faint_points_are_what_the_text_says():
    (ranked,) = ranked_tables(rows_of())
    (figure,) = pareto_figures(ranked)["passes"]
    titles = {
        mark.title.split(":")[0]: mark.look
        for mark in figure.marks
        if re.search(r", (front|open|dominated)$", mark.title)
    }
    assert titles["tied"].fill == "page" and titles["good"].fill != "page"
    assert titles["waste"].opacity < 1 == titles["best"].opacity
