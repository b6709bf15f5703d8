"""Watching a block of code: what it leaves behind in the process, and which files it touches."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from ...datasets.truth import ABOUT_MODELS
from ...seeds import derive
from ...store import files_below


@dataclass
class Effects:
    """What a watched block did: random states and process settings it changed, files it changed, truth it opened."""

    random: list[str] = field(default_factory=list)
    process: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    truth: list[str] = field(default_factory=list)


@contextmanager
def watched(folder: Path, seed: int) -> Iterator[Effects]:
    """Note what the block does; it may write to ``folder``/scratch, which exists and is empty, and nowhere else.

    It starts with global generators seeded by ``seed`` and in an empty working directory; what it changes in the
    process is changed back.
    """
    effects, scratch, here = Effects(), folder / "scratch", folder / "cwd"
    for made in (scratch, here):
        made.mkdir(parents=True)
    with _kept({**_RANDOM, **_PROCESS}):
        os.chdir(here)
        _seed(seed)
        before = _read(_RANDOM), _read(_PROCESS)
        with _file_log(scratch.resolve(), effects):
            yield effects
        effects.random = _differences(before[0], _read(_RANDOM))
        effects.process = _differences(before[1], _read(_PROCESS))
    # Native code opens files unseen by audit hooks; what it leaves beside the scratch folder is found here.
    left = (str(path) for path in files_below(folder) if not path.is_relative_to(scratch))
    effects.written = sorted({*effects.written, *left})


@dataclass(frozen=True)
class _Setting:
    """One piece of global state: values that compare with ``==``, and how to put one back."""

    read: Callable[[], Any]
    restore: Callable[[Any], object]


def _numpy_state() -> tuple[Any, ...]:
    name, key, *rest = np.random.get_state()
    return name, tuple(np.asarray(key).tolist()), *rest


def _set_environment(values: dict[str, str]) -> None:
    for name in os.environ.keys() - values.keys():
        del os.environ[name]
    os.environ.update(values)


_RANDOM = {
    "torch": _Setting(
        lambda: torch.get_rng_state().tolist(),
        lambda state: torch.set_rng_state(torch.tensor(state, dtype=torch.uint8)),
    ),
    "numpy": _Setting(_numpy_state, np.random.set_state),
    "random": _Setting(random.getstate, random.setstate),
}
_PROCESS = {
    "working directory": _Setting(os.getcwd, os.chdir),
    "environment": _Setting(lambda: dict(os.environ), _set_environment),
    "torch's default dtype": _Setting(torch.get_default_dtype, torch.set_default_dtype),
    "torch's thread count": _Setting(torch.get_num_threads, torch.set_num_threads),
    "grad mode": _Setting(torch.is_grad_enabled, torch._C._set_grad_enabled),
    "deterministic algorithms": _Setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms
    ),
}


def _read(settings: dict[str, _Setting]) -> dict[str, Any]:
    return {name: setting.read() for name, setting in settings.items()}


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what changed, a mapping with the names of its changed entries."""
    pairs = [(name, before[name], after[name]) for name in sorted(_changed(before, after))]
    return [f"{n} ({', '.join(sorted(_changed(a, b)))})" if isinstance(a, dict) else n for n, a, b in pairs]


def _seed(seed: int) -> None:
    seed = derive("guards", seed) % 2**32  # none that an adapter would seed with itself
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def _kept(settings: dict[str, _Setting]) -> Iterator[None]:
    before = _read(settings)
    try:
        yield
    finally:
        for name in _changed(before, _read(settings)):
            settings[name].restore(before[name])


# Audit events that change a file or folder, with the positions of the paths that they change.
_CHANGES = {
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "shutil.rmtree": (0,),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# Native functions that open files behind Python's back: module, name, position of the path, flags.
_NATIVE = (
    ("safetensors", "safe_open", 0, os.O_RDONLY),
    ("safetensors.numpy", "safe_open", 0, os.O_RDONLY),
    ("safetensors.torch", "safe_open", 0, os.O_RDONLY),
    ("safetensors.numpy", "serialize_file", 1, os.O_WRONLY),
    ("safetensors.torch", "serialize_file", 1, os.O_WRONLY),
    ("torch._C", "PyTorchFileWriter", 0, os.O_WRONLY),
)

_note: Callable[[str, tuple[Any, ...]], None] | None = None


@cache
def _install() -> None:
    """Add the process's one audit hook: hooks cannot be removed, so it does nothing unless ``_note`` is set."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if _note is not None and (event == "open" or event in _CHANGES):
            _note(event, args)

    sys.addaudithook(hook)


@contextmanager
def _file_log(scratch: Path, effects: Effects) -> Iterator[None]:
    def note(event: str, args: tuple[Any, ...]) -> None:
        for path in _paths(event, args):
            if event == "open" and path.name.startswith(ABOUT_MODELS) and path.suffix == ".safetensors":
                effects.truth.append(str(path))
            if (event != "open" or int(args[2] or 0) & _WRITING) and not _harmless(path, scratch):
                effects.written.append(str(path))

    global _note
    _install()
    with ExitStack() as stack:
        for module, name, position, flags in _NATIVE:
            owner = import_module(module)
            stack.enter_context(patch.object(owner, name, _announced(getattr(owner, name), position, flags)))
        _note = note
        try:
            yield
        finally:
            _note = None


def _announced(function: Callable[..., Any], position: int, flags: int) -> Callable[..., Any]:
    def announce(*args: Any, **kwargs: Any) -> Any:
        if len(args) > position:
            sys.audit("open", args[position], None, flags)
        return function(*args, **kwargs)

    return announce


def _paths(event: str, args: tuple[Any, ...]) -> list[Path]:
    if event in ("os.remove", "os.rmdir") and args[-1] != -1:
        return []  # relative to an open folder, as shutil.rmtree does it, which announces the folder by itself
    found = [args[position] for position in _CHANGES.get(event, (0,))]
    return [Path(os.path.realpath(os.fsdecode(path))) for path in found if isinstance(path, str | bytes | os.PathLike)]


def _harmless(path: Path, scratch: Path) -> bool:
    """Say whether a method may write there: its scratch folder, devices, and the bytecode of what it imports.

    Nothing else: not even the system's folder for temporary files, which no runner measures, limits or empties.
    """
    return path.is_relative_to(scratch) or path.is_relative_to("/dev") or "__pycache__" in path.parts
