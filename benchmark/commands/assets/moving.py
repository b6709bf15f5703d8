"""The commands that move ground truth: to an archive, and from one to where tasks find it."""

from __future__ import annotations

import shutil
from pathlib import Path

from ....datasets.truth import Assets
from ....errors import UserError
from ....store import LONG_CLAIM_S, FolderStore, home
from ...tasks.find import check_assets, find_task, has_assets, open_assets
from ...tasks.spec import TaskSpec
from ...truth.archive import read_archive, write_archive
from ..terminal import console
from .building import alone


def export(task: str, archive: Path, plugins: tuple[Path, ...] = ()) -> None:
    """Write the assets as an uncompressed tar, whole or not at all."""
    assets = open_assets(find_task(task, plugins))
    assets.check_files()
    console.print(f"{archive}: {write_archive(archive, assets) / 2**20:.1f} MiB", soft_wrap=True, markup=False)


def import_archive(archive: Path, plugins: tuple[Path, ...] = (), replace: bool = False) -> None:
    """Check an archive in a folder of its own, then put its truth in place; another one there is only set aside.

    Raises UserError for one that is broken or of another task than the one of its name, and where another truth is
    there and shall not be replaced.
    """
    store = FolderStore(home() / "truth")
    with store.claim("import", LONG_CLAIM_S) as held:
        if not held:
            raise UserError(f"another process is importing into {store.root}: wait for it")
        unpacked = store.path(".import")
        try:
            shutil.rmtree(unpacked, ignore_errors=True)  # of one that was killed
            assets = read_archive(archive, unpacked)
            spec = find_task(assets.label, plugins)
            check_assets(assets, spec, archive)
            _place(archive, assets, spec, replace)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)


def _place(archive: Path, assets: Assets, spec: TaskSpec, replace: bool) -> None:
    with alone(FolderStore(home()), spec):
        there = _truth_there(spec)
        if there == assets.sha256:
            console.print(f"{spec.label}: this truth is here already", soft_wrap=True, markup=False)
            return
        if there is not None and not replace:
            raise UserError(
                f"{archive} holds another truth of {spec.label} ({assets.sha256[:16]}) than the one here "
                f"({there[:16]}): rows of the one say nothing of the other; --replace puts it in place all the same"
            )
        place = home() / "truth" / spec.label
        _set_aside(place)
        assets.folder.replace(place)
        console.print(f"{spec.label}: imported into {place}", soft_wrap=True, markup=False)


def _truth_there(spec: TaskSpec) -> str | None:
    """Return the hash of the truth that tasks find now, ``damaged`` if it is, None where there is none."""
    if not has_assets(spec):
        return None
    try:
        assets = open_assets(spec)
        assets.check_files()
    except UserError:
        return "damaged"
    return assets.sha256


def _set_aside(place: Path) -> None:
    """Rename what is at a place, if anything is; what is no whole truth may be overwritten by the next one."""
    if not place.exists():
        return
    try:
        name = Assets(place).sha256[:16]
    except UserError:
        name = "damaged"
    aside = place.with_name(f"{place.name}.replaced-{name}")
    shutil.rmtree(aside, ignore_errors=True)
    place.replace(aside)
    console.print(f"what was in {place} is in {aside.name} now", soft_wrap=True, markup=False)
