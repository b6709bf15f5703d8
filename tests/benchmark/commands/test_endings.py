"""Whatever lies where a file should be, wherever output goes, whoever ends it: one line, its code, work kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import typer

from tdabench.benchmark.commands.cli import app
from tdabench.benchmark.commands.ending.signals import Stopped, farewell
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.run.runner import claims_of
from tdabench.store import FolderStore

from ... import run_helpers
from ...run_helpers import plugin, run_cells, survivors

tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench
RUN = ("run", "digits-tiny", "--methods", "random", "--results")
DEEP = "[" * 100_000 + "]" * 100_000
COMMAND = [sys.executable, "-m", "tdabench.benchmark.commands.cli"]


@pytest.fixture(scope="module")
def finished(tiny_home, tmp_path_factory):
    """The results of one run, not to be written to."""
    folder = tmp_path_factory.mktemp("finished") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(tiny_home))
        run_cells(folder, ["random"])
    return folder


@pytest.fixture
def results(finished, home, tmp_path, monkeypatch):
    """A copy of them that a test may spoil, in the folder that commands run in."""
    run_helpers.uncalibrated(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(finished, tmp_path / "results")


def assert_one_line(answer, *words):
    assert answer.code == 2 and answer.err.startswith("error: ") and answer.err.count("\n") == 1, answer
    for word in words:
        assert str(word) in answer.err


# what lies where a file should be


def deep(path):
    path.write_text(DEEP)


def link(path):
    outside = next(parent for parent in path.parents if parent.name == "results").parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def folder(path):
    path.unlink()
    path.mkdir()


def file(path):
    shutil.rmtree(path)
    path.write_text("x")


ROW, COSTS, SCORES = "rows/**/*seed0.json", "cells/**/slice*.json", "cells/**/slice*.safetensors"
PLACES = {
    "deep row": (deep, ROW, ("run", "leaderboard", "verify-rows")),
    "deep results.json": (deep, "results.json", ("run", "verify-rows")),
    "linked row": (link, ROW, ("run", "leaderboard", "verify-rows")),
    "linked results.json": (link, "results.json", ("run", "verify-rows")),
    "folder as results.json": (folder, "results.json", ("run",)),
    "folder as row": (folder, ROW, ("run",)),
    "file as cells": (file, "cells", ("run",)),
}
WORDS = {"run": RUN, "leaderboard": ("leaderboard", "--results"), "verify-rows": ("verify-rows",)}


@pytest.mark.parametrize("name", PLACES)
def test_what_is_no_file_of_results_is_one_line(name, results, tdabench):
    spoil, place, commands = PLACES[name]
    path = next(results.glob(place))
    spoil(path)
    for command in commands:
        assert_one_line(tdabench(*WORDS[command], results), results)


@pytest.mark.parametrize("spoil", [deep, link, folder])
def test_a_record_that_cannot_be_read_is_named_and_made_again(spoil, results, tdabench):
    spoil(next(results.glob("cells/**/inputs.json")))
    answer = tdabench(*RUN, results)
    assert answer.code == 0 and "is damaged, so its cell starts anew" in answer.err, answer
    assert "nothing to run" in tdabench(*RUN, results).out


@pytest.mark.parametrize(("spoil", "place"), [(deep, COSTS), (folder, SCORES), (folder, COSTS)])
def test_scores_that_cannot_be_read_differ_and_end_no_command(spoil, place, results, tdabench):
    spoil(next(results.glob(place)))
    assert tdabench("verify-rows", results).code == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to this user")
def test_a_read_only_folder_with_nothing_to_run_is_no_mistake(results, tdabench):
    for path in [results, *results.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    answer = tdabench(*RUN, results)
    for path in [results, *results.rglob("*")]:
        path.chmod(0o755)
    assert answer.code == 0 and "nothing to run" in answer.out


# words

LONG = "x" * 300
MISTAKES = {
    **{f"--memory {value}": (*RUN, "results", "--memory", value) for value in ("1e300", "nan", "-1", "inf", "1e-9")},
    "--jobs 10^40": (*RUN, "results", "--jobs", str(10**40)),
    **{f"--timeout {value}": (*RUN, "results", "--timeout", value) for value in ("nan", "-1", "inf")},
    "long results": (*RUN, LONG),
    "many long results": (*RUN, "/".join([LONG[:200]] * 25)),
    "long method": ("run", "digits-tiny", "--methods", LONG),
    "long task": ("run", LONG),
    "long plugin": (*RUN, "results", "--plugin", f"{LONG}.py"),
    "long rows": ("verify-rows", LONG),
    "long leaderboard": ("leaderboard", "--results", LONG),
    "long readme": ("leaderboard", "--readme", LONG),
    "long report": ("report", "--results", "results", "-o", LONG),
    "long baseline": ("check", "--current", LONG),
    "long output": ("check", "--baseline", "results", "--current", "results", "-o", LONG),
    "long archive": ("truth", "import", LONG),
    "long export": ("truth", "export", "digits-tiny", LONG),
    "long truth": ("truth", "build", "digits-tiny", "--out", LONG),
    "long submission": ("submit", "verify", LONG),
    "long name": ("new-method", LONG),
    "seed of 5,000 digits": (*RUN, "results", "--seeds", "1" * 5000),
    "binary readme": ("leaderboard", "digits", "--readme", "binary"),
    "folder as readme": ("leaderboard", "digits", "--readme", "results"),
    "pipe as readme": ("leaderboard", "digits", "--readme", "pipe.py"),
    "pipe as archive": ("truth", "import", "pipe.py"),
    "folder as archive": ("truth", "import", "results"),
    "long pictures": ("attribute", "--model", "results", "--images", LONG, "-o", "out"),
    "long model": ("attribute", "--model", LONG, "--images", "results", "-o", "out"),
    "long plan": ("plan", LONG),
    "metric of a plan": ("plan", "digits-tiny", "--metrics", "lds"),
    "long tune": ("tune", "pixel", LONG),
    "parameter of none": ("tune", "pixel", "digits-tiny", "--only", "x" * 5000),
    "long ablation": ("ablate", "mucs", LONG),
    "ablation of none": ("ablate", "mucs", "digits-tiny", "--only", "\x1b[31m"),
    "long ensembles": ("ensembles", LONG),
    "members of none": ("ensembles", "digits-tiny", "--methods", LONG),
    "long picture": ("show", LONG, "digits-tiny", "--results", "results"),
    "long list": ("list", LONG),
    "port 70000": ("report", "--results", "results", "--serve", "--port", "70000"),
    "port -5": ("report", "--results", "results", "--serve", "--port", "-5"),
    "long check": ("check-method", LONG),
    "preset of none": ("check-method", "pixel", "--preset", LONG),
    "rows of a file": ("seal-rows", "binary"),
    "long seal": ("seal-rows", LONG),
    "long verify": ("truth", "verify", LONG),
    "long info": ("truth", "info", LONG),
    "sample of none": ("truth", "verify", "digits-tiny", "--sample", "-1"),
    "long samples": ("truth", "samples", "digits-tiny", LONG),
    "long fetch": ("data", "fetch", LONG),
    "long copy": ("data", "fetch", "cifar10", "--data", LONG),
    "binary copy": ("data", "fetch", "cifar10", "--data", "binary"),
    "long data": ("data", "verify", LONG),
    "long card": ("data", "info", LONG),
    "long pack": ("submit", "pack", "--method", LONG, "--results", "results", "-o", "x.tar"),
    "pack of a file": ("submit", "pack", "--method", "pixel", "--results", "binary", "-o", "x.tar"),
}
WITHOUT_WORDS = {"doctor"}


def lay_out(place):
    """Write what the commands of a test name: a pipe, a folder, a device, files that are no text."""
    os.mkfifo(place / "pipe.py")
    (place / "folder.py").mkdir()
    (place / "device.py").symlink_to("/dev/zero")
    (place / "loop.py").symlink_to("loop.py")
    (place / "gone.py").symlink_to("nowhere")
    (place / "empty.py").write_bytes(b"")
    for name in ("binary", "binary.py"):
        (place / name).write_bytes(bytes(range(256)))
    (place / "deep.py").write_text("x = " + "-" * 200_000 + "1")
    for name, line in {"exits": "os._exit(0)", "leaves": "sys.exit(0)", "stops": "raise GeneratorExit"}.items():
        path = plugin(place, name)
        path.write_text(path.read_text().replace("import torch\n", f"import torch\n{line}\n", 1))


def test_every_command_has_words_that_it_cannot_use():
    def names(command, before=()):
        for name, inner in getattr(command, "commands", {}).items():
            yield from names(inner, (*before, name))
        if before and not hasattr(command, "commands"):
            yield " ".join(before)

    tried = {" ".join(words[:length]) for words in MISTAKES.values() for length in (1, 2)}
    assert set(names(typer.main.get_command(app))) - tried == WITHOUT_WORDS


@pytest.mark.parametrize("name", MISTAKES)
def test_words_that_no_command_can_use_are_one_line(name, results, tdabench):
    lay_out(results.parent)
    assert_one_line(tdabench(*MISTAKES[name]))


PLUGINS = ("pipe", "folder", "device", "loop", "gone", "empty", "binary", "deep", "exits", "leaves", "stops")


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_that_is_none_or_ends_its_process_is_one_line(name, results, tdabench):
    lay_out(results.parent)
    words = ("run", "digits-tiny", "--methods", name if name in PLUGINS[-3:] else "random", "--results", "results")
    assert_one_line(tdabench(*words, "--plugin", f"{name}.py"), f"{name}.py")
    assert os._exit.__module__ == "posix"


def test_a_seed_may_have_forty_digits(results, tdabench):
    assert tdabench(*RUN, results, "--seeds", "1" * 40).code == 0
    assert {row.key.seed for row in Results(results).all_rows()} == {0, int("1" * 40)}


# streams

SHOW = ("leaderboard", "--results", "results")
STREAMS = {
    "ascii": (SHOW, "PYTHONIOENCODING=ascii {} > out", 0, ""),
    "closed": (SHOW, "{} >&-", 0, ""),
    "both closed": (SHOW, "{} >&- 2>&-", 0, ""),
    "a full disk": (SHOW, "{} > /dev/full", 2, "error: cannot write to standard output: No space left on device"),
    "a closed pipe": (SHOW, "set -o pipefail; {} | head -c 1 > out", 0, ""),
    "a run, a full disk": ((*RUN, "own"), "{} > /dev/full", 2, "error: cannot write to standard output"),
    "a run, a closed pipe": ((*RUN, "own"), "set -o pipefail; {} | head -c 1 > out", 0, ""),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if RUN[0] in words else ()) for name, (words, *_) in STREAMS.items()],
)
def test_output_that_cannot_be_written_takes_nothing_away(name, results, home):
    words, line, code, said = STREAMS[name]
    done = subprocess.run(
        ["bash", "-c", line.format(" ".join([*COMMAND, *words]))],
        env=run_helpers.environment(home),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code and done.stderr.startswith(said), done
    assert done.stderr.count("\n") == bool(said)
    assert [row.status for row in Results(words[-1]).all_rows()] == ["ok"]


# signals


STOPPED = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}
KEPT = {
    "run digits": "cells that ended, and slices",
    "truth build digits": "models that were trained",
    "truth export digits": "what was finished",
    "attribute problem.py": "what was read",
    "running": "what was finished",
}


@pytest.mark.parametrize("number", STOPPED)
@pytest.mark.parametrize("words", KEPT)
def test_who_stops_a_command_is_told_what_is_kept(words, number, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tdabench", *words.split(), "a b"])
    said = farewell(Stopped(number))
    assert said.startswith(f"{STOPPED[number]}: {KEPT[words]}") and said.endswith(f"to go on: tdabench {words} 'a b'")
    assert Stopped(number).code == 128 + number


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_says_what_is_kept_and_how_to_go_on(number, code, results, home):
    path = plugin(results.parent, "slow", "time.sleep(1 if queries.ids else 0)", slice_size=1)
    words = ["run", "digits-tiny", "--methods", "slow", "--plugin", path.name, "--results", "own"]
    process = subprocess.Popen(
        [*COMMAND, *words],
        env=run_helpers.environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not list((results.parent / "own").glob("cells/**/slice*.json")) and time.monotonic() < end:
        time.sleep(0.1)
    others = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)  # as a terminal does
    error = process.communicate(timeout=60)[1]
    assert process.returncode == code and error.count("\n") == 1, error
    assert error.startswith(f"{STOPPED[number]}: cells that ended"), error
    assert error.rstrip().endswith(" ".join(["to go on: tdabench", *words]))
    assert others and not survivors(others, within=15)
    assert not list((results.parent / "own").glob(".*.claim"))


# claims


def test_a_run_waits_for_another_of_the_same_cell_that_it_names(results, tdabench):
    """The other is a process that holds the claim for two seconds."""
    (key,) = claims_of(run_helpers.plan(["random"]))
    code = "import sys, time\nfrom tdabench.store import FolderStore\n"
    code += "with FolderStore(sys.argv[1]).claim(sys.argv[2]) as held:\n    print(held, flush=True)\n    time.sleep(2)"
    for wait in (False, True):
        with subprocess.Popen([sys.executable, "-c", code, results, key], stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None and other.stdout.readline() == "True\n"
            answer = tdabench(*RUN, results, "--force", *(["--wait"] if wait else []))
            named = f"process {other.pid} on "
            if wait:
                assert answer.code == 0 and f"waiting for {named}" in answer.out, answer
            else:
                assert_one_line(answer, "random@1", named, "--wait")


def test_the_holder_of_a_claim_is_known_while_it_holds(tmp_path):
    store = FolderStore(tmp_path)
    assert store.holder("run") is None
    with store.claim("run"):
        assert str(store.holder("run")).startswith(f"process {os.getpid()} on ")
    assert store.holder("run") is None
    (tmp_path / ".run.claim").write_text(json.dumps({"pid": 1}))
    assert store.holder("run") is None, "left half written"
