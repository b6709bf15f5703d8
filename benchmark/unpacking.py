"""Archives of plain files, read as a stream; reading one trusts nothing and has declared limits.

Only plain files come out of it: a header of any other kind is refused unread, so that links, devices and extended
headers have no effect, and no more is decompressed than the limits allow.
"""

from __future__ import annotations

import gzip
import math
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

from pydantic import Field

from ..errors import UserError, brief
from ..leaderboard.rows.strict import Strict
from ..store import unwritable

BLOCK = tarfile.BLOCKSIZE
CHUNK = 2**20
GZIP = b"\x1f\x8b"  # how a compressed archive begins
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Listed(Strict):
    """A file's hash and size, as a manifest lists them."""

    sha256: Sha256
    bytes: int


@dataclass(frozen=True)
class Contents:
    """What an archive may hold.

    of: whose files they are; name: what they may be called; limits: bytes of one, by its name or how that ends;
    most_ratio: unpacked bytes for each of the archive; mend: what to do about one that is refused.
    """

    of: str
    name: re.Pattern[str]
    limits: Mapping[str, int]
    most_files: int
    most_bytes: int
    mend: str
    most_ratio: float = math.inf

    def limit(self, name: str) -> int:
        """Return how many bytes a file of a name may have."""
        return self.limits.get(Path(name).name) or self.limits[Path(name).suffix]


def unpack(archive: Path, folder: Path, contents: Contents) -> list[str]:
    """Write an archive's files below ``folder``, which must be empty, and return their names.

    Raises UserError for what is no tar, packed by gzip or not, holds anything but plain files under the names that they
    may have, or is larger than the limits.
    """
    if not archive.is_file():
        raise UserError(f"{archive} cannot be read: there is no such file; check the path")
    try:
        with archive.open("rb") as raw:
            packed = raw.read(len(GZIP)) == GZIP
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if packed else raw as stream:
                return _Unpacking(archive, folder, contents).files(stream)
    except (OSError, EOFError, zlib.error, tarfile.TarError, UnicodeDecodeError) as error:
        raise UserError(f"{archive} cannot be read as an archive ({brief(str(error))}): {contents.mend}") from error


@dataclass(frozen=True)
class _Unpacking:
    archive: Path
    folder: Path
    contents: Contents

    def files(self, stream: IO[bytes] | gzip.GzipFile) -> list[str]:
        names: list[str] = []
        total = 0
        while (header := _exactly(stream, BLOCK)) != bytes(BLOCK):
            member = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
            total += BLOCK + member.size
            refused = self._member(member, names) or self._total(total, member.size)
            if refused:
                raise UserError(f"{self.archive} {refused}: {self.contents.mend}")
            names.append(member.name)
            _write(stream, self.folder / member.name, member.size)
        return names

    def _member(self, member: tarfile.TarInfo, names: list[str]) -> str | None:
        """Return why a member is refused, given the names that came before it."""
        name = repr(brief(member.name))
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            return f"holds {name}, which is no plain file but of the tar type {member.type!r}"
        if not self.contents.name.fullmatch(member.name):
            return f"holds {name}, which is no name of {self.contents.of}'s file"
        if member.name in names:
            return f"holds {name} twice"
        limit = self.contents.limit(member.name)
        if not 0 <= member.size <= limit:
            return f"holds {name} of {member.size:,} bytes, where {limit:,} are allowed"
        most = self.contents.most_files
        return f"holds more than {most} files" if len(names) >= most else None

    def _total(self, total: int, size: int) -> str | None:
        """Return why no more is unpacked, given the bytes of all members up to one of a size."""
        most, ratio = self.contents.most_bytes, self.contents.most_ratio
        if total > most:
            return f"holds more than {most:,} bytes"
        if total > ratio * self.archive.stat().st_size + CHUNK:
            return f"holds more than {ratio:g} times the bytes that it has"
        place = next(path for path in (self.folder, *self.folder.parents) if path.is_dir())
        free = shutil.disk_usage(place).free
        return f"holds {size:,} bytes more, and {free:,} are free in {place}" if size > free else None


def _write(stream: IO[bytes] | gzip.GzipFile, path: Path, size: int) -> None:
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
    for start in range(0, size, CHUNK):
        data = _exactly(stream, min(CHUNK, size - start))
        with _writing(path), path.open("ab") as file:
            file.write(data)
    _exactly(stream, -size % BLOCK)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Let an error of the disk that is written to not be taken for one of the archive."""
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise  # a name that is a file and a folder is the archive's fault
    except OSError as error:
        raise unwritable(path, error) from error


def _exactly(stream: IO[bytes] | gzip.GzipFile, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("it ends in the middle of a file")
    return data
