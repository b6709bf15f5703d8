"""What a row records of the machine, the packages and the code that produced it."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ... import __version__

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "diffusers", "traker", "datasets", "numpy", "scipy", "scikit-learn", "safetensors")


def environment(device: str, threads: int, concurrent_cells: int) -> dict[str, Any]:
    """Return the machine and the packages; the accelerator where ``device`` is one."""
    return {
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": threads,
        "concurrent_cells": concurrent_cells,
        "device": device,
        "gpu": _gpu_name(device),
        "tdabench": __version__,
        "packages": {name: _version(name) for name in PACKAGES},
    }


@cache
def _version(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpu_name(device: str) -> str | None:
    if device == "cpu":
        return None
    import torch

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else None


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Return (revision, dirty) of the checkout the package runs from; (None, None) for an installed wheel."""
    if not (ROOT / ".git").exists():
        return None, None

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
