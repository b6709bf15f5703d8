"""What runs on a forge: it parses, the commands that it names exist, and strangers' code gets no rights."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from tdabench import __version__
from tdabench.benchmark.commands.cli import app

from .code_blocks import words_of

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
ACTION = ROOT / "action.yml"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path: Path) -> list[dict[str, Any]]:
    found = read(path)
    return found["runs"]["steps"] if path == ACTION else [s for job in found["jobs"].values() for s in job["steps"]]


def lines() -> list[str]:
    """Every line of a script that calls the command."""
    scripts = [step["run"] for path in (*WORKFLOWS, ACTION) for step in steps(path) if "run" in step]
    found = [line.strip() for script in scripts for line in script.splitlines()]
    return sorted({line for line in found if line.startswith("tdabench ")})


@pytest.mark.parametrize("line", lines())
def test_commands_and_their_options_exist(line: str) -> None:
    if line.split()[1] == "report" and "report" not in get_command(app).commands:
        pytest.skip("the page's command is not in this checkout")
    assert words_of(line)[1] == []


def test_there_is_something_to_test() -> None:
    assert len(lines()) >= 10 and len(WORKFLOWS) == 4 and len(FORMS) == 4


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION], ids=lambda path: path.name)
def test_nothing_of_others_is_written_into_a_script(path: Path) -> None:
    """Names of branches, files and inputs reach a script as variables: in its text they could be commands."""
    assert not [step["run"] for step in steps(path) if "${{" in step.get("run", "")]


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION], ids=lambda path: path.name)
def test_scripts_are_valid_bash(path: Path) -> None:
    for step in steps(path):
        if "run" in step:
            subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_code_of_strangers_gets_no_rights(path: Path) -> None:
    found = read(path)
    events = found[True]  # YAML 1.1 reads the word `on` as a truth value
    assert "pull_request_target" not in events and "permissions" in found
    if "pull_request" in events:
        assert found["permissions"] == {"contents": "read"}
        assert "secrets." not in path.read_text()
    if "workflow_run" in events:
        assert not [step for step in steps(path) if "checkout" in step.get("uses", "")]


@pytest.mark.parametrize("path", [path for path in FORMS if path.name != "config.yml"], ids=lambda path: path.name)
def test_issue_forms_have_what_a_form_needs(path: Path) -> None:
    form = read(path)
    assert form["name"] and form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) and all(f["attributes"]["label"] for f in fields)


def test_the_citation_is_of_this_version() -> None:
    found = read(ROOT / "CITATION.cff")
    assert found["version"] == __version__ and found["license"] == "Apache-2.0" and found["authors"]


def test_the_action_takes_what_its_document_gives_it() -> None:
    (given,) = re.findall(r"with: \{ (.*) \}", (ROOT / "docs" / "ci.md").read_text())
    assert {pair.split(":")[0].strip() for pair in given.split(",")} <= set(read(ACTION)["inputs"])
