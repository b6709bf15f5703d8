"""What a method makes of its record, or damage does: no run ends by it, and no number of others comes from it."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from tdabench.benchmark.run.record import Record
from tdabench.benchmark.run.reporting import tail_of
from tdabench.errors import CorruptFile
from tdabench.store import HASH, FolderStore

from ... import run_helpers
from ...run_helpers import plugin, record_of, run_cells

tiny_home, home = run_helpers.tiny_home, run_helpers.home
RECORD = "record = Path(view.scratch).parent\n"
END = "\nos._exit(0)"
# Into every pipe to the runner: a message of 100 bytes, of which one comes.
HALF = """
import gc
from multiprocessing.connection import Connection
for one in [one for one in gc.get_objects() if isinstance(one, Connection) and not one.closed and one.writable]:
    os.write(one.fileno(), b"\\0\\0\\0\\x64x")
"""
PUTS = """
import json, numpy
from tdabench.benchmark.run.record import Record
record = Path(view.scratch).parent
costs = {{"attribute": json.loads((record / "fit.json").read_text())["fit"], "diagnostics": {{}}}}
Record(record).put(slice({start}, {stop}), numpy.ones(({stop} - {start}, len(view.train)), "f4"), costs)
"""
# What an adapter does in `attribute`, in a record whose row is then an error, at each start.
SPOILERS = {
    "long-log": "os.ftruncate(1, 1 << 43)" + END,
    "links-outcome": RECORD + "(record / 'outcome.json').symlink_to('/etc/hostname')" + END,
    "long-outcome": RECORD + "os.truncate(os.open(record / 'outcome.json', os.O_CREAT | os.O_RDWR), 1 << 43)" + END,
    "folder-outcome": RECORD + "[(record / f'outcome.json{end}').mkdir() for end in ('', '.sha256')]" + END,
    "folder-hash": RECORD + "(record / 'outcome.json.sha256').mkdir()" + END,
    "fit-hash": RECORD + "(record / 'fit.json.sha256').unlink()\n(record / 'fit.json.sha256').mkdir()" + END,
    "links-slice": RECORD + "(record / 'slice-00000-00020.json').symlink_to('/etc/hostname')",
    "folder-slice": RECORD + "(record / 'slice-00000-00006.json').mkdir()",
    "empties-spec": RECORD + "(record / 'spec.json').write_text('{}')" + END,
    "no-spec": RECORD + "(record / 'spec.json').unlink()" + END,
    "links-spec": RECORD + "(record / 'spec.json').unlink()\n(record / 'spec.json').symlink_to('/etc/hostname')" + END,
    "odd-slice": RECORD + "(record / 'slice-x-y.json').write_text('1')" + END,
    "long-hash": RECORD + "open(record / 'fit.json.sha256', 'wb').truncate(1 << 43)" + END,
    "long-scores": """
part = Path(view.scratch).parent / 'slice-00000-00020.safetensors'
from tdabench.store import FolderStore
told = {"sha256": "0", "attribute": {}, "diagnostics": {}}
FolderStore(part.parent).put_json('slice-00000-00020.json', told, sealed=True)
os.truncate(os.open(part, os.O_CREAT | os.O_RDWR), 1 << 43)
os._exit(0)
""",
    "twice": PUTS.format(start=0, stop=1),
    "beyond": PUTS.format(start=6, stop=8),
    "deep-notes": "for _ in range(320): self.diagnostics = {'a': self.diagnostics}",
}
READS = "[read] = view.stored_scores.values()\nscores = read(queries.ids)"


@pytest.fixture(scope="module")
def spoilt(tiny_home, tmp_path_factory):
    """The rows of all of them beside an honest one, by method, of a first run and of one with ``--retry``."""
    folder = tmp_path_factory.mktemp("spoilt")
    files = [plugin(folder, "honest"), *(plugin(folder, name, code) for name, code in SPOILERS.items())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDABENCH_HOME", str(tiny_home))
        return [run_cells(folder / "results", [*SPOILERS, "honest"], files, retry=retry) for retry in (False, True)]


@pytest.mark.parametrize("name", SPOILERS)
def test_a_spoilt_record_is_an_error_of_its_cell_each_time(name, spoilt):
    for rows in spoilt:
        assert rows[name].status == "error" and rows[name].reason
        assert rows["honest"].status == "ok"


def test_no_notes_are_read_that_would_fill_the_memory(tmp_path):
    for name in ("fit", "slice-00000-00006"):
        FolderStore(tmp_path).keep(f"{name}.json", b"{}" + b" " * 2**24)
    for read in (lambda: Record(tmp_path).read("fit"), lambda: Record(tmp_path).costs(slice(0, 6))):
        with pytest.raises(CorruptFile, match="has more than"):
            read()


@pytest.mark.parametrize("name", ["fit", "spec", "inputs", "outcome", "slice-00000-00002"])
@pytest.mark.parametrize("edited", [b'{"fit": {"seconds": 0.0}}', None])
def test_what_has_no_hash_is_damage(name, edited, tmp_path):
    record = Record(tmp_path)
    record.put(slice(0, 2), np.zeros((2, 3)), {})
    for other in ("fit", "spec", "inputs", "outcome"):
        record.store.put_json(f"{other}.json", {}, sealed=True)
    assert record.damage() is None
    (tmp_path / f"{name}.json{HASH}").unlink()
    if edited:
        (tmp_path / f"{name}.json").write_bytes(edited)
    assert record.damage() == f"{tmp_path / name}.json has no hash beside it: delete it and run again"


def test_half_a_message_keeps_no_cell_from_its_timeout(home, tmp_path):
    path = plugin(tmp_path, "sends-half", HALF + "time.sleep(60)\nprint('woke', flush=True)")
    [row] = run_cells(tmp_path / "results", ["sends-half"], [path], timeout_s=30.0).values()
    assert row.status == "timeout" and "woke" not in row.log_tail


def test_the_end_of_a_text_is_read_without_the_rest(tmp_path):
    path = tmp_path / "log"
    path.write_bytes("aé\r\nz".encode())
    assert tail_of(path, 3) == "é\nz" and tail_of(path, 99) == "aé\nz"
    os.truncate(path, 1 << 43)
    assert tail_of(path, 3) == "\0\0\0"


def test_an_ensemble_takes_from_no_member_which_query_is_which(home, tmp_path):
    files = [plugin(tmp_path, "part"), plugin(tmp_path, "reads", READS, needs=("stored-scores",), members=("part",))]
    rows = run_cells(tmp_path / "results", ["part", "reads"], files)
    store = record_of(tmp_path / "results", rows["part"]).store
    spec = store.get_json("spec.json")
    spec["query_ids"].reverse()
    store.keep("spec.json", json.dumps(spec).encode())
    for folder in (tmp_path / "results").glob("*/*/reads@1"):
        shutil.rmtree(folder)
    again = run_cells(tmp_path / "results", ["part", "reads"], files)["reads"]
    assert again.metrics == rows["reads"].metrics
