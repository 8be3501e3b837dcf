"""A hash of text that never changes."""

import hashlib


def stable_hash(text: str) -> int:
    """Return a hash of 64 bits that is the same in every process and version of Python.

    >>> stable_hash("राम") == stable_hash("राम") != stable_hash("श्याम")
    True
    """
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
