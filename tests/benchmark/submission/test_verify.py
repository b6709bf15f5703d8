"""A submission holds only if everything in it follows from the scores and the truth here; its code is never run."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from tdabench.benchmark.contract.rules import RULES
from tdabench.benchmark.contract.suite import Check
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.submission.archive import CONTENTS, MANIFEST, write_archive
from tdabench.benchmark.submission.contents import opened
from tdabench.benchmark.submission.derive import derivable
from tdabench.benchmark.submission.pack import collected, submitted_method, write_submission
from tdabench.benchmark.submission.verify import Verifier
from tdabench.benchmark.unpacking import unpack
from tdabench.errors import UserError
from tdabench.plugins import code_hash
from tdabench.store import sha256

from ... import run_helpers
from ...leaderboard.helpers import sanity
from ...run_helpers import plugin, run_cells

tiny_home, home = run_helpers.tiny_home, run_helpers.home

PASSED = [Check(rule.name, "pass", "fine") for rule in RULES]
Files = dict[str, bytes]
Change = Callable[[Files, Path], None]


@pytest.fixture(scope="module")
def made(tiny_home, tmp_path_factory) -> tuple[Path, Path]:
    """A plugin with a sibling, and the results of one run of it, not to be written to."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "sibling.py").write_text("TWO = 2\n")
    file = plugin(folder, "mine", "from sibling import TWO; scores = TWO * scores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(tiny_home))
        run_cells(folder / "results", ["mine"], [file])
    return file, folder / "results"


@pytest.fixture(scope="module")
def files(made, tmp_path_factory) -> Files:
    """The files of an honest submission, its manifest among them."""
    folder, (file, results) = tmp_path_factory.mktemp("files"), made
    listing = submitted_method(file)
    given = collected(listing, file, Results(results))
    write_submission(folder / "x.tar.gz", listing, file, given, PASSED, "MIT")
    return {
        name: (folder / "out" / name).read_bytes() for name in unpack(folder / "x.tar.gz", folder / "out", CONTENTS)
    }


def verdict(folder: Path, files: Files, change: Change = lambda files, folder: None) -> list[Check]:
    """Return what is found of a submission after a change, by an author who mends the manifest's hashes."""
    spoilt = dict(files)
    change(spoilt, folder)
    manifest = json.loads(spoilt[MANIFEST])
    if manifest.pop("mend", True):
        manifest["files"] = {n: {"sha256": sha256(d), "bytes": len(d)} for n, d in spoilt.items() if n != MANIFEST}
    write_archive(folder / "x.tar.gz", {**spoilt, MANIFEST: json.dumps(manifest).encode()})
    return Verifier(opened(folder / "x.tar.gz", folder / "unpacked")).checks()


def only(files: Files, start: str) -> str:
    (name,) = [name for name in files if name.startswith(start)]
    return name


def edit(start: str, change: Callable[[Any], None]) -> Change:
    def apply(files: Files, folder: Path) -> None:
        name = only(files, start)
        value = json.loads(files[name])
        change(value)
        files[name] = json.dumps(value).encode()

    return apply


def row(change: Callable[[Any], None]) -> Change:
    return edit("rows/", change)


def manifest(**changes: Any) -> Change:
    return edit(MANIFEST, lambda value: value.update(changes))


def text(start: str, old: str, new: str) -> Change:
    def apply(files: Files, folder: Path) -> None:
        name = only(files, start)
        assert old.encode() in files[name]
        files[name] = files[name].replace(old.encode(), new.encode())

    return apply


def scores(change: Callable[[np.ndarray], Any], rehash: bool = True) -> Change:
    def apply(files: Files, folder: Path) -> None:
        name = only(files, "scores/")
        files[name] = save(change(load(files[name])["scores"].copy()))
        if rehash:
            hashed = sha256(json.dumps([sha256(files[name])]).encode())
            row(lambda value: value["source"].update(scores_sha256=hashed))(files, folder)

    return apply


def better(value: Any) -> None:
    lds = value["metrics"]["lds"]["heldout"]
    lds["values"] = [v + 0.5 for v in lds["values"]]
    lds["mean"] = sum(lds["values"]) / len(lds["values"])


def first_is_nan(scores: np.ndarray) -> np.ndarray:
    scores[0] = np.nan
    return scores


def of_another(name: str, entry: Any) -> Change:
    def apply(files: Files, folder: Path) -> None:
        old = only(files, "rows/")
        value = json.loads(files[old])
        value["key"][name] = entry
        key = value["key"]
        cell = f"{key['task']}@{key['task_version']}/{key['method']}@{key['method_version']}/"
        new = f"{cell}{key['preset']}-{key['params_hash']}/{key['query_set']}-seed{key['seed']}"
        files[f"rows/{new}.json"] = json.dumps(value).encode()
        files[f"scores/{new}/slice-00000-00006.safetensors"] = files.pop(only(files, "scores/"))
        del files[old]

    return apply


def renamed_adapter(files: Files, folder: Path) -> None:
    name = only(files, "adapter/mine")
    files[name] = files[name].replace(b'@register("mine")', b'@register("pixel-of-mine")')


def add(name: str, data: bytes = b"x = 1\n") -> Change:
    return lambda files, folder: files.update({name: data})


def drop(start: str) -> Change:
    def apply(files: Files, folder: Path) -> None:
        del files[only(files, start)]

    return apply


def both(*changes: Change) -> Change:
    def apply(files: Files, folder: Path) -> None:
        for change in changes:
            change(files, folder)

    return apply


def test_an_honest_submission_holds(files, home, tmp_path) -> None:
    checks = verdict(tmp_path, files)
    assert [check.status for check in checks] == ["pass"] * 7
    assert {name.split("/")[0] for name in files} == {MANIFEST, "adapter", "rows", "scores"}
    assert json.loads(files[MANIFEST])["licence"] == "MIT" and "adapter/sibling.py" in files


MISMATCHES: dict[str, tuple[Change, str, str]] = {
    "a file that is not the manifest's": (
        both(manifest(mend=False), text("adapter/mine", "TWO * scores", "9 * scores")),
        "hashes",
        "is not what the manifest says",
    ),
    "a file that is not listed": (both(manifest(mend=False), add("adapter/more.py")), "hashes", "not in both"),
    "another adapter than was run": (text("adapter/mine", "TWO * scores", "3 * scores"), "adapter", "another adapter"),
    "another sibling than was run": (text("adapter/sibling", "TWO = 2", "TWO = 3"), "adapter", "another adapter"),
    "a file that nothing imports": (add("adapter/more.py"), "adapter", "more.py"),
    "a sibling left out": (drop("adapter/sibling"), "adapter", "another adapter"),
    "a report of a failure": (edit(MANIFEST, lambda v: v["contract"][3].update(status="fail")), "contract", "failed"),
    "a report without a check": (
        edit(MANIFEST, lambda v: v["contract"].pop()),
        "contract",
        "not of the contract suite",
    ),
    "no row": (both(drop("rows/"), drop("scores/")), "rows", "no row"),
    "a row of another method": (of_another("method", "pixel"), "rows", "pixel@1"),
    "a row of another version": (of_another("method_version", 9), "rows", "mine@9"),
    "a row that says verified": (row(lambda v: v["source"].update(kind="verified")), "rows", "says verified"),
    "a row that says reported": (row(lambda v: v["source"].update(kind="reported")), "rows", "says reported"),
    "sanity checks": (row(lambda v: v["metrics"].update(sanity=sanity().model_dump())), "rows", "holds sanity"),
    "another problem": (
        row(lambda v: v["source"].update(problem_sha256="0" * 64)),
        "tasks",
        "another problem or truth",
    ),
    "another truth": (row(lambda v: v["source"].update(truth_sha256="0" * 64)), "tasks", "another problem or truth"),
    "scores of another hash": (scores(lambda s: {"scores": s * 2}, rehash=False), "scores", "whose hash"),
    "scores left out": (drop("scores/"), "scores", "do not cover"),
    "scores of no row": (add("scores/digits-tiny@1/other/slice-00000-00006.safetensors"), "scores", "belong to no row"),
    "scores that do not give the metrics": (scores(lambda s: {"scores": -s}), "metrics", "is claimed to be"),
    "a better LDS": (row(better), "metrics", "metrics.lds.heldout.values.0 is claimed"),
    "other top items": (row(lambda v: v["metrics"]["top"]["ids"][0].reverse()), "metrics", "metrics.top.ids.0.0"),
    "a higher ceiling": (row(lambda v: v["metrics"]["lds"]["heldout"].update(ceiling=0.99)), "metrics", "ceiling"),
    "no LDS of one kind": (row(lambda v: v["metrics"]["lds"].pop("heldout")), "metrics", "heldout"),
    "scores that are not all numbers": (scores(lambda s: {"scores": first_is_nan(s)}), "metrics", "is claimed"),
}


@pytest.mark.parametrize("what", MISMATCHES)
def test_a_mismatch_is_found_where_it_is(what: str, files, home, tmp_path) -> None:
    change, check, said = MISMATCHES[what]
    last = verdict(tmp_path, files, change)[-1]
    assert (last.name, last.status) == (check, "fail") and said in last.detail, last


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


def deep(files: Files, folder: Path) -> None:
    row(lambda v: v["diagnostics"].update(deep="DEEP"))(files, folder)
    text("rows/", '"DEEP"', "[" * 5000 + "]" * 5000)(files, folder)


def lying(files: Files, folder: Path) -> None:
    """A file of scores whose header says more numbers than there are."""
    header = json.dumps({"scores": {"dtype": "F32", "shape": [6, 10**9], "data_offsets": [0, 24 * 10**9]}}).encode()
    files[only(files, "scores/")] = struct.pack("<Q", len(header)) + header + bytes(1440)


def of_bfloat16(files: Files, folder: Path) -> None:
    header = json.dumps({"scores": {"dtype": "BF16", "shape": [6, 60], "data_offsets": [0, 720]}}).encode()
    files[only(files, "scores/")] = struct.pack("<Q", len(header)) + header + bytes(720)


def huge_header(files: Files, folder: Path) -> None:
    files[only(files, "scores/")] = struct.pack("<Q", 2**62) + b"{" * 1440


BROKEN: dict[str, tuple[Change, str]] = {
    "parameters of another hash": (row(lambda v: v["key"].update(params={"draws": 9})), "not that of its params"),
    "a number that is none": (row(lambda v: v["cost"].update(fit_s=float("nan"))), "NaN is not allowed"),
    "a number too large": (text("rows/", '"setup_s": ', '"setup_s": 1e999, "x": '), "too large a number"),
    "a name twice": (text("rows/", '"status": "ok"', '"status": "ok", "status": "ok"'), "'status' stands twice"),
    "deep JSON": (deep, "nested"),
    "moderately deep JSON": (row(lambda v: v["diagnostics"].update(x=nested(21))), "nested more than 20"),
    "no JSON": (lambda f, p: f.update({only(f, "rows/"): b"\xff\xfe{"}), "not valid JSON"),
    "a list": (lambda f, p: f.update({only(f, "rows/"): b"[]"}), "no result row"),
    "an extra field": (row(lambda v: v.update(extra=1)), "extra"),
    "a wrong type": (row(lambda v: v["key"].update(seed="0")), "key.seed"),
    "a row elsewhere": (
        lambda f, p: f.update({"rows/a.json": f.pop(only(f, "rows/"))}),
        "holds the row of another cell",
    ),
    "a terminal's escape": (row(lambda v: v["source"].update(command="\x1b]0;gone\x07")), "control characters"),
    "text turned around": (row(lambda v: v["diagnostics"].update(x="\u202egnp.exe")), "control characters"),
    "a null character in a name": (row(lambda v: v["environment"].update({"a\x00b": 1})), "control characters"),
    "a path for a method": (row(lambda v: v["key"].update(method="../x")), "key.method"),
    "an unknown task": (of_another("task", "digit-tiny"), "unknown task 'digit-tiny'"),
    "another task version": (of_another("task_version", 7), "version 1, not '7'"),
    "a task without truth": (of_another("task", "cifar2"), "task 'cifar2' has no ground truth here"),
    "a shape that lies": (lying, "no safetensors file"),
    "other numbers": (of_bfloat16, "slice-00000-00006"),
    "a huge header": (huge_header, "no safetensors file"),
    "scores too wide": (scores(lambda s: {"scores": np.ones((6, 61), np.float32)}), "[6, 60] belong"),
    "scores of doubles": (scores(lambda s: {"scores": s.astype(np.float64)}), "float64"),
    "two tensors": (scores(lambda s: {"scores": s, "more": s}), "more"),
    "an adapter of another name": (renamed_adapter, "registers pixel-of-mine, not mine"),
    "an adapter that is no Python": (lambda f, p: f.update({only(f, "adapter/mine"): b"def ("}), "not valid Python"),
    "an adapter nested deeply": (
        lambda f, p: f.update({only(f, "adapter/mine"): b"(" * 9000 + b")" * 9000}),
        "not valid Python",
    ),
    "a sibling that is no Python": (lambda f, p: f.update({only(f, "adapter/sibling"): b"\x00"}), "not valid Python"),
    "odd literals": (text("adapter/mine", "slice_size = 20", "query_kinds = 5"), "query_kinds"),
    "a manifest of another schema": (manifest(schema_version=2), "schema version 2"),
    "a manifest with more": (manifest(more=1), "more"),
    "a licence of markup": (manifest(licence="<script>"), "licence"),
    "an adapter elsewhere": (manifest(adapter="../../etc/passwd"), "holds no adapter/"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_one_line(what: str, files, home, tmp_path) -> None:
    change, said = BROKEN[what]
    with pytest.raises(UserError) as caught:
        verdict(tmp_path, files, change)
    assert said in str(caught.value) and len(str(caught.value)) < 700, caught.value
    assert str(caught.value).isprintable()


def test_verifying_runs_no_submitted_code(files, home, tmp_path) -> None:
    """Neither the adapter nor its siblings are imported, though both are read and hashed."""
    mark = f"\nopen({str(tmp_path / 'ran')!r}, 'w')\n"

    def change(files: Files, folder: Path) -> None:
        for name in ("mine", "sibling"):
            files[f"adapter/{name}.py"] += mark.encode()
        (folder / "copy").mkdir()
        for name in ("mine", "sibling"):
            (folder / "copy" / f"{name}.py").write_bytes(files[f"adapter/{name}.py"])
        hashed = code_hash(str(folder / "copy" / "mine.py"))
        row(lambda value: value["source"].update(adapter_sha256=hashed))(files, folder)

    assert [check.status for check in verdict(tmp_path, files, change)] == ["pass"] * 7
    assert not (tmp_path / "ran").exists()


def test_what_scores_do_not_give_is_left_out_when_packing(made) -> None:
    (given,) = Results(made[1]).all_rows()
    assert given.metrics is not None
    more = given.model_copy(update={"metrics": given.metrics.model_copy(update={"sanity": sanity()})})
    assert derivable(more) == given


def test_packing_refuses_what_is_not_of_the_run(made, tmp_path) -> None:
    file, results = made
    (tmp_path / "sibling.py").write_text("TWO = 4\n")
    changed = tmp_path / "mine.py"
    changed.write_text(file.read_text())
    with pytest.raises(UserError, match="another state of"):
        collected(submitted_method(changed), changed, Results(results))
    other = plugin(tmp_path, "other")
    with pytest.raises(UserError, match="has no row of other"):
        collected(submitted_method(other), other, Results(results))
    many = plugin(tmp_path, "many")
    many.write_text(many.read_text() + many.read_text().replace('"many"', '"more"').replace("Adapter", "More"))
    with pytest.raises(UserError, match="registers 2 methods"):
        submitted_method(many)
    with pytest.raises(UserError, match="an ensemble is made here"):
        submitted_method(plugin(tmp_path, "several", members=("pixel",), needs=("stored-scores",)))
