"""Messages of a process that is not trusted: whole or not at all, and nobody waits for the rest of one."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from multiprocessing import Pipe

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdabench.benchmark.sandbox.frames import LENGTH, PIECE, Inbox, receive


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
