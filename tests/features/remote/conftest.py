"""Stores to lay features in: S3's protocol on loopback, this process's memory, a folder by its URL."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from xelvad.extractors import EXTRACTORS
from xelvad.pipeline.features.remote.address import RemoteFolder

from ...helpers.objects import BUCKET, Requests, object_store
from ..test_extraction import TINY


@pytest.fixture(scope="package")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Requests]:
    with object_store(tmp_path_factory.mktemp("aws")) as requests:
        yield requests


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is kept of stores on this machine: nothing, when a test begins."""
    monkeypatch.setitem(EXTRACTORS, TINY.name, TINY)
    monkeypatch.setenv("XELVAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/features"


@pytest.fixture(params=["s3", "memory", "file"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteFolder:
    """An empty features folder in each kind of store."""
    return folder_in(request.param, request, tmp_path)


@pytest.fixture
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteFolder:
    """An empty features folder in the object store."""
    return folder_in("s3", request, tmp_path)


def folder_in(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> RemoteFolder:
    if kind == "s3":
        request.getfixturevalue("s3")
        return RemoteFolder(f"s3://{BUCKET}/{tmp_path.name}/of all")
    if kind == "memory":
        return RemoteFolder(f"memory://{tmp_path.name}/features")
    return RemoteFolder(f"file://{tmp_path}/elsewhere")


def files_of(remote: RemoteFolder) -> dict[str, bytes]:
    """All files of a features folder, as fsspec finds them."""
    system, root = fsspec.core.url_to_fs(remote.url, use_listings_cache=False)
    return {path[len(root) + 1 :]: system.cat_file(path) for path in system.find(root)}
