"""Rows come back from files as they were written, and a bad file is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tdabench.errors import CorruptFile
from tdabench.leaderboard.rows import files
from tdabench.leaderboard.rows.files import RESULTS, load_row, load_rows, read_row, write_row
from tdabench.leaderboard.rows.row import Row, row_key
from tdabench.store import FolderStore

from ..helpers import HASH, lds_row, make_key, make_source, removal_row


def altered(**changes: Any) -> bytes:
    return json.dumps(lds_row().model_dump(mode="json") | changes).encode()


def test_row_comes_back_as_it_was_written(tmp_path: Path) -> None:
    store, row = FolderStore(tmp_path), lds_row(diagnostics={"steps": [1, 2]})
    path = write_row(store, row)
    assert path == tmp_path / f"digits@1/trak@1/paper-{HASH}/test-seed0.json"
    assert load_rows(tmp_path) == load_rows(store) == [row]
    assert len(path.read_text().splitlines()) == len(Row.model_fields) + 2


def test_committed_rows_are_written_as_they_lie_there(tmp_path: Path) -> None:
    rows = load_rows(RESULTS)
    assert rows
    for row in rows:
        assert write_row(FolderStore(tmp_path), row).read_bytes() == (RESULTS / row_key(row.key)).read_bytes()


def test_rows_with_groups_come_back_too(tmp_path: Path) -> None:
    row = removal_row("trak")
    write_row(FolderStore(tmp_path), row)
    assert load_rows(tmp_path) == [row] and row.metrics is not None and row.metrics.groups


def test_what_few_rows_have_is_written_where_it_is_there(tmp_path: Path) -> None:
    words = ("adapter_sha256", "isolation", "precision", "groups", "exemplars")
    source = make_source(adapter_sha256="b" * 16, isolation="none")
    rare = removal_row("trak").model_copy(update={"source": source, "key": make_key(precision="bf16")})
    for row, has in ((lds_row(), False), (rare, True)):
        text = write_row(FolderStore(tmp_path / str(has)), row).read_text()
        assert [f'"{word}": ' in text for word in words] == [has] * len(words)
        assert '"removal": ' in text and '"git_revision": null' in text
        assert load_rows(tmp_path / str(has)) == [row]


def test_rows_are_loaded_by_task_and_version(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for task, version in (("digits", 1), ("digits", 2), ("digits-lt", 1)):
        write_row(store, lds_row(key=make_key(task=task, task_version=version)))
    assert len(load_rows(store)) == 3
    assert {row.key.task_version for row in load_rows(store, "digits")} == {1, 2}
    assert [row.key.task_version for row in load_rows(store, "digits@2")] == [2]
    assert load_rows(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\xff nonsense", "is not valid JSON"),
        (altered()[:400], "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"[1, 2]", "is no result row"),
        (b'"schema_version"', "is no result row"),
        (b"{}", "it has no schema_version"),
        (b'{"a": 1, "b": 2, "b": 2}', "the name 'b' stands twice in one object"),
        (b'{"a": 1e999}', "1e999 is too large a number"),
        (b"[" * 99_999, "is nested too deeply"),
        (altered(schema_version=2), "written by schema version 2, this tdabench reads 1"),
        (altered(surprise=1), "surprise: Extra inputs are not permitted"),
        (altered(status="fine"), "status: Input should be 'ok'"),
        (altered(environment={"load": float("nan")}), "NaN is not allowed, write null"),
        (altered(metrics=None), "a row with status 'ok' needs metrics"),
        (altered(cost=None), "a row with status 'ok' needs a cost"),
        (altered(status="oom"), "a row with status 'oom' needs a reason"),
        (altered(key=make_key().model_dump() | {"seed": "0"}), "key.seed: Input should be a valid integer"),
        (altered(key=make_key().model_dump() | {"preset": "../up"}), "key.preset: String should match pattern"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(data: bytes, message: str) -> None:
    with pytest.raises(CorruptFile) as caught:
        read_row(data, "results/x.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("results/x.json ") and "\n" not in str(caught.value)


EDITS: dict[str, tuple[str, Any]] = {
    "an LDS of 5": ("metrics.lds.heldout.values.0", 5.0),
    "an interval upside down": ("metrics.lds.heldout.low", 0.99),
    "a ceiling's interval with one end": ("metrics.lds.heldout.ceiling_low", None),
    "a ceiling above 1": ("metrics.lds.heldout.ceiling_high", 1.5),
    "a ceiling below -1": ("metrics.lds.heldout.ceiling_low", -1.5),
    "negative subsets": ("metrics.lds.heldout.n_subsets", -1),
    "a query twice": ("metrics.lds.heldout.query_ids.1", "q0"),
    "negative seconds": ("cost.fit_s", -1.0),
    "a slice of negative seconds": ("cost.attribute_s.0", -0.5),
    "negative passes": ("cost.forward_passes.fit", -1),
    "a batch of nothing": ("cost.micro_batch", 0),
    "other params than hashed": ("key.params.draws", 11),
    "another hash": ("key.params_hash", "f" * 16),
    "a task version of 0": ("key.task_version", 0),
    "a command that clears the screen": ("source.command", "tdabench \x1b[2J run"),
    "a lone surrogate": ("source.command", "tdabench \ud800"),
    "a hash that is none": ("source.truth_sha256", "no hash"),
    "a version of true": ("schema_version", True),
}
OF_REMOVAL: dict[str, tuple[str, Any]] = {
    "a top item that is none": ("metrics.top.ids.0.0", 10**6),
    "a negative top item": ("metrics.top.ids.0.0", -1),
    "a top item twice": ("metrics.top.ids.0", [4, 4, 1]),
    "a query without a list": ("metrics.top.ids", []),
    "a p-value of 2": ("metrics.removal.union.similarities.ssim.targets.published.wilcoxon_p", 2.0),
    "more removed than there is": ("metrics.removal.union.size", 10**6),
    "a seed too many": ("metrics.removal.union.seeds", [1, 2, 3, 4, 5, 6]),
    "a seed twice": ("metrics.removal.union.seeds", [1, 1, 3, 4, 5]),
    "a change without a query": ("metrics.removal.union.similarities.ssim.targets.after.0", [0.1]),
    "a target too many": ("metrics.removal.union.target_ids", [f"generated-{i}" for i in range(9)]),
    "a control too few": ("metrics.removal.union.control_ids", ["control-0"]),
    "a target twice": ("metrics.removal.union.target_ids.1", "generated-0"),
    "a curve upside down": ("metrics.removal.union.similarities.ssim.curve.0.low", 99.0),
}
WHOLE = dict.fromkeys(EDITS, lds_row) | {name: lambda: removal_row("trak") for name in OF_REMOVAL}


def edited(row: Row, path: str, value: Any) -> bytes:
    """Return the row with one value exchanged."""
    whole = row.model_dump(mode="json")
    *places, last = path.split(".")
    part: Any = whole
    for place in places:
        part = part[int(place)] if isinstance(part, list) else part[place]
    key: Any = int(last) if isinstance(part, list) else last
    assert part[key] != value or type(part[key]) is not type(value)
    part[key] = value
    return json.dumps(whole).encode()


@pytest.mark.parametrize("name", WHOLE)
def test_what_cannot_be_is_refused(name: str) -> None:
    row, edit = WHOLE[name](), (EDITS | OF_REMOVAL)[name]
    assert read_row(json.dumps(row.model_dump(mode="json")).encode(), "x.json") == row
    with pytest.raises(CorruptFile, match=r"^x\.json (is|was)"):
        read_row(edited(row, *edit), "x.json")


def test_file_under_another_cells_name_is_refused(tmp_path: Path) -> None:
    path = write_row(FolderStore(tmp_path), lds_row())
    path.rename(path.with_name("test-seed1.json"))
    with pytest.raises(CorruptFile, match=r"another cell.*test-seed0\.json"):
        load_rows(tmp_path)


def test_a_sealed_row_that_was_edited_is_refused_unless_it_is_meant_to_pass(tmp_path: Path) -> None:
    store, row = FolderStore(tmp_path), lds_row()
    path = write_row(store, row, sealed=True)
    assert load_rows(store) == [row]
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(CorruptFile, match="edited or damaged"):
        load_rows(store)
    with pytest.raises(CorruptFile, match="edited or damaged"):
        load_row(store, row_key(row.key))
    assert load_rows(store, edited=True) == [row]


def test_a_row_that_goes_while_rows_are_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, row = FolderStore(tmp_path), lds_row()
    write_row(store, row, sealed=True)
    listed = [*files.json_keys(store), row_key(lds_row("mucs").key)]
    monkeypatch.setattr(files, "json_keys", lambda store: listed)
    assert load_rows(store) == [row]


def test_not_a_number_in_a_free_section_becomes_null(tmp_path: Path) -> None:
    write_row(FolderStore(tmp_path), lds_row(diagnostics={"residual": float("nan")}))
    assert load_rows(tmp_path)[0].diagnostics == {"residual": None}
