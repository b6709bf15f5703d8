"""The list of what a folder of rows or other data holds, beside it: lines as `sha256sum` writes and checks them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ...errors import CorruptFile, brief
from ...store import HASH, FolderStore, read_file, sha256

LINE = re.compile(r"([0-9a-f]{64})  ([^/]+)/(.+)")
MEND = "restore it, or, if that is meant, run `tdabench seal-rows`"


def list_of(folder: Path) -> Path:
    """Return where the list of a folder of rows lies."""
    return folder.with_name(folder.name + HASH)


def write_list(store: FolderStore, keys: Iterable[str]) -> Path:
    """Write the list of a folder's rows and return where it lies."""
    path = list_of(store.root)
    lines = [f"{_hash(store, key)}  {store.root.name}/{key}\n" for key in sorted(keys)]
    return FolderStore(path.parent).put(path.name, "".join(lines).encode())


def seal_folder(folder: Path) -> tuple[Path, int]:
    """Write the list of a folder's files of JSON, and return where it lies and how many they are."""
    store = FolderStore(folder)
    keys = json_keys(store)
    return write_list(store, keys), len(keys)


def json_keys(store: FolderStore) -> list[str]:
    """Return the keys of a folder's files of JSON in order."""
    return [key for key in store.keys() if key.endswith(".json")]  # noqa: SIM118


def check_listed(store: FolderStore, keys: Iterable[str], required: bool) -> None:
    """Compare the files of a folder with its list, where it has one.

    Raises CorruptFile for the first file that is not listed, is gone or has another hash, for a list that is none, and
    for one that is missing though ``required``.
    """
    path = list_of(store.root)
    try:
        listed = _read(read_file(path), path)
    except FileNotFoundError:
        if required:
            raise CorruptFile(f"{path} is missing, which lists the hashes of {store.root}: {MEND}") from None
        return
    there = set(keys)
    for key in sorted(there | listed.keys()):
        if key not in there:
            raise CorruptFile(f"{store.root}/{brief(key)} is listed in {path.name}, but not there: {MEND}")
        if key not in listed:
            raise CorruptFile(f"{store.path(key)} is not listed in {path.name}: {MEND}")
        if _hash(store, key) != listed[key]:
            raise CorruptFile(f"{store.path(key)} was edited or damaged ({path.name} has another hash of it): {MEND}")


def _hash(store: FolderStore, key: str) -> str:
    return sha256(read_file(store.path(key)))


def _read(data: bytes, path: Path) -> dict[str, str]:
    """Return the hashes by key."""
    found = [LINE.fullmatch(line) for line in data.decode(errors="replace").splitlines()]
    if not all(found):
        raise CorruptFile(f"{path} is no list of hashes as `sha256sum` writes it: {MEND}")
    return {line[3]: line[1] for line in found if line}
