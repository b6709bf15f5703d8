"""The metric exemplars (docs/exemplars.md) on adapters with known answers, on a base model without subset truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tdabench.benchmark.commands.exemplars.cases import truth_of
from tdabench.benchmark.commands.exemplars.metric import exemplars, plan_exemplars
from tdabench.benchmark.commands.session import open_session
from tdabench.benchmark.run.plan import Options, Selection
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.tasks.find import find_task
from tdabench.benchmark.truth import build as truth
from tdabench.benchmark.truth.build import find_base
from tdabench.leaderboard.views.catalogue import build_view
from tdabench.models.problem import read_problem
from tdabench.store import FolderStore

from ... import run_helpers
from ...run_helpers import MEAN_SIMILARITY, TASK, N, plugin

tdabench = run_helpers.tdabench
CASES, SAMPLES = 8, 16  # of the tiny task: two ks, two strengths, two cases; two samples each

ORACLE = f"scores = scores * 0.0\nscores[:, {N}:] = 1.0"
MEAN = "scores = torch.stack([read(queries.ids) for read in view.stored_scores.values()]).mean(0)"
FAILS = f"if len(view.train) == {N} + 2: raise ValueError('too many')\n{ORACLE}"


@pytest.fixture(scope="module")
def base_home(tmp_path_factory):
    """A home with the base model and the cases, and no subset truth."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(folder))
        torch.set_num_threads(1)
        spec = find_task(TASK)
        cases = truth_of(spec, truth.prepare_base(spec, FolderStore(folder)).base, ())
        for run in cases.runs:
            cases.derive(run)
    return folder


@pytest.fixture(autouse=True)
def _own_home(base_home, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("TDABENCH_HOME", str(base_home))


def run(folder, names, files=()):
    """Run cells and then the metric, as `tdabench run --metrics exemplars` does; return the session and the rows."""
    run_helpers.forget_plugins()
    options = Options(timeout_s=300.0)
    session = open_session(TASK, folder, tuple(files), options, problem_only=True)
    cells = session.planner.selected(Selection(names, [], "quick", [0]))
    session.run(cells)
    exemplars(session, cells)
    return session, {cell.key.method: session.results.row(cell.key) for cell in cells}


def means(row):
    return {
        (scores.k, scores.steps, name): measure.mean
        for scores in row.metrics.exemplars.scores
        for name, measure in scores.measures.items()
    }


@pytest.fixture(scope="module")
def known(base_home, tmp_path_factory):
    """Rows of adapters with known answers: (folder, files, rows by method)."""
    folder = tmp_path_factory.mktemp("known")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(base_home))
        run_helpers.uncalibrated(patch)
        torch.set_num_threads(1)
        files = [
            plugin(folder, "oracle", ORACLE),
            plugin(folder, "noise"),
            plugin(folder, "fails", FAILS),
            plugin(folder, "mean", MEAN, needs=("stored-scores",), members=("oracle", "noise")),
            folder / "of_groups.py",
        ]
        files[-1].write_text(MEAN_SIMILARITY.format(name="of-groups", end="return scores"))
        names = ["mean", "oracle", "noise", "fails", "of-groups"]
        return folder / "results", files, run(folder / "results", names, files)[1]


def test_an_oracle_finds_every_exemplar(known):
    found = means(known[2]["oracle"])
    assert {key[:2] for key in found} == {(1, 2), (1, 25), (2, 2), (2, 25)}
    assert found == pytest.approx(dict.fromkeys(found, 1.0))
    assert means(known[2]["mean"]) == pytest.approx(found)  # noise is below 1, and so is half of it
    for scores in known[2]["oracle"].metrics.exemplars.scores:
        assert scores.cases == [0, 0, 1, 1] and len(scores.query_ids) == 4


def test_an_oracle_that_looks_at_no_query_finds_them_for_controls_too(known):
    for name in ("oracle", "fails"):
        for scores in known[2][name].metrics.exemplars.scores:
            values = scores.controls["ap"].values
            assert values == ([1.0] * 4 if name == "oracle" or scores.k == 1 else [None] * 4)


def test_random_scores_are_at_chance(known):
    row = known[2]["noise"]
    parts = [scores.measures["percentile"] for scores in row.metrics.exemplars.scores]
    values = [value for part in parts for value in part.values]
    assert len(values) == SAMPLES
    assert sum(values) / SAMPLES == pytest.approx(0.5, abs=4 * (1 / 12 / SAMPLES) ** 0.5)
    assert {part.chance for part in parts} == {0.5}


def test_rows_say_with_what_models_were_tuned(known):
    found = known[2]["oracle"].metrics.exemplars.provenance
    assert torch.__version__.startswith(found["torch"]) and found["device"] == "cpu"


def test_cases_that_fail_are_missing_with_their_reason(known):
    found = known[2]["fails"].metrics.exemplars
    assert set(found.skipped) == {f"exemplars-k2-steps{steps}-case{i}" for steps in (2, 25) for i in (0, 1)}
    assert all("ValueError: too many" in reason for reason in found.skipped.values())
    for scores in found.scores:
        assert scores.measures["ap"].values == ([1.0] * 4 if scores.k == 1 else [None] * 4)


def test_test_cells_have_no_lds_without_subset_truth_and_are_not_scored_again(known):
    rows = [row for name, row in known[2].items() if name != "of-groups"]
    assert all(row.status == "ok" and row.metrics.lds == {} and row.metrics.top.k == 6 for row in rows)
    assert known[2]["of-groups"].status == "skipped" and known[2]["of-groups"].metrics is None


def test_the_view_has_every_entry_beside_chance(known):
    sheets = build_view("exemplars", [row for row in Results(known[0]).all_rows() if row.key.query_set == "test"])
    assert [sheet.data["k"] for sheet in sheets] == [1, 2]
    for sheet in sheets:
        assert {line[1] for line in sheet.rows} == {"oracle@1", "mean@1", "noise@1", "fails@1", "chance"}
    assert any("too many" in note for note in sheets[1].notes)


def test_a_second_call_does_nothing_and_other_scores_are_measured_anew(known, tmp_path, capsys, monkeypatch):
    run_helpers.uncalibrated(monkeypatch)
    folder, files, rows = known
    times = {path: path.stat().st_mtime_ns for path in (folder / "rows").rglob("*.json")}
    assert len(times) == 5 + 4 * CASES
    assert run(folder, ["noise", "oracle"], files)[1] == {name: rows[name] for name in ("noise", "oracle")}
    assert {path: path.stat().st_mtime_ns for path in times} == times
    out = capsys.readouterr().out
    assert f"all {2 * CASES} cells have their rows, nothing to run" in out and "into 0 rows, 2 had them" in out


def test_stand_ins_are_as_many_as_the_cells_and_ask_as_much(known):
    run_helpers.forget_plugins()
    session = open_session(TASK, known[0], (known[1][-1],), Options(), problem_only=True)
    cells = session.planner.selected(Selection(["random", "of-groups"], [], "quick", [0]))
    found = plan_exemplars(session.spec, cells)
    assert len(found) == CASES and {len(cell.attributed_ids) for cell in found} == {4}
    assert {cell.key.method for cell in found} == {"random"}


# the command line


def test_a_run_without_a_base_model_says_what_to_build(tdabench, tmp_path, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "empty"))
    answer = tdabench("run", TASK, "--metrics", "exemplars", "--results", tmp_path / "results")
    assert answer.code == 2 and f"truth build {TASK} --kind exemplars" in answer.err
    answer = tdabench("run", TASK, "--metrics", "lds,exemplars", "--results", tmp_path / "results")
    assert answer.code == 2 and "has no ground truth here" in answer.err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--kind", "exemplar"), "unknown kind of truth 'exemplar': did you mean 'exemplars'?"),
        (("--kind", "exemplars", "--out", "x"), "--out is for subsets"),
        (("--kind", "exemplars", "--workers", "-1"), "--workers must not be negative"),
    ],
)
def test_mistakes_in_a_build_are_one_line(words, reason, tdabench):
    answer = tdabench("truth", "build", TASK, *words)
    assert answer.code == 2 and reason in answer.err and answer.err.count("\n") == 1


def test_a_plan_that_cannot_be_is_found_before_a_base_model_is_trained(tdabench, tmp_path, monkeypatch):
    file = tmp_path / "tasks.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from tdabench.benchmark.tasks import ExemplarPlan\n"
        "from tdabench.benchmark.tasks.digits_tiny import TASK as TINY\n"
        'LATE = replace(TINY, name="late", exemplars=ExemplarPlan(strengths=(0.5, 0.1)))\n'
        'MANY = replace(TINY, name="many", exemplars=replace(TINY.exemplars, cases=2000))\n'
        'TASKS = [replace(LATE, name="late"), replace(MANY, name="many")]\n'
    )
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    for task, reason in (("late", "let them rise"), ("many", "2000 cases of 2 items each")):
        answer = tdabench("truth", "build", task, "--kind", "exemplars", "--plugin", file)
        assert answer.code == 2 and reason in answer.err and answer.err.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_a_complete_truth_is_found_and_says_where_it_lies(tdabench, base_home):
    answer = tdabench("truth", "build", TASK, "--kind", "exemplars")
    out = " ".join(answer.out.split())
    assert answer.code == 0 and "to tune" not in out
    assert f"exemplar truth complete, {CASES} cases" in out and str(base_home / "derived") in out


def test_plans_count_the_cells_of_exemplars(tdabench, tmp_path):
    answer = tdabench("plan", TASK, "--methods", "random,pixel", "--metrics", "exemplars")
    assert answer.code == 0 and answer.out.count(f":quick, exemplars x{CASES}") == 2
    answer = tdabench("plan", TASK, "--metrics", "lds")
    assert answer.code == 2 and "unknown metric with cells of its own: 'lds'" in answer.err
    words = ("run", TASK, "--methods", "random", "--metrics", "exemplars", "--results", tmp_path / "r", "--dry-run")
    answer = tdabench(*words)
    assert answer.code == 0 and f"{CASES} of {CASES} cells to run" in " ".join(answer.out.split())


def test_a_picture_has_exemplars_and_samples_in_lines(tdabench, base_home, tmp_path, monkeypatch):
    path, spec = tmp_path / "exemplars.png", find_task(TASK)
    assert tdabench("truth", "samples", TASK, path, "--kind", "exemplars").code == 0
    with Image.open(path) as opened:
        picture = np.asarray(opened).astype(float) / 127.5 - 1
    made = truth_of(spec, find_base(spec, FolderStore(base_home)), ())
    cell, side = 52, 8 * 6  # an image of 8 pixels, enlarged, in a frame of 2
    for line, run in enumerate(made.runs):
        problems = [read_problem(made.assets(case).folder) for case in run]
        k, top = run[0].k, 16 + line * cell + 2
        columns = [problems[0].train.images[-k:], *(problem.queries.x[:2] for problem in problems)]
        for left, images in zip((0, 4 * cell + 16, 6 * cell + 24), columns, strict=True):
            for i, image in enumerate(images):
                start = left + i * cell + 2
                shown = picture[top : top + side : 6, start : start + side : 6, 0]
                np.testing.assert_allclose(shown, image[0].clamp(-1, 1).numpy(), atol=0.005)
    assert tdabench("truth", "samples", TASK, tmp_path / "alone.png", "--kind", "exemplars", "--alone").code == 0
    with Image.open(tmp_path / "alone.png") as opened:
        np.testing.assert_allclose(np.asarray(opened) / 127.5 - 1, picture[:, 2 * cell + 8 :])
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "empty"))
    answer = tdabench("truth", "samples", TASK, path, "--kind", "exemplars")
    assert answer.code == 2 and "--kind exemplars" in answer.err
