"""Code in the documents: found, and where it is not run here, with the comment above it that says why.

A block of Python or of commands has one of these above it, or is run by ``test_docs.py``:

    <!-- not run: why -->
    <!-- run by tests/some/test_file.py -->
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from typer.main import get_command

from tdabench.benchmark.commands.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<fenced>.*?)^```$"
INDENTED = r"(?<=\n\n)(?P<indented>(?: {4}[^\n]*\n|\n(?= {4}))+)"
BLOCK = re.compile(rf"(?:{FENCED})|(?:{INDENTED})", re.DOTALL | re.MULTILINE)
NOTE = re.compile(r"<!-- (not run|run by):? ([^>]*) -->\s*\Z")
COMMAND = get_command(app)
STARTS = {"console": r"(tdabench|pytest|pip|python|apt-get|\.venv/\S*|\.ci/\S*) ", "python": r"(from|import) \w"}


class Block(NamedTuple):
    """A block of code: where it is, its language, the file that it is, if any, and why it is not run here."""

    page: Path
    line: int
    language: str
    text: str
    title: str
    note: tuple[str, str] | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines of a block of commands."""
        return [line.strip() for line in self.text.splitlines() if line.strip()] if self.language == "console" else []


def blocks(page: Path) -> list[Block]:
    """Return the blocks of Python and of commands in a document, in their order."""
    text = page.read_text(encoding="utf-8")
    found = [_block(page, text, match) for match in BLOCK.finditer(text)]
    return [block for block in found if block.language in STARTS]


def _block(page: Path, text: str, match: re.Match[str]) -> Block:
    language, note = match["language"], NOTE.search(text[: match.start()].rstrip())
    code = match["fenced"] or re.sub(r"^ {4}", "", match["indented"] or "", flags=re.MULTILINE)
    if language is None:
        language = next((name for name, start in STARTS.items() if re.match(start, code)), "text")
    line = text.count("\n", 0, match.start()) + 1
    return Block(page, line, language, code, match["title"] or "", (note[1], note[2]) if note else None)


def words_of(line: str) -> tuple[list[str], list[str]]:
    """Return a command line's words that name the command, and those of its options that do not exist."""
    words = shlex.split(re.split(r"2>&1|&&|\|\||>>?|\s#", line)[0])[1:]
    command, at = COMMAND, 0
    while hasattr(command, "commands") and words[at] in command.commands:
        command, at = command.commands[words[at]], at + 1
    known = {name for parameter in command.params for name in parameter.opts}
    assert at, f"no command {words[0]}"
    return words[:at], [word for word in words if word.startswith("-") and word not in known]
