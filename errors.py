"""What a user can get wrong, as exceptions whose message is the one line the command prints."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Container, Iterable


class UserError(Exception):
    """A mistake in the input: the message says what is wrong, where, and what to do; the command exits with 2."""


class Stop(BaseException):
    """Asks this process to end: what guards against code of others lets it pass."""


class CorruptFile(UserError):
    """A stored file that does not hold what its manifest or schema promises."""


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that is not in ``known``, with the nearest names as a suggestion."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(known) or 'none'}"
    return UserError(f"unknown {what} {shown(name)}: {hint}")


def one_line(text: str) -> str:
    """Return a text of others with all that is not printable as ``?``."""
    return "".join(c if c.isprintable() else "?" for c in text)


def brief(text: str) -> str:
    """Return a text of others, such as an exception's, as one line of at most 200 characters, all printable."""
    line = one_line(" ".join(text.split()))
    return line if len(line) < 200 else line[:200] + "…"


def shown(value: object) -> str:
    """Return a value of others, such as one from JSON, as one line, brief and printable."""
    try:
        return brief(repr(value))
    except RecursionError:
        return "a value that is nested too deeply"


def printable(text: str) -> str:
    """Return a text of others without what a terminal obeys, or no file can hold: control characters, surrogates."""
    return "".join("\n" if c == "\r" else c if is_printable(c) else "\ufffd" for c in text)


def is_printable(character: str, hidden: Container[str] = ("Cc", "Cs")) -> bool:
    """Say whether a character is one to be shown: line ends, tabs, and all but those of ``hidden`` categories."""
    return character in "\n\t" or unicodedata.category(character) not in hidden
