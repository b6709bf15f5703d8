"""Methods that cheat, break out or break down: each ends as the right row, and nothing is changed or left behind."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdabench.benchmark.run.forecast import Rates, forecast
from tdabench.benchmark.run.plan import Options
from tdabench.benchmark.run.results import Results
from tdabench.benchmark.run.runner import Runner, parse_event
from tdabench.benchmark.sandbox import tampering
from tdabench.benchmark.sandbox.enclosure import SUBMISSION
from tdabench.benchmark.sandbox.fork_server import temporary_of_process
from tdabench.benchmark.sandbox.isolation import version
from tdabench.benchmark.sandbox.tampering import Watch
from tdabench.datasets.truth import SHIPPED, Assets
from tdabench.errors import UserError
from tdabench.leaderboard.rows.files import RESULTS
from tdabench.models.problem import read_problem
from tdabench.plugins import PREFIX
from tdabench.store import FolderStore, sha256

from ... import run_helpers
from ...run_helpers import plan, plugin, run_cells, survivors

tiny_home, home = run_helpers.tiny_home, run_helpers.home
shut_in = pytest.mark.landlock(6)
filtered = pytest.mark.seccomp

DETACHED = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp('sleep', ['sleep', '4242.{}'])
    os._exit(0)
"""
SERVER = """
import contextlib, multiprocessing.forkserver, socket
server = multiprocessing.forkserver._forkserver
def ask(*pipes):
    with socket.socket(socket.AF_UNIX) as door, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        door.connect(server._forkserver_address)
        multiprocessing.forkserver.reduction.sendfds(door, pipes)
"""
FORKS = """
(told, tells), (takes, gives) = os.pipe(), os.pipe()
ask(takes, tells, tells, tells)
os.close(tells)
assert os.read(told, 8), 'nobody forks'
"""
CONFUSES = """
ask()
ask(*range(3))
for pipe in (server._forkserver_alive_fd, multiprocessing.resource_tracker._resource_tracker._fd):
    if pipe is not None:
        os.write(pipe, b'x')
"""
FORKING = """
for _ in range(6):
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork():
                os._exit(0)
"""
THREADS = """
    import ctypes
    opened, libc = [], ctypes.CDLL(None)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    handler = kind(lambda number, opened=opened, libc=libc: opened.append(libc.open({truth!r}.encode(), 0)))
    libc.signal(10, handler)
    for thread in os.listdir("/proc/self/task"):
        libc.tgkill(os.getpid(), int(thread), 10)
        time.sleep(0.1)
    assert opened, "no thread was asked"
"""
TELLS = "self.diagnostics['opened'] = [one for one in self.opened if one >= 0]"
RECORD = "record = Path(view.scratch).parent\n"
LEAVES = (
    RECORD
    + """
from tdabench.store import FolderStore
def leave(name, text):  # with the hash that its file needs
    FolderStore(record).keep(name, text.encode())
"""
)
# What an adapter does in `attribute`, and what its row says: status and a part of the reason.
CLOSED = {
    "reads-truth": ("Path({truth!r}).read_bytes()", "PermissionError"),
    "reads-shipped": ("Path({shipped!r}).read_bytes()", "PermissionError"),
    "cats-truth": ("subprocess.run(['cat', {truth!r}], check=True, capture_output=True)", "CalledProcessError"),
    "maps-truth": ("torch.from_file({truth!r}, shared=False, size=8, dtype=torch.uint8)", "RuntimeError"),
    "links-truth": (RECORD + "os.link({truth!r}, record / 'mine')", "OSError|PermissionError"),
    "through-root": ("open('/proc/self/root' + {truth!r}, 'rb').read()", "PermissionError"),
    "reads-submission": ("Path({submission!r}).read_text()", "PermissionError"),
    "reads-temporary": ("Path({temporary!r}).read_text()", "PermissionError"),
    "reads-committed": ("next(Path({committed!r}).glob('**/*.json')).read_text()", "PermissionError"),
    "reads-found": ("next(Path({committed!r}, '../ensembles').glob('*.json')).read_text()", "PermissionError"),
    "edits-truth": ("open({truth!r}, 'r+b').write(b'x')", "PermissionError"),
    "deletes-truth": ("os.unlink({truth!r})", "PermissionError"),
    "reads-others": ("next(Path({results!r}).glob('rows/**/*.json')).read_text()", "PermissionError"),
    "writes-a-row": ("Path({results!r}, 'rows', 'x.json').write_text('{{}}')", "PermissionError"),
    "writes-home": ("Path({home!r}, 'x').write_text('x')", "PermissionError"),
    "connects": ("import socket; socket.create_connection(('127.0.0.1', 9), timeout=5)", "PermissionError"),
    "listens": ("import socket; socket.create_server(('127.0.0.1', 0))", "PermissionError"),
    "kills-its-parent": ("os.kill(os.getppid(), 9)", "PermissionError"),
    "kills-the-runner": ("os.kill({runner}, 9)", "PermissionError"),
    "limits-the-runner": (
        "import resource as r; r.prlimit({runner}, r.RLIMIT_CORE, r.prlimit({runner}, r.RLIMIT_CORE))",
        "PermissionError",
    ),
    "locks-results": (
        "import fcntl; fcntl.ioctl(os.open({results!r}, os.O_RDONLY), 0x40086602, bytes([0x80, *bytes(7)]))",
        "PermissionError",
    ),
    "connects-otherwise": ("import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)", "PermissionError"),
    "forks-outside": (SERVER + FORKS, "nobody forks"),
}
FORGED = {
    "no-json": (LEAVES + "leave('outcome.json', '{{'); os._exit(0)", "error", "no record of a cell"),
    "odd-status": (LEAVES + "leave('outcome.json', '[1]'); os._exit(0)", "error", "no result"),
    "bare-ok": (
        LEAVES + "leave('outcome.json', '{{\"status\": \"ok\"}}'); os._exit(0)",
        "error",
        "no record of a cell",
    ),
    "no-hash": (
        RECORD + "(record / 'outcome.json').write_text('{{\"status\": \"ok\"}}'); os._exit(0)",
        "error",
        "outcome.json has no hash beside it",
    ),
    "deep": (LEAVES + "leave('outcome.json', '[' * 100000); os._exit(0)", "error", "no record"),
    "odd-fit": (
        LEAVES + 'leave("fit.json", \'{{"fit": {{"seconds": -1}}, "diagnostics": 5}}\')',
        "error",
        "no record of a cell",
    ),
    "own-kill": ("os.kill(os.getpid(), 9)", "error", "SIGKILL and no result"),
    "stops": ("os.kill(os.getpid(), signal.SIGTERM)", "error", "SIGTERM"),
    "real-time": ("os.kill(os.getpid(), 40)", "error", "signal 40 and no result"),
    "long-reason": ("raise ValueError('x' * 10**7)", "error", "^ValueError: x{900,1000}$"),
    "deep-temporary": (
        "import tempfile\nos.chdir(tempfile.mkdtemp())\nfor _ in range(2000):\n    os.mkdir('d'); os.chdir('d')",
        "ok",
        None,
    ),
    "finds-roles": (
        "import gc\n[found] = {{one.roles for one in gc.get_objects() if type(one).__name__ == 'Queries'}}",
        "ok",
        None,
    ),
    "forks-for-ever": (FORKING, "ok", None),
    "odd-report": ("view.report('x')", "ok", None),
    "nan-report": ("view.report('a', 'b', None); view.report('[/red]', 1, 2); view.report('q', -1, 5)", "ok", None),
    "floods": ("for i in range(3000): view.report('x' * 3000, i, 3000)", "ok", None),
    "patches-metrics": (
        "import tdabench.benchmark.metrics.lds as m; m.__dict__.update(dict.fromkeys(vars(m), 1))",
        "ok",
        None,
    ),
    "confuses-the-server": (SERVER + CONFUSES, "ok", None),
    "detaches": (DETACHED.format("1"), "ok", None),
    "closes-results": ("os.chmod(Path({results!r}), 0o500); os.chmod(Path({results!r}, 'cells'), 0)", "ok", None),
    "many-threads": (
        "import threading\nfor _ in range(50): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        "ok",
        None,
    ),
}


def states(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def mask() -> int:
    """Return which bits of a mode new files lack."""
    os.umask(found := os.umask(0o77))
    return found


def note(folder: Path) -> str:
    """Write a file into a folder, and return its path."""
    (folder / "note").write_text("secret")
    return str(folder / "note")


@pytest.fixture(scope="module")
def left_by_others():
    """Return the folder of a submission that another process looks at."""
    with tempfile.TemporaryDirectory(prefix=SUBMISSION) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def zoo(tiny_home, left_by_others, tmp_path_factory):
    """All of them beside an honest one: (rows by method, hashes of truths before, and after, both servers, results)."""
    folder = tmp_path_factory.mktemp("zoo")
    results, truth = folder / "results", tiny_home / "truth" / "digits-tiny@1" / "truth-report-0.safetensors"
    shipped = SHIPPED / "digits@1" / "truth-report.safetensors"
    places = {"truth": str(truth), "shipped": str(shipped), "results": str(results), "home": str(tiny_home)}
    places |= {
        "committed": str(RESULTS),
        "submission": note(left_by_others),
        "temporary": note(Path(tempfile.mkdtemp(dir=temporary_of_process()))),
    }
    words = {**places, "runner": os.getpid()}
    codes = {name: code for name, (code, _) in CLOSED.items()} | {name: code for name, (code, *_) in FORGED.items()}
    files = [plugin(folder, "honest")]
    files += [plugin(folder, name, code.format(**words)) for name, code in codes.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(tiny_home))
        before = states(tiny_home)
        first, server = run_cells(results, ["honest"], files), forkserver._forkserver._forkserver_pid
        rows = run_cells(results, ["honest", *codes], files)
    assert rows["honest"] == first["honest"]
    servers = server, forkserver._forkserver._forkserver_pid
    return rows, before, states(tiny_home), servers, results


@shut_in
@filtered
@pytest.mark.parametrize("name", CLOSED)
def test_what_is_closed_is_an_error_of_the_cell(name, zoo):
    row = zoo[0][name]
    assert row.status == "error" and re.search(CLOSED[name][1], row.reason), row.reason


@pytest.mark.parametrize("name", FORGED)
def test_what_a_cell_leaves_behind_is_not_believed(name, zoo):
    row, (_, status, reason) = zoo[0][name], FORGED[name]
    assert row.status == status, row.reason
    assert reason is None or re.search(reason, row.reason), row.reason


def test_nothing_of_the_truth_has_changed(zoo):
    assert zoo[1] == zoo[2]


@filtered
def test_no_cell_closes_the_results_of_others(zoo):
    assert {(zoo[4] / part).stat().st_mode & 0o777 for part in (".", "cells")} == {0o777 & ~mask()}


def test_no_cell_ends_the_server_that_cells_are_forked_from(zoo):
    before, after = zoo[3]
    assert before == after


def test_scores_are_those_without_the_patch(zoo):
    honest, patched = zoo[0]["honest"].metrics.lds, zoo[0]["patches-metrics"].metrics.lds
    assert {kind: one.values for kind, one in honest.items()} == {kind: one.values for kind, one in patched.items()}


def test_what_forks_all_the_time_has_ended(home, tmp_path):
    run_cells(tmp_path, ["forks"], [plugin(tmp_path, "forks", FORKING)])
    left = psutil.Process(forkserver._forkserver._forkserver_pid).children()
    known = {child.pid for child in multiprocessing.active_children()}
    assert not [child for child in left if child.pid not in known and child.status() != psutil.STATUS_ZOMBIE]


@shut_in
def test_threads_that_a_cell_is_given_are_shut_in(home, tmp_path):
    truth = str(home / "truth" / "digits-tiny@1" / "truth-report.safetensors")
    path = plugin(tmp_path, "threads", fit=TELLS, body=THREADS.format(truth=truth))
    [row] = run_cells(tmp_path / "results", ["threads"], [path], threads=3).values()
    assert row.diagnostics["opened"] == [], row.diagnostics


def test_what_detached_itself_has_ended(zoo):
    left = [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", "4242.1"]]
    assert not survivors(left, within=5)


@shut_in
@filtered
def test_rows_say_by_what_they_were_shut_in(zoo, home, tmp_path):
    assert zoo[0]["honest"].source.isolation == f"landlock {version()}, seccomp"
    [row] = run_cells(tmp_path, ["honest"], [plugin(tmp_path, "honest")], isolated=False).values()
    assert row.source.isolation == "none" and row.status == "ok"


@shut_in
def test_an_ensemble_that_reads_what_ran_in_the_open_says_that_it_did(home, tmp_path):
    reader = plugin(tmp_path, "reader", members=("honest",), needs=("stored-scores",))
    files = [plugin(tmp_path, "honest"), reader]
    run_cells(tmp_path, ["honest"], files, isolated=False)
    [row] = run_cells(tmp_path, ["reader"], files).values()
    assert row.source.isolation == "none" and row.status == "ok"


@pytest.mark.parametrize("code", ["raise SystemExit(0)", "os._exit(0)", "def ("])
def test_a_plugin_that_does_not_import_is_one_line(code, home, tmp_path):
    path = plugin(tmp_path, "odd")
    path.write_text(f"import os\n{path.read_text()}\n{code}\n")
    with pytest.raises(UserError, match=re.escape(str(path))):
        plan(["odd"], [path])


@pytest.mark.parametrize("body", ["os._exit(1)", "raise ValueError('no')", "return 5"])
def test_encoders_that_a_method_cannot_name_are_one_line_before_anything_runs(body, home, tmp_path):
    path = plugin(tmp_path, "odd", body=f"@classmethod\n    def encoders_of(cls, params):\n        {body}")
    with pytest.raises(UserError, match="odd"):
        plan(["odd"], [path])


def test_an_estimate_that_ends_its_process_is_none(home, tmp_path):
    path = plugin(tmp_path, "odd", body="def estimate(self, sizes):\n        os._exit(1)")
    (cell,) = plan(["odd"], [path])
    assert forecast([cell], read_problem(cell.assets.folder), Rates(1.0, 1.0, 1.0, 0.0))[0].estimate is None


def test_an_ensemble_that_is_its_own_member_is_one_line(home, tmp_path):
    path = plugin(tmp_path, "odd", needs=("stored-scores",), members=("odd",))
    with pytest.raises(UserError, match="odd:quick is a member of itself"):
        plan(["odd"], [path])


def test_the_runner_imports_no_plugin(home, tmp_path):
    path = plugin(tmp_path, "marks")
    path.write_text(f"import sys\nsys.modules['marked'] = sys\n{path.read_text()}")
    assert run_cells(tmp_path / "results", ["marks"], [path])["marks"].status == "ok"
    assert "marked" not in sys.modules and not [name for name in sys.modules if name.startswith(PREFIX)]


def test_a_cell_that_never_lets_go_ends_with_a_killed_runner(home, tmp_path):
    """A long call into C holds the interpreter's lock, so that no thread of the cell could end it."""
    path = plugin(tmp_path, "holds", "sum(range(10**12))", fit="print('here', flush=True)")
    words = ["run", "digits-tiny", "--methods", "holds", "--plugin", path, "--results", tmp_path / "results"]
    command = [sys.executable, "-m", "tdabench.benchmark.commands.cli", *map(str, words)]
    process = subprocess.Popen(command, env=run_helpers.environment(home), stdout=subprocess.DEVNULL)
    logs, end = tmp_path / "results" / "logs", time.monotonic() + 120
    while not any(path.read_text() for path in logs.rglob("*.log")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not survivors(family, within=10)


def test_an_event_is_what_it_should_be_or_nothing():
    assert parse_event(b'["fit", 1, 2]') == ("fit", 1, 2)
    for odd in (
        b"",
        b"[",
        b'["fit", 1]',
        b'["fit", "1", 2]',
        b"[3, 1, 2]",
        b'["fit", 3, 2]',
        b"[" * 4000,
        b'["fit", 0, 1' + b"0" * 400 + b"]",
    ):
        assert parse_event(odd) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_nothing(data):
    found = parse_event(data)
    assert found is None or (isinstance(found[0], str) and 0 <= found[1] <= found[2])


def test_temporary_files_of_a_cell_are_gone(home, tmp_path):
    code = "import tempfile\nprint(tempfile.mkdtemp(), flush=True)"
    runner = Runner(Results(tmp_path / "results"), Options())
    [row] = runner.run(plan(["leaves"], [plugin(tmp_path, "leaves", code)]))
    assert row.status == "ok"
    [log] = (tmp_path / "results" / "logs").rglob("*.log")
    place = Path(log.read_text().splitlines()[0])
    assert place.name.startswith("tmp") and not place.exists() and not place.parent.exists()


OPEN = {
    "spoils-scores": ("next(Path({results!r}).rglob('slice-*.safetensors')).write_bytes(b'x')", "slice-.*safetensors"),
    "forges-a-row": ("Path({results!r}, 'rows', 'digits-tiny@1', 'x.json').write_text('{{}}')", "rows/.*/x.json"),
    "edits-code": ("Path({package!r}, 'models', 'a.py').write_text('x = 2')", "models/a.py"),
    "edits-a-plugin": ("Path({beside!r}).write_text('x = 2')", "helper.py"),
    "edits-truth": ("open({truth!r}, 'r+b').write(b'x')", "truth-report-0.safetensors"),
}


@pytest.fixture(scope="module")
def unwatched(tiny_home, tmp_path_factory):
    """Rows of cells that nothing shuts in, by method: honest ones side by side, and some that change others' things."""
    folder = tmp_path_factory.mktemp("open")
    shutil.copytree(tiny_home, folder / "home")
    (folder / "package" / "models").mkdir(parents=True)
    (folder / "package" / "models" / "a.py").write_text("x = 1")
    (folder / "helper.py").write_text("x = 1")
    truth = folder / "home" / "truth" / "digits-tiny@1" / "truth-report-0.safetensors"
    places = {"results": folder / "results", "package": folder / "package", "truth": truth}
    words = {name: str(place) for name, place in (*places.items(), ("beside", folder / "helper.py"))}
    files = [plugin(folder, name, body="import helper") for name in ("honest", "second")]
    files += [plugin(folder, name, code.format(**words), body="import helper") for name, (code, _) in OPEN.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(folder / "home"))
        patch.setattr(tampering, "PACKAGE", folder / "package")
        honest = run_cells(folder / "results", ["honest", "second"], files, isolated=False, jobs=2)
        return honest | run_cells(folder / "results", [*OPEN], files, isolated=False, jobs=1)


@pytest.mark.parametrize("name", OPEN)
def test_what_a_cell_in_the_open_changes_is_named_in_its_row(name, unwatched):
    row = unwatched[name]
    assert row.status == "error" and row.metrics is None, row.reason
    assert re.search(f"files changed that are not its own: [^ ]*{OPEN[name][1]}; restore", row.reason), row.reason


def test_a_cell_in_the_open_that_changes_nothing_is_believed(unwatched):
    assert (unwatched["honest"].status, unwatched["second"].status) == ("ok", "ok"), unwatched


@pytest.fixture
def watch(tiny_home, tmp_path):
    """What notices changes, beside the results of three cells: one's own, one of this run and one of another."""
    for name in ("own", "ours", "theirs"):
        FolderStore(tmp_path).put(f"cells/{name}/id/slice.safetensors", b"scores")
        FolderStore(tmp_path).put_json(f"rows/{name}.json", {"status": "ok", "metrics": None})
    assets = Assets(tiny_home / "truth" / "digits-tiny@1")
    with FolderStore(tmp_path).claim("cells/ours/run"):
        yield Watch(assets, (), tmp_path, frozenset({"cells/own", "cells/ours"}), {"cells/own"})


def test_what_others_may_change_meanwhile_is_no_cause_for_complaint(watch, tmp_path):
    store = FolderStore(tmp_path)
    with store.claim("cells/theirs/run"), store.claim("cells/new/run"):
        for name in ("own", "theirs", "new"):
            store.put(f"cells/{name}/id/slice.safetensors", b"others")
            store.put_json(f"rows/{name}.json", {"status": "error", "metrics": None}, sealed=True)
    store.put_json("rows/ours.json", {"status": "ok", "metrics": {"lds": {}}})
    os.link(watch.assets.folder / "problem.safetensors", tmp_path / "link")
    assert watch.complaint() is None


@pytest.mark.parametrize("name", ["cells/ours/id/slice.safetensors", "cells/theirs/id/x", "rows/x.json"])
def test_what_nobody_else_held_is_a_cause_for_complaint(name, watch, tmp_path):
    (tmp_path / name).write_text("[]")
    assert name in watch.complaint()
    watch.expected |= {"cells/ours", "cells/theirs", "cells/x"}
    assert watch.complaint() is None


@pytest.fixture
def copied(tiny_home, tmp_path):
    """What notices changes of a truth that may be spoilt, and one of that truth's files."""
    folder = shutil.copytree(tiny_home / "truth" / "digits-tiny@1", tmp_path / "digits-tiny@1")
    return Watch(Assets(folder), (), tmp_path, frozenset(), set()), folder / "truth-full.safetensors"


def test_a_file_of_the_truth_that_is_gone_is_a_cause_for_complaint(copied):
    watch, path = copied
    assert watch.complaint() is None
    path.unlink()
    assert path.name in watch.complaint()


@pytest.mark.parametrize("above", [False, True])
def test_other_bytes_of_the_truth_are_a_cause_for_complaint_whatever_their_hash(above, copied):
    watch, path = copied
    listed = watch.assets.manifest["files"][path.name]["sha256"]
    others = (path.read_bytes() + bytes([number]) for number in range(256))
    path.write_bytes(next(data for data in others if (sha256(data) > listed) == above))
    assert path.name in watch.complaint()


@pytest.mark.parametrize("field", ["cost", "status"])
def test_any_field_of_a_row_but_its_metrics_is_a_cause_for_complaint(field, watch, tmp_path):
    FolderStore(tmp_path).put_json("rows/ours.json", {"status": "ok", "metrics": None, field: "edited"})
    assert "rows/ours.json" in watch.complaint()
