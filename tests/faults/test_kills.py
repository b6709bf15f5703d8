"""SIGKILL at any moment of a long command, again and again: the end is that of a command that nobody disturbed.

Two commands that take a second are killed once each; ``TDABENCH_KILLS=50`` kills every command that often.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tdabench.benchmark.run.results import Results
from tdabench.seeds import numpy_generator
from tdabench.store import file_hash

from .. import run_helpers
from ..run_helpers import TASK, environment, marked, numbers, survivors

KILLS = int(os.environ.get("TDABENCH_KILLS", "0"))
DOCS = Path(__file__).parents[2] / "docs"
MODEL = re.search(r"```python\n(.*?)```", (DOCS / "attribute.md").read_text(encoding="utf-8"), re.DOTALL)[1]
ARRAYS = {".safetensors", ".tar", ".csv", ".damaged"}

tiny_home = run_helpers.tiny_home


class Command(NamedTuple):
    """Words of a command, and what lies where it starts; short: whether it is killed where nothing else is asked."""

    words: tuple[str, ...]
    given: tuple[str, ...]
    short: bool = False


ATTRIBUTE = ("attribute", "--model", "model", "--images", "images", "--queries", "asked", "-o", "out")
COMMANDS = {
    "run": Command(("run", TASK, "--methods", "pixel,d-trak"), ("home/truth",)),
    "build": Command(("truth", "build", TASK), ()),
    "exemplars": Command(("truth", "build", TASK, "--kind", "exemplars"), ("home/base",)),
    "removal": Command(("run", TASK, "--methods", "random", "--metrics", "removal"), ("home/truth",)),
    "attribute": Command(ATTRIBUTE, ("model", "images", "asked")),
    "groups": Command(("truth", "build", f"{TASK}-groups"), ()),
    "sanity": Command(("run", TASK, "--methods", "pixel", "--metrics", "sanity"), ("home/truth",)),
    "exemplars found": Command(("run", TASK, "--methods", "pixel", "--metrics", "exemplars"), ("home/truth",)),
    "tune": Command(("tune", "pixel", TASK, "--trials", "3"), ("home/truth",)),
    "import": Command(("truth", "import", "truth.tar"), ("truth.tar",), True),
    "export": Command(("truth", "export", TASK, "own.tar"), ("home/truth",), True),
}


@pytest.fixture(scope="module")
def given(tiny_home, tmp_path_factory) -> Path:
    """All that commands start with."""
    folder = tmp_path_factory.mktemp("given")
    shutil.copytree(tiny_home, folder / "home")
    done(start(folder, ("truth", "export", TASK, "truth.tar")))
    return folder


def fresh(command: Command, given: Path, folder: Path) -> Path:
    """Lay out what a command starts with in a folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    if "model" in command.given and not (given / "model").exists():
        with chdir(given):
            exec(MODEL, {})
    for name in command.given:
        source = given / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copyfile(source, folder / name)
    return folder


def start(folder: Path, words: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start a command as the leader of its process group, marked by its folder."""
    temporary = folder.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tdabench.benchmark.commands.cli", *words],
        cwd=folder,
        env=environment(folder / "home") | {"TDABENCH_MARK": str(folder), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def done(process: subprocess.Popen[str]) -> None:
    """Wait for a command to end as it should."""
    said = process.communicate(timeout=900)[0]
    assert process.returncode == 0, said


def is_killed(process: subprocess.Popen[str], after: float) -> bool:
    """Kill a command's first process after some seconds, and say whether it had not ended by then."""
    try:
        process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        return True
    return False


def left(folder: Path) -> tuple[dict[str, str], list[tuple[Any, ...]]]:
    """Return what a command left that has no times in it: hashes of arrays and tables, and the rows' numbers."""
    files = (path for path in folder.rglob("*") if path.suffix in ARRAYS and not path.name.startswith("."))
    hashes = {str(path.relative_to(folder)): file_hash(path) for path in files if path.is_file()}
    results = folder / "tdabench-results"
    return hashes, [numbers(row) for row in Results(results).all_rows()] if results.exists() else []


def undisturbed(command: Command, folder: Path) -> tuple[float, Any]:
    """Return how many seconds a command takes, and what it leaves."""
    before = time.monotonic()
    done(start(folder, command.words))
    return time.monotonic() - before, left(folder)


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if KILLS or command.short])
def test_a_killed_command_ends_the_next_time_as_if_nothing_had_happened(name, given, tmp_path):
    command, rng, kills, ends = COMMANDS[name], numpy_generator("kills", name), 0, 0
    seconds, expected = undisturbed(command, fresh(command, given, tmp_path / "whole"))
    folder = fresh(command, given, tmp_path / "killed")
    while kills < (KILLS or 1):
        process = start(folder, command.words)
        if is_killed(process, float(rng.uniform(0, seconds))):
            kills += 1
            print(f"{name}: killed {kills} times, ended {ends} times", flush=True)
            assert_gone(folder, rng)
        else:
            assert process.returncode == 0 and left(folder) == expected
            folder, ends = fresh(command, given, tmp_path / "killed"), ends + 1
    done(start(folder, command.words))
    assert left(folder) == expected and not survivors(marked(str(folder)), within=60)
    print(f"{name}: killed {kills} times, ended {ends + 1} times, {seconds:.1f} s undisturbed")


def assert_gone(folder: Path, rng: np.random.Generator) -> None:
    """Half of the times, see that no process is left alive; else the next start comes while they are ending."""
    if rng.integers(2):
        assert not survivors(marked(str(folder)), within=60)
