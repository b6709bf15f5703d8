"""What a process that is filtered asks of the kernel, and is refused, or told that it was done."""

from __future__ import annotations

import errno
import os
import platform
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tdabench.benchmark.sandbox import filtering, isolation
from tdabench.benchmark.sandbox.filtering import ALLOW, ARCHITECTURES, ERROR, PRETEND, REFUSE, UNKNOWN, program


def filtered(test):
    return pytest.mark.landlock(1)(pytest.mark.seccomp(test))


OUTSIDE = os.getpid()
PROGRAM = """
import ctypes, fcntl, os, psutil, resource, shutil, socket, subprocess, sys, threading
from pathlib import Path
from queue import Queue
from tdabench.benchmark.sandbox import filtering
from tdabench.benchmark.sandbox.isolation import means, shut_in
places, outside, libc = Path({places!r}), {outside}, ctypes.CDLL(None, use_errno=True)
asked, told = Queue(), Queue()
def answer():
    try:
        told.put(asked.get()())
    except OSError as error:
        told.put(type(error).__name__)
threading.Thread(target=answer, daemon=True).start()
{before}
found = shut_in([], [places])
try:
    print({code})
except Exception as error:
    print(type(error).__name__)
"""


def tried(places: Path, code: str, before: str = "", **environment: str) -> str:
    """Return what a line of code prints, or the name of its error, in a process that was shut in."""
    words = [sys.executable, "-c", PROGRAM.format(places=str(places), outside=OUTSIDE, code=code, before=before)]
    found = {**os.environ, **environment}
    return subprocess.run(words, capture_output=True, text=True, check=True, env=found).stdout.strip()


def cases(**codes: tuple[str, str]):
    return pytest.mark.parametrize(("code", "expected"), codes.values(), ids=codes)


@filtered
@cases(
    limits=(
        "resource.prlimit(outside, resource.RLIMIT_CORE, resource.prlimit(outside, resource.RLIMIT_CORE))",
        "PermissionError",
    ),
    priority=("os.setpriority(os.PRIO_PROCESS, outside, os.getpriority(os.PRIO_PROCESS, outside))", "PermissionError"),
    scheduler=("os.sched_setscheduler(outside, os.SCHED_OTHER, os.sched_param(0))", "PermissionError"),
    parameters=("os.sched_setparam(outside, os.sched_param(0))", "PermissionError"),
    io=("psutil.Process(outside).ionice(*psutil.Process(outside).ionice())", "AccessDenied"),
    reads_limits=("len(resource.prlimit(outside, resource.RLIMIT_CORE))", "2"),
    own_limits=("psutil.Process().rlimit(psutil.RLIMIT_CORE, (0, 0)) or resource.getrlimit(4)", "(0, 0)"),
    own_nice=("(os.nice(1), psutil.Process().nice(7), os.nice(0))", "(1, None, 7)"),
    own_io=("psutil.Process().ionice(psutil.IOPRIO_CLASS_BE, 7) or psutil.Process().ionice().value", "7"),
    own_processors=("os.sched_setaffinity(os.getpid(), {0}) or os.sched_getaffinity(0)", "{0}"),
    tcp=("socket.socket()", "PermissionError"),
    listening=("socket.socket().listen(1)", "PermissionError"),
    udp=("socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)", "PermissionError"),
    virtual=("socket.socket(socket.AF_VSOCK)", "PermissionError"),
    netlink=("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "PermissionError"),
    thread=("asked.put(socket.socket) or told.get()", "PermissionError"),
    child=("subprocess.run([sys.executable, '-c', 'import socket; socket.socket()'], stderr=-3).returncode", "1"),
    local=("[end.close() for end in socket.socketpair()]", "[None, None]"),
    attributes=("fcntl.ioctl(os.open(places, os.O_RDONLY), 0x40086602, bytes([0x80, *bytes(7)]))", "PermissionError"),
    reads_width=("fcntl.ioctl(os.pipe()[0], 0x541B, bytes(4))", "b'\\x00\\x00\\x00\\x00'"),
    ring=("(libc.syscall(425, 1, None), ctypes.get_errno())", f"(-1, {errno.ENOSYS})"),
)
def test_only_what_is_ones_own_is_changed(code, expected, tmp_path):
    assert tried(tmp_path, code) == expected


@filtered
def test_no_server_is_reached_by_multipath_tcp(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect({server.getsockname()})"
        assert tried(tmp_path, code) == "PermissionError"


CHANGES = {
    "mode": "os.chmod(places / 'file', 0o707)",
    "mode-of-opened": "os.fchmod(os.open(places / 'file', os.O_RDONLY), 0o707)",
    "owner": "os.chown(places / 'file', -1, os.getgroups()[-1] if os.geteuid() else 12345)",
    "times": "os.utime(places / 'file', (1, 1))",
    "times-of-opened": "os.utime(os.open(places / 'file', os.O_RDONLY), (1, 1))",
    "attribute": "os.setxattr(places / 'file', 'user.a', b'x')",
}


@filtered
@pytest.mark.parametrize("name", CHANGES)
def test_no_files_metadata_is_changed_and_who_tries_goes_on(name, tmp_path):
    (tmp_path / "file").touch()
    before = (tmp_path / "file").stat()
    assert tried(tmp_path, CHANGES[name]) == "None"
    assert (tmp_path / "file").stat() == before and not os.listxattr(tmp_path / "file")


@filtered
def test_files_are_copied_and_touched(tmp_path):
    (tmp_path / "file").write_text("x")
    os.utime(tmp_path / "file", (1, 1))
    code = "[shutil.copy2(places / 'file', places / name) for name in ('a', 'b')] and (places / 'file').touch()"
    assert tried(tmp_path, code) == "None"
    assert (tmp_path / "b").read_text() == "x" and (tmp_path / "file").stat().st_mtime > 1


@filtered
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="there is no other processor")
def test_nobody_outside_is_pinned(tmp_path):
    before = os.sched_getaffinity(0)
    try:
        assert tried(tmp_path, f"os.sched_setaffinity(outside, {{{min(before)}}})") == "None"
        assert os.sched_getaffinity(0) == before
    finally:
        os.sched_setaffinity(0, before)


@filtered
def test_openmp_pins_its_threads(tmp_path):
    code = "torch.set_num_threads(2) or len(torch.rand(400, 400).exp())"
    assert tried(tmp_path, code, "import torch", OMP_PROC_BIND="true", OMP_PLACES="cores", OMP_NUM_THREADS="2") == "400"


@pytest.mark.landlock(1)
@pytest.mark.parametrize(
    "lack", ["filtering.ARCHITECTURES.clear()", "filtering.call = lambda *words: -1", "filtering.sys.maxsize = 2**31"]
)
def test_without_a_filter_processes_are_shut_in_by_landlock_alone(lack, tmp_path):
    expected = f"landlock {isolation.version()}"
    assert tried(tmp_path, "(found, means(), bool(socket.socket()))", lack) == f"('{expected}', '{expected}', True)"


def asked(steps, number, words=(), audited=ARCHITECTURES["x86_64"].audited) -> int:
    """Return what a filter's steps answer to a call, as the kernel would go through them."""
    data = struct.pack("=IIQ6Q", number, audited, 0, *words, *[0] * (6 - len(words)))
    place = value = other = 0
    while True:
        operation, holds, fails, given = steps[place]
        place += 1
        if operation == filtering.RETURN:
            return given
        if operation == filtering.LOAD:
            (value,) = struct.unpack_from("=I", data, given)
        elif operation in (filtering.EQUAL, filtering.ABOVE):
            place += holds if (value == given if operation == filtering.EQUAL else value > given) else fails
        elif operation == filtering.TO_X:
            other = value
        else:
            value = value & given if operation == filtering.AND else value | other


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "words", "answer"),
    [
        ("prlimit64", (77, 0, 1 << 32, 0), REFUSE),  # limits at an address whose lower half is 0
        ("prlimit64", (77, 0, 0, 1), ALLOW),
        ("prlimit64", (1 << 32 | 77, 0, 8, 0), REFUSE),
        ("prlimit64", (5, 0, 8, 0), ALLOW),
        ("setpriority", (1, 0), REFUSE),
        ("setpriority", (2, 0), REFUSE),
        ("setpriority", (0, 0), ALLOW),
        ("ioprio_set", (3, 0), REFUSE),
        ("ioprio_set", (1, 0), ALLOW),
        ("sched_setattr", (77,), REFUSE),
        ("sched_setaffinity", (77,), PRETEND),
        ("socket", (2,), ERROR | errno.EACCES),
        ("socketpair", (1,), ALLOW),
        ("utimensat", (3, 8, 1 << 32), PRETEND),
        ("utimensat", (3, 8, 0), ALLOW),
        ("fchownat", (), PRETEND),
        ("fchmodat2", (), PRETEND),
        ("file_setattr", (), PRETEND),
        ("ioctl", (3, 0x401C5820), REFUSE),
        ("ioctl", (3, 0x50009417), REFUSE),
        ("ioctl", (3, 0xC020462A), ALLOW),
        ("ioctl", (3, 0x30000001), ALLOW),
        ("io_uring_setup", (), UNKNOWN),
    ],
)
def test_every_architecture_answers_the_same(machine, name, words, answer):
    here = ARCHITECTURES[machine]
    assert asked(program(here, 5), here.numbers[name], words, here.audited) == answer


def test_calls_by_another_numbering_are_unknown():
    here = ARCHITECTURES["x86_64"]
    for number, audited in ((39, 0x40000003), (39 | 1 << 30, here.audited), (filtering.LAST + 1, here.audited)):
        assert asked(program(here, 5), number, audited=audited) == UNKNOWN
    assert asked(program(here, 5), 39) == ALLOW


def test_machines_whose_calls_are_not_known_have_no_filter(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not filtering.can_filter() and not filtering.filter_calls()
