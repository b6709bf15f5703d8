"""The command new-method: a file to start from, and its test; no torch."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from ....errors import UserError, shown
from ....methods.registry import listings
from ....store import FolderStore
from ..terminal import console

TEMPLATES = Path(__file__).parent / "templates"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new_method(name: str, folder: Path) -> None:
    """Write ``<name>.py`` and its test into a folder; raises UserError for a name that is taken, or a file there is."""
    module = name.replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(module):
        raise UserError(f"{shown(name)} is no name for a method: use small letters, digits and dashes, as in my-method")
    if name in listings():
        raise UserError(f"there is a method {name!r} already: choose another name")
    files = {f"{module}.py": "method.txt", f"test_{module}.py": "test.txt"}
    if there := [file for file in files if (folder / file).exists()]:
        raise UserError(f"{folder / there[0]} is there already: choose another name, or another --folder")
    words = {"name": name, "file": f"{module}.py", "cls": module.title().replace("_", ""), "title": name}
    for file, template in files.items():
        text = Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(words)
        FolderStore(folder).put(file, text.encode())
    path = folder / f"{module}.py"
    steps = (
        f"wrote {path} and {folder / f'test_{module}.py'}; then",
        f"  tdabench check-method {path}",
        f"  tdabench run digits --methods {name},random --plugin {path}",
        f"  tdabench submit pack --method {path} -o {name}.tar.gz",
    )
    console.print("\n".join(steps), soft_wrap=True, markup=False)
