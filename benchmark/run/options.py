"""Options of a run, checked against this machine."""

from __future__ import annotations

import math

import psutil

from ...errors import UserError
from ...models.precision import check_precision
from ..processes import cores
from .plan import Options


def checked_options(
    device: str = "cpu",
    jobs: int = 0,
    timeout: float = 3600.0,
    memory: float = 0.0,
    micro_batch: int = 512,
    force: bool = False,
    retry: bool = False,
    precision: str = "float32",
) -> Options:
    """Return options for what the command line says; raises UserError for a device or precision that is not there."""
    check_device(device)
    known = check_precision(precision, device)
    if not (jobs >= 0 and 0 < timeout < math.inf and 0 <= memory < math.inf and micro_batch >= 1):
        raise UserError("--jobs and --memory must not be negative, --timeout and --micro-batch must be positive")
    jobs = jobs or (cores() if device == "cpu" else 1)
    limit = int(memory * 2**30) or int(0.8 * psutil.virtual_memory().available / jobs)
    return Options(device, micro_batch, max(1, cores() // jobs), jobs, timeout, limit, memory > 0, force, retry, known)


def check_device(device: str) -> None:
    """Raise UserError unless ``device`` can be computed on."""
    import torch

    try:
        kind, index = torch.device(device).type, torch.device(device).index
    except RuntimeError:
        raise UserError(f"--device {device!r} is no device: use cpu, cuda or cuda:N") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {device}: no CUDA device is available here; use --device cpu")
    if kind == "cuda" and (index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {device}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    if kind != "cuda" and device != "cpu":
        raise UserError(f"--device {device!r} is not supported: use cpu, cuda or cuda:N")
