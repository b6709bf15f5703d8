"""Messages of a process that is not trusted: whole or not at all, and nobody waits for the rest of one."""

from __future__ import annotations

import os
import struct
import threading
import time
from contextlib import suppress
from multiprocessing import Pipe

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdabench.benchmark.sandbox.frames import LENGTH, PIECE, Inbox, receive, send


@pytest.fixture
def ends():
    there, here = Pipe(duplex=False)
    yield there, here
    for end in (there, here):
        end.close()


def test_messages_come_as_they_were_sent(ends):
    there, here = ends
    inbox, sent = Inbox(there), [b"", b"one", b"x" * 5000]
    for message in sent:
        here.send_bytes(message)
    assert inbox.take() == sent and inbox.take() == [] and not there.closed


def test_half_a_message_waits_for_its_rest_and_nobody_for_it(ends):
    there, here = ends
    inbox, whole = Inbox(there), LENGTH.pack(4) + b"abcd" + LENGTH.pack(2)
    for i in range(len(whole)):
        os.write(here.fileno(), whole[i : i + 1])
        assert inbox.take() == ([b"abcd"] if i == 7 else [])
    os.write(here.fileno(), LENGTH.pack(3) + b"a")
    with pytest.raises(TimeoutError):
        receive(there, within=0.05)


def test_a_message_is_waited_for_and_received_as_it_was_sent(ends):
    there, here = ends
    later = threading.Timer(0.2, lambda: [here.send_bytes(message) for message in (b"one", b"", b"four")])
    later.start()
    assert [receive(there, within=30, longest=4) for _ in range(3)] == [b"one", b"", b"four"]
    later.join()


def test_after_the_deadline_nothing_is_waited_for(ends):
    there, here = ends
    later = threading.Timer(5, lambda: here.send_bytes(b"late"))
    later.start()
    with pytest.raises(TimeoutError):
        receive(there, within=-0.5)
    later.cancel()
    later.join()


def test_of_a_message_in_two_pieces_no_more_is_taken_than_its_rest(ends):
    there, here = ends
    os.write(here.fileno(), LENGTH.pack(4) + b"ab")
    later = threading.Timer(0.2, lambda: os.write(here.fileno(), b"cd" + LENGTH.pack(1) + b"x"))
    later.start()
    assert [receive(there, within=30) for _ in range(2)] == [b"abcd", b"x"]
    later.join()


def test_a_connection_that_breaks_is_closed():
    there, here = Pipe()
    inbox = Inbox(there)
    there.send_bytes(b"never read")
    here.close()
    assert inbox.take() == [] and there.closed


def test_who_sends_byte_by_byte_is_heard_until_the_deadline_only(ends):
    there, here = ends
    os.write(here.fileno(), LENGTH.pack(100))
    done = threading.Event()
    trickle = threading.Thread(
        target=lambda: [os.write(here.fileno(), b"x") for _ in range(100) if not done.wait(0.02)]
    )
    trickle.start()
    with pytest.raises(TimeoutError):
        receive(there, within=0.1)
    done.set()
    trickle.join()


@pytest.mark.parametrize("length", [5, 2**31 - 1, -1])
def test_a_message_that_is_too_long_is_not_received(ends, length):
    there, here = ends
    os.write(here.fileno(), struct.pack("!i", length) + b"x" * 5)
    with pytest.raises(ValueError, match="more than 4 bytes"):
        receive(there, within=30, longest=4)


@pytest.mark.parametrize("begun", [b"", LENGTH.pack(4), LENGTH.pack(4) + b"abc"])
def test_an_end_before_the_whole_message_is_said(ends, begun):
    there, here = ends
    os.write(here.fileno(), begun)
    here.close()
    with pytest.raises(EOFError):
        receive(there, within=30)


def test_more_than_a_pipe_holds_is_sent_to_who_takes_it_in_time_and_to_nobody_else(ends):
    there, here = ends
    message, found = os.urandom(300_000), []
    reader = threading.Thread(target=lambda: time.sleep(0.2) or found.append(there.recv_bytes()))
    reader.start()
    send(here, message, within=30)
    reader.join()
    assert found == [message]
    with pytest.raises(TimeoutError):
        send(here, message, within=0.05)


@pytest.mark.parametrize("length", [5, 2**31 - 1, -1])
def test_after_a_message_that_is_too_long_nothing_is_heard(ends, length):
    there, here = ends
    inbox = Inbox(there, longest=4)
    os.write(here.fileno(), LENGTH.pack(1) + b"a" + struct.pack("!i", length) + b"x" * 5 + LENGTH.pack(1) + b"b")
    assert inbox.take() == [b"a"] and there.closed


def test_who_never_stops_talking_keeps_nobody(ends):
    there, here = ends
    os.set_blocking(here.fileno(), False)
    inbox, message = Inbox(there), LENGTH.pack(1000) + b"x" * 1000
    with suppress(BlockingIOError):
        while True:
            os.write(here.fileno(), message)
    assert 0 < len(inbox.take()) <= PIECE // len(message) + 1


def test_the_end_closes_it(ends):
    there, here = ends
    inbox = Inbox(there)
    here.send_bytes(b"last")
    here.close()
    assert inbox.take() == [b"last"] and inbox.take() == [] and there.closed


@given(st.binary(max_size=60), st.integers(1, 60))
def test_any_bytes_in_any_pieces_are_messages_or_an_end(data, size):
    there, here = Pipe(duplex=False)
    with there, here:
        inbox, found = Inbox(there, longest=20), []
        for start in range(0, len(data), size):
            if not there.closed:
                os.write(here.fileno(), data[start : start + size])
                found += inbox.take()
        assert all(len(message) <= 20 for message in found)
        assert data.startswith(b"".join(LENGTH.pack(len(message)) + message for message in found)), (
            f"in pieces of {size}"
        )
