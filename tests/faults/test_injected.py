"""A disk that is full or broken at any write or read: a line says so, and the next run ends as if nothing had happened.

Commands run in forks of this process, cells and trainings too, in which the n-th operation on a file below the test's
folder fails. A few cases; ``TDABENCH_INJECTED=40`` tries that many for every command, of writes and of reads. Reads are
those of Python: what safetensors and pyarrow map into memory in their own code is opened past these.

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
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import torch

from tdabench.benchmark.commands import cli
from tdabench.benchmark.run import plan, runner
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.truth import build, counterfactuals
from tdabench.datasets.published import emoji
from tdabench.leaderboard.rows.row import Row
from tdabench.seeds import numpy_generator
from tdabench.store import file_hash

from .. import run_helpers
from ..datasets import test_emoji
from ..run_helpers import TASK, Answer, numbers
from .test_kills import ATTRIBUTE, MODEL

CASES = int(os.environ.get("TDABENCH_INJECTED", "0"))
WRITES = ("open", "write", "fsync", "rename")
READS = {"look": ("EIO", "EACCES"), "read": ("EIO",)}
NAMED = ("open", "look", "rename")
ENDS = ("ENOSPC", "EIO", "EACCES", "short", "kill")
SUFFIXES = {".safetensors", ".tar", ".arrow", ".csv"}
RESULTS = ("tdabench-results", "home/attribution/results")

tiny_home = run_helpers.tiny_home


class Work(NamedTuple):
    """Words of a command, those of the run after the fault, and what lies where it starts.

    cases, reads: how many faults of writes and of reads are tried by default.
    """

    words: tuple[str, ...]
    again: tuple[str, ...]
    given: tuple[str, ...]
    cases: int
    reads: int


RUN = ("run", TASK, "--jobs", "1", "--methods", "pixel,d-trak")
REMOVAL = ("run", TASK, "--jobs", "1", "--methods", "random", "--metrics", "union")
WORKS = {
    "run": Work(RUN, ("--retry",), ("home/truth",), 3, 0),
    "removal": Work(REMOVAL, ("--retry",), ("home/truth",), 0, 0),
    "build": Work(("truth", "build", TASK), (), ("home/base", "home/models"), 2, 0),
    "import": Work(("truth", "import", "truth.tar"), (), ("truth.tar",), 4, 1),
    "export": Work(("truth", "export", TASK, "own.tar"), (), ("home/truth",), 3, 1),
    "attribute": Work((*ATTRIBUTE, "--methods", "pixel,d-trak", "--jobs", "1"), (), ("model", "images", "asked"), 0, 1),
    "fetch": Work(("data", "fetch", "emoji", "--data", "emoji"), (), ("emoji",), 1, 1),
}


class Disk:
    """Operations on files below a folder, counted over a process and its forks; one of them ends as ``end`` says."""

    def __init__(self, folder: Path, kind: str = "", at: int = 0, end: str = "") -> None:
        self.folder, self.kind, self.at, self.end = str(folder), kind, at, end
        self.seen = {name: multiprocessing.RawValue("i", 0) for name in (*WRITES, *READS)}
        self.met = multiprocessing.RawArray("c", 4096)  # the path of the one that failed

    def meet(self, kind: str, path: Any, half: Callable[[], Any] = lambda: None) -> None:
        """Count an operation, and let it fail if it is the one; half: does a part of it."""
        if isinstance(path, int) or not os.path.abspath(os.fsdecode(path)).startswith(self.folder):
            return
        self.seen[kind].value += 1
        if kind != self.kind or self.seen[kind].value != self.at:
            return
        self.met.value = os.fsencode(path)
        if self.end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.end == "short":
            half()
        code = getattr(errno, self.end, errno.ENOSPC)
        named = [str(path)] if kind in NAMED else []  # what the system says of an open file names none
        raise OSError(code, os.strerror(code), *named)

    def install(self) -> None:
        """Take the place of what files are written by, until this process ends."""
        plain, os_open, fsync, replace, rename = io.open, os.open, os.fsync, os.replace, os.rename

        def opened(file, mode="r", *words, **named):
            writes = set(mode) & set("wax+")
            if "opener" not in named:  # else it is met by what opens it
                self.meet("open" if writes else "look", file)
            return (Written if writes else Read)(plain(file, mode, *words, **named), self)

        def opened_low(path, flags, *words, **named):
            self.meet("open" if flags & (os.O_WRONLY | os.O_RDWR) else "look", path)
            return os_open(path, flags, *words, **named)

        def renamed(how):
            return lambda old, new, **named: (self.meet("rename", new), how(old, new, **named))[1]

        def synced(number):
            self.meet("fsync", os.readlink(f"/proc/self/fd/{number}"))
            fsync(number)

        io.open = builtins.open = opened
        os.open, os.fsync, os.replace, os.rename = opened_low, synced, renamed(replace), renamed(rename)


class Opened:
    """An open file."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self.file, self.disk = file, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


class Read(Opened):
    """One whose reads are met."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.readline, "" if isinstance(self.file, io.TextIOBase) else b"")

    def read(self, *words: Any) -> Any:
        return self._met().read(*words)

    def readinto(self, *words: Any) -> Any:
        return self._met().readinto(*words)

    def readline(self, *words: Any) -> Any:
        return self._met().readline(*words)

    def _met(self) -> Any:
        self.disk.meet("read", self.file.name)
        return self.file


class Written(Opened):
    """One whose writes are met."""

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
    patch.setattr(emoji, "CARD", replace(emoji.CARD, items=2 * len(test_emoji.LISTED)))
    for module in (build, counterfactuals):
        patch.setattr(module, "run_jobs", lambda function, jobs, workers: [(job, function(job)) for job in jobs])


@pytest.fixture(scope="module")
def given(tiny_home, tmp_path_factory) -> Path:
    """All that commands start with."""
    folder = tmp_path_factory.mktemp("given") / "own"
    shutil.copytree(tiny_home, folder / "home")
    test_emoji.copy(folder / "emoji")
    with chdir(folder):
        exec(MODEL.replace("range(400)", "range(4)"), {})  # what it learns is not looked at
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
    """Return hashes of arrays, tables and archives, and the rows' numbers."""
    files = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.name[0] != ".")
    hashes = {str(path.relative_to(folder)): file_hash(path) for path in files}
    return hashes, [numbers(row) for row in rows_of(folder)]


def rows_of(folder: Path) -> list[Row]:
    """Return the rows that a command left."""
    return [row for name in RESULTS if (folder / name).exists() for row in Results(folder / name).all_rows()]


def assert_said(answer: Answer, folder: Path, end: str, where: str) -> None:
    """See that a command that met a fault says what and where, in a line or in a row; killed ones say nothing."""
    if end == "kill" or answer.code == 0:
        return
    if answer.code == 1:
        failed = [row for row in rows_of(folder) if row.status == "error"]
        assert failed and all(row.reason for row in failed), answer
        return
    reason = os.strerror(getattr(errno, end, errno.ENOSPC))
    assert answer.code == 2 and answer.err.splitlines()[-1].startswith("error: "), answer
    assert len(re.findall("^error: ", answer.err, re.MULTILINE)) == 1 and "Traceback" not in answer.err, answer
    assert reason in answer.err and where in answer.err, answer


def chosen(tried: Callable[[Work], int]) -> list[tuple[str, int]]:
    """Return names of commands and numbers of cases, as many as are tried of each."""
    return [(name, case) for name, work in WORKS.items() for case in range(CASES or tried(work))]


@pytest.mark.parametrize(("name", "case"), chosen(lambda work: work.cases))
def test_a_write_that_fails_is_named_and_the_next_run_is_whole(name, case, given, whole, tmp_path):
    work, rng, (expected, counts) = WORKS[name], numpy_generator("injected", name, case), whole(name)
    folder = fresh(work, given, tmp_path / "own")
    kinds = sorted(set(counts) & set(WRITES))
    kind = kinds[int(rng.integers(len(kinds)))]
    end = ENDS[int(rng.integers(len(ENDS)))]
    failing_write(work, folder, Disk(folder, kind, 1 + int(rng.integers(counts[kind])), end), expected)


def failing_write(work: Work, folder: Path, disk: Disk, expected: Any) -> None:
    """See what a command does about a write that fails, and that the next run ends as if nothing had happened."""
    answer = call(folder, work.words, disk)
    assert disk.seen[disk.kind].value >= disk.at or answer.code == 0
    assert_said(answer, folder, disk.end, str(folder))
    assert disk.end == "kill" or not list(folder.rglob(".*.part")), "a part of a file was left"
    again = call(folder, (*work.words, *work.again))
    assert again.code == 0, (answer, again)
    assert left(folder) == expected, (disk.kind, disk.at, disk.end, answer)


@pytest.mark.parametrize(("name", "case"), chosen(lambda work: work.reads))
def test_a_read_that_fails_is_named_and_spoils_nothing(name, case, given, whole, tmp_path):
    work, rng, (expected, counts) = WORKS[name], numpy_generator("injected read", name, case), whole(name)
    folder = fresh(work, given, tmp_path / "own")
    kinds = [kind for kind in READS if kind in counts]
    kind = kinds[int(rng.integers(len(kinds)))]
    end = READS[kind][int(rng.integers(len(READS[kind])))]
    failing_read(work, folder, Disk(folder, kind, 1 + int(rng.integers(counts[kind])), end), expected)


def failing_read(work: Work, folder: Path, disk: Disk, expected: Any) -> None:
    """See what a command does about a read that fails, and that the next run ends as if nothing had happened."""
    before = left(folder)[0]
    answer = call(folder, work.words, disk)
    met = os.fsdecode(disk.met.value)
    about = disk.kind, disk.at, disk.end, met, answer
    assert_said(answer, folder, disk.end, Path(met).name)
    assert not list(folder.rglob(".*.part")), about
    lost = {name for name, sha in before.items() if left(folder)[0].get(name) != sha}
    assert all(Path(name).name in answer.err for name in lost), (lost, about)
    again = call(folder, (*work.words, *work.again))
    assert again.code == 0, (about, again)
    assert left(folder) == expected, about
