"""Which version a key belongs to.

Weighted rendezvous hashing (Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6(1), 1998; Schindelhauer and
Schomaker, SPAA 2005): every version draws a waiting time of its own for a key, the longer the smaller its share, and
the shortest wins. When one share grows at the main version's cost, no key leaves it.
"""

import hashlib
import math
from collections.abc import Sequence

_MAIN = ""


def place(salt: str, key: str, shares: Sequence[tuple[str, int]]) -> int | None:
    """The position in `shares` that a key belongs to, or None for the main version, which has what is left of 100.

    Args:
        salt: what makes the same keys fall differently elsewhere.
        key: the same one always gets the same answer.
        shares: identity and per cent of every version beside the main one.
    """
    main = 100 - sum(percent for _, percent in shares)
    best, shortest = None, _waiting(salt, _MAIN, key, main)
    for position, (identity, percent) in enumerate(shares):
        waiting = _waiting(salt, identity, key, percent)
        if waiting < shortest:
            best, shortest = position, waiting
    return best


def _waiting(salt: str, identity: str, key: str, weight: int) -> float:
    digest = hashlib.blake2b(f"{salt}\0{identity}\0{key}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest) + 1) / (2**64 + 1)
    return -math.log(uniform) / weight
