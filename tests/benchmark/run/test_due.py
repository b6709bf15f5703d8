"""What is due for a stored cell after anything that it depends on has changed; rows and records are written by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from tdabench.benchmark.run.due import Inspector
from tdabench.benchmark.run.plan import Options, PlannedCell
from tdabench.benchmark.run.record import Record
from tdabench.benchmark.run.results import Results, why_not
from tdabench.benchmark.run.worker import Spec
from tdabench.datasets.truth import Assets
from tdabench.errors import CorruptFile, UserError
from tdabench.leaderboard.rows.row import Metrics, Row

from ... import run_helpers
from ...leaderboard import helpers

LIMITED = Options(memory_bytes=2**30)
FAILED = {"metrics": None, "reason": "killed"}


@pytest.fixture(scope="module")
def cell() -> PlannedCell:
    """A cell on the truth that ships."""
    (planned,) = run_helpers.plan(["random"], task="digits")
    return planned


@pytest.fixture
def results(tmp_path) -> Results:
    """An empty folder of results."""
    return Results(tmp_path / "results")


def stored(results: Results, planned: PlannedCell, status: str = "ok", **changes: Any) -> Row:
    """Write a cell's record and its row, as a run would leave them."""
    record, inspector = results.record(planned.key, planned.identity), Inspector(results, LIMITED)
    record.put(slice(0, 2), np.eye(2, 4), {})
    record.store.put_json("inputs.json", inspector.inputs(planned), sealed=True)
    fields = {
        "status": status,
        "key": planned.key,
        "reason": None if status == "ok" else "killed",
        "metrics": Metrics(lds={"heldout": helpers.make_lds(0.4)}, top=helpers.top(0)),
        "environment": inspector.environment(),
        "source": helpers.make_source(truth_sha256=planned.assets.sha256, scores_sha256=record.scores_hash()),
        "diagnostics": {"identity": planned.identity, "limits": inspector.limits()},
    }
    row = helpers.lds_row(**(fields | changes))
    results.write(row)
    return row


def source(row: Row, **changes: Any) -> dict[str, Any]:
    return {"source": row.source.model_copy(update=changes)}


def without_top(row: Row) -> dict[str, Any]:
    return {"metrics": Metrics(lds=row.metrics.lds)}


CHANGED: dict[str, tuple[str, Callable[[Row], dict[str, Any]], str]] = {
    "nothing": ("ok", lambda row: {}, "nothing"),
    "nothing of partial scores": ("partial", lambda row: {}, "nothing"),
    "nothing of a failure": ("oom", lambda row: FAILED, "nothing"),
    "its code": ("ok", lambda row: {"diagnostics": {**row.diagnostics, "identity": "0"}}, "scores"),
    "a failure's code": ("oom", lambda row: FAILED | {"diagnostics": {**row.diagnostics, "identity": "0"}}, "scores"),
    "its top items' absence": ("ok", without_top, "metrics"),
    "the truth": ("ok", lambda row: source(row, truth_sha256="f" * 64), "metrics"),
    "the truth of partial scores": ("partial", lambda row: source(row, truth_sha256="f" * 64), "metrics"),
    "the truth of a failure": ("timeout", lambda row: source(row, truth_sha256="f" * 64), "scores"),
    "truth and scores": ("ok", lambda row: source(row, truth_sha256="f" * 64, scores_sha256="0" * 64), "scores"),
    "a failure's limits": ("oom", lambda row: FAILED | {"diagnostics": {**row.diagnostics, "limits": {}}}, "scores"),
    "a failure's machine": ("oom", lambda row: FAILED | {"environment": {}}, "scores"),
    "a success's machine": ("ok", lambda row: {"environment": {}}, "nothing"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_has_changed_says_what_is_due(what, cell, results):
    status, change, due = CHANGED[what]
    stored(results, cell, status, **change(stored(results, cell, status)))
    inspector = Inspector(results, LIMITED)
    assert inspector.due(cell) == due
    assert inspector.all_due([cell]) == ({} if due == "nothing" else {0: due})
    assert Inspector(results, replace(LIMITED, force=True)).due(cell) == "scores"


def test_a_cell_without_a_row_is_due(cell, results):
    assert Inspector(results, LIMITED).due(cell) == "scores"


@pytest.mark.parametrize("status", ["ok", "partial", "oom", "skipped"])
def test_only_failures_are_tried_again_when_asked(status, cell, results):
    stored(results, cell, status, **({} if status in ("ok", "partial") else FAILED))
    assert Inspector(results, replace(LIMITED, retry=True)).due(cell) == ("nothing" if status == "ok" else "scores")


@pytest.mark.parametrize("truth", ["a", "f"])
@pytest.mark.parametrize("changes", [{"device": "cuda:0"}, {"packages": {"torch": "1.0"}}])
def test_scores_of_another_device_or_other_packages_are_due(changes, truth, cell, results):
    row = stored(results, cell)
    if truth == "f":
        stored(results, cell, **source(row, truth_sha256="f" * 64))
    record = results.record(cell.key, cell.identity)
    record.store.put_json("inputs.json", record.read("inputs") | changes, sealed=True)
    assert Inspector(results, LIMITED).due(cell) == "scores"


@pytest.mark.parametrize("options", [{"timeout_s": 9.0}, {"memory_bytes": 2**31}, {"memory_asked": False}])
@pytest.mark.parametrize("status", ["oom", "ok"])
def test_other_limits_make_a_failure_due_and_no_success(options, status, cell, results):
    stored(results, cell, status, **({} if status == "ok" else FAILED))
    assert Inspector(results, replace(LIMITED, **options)).due(cell) == ("nothing" if status == "ok" else "scores")


def test_memory_that_happened_to_be_free_is_no_limit(cell, results):
    assert Inspector(results, replace(LIMITED, memory_asked=False)).limits()["memory_bytes"] is None
    assert Inspector(results, LIMITED).limits() == {"timeout_s": 3600.0, "memory_bytes": 2**30}


def test_a_skipped_cell_is_due_where_the_reason_is_another(cell, results):
    lacking = replace(cell, unmet="needs the image encoder clip")
    stored(results, lacking, "skipped", **FAILED | {"reason": lacking.unmet})
    inspector = Inspector(results, LIMITED)
    assert (inspector.due(lacking), inspector.due(cell)) == ("nothing", "scores")
    assert inspector.due(replace(cell, unmet="needs the image encoder dino")) == "scores"


def test_top_items_are_missed_of_item_methods_on_test_queries_only(cell, results):
    dev, of_groups = cell.asking(cell.query_ids, "dev"), replace(cell, cls=type("G", (cell.cls,), {"unit": "group"}))
    for planned, due in ((dev, "nothing"), (of_groups, "nothing"), (cell, "metrics")):
        stored(results, planned, **without_top(stored(results, planned)))
        assert Inspector(results, LIMITED).due(planned) == due


def test_groups_are_missed_where_the_truth_has_them(cell, results, monkeypatch):
    row = stored(results, cell)
    monkeypatch.setattr(Assets, "has_groups", True)
    assert Inspector(results, LIMITED).due(cell) == "metrics"
    groups = {"heldout": helpers.groups({})}
    stored(results, cell, metrics=row.metrics.model_copy(update={"groups": groups}))
    assert Inspector(results, LIMITED).due(cell) == "nothing"


# members of ensembles


def test_who_reads_a_due_cell_is_due(cell, results):
    ensemble = replace(cell.asking(cell.query_ids, "test", seed=1), members={"random": cell})
    other = cell.asking(cell.query_ids, "test", seed=2)
    row = stored(results, cell)
    for planned in (ensemble, other):
        stored(results, planned)
    inspector = Inspector(results, LIMITED)
    assert inspector.all_due([cell, ensemble, other]) == {}
    stored(results, cell, **source(row, truth_sha256="f" * 64))
    assert inspector.all_due([cell, ensemble, other]) == {0: "metrics", 1: "scores"}
    stored(results, cell, **source(row, scores_sha256="0" * 64))
    assert inspector.due(ensemble) == "scores", "it read other scores"


STATES: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "ok": ("ok", {}, None),
    "partial": ("partial", {}, "status partial: killed"),
    "failed": ("oom", FAILED, "status oom: killed"),
    "other code": ("ok", {"diagnostics": {"identity": "0"}}, "a row of other code or data"),
}


@pytest.mark.parametrize("name", STATES)
def test_a_member_whose_scores_cannot_be_read_is_named(name, cell, results):
    ensemble, inspector = replace(cell, members={"random": cell}), Inspector(results, LIMITED)
    assert inspector.obstacle(ensemble) == "member random:quick has no row here: run it too"
    status, changes, reason = STATES[name]
    stored(results, cell, status, **changes)
    found = inspector.obstacle(ensemble)
    assert found is None if reason is None else found.startswith(f"member random:quick has {reason}")


def test_who_learns_from_open_truth_is_not_scored_on_it(cell, results):
    learns = replace(cell, cls=type("Learns", (cell.cls,), {"needs": ("open-truth",)}))
    assert Inspector(results, LIMITED).obstacle(learns) is None
    assert "say nothing" in Inspector(results, LIMITED).obstacle(learns.asking(cell.query_ids, "dev"))
    assert Inspector(results, LIMITED).obstacle(cell.asking(cell.query_ids, "dev")) is None


# stored slices


def started(cell: PlannedCell, record: Record) -> Spec:
    asked = {"method": "random", "params": {}, "assets": "", "folder": str(record.store.root), "query_ids": ("q",)}
    return Spec(**asked, seed=0, device="cpu", micro_batch=64, slice_size=2, threads=2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, True), ({"threads": 1}, False), ({"micro_batch": 65}, False), ({"closed": ("/x",)}, False)],
)
def test_a_start_goes_on_where_it_would_compute_the_same(changes, expected, cell, results):
    stored(results, cell)
    record = results.record(cell.key, cell.identity)
    spec = started(cell, record)
    record.store.put_json("spec.json", asdict(spec), sealed=True)
    inspector = Inspector(results, LIMITED)
    assert inspector.continues(cell, replace(spec, **changes)) is expected
    assert not Inspector(results, replace(LIMITED, force=True)).continues(cell, spec)
    record.store.put_json("inputs.json", record.read("inputs") | {"device": "cuda:0"}, sealed=True)
    assert not inspector.continues(cell, spec)


def test_scores_are_those_that_were_stored(cell, results):
    stored(results, cell)
    record = results.record(cell.key, cell.identity)
    assert (record.scores(slice(0, 2)) == np.eye(2, 4)).all() and record.damage() is None
    other = Record(results.folder / "other")
    other.put(slice(0, 2), 2 * np.eye(2, 4), {})  # whole, but of other scores
    record.store.put("slice-00000-00002.safetensors", other.data(slice(0, 2)))
    with pytest.raises(CorruptFile, match="truncated or edited"):
        record.scores(slice(0, 2))
    assert "truncated or edited" in str(record.damage())


def test_scores_of_fewer_queries_than_were_asked_are_damage(cell, results):
    two, three = (replace(cell, query_ids=cell.query_ids[:n]) for n in (2, 3))
    for planned in (two, three):
        stored(results, planned)
    assert list(results.scores(two)) == list(two.attributed_ids)
    with pytest.raises(CorruptFile, match=r"has scores of 2 queries, not 3: .*--force"):
        results.scores(three)


def test_scores_of_another_cell_in_the_place_of_ones_own_are_damage(cell, results):
    """Whole files with their own hashes, which only the row knows not to be its."""
    two = replace(cell, query_ids=cell.query_ids[:2])
    stored(results, two)
    ensemble, inspector = replace(two, members={"random": two}), Inspector(results, LIMITED)
    assert len(results.scores(two)) == 2 and inspector.obstacle(ensemble) is None
    results.record(two.key, two.identity).put(slice(0, 2), 2 * np.eye(2, 4), {})
    with pytest.raises(CorruptFile, match=r"has other scores than its row: .*--force"):
        results.scores(two)
    assert "member random:quick has scores that cannot be used" in str(inspector.obstacle(ensemble))
    results.record(two.key, two.identity).clear()
    with pytest.raises(CorruptFile, match=r"has other scores than its row: .*--force"):
        results.scores(two)


@pytest.mark.parametrize(("parts", "sound"), [([(0, 1), (1, 3)], True), ([(0, 1), (0, 2)], False), ([(1, 4)], False)])
def test_a_record_has_each_query_once_and_no_other(parts, sound, tmp_path):
    record = Record(tmp_path)
    for start, stop in parts:
        record.put(slice(start, stop), np.full((stop - start, 4), start), {})
    record.store.put("slice-1-2.json", b"{}")
    assert [(part.start, part.stop) for part in record.parts()] == parts
    if sound:
        assert [ids for ids, _ in record.blocks(("a", "b", "c"))] == [("a",), ("b", "c")]
        return
    with pytest.raises(CorruptFile, match=r"holds scores of (a query twice|more than 3 queries)"):
        list(record.blocks(("a", "b", "c")))


# rows


def test_scores_count_with_their_code_and_a_status_that_has_some(cell, results):
    assert results.scored(cell) is None
    for status, has in (("ok", True), ("partial", True), ("oom", False)):
        row = stored(results, cell, status)
        assert results.scored(cell) == (row if has else None)
        assert results.states([cell]) == [[row.source.scores_sha256, status, row.reason]]
    stored(results, cell, diagnostics={"identity": "0"})
    assert results.scored(cell) is None


def test_metrics_are_added_to_the_scores_that_they_are_of_alone(cell, results):
    row = stored(results, cell)
    assert not results.add_metrics(cell.key, "0" * 64, top=None)
    assert not results.add_metrics(cell.key.model_copy(update={"seed": 1}), row.source.scores_sha256, top=None)
    assert results.row(cell.key) == row
    assert results.add_metrics(cell.key, row.source.scores_sha256, top=None)
    assert results.row(cell.key).metrics == row.metrics.model_copy(update={"top": None})
    failed = stored(results, cell, "oom", metrics=None)
    assert not results.add_metrics(cell.key, failed.source.scores_sha256, top=None)
    results.forget(cell.key)
    assert results.row(cell.key) is None


def test_metrics_that_two_commands_add_at_once_are_all_kept(cell, results, monkeypatch):
    row, read = stored(results, cell), results.row
    monkeypatch.setattr(results, "row", lambda key: (read(key), time.sleep(0.1))[0])
    sha, found = row.source.scores_sha256, {"sanity": helpers.sanity(), "exemplars": helpers.exemplars({(1, 5): 0.5})}
    with ThreadPoolExecutor() as pool:
        adding = [pool.submit(results.add_metrics, cell.key, sha, **{name: value}) for name, value in found.items()]
    assert all(one.result() for one in adding)
    kept = read(cell.key).metrics
    assert {"sanity": kept.sanity, "exemplars": kept.exemplars} == found


def test_why_scores_cannot_be_used_is_said(cell, results):
    assert why_not(None) == "its row is gone"
    assert why_not(stored(results, cell)) is None
    assert why_not(stored(results, cell, "skipped", **FAILED)) == "killed"
    assert why_not(stored(results, cell, "oom", **FAILED)) == "oom: killed"


@pytest.mark.parametrize("text", ['{"schema_version": 2}', '{"schema_version": true}', "{}", "[1]"])
def test_a_folder_of_another_schema_is_refused(text, tmp_path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match="schema version"):
        Results(tmp_path)


def test_a_folder_of_this_schema_is_taken_over(tmp_path):
    (tmp_path / "results.json").write_text('{"schema_version": 1}')
    assert Results(tmp_path).all_rows() == []


@pytest.mark.parametrize("part", ["rows", "cells"])
def test_results_of_unknown_schema_are_refused(part, tmp_path):
    (tmp_path / part).mkdir()
    with pytest.raises(UserError, match=r"no results\.json"):
        Results(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        Results(tmp_path / "file")
