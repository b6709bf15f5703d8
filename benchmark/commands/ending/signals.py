"""Ctrl-C and SIGTERM: a command cleans up, says what is kept and how to go on, and ends with 128 and the signal."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ....errors import Stop

SIGNALS = (signal.SIGINT, signal.SIGTERM)
KEPT = {
    "run": "cells that ended, and slices of queries that were scored, are kept",
    "truth build": "models that were trained are kept",
    "attribute": "what was read of the model and images, and queries that were scored, are kept",
}
ELSE = "what was finished is kept"


class Stopped(Stop):
    """A signal asked this process to end; no KeyboardInterrupt, which the command-line library would swallow."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def code(self) -> int:
        """The exit code, as shells have it."""
        return 128 + self.number


@contextmanager
def stopping() -> Iterator[None]:
    """Turn the first of SIGNALS into ``Stopped``; later ones are ignored, so that cleaning up comes to an end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)


def farewell(stopped: Stopped) -> str:
    """Return the line that says what is kept, and the command that goes on."""
    words = sys.argv[1:]
    kept = next((text for command, text in KEPT.items() if words[: command.count(" ") + 1] == command.split()), ELSE)
    name = "interrupted" if stopped.number == signal.SIGINT else f"ended by {signal.Signals(stopped.number).name}"
    return f"{name}: {kept}; to go on: {shlex.join(['tdabench', *words])}"
