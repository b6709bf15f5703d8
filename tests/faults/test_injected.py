"""A disk that is full or broken at any write: a line says so, and the next run ends as if nothing had happened.

Commands run in forks of this process, cells and trainings too, in which the n-th operation on a file below the test's
folder fails. A few cases; ``TDABENCH_INJECTED=40`` tries that many for every command.

All compute with one thread: a fork that asks for more waits for ever for those that earlier tests left behind.
"""

from __future__ import annotations

import builtins
import errno
import io
import multiprocessing
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tdabench.benchmark.commands import cli
from tdabench.benchmark.run import plan, runner
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.truth import build, counterfactuals
from tdabench.seeds import numpy_generator
from tdabench.store import file_hash

from .. import run_helpers
from ..run_helpers import TASK, Answer, numbers

CASES = int(os.environ.get("TDABENCH_INJECTED", "0"))
KINDS = ("open", "write", "fsync", "rename")
ENDS = ("ENOSPC", "EIO", "EACCES", "short", "kill")

tiny_home = run_helpers.tiny_home


class Work(NamedTuple):
    """Words of a command, those of the run after the fault, and what lies where it starts; cases: tried by default."""

    words: tuple[str, ...]
    again: tuple[str, ...]
    given: tuple[str, ...]
    cases: int


RUN = ("run", TASK, "--jobs", "1", "--methods", "pixel,d-trak")
REMOVAL = ("run", TASK, "--jobs", "1", "--methods", "random", "--metrics", "union")
WORKS = {
    "run": Work(RUN, ("--retry",), ("home/truth",), 3),
    "removal": Work(REMOVAL, ("--retry",), ("home/truth",), 0),
    "build": Work(("truth", "build", TASK), (), ("home/base", "home/models"), 2),
    "import": Work(("truth", "import", "truth.tar"), (), ("truth.tar",), 4),
    "export": Work(("truth", "export", TASK, "own.tar"), (), ("home/truth",), 4),
}


class Disk:
    """Operations on files below a folder, counted over a process and its forks; one of them ends as ``end`` says."""

    def __init__(self, folder: Path, kind: str = "", at: int = 0, end: str = "") -> None:
        self.folder, self.kind, self.at, self.end = str(folder), kind, at, end
        self.seen = {name: multiprocessing.RawValue("i", 0) for name in KINDS}

    def meet(self, kind: str, path: Any, half: Callable[[], Any] = lambda: None) -> None:
        """Count an operation, and let it fail if it is the one; half: does a part of it."""
        if not str(path).startswith(self.folder):
            return
        self.seen[kind].value += 1
        if kind != self.kind or self.seen[kind].value != self.at:
            return
        if self.end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.end == "short":
            half()
        code = getattr(errno, self.end, errno.ENOSPC)
        raise OSError(code, os.strerror(code), str(path))

    def install(self) -> None:
        """Take the place of what files are written by, until this process ends."""
        plain, os_open, fsync, replace, rename = io.open, os.open, os.fsync, os.replace, os.rename

        def opened(file, mode="r", *words, **named):
            if not set(mode) & set("wax+"):
                return plain(file, mode, *words, **named)
            self.meet("open", file)
            return Written(plain(file, mode, *words, **named), self)

        def opened_low(path, flags, *words, **named):
            if flags & (os.O_WRONLY | os.O_RDWR):
                self.meet("open", path)
            return os_open(path, flags, *words, **named)

        def renamed(how):
            return lambda old, new, **named: (self.meet("rename", new), how(old, new, **named))[1]

        def synced(number):
            self.meet("fsync", os.readlink(f"/proc/self/fd/{number}"))
            fsync(number)

        io.open = builtins.open = opened
        os.open, os.fsync, os.replace, os.rename = opened_low, synced, renamed(replace), renamed(rename)


class Written:
    """An open file whose writes are met."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self.file, self.disk = file, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: Any) -> int:
        self.disk.meet("write", self.file.name, lambda: (self.file.write(data[: len(data) // 2]), self.file.flush()))
        return self.file.write(data)


def call(folder: Path, words: tuple[str, ...], disk: Disk | None = None) -> Answer:
    """Run a command in a fork of this process, in a folder; its code is -9 where it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            _be_command(folder, words, disk)
        finally:
            os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    out, err = ((folder.parent / name).read_text() for name in ("out", "err"))
    return Answer(code, out, err)


def _be_command(folder: Path, words: tuple[str, ...], disk: Disk | None) -> None:
    torch.set_num_threads(1)
    os.chdir(folder)
    os.environ["TDABENCH_HOME"] = str(folder / "home")
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder.parent / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    sys.argv = ["tdabench", *words]
    _keep_to_forks()
    if disk is not None:
        disk.install()
    try:
        cli.main()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


def _keep_to_forks() -> None:
    """Let cells and trainings be forks of this process or be done in it, so that they see the same disk."""
    patch = pytest.MonkeyPatch()
    run_helpers.uncalibrated(patch)
    patch.setattr(runner, "forkserver", lambda: multiprocessing.get_context("fork"))
    patch.setattr(runner, "start_guard", lambda: None)
    patch.setattr(plan, "cores", lambda: 1)
    patch.setattr(runner, "server_of", lambda pid, runner: None)
    for module in (build, counterfactuals):
        patch.setattr(module, "run_jobs", lambda function, jobs, workers: [(job, function(job)) for job in jobs])


@pytest.fixture(scope="module")
def given(tiny_home, tmp_path_factory) -> Path:
    """All that commands start with."""
    folder = tmp_path_factory.mktemp("given") / "own"
    shutil.copytree(tiny_home, folder / "home")
    answer = call(folder, ("truth", "export", TASK, "truth.tar"))
    assert answer.code == 0, answer
    return folder


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory):
    """Return what a command leaves without faults, and how many operations it takes, by its name."""
    known: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in known:
            folder = fresh(WORKS[name], given, tmp_path_factory.mktemp(name) / "own")
            disk = Disk(folder)
            answer = call(folder, WORKS[name].words, disk)
            assert answer.code == 0, answer
            known[name] = left(folder), {kind: seen.value for kind, seen in disk.seen.items() if seen.value}
        return known[name]

    return of


def fresh(work: Work, given: Path, folder: Path) -> Path:
    """Lay out what a command starts with."""
    (folder / "home").mkdir(parents=True)
    for name in work.given:
        source = given / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copyfile(source, folder / name)
    return folder


def left(folder: Path) -> Any:
    """Return hashes of arrays and archives, and the rows' numbers."""
    files = (path for path in folder.rglob("*") if path.suffix in {".safetensors", ".tar"} and path.name[0] != ".")
    hashes = {str(path.relative_to(folder)): file_hash(path) for path in files}
    results = folder / "tdabench-results"
    return hashes, [numbers(row) for row in Results(results).all_rows()] if results.exists() else []


def assert_said(answer: Answer, folder: Path, end: str) -> None:
    """See that a command that met a fault says what and where, in a line or in a row; killed ones say nothing."""
    if end == "kill" or answer.code == 0:
        return
    if answer.code == 1:
        failed = [row for row in Results(folder / "tdabench-results").all_rows() if row.status == "error"]
        assert failed and all(row.reason for row in failed), answer
        return
    reason = os.strerror(getattr(errno, end, errno.ENOSPC))
    assert answer.code == 2 and answer.err.splitlines()[-1].startswith("error: "), answer
    assert len(re.findall("^error: ", answer.err, re.MULTILINE)) == 1 and "Traceback" not in answer.err, answer
    assert reason in answer.err and str(folder) in answer.err, answer


CHOSEN = [(name, case) for name, work in WORKS.items() for case in range(CASES or work.cases)]


@pytest.mark.parametrize(("name", "case"), CHOSEN)
def test_a_write_that_fails_is_named_and_the_next_run_is_whole(name, case, given, whole, tmp_path):
    work, rng, (expected, counts) = WORKS[name], numpy_generator("injected", name, case), whole(name)
    folder = fresh(work, given, tmp_path / "own")
    kind = sorted(counts)[int(rng.integers(len(counts)))]
    end = ENDS[int(rng.integers(len(ENDS)))]
    disk = Disk(folder, kind, 1 + int(rng.integers(counts[kind])), end)
    answer = call(folder, work.words, disk)
    assert disk.seen[kind].value >= disk.at or answer.code == 0
    assert_said(answer, folder, end)
    assert end == "kill" or not list(folder.rglob(".*.part")), "a part of a file was left"
    again = call(folder, (*work.words, *work.again))
    assert again.code == 0, (answer, again)
    assert left(folder) == expected, (kind, disk.at, end, answer)
