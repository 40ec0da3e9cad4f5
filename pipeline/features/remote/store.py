"""The feature files of a URL: made here and then put there, or copied here before they are read.

The contract of `FeatureStore` is kept where they lie: the array is put in place first and the sidecar last, each as a
whole. A feature file counts if and only if its sidecar is there and its size is what the sidecar says. What is there is
known from one listing, and single videos are looked at again while they are leased.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import UserError
from ....files import DAY
from ....leases import SUFFIX as LEASE
from ....leases import LeaseFile, remove_if_stale
from ...videos.clips import Clipping, Segments
from ...videos.sources import VideoSource
from ..sidecar import Sidecar, check_fingerprint
from ..store import Features, FeatureStore, FeatureWriter
from . import index, journal
from .address import FeaturesFolder, RemoteFolder
from .cache import cache_of
from .leases import BEAT, RemoteLease
from .storage import Found, storage_of

DOWNLOADS = 16  # at once
LIST_SECONDS = 60.0  # between two listings
HEADER = 64  # bytes: an array's file has one or two times as many before its numbers


def open_store(where: FeaturesFolder, extractor: str) -> FeatureStore:
    """The feature files of one extractor, wherever they lie.

    Args:
        where: the features folder.
        extractor: whose.

    Raises:
        UserError: a URL that cannot be reached, or whose package is not installed.
    """
    return RemoteStore(where, extractor) if isinstance(where, RemoteFolder) else FeatureStore(where, extractor)


@dataclass(frozen=True)
class RemoteFeatures(Features):
    """Features that are copied here when they are looked at, and again where the copy had to go.

    Attributes:
        bring: has the copy be there.
        url: of the file.
    """

    bring: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)
    url: str = ""

    def _mapped(self) -> np.memmap[Any, Any]:
        self.bring()
        return super()._mapped()

    def read(
        self, rows: slice | NDArray[np.int64], crop: int | None = None, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """As `Features.read`."""
        with said_of(str(self.path), self.url):
            return super().read(rows, crop, out)


@contextmanager
def said_of(copy: str, url: str) -> Iterator[None]:
    """What is said of a copy is meant for the file that it is of."""
    try:
        yield
    except UserError as error:
        if copy not in str(error):
            raise
        raise UserError(str(error).replace(copy, url)) from error


class RemoteStore(FeatureStore):
    """The feature files of one extractor at a URL; paths are those of their copies.

    Args:
        remote: the features folder.
        extractor: whose.

    Raises:
        UserError: the URL cannot be reached, or its package is not installed.
    """

    uploads = 4
    poll_seconds = 10.0  # each look is a request for every video that is waited for

    def __init__(self, remote: RemoteFolder, extractor: str) -> None:
        self.remote, self._storage, self._cache = remote, storage_of(remote), cache_of(remote)
        super().__init__(self._cache.folder_of(remote), extractor)
        self._sidecars = index.SidecarIndex(self._storage, extractor)
        self._set_aside = journal.RemoteJournal(self._storage, extractor)
        self._listed: dict[str, Found] | None = None
        self._listing = threading.Lock()  # over listing anew
        self._listed_at = 0.0
        self._to_make: list[str] = []

    # --- what is there -----------------------------------------------------------------------------------------------

    @property
    def _there(self) -> dict[str, Found]:
        """All files of this extractor, by name, as they were listed last."""
        return self._list() if self._listed is None else self._listed

    def _list(self) -> dict[str, Found]:
        self._listed_at = time.monotonic()
        self._listed = listed = dict(self._storage.files(self.extractor))
        self._sidecars.notice(listed)
        self._set_aside.notice(listed)
        return listed

    def _array(self, name: str) -> str:
        return self._key(self.array_path(name))

    def _sidecar(self, name: str) -> str:
        return self._key(self.sidecar_path(name))

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _is_filed(self, name: str) -> bool:
        return self._sidecar(name) in self._there

    def _filed(self) -> Iterable[str]:
        start, end = len(self.extractor) + 1, len(".json")
        return (key[start:-end] for key in self._there if key.endswith(".json"))

    def _by_its_url(self) -> AbstractContextManager[None]:
        return said_of(str(self.root), self.remote.url)

    def find(self, name: str) -> str:
        """As `FeatureStore.find`."""
        with self._by_its_url():
            return super().find(name)

    # --- copies ------------------------------------------------------------------------------------------------------

    def _bring_sidecars(self, names: Iterable[str]) -> None:
        """Have the sidecars of these videos here, as far as there are any."""
        keys = [self._sidecar(name) for name in names]
        wanted = {key: found for key in keys if (found := self._there.get(key)) is not None}
        wanted = {key: found for key, found in wanted.items() if not self._cache.has(self.root / key, found)}
        if len(wanted) > 1:
            for key, text in self._sidecars.find(wanted):
                self._keep_text(key, wanted.pop(key), text)
        for key, text in self._storage.read(list(wanted)):
            if len(text) == wanted[key].size:  # else it was replaced since: `sidecar` says so
                self._keep_text(key, wanted[key], text)
                self._sidecars.add(key, wanted[key], text)

    def _keep_text(self, key: str, found: Found, text: bytes) -> None:
        self._cache.keep(self.root / key, found, lambda path: path.write_bytes(text))

    def _bring(self, key: str) -> None:
        """Have a file here as it was listed.

        Raises:
            UserError: it is not there any more, or another is.
        """
        path, found = self.root / key, self._there.get(key)
        if found is not None and self._cache.has(path, found):
            return
        try:
            if found is None:
                raise FileNotFoundError(key)
            self._cache.keep(path, found, partial(self._storage.fetch, key))
            now = self._storage.look(key)
        except FileNotFoundError:
            now = None
        except OSError as error:
            if isinstance(error, UserError) or error.filename:  # of the store, or of the disk here
                raise
            now = None
        if found is None or now is None or now.stamp != found.stamp:
            path.unlink(missing_ok=True)
            raise UserError(f"{self.remote.url}/{key}: was changed or removed while it was being read; start again")

    def _bring_all(self, keys: Sequence[str]) -> None:
        lacking = [key for key in keys if not self._cache.has(self.root / key, self._there[key])]
        with ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="xelvad-download") as threads:
            try:
                for _ in threads.map(self._bring, lacking):
                    pass
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise

    # --- reading -----------------------------------------------------------------------------------------------------

    def sidecar(self, name: str) -> Sidecar | None:
        """As `FeatureStore.sidecar`."""
        key = self._sidecar(name)
        if key not in self._there:
            return None
        with self._by_its_url():
            self._bring(key)
            return Sidecar.read(self.root / key)

    def current(
        self, source: VideoSource, fingerprint: str, clipping: Clipping | Segments, reuse_static: float = 0.0
    ) -> Sidecar | None:
        """As `FeatureStore.current`."""
        with self._by_its_url():
            return super().current(source, fingerprint, clipping, reuse_static)

    def is_whole(self, name: str, sidecar: Sidecar) -> bool:
        """As `FeatureStore.is_whole`, by the size that was listed."""
        found = self._there.get(self._array(name))
        header = 0 if found is None else found.size - 4 * math.prod(sidecar.shape)
        return header > 0 and header % HEADER == 0

    def read(self, name: str, fingerprint: str | None = None) -> Features:
        """As `FeatureStore.read`; the array is copied when it is looked at."""
        key, sidecar = self._array(name), self.sidecar(name)
        where = f"{self.remote.url}/{key}"
        if sidecar is None:
            raise UserError(f"{self.remote.url}/{self._sidecar(name)}: there is none; extract the video again")
        with self._by_its_url():
            check_fingerprint(self.sidecar_path(name), sidecar.fingerprint, fingerprint)
        if not self.is_whole(name, sidecar):
            raise UserError(f"{where}: missing, or not as large as its sidecar says; extract the video again")
        if sidecar.shape[0] == 0:
            raise UserError(f"{where}: holds no clips; delete it and extract the video again")
        return RemoteFeatures(self.root / key, sidecar.shape, sidecar, bring=partial(self._bring, key), url=where)

    def read_all(self, names: Iterable[str]) -> Iterator[Features]:
        """As `FeatureStore.read_all`; sidecars, and arrays where all have room, are copied many at once."""
        names = list(names)
        filed = [self.find(name) for name in names]
        self._bring_sidecars(filed)
        arrays = self._arrays(filed)
        if sum(self._there[key].size for key in arrays) <= self._cache.room:
            self._bring_all(arrays)
        with self._by_its_url():
            yield from super().read_all(names)

    def gather(self, names: Sequence[str]) -> None:
        """As `FeatureStore.gather`: all are copied, and kept until the process ends."""
        arrays = self._arrays([self.find(name) for name in names])
        self._cache.pin((self.root / key, self._there[key]) for key in arrays)
        self._bring_all(arrays)

    def _arrays(self, filed: Iterable[str]) -> list[str]:
        return [key for name in filed if (key := self._array(name)) in self._there]

    # --- writing -----------------------------------------------------------------------------------------------------

    def prepare(self, names: Iterable[str]) -> None:
        """As `FeatureStore.prepare`; the sidecars of these videos are copied many at once."""
        for key, found in list(self._there.items()):
            if key.endswith(LEASE):
                remove_if_stale(RemoteLease(self._storage, key))
            elif key.endswith((BEAT, ".tmp")) and found.modified and time.time() - found.modified > DAY:
                self._storage.remove(key)
        self._to_make = list(names)
        self._bring_sidecars(self._to_make)
        self._sidecars.finish()

    @property
    def quarantine(self) -> journal.RemoteJournal:
        """As `FeatureStore.quarantine`."""
        assert self._there is not None  # by the listing the journal knows what was written so far
        return self._set_aside

    def lease_on(self, name: str) -> LeaseFile:
        """As `FeatureStore.lease_on`."""
        return RemoteLease.on(self._storage, self._array(name))

    def seems_made(self, name: str) -> bool:
        """As `FeatureStore.seems_made`, by a listing that is made anew now and then.

        A lease takes several requests: of thousands of videos that other processes do, each would cost them all.
        """
        with self._listing:
            if time.monotonic() - self._listed_at > LIST_SECONDS:
                self._list()
                self._bring_sidecars(self._to_make)
        return self._is_filed(name)

    def refresh(self, name: str) -> None:
        """As `FeatureStore.refresh`."""
        beginning = self._array(name).removesuffix("npy")
        for key, found in self._storage.look_at(beginning, ["json", "npy"]).items():
            self._note(key, found)
        self._set_aside.refresh(name)

    def _note(self, key: str, found: Found | None) -> None:
        if found is None:
            self._there.pop(key, None)
        else:
            self._there[key] = found

    @contextmanager
    def write(self, name: str, feature_dim: int, crops: int | None = None) -> Iterator[FeatureWriter]:
        """As `FeatureStore.write`: written here, then put in its place, array first and sidecar last.

        Raises:
            UserError: the store cannot be reached, or refuses.
        """
        with super().write(name, feature_dim, crops) as writer:
            yield writer
        array, sidecar = self._array(name), self._sidecar(name)
        self._storage.remove(sidecar)  # never an old sidecar beside a new array
        self._put(array)
        self._put(sidecar)

    def put_sidecar(self, name: str, sidecar: Sidecar) -> None:
        """As `FeatureStore.put_sidecar`."""
        super().put_sidecar(name, sidecar)
        self._put(self._sidecar(name))

    def _put(self, key: str) -> None:
        path = self.root / key
        text = path.read_bytes() if key.endswith(".json") else None
        self._storage.put(path, key)
        found = self._storage.look(key)
        self._note(key, found)
        if found is not None:
            self._cache.adopt(path, found)
            if text is not None:
                self._sidecars.add(key, found, text)

    def finish(self) -> None:
        """As `FeatureStore.finish`."""
        self._sidecars.finish()
