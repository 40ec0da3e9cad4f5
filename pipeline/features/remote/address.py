"""Where a features folder lies: a path, or a URL and how much of it may be kept here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from ....errors import UserError

CACHE_GB = 50.0


@dataclass(frozen=True)
class RemoteFolder:
    """A features folder at a URL. It holds no connection: it may be written down, and sent to other processes.

    Attributes:
        url: of the folder, such as ``s3://bucket/features``, without credentials.
        cache_gb: what may be kept on this machine of all such folders together, in GB.

    Raises:
        UserError: there is a password or a query in the URL, or the bound is none.
    """

    url: str
    cache_gb: float = CACHE_GB

    def __post_init__(self) -> None:
        if "::" in self.url:
            raise UserError(f"--features: {self.url.split('::')[-1]} alone: a local copy is kept by xelvad itself")
        parts = urlsplit(self.url)
        if parts.query or ":" in parts.netloc.rpartition("@")[0]:  # not shown: it may be secret
            raise UserError(
                f"--features {parts.scheme}://…: no password and no query in the URL, which is written into results; "
                "credentials belong into the environment or the configuration files of fsspec"
            )
        if not self.cache_gb > 0:
            raise UserError(f"--cache_gb is a number of GB above 0, not {self.cache_gb}")

    def __str__(self) -> str:
        return self.url

    @property
    def scheme(self) -> str:
        """Such as ``s3``."""
        return urlsplit(self.url).scheme


FeaturesFolder: TypeAlias = Path | RemoteFolder


def is_url(text: str) -> bool:
    """Whether a text is a URL rather than a path (a single letter is a drive of Windows)."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def folder_of(text: str | Path, cache_gb: float = CACHE_GB) -> FeaturesFolder:
    """A features folder by its path or its URL.

    Raises:
        UserError: as `RemoteFolder`.
    """
    text = str(text)
    return RemoteFolder(text.rstrip("/"), cache_gb) if is_url(text) else Path(text)
