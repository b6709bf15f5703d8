"""The README tells the truth: its table is that of the committed rows, its example passes, its commands exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tdabench.benchmark.commands.cli import app
from tdabench.benchmark.contract import suite
from tdabench.benchmark.tasks.find import find_task, task_names
from tdabench.datasets.truth import SHIPPED, Assets
from tdabench.leaderboard.readme import update_readme
from tdabench.leaderboard.rows.files import RESULTS, load_rows
from tdabench.methods.registry import listings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_the_tables_are_those_of_the_committed_rows(page: str) -> None:
    rows, text = load_rows(RESULTS), (ROOT / page).read_text(encoding="utf-8")
    assert rows and update_readme(text, rows) == text


def test_the_example_method_passes_the_contract(tmp_path: Path) -> None:
    source = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert source is not None
    file = tmp_path / "brightness.py"
    file.write_text(source.group(1))
    assert not [check for check in suite.check_method(file) if check.status == "fail"]


CODE = "\n".join(re.findall(r"`[^`\n]+`|^ {4}.+$", README, re.MULTILINE))


@pytest.mark.parametrize("line", sorted(set(re.findall(r"tdabench [a-z-]+(?: [a-z]+)?", CODE))))
def test_every_command_named_exists(line: str) -> None:
    words = shlex.split(line)[1:]
    group = words[:2] if words[0] == "truth" else words[:1]
    if words == ["truth"]:
        return
    assert CliRunner().invoke(app, [*group, "--help"]).exit_code == 0


def test_every_task_is_named() -> None:
    assert {"digits", "digits-edm", "digits-tiny"} <= set(task_names())
    assert all(f"`{name}`" in README for name in task_names())


def test_committed_rows_are_of_known_methods_current_versions_and_the_shipped_truth() -> None:
    known = listings()
    for row in load_rows(RESULTS):
        assert row.key.method_version == known[row.key.method].version
        assert row.source.truth_sha256 == Assets(SHIPPED / f"{row.key.task}@{row.key.task_version}").sha256


def test_committed_rows_cover_every_method_in_both_presets() -> None:
    rows = load_rows(RESULTS, "digits")
    for preset in ("quick", "paper"):
        assert {row.key.method for row in rows if row.key.preset == preset} == set(listings())


def test_the_shipped_truth_is_small_and_from_the_task_as_it_is() -> None:
    assets = Assets(SHIPPED / "digits@1")
    assert sum(file["bytes"] for file in assets.manifest["files"].values()) <= 8 * 2**20
    assert len(assets.manifest["checkpoints"]) - 1 <= 6
    assert assets.manifest["recipe"] == json.loads(json.dumps(find_task("digits").recipe.to_json()))
    assert assets.manifest["truth_plan"] == json.loads(json.dumps(find_task("digits").to_json()["truth"]))
