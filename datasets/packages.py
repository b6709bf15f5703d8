"""Files of npm packages: downloaded in a pinned version, checked against its hash, unpacked for as long as needed."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from ..errors import UserError, brief

REGISTRY = "https://registry.npmjs.org"
TIMEOUT_S = 60


@contextmanager
def unpacked(path: Path | None, hashes: Mapping[str, str], version: str) -> Iterator[Path]:
    """Yield ``path``, or else a folder with the packages of these names, whose archives have these SHA-256.

    The folder is deleted afterwards. Raises UserError where a package cannot be had, or is another than was pinned.
    """
    if path is not None:
        if not path.is_dir():
            raise UserError(f"there is no folder {path}: unpack {' and '.join(hashes)} there")
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, expected in hashes.items():
            _unpack(_download(name, version, expected), Path(folder) / name)
        yield Path(folder)


def _download(name: str, version: str, expected: str) -> bytes:
    url = f"{REGISTRY}/{name}/-/{name}-{version}.tgz"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            data = answer.read()
    except (OSError, HTTPException) as error:
        hint = "give a folder with the unpacked package with --data"
        raise UserError(f"{url} cannot be read ({brief(str(error))}): {hint}") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise UserError(f"{url} is not what was pinned (its SHA-256 is another): give an unpacked copy with --data")
    return data


def _unpack(data: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(folder, filter="data")
