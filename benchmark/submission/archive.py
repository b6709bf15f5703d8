"""A submission's archive: a gzipped tar of plain files, under names that it may have and within declared limits."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

from ...store import FolderStore
from ..unpacking import Contents

MANIFEST = "submission.json"
PART = r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,99}"
CONTENTS = Contents(
    of="a submission",
    name=re.compile(
        rf"{re.escape(MANIFEST)}|adapter(/{PART})*/{PART}\.py|rows(/{PART})+\.json|scores(/{PART})+\.safetensors"
    ),
    limits={MANIFEST: 2**20, ".py": 2**20, ".json": 8 * 2**20, ".safetensors": 256 * 2**20},
    most_files=2000,
    most_bytes=2**30,
    mend="pack it with `tdabench submit pack`",
)


def write_archive(archive: Path, files: Mapping[str, bytes]) -> None:
    """Write files by name, whole or not at all; equal files give equal bytes."""
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name in sorted(files, key=lambda name: (name != MANIFEST, name)):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            tar.addfile(member, io.BytesIO(files[name]))
    FolderStore(archive.parent).put(archive.name, buffer.getvalue())
