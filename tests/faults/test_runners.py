"""Several runs on one folder, folders that cannot be written, plugins that raise anything: nothing twice, one line.

Two runs at once; ``TDABENCH_RUNNERS=8`` starts that many.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tdabench.benchmark.run.plan import Options
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.run.runner import Busy, Runner, claims_of

from .. import run_helpers
from ..run_helpers import TASK, environment, numbers, plugin, run_cells

RUNNERS = int(os.environ.get("TDABENCH_RUNNERS", "2"))
COMMAND = [sys.executable, "-m", "tdabench.benchmark.commands.cli"]
HELD = "another tdabench is running notes-0@1 on digits-tiny@1 into"
NAMES = [f"notes-{i}" for i in range(4)]
NOTES = "time.sleep(0.5)\nwith open(os.environ.get('TDABENCH_MARKS', os.devnull), 'a') as marks: marks.write('{}\\n')"

tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench


def together(home: Path, folder: Path, words: Sequence[Sequence[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Start commands at once in a folder, and wait for all."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = environment(home) | {"TDABENCH_MARKS": str(folder / "marks")}
    started = [subprocess.Popen([*COMMAND, *one], cwd=folder, env=env, **pipes) for one in words]
    ended = [(process, *process.communicate(timeout=600)) for process in started]
    return [subprocess.CompletedProcess(process.args, process.returncode, out, err) for process, out, err in ended]


@pytest.fixture(scope="module")
def single(tiny_home, tmp_path_factory):
    """Plugins that leave a mark whenever they score, and the rows of a single run."""
    folder = tmp_path_factory.mktemp("single")
    files = [plugin(folder, name, NOTES.format(name)) for name in NAMES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(tiny_home))
        rows = run_cells(folder / "results", NAMES, files)
    return files, {name: numbers(row) for name, row in rows.items()}


def words_of(files: Sequence[Path], names: Sequence[str], *more: str) -> list[str]:
    plugins = [word for path in files for word in ("--plugin", str(path))]
    return ["run", TASK, "--methods", ",".join(names), "--results", "results", "--no-isolation", *plugins, *more]


def scored(folder: Path) -> list[str]:
    """Return the methods that were asked for scores, once for each time."""
    return sorted((folder / "marks").read_text().split())


def found(folder: Path) -> dict[str, object]:
    return {row.key.method: numbers(row) for row in Results(folder / "results").all_rows()}


def test_of_runs_started_at_once_one_runs_and_the_others_say_so(single, home, tmp_path):
    files, expected = single
    answers = together(home, tmp_path, [words_of(files, NAMES)] * RUNNERS)
    refused = [answer for answer in answers if answer.returncode]
    assert len(refused) < RUNNERS
    for answer in refused:
        assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer
        assert answer.stderr.startswith(f"error: {HELD}") and "--wait" in answer.stderr
    assert found(tmp_path) == expected and scored(tmp_path) == NAMES


def test_runs_that_wait_come_one_after_the_other_and_compute_nothing_twice(single, home, tmp_path):
    files, expected = single
    answers = together(home, tmp_path, [words_of(files, NAMES, "--wait")] * RUNNERS)
    assert [answer.returncode for answer in answers] == [0] * RUNNERS, answers
    assert found(tmp_path) == expected and scored(tmp_path) == NAMES


def test_disjoint_runs_on_one_folder_go_side_by_side(single, home, tmp_path):
    files, expected = single
    answers = together(home, tmp_path, [words_of(files, NAMES[:2]), words_of(files, NAMES[2:])])
    assert [answer.returncode for answer in answers] == [0, 0], answers
    assert found(tmp_path) == expected and scored(tmp_path) == NAMES


def test_runs_that_share_a_cell_score_it_once(single, home, tmp_path):
    files, expected = single
    first, second = words_of(files, NAMES[:3], "--wait"), words_of(files, NAMES[1:], "--wait")
    answers = together(home, tmp_path, [first, second])
    assert [answer.returncode for answer in answers] == [0, 0], answers
    assert found(tmp_path) == expected and scored(tmp_path) == NAMES


def test_a_cell_whose_member_is_run_elsewhere_is_refused_and_leaves_no_claim(home, tmp_path):
    member, other = run_helpers.plan(["random", "pixel"])
    ensemble, results = replace(other, members={"random:quick": member}), Results(tmp_path)
    held, free = claims_of([member]), claims_of([other])
    assert claims_of([ensemble]).keys() == held.keys() | free.keys()
    with (
        results.store.claim(*held),
        pytest.raises(Busy, match=r"is running random@1 on digits-tiny@1 into .* \(process \d+ on "),
    ):
        Runner(results, Options()).run([ensemble])
    assert all(results.store.holder(key) is None for key in held | free) and not results.all_rows()


RANDOM = ("run", TASK, "--methods", "random", "--results")


@pytest.fixture
def finished(home, tmp_path, monkeypatch):
    """The results of a run."""
    run_helpers.uncalibrated(monkeypatch)
    run_cells(tmp_path / "results", ["random"])
    return tmp_path / "results"


def test_a_folder_that_is_mounted_read_only_is_no_mistake_with_nothing_to_run(finished, home):
    mount = 'mount --bind -o ro "$0" "$0" && ! touch "$0/x" 2>&- && exec "$@"'
    unshare = ["unshare", "-m", "sh", "-c", mount, str(finished)]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no folder can be mounted read-only here")
    for more, code, said in (((), 0, "nothing to run"), (("--force",), 2, "Read-only file system")):
        words = [*unshare, *COMMAND, *RANDOM, str(finished), *more]
        answer = subprocess.run(words, env=environment(home), capture_output=True, text=True, timeout=300)
        assert answer.returncode == code and said in answer.stdout + answer.stderr, answer
        assert answer.stderr.count("\n") == bool(code)


@pytest.mark.parametrize("place", ["logs", "logs/digits-tiny@1"])
def test_a_file_in_place_of_a_folder_is_one_line(place, finished, tdabench):
    shutil.rmtree(finished / place, ignore_errors=True)
    (finished / place).write_text("x")
    answer = tdabench(*RANDOM, finished, "--force")
    assert answer.code == 2 and answer.err.count("\n") == 1 and str(finished / place) in answer.err, answer


ENDS = ("BaseException('x')", "KeyboardInterrupt", "SystemExit(0)", "SystemExit('x')", "GeneratorExit", "MemoryError")


@pytest.mark.parametrize("end", ENDS)
def test_a_plugin_that_raises_anything_when_it_is_imported_is_one_line(end, home, tmp_path, tdabench):
    method, task = plugin(tmp_path, "ends"), tmp_path / "brings.py"
    method.write_text(method.read_text().replace("import torch\n", f"import torch\nraise {end}\n", 1))
    task.write_text(
        f"from tdabench.benchmark.tasks.digits_tiny import TASK as T\nraise {end}\nTASK = replace(T, name='b')\n"
    )
    commands = ((TASK, "--methods", "ends", "--plugin", method), ("b", "--methods", "random", "--plugin", task))
    for words in commands:
        answer = tdabench("run", *words, "--results", tmp_path / "results")
        assert answer.code == 2 and answer.err.count("\n") == 1, answer
        assert answer.err.startswith("error: ") and str(words[-1]) in answer.err
