"""Damage to any byte that a number depends on: afterwards the numbers are the same, or the damage is named.

One case for each kind of file and some more, with ``--slow`` three each; ``TDABENCH_FAULTS=60`` has that many.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tdabench.benchmark.run.results import Results
from tdabench.datasets.truth import Assets
from tdabench.errors import UserError
from tdabench.seeds import numpy_generator
from tdabench.store import HASH

from .. import run_helpers
from ..run_helpers import assemble_truth, numbers, plugin, run_cells

CASES = int(os.environ.get("TDABENCH_FAULTS", "3"))
METHODS = ["pixel", "d-trak", "mean"]
MEAN = "scores = sum(read(queries.ids) for read in view.stored_scores.values())"

tiny_home = run_helpers.tiny_home


class Kind(NamedTuple):
    """Files of a kind below a folder with ``home`` and ``results``; lost: what is deleted so that they are read."""

    pattern: str
    lost: tuple[str, ...] = ()


KINDS = {
    "truth": Kind("home/truth/*/*.safetensors", ("results/rows",)),
    "manifest": Kind("home/truth/*/manifest.json", ("results/rows",)),
    "base": Kind("home/base/*/*.*", ("home/truth",)),
    "measured": Kind("home/measured/*/*", ("home/truth",)),
    "rows": Kind("results/rows/**/*.json"),
    "hashes of rows": Kind("results/rows/**/*.sha256"),
    "records": Kind("results/cells/**/*.json", ("results/rows",)),
    "scores": Kind("results/cells/**/*.safetensors", ("results/rows",)),
    "kept features": Kind("results/kept/**/*.*", ("results/rows", "results/cells")),
    "results.json": Kind("results/results.json"),
}
SEALED = ("measured", "rows", "records")  # kinds whose files have a hash beside them


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    length = min(64, len(data) - start)
    return data[:start] + bytes(length) + data[start + length :]


def lengthened(data: bytes, rng: np.random.Generator) -> bytes:
    return data + rng.bytes(8)


SPOILS: list[Callable[[bytes, np.random.Generator], bytes]] = [flipped, truncated, zeroed, lengthened]


@pytest.fixture(scope="module")
def done(tiny_home, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """A folder with a truth and a run on it, and the numbers of its rows."""
    folder = tmp_path_factory.mktemp("faults")
    shutil.copytree(tiny_home, folder / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(folder / "home"))
        mean = plugin(folder, "mean", MEAN, needs=("stored-scores",), members=("pixel", "d-trak"))
        rows = run_cells(folder / "results", METHODS, [mean])
    assert all(row.status == "ok" for row in rows.values())
    return folder, {name: numbers(row) for name, row in rows.items()}


def tried(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the numbers of the rows as a user would get them now, or what is said in their place."""
    try:
        return _tried(folder), ""
    except UserError as error:
        return {}, str(error)


def _tried(folder: Path) -> dict[str, Any]:
    if not (folder / "home" / "truth" / "digits-tiny@1").exists():
        assemble_truth(folder / "home")
    Assets(folder / "home" / "truth" / "digits-tiny@1").check_files()
    run_cells(folder / "results", METHODS, [folder / "mean.py"])
    rows = Results(folder / "results").all_rows("digits-tiny")
    return {row.key.method: numbers(row) for row in rows}


@pytest.mark.parametrize("case", [pytest.param(i, marks=pytest.mark.slow if i else ()) for i in range(CASES)])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named_or_changes_nothing(kind, case, done, own):
    rng = numpy_generator("faults", kind, case)
    path = drawn(files_of(kind, own), rng)
    path.write_bytes(SPOILS[case % len(SPOILS)](path.read_bytes(), rng))
    check(kind, path, own, done[1])


@pytest.mark.parametrize("case", [pytest.param(i, marks=pytest.mark.slow if i else ()) for i in range(CASES)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_gone_is_named_or_changes_nothing(kind, case, done, own):
    path = drawn(files_of(kind, own), numpy_generator("gone", kind, case))
    path.unlink()
    check(kind, path, own, done[1])


@pytest.mark.parametrize("case", [pytest.param(i, marks=pytest.mark.slow if i else ()) for i in range(CASES)])
@pytest.mark.parametrize("kind", SEALED)
def test_a_file_whose_hash_is_gone_is_named_or_changes_nothing(kind, case, done, own):
    """Also one that was edited, as whoever deletes the hash may have done."""
    rng = numpy_generator("unsealed", kind, case)
    path = drawn([path for path in files_of(kind, own) if hash_of(path).exists()], rng)
    hash_of(path).unlink()
    path.write_bytes(edited(path.read_bytes()))
    check(kind, path, own, done[1])


def edited(data: bytes) -> bytes:
    """Add one to each count, as somebody would who has other numbers of passes; hashes are strings, and stay."""
    return re.sub(rb'(?<=": )\d+(?=[,\s])', lambda found: b"%d" % (int(found[0]) + 1), data)


def hash_of(path: Path) -> Path:
    return path.with_name(path.name + HASH)


@pytest.fixture
def own(done, tmp_path, monkeypatch) -> Path:
    """A copy of that folder, in use."""
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "own" / "home"))
    return shutil.copytree(done[0], tmp_path / "own")


def files_of(kind: str, folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(KINDS[kind].pattern) if path.is_file() and path.stat().st_size)


def drawn(files: list[Path], rng: np.random.Generator) -> Path:
    return files[int(rng.integers(len(files)))]


def check(kind: str, path: Path, folder: Path, expected: dict[str, Any]) -> None:
    for name in KINDS[kind].lost:
        shutil.rmtree(folder / name)
    found, said = tried(folder)
    named = any(str(part) in said for part in (path, path.parent, path.with_suffix("")))
    assert named or found == expected, f"{path} was changed, and so were the numbers: {said or 'without a word'}"
