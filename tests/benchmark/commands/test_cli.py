"""The command line: what it prints, and that bad input is one clear line, exit code 2 and nothing half-written."""

from __future__ import annotations

import csv
import io
import json
import re
import resource
import shutil
import subprocess
import sys

import pytest
import torch

from tdabench.benchmark.commands import session
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.run.runner import Runner
from tdabench.datasets.truth import Assets
from tdabench.leaderboard.rows.row import row_key
from tdabench.leaderboard.views.sheet import FORMATS
from tdabench.methods.registry import listings

from ... import run_helpers
from ...run_helpers import plugin, run_cells

tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench

LABEL = "digits-tiny@1"
CALIBRATE = session.calibrate
RUN = ("run", "digits-tiny", "--methods", "random,pixel")


@pytest.fixture(autouse=True)
def _prepared(home, monkeypatch):
    """Every test here runs on the tiny truth, and none calibrates unless it asks to."""
    run_helpers.uncalibrated(monkeypatch)


@pytest.fixture(scope="module")
def finished(tiny_home, tmp_path_factory):
    """The results of one run, not to be written to."""
    folder = tmp_path_factory.mktemp("finished") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(tiny_home))
        run_cells(folder, ["random", "pixel"])
    return folder


@pytest.fixture
def results(finished, tmp_path):
    """A copy of them that a test may spoil."""
    return shutil.copytree(finished, tmp_path / "results")


@pytest.fixture
def spoilt(home, tmp_path, monkeypatch):
    """The task's truth in a home of its own, which a test may spoil."""
    shutil.copytree(home / "truth", tmp_path / "home" / "truth")
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "truth" / LABEL


def assert_mistake(answer, *words):
    """Assert that a command ended as a user's mistake, in one line that holds the words."""
    assert answer.code == 2, answer
    lines = answer.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), answer.err
    for word in words:
        assert str(word) in lines[0]


def row_file(folder, method):
    return next((folder / "rows").rglob(f"{method}@*/**/*.json"))


def assert_nothing_written(folder):
    assert not folder.exists() or [path.name for path in folder.iterdir()] == ["results.json"]


# names and values


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "digit-tiny"], ["unknown task 'digit-tiny'", "did you mean", "'digits-tiny'"]),
        (["run", "digits-tiny@7"], ["version 1, not '7'", LABEL]),
        (["run", "digits-tiny", "--methods", "pixl"], ["unknown method 'pixl'", "did you mean 'pixel'?"]),
        (["run", "digits-tiny", "--methods", "zzzzzz"], ["unknown method 'zzzzzz'", "known: ", "random"]),
        (["run", "digits-tiny", "--methods", "pixel:distanz"], ["preset of 'pixel'", "did you mean 'distance'?"]),
        (["run", "digits-tiny", "--preset", "quik"], ["'quik'", "did you mean", "'quick'"]),
        (["run", "digits-tiny", "--exclude", "pixl"], ["unknown method 'pixl'"]),
        (["run", "digits-tiny", "--methods", "pixel", "--exclude", "pixel"], ["no methods left"]),
        (["run", "digits-tiny", "--seeds", "x"], ["--seeds 'x'", "whole numbers"]),
        (["run", "digits-tiny", "--seeds", ","], ["--seeds ','", "whole numbers"]),
        (["run", "digits-tiny", "--device", "gpu9"], ["--device 'gpu9'", "use cpu, cuda"]),
        (["run", "digits-tiny", "--device", "meta"], ["--device 'meta'", "use cpu, cuda"]),
        (["run", "digits-tiny", "--timeout", "0"], ["--timeout"]),
        (["run", "digits-tiny", "--jobs", "-1"], ["--jobs"]),
        (["run", "digits-tiny", "--memory", "-1"], ["--memory"]),
        (["plan", "digits-tiny", "--methods", "pixl"], ["unknown method 'pixl'"]),
        (["plan", "digits-tiny", "--device", "gpu9"], ["--device 'gpu9'"]),
        (["tune", "pixl", "digits-tiny"], ["unknown method 'pixl'"]),
        (["tune", "random", "digits-tiny"], ["'random' declares no search space"]),
        (["tune", "pixel", "digits-tiny", "--only", "bandwith"], ["'bandwith'", "did you mean 'bandwidth'?"]),
        (["tune", "pixel", "digits-tiny", "--preset", "distanz"], ["'distanz'", "did you mean 'distance'?"]),
        (["tune", "pixel", "digits-tiny", "--trials", "-1"], ["--trials"]),
        (["check-method", "pixl"], ["unknown method 'pixl'"]),
        (["truth", "build", "digit-tiny"], ["unknown task 'digit-tiny'"]),
        (["truth", "build", "digits-tiny", "--workers", "-1"], ["--workers"]),
        (["truth", "verify", "digits-tiny", "--sample", "21"], ["--sample", "20"]),
        (["truth", "verify", "digits-tiny", "--sample", "-1"], ["--sample"]),
        (["truth", "info", "digit-tiny"], ["unknown task 'digit-tiny'"]),
        (["leaderboard", "--format", "html"], ["--format 'html'", "markdown"]),
        (["leaderboard", "--results", "/nowhere"], ["/nowhere", "does not exist"]),
    ],
    ids=" ".join,
)
def test_a_mistake_in_the_words_is_one_line(words, said, tdabench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_mistake(tdabench(*words), *said)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_a_mistake(tdabench, tmp_path):
    answer = tdabench(*RUN, "--device", "cuda", "--results", tmp_path / "results")
    assert_mistake(answer, "--device cuda", "no CUDA device", "--device cpu")
    assert_nothing_written(tmp_path / "results")


def test_seeds_named_twice_run_once(tdabench, tmp_path):
    answer = tdabench("run", "digits-tiny", "--methods", "random", "--seeds", "1,1,0", "--results", tmp_path)
    assert answer.code == 0, answer
    assert [row.key.seed for row in Results(tmp_path).all_rows()] == [0, 1]


def test_a_task_without_truth_says_how_to_get_one(tdabench, tmp_path, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "empty"))
    assert_mistake(tdabench(*RUN, "--results", tmp_path / "results"), "tdabench truth build digits-tiny")
    assert_nothing_written(tmp_path / "results")


# plugins

REGISTERED = "from tdabench.methods.base import Method, register\n\n@register({name})\nclass A(Method):\n    {body}\n"
PLUGINS = {
    "unimportable": ("import not_there_at_all\n" + REGISTERED.format(name='"own"', body="pass"), "not_there_at_all"),
    "talkative": (REGISTERED.format(name='"own"', body="raise ValueError('one\\n\\ntwo')"), "one two"),
    "unwilling": (REGISTERED.format(name='"own"', body="raise SystemExit(0)"), "SystemExit"),
    "misspelt": ("def f(:\n", "is not valid Python"),
    "binary": ("\0", "is not valid Python"),
    "empty": ("x = 1\n", "registers no method"),
    "clash": (REGISTERED.format(name='"pixel"', body="pass"), "two methods are called 'pixel'"),
    "twins": (REGISTERED.format(name='"own"', body="pass") * 2, "two methods are called 'own'"),
    "needy": (REGISTERED.format(name='"own"', body='needs = ("gold",)'), "gold"),
    "computed": (REGISTERED.format(name='"own"', body="version = int(1)"), "must be a literal"),
    "nameless": ("NAME = 'own'\n" + REGISTERED.format(name="NAME", body="pass"), "literal"),
    "anonymous": (REGISTERED.format(name="", body="pass"), "literal"),
}


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_that_is_none_is_one_line(name, tdabench, tmp_path):
    text, said = PLUGINS[name]
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    answer = tdabench("run", "digits-tiny", "--plugin", path, "--results", tmp_path / "results")
    assert_mistake(answer, path, said)
    assert_nothing_written(tmp_path / "results")


@pytest.mark.parametrize("command", ["run digits-tiny", "plan digits-tiny", "tune own digits-tiny", "list"])
def test_a_plugin_that_does_not_exist_is_one_line(command, tdabench, tmp_path):
    assert_mistake(tdabench(*command.split(), "--plugin", tmp_path / "none.py"), tmp_path / "none.py", "No such file")


def test_listing_an_empty_plugin_says_so(tdabench, tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert_mistake(tdabench("list", "--plugin", tmp_path / "empty.py"), tmp_path / "empty.py", "registers no method")


# damaged truth


@pytest.mark.parametrize("name", ["problem.safetensors", "truth-report.safetensors"])
@pytest.mark.parametrize("spoil", ["truncated", "edited", "missing"])
def test_a_run_on_a_damaged_truth_computes_nothing(name, spoil, spoilt, tdabench, tmp_path):
    path = spoilt / name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if spoil == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    if spoil == "missing":
        path.unlink()
    assert_mistake(tdabench(*RUN, "--results", tmp_path / "results"), path)
    assert_nothing_written(tmp_path / "results")


@pytest.mark.parametrize("text", ["", '{"schema_version": 1,', "[]", '{"schema_version": 7}', '{"schema_version": 1}'])
def test_a_damaged_manifest_is_one_line(text, spoilt, tdabench, tmp_path):
    (spoilt / "manifest.json").write_text(text)
    assert_mistake(tdabench(*RUN, "--results", tmp_path / "results"), "manifest.json")
    assert_nothing_written(tmp_path / "results")


@pytest.mark.parametrize("words", [["truth", "info"], ["truth", "verify"], ["truth", "export"]], ids=" ".join)
def test_commands_on_truth_check_its_hashes(words, spoilt, tdabench, tmp_path):
    path = spoilt / "truth-report.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    archive = [tmp_path / "x.tar"] if "export" in words else []
    assert_mistake(tdabench(*words, "digits-tiny", *archive), path)
    assert not (tmp_path / "x.tar").exists()


# damaged results


@pytest.mark.parametrize("command", ["run", "leaderboard"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[: len(text) // 2], "is not valid JSON"),
        (lambda text: text.replace('"status": "ok"', '"status": "great"'), "status"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 9'), "schema version 9"),
        (lambda text: text.replace('"seed": 0', '"seed": 5'), "another cell"),
        (lambda text: text.replace('"n_nan": 0', '"n_nan": 0, "extra": 1'), "extra"),
    ],
    ids=["truncated", "edited", "other schema", "moved", "with an extra field"],
)
def test_a_damaged_row_is_named_and_left_as_it_is(command, change, said, results, tdabench):
    path = row_file(results, "pixel")
    text = change(path.read_text())
    path.write_text(text)
    answer = tdabench(*(RUN if command == "run" else ["leaderboard"]), "--results", results)
    assert_mistake(answer, path, said)
    assert path.read_text() == text


@pytest.mark.parametrize("text", ['{"schema_version": 2}', "[]", "{"])
def test_a_results_folder_of_another_schema_version_is_refused(text, results, tdabench):
    (results / "results.json").write_text(text)
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert_mistake(tdabench(*RUN, "--force", "--results", results), results)
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


def test_a_folder_of_unknown_results_is_refused(results, tdabench):
    (results / "results.json").unlink()
    assert_mistake(tdabench(*RUN, "--results", results), results, "no results.json")


def test_a_results_folder_that_is_a_file_is_refused(tdabench, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert_mistake(tdabench(*RUN, "--results", tmp_path / "file"), tmp_path / "file", "is a file")
    assert_mistake(
        tdabench(*RUN, "--results", tmp_path / "file" / "below"), tmp_path / "file" / "below", "cannot write"
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_scores_that_were_edited_are_found_when_they_are_used(results, spoilt, tdabench):
    next((results / "cells").rglob("pixel@*/**/*.safetensors")).write_bytes(b"x")
    another_truth = {"target": "another"}  # so that rows are scored again
    run_helpers.edit_manifest(spoilt, lambda manifest: manifest.update(another_truth))
    assert_mistake(tdabench(*RUN, "--results", results), "slice-00000-00006.safetensors", "--force")


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_truth_of_other_images_is_a_mistake(command, spoilt, tdabench, tmp_path):
    fingerprint = {"fingerprint": "0" * 64}
    run_helpers.edit_manifest(spoilt, lambda manifest: manifest["dataset"].update(fingerprint))
    folder = ["--results", str(tmp_path / "results")] if command == "run" else []
    assert_mistake(tdabench(command, "digits-tiny", "--methods", "pixel", *folder), "are not those that")
    assert not (tmp_path / "results" / "rows").exists()


def test_a_full_disk_leaves_no_part_and_what_was_computed_is_used_later(tdabench, tmp_path):
    log, folder = tmp_path / "log", tmp_path / "results"
    path = plugin(tmp_path, "notes", f"print('called', file=open({str(log)!r}, 'a'))")
    words = ["run", "digits-tiny", "--methods", "notes", "--plugin", path, "--no-isolation", "--results", folder]
    run_cells(tmp_path / "other", ["random"])  # the fork server is up before files are limited
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))  # scores fit, a row with its replicates does not
    try:
        answer = tdabench(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_mistake(answer, "cannot write", folder / "rows", "free space")
    assert not [path for path in folder.rglob("*.json") if "rows" in path.parts]
    assert not list(folder.rglob("*.part"))
    assert tdabench(*words).code == 0
    assert log.read_text() == "called\n"


def test_a_home_that_cannot_be_written_is_one_line(tdabench, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "file" / "home"))
    assert_mistake(tdabench("truth", "build", "digits-tiny"), tmp_path / "file" / "home")


# what is printed


def test_help_list_and_leaderboard_start_light(finished):
    code = f"""if True:
        import sys
        from tdabench.benchmark.commands.cli import main
        lists = (["list", "tasks"], ["list", "datasets"], ["leaderboard", "--results", {str(finished)!r}])
        for words in (["--help"], ["run", "--help"], ["list"], *lists):
            sys.argv = ["tdabench", *words]
            try:
                main()
            except SystemExit as end:
                assert not end.code, (words, end.code)
            heavy = {{"torch", "diffusers", "trak", "datasets", "sklearn", "scipy"}} & set(sys.modules)
            assert not heavy, (words, heavy)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_list_names_every_task_and_method(tdabench, tmp_path):
    path = plugin(tmp_path, "of-my-own")
    answer = tdabench("list", "--plugin", path)
    assert answer.code == 0
    for name in ("digits", "digits-tiny", "of-my-own", *listings()):
        assert name in answer.out


def test_list_shows_brackets_of_a_summary(tdabench, tmp_path):
    path = plugin(tmp_path, "tensor")
    path.write_text(path.read_text().replace('"""Scores', '"""[q, n] scores'))
    assert "[q, n]" in tdabench("list", "--plugin", path).out


def test_plan_prints_a_line_for_every_method(tdabench, monkeypatch, tmp_path):
    monkeypatch.setattr(session, "calibrate", CALIBRATE)
    path = plugin(tmp_path, "of-my-own")
    answer = tdabench("plan", "digits-tiny", "--plugin", path)
    assert answer.code == 0, answer
    lines = {line.split()[1]: line for line in answer.out.splitlines() if ":quick" in line}
    assert set(lines) == {f"{name}:quick" for name in (*listings(), "of-my-own")}
    assert lines["of-my-own:quick"].count("unknown") == 5
    assert "s without 1 of which no time is known, on one core" in answer.out
    assert f"{4 * (60 + 6):,}" in lines["d-trak:quick"]


def test_a_finished_run_runs_nothing_and_prints_the_table(results, tdabench, monkeypatch):
    monkeypatch.setattr(Runner, "_start", None)
    answer = tdabench(*RUN, "--results", results)
    assert answer.code == 0
    assert "all 2 cells have their rows, nothing to run" in answer.out
    assert "pixel" in answer.out and "random" in answer.out and str(results) in answer.out


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_leaderboard_in_every_format(format, finished, tdabench):
    answer = tdabench("leaderboard", "digits-tiny", "--results", finished, "--format", format)
    assert answer.code == 0
    read = {
        "json": lambda text: {line["method"].split("@")[0] for table in json.loads(text) for line in table["lines"]},
        "csv": lambda text: {record["method"].split("@")[0] for record in csv.DictReader(io.StringIO(text))},
    }.get(format, lambda text: {name for name in ("pixel", "random") if name in text})
    assert read(answer.out) == {"pixel", "random"}


def test_leaderboard_shows_failures(results, tdabench):
    run_cells(results, ["broken"], [plugin(results.parent, "broken", "raise ValueError('[no] luck')")])
    answer = tdabench("leaderboard", "--results", results)
    assert answer.code == 0
    assert re.search(r"broken\S* quick \(seed 0\): error: ValueError: \[no\] luck", answer.out)


def test_leaderboard_without_rows_says_so(results, tdabench):
    assert_mistake(tdabench("leaderboard", "digits", "--results", results), "no test rows of 'digits'")


# verifying truth


def test_verify_finds_the_same_bits(tdabench):
    answer = tdabench("truth", "verify", "digits-tiny", "--sample", "2")
    assert answer.code == 0, answer
    files = run_helpers.assets().manifest["files"]
    assert f"all {len(files)} files match" in answer.out and answer.out.count("equal bits") == 2


def test_another_process_that_builds_is_waited_for(home, tdabench):
    from tdabench.store import FolderStore

    with FolderStore(home).claim(f"build-{LABEL}") as held:
        assert held
        assert_mistake(tdabench("truth", "build", "digits-tiny"), "another process is building", LABEL)


# tuning


def test_tuning_touches_no_report_truth_and_prints_params(spoilt, tdabench, tmp_path, monkeypatch):
    (spoilt / "truth-report.safetensors").unlink()  # for this process and for those of the cells
    truth, roles = Assets.truth, []
    monkeypatch.setattr(Assets, "truth", lambda assets, role: roles.append(role) or truth(assets, role))
    words = ["tune", "pixel", "digits-tiny", "--only", "similarity", "--trials", "0", "--results", tmp_path / "results"]
    answer = tdabench(*words)
    assert answer.code == 0, answer
    assert set(roles) == {"open"}
    rows = Results(tmp_path / "results").all_rows()
    assert sorted(row.key.params["similarity"] for row in rows) == ["cosine", "distance", "rbf"]
    assert {row.key.query_set for row in rows} == {"dev"}
    best = max(rows, key=lambda row: sum(result.mean for result in row.metrics.lds.values()))
    assert json.loads(answer.out.strip().splitlines()[-1]) == best.key.params
    assert all((tmp_path / "results" / "rows" / row_key(row.key)).exists() for row in rows)


def test_nothing_of_a_run_is_left_outside_its_folder(tdabench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tdabench(*RUN, "--results", "own").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
    assert not list((tmp_path / "own").rglob("scratch"))
