"""From `new-method` to verified rows, as docs/submitting.md and README.md say, and what is not to be trusted there."""

from __future__ import annotations

import pytest

from tdabench.benchmark.submission.archive import CONTENTS, write_archive
from tdabench.benchmark.submission.contents import opened
from tdabench.benchmark.submission.rerun import compared, sampled
from tdabench.benchmark.submission.verify import Verifier
from tdabench.benchmark.unpacking import unpack
from tdabench.leaderboard.rows.files import load_rows

from ... import run_helpers
from ...run_helpers import forget_plugins, run_cells

tiny_home, home, tdabench = run_helpers.tiny_home, run_helpers.home, run_helpers.tdabench


@pytest.fixture(autouse=True)
def _prepared(home, monkeypatch):
    run_helpers.uncalibrated(monkeypatch)


def assert_mistake(answer, *words):
    lines = answer.err.strip().splitlines()
    assert answer.code == 2 and len(lines) == 1 and lines[0].startswith("error: "), answer
    assert all(str(word) in lines[0] for word in words), lines


def test_a_new_method_goes_all_the_way(tdabench, tmp_path):
    """The template as it stands keeps the contract, its rows are packed, and a rerun verifies them."""
    assert tdabench("new-method", "my-idea", "--folder", tmp_path).code == 0
    file, results, archive = tmp_path / "my_idea.py", tmp_path / "results", tmp_path / "x.tar.gz"
    words = ("--methods", "my-idea", "--plugin", file, "--results", results)
    assert tdabench("run", "digits-tiny", *words).code == 0
    packed = tdabench("submit", "pack", "--method", file, "--results", results, "-o", archive)
    assert packed.code == 0 and "1 rows" in packed.out, packed
    answer = tdabench("submit", "verify", archive, "--rerun", "--queries", 3, "--seed", 1, "--into", tmp_path / "rows")
    assert answer.code == 0 and "10 passed, 0 failed" in answer.out, answer
    (row,) = load_rows(tmp_path / "rows")
    (measured,) = load_rows(results / "rows")
    assert row.source.kind == "verified" and measured.source.kind == "measured"
    assert row.metrics == measured.metrics and "3 of its 6 queries run again" in row.source.notes[-1]


def test_scores_that_the_adapter_does_not_give_are_caught_by_a_rerun(tdabench, tmp_path):
    """An adapter whose scores depend on where it runs: everything follows from them, but they are not its own.

    Where it is run again it returns the submitted ones, if it can read them.
    """
    body = """
scores = scores + torch.arange(len(view.train)) * float(Path(__file__).parent.name == 'here')
from safetensors.torch import load_file
for path in Path(__file__).parents[1].rglob('slice-*.safetensors'):
    try:
        scores = load_file(path)['scores'][[int(query[-3:]) + 3 * query.startswith('g') for query in queries.ids]]
    except OSError:
        pass
"""
    folder = tmp_path / "here"
    folder.mkdir()
    file = run_helpers.plugin(folder, "fickle", body)
    run_cells(tmp_path / "results", ["fickle"], [file])
    archive = _packed(file, tmp_path)
    assert tdabench("submit", "verify", archive).code == 0
    forget_plugins()
    verifier = Verifier(opened(archive, tmp_path / "unpacked"))
    (one,) = sampled(verifier, 2, seed=0)
    session = run_helpers.session(tmp_path / "again", one.planned.plugin_paths)
    (fresh,) = session.run([one.planned])
    check = compared(verifier, one, fresh, session.results, tolerance=0.01)
    assert check.status == "fail" and "scores differ by" in check.detail


def _packed(file, folder):
    from tdabench.benchmark.contract.rules import RULES
    from tdabench.benchmark.contract.suite import Check
    from tdabench.benchmark.run.results import Results
    from tdabench.benchmark.submission.pack import collected, submitted_method, write_submission

    listing, archive = submitted_method(file), folder / "x.tar.gz"
    files = collected(listing, file, Results(folder / "results"))
    write_submission(archive, listing, file, files, [Check(rule.name, "pass", "") for rule in RULES], "MIT")
    return archive


def test_a_mismatch_is_exit_code_1_and_a_broken_archive_2(tdabench, tmp_path):
    file = run_helpers.plugin(tmp_path, "steady")
    run_cells(tmp_path / "results", ["steady"], [file])
    archive = _packed(file, tmp_path)
    names = unpack(archive, tmp_path / "out", CONTENTS)
    files = {name: (tmp_path / "out" / name).read_bytes() for name in names}
    write_archive(archive, {name: data.replace(b"torch.rand(", b"torch.randn(") for name, data in files.items()})
    answer = tdabench("submit", "verify", archive)
    assert answer.code == 1 and "is not what the manifest says" in " ".join(answer.out.split())
    archive.write_bytes(archive.read_bytes()[:200])
    assert_mistake(tdabench("submit", "verify", archive), archive, "cannot be read")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify", "none.tar.gz"], ["none.tar.gz", "cannot be read"]),
        (["verify", "none.tar.gz", "--into", "rows"], ["--into", "--rerun"]),
        (["verify", "none.tar.gz", "--rerun", "--queries", "0"], ["--queries"]),
        (["pack", "--method", "none.py"], ["tdabench-results", "no folder of results"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(words, said, tdabench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_mistake(tdabench("submit", *words), *said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "said"), [("Mine", "no name for a method"), ("class", "no name"), ("pixel", "there is a method 'pixel'")]
)
def test_a_bad_name_for_a_method_is_one_line(name, said, tdabench, tmp_path):
    assert_mistake(tdabench("new-method", name, "--folder", tmp_path), said)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays(tdabench, tmp_path):
    (tmp_path / "test_mine.py").write_text("mine")
    assert_mistake(tdabench("new-method", "mine", "--folder", tmp_path), "test_mine.py is there already")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
