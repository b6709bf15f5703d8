"""Rows as files, the ranking on synthetic replicates, and the tables in every format."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tdabench.errors import CorruptFile, UserError
from tdabench.leaderboard.readme import markers, update_readme
from tdabench.leaderboard.rows.row import (
    Cost,
    Key,
    LdsResult,
    Metrics,
    Row,
    Source,
    load_rows,
    read_row,
    row_key,
    write_row,
)
from tdabench.leaderboard.stats import ranking
from tdabench.leaderboard.views.lds import build_tables, cells, headings, render
from tdabench.leaderboard.views.sheet import FORMATS
from tdabench.store import FolderStore

SHARED = np.random.default_rng(0).normal(scale=0.05, size=1000)  # what resampling the same queries does to every method
BEGIN, END = markers("leaderboard")
MACHINE = {"cpu": "EPYC 9654", "gpu": "A100", "torch": "2.13.0"}


def make_key(method: str = "trak", **changes: Any) -> Key:
    fields = {"task": "digits", "task_version": 1, "method": method, "method_version": 1, "preset": "paper"}
    hashed = {"params": {"draws": 10}, "params_hash": "0123456789abcdef", "query_set": "test", "seed": 0}
    return Key.model_validate(fields | hashed | changes)


def make_lds(mean: float, spread: float = 0.002, missing: int = 0, offset: int = 1) -> LdsResult:
    replicates = mean + SHARED + np.random.default_rng([int(1e4 * mean + 1e4), offset]).normal(scale=spread, size=1000)
    low, high = np.quantile(replicates, [0.025, 0.975])
    values = [None] * missing + [mean] * (20 - missing)
    return LdsResult(
        query_ids=[f"q{index}" for index in range(20)],
        values=values,
        mean=mean,
        low=float(low),
        high=float(high),
        replicates=replicates.tolist(),
        n_nan=missing,
        n_subsets=96,
        ceiling=0.73,
        ceiling_low=0.68,
        ceiling_high=0.77,
        shuffled_mean=0.01,
    )


def make_cost(**changes: Any) -> Cost:
    times = {"setup_s": 1.5, "fit_s": 12.25, "attribute_s": [1.0, 3.0], "seconds_per_query": 0.1, "wall_s": 18.0}
    memory = {"peak_rss_bytes": {"fit": 2**30, "attribute": 2**29}, "peak_gpu_bytes": {"fit": None}, "scratch_bytes": 0}
    passes = {"forward_passes": {"fit": 1_200_000, "attribute": 34_000}, "backward_passes": {"fit": 999_900}}
    return Cost.model_validate(
        times | memory | passes | {"n_queries": 40, "micro_batch": 64, "resumed": False} | changes
    )


def make_source(**changes: Any) -> Source:
    fields = {
        "kind": "verified",
        "command": "tdabench run",
        "started_utc": "2026-11-22T03:00:00Z",
        "truth_sha256": "a" * 64,
    }
    return Source.model_validate(fields | changes)


def make_row(method: str = "trak", heldout: float = 0.4, generated: float | None = None, **changes: Any) -> Row:
    means = {"heldout": heldout} | ({} if generated is None else {"generated": generated})
    fields = {
        "status": "ok",
        "key": make_key(method),
        "metrics": Metrics(lds={kind: make_lds(mean) for kind, mean in means.items()}),
        "cost": make_cost(),
        "environment": MACHINE,
        "source": make_source(),
    }
    return Row.model_validate(fields | changes)


def make_failure(
    method: str = "mucs", status: str = "timeout", reason: str = "killed after 600 s", **changes: Any
) -> Row:
    fields = {"status": status, "reason": reason, "key": make_key(method), "environment": {}}
    return Row.model_validate(fields | {"source": make_source(truth_sha256=None)} | changes)


def altered(**changes: Any) -> bytes:
    return json.dumps(make_row().model_dump(mode="json") | changes).encode()


def test_row_comes_back_as_it_was_written(tmp_path: Path) -> None:
    store, row = FolderStore(tmp_path), make_row(diagnostics={"steps": [1, 2]})
    path = write_row(store, row)
    assert path == tmp_path / "digits@1/trak@1/paper-01234567/test-seed0.json"
    assert load_rows(tmp_path) == load_rows(store) == [row]
    assert len(path.read_text().splitlines()) == len(Row.model_fields) + 2


def test_rows_are_loaded_by_task_and_version(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for task, version in (("digits", 1), ("digits", 2), ("digits-lt", 1)):
        write_row(store, make_row(key=make_key(task=task, task_version=version)))
    assert len(load_rows(store)) == 3
    assert {row.key.task_version for row in load_rows(store, "digits")} == {1, 2}
    assert [row.key.task_version for row in load_rows(store, "digits@2")] == [2]
    assert load_rows(tmp_path / "nowhere") == []


def test_replicates_are_stored_short_and_scores_exact() -> None:
    result = make_lds(1 / 3)
    assert result.mean == 1 / 3
    assert all(value == round(value, 6) for value in result.replicates if value is not None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\xff nonsense", "is not valid JSON"),
        (altered()[:400], "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"[1, 2]", "is no result row"),
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


def test_file_under_another_cells_name_is_refused(tmp_path: Path) -> None:
    path = write_row(FolderStore(tmp_path), make_row())
    path.rename(path.with_name("test-seed1.json"))
    with pytest.raises(CorruptFile, match=r"another cell.*test-seed0\.json"):
        load_rows(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"n_nan": 1}, {"values": [0.1]}, {"query_ids": ["q"] * 20}, {"mean": float("nan")}, {"low": float("inf")}],
)
def test_lds_result_must_be_consistent(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LdsResult.model_validate(make_lds(0.4).model_dump() | change)


def test_not_a_number_in_a_free_section_becomes_null(tmp_path: Path) -> None:
    write_row(FolderStore(tmp_path), make_row(diagnostics={"residual": float("nan")}))
    assert load_rows(tmp_path)[0].diagnostics == {"residual": None}


def test_keys_differ_wherever_cells_do() -> None:
    changes = [
        {},
        {"seed": 1},
        {"query_set": "dev"},
        {"preset": "quick"},
        {"method_version": 2},
        {"params_hash": "f" * 16},
    ]
    assert len({row_key(make_key(**change)) for change in changes}) == len(changes)


def ranges(*rows: Row) -> dict[str, tuple[int, int]]:
    return {entry.method: value for entry, value in ranking.rank_ranges(ranking.standings(rows)).items()}


def test_pairing_separates_what_single_intervals_do_not() -> None:
    one, other = ranking.standings([make_row("b", 0.40), make_row("a", 0.42)])
    assert one.entry.method == "a" and one.overall.low is not None and other.overall.high is not None
    assert one.overall.low < other.overall.high
    assert np.median(ranking.paired_difference(one, other)) == pytest.approx(0.02, abs=1e-3)
    assert ranking.better(one, other) and not ranking.better(other, one)
    assert ranges(make_row("b", 0.40), make_row("a", 0.42)) == {"a": (1, 1), "b": (2, 2)}


def test_a_tie_shares_a_range() -> None:
    assert ranges(make_row("a", 0.4001), make_row("b", 0.4), make_row("c", 0.2)) == {
        "a": (1, 2),
        "b": (1, 2),
        "c": (3, 3),
    }


def test_chain_of_overlapping_ranges() -> None:
    rows = [make_row(name, mean) for name, mean in (("a", 0.404), ("b", 0.4), ("c", 0.396))]
    assert ranges(*rows) == {"a": (1, 2), "b": (1, 3), "c": (2, 3)}


def test_overall_score_is_the_mean_over_kinds() -> None:
    (standing,) = ranking.standings([make_row("a", 0.4, 0.2)])
    assert standing.overall.mean == pytest.approx(0.3)
    parts = [standing.kinds[kind].replicates for kind in ("heldout", "generated")]
    np.testing.assert_allclose(standing.overall.replicates, np.mean(parts, axis=0))


def test_seeds_are_averaged_into_one_entry() -> None:
    rows = [make_row("a", mean, key=make_key("a", seed=seed)) for seed, mean in enumerate((0.3, 0.5))]
    (standing,) = ranking.standings(rows)
    assert standing.overall.mean == pytest.approx(0.4)
    assert standing.overall.replicates.mean() == pytest.approx(0.4, abs=0.01)
    assert standing.asked == 40


@pytest.mark.parametrize(
    "other",
    [
        make_row(key=make_key(task_version=2)),
        make_row(key=make_key(query_set="dev")),
        make_row("trak", 0.4, 0.2),
        make_row(source=make_source(truth_sha256="b" * 64)),
    ],
)
def test_what_is_not_comparable_never_shares_a_table(other: Row) -> None:
    with pytest.raises(UserError, match="cannot be ranked together"):
        ranking.standings([make_row(), other])
    assert [len(table.lines) for table in build_tables([make_row(), other])] == [1, 1]


def test_different_numbers_of_replicates_are_not_paired() -> None:
    short = LdsResult.model_validate(make_lds(0.4).model_dump() | {"replicates": [0.4] * 10})
    with pytest.raises(UserError, match="a and b hold 1000 and 10 bootstrap replicates"):
        ranges(make_row("a", 0.5), make_row("b", metrics=Metrics(lds={"heldout": short})))


def test_incomplete_entries_have_no_rank_and_hold_nobody_down() -> None:
    partial = make_row("a", status="partial", metrics=Metrics(lds={"heldout": make_lds(0.6, missing=8)}))
    assert ranges(partial, make_row("b", 0.4)) == {"b": (1, 1)}
    line = build_tables([partial, make_row("b", 0.4)])[0].lines[0]
    assert (line.method, line.status, line.rank_best, line.beats_random) == ("a@1", "partial", None, None)


def test_random_is_the_bar_where_it_was_measured() -> None:
    rows = [make_row("far", 0.3), make_row("near", 0.2), make_row("random", 0.1999)]
    ranked = far, near, _ = ranking.standings(rows)
    assert [ranking.beats_random(standing, ranked) for standing in ranked] == [True, False, None]
    assert ranking.beats_random(near, [far, near]) is True
    (weak,) = ranking.standings([make_row("weak", 0.01)])
    assert ranking.beats_random(weak, [weak]) is False


def leaderboard() -> list[Row]:
    rows = [make_row("mucs-retain", 0.453, 0.291), make_row("d-trak", 0.42, 0.31), make_row("random", 0.001, -0.002)]
    slow = make_cost(fit_s=4321.0, resumed=True, peak_gpu_bytes={"fit": 3 * 2**30})
    rows.append(make_row("ek-fac", 0.2, 0.1, cost=slow))
    lds = {"heldout": make_lds(0.3, missing=8), "generated": make_lds(0.2)}
    rows.append(make_row("unlearn", status="partial", metrics=Metrics(lds=lds)))
    rows += [make_failure(), make_failure("clip", "skipped", "needs an encoder | <none here>\nsee the card")]
    return rows


def test_failures_are_shown_with_their_reasons_in_every_format() -> None:
    (table,) = tables = build_tables(leaderboard())
    assert [failure.method for failure in table.failures] == ["clip@1", "mucs@1"]
    for name in FORMATS:
        text = render(tables, name)
        assert "killed after 600 s" in text and "needs an encoder" in text, name


def test_failures_alone_still_make_a_table() -> None:
    (table,) = tables = build_tables([make_failure()])
    assert not table.lines
    assert all("killed after 600 s" in render(tables, name) for name in FORMATS)


def test_formats_agree_in_numbers() -> None:
    tables = build_tables(leaderboard())
    (data,) = json.loads(render(tables, "json"))
    records = list(csv.DictReader(io.StringIO(render(tables, "csv"))))
    markdown = [line.strip("| ").split(" | ") for line in render(tables, "markdown").splitlines() if "@1 |" in line]
    terminal = [line for line in render(tables, "table", 200).splitlines() if "@1 " in line]
    assert len(data["lines"]) == len(markdown) == len(records) - 2 == 5
    for line, record, row, text in zip(data["lines"], records, markdown, terminal, strict=False):
        assert line["method"] == record["method"] == row[1] and line["method"] in text
        for column, kind in ((3, "generated"), (4, "heldout")):
            score = line["lds"][kind]
            assert [float(record[f"lds_{kind}_{part}"]) for part in score] == list(score.values())
            expected = [round(100 * number, 1) for number in score.values()]
            assert [float(number) for number in re.findall(r"-?\d+\.\d", row[column])] == expected
            assert row[column] in text
        assert float(record["fit_s"]) == line["fit_s"]


def test_text_of_costs_status_and_ranks() -> None:
    (table,) = build_tables(leaderboard())
    lines = [dict(zip(headings(table), line, strict=True)) for line in cells(table)]
    assert [line["Method"] for line in lines] == ["mucs-retain@1", "d-trak@1", "unlearn@1", "ek-fac@1", "random@1"]
    assert [line["Rank"] for line in lines] == ["1", "2", "-", "3", "4"]
    assert [line["Status"] for line in lines] == ["ok", "ok", "32 of 40", "resumed", "ok"]
    assert [line["Beats random"] for line in lines] == ["yes", "yes", "-", "yes", "-"]
    assert [line["Fit s"] for line in lines][2:4] == ["12.2", "4,321"]
    assert (lines[0]["GPU MiB"], lines[3]["GPU MiB"]) == ("-", "3,072")
    (on_cpu,) = build_tables([make_row()])
    assert dict(zip(headings(on_cpu), cells(on_cpu)[0], strict=True))["RSS MiB"] == "1,024"
    assert (lines[0]["Fwd"], lines[0]["Bwd"]) == ("1.23M", "1M")


def test_notes_say_where_ceilings_and_costs_come_from() -> None:
    (table,) = build_tables(leaderboard())
    notes = "\n".join(table.notes)
    assert "heldout: 20 queries, 96 subsets, noise ceiling 73.0 [68.0, 77.0]." in notes
    assert "on EPYC 9654 and A100." in notes and "resumed: took several starts" in notes
    (mixed,) = build_tables([make_row(), make_row("b", environment={"cpu": "M3"})])
    assert "not all on one known machine" in "\n".join(mixed.notes)


@pytest.mark.parametrize("width", [60, 100, 120])
def test_terminal_table_never_cuts_a_name_or_number(width: int) -> None:
    tables = build_tables(leaderboard())
    text = render(tables, "table", width)
    for line in tables[0].lines:
        assert line.method in text
    for number in re.findall(r"[^ ]*\d[^ ]*", " ".join(cell for line in cells(tables[0]) for cell in line)):
        assert number.strip("[],") in text
    assert width == 60 or max(map(len, text.splitlines())) <= width


def test_presets_of_one_name_are_told_apart() -> None:
    rows = [make_row("a", 0.4), make_row("a", 0.5, key=make_key("a", params_hash="f" * 16))]
    assert [line[2] for line in cells(build_tables(rows)[0])] == ["paper-ffffffff", "paper-01234567"]


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'markdown'"):
        render([], "markdwn")


def test_readme_changes_between_the_markers_only() -> None:
    text = f"# Title\n{BEGIN}\nstale table\n{END}\ntail\n"
    once = update_readme(text, leaderboard())
    assert once.startswith(f"# Title\n{BEGIN}\n") and once.endswith(f"{END}\ntail\n")
    assert "stale table" not in once and "| mucs-retain@1 |" in once
    assert update_readme(once, leaderboard()) == once
    assert "No rows yet." in update_readme(once, [])


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_readme_without_one_pair_of_markers_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="leaderboard:begin"):
        update_readme(text, [])


def test_a_reason_cannot_break_the_readme() -> None:
    hostile = make_failure(reason=f"died | {END} |")
    once = update_readme(f"{BEGIN}\n{END}\n", [hostile])
    assert once.count(END) == 1 and update_readme(once, [hostile]) == once


def test_a_report_imports_nothing_heavy() -> None:
    code = (
        "import sys, tdabench.leaderboard.readme\n"
        "heavy = {'torch', 'scipy', 'pandas', 'rich', 'tdabench.methods', 'tdabench.benchmark', 'tdabench.models'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
