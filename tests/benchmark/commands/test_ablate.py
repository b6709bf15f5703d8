"""Ablations: the cells that are run, and a table that rows alone give, against SciPy and the rows' own replicates."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from tdabench.benchmark.commands import ablate as ablating
from tdabench.benchmark.metrics.scores import query_ids
from tdabench.benchmark.run.results import Results
from tdabench.errors import UserError
from tdabench.leaderboard.rows.row import row_key
from tdabench.leaderboard.views.ablations import ablation_sheets, build_ablations
from tdabench.leaderboard.views.sheet import render
from tdabench.methods.mucs import Mucs
from tdabench.methods.registry import preset_params

from ... import run_helpers

tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench

BODY = """
    Params = make_dataclass("Params", [("power", float, 1.0), ("sign", float, 1.0)], frozen=True)
    presets = {"paper": Params(power=5.0), "quick": Params()}
    ablations = {"flipped": {"sign": -1.0}, "same": {"power": 1.0}, "cubed": {"power": 3.0}}
"""
SCORED = "scores = self.params.sign * scores**self.params.power"
ROWS = ("quick", "quick+flipped", "quick+cubed")


@pytest.fixture(autouse=True)
def _prepared(home, monkeypatch):
    run_helpers.uncalibrated(monkeypatch)


def adapter(folder, attribute=SCORED):
    return run_helpers.plugin(folder, "own", attribute, body=BODY.strip())


@pytest.fixture
def ablated(tdabench, tmp_path):
    """The answer of a run over all ablations of an adapter, its rows and their folder."""
    answer = tdabench("ablate", "own", "digits-tiny", "--plugin", adapter(tmp_path), "--results", tmp_path / "results")
    assert answer.code == 0, answer
    return answer, Results(tmp_path / "results").all_rows(), tmp_path / "results"


def table_of(rows):
    (table,) = build_ablations(rows)
    return {variant.preset: variant for variant in table.variants}


def test_the_preset_and_what_differs_from_it_are_run_on_dev_queries(ablated):
    answer, rows, _ = ablated
    assert sorted(row.key.preset for row in rows) == sorted(ROWS)  # not own:quick+same, which is own:quick
    assert {(row.key.query_set, row.status) for row in rows} == {("dev", "ok")}
    assert {row.key.preset: row.key.params for row in rows} == {
        "quick": {"power": 1.0, "sign": 1.0},
        "quick+flipped": {"power": 1.0, "sign": -1.0},
        "quick+cubed": {"power": 3.0, "sign": 1.0},
    }
    assert answer.out.endswith(render(ablation_sheets(rows), "table", 100) + "\n")  # from rows alone


def test_scores_are_scipys_on_open_subsets(ablated):
    _, rows, folder = ablated
    truth, ids = run_helpers.assets().truth("open"), query_ids(run_helpers.assets().manifest, "dev")
    target = truth.target(ids)
    for row in rows:
        record = run_helpers.record_of(folder, row)
        scores = np.concatenate([record.scores(part) for part in record.parts()]).astype(float)
        predicted = (~truth.masks).astype(float) @ scores.T
        value = {query: spearmanr(predicted[:, i], target[:, i]).statistic for i, query in enumerate(ids)}
        variant = table_of(rows)[row.key.preset]
        means = {kind: np.mean([value[query] for query in lds.query_ids]) for kind, lds in row.metrics.lds.items()}
        assert {kind: shown.mean for kind, shown in variant.lds.items()} == pytest.approx(means, abs=1e-12)
        assert variant.overall.mean == pytest.approx(np.mean(list(means.values())), abs=1e-12)


def test_a_flipped_sign_is_told_apart_as_far_as_the_replicates_say(ablated):
    _, rows, _ = ablated
    table = table_of(rows)
    assert table["quick+flipped"].overall.mean == pytest.approx(-table["quick"].overall.mean, abs=1e-12)
    means = {row.key.preset: [lds.mean for lds in row.metrics.lds.values()] for row in rows}
    for name in ROWS[1:]:
        assert table[name].difference.mean == pytest.approx(np.mean(means[name]) - np.mean(means["quick"]), abs=1e-12)


def test_differences_are_paired_over_the_rows_replicates(ablated):
    _, rows, _ = ablated
    replicates = {
        row.key.preset: np.mean([np.array(lds.replicates, float) for lds in row.metrics.lds.values()], axis=0)
        for row in rows
    }
    for name in ROWS[1:]:
        paired = replicates[name] - replicates["quick"]
        low, high = np.quantile(paired[~np.isnan(paired)], [0.025, 0.975])
        shown = table_of(rows)[name].difference
        assert (shown.low, shown.high) == pytest.approx((low, high), abs=1e-12)
        unpaired = replicates[name] - replicates["quick"][::-1]
        assert shown.low != pytest.approx(np.nanquantile(unpaired, 0.025), abs=1e-6)


def test_variants_are_in_order_of_what_they_change_wherever_the_rows_come_from(ablated):
    _, rows, _ = ablated
    base = next(row for row in rows if row.key.preset == "quick")

    def changed(preset, **params):
        key = {
            "preset": preset,
            "params": base.key.params | params,
            "params_hash": f"{len(preset):04d}{ord(preset[-1]):04d}",
        }
        return base.model_copy(update={"key": base.key.model_copy(update=key)})

    added = [
        changed(f"quick+{name}", power=power) for name, power in (("b", 20.0), ("c", 100.0), ("d", 5.0), ("e", None))
    ]
    wanted = ["quick", "quick+cubed", "quick+d", "quick+b", "quick+c", "quick+e", "quick+flipped"]
    assert list(table_of([*rows, *added])) == list(table_of([*added[::-1], *rows[::-1]])) == wanted


def test_the_table_says_what_changed_and_what_it_cost(ablated):
    _, rows, _ = ablated
    (sheet,) = ablation_sheets(rows)
    cells = {line[0]: dict(zip(sheet.headings, line, strict=True)) for line in sheet.rows}
    assert next(iter(cells)) == "quick"
    assert {name: line["Changed"] for name, line in cells.items()} == {
        "quick": "-",
        "quick+flipped": "sign: 1.0 -> -1.0",
        "quick+cubed": "power: 1.0 -> 3.0",
    }
    assert cells["quick"]["Difference"] == "-" and cells["quick"]["Passes"] == "0"
    mean = table_of(rows)["quick"].overall.mean
    assert cells["quick"]["Mean"].startswith(f"{100 * mean:.1f} [")
    assert "dev queries" in sheet.title and any("not corrected" in note for note in sheet.notes)
    lines = json.loads(render([sheet], "json"))[0]["lines"]
    assert [line["changed"] for line in lines if line["preset"] == "quick+cubed"] == [{"power": [1.0, 3.0]}]


def test_passes_are_those_forward_and_backward(ablated):
    _, rows, _ = ablated
    cost = rows[0].cost.model_copy(
        update={"forward_passes": {"fit": 100, "attribute": 20}, "backward_passes": {"fit": 3}}
    )
    counted = [row.model_copy(update={"cost": cost}) for row in rows]
    assert {variant.passes for variant in table_of(counted).values()} == {123}


def test_rows_of_tuning_under_the_presets_name_do_not_stand_in_for_it(ablated):
    _, rows, _ = ablated
    base, cubed = (next(row for row in rows if row.key.preset == name) for name in ("quick", "quick+cubed"))
    for params, params_hash in (({"power": 2.0, "sign": 1.0}, "0" * 8), (cubed.key.params, cubed.key.params_hash)):
        tuned = base.model_copy(
            update={"key": base.key.model_copy(update={"params": params, "params_hash": params_hash})}
        )
        for order in ([tuned, *rows], [*rows, tuned]):
            assert table_of(order) == table_of(rows)


def test_only_dev_rows_of_an_ablated_preset_make_a_table(ablated):
    _, rows, _ = ablated
    test = [row.model_copy(update={"key": row.key.model_copy(update={"query_set": "test"})}) for row in rows]
    assert build_ablations(test) == build_ablations(row for row in rows if row.key.preset == "quick") == []
    with pytest.raises(UserError, match="tdabench ablate"):
        ablation_sheets(test)
    assert build_ablations([*rows, *test]) == build_ablations(rows)


def test_a_second_run_does_nothing_and_prints_the_same_table(ablated, tdabench, tmp_path):
    answer, rows, folder = ablated
    before = {row_key(row.key): (folder / "rows" / row_key(row.key)).stat().st_mtime_ns for row in rows}
    words = ["ablate", "own", "digits-tiny", "--plugin", tmp_path / "own.py", "--results", folder]
    again = tdabench(*words)
    assert again.code == 0 and "nothing to run" in again.out
    assert {name: (folder / "rows" / name).stat().st_mtime_ns for name in before} == before
    assert again.out[again.out.index("own@1") :] == answer.out[answer.out.index("own@1") :]


def test_only_the_named_ablations_are_run(tdabench, tmp_path):
    words = ["ablate", "own", "digits-tiny", "--plugin", adapter(tmp_path), "--results", tmp_path / "results"]
    assert tdabench(*words, "--only", "cubed,same").code == 0
    presets = [row.key.preset for row in Results(tmp_path / "results").all_rows()]
    assert sorted(presets) == ["quick", "quick+cubed"]


def test_a_failed_ablation_is_a_line_of_the_table(tdabench, tmp_path):
    own = adapter(tmp_path, SCORED + "\nif self.params.sign < 0: raise RuntimeError('upside down')")
    answer = tdabench("ablate", "own", "digits-tiny", "--plugin", own, "--results", tmp_path / "results")
    assert answer.code == 1
    assert "own@1 quick+flipped (seed 0): error: RuntimeError: upside down" in answer.out
    table = table_of(Results(tmp_path / "results").all_rows())
    assert table["quick+flipped"].status == "error" and table["quick+flipped"].overall.mean is None
    assert table["quick+cubed"].difference.mean is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["random"], "method 'random' declares no ablations"),
        (["mucs", "--preset", "quik"], "did you mean 'quick'"),
        (["mucs", "--preset", "quick+skew"], "unknown preset of 'mucs': 'quick+skew'"),
        (["mucs", "--only", "fresh-noize"], "did you mean 'fresh-noise'"),
        (["mucs", "--only", "difference"], "quick+difference: nothing that differs from mucs:quick"),
        (["mukz"], "unknown method 'mukz'"),
    ],
)
def test_a_mistake_is_one_line_and_runs_nothing(words, said, tdabench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *rest = words
    answer = tdabench("ablate", name, "digits-tiny", *rest)
    assert answer.code == 2 and said in answer.err and len(answer.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_equals_the_preset_of_mucs_is_left_out():
    names = ablating.variants(Mucs, "quick", [])
    own = preset_params(Mucs, "quick")
    assert names[0] == "quick" and len(set(names)) == len(names)
    assert all(preset_params(Mucs, name) != own for name in names[1:])
    left_out = {f"quick+{name}" for name in Mucs.ablations} - set(names)
    assert all(preset_params(Mucs, name) == own for name in left_out)
    assert "quick+fresh-noise" in names and "quick+steps-20" in left_out
