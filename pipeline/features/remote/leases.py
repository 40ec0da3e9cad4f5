"""Leases in a store: files that exactly one process can make, by the protocol of `xelvad.leases`."""

from __future__ import annotations

from hashlib import sha256

from ....leases import SUFFIX
from .storage import Storage

BEAT = ".beat"


class RemoteLease:
    """A lease on a video's features, beside them.

    A lease is written once. What is touched is a file of its own, which bears the token: the lease, written again,
    would replace that of another process, which had taken it over meanwhile.

    Args:
        storage: of the features folder.
        name: of the lease.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name

    @classmethod
    def on(cls, storage: Storage, name: str) -> RemoteLease:
        """The lease on a file."""
        folder, slash, last = name.rpartition("/")
        return cls(storage, f"{folder}{slash}.{last}{SUFFIX}")

    def create(self, text: bytes) -> bool:
        """As `LeaseFile.create`."""
        return self._storage.create(self._name, text)

    def read(self) -> tuple[bytes, str] | None:
        """As `LeaseFile.read`."""
        for _, text in self._storage.read([self._name]):
            return text, sha256(text).hexdigest()[:16]
        return None

    def age(self, token: str) -> float:
        """As `LeaseFile.age`."""
        files = [self._storage.look(self._name), self._storage.look(self._beat(token))]
        touched = max((found.modified for found in files if found is not None), default=0.0)
        return self._storage.now(self._name.rpartition("/")[0]) - touched if touched else 0.0

    def touch(self, token: str) -> None:
        """As `LeaseFile.touch`."""
        self._storage.write(self._beat(token), b"at work")

    def remove(self, token: str) -> None:
        """As `LeaseFile.remove`."""
        self._storage.remove(self._name)
        self._storage.remove(self._beat(token))

    def sibling(self, name: str) -> RemoteLease:
        """As `LeaseFile.sibling`."""
        folder, slash, _ = self._name.rpartition("/")
        return RemoteLease(self._storage, f"{folder}{slash}{name}")

    def _beat(self, token: str) -> str:
        folder, slash, _ = self._name.rpartition("/")
        return f"{folder}{slash}.{token}{BEAT}"
