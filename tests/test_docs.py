"""What the documents tell people to run does run: block by block, each document in a folder of its own."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from tdabench.benchmark import tasks
from tdabench.methods import __all__ as offered

from . import run_helpers
from .code_blocks import PAGES, ROOT, Block, blocks, words_of

tiny_home, call = run_helpers.tiny_home, run_helpers.tdabench

ALL = [block for page in PAGES for block in blocks(page)]
ELSEWHERE = [block for block in ALL if block.note]
RUN = {page: found for page in PAGES if (found := [block for block in ALL if block.page == page and not block.note])}
COMMANDS = sorted({line for block in ALL for line in block.commands if line.startswith("tdabench ")})


@pytest.fixture
def own_home(tiny_home: Path, tmp_path_factory, monkeypatch) -> None:
    """Set a TDABENCH_HOME that a document may write to, with all of digits-tiny in it."""
    folder = shutil.copytree(tiny_home, tmp_path_factory.mktemp("documents") / "home")
    monkeypatch.setenv("TDABENCH_HOME", str(folder))
    run_helpers.uncalibrated(monkeypatch)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_blocks_of_a_document_run(page: Path, own_home, call, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in RUN[page]:
        if block.title:
            (tmp_path / block.title).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, str(block), "exec"), names)
        for line in block.commands:
            program, *words = shlex.split(line, comments=True)
            assert program == "tdabench", f"{block}: run it elsewhere, and say so in a comment above it: {line}"
            answer = call(*words)
            assert answer.code == 0, (str(block), line, answer)


@pytest.mark.parametrize("block", ELSEWHERE, ids=str)
def test_what_is_not_run_here_says_why_or_where(block: Block) -> None:
    assert block.note
    how, what = block.note
    if how == "run by":
        assert block.page.name in (ROOT / what).read_text(encoding="utf-8")
    else:
        assert len(what) > 10


def test_most_of_the_documents_that_teach_is_run() -> None:
    """The count is here so that a block that is no longer run is seen by whoever reads the change."""
    assert (len(ALL) - len(ELSEWHERE), sum(block.note[0] == "not run" for block in ELSEWHERE if block.note)) == (10, 16)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_has_the_options_that_it_is_given(line: str) -> None:
    assert words_of(line)[1] == []


def test_the_site_has_every_document_once() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = re.findall(r"[\w-]+\.md", str(site["nav"]))
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    assert site["theme"]["font"] is False


def test_the_reference_has_every_public_name() -> None:
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    public = [f"tdabench.methods.{name}" for name in offered] + [
        f"tdabench.benchmark.tasks.{name}" for name in tasks.__all__
    ]
    assert set(public) <= set(listed) and len(set(listed)) == len(listed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]
