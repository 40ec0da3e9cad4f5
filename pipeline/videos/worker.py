"""Decoding in a process of its own: a decoder that crashes or hangs costs one video, not the run.

Blocks of frames travel through shared memory with a bounded number in flight, so decoding runs ahead of the network by
a few blocks and memory grows neither with the length nor with the number of videos.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import TracebackType
from typing import cast

import numpy as np

from ...errors import UserError
from .probe import VideoError, VideoInfo
from .reader import FrameBlock, open_video

BLOCKS_IN_FLIGHT = 3
SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps it
YOUNG_SECONDS = 60.0
PATIENCE_SECONDS = 120.0  # a decoder that says nothing for so long hangs


@dataclass(frozen=True)
class _Request:
    path: Path
    short_side: int | None
    block_size: int
    memory: str  # name of the shared memory to come, which holds BLOCKS_IN_FLIGHT blocks


@dataclass(frozen=True)
class _Opened:
    info: VideoInfo


@dataclass(frozen=True)
class _Block:
    slot: int
    times: np.ndarray


@dataclass(frozen=True)
class DecodingSummary:
    """What decoding a whole video came to."""

    info: VideoInfo
    decoder: str
    decoded_frames: int
    salvaged_frames: int
    notes: tuple[str, ...] = ()


class SharedMemoryError(VideoError):
    """There is no room for the pictures of a video now; there may be once other videos are done."""


class DecodedVideo:
    """A video that the worker process is decoding: `info`, then `blocks` once, then `summary`."""

    summary: DecodingSummary

    def __init__(self, decoder: Decoder, info: VideoInfo, memory: SharedMemory, block_size: int) -> None:
        self.info = info
        self._decoder = decoder
        self._ring = _ring(memory, info, block_size)

    def blocks(self) -> Iterator[FrameBlock]:
        """Every frame once, in order. A block's frames are overwritten once the next block is asked for.

        Raises:
            VideoError: nothing can be decoded, or the decoder crashed or hung.
        """
        while True:
            message = self._decoder.receive()
            if isinstance(message, DecodingSummary):
                self.summary = message
                return
            block = cast(_Block, message)
            yield FrameBlock(self._ring[block.slot, : len(block.times)], block.times)
            self._decoder.release_block()


class Decoder:
    """Owns the worker process; start it once and read many videos, one after the other.

    It belongs to the thread that reads; any other may `cancel` it, and nothing else.

    Args:
        patience: seconds; a decoder that says nothing for longer hangs.
        memory: GB that it may take; 0 sets no limit. On Linux.

    Example::

        with Decoder() as decoder, decoder.read(path, short_side=256, block_size=16) as video:
            for block in video.blocks():
                ...
    """

    def __init__(self, patience: float = PATIENCE_SECONDS, memory: float = 0.0) -> None:
        self.patience, self.memory = patience, memory
        self._lock = threading.Lock()  # over the process: it is what `cancel` reaches for from another thread
        self._cancelled = False
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._reading: Path | None = None
        self._memory: str | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @contextmanager
    def read(self, path: Path, short_side: int | None, block_size: int) -> Iterator[DecodedVideo]:
        """Decode ``path`` in the worker, in blocks of ``block_size`` frames; arguments as in `open_video`.

        Raises:
            VideoError: the video cannot be opened, or the decoder crashed, hung or was cancelled.
        """
        self._start(path)
        assert self._connection is not None
        self._reading = path
        self._memory = name = f"xelvad_{os.getpid()}_{secrets.token_hex(5)}"  # macOS takes 31 letters
        self._tell(_Request(path, short_side, block_size, name))
        opened = cast(_Opened, self.receive())
        memory = SharedMemory(name)
        self.release_block()  # the memory is attached; not before may the worker go on, or let go of it
        video = DecodedVideo(self, opened.info, memory, block_size)
        try:
            yield video
        finally:
            if not hasattr(
                video, "summary"
            ):  # left in the middle: what is still in flight must not reach the next video
                self.stop()
            video._ring = np.empty(0, np.uint8)  # a view would keep the memory mapped
            _dispose(memory)

    def receive(self) -> object:
        """The worker's next message; its errors are raised here."""
        assert self._connection is not None
        path = self._reading
        try:
            if not self._connection.poll(self.patience):
                self.stop()
                raise VideoError(f"{path}: set aside, the decoder was silent for {self.patience:g} seconds")
            message = self._connection.recv()
        except (EOFError, OSError) as error:
            self.stop()
            raise VideoError(f"{path}: set aside, the decoder crashed on it") from error
        if isinstance(message, UserError):
            raise message
        return message

    def release_block(self) -> None:
        """Let the worker overwrite the oldest block in flight."""
        self._tell(None)

    def _tell(self, message: _Request | None) -> None:
        assert self._connection is not None
        with suppress(ConnectionError):  # the worker is gone; `receive` says so, with the video's name
            self._connection.send(message)

    def _start(self, path: Path) -> None:
        with self._lock:
            if self._cancelled:
                raise VideoError(f"{path}: not read, its decoder was cancelled")
            if self._process is not None and self._process.is_alive():
                return
            sweep_shared_memory()
            context = multiprocessing.get_context("spawn")  # a fork would inherit the device and the network's threads
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self.memory), daemon=True, name="xelvad-decoder")
            process.start()
            theirs.close()
            self._connection, self._process = ours, process

    def cancel(self) -> None:
        """From any thread: end the worker process for good; the thread that reads gets a VideoError at once.

        What the decoder holds is freed by that thread when it calls `stop`.
        """
        with self._lock:
            self._cancelled = True
            if self._process is not None:
                self._process.kill()

    def stop(self) -> None:
        """End the worker process at once and free what it held; the next `read` starts a new one."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.join()
            self._process = None
        if self._memory is not None:
            with suppress(FileNotFoundError):  # it may have been killed before it told of the memory that it made
                _dispose(SharedMemory(self._memory))
        if self._connection is not None:
            self._connection.close()
        self._connection = self._memory = None


def sweep_shared_memory() -> None:
    """Remove the shared memory of runs that were killed together with their decoders: nothing else ever would.

    What is younger than a minute stays: a process of a container that shares the memory but not the numbers of its
    processes may be about to look at it.
    """
    for path in SHARED_MEMORY.glob("xelvad_*_*") if SHARED_MEMORY.is_dir() else ():
        owner = path.name.split("_")[1]
        with suppress(OSError):
            if owner.isdecimal() and time.time() - path.stat().st_mtime > YOUNG_SECONDS and not _is_alive(int(owner)):
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def _ring(memory: SharedMemory, info: VideoInfo, block_size: int) -> np.ndarray:
    shape = (BLOCKS_IN_FLIGHT, block_size, info.height, info.width, 3)
    return np.ndarray(shape, np.uint8, buffer=memory.buf)


def _dispose(memory: SharedMemory) -> None:
    """Unlink before closing: closing fails while somebody still holds a view of a block, unlinking never does."""
    with suppress(FileNotFoundError):  # the other side was first
        memory.unlink()
    with suppress(BufferError):  # freed with the last view
        memory.close()


def _serve(connection: Connection, memory: float = 0.0) -> None:
    """The worker: decode what is asked for until the owner goes away, in so many GB of memory at most (0: any)."""
    limit = f"; it may take {memory:g} GB of memory, by --decoder-memory" if memory else ""
    if memory and sys.platform.startswith("linux"):  # elsewhere the limit counts something else, or nothing
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (int(memory * 2**30), resource.RLIM_INFINITY))

    try:
        while True:
            request = connection.recv()
            if request is None:  # the reader's answer to a block of a video that ended in an error since
                continue
            try:
                _decode(connection, request)
            except (EOFError, ConnectionError):
                raise
            except SharedMemoryError as error:
                connection.send(error)
            except UserError as error:
                connection.send(type(error)(f"{error}{limit}"))
            except MemoryError:
                connection.send(VideoError(f"{request.path}: decoding it takes more memory than there is{limit}"))
            except Exception as error:  # whatever a decoder throws must cost this video only
                reason = f"{type(error).__name__}: {error}"
                connection.send(VideoError(f"{request.path}: cannot be decoded ({reason}){limit}"))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return


def _reserved(path: Path, name: str, size: int) -> SharedMemory:
    """Shared memory that is there: writing to what is only promised would kill the process without a word.

    To look how much is free and to take it would not do: others look at the same time.
    """
    memory = SharedMemory(name, create=True, size=size)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(memory._fd, 0, size)  # type: ignore[attr-defined]  # nothing public gives it
    except OSError as error:
        _dispose(memory)
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            return SharedMemory(name, create=True, size=size)  # a system that cannot reserve any
        free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
        raise SharedMemoryError(
            f"{path}: decoding its pictures takes {size >> 20} MB of shared memory, {SHARED_MEMORY} has {free >> 20} "
            "MB left (in a container, start it with --shm-size 1g)"
        ) from error
    return memory


def _decode(connection: Connection, request: _Request) -> None:
    with open_video(request.path, request.short_side) as video:
        info = video.info
        size = BLOCKS_IN_FLIGHT * request.block_size * info.height * info.width * 3
        memory = _reserved(request.path, request.memory, size)
        try:
            connection.send(_Opened(info))
            connection.recv()  # the reader has attached the memory
            ring = _ring(memory, info, request.block_size)
            in_flight = 0
            for number, block in enumerate(video.blocks(request.block_size)):
                if in_flight == BLOCKS_IN_FLIGHT:
                    connection.recv()
                    in_flight -= 1
                slot = number % BLOCKS_IN_FLIGHT
                ring[slot, : len(block.frames)] = block.frames
                connection.send(_Block(slot, block.times))
                in_flight += 1
            summary = DecodingSummary(
                video.info, video.decoder, video.decoded_frames, video.salvaged_frames, video.notes
            )
            connection.send(summary)
            for _ in range(in_flight):
                connection.recv()
        finally:
            ring = np.empty(0, np.uint8)
            _dispose(memory)
