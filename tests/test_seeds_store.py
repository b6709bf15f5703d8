"""Seeds by name, and the store: whole files or none, keys that stay inside, claims that die with their owner."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdabench import claims, seeds
from tdabench.errors import CorruptFile, UserError
from tdabench.methods.kept import used
from tdabench.store import (
    FolderStore,
    clear_abandoned,
    files_below,
    home,
    read_file,
    recovered,
    remove_tree,
    sha256,
    take_place,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems name no boot and have no PID namespaces")
AXES = st.lists(st.text(max_size=5) | st.integers(-5, 10**6), max_size=4).map(tuple)


class Killed(BaseException):
    """What a kill -9 looks like from inside: nothing after it runs, save `finally`."""


@pytest.fixture
def store(tmp_path) -> FolderStore:
    """An empty store."""
    return FolderStore(tmp_path / "store")


@pytest.fixture
def slow_look(monkeypatch):
    """Let time pass between finding that an owner is dead and acting on it, so that a race shows."""
    look = os.kill

    def slow(pid: int, signal: int) -> None:
        try:
            look(pid, signal)
        finally:
            time.sleep(random.random() / 500)

    monkeypatch.setattr(os, "kill", slow)


def child(root: Path, code: str) -> subprocess.Popen:
    """Start another process that holds a claim on "job" and then runs ``code``."""
    lines = f"import os, time; from tdabench.store import FolderStore\nstore = FolderStore({str(root)!r})\n"
    lines += f"with store.claim('job') as held:\n    print(held, flush=True)\n    {code}"
    return subprocess.Popen([sys.executable, "-c", lines], stdout=subprocess.PIPE, text=True)


def written(store: FolderStore) -> list[Path]:
    """Return the files that hold something, whatever their names."""
    return [path for path in store.root.rglob("*") if path.is_file() and path.stat().st_size]


# seeds


def test_derive_is_the_first_63_bits_of_the_sha256_of_the_axes_as_json():
    # printf '["a",1,"b"]' | sha256sum
    assert seeds.derive("a", 1, "b") == 0x33CC8A096D737991 >> 1


@given(AXES, AXES)
def test_derived_seeds_fit_63_bits_and_collide_only_for_equal_axes(one, other):
    assert 0 <= seeds.derive(*one) < 2**63
    assert (seeds.derive(*one) == seeds.derive(*other)) == (one == other)


def test_order_type_and_grouping_of_axes_matter():
    variants = [("a", 1), (1, "a"), ("a", "1"), ("a1",), ("a", 1, ""), ("a,1",)]
    assert len({seeds.derive(*axes) for axes in variants}) == len(variants)


def test_generators_of_the_same_axes_agree_and_leave_the_global_state_alone():
    import numpy as np
    import torch

    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again, other = (torch.rand(4, generator=seeds.torch_generator("x", i)) for i in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    draws = [seeds.numpy_generator("x", i).random(4).tolist() for i in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.lists(st.integers()), max_size=5), st.randoms())
def test_digest_ignores_the_order_of_keys_at_every_level(value, shuffler):
    items = list(value.items())
    shuffler.shuffle(items)
    assert seeds.digest({"inner": value, "a": 1}) == seeds.digest({"a": 1, "inner": dict(items)})


def test_digest_tells_values_apart_and_refuses_nan():
    values = [{"a": 1}, {"a": 2}, {"a": [1, 2]}, {"a": [2, 1]}, {"a": "1"}]
    assert len({seeds.digest(value) for value in values}) == len(values)
    assert seeds.digest(values[0], 40).startswith(seeds.digest(values[0], 8))
    with pytest.raises(ValueError, match="JSON"):
        seeds.digest({"a": float("nan")})


# the store


def test_what_is_put_is_got_and_replaced_whole(store):
    assert not store.exists("a/b.bin")
    store.put("a/b.bin", b"a long first value")
    store.put("a/b.bin", b"short")
    assert store.get("a/b.bin") == b"short" and store.exists("a/b.bin")
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")
    with pytest.raises(FileNotFoundError):
        store.get("a/b.bin")


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_kill_between_writing_and_renaming_changes_nothing_visible(store, monkeypatch, before):
    if before is not None:
        store.put("a/b.bin", before)

    def kill(path: Path, target: Path) -> None:
        assert path.read_bytes() == b"new"  # all of it was written elsewhere
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        with pytest.raises(Killed):
            store.put("a/b.bin", b"new")
    assert list(store.keys()) == ([] if before is None else ["a/b.bin"])
    assert store.exists("a/b.bin") == (before is not None)
    if before is not None:
        assert store.get("a/b.bin") == before
    store.put("a/b.bin", b"newer")
    assert store.get("a/b.bin") == b"newer"


def test_a_full_disk_is_a_users_error_and_leaves_no_rubbish(store, monkeypatch):
    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        store.put("a/b.bin", b"new")
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == []


def test_keys_are_sorted_below_a_prefix_and_without_partial_files(store):
    for key in ("b/2", "b/10", "a", "b/c/1"):
        store.put(key, b"")
    (store.root / "b" / ".2.123.part").write_bytes(b"half")
    assert list(store.keys()) == sorted(["a", "b/10", "b/2", "b/c/1"])
    assert set(store.keys("b")) == {"b/10", "b/2", "b/c/1"}
    assert list(store.keys("nowhere")) == []


def test_what_killed_processes_left_of_a_file_goes_a_day_later_when_it_is_written_again(store):
    store.put("a/[1]", b"old")
    day_ago = time.time() - 86460
    for name, age in ((".[1].f00.part", day_ago), (".[1].bad.part", day_ago + 120), (".1.f00.part", day_ago)):
        (store.root / "a" / name).write_bytes(b"half")
        os.utime(store.root / "a" / name, (age, age))
    store.put("a/[1]", b"new")
    assert {path.name for path in (store.root / "a").iterdir()} == {"[1]", ".[1].bad.part", ".1.f00.part"}


def test_folders_that_killed_processes_left_go_after_a_day(tmp_path):
    for name, age in ((".out.f00.part", 90_000), (".out.bad.part", 80_000)):
        folder_of(tmp_path / name, "half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    clear_abandoned(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [".out.bad.part"]


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "../store-2/x"])
def test_keys_cannot_leave_the_folder(store, key):
    for use in (store.get, store.exists, store.delete, lambda key: store.put(key, b"")):
        with pytest.raises(ValueError, match="leaves the store"):
            use(key)
    assert not (store.root.parent / "x").exists()


def test_keys_cannot_leave_through_a_link(store, tmp_path):
    store.put("a", b"")
    (tmp_path / "outside").mkdir()
    (store.root / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="leads out of"):
        store.put("link/x", b"")


def test_what_is_no_plain_file_is_not_replaced(store):
    store.root.mkdir(exist_ok=True)
    os.mkfifo(store.root / "pipe")
    with pytest.raises(UserError, match="pipe is there and no plain file"):
        store.put("pipe", b"bytes")
    assert (store.root / "pipe").is_fifo()


def test_an_unwritable_folder_is_a_users_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    store = FolderStore(tmp_path / "file" / "results")
    with pytest.raises(UserError, match="cannot write"):
        store.put("row.json", b"{}")


def test_a_claim_in_an_unwritable_folder_is_a_users_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    store = FolderStore(tmp_path / "file" / "results")
    with pytest.raises(UserError, match="cannot write"), store.claim("job"):
        pass


def test_json_round_trip_is_strict(store):
    value = {"a": [1, 2.5, None, "ü"], "b": {}}
    store.put_json("row.json", value)
    assert store.get_json("row.json") == value
    assert json.loads((store.root / "row.json").read_text(encoding="utf-8")) == value
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            store.put_json("bad.json", {"a": bad})
    assert list(store.keys()) == ["row.json"]


@pytest.mark.parametrize("data", [b"", b'{"a": 1', b"\xff\xfe", b"nonsense", b"[" * 99_999])
def test_damaged_json_is_a_corrupt_file_named_in_the_message(store, data):
    store.put("row.json", data)
    with pytest.raises(CorruptFile, match=r"row\.json"):
        store.get_json("row.json")


def test_the_users_folder_is_where_the_variable_says_or_in_the_cache(monkeypatch):
    monkeypatch.setenv("HOME", "/users/ada")
    found = []
    for value in ("/data/tda", "~/tda", "", None):
        monkeypatch.delenv("TDABENCH_HOME") if value is None else monkeypatch.setenv("TDABENCH_HOME", value)
        found.append(str(home()))
    assert found == ["/data/tda", "/users/ada/tda"] + ["/users/ada/.cache/tdabench"] * 2


def test_what_is_no_plain_file_or_cannot_be_read_is_named(tmp_path, monkeypatch):
    with pytest.raises(CorruptFile, match="is no plain file"):
        read_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nowhere")
    (tmp_path / "locked").write_bytes(b"")
    monkeypatch.setattr(Path, "read_bytes", lambda path: refuse(13, "Permission denied"))
    with pytest.raises(UserError, match=r"cannot read .*locked: Permission denied"):
        read_file(tmp_path / "locked")


def refuse(number: int, text: str) -> bytes:
    raise OSError(number, text)


# claims


def test_the_second_claimant_gets_false_until_the_first_is_done(store):
    with store.claim("job") as first:
        with store.claim("job") as second, store.claim("other") as other:
            assert (first, second, other) == (True, False, True)
        with store.claim("job") as third:
            assert not third  # a loser's leaving does not free the claim
    with store.claim("job") as again:
        assert again


def test_a_claim_is_freed_by_an_exception(store):
    with pytest.raises(RuntimeError, match="boom"), store.claim("job"):
        raise RuntimeError("boom")
    with store.claim("job") as again:
        assert again


def test_claims_are_not_stored_values(store):
    with store.claim("rows/job"):
        assert list(store.keys()) == []


def test_a_claim_lapses_with_its_process(store):
    dead = child(store.root, "os._exit(9)")
    assert dead.communicate(timeout=60)[0].strip() == "True"
    with store.claim("job") as held:
        assert held


def test_a_live_process_keeps_its_claim_however_old(store):
    live = child(store.root, "time.sleep(60)")
    try:
        assert live.stdout.readline().strip() == "True"
        with store.claim("job", ttl=-1) as held:
            assert not held
    finally:
        live.kill()
        live.communicate(timeout=60)
    with store.claim("job") as held:
        assert held


def test_a_claim_from_another_host_lapses_with_time_only(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        patch.setattr(claims, "_line", lambda path: "another")
        held_elsewhere = store.claim("job")
        assert held_elsewhere.__enter__()
    with store.claim("job", ttl=600) as held:
        assert not held
    with store.claim("job", ttl=-1) as held:
        assert held


def test_an_owner_whose_claim_was_taken_over_does_not_free_the_new_one(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        patch.setattr(claims, "_line", lambda path: "another")
        slow = store.claim("job")
        assert slow.__enter__()
    with store.claim("job", ttl=-1) as taken:
        assert taken
        slow.__exit__(None, None, None)
        with store.claim("job", ttl=600) as third:
            assert not third


def test_of_many_that_find_a_lapsed_claim_one_gets_it(store, slow_look):
    dead = child(store.root, "os._exit(9)")
    dead.communicate(timeout=60)
    [path] = written(store)
    lapsed = path.read_bytes()

    def rush(start: threading.Barrier, end: threading.Barrier, won: list) -> None:
        try:
            start.wait(timeout=30)
            with store.claim("job") as held:
                won.append(held)
                end.wait(timeout=30)
        except Exception as error:
            won.append(error)
            end.abort()

    for _ in range(40):
        path.write_bytes(lapsed)
        won: list[bool | Exception] = []
        barriers = threading.Barrier(8), threading.Barrier(8)
        threads = [threading.Thread(target=rush, args=(*barriers, won)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won, key=str) == [False] * 7 + [True]


def test_a_claim_left_half_written_is_nobodys(store):
    with store.claim("job"):
        [path] = written(store)
    for half in (b"", b"{"):
        path.write_bytes(half)
        with store.claim("job") as held:
            assert held


@pytest.fixture
def edited(store):
    """Return a function that changes the claim on "job", which this process holds, and returns who holds it then."""

    def edit(change: dict[str, Any]) -> str | None:
        path.write_text(json.dumps({name: value for name, value in (owner | change).items() if value is not GONE}))
        return store.holder("job")

    with store.claim("job"):
        [path] = written(store)
        owner = json.loads(path.read_bytes())
        yield edit


GONE = object()
NEVER = {"ticks": -1, "started": 1.0}  # when no live process started


@pytest.mark.parametrize("change", [NEVER, {"pid": 0}, {"pid": -5}, {"pid": 2**22 + 1}])
def test_a_claim_of_a_process_that_is_another_by_now_lapses(change, edited, store):
    assert edited(change) is None
    with store.claim("job") as held:
        assert held


def test_a_step_of_the_clock_frees_no_claim_of_a_live_process(store, monkeypatch):
    started, now = psutil.Process.create_time, time.time
    with store.claim("job"):
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: started(process) + 5)
        monkeypatch.setattr(time, "time", lambda: now() + 30 * 86400)
        with store.claim("job") as held:
            assert not held


@linux
@pytest.mark.parametrize("other", [{"boot": "b"}, {"machine": "m", "boot": "b"}])
def test_what_another_machine_under_this_name_claims_lapses_with_time_only(other, edited, store):
    assert edited({**other, **NEVER})
    assert edited({"time": time.time() - 6 * 86400, "pids": "pid:[1]", **other, **NEVER})
    with store.claim("job", ttl=600) as held:
        assert held, "after its time"


@linux
@pytest.mark.parametrize("other", [{"pids": "pid:[1]"}, {"pids": "pid:[1]", "host": "another", "machine": None}])
def test_what_another_container_claims_holds_until_its_process_ends(other, store):
    owner = child(store.root, "time.sleep(600)")
    assert owner.stdout.readline() == "True\n"
    [path] = written(store)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | other | NEVER | {"time": time.time() - 30 * 86400}))
    assert store.holder("job")
    with store.claim("job") as held:
        assert not held
    owner.kill()
    owner.communicate(timeout=60)
    assert store.holder("job") is None
    with store.claim("job") as held:
        assert held


@linux
def test_what_an_earlier_boot_of_this_machine_claimed_is_free(edited, monkeypatch):
    monkeypatch.setattr(claims, "_line", lambda path: path)  # also where no machine has a name
    past, here = time.time() - 6 * 86400, {"machine": "/etc/machine-id", "boot": "b"}
    monkeypatch.setattr(claims, "_booted", lambda: past + 1)
    assert edited({**here, "time": past}) is None
    assert edited({**here, "time": past + 2}) is not None, "another machine, which cannot be seen"
    assert edited({**here, "machine": "m", "time": past}) is not None


def test_a_claim_of_a_former_version_is_of_this_host(edited):
    former = dict.fromkeys(("machine", "boot", "pids", "ticks"), GONE)
    assert edited({**former, "started": psutil.Process().create_time()})
    for another in (1.0, psutil.Process().create_time() - 60, psutil.Process().create_time() + 60):
        assert edited({**former, "started": another}) is None
    assert edited({**former, "host": "elsewhere", "started": 1.0})


def test_a_process_that_ended_holds_nothing_before_its_parent_looks(edited):
    process = subprocess.Popen(["sleep", "60"])
    owner = {"pid": process.pid, **claims._start(process.pid)}
    former = {"ticks": GONE, "started": psutil.Process(process.pid).create_time()}
    assert edited(owner) and edited(owner | former)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert edited(owner) is None and edited(owner | former) is None
    finally:
        process.wait()


@pytest.mark.parametrize("when", [1e300, float("nan"), float("inf")])
def test_no_claim_holds_until_the_end_of_time(when, edited):
    assert edited({"host": "elsewhere", "boot": "b", "time": when}) is None


MALFORMED = [
    "[]",
    "7",
    "null",
    '"x"',
    "{}",
    '{"host": "h"}',
    '{"host": 1, "pid": "x", "time": 0}',
    '{"pid": null}',
    "[" * 9999,
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_claim_that_is_none_is_nobodys(text, store):
    with store.claim("job"):
        [path] = written(store)
    path.write_text(text)
    with store.claim("job") as held:
        assert held


@pytest.fixture
def unhurried():
    """Return a function that calls another, and fails where that waits for a pipe's other end."""
    pipes = []

    def call(path, action):
        found = []
        thread = threading.Thread(target=lambda: found.append(refusal(action)), daemon=True)
        thread.start()
        pipes.append(path)
        thread.join(10)
        assert not thread.is_alive(), f"{path} is waited for"
        return found[0]

    yield call
    for path in pipes:
        with suppress(OSError):  # whoever waits goes on
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def refusal(action):
    try:
        action()
    except UserError as error:
        return str(error)
    return None


def claim_once(store):
    with store.claim("job"):
        pass


def alone_once(store):
    with store.alone("job"):
        pass


PLACES = {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda path: os.symlink("/dev/null", path)}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("name", "action"),
    [
        (".job.claim", claim_once),
        (".job.claim", lambda store: store.holder("job")),
        (".job.lock", claim_once),
        (".job.lock", alone_once),
    ],
)
def test_what_is_no_plain_file_is_refused_in_place_of_a_claim_and_its_lock(name, action, place, store, unhurried):
    path = store.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    PLACES[place](path)
    assert unhurried(path, lambda: action(store)) == f"{path} is no plain file: move it elsewhere"


def test_a_pipe_that_took_a_claims_place_is_left_to_itself(store, unhurried):
    path = store.root / ".job.claim"

    def replaced():
        with store.claim("job") as held:
            assert held
            path.unlink()
            os.mkfifo(path)

    assert unhurried(path, replaced) is None and path.is_fifo()


def test_who_holds_a_claim_is_named_while_it_counts(store, monkeypatch):
    assert store.holder("job") is None
    with store.claim("job"):
        [path] = written(store)
        assert store.holder("job").startswith(f"process {os.getpid()} on {socket.gethostname()}, since 2")
        owner = json.loads(path.read_bytes())
        path.write_text(json.dumps(owner | NEVER))
        assert store.holder("job") is None, "its process is another by now"
        for days, counts in ((6, True), (8, False)):
            path.write_text(json.dumps(owner | {"host": "elsewhere", "boot": "b", "time": time.time() - days * 86400}))
            assert (store.holder("job") is not None) is counts
        path.write_text(json.dumps(owner | {"time": 1e300}))
        assert store.holder("job") == "another process"
    for text in ("{", "[" * 99_999, '{"pid": 1}'):
        path.write_text(text)
        assert store.holder("job") is None


# what can be made again


def test_what_is_kept_comes_back_and_counts_only_with_its_hash(store):
    store.keep("a/b", b"bytes")
    assert store.kept("a/b") == store.get("a/b") == b"bytes" and list(store.keys()) == ["a/b", "a/b.sha256"]
    assert store.kept("a/c") is None
    store.delete("a/b.sha256")
    assert store.kept("a/b") is None and store.exists("a/b")


@pytest.mark.parametrize("former", [None, b"former"])
@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_kill_while_something_is_kept_leaves_what_has_its_hash(done, former, store, monkeypatch):
    if former is not None:
        store.keep("a/b", former)
    puts = iter([store.put] * done)
    monkeypatch.setattr(store, "put", lambda *given: next(puts)(*given))
    with suppress(StopIteration):
        store.keep("a/b", b"bytes")
    expected = b"bytes" if done > 1 else former
    assert store.kept("a/b") == expected
    assert expected is None or store.get("a/b", sealed=True) == expected


def test_what_another_process_keeps_anew_between_two_reads_is_not_called_damaged(store, monkeypatch):
    store.keep("a/b", b"bytes")
    is_sealed = store.is_sealed

    def later(key, sha):
        monkeypatch.setattr(store, "is_sealed", is_sealed)
        store.keep(key, b"other")
        return is_sealed(key, sha)

    monkeypatch.setattr(store, "is_sealed", later)
    assert store.get("a/b") == b"other"


def test_what_earlier_versions_kept_is_known_by_the_hash_of_its_bytes(store):
    store.put("a/b", b"bytes")
    store.put("a/b.sha256", f"{sha256(b'bytes')}\n".encode())
    assert store.kept("a/b") == store.get("a/b", sealed=True) == b"bytes"
    store.put("a/b", b"bytez")
    assert store.kept("a/b") is None


@pytest.mark.parametrize("other", ["a/c", "c/b"])
def test_two_whole_files_that_change_places_are_damaged(other, store, tmp_path, capsys):
    for key, data in (("a/b", b"bytes"), (other, b"others")):
        store.keep(key, data)
    for ending in ("", ".sha256"):
        one, two = store.path("a/b" + ending), store.path(other + ending)
        one.rename(tmp_path / "aside")
        two.rename(one)
        (tmp_path / "aside").rename(two)
    with pytest.raises(CorruptFile, match="its hash differs"):
        store.get("a/b")
    assert store.kept("a/b") is None and store.kept(other) is None
    assert capsys.readouterr().err.count("set aside") == 2


def test_a_hash_that_must_be_there_is_missed(store):
    store.put("a/b", b"bytes")
    assert store.get("a/b") == b"bytes"
    with pytest.raises(CorruptFile, match="b has no hash beside it"):
        store.get("a/b", sealed=True)


@pytest.mark.parametrize("spoilt", [b"", b"byte", b"bytes\0", b"bytez"])
@pytest.mark.parametrize("key", ["a/b", "a/b.sha256"])
def test_what_was_damaged_is_named_set_aside_and_kept_anew(key, spoilt, store, capsys):
    store.keep("a/b", b"bytes")
    store.path(key).write_bytes(spoilt)
    assert store.kept("a/b") is None and not store.exists("a/b")
    assert f"{store.path('a/b')} is damaged: set aside as b.damaged" in capsys.readouterr().err
    assert store.exists("a/b.damaged")
    store.keep("a/b", b"bytes")
    assert store.kept("a/b") == b"bytes"


def test_a_hash_that_is_no_text_is_another_hash(tmp_path, capsys):
    store = FolderStore(tmp_path)
    store.keep("a/b", b"bytes")
    assert store.is_sealed("a/b", sha256(b"bytes")) and store.is_sealed("a/c", sha256(b"bytes")) is None
    for other in (b"\xff" * 64, b"0" * 64, b"f" * 64, b""):  # on either side of any hash
        (tmp_path / "a" / "b.sha256").write_bytes(other)
        with pytest.raises(CorruptFile, match="its hash differs"):
            store.get("a/b")
    assert store.kept("a/b") is None and "set aside" in capsys.readouterr().err


def test_a_folder_goes_however_deep_it_is_and_nothing_that_it_links_to(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "gone").mkdir()
    top = here = os.open(tmp_path / "gone", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        os.symlink(tmp_path / "kept", "link", dir_fd=here)
        before, here = here, os.open("d", os.O_RDONLY, dir_fd=here)
        if before != top:
            os.close(before)
    os.close(here)
    os.close(top)
    assert used(tmp_path / "gone") > 0
    remove_tree(tmp_path / "gone")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_files_below_a_folder_are_all_found_and_no_link_to_a_folder_is_followed(tmp_path):
    for name in ("b/c/x", "a", ".hidden/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    os.symlink(tmp_path / "b", tmp_path / "folder")
    os.symlink(tmp_path / "a", tmp_path / "file")
    os.symlink("loop", tmp_path / "loop")
    found = sorted(path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path))
    assert found == [".hidden/y", "a", "b/c/x", "file"]
    assert not list(files_below(tmp_path / "a")) and not list(files_below(tmp_path / "none"))


def test_a_home_of_nobody_is_named(monkeypatch):
    monkeypatch.setenv("TDABENCH_HOME", "~nobody-has-this-name/x")
    with pytest.raises(UserError, match="set TDABENCH_HOME to one"):
        home()


def folder_of(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "a").write_text(text)
    return path


@pytest.mark.parametrize("at", range(4))
def test_a_kill_while_a_folder_is_replaced_loses_neither(tmp_path, at):
    old, new = folder_of(tmp_path / "x", "old"), folder_of(tmp_path / "new", "new")
    folder_of(tmp_path / ".x.former", "of a kill before")
    steps = iter(range(4))  # what is aside goes, the old one goes aside, the new one takes its place, the old one goes

    def step(do):
        return lambda *words, **named: os._exit(7) if next(steps) == at else do(*words, **named)

    if (pid := os.fork()) == 0:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "replace", step(Path.replace))
            patch.setattr("tdabench.store.remove_tree", step(remove_tree))
            take_place(new, old)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert (recovered(old) / "a").read_text() == ("new" if at == 3 else "old")
    take_place(folder_of(tmp_path / "next", "next"), old)
    assert (old / "a").read_text() == "next" and not (tmp_path / ".x.former").exists()


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    old, new = folder_of(tmp_path / "x", "old"), folder_of(tmp_path / "new", "new")
    rename = Path.replace

    def broken(path, target):
        if path == new:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(UserError, match=r"cannot write .*x: No space left on device"):
        take_place(new, old)
    assert (old / "a").read_text() == "old" and {path.name for path in tmp_path.iterdir()} == {"x", "new"}
