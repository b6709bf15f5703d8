"""Processes end with what they work for, and nothing else ends with them."""

import errno
import importlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing import forkserver as servers
from types import SimpleNamespace

import psutil
import pytest

from tdabench.benchmark.sandbox import lifetime
from tdabench.benchmark.sandbox.fork_server import forkserver
from tdabench.benchmark.sandbox.lifetime import server_of
from tdabench.errors import UserError

WORKER = "import sys, time; from tdabench.benchmark.processes import die_with_parent; {}; time.sleep(60)"
SHELL = [sys.executable, "-c", "import subprocess; subprocess.Popen(['sleep', '60']).wait()"]


def worker(words: str, **more) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WORKER.format(words)], **more)


def test_a_worker_whose_parent_ended_before_it_asked_ends_as_well():
    process = worker(f"die_with_parent({os.getppid()})")
    assert process.wait(timeout=30) == 1


def test_a_worker_lives_as_long_as_its_parent():
    process = worker(f"die_with_parent({os.getpid()}); print('up', flush=True)", stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    time.sleep(1.0)
    assert process.poll() is None
    process.kill()
    process.wait()
    process.stdout.close()


def test_only_a_process_that_the_runner_started_is_its_server():
    process = subprocess.Popen(SHELL)
    try:
        while not (children := psutil.Process(process.pid).children()):
            time.sleep(0.01)
        child = children[0].pid
        assert server_of(child, os.getpid()) == process.pid
        assert server_of(child, os.getppid()) is None
        assert server_of(process.pid, os.getpid()) is None
    finally:
        psutil.Process(process.pid).children()[0].kill()
        process.wait()
    assert server_of(child, os.getpid()) is None


@pytest.mark.parametrize("ends", [True, False])
def test_what_a_cell_left_and_cannot_be_ended_is_named(ends, monkeypatch, capsys):
    cell, left = (subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2))
    process = SimpleNamespace(pid=cell.pid, kill=cell.kill, join=cell.wait)
    monkeypatch.setattr(lifetime, "ORPHANS_S", 0.1 if not ends else 30.0)
    monkeypatch.setattr(lifetime, "_orphans", lambda server: [] if left.poll() else [psutil.Process(left.pid)])
    if not ends:
        monkeypatch.setattr(lifetime, "_kill", lambda processes: None)
    try:
        lifetime.kill_cell(process, os.getpid())
        assert cell.returncode and (left.poll() is not None) is ends
        said = capsys.readouterr().err
        assert said == "" if ends else f"end it yourself (processes {left.pid})" in said
    finally:
        left.kill()
        left.wait()


SERVES = """
import sys
sys.path.remove(sys.path[0])
from tdabench.benchmark.sandbox import fork_server
fork_server.PRELOADED.remove("tdabench.benchmark.run.heavy_imports")
if __name__ == "__main__":
    process = fork_server.forkserver().Process(target=print, args=("served",))
    process.start()
    process.join()
"""


def test_the_server_imports_nothing_from_the_folder_of_a_command(tmp_path):
    (tmp_path / "select.py").write_text("print('taken', flush=True)")
    path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    found = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"} | {"PYTHONPATH": path}
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "command.py").write_text(SERVES)
    command = [sys.executable, "elsewhere/command.py"]
    ended = subprocess.run(command, cwd=tmp_path, env=found, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["served"], ended.stderr


@pytest.fixture
def admission(monkeypatch, tmp_path):
    """The module that a fork server imports first, which does to this process only what is undone afterwards."""
    name = "tdabench.benchmark.sandbox.admission"
    monkeypatch.setattr(servers, "socket", socket)
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield importlib.import_module(name)
    sys.modules.pop(name)


@pytest.fixture
def door(admission):
    """A socket that the server would listen on, and one that asks to be let in by this process."""
    with servers.socket.socket(servers.socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as asks:
        server.bind("door")
        server.listen()
        asks.settimeout(10)
        asks.connect("door")
        yield server, asks


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="this system does not say who connects")
@pytest.mark.parametrize("beside", [-1, 1])
def test_a_server_closes_a_connection_that_is_not_its_parents(beside, door, monkeypatch):
    server, asks = door
    monkeypatch.setattr(os, "getppid", lambda: os.getpid() + beside)
    with pytest.raises(ConnectionAbortedError) as caught:
        server.accept()
    assert caught.value.errno == errno.ECONNABORTED, "any other ends the server"
    assert asks.recv(1) == b""


def welcomed(server, asks):
    connection, _ = server.accept()
    with connection:
        asks.sendall(b"x")
        return connection.recv(1) == b"x"


def test_a_server_takes_its_parents_connection(door, monkeypatch):
    monkeypatch.setattr(os, "getppid", os.getpid)
    assert welcomed(*door)


def test_a_server_of_a_system_that_does_not_say_who_connects_takes_all(door, monkeypatch):
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    assert welcomed(*door)


def test_too_long_a_path_for_temporary_files_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    with pytest.raises(UserError, match="too long a path for sockets: set TMPDIR to a shorter one"):
        forkserver()
