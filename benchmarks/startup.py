"""How long `xelvad extract` takes to find that all is done, and its memory: in a folder, and in an object store.

    python benchmarks/startup.py --videos 10000

The videos are ten-byte files with features of two clips. Each start is a fresh process: its whole time, that of a core
that it took, the most memory that it held, and what it asked of the store, which is moto's server of S3's protocol in a
process of its own on this machine; its listings are slow, so its time of a core is given too. "no index": the first
start over features that were copied there by other means, which asks for every sidecar once; "another machine": without
any copy, with the index that the first has left; "again": with the copies of the one before. With ``--undone`` the
features of the first half are missing, and the process ends before it starts a network: what videos that wait cost.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from made_up_features import sidecar_of

from xelvad.extractors import spec_of
from xelvad.extractors.precision import fingerprint_of
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.footage.calibration import DRAWN_FOOTAGE

EXTRACTOR, CLIPS, BUCKET = "i3d-rgb", 2, "features"
CHILD = """
import resource, sys, time
from pathlib import Path
began = time.perf_counter()
from xelvad.pipeline.features import extraction
from xelvad.pipeline.features.config import ExtractionConfig
from xelvad.pipeline.features.remote.address import folder_of
from xelvad.pipeline.videos.sources import find_videos

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
extraction._Extraction.run = lambda self: None  # no network: what there is to do is not done
found, config = find_videos([Path(sys.argv[1])]), ExtractionConfig(weights="random")
result = extraction.extract(found, folder_of(sys.argv[2]), config)
used = resource.getrusage(resource.RUSAGE_SELF)
cpu = used.ru_utime + used.ru_stime
print(len(result.current), time.perf_counter() - began, cpu, before / 1024, used.ru_maxrss / 1024)
"""


def make(folder: Path, videos: int) -> None:
    """So many videos below ``videos/``, and features of all below ``features/``."""
    store = FeatureStore(folder / "features", EXTRACTOR)
    fingerprint = fingerprint_of(spec_of(EXTRACTOR), "random", "auto", DRAWN_FOOTAGE)
    about = sidecar_of("", CLIPS, spec_of(EXTRACTOR).feature_dim)
    for number in range(videos):
        path = folder / "videos" / f"{number // 100:03}" / f"{number:05}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"ten bytes.")
        name = path.relative_to(folder / "videos").as_posix()
        own = replace(about, video=name, video_bytes=10, video_modified=path.stat().st_mtime_ns, frames=16 * CLIPS)
        with store.write(name, about.feature_dim) as writer:
            writer.append(np.zeros((CLIPS, about.feature_dim), np.float32))
            writer.finish(replace(own, extractor=EXTRACTOR, fingerprint=fingerprint))


def serve(folder: Path, pipe: Connection) -> None:
    """Serve what is below a folder as a bucket; says where, and on each question what was asked since."""
    import logging
    import re

    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends
    from moto.server import ThreadedMotoServer

    asked: Counter[str] = Counter()

    class Count(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found = re.search(r"(GET|PUT|HEAD|DELETE|POST) (\S+) HTTP", record.getMessage())
            if found:
                asked["LIST" if "list-type=2" in found[2] else found[1]] += 1

    logger = logging.getLogger("werkzeug")
    logger.propagate, logger.handlers = False, [Count()]
    logger.setLevel(logging.INFO)
    store = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    store.create_bucket(BUCKET, "us-east-1")
    for path in sorted(folder.rglob("*.*")):
        if path.is_file():
            store.put_object(BUCKET, f"all/{path.relative_to(folder).as_posix()}", path.read_bytes())
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    pipe.send(server.get_host_and_port())
    before = time.process_time()
    while pipe.recv():
        pipe.send((dict(asked), time.process_time() - before))
        before = time.process_time()
        asked.clear()
    server.stop()


@contextmanager
def object_store(folder: Path) -> Iterator[tuple[dict[str, str], Connection]]:
    """An object store of what is below a folder: the environment that leads to it, and a pipe to its process."""
    pipe, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, theirs))
    process.start()
    host, port = pipe.recv()
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    try:
        yield keys | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}, pipe
    finally:
        pipe.send(False)
        process.join()


def start(folder: Path, features: str, **environment: str) -> str:
    """A start in a process of its own: how many were there, seconds, those of a core, MiB before and at most."""
    command = [sys.executable, "-c", CHILD, str(folder / "videos"), features]
    done = subprocess.run(command, env=os.environ | environment, check=True, capture_output=True, text=True)
    there, *rest = done.stdout.split()
    seconds, cpu, before, peak = map(float, rest)
    return f"{there} | {seconds:.1f} | {cpu:.1f} | {before:.0f} | {peak:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--undone", action="store_true")
    options = parser.parse_args()
    print("| features | there | s | s of a core | MiB when modules are loaded | MiB at most | asked | s of the store |")
    print("|---|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, options.videos)
        if options.undone:
            for path in sorted((folder / "features").rglob("*.json"))[: options.videos // 2]:
                path.unlink()
        for what in ("folder", "folder, again"):
            print(f"| {what} | {start(folder, str(folder / 'features'))} | | |", flush=True)
        with object_store(folder / "features") as (keys, pipe):
            for what, cache in (("no index", "a"), ("another machine", "b"), ("again", "b")):
                came_to = start(folder, f"s3://{BUCKET}/all", XELVAD_CACHE=str(folder / cache), **keys)
                pipe.send(True)
                counts, seconds = pipe.recv()
                asked = ", ".join(f"{count} {method}" for method, count in sorted(counts.items()))
                print(f"| s3, {what} | {came_to} | {asked} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
