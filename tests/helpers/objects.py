"""An object store of S3's protocol on this machine, which counts what it is asked."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "features"


class Requests(logging.Handler):
    """Counts requests by their method, such as ``PUT``, and listings as ``LIST``."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Take in a line that the server logs of a request."""
        found = re.search(r"(GET|PUT|HEAD|DELETE|POST) (\S+) HTTP", record.getMessage())
        if found:
            self.counts["LIST" if "list-type=2" in found[2] else found[1]] += 1

    @property
    def total(self) -> int:
        """All that was asked."""
        return sum(self.counts.values())


@contextmanager
def object_store(folder: Path) -> Iterator[Requests]:
    """An object store with an empty `BUCKET`, that ``s3://`` leads to until the block ends.

    Args:
        folder: for files that are not there, so that nothing of this user's is read.
    """
    requests, logger = Requests(), logging.getLogger("werkzeug")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logger, "propagate", False)
        patch.setattr(logger, "level", logging.INFO)
        patch.setattr(logger, "handlers", [requests])
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "a-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, str(folder / "none"))
        forget_connections()
        try:
            fsspec.filesystem("s3").mkdir(BUCKET)
            yield requests
        finally:
            forget_connections()
            server.stop()


def forget_connections() -> None:
    """Have the next request connect anew, by the environment as it is then."""
    from xelvad.pipeline.features.remote.storage import storage_of

    storage_of.cache_clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
