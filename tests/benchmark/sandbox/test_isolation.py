"""What a process that was shut in can and cannot do, tried in processes of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdabench.benchmark.sandbox import isolation
from tdabench.benchmark.sandbox.isolation import open_paths

from ...landlock import ALLOWED, need_landlock

pytestmark = pytest.mark.landlock(1)


@pytest.fixture
def places(tmp_path) -> Path:
    """Folders: closed, with one of them readable again, own and other."""
    for name in ("closed", "closed/again", "own", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    os.symlink(tmp_path / "closed" / "file", tmp_path / "own" / "link")
    return tmp_path


def tried(places: Path, code: str, closed: str = "closed") -> str:
    """Return what a line of code prints, or the name of its error, in a process that was shut in."""
    program = f"""
import os, queue, socket, subprocess, sys, threading
from pathlib import Path
from tdabench.benchmark.sandbox.isolation import shut_in
places = Path({str(places)!r})
asked, told = queue.Queue(), queue.Queue()
def answer():
    try:
        told.put(asked.get().read_text())
    except OSError as error:
        told.put(type(error).__name__)
threading.Thread(target=answer, daemon=True).start()
assert shut_in([places / {closed!r}], [places / "own"], [places / "closed" / "again"]).startswith("landlock")
try:
    print({code})
except Exception as error:
    print(type(error).__name__)
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


READS = "subprocess.run(['cat', places / 'closed' / 'file'], capture_output=True).returncode"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("(places / 'other' / 'file').read_text()", "other"),
        ("(places / 'own' / 'file').read_text()", "own"),
        ("(places / 'closed' / 'again' / 'file').read_text()", "closed/again"),
        ("(places / 'closed' / 'file').read_text()", "PermissionError"),
        ("(places / 'own' / 'link').read_text()", "PermissionError"),
        ("Path('/proc/self/root', str(places)[1:], 'closed', 'file').read_text()", "PermissionError"),
        (READS, "1"),
        ("os.link(places / 'closed' / 'file', places / 'own' / 'hard')", "OSError"),
        ("os.rename(places / 'closed', places / 'own' / 'moved')", "PermissionError"),
        ("(places / 'own' / 'new').write_text('x')", "1"),
        ("(places / 'own' / 'file').write_text('xy')", "2"),
        ("(places / 'other' / 'file').write_text('x')", "PermissionError"),
        ("(places / 'other' / 'new').write_text('x')", "PermissionError"),
        ("(places / 'other' / 'file').unlink()", "PermissionError"),
        ("os.truncate(places / 'other' / 'file', 0)", "PermissionError"),
        ("(places / 'closed' / 'again' / 'file').write_text('x')", "PermissionError"),
        ("len(sorted(os.listdir(places / 'closed')))", "2"),
        ("Path('/dev/null').write_text('gone')", "4"),
        ("__import__('pty').openpty()", "OSError"),
        ("os.open('/dev/ptmx', os.O_RDWR)", "PermissionError"),
        ("os.mknod(places / 'own' / 'device', 0o20600, 0)", "PermissionError"),
        ("asked.put(places / 'closed' / 'file') or told.get()", "PermissionError"),
        ("asked.put(places / 'other' / 'file') or told.get()", "other"),
        ("__import__('json').dumps(1) and __import__('wave').__name__", "wave"),
    ],
)
def test_only_what_is_open_is_read_and_only_what_is_writable_written(code, expected, places):
    assert tried(places, code) == expected
    assert (places / "other" / "file").read_text() == "other"


@pytest.mark.landlock(6)  # before, it does not hold signals back
def test_no_process_outside_is_signalled(places):
    assert tried(places, f"os.kill({os.getpid()}, 0)") == "PermissionError"
    assert tried(places, "os.kill(os.getpid(), 0)") == "None"


@pytest.mark.landlock(4)  # before, it does not hold TCP back
def test_nothing_is_connected_to(places):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert tried(places, f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))") == "PermissionError"


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else has capabilities")
@pytest.mark.parametrize(
    "code",
    [
        "Path('/proc/self/status').read_text()",
        "asked.put(Path('/proc/thread-self/status')) or told.get()",
        "subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout",
    ],
)
def test_a_superuser_is_left_the_right_to_others_files_alone(code, places):
    status = dict(line.split(":\t", 1) for line in tried(places, code).splitlines())
    assert [int(status[f"Cap{kind}"], 16) for kind in ("Eff", "Prm", "Inh", "Amb")] == [2, 2, 0, 0]
    os.chown(places / "other" / "file", 12345, 12345)
    (places / "other" / "file").chmod(0o600)
    assert tried(places, "(places / 'other' / 'file').read_text()") == "other"


@pytest.mark.parametrize(
    ("name", "is_open"),
    [
        *((name, True) for name in ("nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-caps", "dri", "kfd", "dxg", "shm")),
        *((name, False) for name in ("nvme0", "nvram", "kmsg", "kvm", "loop-control", "net", "pts", "tty", "sda")),
    ],
)
def test_gpus_are_the_only_devices_of_the_machine_that_are_open(name, is_open):
    assert bool(isolation.DEVICES.fullmatch(name)) == is_open


def test_what_is_not_there_needs_no_rule(places):
    assert tried(places, "(places / 'other' / 'file').read_text()", closed="nowhere") == "other"


@given(names=st.sets(st.sampled_from(["a", "a/b", "a/b/c", "d", "d/e", "f"])))
def test_open_paths_cover_all_that_is_not_closed_and_nothing_that_is(names, tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    for name in ("a/b/c", "a/x", "d/e", "f"):
        (root / name).mkdir(parents=True)
    closed = {root / name for name in names}
    found = list(open_paths(root, closed))
    for path in [root, *root.rglob("*")]:
        covered = [one for one in found if one == path or one in path.parents]
        shut = any(one == path or one in path.parents for one in closed)
        holds = any(path in one.parents for one in closed)
        assert len(covered) == (0 if shut or holds else 1)


@pytest.mark.parametrize("spoken", [0, 5])
def test_isolation_that_cannot_be_tested_is_a_failure_unless_that_is_allowed(spoken, monkeypatch):
    monkeypatch.setattr(isolation, "version", lambda: spoken)
    monkeypatch.delenv(ALLOWED, raising=False)
    with pytest.raises(pytest.fail.Exception, match="needs version 6: set TDABENCH_NO_LANDLOCK=1"):
        need_landlock(6)
    monkeypatch.setenv(ALLOWED, "1")
    with pytest.raises(pytest.skip.Exception, match="needs version 6"):
        need_landlock(6)
    need_landlock(spoken)
