"""Many small cells of which some fail in every way there is: each has its row, and the runner does not grow.

Twenty cells; ``TDABENCH_SOAK=1000`` runs that many.
"""

from __future__ import annotations

import os
from collections import Counter

import psutil
import pytest
import torch

from tdabench.benchmark.run.plan import Options
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.run.runner import Runner

from .. import run_helpers
from ..run_helpers import plan, plugin

CELLS = int(os.environ.get("TDABENCH_SOAK", "20"))
WARM = min(50, CELLS // 2)  # cells after which the runner has all that it will have
EVERY = 20  # one cell in so many fails
ROW = 90_000  # bytes of a row, which the runner returns: 2 x 2,000 replicates of the LDS as Python has floats, mostly
ROOM = 16 * 2**20 + CELLS * ROW
MEMORY, SECONDS = 2 * 2**30, 20.0

# What the seed of a cell picks: how it fails, its row's status, and a part of the reason.
WAYS = [
    ("raise ValueError('soaked')", "error", "soaked"),
    ("os._exit(3)", "error", "code 3"),
    (f"torch.empty({4 * MEMORY}, dtype=torch.uint8)", "oom", "memory"),
    ("time.sleep(600)", "timeout", "killed after"),
]
FAILS = f"""
number = view.seed
if number % {EVERY} == {EVERY // 2}:
    exec({[code for code, *_ in WAYS]}[number // {EVERY} % {len(WAYS)}])
"""

tiny_home, home = run_helpers.tiny_home, run_helpers.home


def state(process: psutil.Process) -> dict[str, int]:
    """Return what a runner holds: bytes, open files, processes and threads."""
    children = len(process.children(recursive=True))
    return {"files": process.num_fds(), "children": children, "threads": process.num_threads()}


@pytest.fixture
def seen(home, tmp_path):
    """The rows of all cells, and what the runner held after each."""
    torch.set_num_threads(1)
    path, rows, held = plugin(tmp_path, "soaks", FAILS), [], []
    process = psutil.Process()
    cells = plan(["soaks"], [path], seeds=range(CELLS))

    def note(cell, row, fresh):
        rows.append(row)
        held.append((state(process), process.memory_info().rss))

    options = Options(timeout_s=SECONDS, memory_bytes=MEMORY, jobs=2)
    returned = Runner(Results(tmp_path / "results"), options, on_row=note).run(cells)
    assert len(returned) == len(rows) == CELLS
    return returned, held, Results(tmp_path / "results").all_rows()


def expected(number: int) -> tuple[str, str]:
    if number % EVERY != EVERY // 2:
        return "ok", ""
    return WAYS[number // EVERY % len(WAYS)][1:]


def test_every_cell_has_its_row_and_the_runner_does_not_grow(seen):
    returned, held, stored = seen
    for number, row in enumerate(returned):
        status, reason = expected(number)
        assert row.status == status and reason in (row.reason or ""), (number, row.reason)
    counts = Counter(row.status for row in stored)
    assert counts == Counter(expected(number)[0] for number in range(CELLS))
    (first, before), (last, after) = held[WARM - 1], held[-1]
    print(
        f"\n{CELLS} cells: {dict(counts)}; then {first}, {before / 2**20:.0f} MiB; now {last}, {after / 2**20:.0f} MiB"
    )
    assert all(last[name] <= first[name] + 2 for name in last), (first, last)
    assert after - before < ROOM
