"""Measuring phases: synchronised wall time, peak memory and sample passes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ...models.counting import Passes


class Device(Protocol):
    """What measuring needs of a device."""

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        ...

    def reset_peak(self) -> None:
        """Forget the peak memory so far."""
        ...

    def peak_bytes(self) -> int | None:
        """Return the peak memory since the last reset, or None for a device without memory of its own."""
        ...


class CpuDevice:
    """The host: work is done when the call returns."""

    def synchronize(self) -> None:
        """Nothing is queued."""

    def reset_peak(self) -> None:
        """Host memory is measured beside the device's."""

    def peak_bytes(self) -> int | None:
        """No memory of its own."""
        return None


class CudaDevice:
    """A CUDA device: kernels are queued, so a clock read without waiting measures the launch only."""

    def __init__(self, name: str) -> None:
        self.name = name

    def synchronize(self) -> None:
        """Wait for all streams."""
        import torch

        torch.cuda.synchronize(self.name)

    def reset_peak(self) -> None:
        """Reset the allocator's high-water mark."""
        import torch

        torch.cuda.reset_peak_memory_stats(self.name)

    def peak_bytes(self) -> int | None:
        """Return the peak that the allocator reserved."""
        import torch

        return torch.cuda.max_memory_reserved(self.name)


def open_device(name: str) -> Device:
    """Return the device for measuring."""
    return CpuDevice() if name == "cpu" else CudaDevice(name)


@dataclass
class Measurement:
    """What a phase cost."""

    seconds: float = 0.0
    peak_rss_bytes: int = 0
    peak_gpu_bytes: int | None = None
    forward: int = 0
    backward: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def with_reused(self, costs: Iterable[Mapping[str, Any]]) -> Measurement:
        """Return what the phase would have cost had it paid for work that it took over: sums, and the larger peaks."""
        every = [self, *(Measurement(**cost) for cost in costs)]
        gpu = [one.peak_gpu_bytes for one in every if one.peak_gpu_bytes is not None]
        return Measurement(
            seconds=sum(one.seconds for one in every),
            peak_rss_bytes=max(one.peak_rss_bytes for one in every),
            peak_gpu_bytes=max(gpu, default=None),
            forward=sum(one.forward for one in every),
            backward=sum(one.backward for one in every),
        )


@contextmanager
def phase(device: Device, passes: Passes, own_peak: bool = True) -> Iterator[Measurement]:
    """Measure the block: the device is idle when the clock starts and idle again when it stops.

    own_peak: False inside of another phase, whose peak so far is then measured, and goes on.
    """
    measured = Measurement()
    before = Passes(passes.forward, passes.backward)
    device.synchronize()
    if own_peak:
        device.reset_peak()
        _reset_rss_peak()
    start = time.perf_counter()
    yield measured
    device.synchronize()
    measured.seconds = time.perf_counter() - start
    measured.peak_rss_bytes = _rss_peak()
    measured.peak_gpu_bytes = device.peak_bytes()
    measured.forward = passes.forward - before.forward
    measured.backward = passes.backward - before.backward


def _reset_rss_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # the peak is then that of the whole process, an upper bound


def _rss_peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
