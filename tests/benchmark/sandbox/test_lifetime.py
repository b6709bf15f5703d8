"""Processes end with what they work for, and nothing else ends with them."""

import os
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

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


def test_too_long_a_path_for_temporary_files_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    with pytest.raises(UserError, match="too long a path for sockets: set TMPDIR to a shorter one"):
        forkserver()
