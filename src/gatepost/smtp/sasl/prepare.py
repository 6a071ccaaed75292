"""SASLprep (RFC 4013): the one form in which names and passwords are compared, whatever keyboard typed them.

Pure. Names are lower-cased besides, because they are mail addresses to the people who type them; passwords are not.
"""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class NotPreparable(ValueError):
    """The text holds what no name or password may hold."""


def saslprep(text: str) -> str:
    """The prepared form; raises NotPreparable. Code points that Unicode 3.2 does not know are left as they are."""
    if text.isascii():
        if not text.isprintable():
            raise NotPreparable("it holds a control character")
        return text
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = unicodedata.normalize("NFKC", mapped)
    for character in prepared:
        if any(is_prohibited(character) for is_prohibited in _PROHIBITED):
            raise NotPreparable("it holds a character that is not allowed")
    if any(map(stringprep.in_table_d1, prepared)):  # RFC 3454 6
        first_and_last_right = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if any(map(stringprep.in_table_d2, prepared)) or not first_and_last_right:
            raise NotPreparable("it mixes writing directions")
    return prepared


def prepare_name(text: str) -> str:
    """The form of a user name in which it is looked up; raises NotPreparable."""
    name = saslprep(text).lower()
    if not name or " " in name:
        raise NotPreparable("it is empty or holds a space")
    return name
