"""The one way files are written: whole or not at all, under keys that a folder or an object store can hold."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from .claims import alone, holder, release, try_claim
from .errors import CorruptFile, UserError

LONGEST_JSON, LONGEST_SEAL = 2**28, 2**12  # bytes
# What the names of a kept file's hash, of one set aside, of one being written and of a folder being replaced end with.
HASH, DAMAGED, PART, FORMER = ".sha256", ".damaged", ".part", ".former"
ABANDONED_S = 86400.0  # since anything was written to it, after which a file being written is a killed process's
LONG_CLAIM_S = 7 * 86400.0  # longer than any run or build; on this host a claim ends with its process anyway
HOME = "TDABENCH_HOME"  # the variable that names the user's folder


def home() -> Path:
    """Return the user's folder for datasets, built truths and caches: $TDABENCH_HOME, else ~/.cache/tdabench."""
    try:
        return Path(os.environ.get(HOME) or Path.home() / ".cache" / "tdabench").expanduser()
    except RuntimeError as error:  # a user who is unknown, or without a home
        raise UserError(f"where your folder is cannot be told ({error}): set {HOME} to one") from error


class FolderStore:
    """Bytes under slash-separated keys in a folder; every ``put`` is atomic, so readers never see half a file."""

    def __init__(self, root: str | Path) -> None:
        self.root = _real(Path(root).expanduser())

    def path(self, key: str) -> Path:
        """Return where ``key`` lies; raises ValueError for one that leaves the folder, UserError where a link does."""
        path = _real(self.root / key)
        if not path.is_relative_to(self.root):
            if Path(os.path.normpath(self.root / key)).is_relative_to(self.root):
                raise UserError(f"{self.root / key} leads out of {self.root}: put what it links to in its place")
            raise ValueError(f"key {key!r} leaves the store {self.root}")
        return path

    def put(self, key: str, data: bytes) -> Path:
        """Write ``data`` under ``key`` atomically; raises UserError where the folder cannot be written."""
        with self.writing(key) as file:
            file.write(data)
        return self.path(key)

    @contextmanager
    def writing(self, key: str) -> Iterator[BinaryIO]:
        """Open a file whose bytes are under ``key`` once all of them are written, and not at all otherwise.

        Raises UserError where the folder cannot be written.
        """
        path = self.path(key)
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is there and no plain file: choose another name")
        part = path.parent / f".{path.name}.{uuid.uuid4().hex}{PART}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            clear_abandoned(path)
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def get(self, key: str, sealed: bool = False, longest: int | None = None) -> bytes:
        """Return the bytes under ``key``, at most so many; raises as ``read_file`` does.

        Raises CorruptFile too where a hash lies beside them that is not theirs; one that is missing says nothing, but
        where they must be ``sealed``.
        """
        while True:
            data = read_file(self.path(key), longest)
            sound = self.is_sealed(key, sha256(data))
            if sound or (sound is None and not sealed):
                return data
            if read_file(self.path(key), longest) == data:  # else another process wrote them anew between the two reads
                what = "has no hash beside it" if sound is None else "was edited or damaged (its hash differs)"
                raise CorruptFile(f"{self.path(key)} {what}: delete it and run again")

    def seal(self, key: str, sha: str) -> None:
        """Put beside what is under ``key`` a hash of the key and of its bytes' hash."""
        self._put_seals(key, [_seal(key, sha)])

    def is_sealed(self, key: str, sha: str) -> bool | None:
        """Say whether bytes of this hash are what was kept under ``key``; None where no hash lies beside it.

        Beside files of earlier versions lies the hash of their bytes alone.
        """
        known = self._seals(key)
        return None if known is None else _seal(key, sha) in known or sha in known

    def _put_seals(self, key: str, seals: Iterable[str]) -> None:
        self.put(key + HASH, "".join(f"{seal}\n" for seal in seals).encode())

    def _seals(self, key: str) -> list[str] | None:
        try:
            return read_file(self.path(key + HASH), LONGEST_SEAL).decode(errors="replace").split()
        except FileNotFoundError:
            return None

    def put_json(self, key: str, value: Any, sealed: bool = False) -> Path:
        """Write a value as strict JSON (NaN is refused with ValueError); sealed: with its hash beside it."""
        data = (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
        return self.keep(key, data) if sealed else self.put(key, data)

    def get_json(self, key: str, longest: int = LONGEST_JSON, sealed: bool = False) -> Any:
        """Return the JSON value under ``key``; raises as ``get`` does, and CorruptFile where it does not parse."""
        try:
            return json.loads(self.get(key, sealed, longest))
        except (ValueError, RecursionError) as error:
            raise CorruptFile(f"{self.path(key)} is not valid JSON ({error}); delete it and run again") from error

    def keep(self, key: str, data: bytes) -> Path:
        """Write ``data`` under ``key``, and its hash beside it; a kill in between leaves the hash of what is there."""
        seal, former = _seal(key, sha256(data)), self._seals(key)
        self._put_seals(key, [seal, *(former or ())])
        path = self.put(key, data)
        if former:
            self._put_seals(key, [seal])
        return path

    def kept(self, key: str) -> bytes | None:
        """Return what was kept under ``key`` and can be made again; None where it was not, or not with its hash.

        Bytes that are not those which were kept are named on stderr and set aside, so that they are made again.
        """
        try:
            data = read_file(self.path(key))
        except FileNotFoundError:
            return None
        sound = self.is_sealed(key, sha256(data))
        if sound is False:
            self.set_aside(key)
        return data if sound else None

    def set_aside(self, key: str) -> None:
        """Rename the damaged file or folder under ``key`` (``….damaged``), and say so on stderr."""
        path, aside = self.path(key), self.path(key + DAMAGED)
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink(missing_ok=True)
        path.replace(aside)
        self._unlink(key + HASH)
        print(f"{path} is damaged: set aside as {aside.name}, and made again", file=sys.stderr, flush=True)

    def exists(self, key: str) -> bool:
        """Say whether something is stored under ``key``."""
        return self.path(key).is_file()

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the stored keys below ``prefix`` in sorted order; files being written are left out."""
        for path in sorted(files_below(self.path(prefix))):
            if not path.name.startswith("."):
                yield path.relative_to(self.root).as_posix()

    def delete(self, key: str) -> None:
        """Remove ``key`` if it is there, and its hash."""
        self._unlink(key)
        self._unlink(key + HASH)

    def _unlink(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    @contextmanager
    def claim(self, key: str, ttl: float = 600.0) -> Iterator[bool]:
        """Hold ``key`` for this process; yields False where a live process holds it already.

        A claim lapses when its process is gone, or, of another machine, ``ttl`` seconds after it was made.
        """
        path, token = self._claim(key), uuid.uuid4().hex
        try:
            held = try_claim(path, token, ttl)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
        try:
            yield held
        finally:
            if held:
                release(path, token)

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Let one command at a time change what ``key`` names; raises UserError where the folder cannot be written."""
        path = self.path(f".{key}")
        with ExitStack() as held:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(alone(path))
            except OSError as error:
                raise unwritable(path, error) from error
            yield

    def _claim(self, key: str) -> Path:
        path = self.path(key)
        return path.with_name(f".{path.name}.claim")

    def holder(self, key: str) -> str | None:
        """Return who holds ``key``, as people say it: a process and its host; None where nobody does."""
        return holder(self._claim(key), LONG_CLAIM_S)


def _seal(key: str, sha: str) -> str:
    """Return what lies beside a key: of another key's bytes it is another, so that two files cannot change places."""
    return sha256(f"{key}\n{sha}".encode())


def clear_abandoned(path: Path) -> None:
    """Remove what processes that were killed had written of a file or a folder."""
    for part in path.parent.glob(f".{escape(path.name)}.*{PART}"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > ABANDONED_S:
                remove_tree(part) if part.is_dir() else part.unlink()


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of those inside, however deep, in no order; links to folders are not followed.

    What cannot be read, and what is no folder, has none.
    """
    waiting = [str(folder)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as inside:
            for entry in inside:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif os.path.isfile(entry.path):
                    yield Path(entry.path)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve, no link that leads to itself makes it raise


def read_file(path: Path, longest: int | None = None) -> bytes:
    """Return the bytes of a file.

    Raises FileNotFoundError where there is none, CorruptFile where a folder, a pipe or a device is in its place, or it
    has more bytes than the ``longest`` may, and UserError where it cannot be read.
    """
    with reading(path):
        if path.exists() and not path.is_file():
            raise CorruptFile(f"{path} is no plain file: move it elsewhere")
        if longest is not None and path.stat().st_size > longest:
            raise CorruptFile(f"{path} has more than {longest:,} bytes: move it elsewhere")
        return path.read_bytes()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise UserError for what the disk says inside of a file that is there: that it is damaged is not known."""
    try:
        yield
    except OSError as error:
        if of_disk(error):
            raise unreadable(path, error) from error
        raise


def of_disk(error: BaseException | None) -> TypeGuard[OSError]:
    """Say whether the system did not give what is there: neither a missing file, nor what a decoder calls an error."""
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError)


def unreadable(path: Path, error: OSError) -> UserError:
    """Return what to raise where the disk does not give a file."""
    return UserError(f"cannot read {path}: {error.strerror or error}; check the path")


def unwritable(path: Path, error: OSError) -> UserError:
    """Return what to raise where the disk does not take a file."""
    return UserError(f"cannot write {path}: {error.strerror or error}; free space or choose another folder")


def make_folder(path: Path) -> None:
    """Make a folder with those above it; raises UserError where the disk does not take it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def take_place(new: Path, folder: Path) -> None:
    """Give a whole folder the name of another, which is deleted once the new one has it.

    A kill leaves the new one, or the old one under a name that ``recovered`` knows. Raises UserError where the disk
    does not let it.
    """
    aside = _former(recovered(folder))
    try:
        if folder.exists():
            remove_tree(aside)
            folder.replace(aside)
        new.replace(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        recovered(folder)
    remove_tree(aside)


def recovered(folder: Path) -> Path:
    """Return a folder, which has its name again where a kill came while ``take_place`` gave that to another."""
    if not folder.exists():
        with suppress(OSError):
            _former(folder).replace(folder)
    return folder


def _former(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{FORMER}")


def remove_tree(folder: str | Path) -> None:
    """Delete a folder as far as that is possible, following no link, however deep its folders lie in each other."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        _lift(Path(folder))
        shutil.rmtree(folder, ignore_errors=True)


def _lift(folder: Path) -> None:
    """Put all folders below one directly into it."""
    waiting = [folder]
    while waiting:
        with suppress(OSError):
            for entry in list(os.scandir(waiting.pop())):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(folder / uuid.uuid4().hex)
                    os.rename(entry.path, waiting[-1])


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read piece by piece; raises UserError where it cannot be read."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
