"""Who may read: access codes, of which only salted hashes are kept, and how often a wrong one may be tried."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # without 0 and O, 1, I and L
GROUPS, GROUP = 3, 4  # 59 bits
COST = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}  # 16 MB and about 50 ms
NOBODY = {"salt": "00" * 16, "hash": "00" * 32}
FAILURES, WINDOW_S = 5, 60.0  # wrong codes that one address may send
FAILURES_OF_ALL = 50


def new_code(reader: str) -> str:
    """An access code, such as "R1-7KQ2-M9XA-PD4T"."""
    groups = ["".join(secrets.choice(ALPHABET) for _ in range(GROUP)) for _ in range(GROUPS)]
    return "-".join([reader, *groups])


def hashed(code: str) -> dict[str, str]:
    """What is kept of a code: a random salt and its scrypt hash, in hex."""
    salt = secrets.token_bytes(16)
    return {"salt": salt.hex(), "hash": _scrypt(code, salt).hex()}


def reader_of(code: str, kept: Mapping[str, Mapping[str, str]]) -> str | None:
    """Whose code it is, None where nobody's; takes as long for a reader there is as for one there is not."""
    code = code.strip().upper()
    reader = code.partition("-")[0]
    known = kept.get(reader, NOBODY)
    right = hmac.compare_digest(_scrypt(code, bytes.fromhex(known["salt"])), bytes.fromhex(known["hash"]))
    return reader if right and reader in kept else None


def _scrypt(code: str, salt: bytes) -> bytes:
    return hashlib.scrypt(code.encode(), salt=salt, **COST)


class Limiter:
    """How many wrong codes came lately, from each address and from all; may be asked from any thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.failures: dict[str, deque[float]] = {}

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again, 0 where it may now."""
        now = time.monotonic()
        with self.lock:
            self._forget(now)
            own = self.failures.get(address, deque())
            everybody = sorted(moment for moments in self.failures.values() for moment in moments)
        waits = [own[-FAILURES] if len(own) >= FAILURES else None]
        waits += [everybody[-FAILURES_OF_ALL] if len(everybody) >= FAILURES_OF_ALL else None]
        return max((moment + WINDOW_S - now for moment in waits if moment is not None), default=0.0)

    def failed(self, address: str) -> None:
        """Note a wrong code."""
        with self.lock:
            self.failures.setdefault(address, deque()).append(time.monotonic())

    def _forget(self, now: float) -> None:
        for address, moments in list(self.failures.items()):
            while moments and now - moments[0] > WINDOW_S:
                moments.popleft()
            if not moments:
                del self.failures[address]
