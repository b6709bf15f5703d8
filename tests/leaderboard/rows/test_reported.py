"""Published numbers are read strictly, name what exists, and a bad file is one line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tdabench.benchmark.tasks.find import find_task, task_names
from tdabench.errors import CorruptFile, UserError
from tdabench.leaderboard.rows.files import RESULTS, load_rows
from tdabench.leaderboard.rows.reported import REPORTED, load_reported
from tdabench.methods.registry import listings

FILE = REPORTED / "cifar2@1.json"
SCORE = {"mean": 12.5, "std": 0.5}
ENTRY = {"name": "TRAK", "setting": "10 timesteps", "method": "trak", "lds": {"heldout": SCORE}}


def write(folder: Path, name: str = "cifar2@1", **changes: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(json.loads(FILE.read_text()) | changes))
    return path


def test_committed_numbers_name_tasks_and_methods_that_exist() -> None:
    tables = load_reported()
    assert [table.label for table in tables] == [path.stem for path in sorted(REPORTED.glob("*.json"))]
    for table in tables:
        table.check_names(task_names(), listings())
        assert find_task(table.label).label == table.label


def test_d_traks_table_is_whole() -> None:
    """Of all that its notebook prints; Journey-TRAK has no held-out queries."""
    (table,) = load_reported("cifar2")
    settings = Counter(entry.name for entry in table.entries)
    asked = {"TRAK, ensemble": 8, "D-TRAK, ensemble": 8, "Empirical influence": 4, "Datamodels": 4}
    assert len(settings) == 13 + len(asked) and len(table.entries) == 4 + 9 * 2 + sum(asked.values())
    assert asked.items() <= settings.items()
    assert {e.name for e in table.entries if "heldout" not in e.lds} == {"Journey-TRAK"}
    assert all("generated" in entry.lds for entry in table.entries)
    assert all(score.std for entry in table.entries for score in entry.lds.values())


def test_the_best_of_d_traks_table_are_ensembles() -> None:
    (table,) = load_reported("cifar2")
    *_, second, best = sorted(table.entries, key=lambda entry: entry.lds["generated"].mean)
    assert (best.name, best.setting) == ("D-TRAK, ensemble", "100 timesteps, 8 models")
    assert best.lds["generated"].mean == 27.75 and best.lds["heldout"].mean == 35.42
    assert second.setting == "100 timesteps, 4 models"


def test_numbers_are_found_by_task_and_version(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "cifar2@2", task_version=2)
    assert [one.label for one in load_reported(None, tmp_path)] == ["cifar2@1", "cifar2@2"]
    assert len(load_reported("cifar2", tmp_path)) == 2
    assert [one.label for one in load_reported("cifar2@2", tmp_path)] == ["cifar2@2"]
    assert load_reported("cifar", tmp_path) == [] == load_reported(None, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entries": []}, "entries: List should have at least 1 item"),
        ({"entries": [ENTRY | {"lds": {}}]}, "entries.0.lds: Dictionary should have at least 1 item"),
        ({"entries": [ENTRY | {"lds": {"val": SCORE}}]}, "entries.0.lds.val.[key]: Input should be 'heldout'"),
        ({"entries": [ENTRY | {"lds": {"heldout": {"mean": 101.0}}}]}, "entries.0.lds.heldout.mean: Input should be"),
        ({"entries": [ENTRY | {"lds": {"heldout": {"mean": "12"}}}]}, "mean: Input should be a valid number"),
        ({"entries": [ENTRY | {"rank": 1}]}, "entries.0.rank: Extra inputs are not permitted"),
        ({"entries": [ENTRY, ENTRY]}, "TRAK 10 timesteps is there twice"),
        ({"source": "a talk"}, "source: String should match pattern"),
        ({"paper": ""}, "paper: String should match pattern"),
        ({"protocol": ""}, "protocol: String should have at least 1 character"),
        ({"task_version": "1"}, "task_version: Input should be a valid integer"),
        ({"task_version": 2}, "holds the numbers of cifar2@2: call it cifar2@2.json"),
    ],
)
def test_a_table_that_breaks_a_rule_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(CorruptFile) as caught:
        load_reported(None, tmp_path)
    assert str(path) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\x89PNG", FILE.read_bytes()[:500], b'{"task": NaN}'])
def test_a_broken_file_is_one_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "cifar2@1.json").write_bytes(data)
    with pytest.raises(CorruptFile, match=r"cifar2@1.json cannot be read as JSON \(") as caught:
        load_reported(None, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "cifar3"}, "reported numbers of cifar3@1: unknown task 'cifar3': did you mean 'cifar2'"),
        ({"entries": [ENTRY | {"method": "tark"}]}, "of cifar2@1: unknown method 'tark': did you mean 'trak'"),
    ],
)
def test_names_that_nothing_has_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, f"{changes.get('task', 'cifar2')}@1", **changes)
    (table,) = load_reported(None, tmp_path)
    with pytest.raises(UserError, match=message):
        table.check_names(task_names(), listings())


def test_rows_are_read_apart_from_them() -> None:
    assert not REPORTED.is_relative_to(RESULTS) and all(row.key.task != "cifar2" for row in load_rows(RESULTS))
