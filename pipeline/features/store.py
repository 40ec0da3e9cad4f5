"""Feature files: `<features>/<extractor>/<video>.npy` and beside it `<video>.json`, whole or absent.

The array is plain NumPy, float32 ``(clips, feature_dim)`` or ``(clips, crops, feature_dim)``, readable by anyone with
`np.load`. The sidecar says what it was made of and with. The array is put in place first and the sidecar last: a
feature file counts if and only if its sidecar is there and its size is what the sidecar says, so that one whose
writing was interrupted is never read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...files import naming, replacing, write_text
from ..videos.clips import Clipping, Segments
from ..videos.identity import digest, stamp
from ..videos.names import NameIndex
from ..videos.sources import VideoSource
from .sidecar import Sidecar, check_fingerprint

LONGEST_NAME, SHORTENED = 240, 200  # bytes; file systems take 255 with the suffix
LISTED = 5  # names in an error message
PIECE_ROWS = 2048  # 32 MiB of 4096-d features
HELD_BYTES = 256 * 2**20  # of features of one kind that may be held in memory


@dataclass(frozen=True)
class Features:
    """One video's features on disk, and how they came about.

    Unless they are `held` it holds no data and keeps no file open: as many videos as one likes may be at hand without
    filling memory.

    Attributes:
        path: the feature file.
        shape: ``(clips, feature_dim)`` or ``(clips, crops, feature_dim)``.
        sidecar: what the features were made of and with.
        held: all of them in memory, read once and checked; None where they stay on disk.
    """

    path: Path
    shape: tuple[int, ...]
    sidecar: Sidecar
    held: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    @property
    def clips(self) -> int:
        """How many clips the video has, at least one."""
        return self.shape[0]

    @property
    def crops(self) -> int | None:
        """Crops per clip; None where the array has no axis for them."""
        return self.shape[1] if len(self.shape) == 3 else None

    @property
    def is_held(self) -> bool:
        """Whether the features are in memory."""
        return self.held is not None

    @property
    def array(self) -> NDArray[np.float32]:
        """All features, those held, or mapped anew each time, so that what was read leaves memory with the array.

        They are not checked to be finite; `read` and `pieces` do.

        Raises:
            UserError: the file was damaged or exchanged since.
        """
        return _map(self.path, self.shape) if self.held is None else self.held

    def read(
        self, rows: slice | NDArray[np.int64], crop: int | None = None, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Some of the clips, checked; nothing of the file stays in memory once they are dropped.

        Args:
            rows: which clips; indices may come in any order and more than once.
            crop: take this crop alone; only where there are crops.
            out: where to put them, of the shape that is returned; None for a new array.

        Returns:
            ``(n, feature_dim)``, or ``(n, crops, feature_dim)`` where there are crops and none is named: ``out``, or
            where there is none, an array of the caller's own.

        Raises:
            UserError: NaN or infinite values, or the file was damaged or exchanged since.
            ValueError: a crop of features that have none.
        """
        if crop is not None and self.crops is None:
            raise ValueError(f"{self.path}: crop {crop} of features without crops, {self.shape}")
        if self.held is not None:
            return _copied(self.held[rows] if crop is None else self.held[rows, crop], out)
        mapped = _map(self.path, self.shape)
        wanted = mapped[rows] if crop is None else mapped[rows, crop]
        if isinstance(rows, slice) and rows.step is None and crop is None:
            block = np.empty(wanted.shape, np.float32) if out is None else out
            _read_into(block, self.path, mapped, rows)
        else:
            block = _copied(wanted, out)
        with np.errstate(over="ignore", invalid="ignore"):
            # A fraction of the price: not finite if one number is not, or if it overflows. `sum` takes twice as long.
            total = np.einsum("i->", block.reshape(-1))
        if not np.isfinite(total) and not np.isfinite(block).all():
            raise UserError(f"{self.path}: holds NaN or infinite features; delete it and extract the video again")
        return block

    def pieces(self, size: int = PIECE_ROWS) -> Iterator[NDArray[np.float32]]:
        """All clips in order, as by `read`, in blocks of at most ``size`` feature rows.

        A clip with crops has one row for each; a block always holds whole clips, and at least one.

        Raises:
            UserError: as `read`.
        """
        step = max(1, size // (self.crops or 1))
        for start in range(0, self.clips, step):
            yield self.read(slice(start, start + step))


def hold(videos: Sequence[Features], room: int = HELD_BYTES) -> list[Features]:
    """The same videos, their features in memory if those of all fit into so many bytes; else as they are.

    Opening a file costs more than computing on a short video: what is read again and again is read once.

    Raises:
        UserError: NaN or infinite values, or a damaged file.
    """
    if sum(math.prod(video.shape) for video in videos) * np.dtype(np.float32).itemsize > room:
        return list(videos)
    return [video if video.is_held else replace(video, held=video.read(slice(None))) for video in videos]


class FeatureStore:
    """The feature files of one extractor in one folder."""

    def __init__(self, root: Path, extractor: str) -> None:
        self.root, self.extractor = root, extractor
        self.folder = root / extractor
        self._index: NameIndex | None = None  # of what is filed, made when a name is not found at once

    def array_path(self, name: str) -> Path:
        """Where the features of the video ``name`` are, or would be.

        A name that leaves no room for the suffix is shortened, and told from others by a digest.

        Raises:
            UserError: the name leads out of the folder.
        """
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise UserError(f"{name}: a video's name must stay within the features folder {self.folder}")
        path = self.folder / name
        if len(encoded := path.name.encode()) > LONGEST_NAME:
            short = encoded[:SHORTENED].decode(errors="ignore")
            path = path.with_name(f"{short}~{hashlib.sha256(encoded).hexdigest()[:16]}")
        return path.with_name(f"{path.name}.npy")

    def sidecar_path(self, name: str) -> Path:
        """Where the sidecar of the video ``name`` is, or would be."""
        return self.array_path(name).with_suffix(".json")

    def find(self, name: str) -> str:
        """The name under which the features of a video are filed, with fewer or more leading folders: see `NameIndex`.

        Manifests often name ``videos/a.mp4`` what was extracted from within ``videos/`` as ``a.mp4``.

        Raises:
            UserError: there are none, or those of several videos that could be meant.
        """
        if self.sidecar_path(name).exists():
            return name
        if self._index is None:
            sidecars = self.folder.rglob("*.json")
            self._index = NameIndex(path.relative_to(self.folder).with_suffix("").as_posix() for path in sidecars)
        found = self._index.find(name)
        if len(found) > 1:
            raise UserError(
                f"{name}: could be any of {', '.join(found[:LISTED])} in {self.folder}; move the others away"
            )
        if not found:
            raise UserError(
                f"{name}: no features in {self.folder}; run: xelvad extract VIDEOS --extractor {self.extractor} "
                f"--features {self.root} (or xelvad import, for features made elsewhere)"
            )
        return found[0]

    def read(self, name: str, fingerprint: str | None = None) -> Features:
        """The features of the video ``name``. Only their header is looked at; `Features.read` checks what it reads.

        Args:
            name: as given to `write`.
            fingerprint: of the extractor that they must come from; None accepts any.

        Raises:
            UserError: missing, damaged, without a single clip, or made by another extractor.
        """
        path = self.array_path(name)
        sidecar = Sidecar.read(self.sidecar_path(name))
        check_fingerprint(self.sidecar_path(name), sidecar.fingerprint, fingerprint)
        shape = sidecar.shape
        _map(path, shape)
        if shape[0] == 0:
            raise UserError(f"{path}: holds no clips; delete it and extract the video again")
        return Features(path, shape, sidecar)

    def read_all(self, names: Iterable[str]) -> Iterator[Features]:
        """The features of each video of a data set, found by `find`, all from one extractor with one set of weights.

        Raises:
            UserError: missing or damaged features, features of different origin, dimension or number of crops, or two
                videos that would share a file.
        """
        first: Features | None = None
        filed: dict[str, str] = {}
        for name in names:
            found = self.find(name)
            if found in filed:
                raise UserError(f"{name} and {filed[found]} would both read the features of {found} in {self.folder}")
            filed[found] = name
            features = self.read(found, first.sidecar.fingerprint if first else None)
            first = first or features
            if features.shape[1:] != first.shape[1:]:
                raise UserError(
                    f"{self.folder}: features of mixed dimension: {next(iter(filed.values()))} has "
                    f"{_dimension(first)}, {name} has {_dimension(features)}; make them alike, or use two folders"
                )
            yield features

    def current(
        self, source: VideoSource, fingerprint: str, clipping: Clipping | Segments, reuse_static: float = 0.0
    ) -> Sidecar | None:
        """The sidecar of the features of this very video, if they are there, whole, made just so; else None.

        A video of the same size and time is the same. One of another time, copied or touched, is the same if its digest
        is; `adopt` then spares the next to ask the digest.

        Raises:
            UserError: there are features made by another extractor, with other weights, clips or reuse of still ones.
        """
        path = self.sidecar_path(source.name)
        sidecar = _sidecar_if_there(path)
        if sidecar is None:
            return None
        check_fingerprint(path, sidecar.fingerprint, fingerprint)
        if sidecar.clipping != clipping:
            raise UserError(f"{path}: made with {sidecar.clipping}, not {clipping}; use another --features folder")
        if sidecar.reuse_static != reuse_static:
            raise UserError(
                f"{path}: made with --reuse-static {sidecar.reuse_static:g}, not {reuse_static:g}; "
                "use another --features folder"
            )
        try:
            _map(self.array_path(source.name), sidecar.shape)
        except UserError:  # not there, or damaged, or not as long as it was
            return None
        size, modified = stamp(source.path)
        if size != sidecar.video_bytes:
            return None
        return sidecar if modified == sidecar.video_modified or digest(source.path) == sidecar.video_sha256 else None

    def adopt(self, source: VideoSource, sidecar: Sidecar) -> None:
        """Let features that are `current` belong to their video as it lies there now, whenever it was copied."""
        _, modified = stamp(source.path)
        if modified != sidecar.video_modified:
            write_text(self.sidecar_path(source.name), replace(sidecar, video_modified=modified).text())

    @contextmanager
    def write(self, name: str, feature_dim: int, crops: int | None = None) -> Iterator[FeatureWriter]:
        """Write the features of one video. Nothing is left behind after an error, or without `FeatureWriter.finish`.

        Args:
            name: of the video.
            feature_dim: numbers of a feature.
            crops: per clip; None: the array has no axis for them.

        Raises:
            OSError: no room, or no permission.
        """
        path, sidecar_path = self.array_path(name), self.sidecar_path(name)
        with replacing(path) as file:
            writer = FeatureWriter(file, path, feature_dim, crops)
            yield writer
            if writer.sidecar is None:
                raise RuntimeError(f"{path}: written without a sidecar")
            sidecar_path.unlink(missing_ok=True)  # never an old sidecar beside a new array
        write_text(sidecar_path, writer.sidecar.text())
        self._index = None


class FeatureWriter:
    """Appends features to a file that nobody sees until it is whole; memory does not grow with the video.

    The sidecar gets the digest of all that was appended: by it `xelvad verify` knows the file to be as it was written.
    """

    sidecar: Sidecar | None = None

    def __init__(self, file: IO[bytes], path: Path, feature_dim: int, crops: int | None = None) -> None:
        self._file, self._path = file, path
        self._row = (feature_dim,) if crops is None else (crops, feature_dim)  # shape of one clip's features
        self.clips, self._digest = 0, hashlib.sha256()
        self._write_header()

    def append(self, features: NDArray[np.float32]) -> None:
        """Append ``(n, feature_dim)``, or ``(n, crops, feature_dim)`` where crops were announced.

        Raises:
            UserError: NaN or infinite values: nothing that could be learnt from.
        """
        if features.ndim == 0 or features.shape[1:] != self._row:
            raise ValueError(f"features {features.shape}, expected (n, {', '.join(map(str, self._row))})")
        if not np.isfinite(features).all():
            raise UserError(f"{self._path}: the network gave NaN or infinite features, the file was not written")
        data = np.ascontiguousarray(features, "<f4")
        with naming(self._path):
            self._file.write(data.tobytes())
        self._digest.update(data.data)
        self.clips += len(features)

    def finish(self, sidecar: Sidecar) -> None:
        """State what the features were made of: the file is complete."""
        with naming(self._path):
            self._file.seek(0)  # writes what is waiting
        self._write_header()  # NumPy pads headers so that one for more rows takes the same room
        self.sidecar = replace(sidecar, features_sha256=self._digest.hexdigest())

    def _write_header(self) -> None:
        header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (self.clips, *self._row)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _sidecar_if_there(path: Path) -> Sidecar | None:
    """A sidecar, None where there is none; a damaged one is a UserError."""
    try:
        return Sidecar.read(path)
    except UserError:
        if not path.exists():  # also where another process took it away meanwhile, to put a new one there
            return None
        raise


def _map(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Map a feature file of known shape; writing to the map does not change the file.

    Raises:
        UserError: missing, damaged, or of another shape.
    """
    try:
        # Private, so that torch may take it for its own; never unpickles.
        array = np.lib.format.open_memmap(path, mode="c")
        size, wanted = path.stat().st_size, array.offset + array.nbytes
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise UserError(f"{path}: a damaged feature file ({error}); delete it and extract again") from error
    if array.shape != shape or array.dtype != np.float32:
        raise UserError(
            f"{path}: {array.dtype} {array.shape}, not float32 {shape} as made; delete it and extract again"
        )
    if size != wanted:
        raise UserError(f"{path}: {size} bytes, not {wanted} as its header says; delete it and extract again")
    return array


def _copied(values: NDArray[np.float32], out: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Values in ``out``, or in an array of the caller's own."""
    if out is None:
        return np.array(values)
    out[:] = values
    return out


def _read_into(out: NDArray[np.float32], path: Path, mapped: np.memmap[Any, Any], rows: slice) -> None:
    """Read consecutive rows past the map, whose page faults cost as much again as reading does."""
    start, stop, _ = rows.indices(len(mapped))
    if out.shape != (max(stop - start, 0), *mapped.shape[1:]) or not out.flags.c_contiguous:
        raise ValueError(f"{path}: rows {start} to {stop} of {mapped.shape} do not fit into {out.shape}")
    waiting = out.reshape(-1).view(np.uint8).data
    with path.open("rb", buffering=0) as file:
        file.seek(mapped.offset + start * mapped.strides[0])
        while waiting:
            count = file.readinto(waiting)
            if not count:
                raise UserError(f"{path}: ends too early; delete it and extract the video again")
            waiting = waiting[count:]


def _dimension(features: Features) -> str:
    """Such as ``1024`` or ``10 x 2048``, crops first."""
    return " x ".join(map(str, features.shape[1:]))
