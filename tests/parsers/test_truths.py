"""Manifests and archives of truths and submissions, whatever is in them."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import save

from tdabench.benchmark.submission.archive import CONTENTS as SUBMITTED
from tdabench.benchmark.submission.contents import read_scores
from tdabench.benchmark.submission.manifest import Manifest, read_manifest
from tdabench.benchmark.truth.archive import CONTENTS as EXPORTED
from tdabench.benchmark.truth.archive import read_archive
from tdabench.benchmark.truth.planned import Stated, planned
from tdabench.benchmark.unpacking import unpack
from tdabench.datasets.truth import FIELDS, OWN, Assets, manifest_hash
from tdabench.store import sha256

from .fuzz import changed, damaged, documents, few, many, parsed, texts, written

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
LABEL = "digits-tiny@1"
SCORES = save({"scores": np.zeros((2, 3), np.float32)})
FILES = {
    "problem.safetensors": save({"ids": np.arange(4), "groups": np.arange(4) % 2}),
    "truth-report.safetensors": save({"masks": np.packbits(np.eye(2, 4, dtype=bool), axis=1)}),
    "truth-report-0.safetensors": save({"outputs": np.ones((2, 2, 3), np.float32)}),
    "truth-open.safetensors": save({"masks": np.packbits(np.eye(1, 4, dtype=bool), axis=1)}),
    "weights-2.safetensors": save({"w": np.ones(2, np.float16)}),
    "truth-full.safetensors": save({"outputs": np.ones((1, 2, 3), np.float32)}),
}
MANIFEST: dict[str, Any] = {
    "schema_version": 2,
    "task": "digits-tiny",
    "version": 1,
    "n_train": 4,
    "dataset": {"name": "digits", "plugin": "a.py", "code": "abc"},
    "recipe": {"steps": 3},
    "base_seed": 0,
    "checkpoints": [2],
    "truth_plan": {
        "report": 2,
        "open": 1,
        "report_replicates": 1,
        "open_replicates": 0,
        "full": 1,
        "bins": 3,
        "regenerated": False,
    },
    "queries": [{"id": name, "kind": "heldout", "role": "test"} for name in ("a", "b")],
    "provenance": {},
    "files": {name: {"sha256": sha256(data), "bytes": len(data)} for name, data in FILES.items()},
}
SUBMISSION = {
    "schema_version": 1,
    "method": "mine",
    "method_version": 1,
    "adapter": "mine.py",
    "licence": "MIT",
    "contract": [{"name": "shape", "status": "pass", "detail": ""}],
    "environment": {"python": "3.11"},
    "files": {"adapter/mine.py": {"sha256": "a" * 64, "bytes": 3}},
}


def sealed(manifest: Any) -> Any:
    """Return a manifest with its own hash, where it can have one."""
    return {**manifest, OWN: manifest_hash(manifest)} if isinstance(manifest, dict) else manifest


def tar_of(files: dict[str, bytes], packed: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(buffer.getvalue()) if packed else buffer.getvalue()


def kinds(kind: str, shape: tuple[int, ...] = (2, 3)) -> bytes:
    """Return a file of the right name and shape in numbers of another kind."""
    size = {"BF16": 2, "F16": 2, "F8_E4M3": 1}.get(kind, 4) * int(np.prod(shape))
    header = json.dumps({"scores": {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "into"


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


@given(changed(MANIFEST).map(sealed).map(written) | documents(sealed(MANIFEST)))
@many
def test_a_manifest_opens_a_truth_or_is_refused(folder, data):
    (emptied(folder) / "manifest.json").write_bytes(data)
    assets = parsed(Assets, folder)
    if assets is not None:
        assert set(FIELDS) <= set(assets.manifest) and assets.manifest[OWN] == manifest_hash(assets.manifest)


@st.composite
def truths(draw: st.DrawFn) -> bytes:
    """Return an archive of a truth, of which a file or the manifest is not as it should be; all hashes are right."""
    name = draw(st.sampled_from(sorted(FILES)))
    kind = st.sampled_from(["BF16", "F16", "F8_E4M3", "I32", "X"]).map(kinds)
    odd = st.sampled_from([SCORES, save({}), save({"masks": np.zeros((2, 3), np.float32)})]) | kind
    data = draw(odd | damaged(FILES[name]) | st.just(FILES[name]))
    files = {**FILES, name: data}
    listed = {name: {"sha256": sha256(data), "bytes": len(data)} for name, data in files.items()}
    manifest = sealed(draw(changed({**MANIFEST, "files": listed}) | st.just({**MANIFEST, "files": listed})))
    label = draw(st.sampled_from([LABEL, LABEL, LABEL, "other@1"]))
    return tar_of({f"{label}/{name}": one for name, one in {"manifest.json": written(manifest), **files}.items()})


@given(truths())
@few
def test_an_archive_holds_a_truth_that_can_be_read_or_is_refused(folder, tmp_path, data):
    (tmp_path / "truth.tar").write_bytes(data)
    assets = parsed(read_archive, tmp_path / "truth.tar", emptied(folder))
    if assets is not None:
        assets.check_files()
        assert assets.label == LABEL and assets.sha256 and assets.problem_sha256
        for role in ("open", "report"):
            assert role == "open" or len(assets.truth(role).query_ids) == assets.truth(role).outputs.shape[2]


PLAIN = {f"{LABEL}/manifest.json": b"{}", f"{LABEL}/truth-full.safetensors": SCORES}
PACKED = {"submission.json": b"{}", "adapter/mine.py": b"x = 1", "rows/a@1/b.json": b"{}"}
NAMES = st.sampled_from([*PLAIN, *PACKED, "../x", "/etc/x", f"{LABEL}/../x.safetensors", "a" * 90]) | texts


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Return a tar, packed or not, with names that others chose, headers that others wrote, and damage."""
    files = draw(st.sampled_from([PLAIN, PACKED]) | st.dictionaries(NAMES.filter(_encodable), st.binary(max_size=9)))
    data = bytearray(tar_of(files))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, min(511, len(data) - 1)))  # of the first header
        data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
    if draw(st.booleans()):  # with a sum that fits, so that what was changed is looked at
        head = bytes(data[:148]) + b" " * 8 + bytes(data[156:512])
        data[148:156] = b"%06o\0 " % sum(head)
    whole = gzip.compress(bytes(data)) if draw(st.booleans()) else bytes(data)
    return draw(st.just(whole) | damaged(whole))


def _encodable(name: str) -> bool:
    return name.isprintable() and 0 < len(name) < 100


@given(archives() | st.binary(max_size=2000), st.sampled_from([EXPORTED, SUBMITTED]))
@few
def test_an_archive_is_unpacked_into_its_folder_or_refused(folder, tmp_path, data, contents):
    (tmp_path / "some.tar").write_bytes(data)
    names = parsed(unpack, tmp_path / "some.tar", emptied(folder), contents)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    assert {path.name for path in tmp_path.iterdir()} <= {"into", "some.tar"}
    if names is not None:
        assert set(names) == there and all(contents.name.fullmatch(name) for name in names)


@given(documents(SUBMISSION))
@many
def test_a_submission_says_what_it_is_or_is_refused(tmp_path, data):
    (tmp_path / "submission.json").write_bytes(data)
    manifest = parsed(read_manifest, tmp_path / "submission.json")
    if manifest is not None:
        assert Manifest.model_validate(json.loads(manifest.model_dump_json())) == manifest


@given(damaged(SCORES) | st.sampled_from(["BF16", "F16", "F8_E4M3", "I32", "X"]).map(kinds))
@many
def test_scores_of_a_submission_are_an_array_or_refused(tmp_path, data):
    (tmp_path / "scores.safetensors").write_bytes(data)
    scores = parsed(read_scores, tmp_path / "scores.safetensors", (2, 3))
    assert scores is None or (scores.shape, scores.dtype) == ((2, 3), np.float32)


def test_the_truth_and_the_submission_that_are_changed_are_read(folder, tmp_path):
    files = {"manifest.json": written(sealed(MANIFEST)), **FILES}
    (tmp_path / "t.tar").write_bytes(tar_of({f"{LABEL}/{name}": data for name, data in files.items()}))
    assert read_archive(tmp_path / "t.tar", emptied(folder)).truth("report").outputs.shape == (1, 2, 2, 3)
    (tmp_path / "submission.json").write_text(json.dumps(SUBMISSION))
    assert read_manifest(tmp_path / "submission.json").method == "mine"


PLAN = {"report": 2, "open": 1, "report_replicates": 2, "open_replicates": 1, "full": 1, "bins": 3}
ASKED = [("a", "heldout", "test"), ("b", "generated", "test"), ("c", "heldout", "control")]


def stated(**more: Any) -> Stated:
    """Return what the manifest of a small truth says, with replicates of both roles and a control among its queries."""
    queries = [dict(zip(("id", "kind", "role"), query, strict=True)) for query in ASKED]
    return Stated.model_validate({**MANIFEST, "n_train": 17, "truth_plan": PLAN, "queries": queries, **more})


def test_the_first_version_plans_a_file_for_each_role():
    full, problem = ("F32", (1, 2, 3)), {"problem.safetensors": {}}
    report = {"masks": ("U8", (2, 3)), "outputs": ("F32", (2, 2, 2, 3)), "full": full}
    opened = {"masks": ("U8", (1, 3)), "outputs": ("F32", (1, 1, 2, 3)), "full": full}
    assert planned(stated(), 1) == {**problem, "truth-report.safetensors": report, "truth-open.safetensors": opened}


@pytest.mark.parametrize(("listed", "replicates"), [(0, 1), (1, 1), (2, 2)])
def test_later_versions_plan_a_file_for_each_replicate(listed, replicates):
    of_groups = [f"truth-groups-{r}.safetensors" for r in range(listed)]
    files = {name: {"sha256": "a" * 64, "bytes": 1} for name in of_groups}
    names = {"names": ["x", "y", "z"]}
    found = planned(stated(recipe={"keep_raw": True}, checkpoints=[0, 5], groups=names, files=files), 2)
    models = {"full": 1, "report-0": 2, "report-1": 2, "open-0": 1, **{f"groups-{r}": 3 for r in range(replicates)}}
    expected: dict[str, Any] = {f"{kind}-{step}": {} for kind in ("weights", "raw") for step in (0, 5)}
    expected |= {"truth-report": {"masks": ("U8", (2, 3))}, "truth-open": {"masks": ("U8", (1, 3))}}
    expected |= {f"truth-{name}": {"outputs": ("F32", (n, 2, 3))} for name, n in models.items()}
    expected |= {f"regenerated-{name}": {"images": ("F16", (n, 1))} for name, n in models.items()}
    expected["problem"] = {"groups": ("I64", (17,))}
    assert found == {f"{name}.safetensors": arrays for name, arrays in expected.items()}


def test_models_that_are_none_have_no_files():
    found = planned(stated(truth_plan={**PLAN, "open": 0, "regenerated": False}, checkpoints=[]), 2)
    models = ("truth-full", "truth-report-0", "truth-report-1")
    assert set(found) == {f"{name}.safetensors" for name in ("problem", "truth-report", "truth-open", *models)}


@pytest.mark.parametrize(
    "change", [{"checkpoints": ["2"]}, {"checkpoints": [2.0]}, {"truth_plan": {**PLAN, "full": True}}]
)
def test_what_only_looks_like_a_number_plans_nothing(change):
    with pytest.raises(ValidationError, match="should be a valid integer"):
        stated(**change)
