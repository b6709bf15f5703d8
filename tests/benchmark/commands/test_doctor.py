"""The command doctor: what it finds wrong, what it only notes, and one line for each thing."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from packaging.requirements import Requirement

from tdabench.benchmark.commands import doctor

from ... import run_helpers

tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench


def states(findings):
    return {one.what: one.state for one in findings}


def test_a_machine_that_is_well_is_told_so_line_by_line(home, tdabench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = tdabench("doctor")
    lines = answer.out.splitlines()
    assert answer.code == 0 and all(line.split()[0] in doctor.COLOURS for line in lines), answer
    for what in ("python: 3.", "cpu: ", f"TDABENCH_HOME: {home}", "cache truth: ", "truth digits-tiny@1: built with"):
        assert sum(line[6:].startswith(what) for line in lines) == 1, what


def test_what_the_package_needs_is_wrong_where_it_lacks_and_an_extra_is_not():
    wanted = ["numpy>=1", "numpy>=999", "no-such-package", "no-such-extra; extra == 'more'", "numpy; extra == 'had'"]
    found = list(doctor.packages([Requirement(line) for line in wanted]))
    assert {name: state for name, state in states(found).items() if name not in ("python", "tdabench")} == {
        "packages": "wrong",
        "extra more": "note",
        "extra had": "ok",
    }
    said = next(one.found for one in found if one.what == "packages")
    assert said == f"numpy {version('numpy')}, not >=999; no no-such-package"


def test_a_folder_that_cannot_be_written_to_is_wrong(tmp_path, monkeypatch, tdabench):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "file" / "home"))
    answer = tdabench("doctor")
    (line,) = (line for line in answer.out.splitlines() if line.startswith("wrong"))
    assert answer.code == 1 and "TDABENCH_HOME: cannot write to" in line and "set TDABENCH_HOME" in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_caches_are_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    (tmp_path / "models" / "deep").mkdir(parents=True)
    (tmp_path / "models" / "deep" / "weights").write_bytes(bytes(3 * 2**20))
    (line,) = (one for one in doctor.folders() if one.what == "cache models")
    assert line.found.startswith("3 MiB in")


@pytest.mark.parametrize("torch", ["0.0.1", None])
def test_other_versions_of_a_truth_are_said(torch, tmp_path, monkeypatch, home):
    class Built:
        manifest = {"provenance": {"torch": torch or version("torch").partition("+")[0]}}

    monkeypatch.setattr(doctor, "open_assets", lambda spec: Built)
    found = states(doctor.truths())
    assert found["truth digits@1"] == ("note" if torch else "ok")


def test_a_truth_that_is_damaged_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path))
    folder = tmp_path / "truth" / "digits-tiny@1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{")
    assert states(doctor.truths())["truth digits-tiny@1"] == "wrong"
