"""What MkDocs needs to know of this repository: where the package is, and where links out of docs/ lead.

The repository's root is the package and may have any name, so its parts are linked into a folder that has the right
one. Links are written as GitHub follows them, relative to their document.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority

ROOT = Path(__file__).parents[1]
PARTS = ("models", "methods", "benchmark", "leaderboard")
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((\.\./[^)#\s]*)(#[^)\s]*)?\)")
_folders: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


@event_priority(100)  # before mkdocstrings reads its paths
def on_config(config: Any) -> Any:
    """Let mkdocstrings find the package."""
    _folders.append(tempfile.TemporaryDirectory(prefix="tdabench-docs-"))
    folder = Path(_folders[-1].name)
    _link([*ROOT.glob("*.py"), *(ROOT / name for name in PARTS)], folder / "tdabench")
    _link((ROOT / "datasets").iterdir(), folder / "tdabench" / "datasets")
    (folder / "tdabench" / "datasets" / "__init__.py").touch()  # without one, its modules would not be found
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(folder)]
    return config


def _link(parts: Iterable[Path], folder: Path) -> None:
    folder.mkdir()
    for part in parts:
        (folder / part.name).symlink_to(part)


def _address(config: Any) -> str:
    """Return the repository's address: what mkdocs.yml says, or else where GitHub Actions builds it; empty: unknown."""
    actions = os.environ.get("GITHUB_SERVER_URL", ""), os.environ.get("GITHUB_REPOSITORY", "")
    return (config.repo_url or "/".join(filter(None, actions))).rstrip("/")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Turn links to files outside docs/ into addresses of the repository, or into text where it has none."""
    address = _address(config)

    def turned(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        path = Path(os.path.normpath(Path(page.file.abs_src_path).parent / target))
        if not path.exists() or not path.is_relative_to(ROOT):
            raise PluginError(f"{page.file.src_path}: there is no {target}")
        if not address:
            return text
        kind = "tree" if path.is_dir() else "blob"
        return f"[{text}]({address}/{kind}/main/{path.relative_to(ROOT).as_posix()}{anchor})"

    return LINK.sub(turned, markdown)
