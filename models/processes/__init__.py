"""Noise processes: how an image is noised, what the network is given, and what it is asked for, by log-SNR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import UserError, unknown
from .base import Prediction, Process, Unit
from .ddpm import DDPMProcess
from .edm import EDMProcess
from .flow import FlowProcess

PROCESSES: dict[str, type[Process]] = {"ddpm": DDPMProcess, "edm": EDMProcess, "flow": FlowProcess}

__all__ = ["DDPMProcess", "EDMProcess", "FlowProcess", "Prediction", "Process", "Unit", "open_process"]


def open_process(config: Mapping[str, Any]) -> Process:
    """Return the process of a specification: its ``kind`` (ddpm where none is said) and that kind's arguments.

    Raises UserError for an unknown kind, or arguments that it does not take.
    """
    kind = config.get("kind", "ddpm")
    if not isinstance(kind, str) or kind not in PROCESSES:
        raise unknown("noise process", str(kind), PROCESSES)
    try:
        return PROCESSES[kind](**{name: value for name, value in config.items() if name != "kind"})
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise UserError(f"the process {kind!r} of this model cannot be made: {error}") from error
