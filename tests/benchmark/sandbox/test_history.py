"""Where a repository's history lies, as git itself lays it out."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tdabench.benchmark.sandbox.history import histories

AUTHOR = {f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture
def repository(tmp_path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git("init", "-q", tmp_path / "main")
    git("-C", tmp_path / "main", "commit", "-q", "--allow-empty", "-m", "first")
    return tmp_path / "main"


def git(*words: object) -> None:
    subprocess.run(["git", *map(str, words)], check=True, env={**os.environ, **AUTHOR})


def test_a_worktree_has_the_history_of_its_repository(repository, tmp_path):
    git("-C", repository, "worktree", "add", "-q", tmp_path / "tree")
    found = {path.resolve() for path in histories(tmp_path / "tree")}
    assert repository / ".git" in found and tmp_path / "tree" / ".git" in found
    assert histories(repository) == {repository / ".git"}


def test_a_clone_has_the_objects_that_it_borrows(repository, tmp_path):
    git("clone", "-q", "--shared", repository, tmp_path / "clone")
    assert histories(tmp_path / "clone") == {tmp_path / "clone" / ".git", repository / ".git" / "objects"}


def test_a_folder_without_history_has_none(tmp_path):
    assert histories(tmp_path) == {tmp_path / ".git"}
