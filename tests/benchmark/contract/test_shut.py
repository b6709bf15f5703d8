"""What Python announces to nobody, native code and other processes, finds truths closed when a method is checked."""

from __future__ import annotations

import pytest

from tdabench.benchmark.commands.adapters import check_method as command
from tdabench.benchmark.contract.rules import RULES
from tdabench.benchmark.contract.shut import check_shut_in
from tdabench.benchmark.sandbox.isolation import version
from tdabench.errors import UserError

from ... import run_helpers
from ...run_helpers import plugin

tdabench = run_helpers.tdabench
shut_in = pytest.mark.landlock(1)
LIBC = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
FAILED = " == -1: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), {truth!r})"
HIDDEN = {
    "cats": ("subprocess.run(['cat', {truth!r}], capture_output=True, check=True)", "'cat', '{truth}'"),
    "opens": (LIBC + "if libc.open({truth!r}.encode(), 0)" + FAILED, "Permission denied: '{truth}'"),
    "maps": ("torch.from_file({truth!r}, shared=False, size=4, dtype=torch.uint8)", "<{truth}>"),
    "links": (LIBC + "if libc.link({truth!r}.encode(), str(view.scratch / 'mine').encode())" + FAILED, "'{truth}'"),
    "links-out": (LIBC + "if libc.link({truth!r}.encode(), {beside!r}.encode())" + FAILED, "'{truth}'"),
    "reads": ("Path({truth!r}).read_bytes()", "once it opened the truth: {truth}"),
}


@pytest.fixture
def truth(tmp_path, monkeypatch):
    """A file of a truth, where built ones lie."""
    monkeypatch.setenv("TDABENCH_HOME", str(tmp_path / "home"))
    path = tmp_path / "home" / "truth" / "digits-tiny@1" / "truth-report-0.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"losses")
    return path


@shut_in
@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_access_to_a_truth_fails_and_is_named(name, truth, tmp_path):
    code, said = HIDDEN[name]
    beside = tmp_path / "hard"
    checks = check_shut_in(plugin(tmp_path, name, fit=code.format(truth=str(truth), beside=str(beside))))
    (failed,) = [check for check in checks if check.status == "fail"]
    assert failed.name == "runs" and said.format(truth=truth) in failed.detail and f"({name}.py:" in failed.detail
    assert truth.stat().st_nlink == 1 and not beside.exists()


def test_the_command_shuts_in_and_says_where_it_does_not(truth, tmp_path, tdabench, monkeypatch):
    path = plugin(tmp_path, "prints", fit="print('from the method')", body="query_specific = False")
    answer = tdabench("check-method", path)
    assert answer.code == 0 and "from the method" not in answer.out and f"{len(RULES) - 1} passed" in answer.out
    assert (command.OPEN in answer.out) is (version() == 0)
    answer = tdabench("check-method", path, "--no-isolation")
    assert answer.code == 0 and "from the method" in answer.out and command.OPEN in answer.out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "ended the process that imports it"),
        ("import tdabench.benchmark.contract.shut as s; s.asdict = lambda check: {'name': 1}", "spoils the suite's"),
        ("import tdabench.benchmark.contract.suite as s; s.RULES = ()", "spoils the suite's"),
    ],
)
def test_a_method_that_spoils_the_check_is_one_line(line, said, truth, tmp_path):
    path = plugin(tmp_path, "spoils")
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(UserError, match=said):
        check_shut_in(path)
    with pytest.raises(UserError, match="no file"):
        check_shut_in(tmp_path / "none.py")
