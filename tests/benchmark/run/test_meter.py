"""Measuring: clocks that wait for queued work, peaks that belong to one phase, and passes counted by phase."""

from __future__ import annotations

import mmap
import queue
import threading
import time
from pathlib import Path

import pytest
import torch

from tdabench.benchmark.run.meter import CpuDevice, CudaDevice, Measurement, open_device, phase
from tdabench.models.counting import Passes
from tdabench.models.draws import Draws, Law

from ... import tiny

LARGE = 192 * 2**20


class QueueDevice:
    """A device as CUDA is one: work is queued, the call returns at once, and a thread does it in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.peak = 0
        self._queue: queue.Queue[float] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def launch(self, seconds: float, memory: int = 0) -> None:
        self.peak = max(self.peak, memory)
        self._queue.put(seconds)

    def synchronize(self) -> None:
        self.calls.append("synchronize")
        self._queue.join()

    def reset_peak(self) -> None:
        self.calls.append("reset")
        self.peak = 0

    def peak_bytes(self) -> int:
        return self.peak

    def _work(self) -> None:
        while True:
            time.sleep(self._queue.get())
            self._queue.task_done()


@pytest.fixture
def device():
    return QueueDevice()


def fill(size: int) -> None:
    """Touch memory that the system gets back at once."""
    with mmap.mmap(-1, size) as block:
        block.write(b"x" * size)


def test_work_that_is_still_queued_at_the_end_counts(device):
    with phase(device, Passes()) as measured:
        device.launch(0.3)
    assert measured.seconds >= 0.29


def test_work_queued_before_the_start_does_not_count(device):
    device.launch(1.0)
    with phase(device, Passes()) as measured:
        device.launch(0.1)
    assert 0.09 <= measured.seconds < 0.9


def test_the_next_phase_pays_for_its_own_work_only(device):
    with phase(device, Passes()):
        device.launch(1.0)
    with phase(device, Passes()) as second:
        device.launch(0.1)
    assert 0.09 <= second.seconds < 0.9


def test_device_is_idle_before_its_peak_is_reset(device):
    with phase(device, Passes()):
        pass
    assert device.calls == ["synchronize", "reset", "synchronize"]


def test_device_memory_is_that_of_the_phase(device):
    device.launch(0.0, memory=900)
    with phase(device, Passes()) as first:
        device.launch(0.0, memory=700)
    with phase(device, Passes()) as second:
        device.launch(0.0, memory=300)
    assert (first.peak_gpu_bytes, second.peak_gpu_bytes) == (700, 300)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process is reset on Linux only")
def test_host_memory_of_a_later_phase_excludes_an_earlier_ones():
    with phase(CpuDevice(), Passes()) as first:
        fill(LARGE)
    with phase(CpuDevice(), Passes()) as second:
        pass
    assert first.peak_rss_bytes - second.peak_rss_bytes > 0.8 * LARGE
    assert second.peak_rss_bytes > 0


def test_passes_are_counted_by_phase():
    model, batch = tiny.denoiser(), tiny.batch_of("plain", 5)
    draws = Draws("x", 3, Law("even"), "shared", 0, tiny.SHAPE, model.process)
    with phase(CpuDevice(), model.passes) as first, torch.no_grad():
        model.losses(batch, draws)
    model.losses(batch, draws).mean().backward()  # between the phases: in neither
    with phase(CpuDevice(), model.passes) as second:
        model.losses(batch[:2], draws).mean().backward()
    assert (first.forward, first.backward) == (15, 0)
    assert (second.forward, second.backward) == (6, 6)


def test_a_phase_within_another_leaves_its_peak_alone(device):
    with phase(device, Passes()) as outer:
        device.launch(0.0, memory=900)
        with phase(device, Passes(), own_peak=False) as inner:
            device.launch(0.1, memory=300)
        device.launch(0.0, memory=500)
    assert inner.peak_gpu_bytes == outer.peak_gpu_bytes == 900
    assert 0.09 <= inner.seconds <= outer.seconds


def test_what_was_taken_over_is_added_and_peaks_are_the_largest():
    own = Measurement(1.0, 100, None, 10, 5)
    others = [Measurement(2.0, 300, 7, 20, 0).to_json(), Measurement(4.0, 200, 3, 0, 40).to_json()]
    assert own.with_reused(others) == Measurement(7.0, 300, 7, 30, 45)
    assert own.with_reused([]) == own


def test_cpu_has_no_memory_of_its_own():
    with phase(open_device("cpu"), Passes()) as measured:
        pass
    assert measured.peak_gpu_bytes is None
    assert Measurement(**measured.to_json()) == measured


def test_cuda_is_opened_by_name_without_touching_it():
    assert isinstance(open_device("cuda:1"), CudaDevice)
