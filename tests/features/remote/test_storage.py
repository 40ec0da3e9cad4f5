"""What goes wrong with a store is one line with its URL, after a bounded number of tries."""

import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from xelvad.errors import UserError
from xelvad.pipeline.cli import main
from xelvad.pipeline.features.remote import storage as module
from xelvad.pipeline.features.remote.address import RemoteFolder
from xelvad.pipeline.features.remote.storage import RemoteError, Storage, storage_of

from ...helpers.footage import Footage
from ...helpers.objects import Requests, forget_connections
from ..test_extraction import EAGER
from .conftest import files_of


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ends with, which was a wrong request."""
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert "Traceback" not in "".join(error)
    return error[-1]


def extraction(folder: Path, url: str) -> list[str]:
    if not (folder / "a.mp4").exists():
        Footage.video(folder / "a.mp4", 17, codec="mpeg4")
    return ["extract", str(folder / "a.mp4"), "--features", url, "--extractor", "tiny", "--weights", "random", *EAGER]


def evaluation(folder: Path, url: str) -> list[str]:
    (folder / "labels.csv").write_text("video,split,label\na.mp4,train,0\nb.mp4,train,1\n")
    return ["train", "--manifest", str(folder / "labels.csv"), "--features", url, "--out", str(folder / "run")]


@pytest.mark.parametrize("command", [extraction, evaluation])
def test_a_missing_bucket_is_one_line(
    tmp_path: Path, s3: Requests, capsys: pytest.CaptureFixture[str], command: Callable[[Path, str], list[str]]
) -> None:
    line = said(command(tmp_path, "s3://no-such-bucket/x"), capsys)
    assert line.startswith("xelvad: s3://no-such-bucket/x: there is no such bucket or folder (")


@pytest.mark.parametrize("command", [extraction, evaluation])
def test_no_network_is_one_line(
    tmp_path: Path,
    s3: Requests,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[[Path, str], list[str]],
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        forget_connections()
        line = said(command(tmp_path, "s3://features/x"), capsys)
    forget_connections()
    assert line.startswith("xelvad: s3://features/x: cannot be reached (")
    assert "a-secret" not in line


def test_no_permission_is_one_line_at_once(bucket: RemoteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, tries = storage_of(bucket), []

    def refuse(*_: object, **__: object) -> None:
        tries.append(1)
        raise PermissionError("Access Denied")

    monkeypatch.setattr(storage._system, "find", refuse)
    with pytest.raises(RemoteError, match=rf"^{bucket.url}: no permission \(Access Denied\)$"):
        list(storage.files())
    assert len(tries) == 1


def test_what_fails_for_a_while_is_tried_again_and_no_more_than_so_often(
    bucket: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITS", (0.01, 0.01))
    storage = storage_of(bucket)
    storage.write("a", b"there")
    read, failures = storage._system.cat_file, [ConnectionError("reset")] * 2

    def fail(path: str) -> bytes:
        if failures:
            raise failures.pop()
        return read(path)

    monkeypatch.setattr(storage._system, "cat_file", fail)
    assert list(storage.read(["a"])) == [("a", b"there")]
    failures += [ConnectionError("reset")] * 9
    with pytest.raises(RemoteError, match=r"cannot be reached \(reset\)"):
        list(storage.read(["a"]))
    assert len(failures) == 6


def test_a_full_disk_here_is_not_the_stores_fault(bucket: RemoteFolder, tmp_path: Path) -> None:
    storage = storage_of(bucket)
    storage.write("a", b"there")
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        storage.fetch("a", Path("/dev/full"))
    assert not isinstance(caught.value, RemoteError)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "fsspec", None)
        with pytest.raises(UserError, match=r"^s3://b/x: .*pip install 'xelvad\[remote\]'$"):
            Storage(RemoteFolder("s3://b/x"))

    def lacking(*_: object, **__: object) -> None:
        raise ImportError("install it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacking)
    with pytest.raises(UserError, match=r"pip install 'xelvad\[remote\]' gcsfs \(install it\)$"):
        Storage(RemoteFolder("gs://b/x"))


def test_what_is_no_url_of_a_folder_is_refused() -> None:
    with pytest.raises(UserError, match="not a URL that fsspec knows"):
        Storage(RemoteFolder("nonsense://b/x"))


def test_a_store_that_could_make_one_file_twice_is_only_read(
    bucket: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(bucket)
    pipe = storage._system.pipe_file
    monkeypatch.setattr(storage._system, "pipe_file", lambda path, data, mode="": pipe(path, data))  # no condition
    with pytest.raises(UserError, match="can be read from here, but not made"):
        storage.create("a", b"1")
    assert files_of(bucket) == {}


def test_a_lost_answer_to_making_a_file_is_found_out(bucket: RemoteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS", (0.01,))
    storage = Storage(bucket)
    assert storage.create("first", b"")
    pipe, failures = storage._system.pipe_file, [ConnectionError("reset")]

    def make(path: str, data: bytes, **options: object) -> None:
        pipe(path, data, **options)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(storage._system, "pipe_file", make)
    assert storage.create("a", b"mine")
    assert not storage.create("a", b"yours")


def test_a_file_that_is_being_put_is_not_seen_before_it_is_whole(remote: RemoteFolder, tmp_path: Path) -> None:
    storage = storage_of(remote)
    large = tmp_path / "large"
    large.write_bytes(bytes(3_000_000))
    storage.put(large, "tiny/a.npy")
    system, seen = storage._system, []
    put = system.put_file

    def watch(*arguments: object) -> None:
        seen.append(storage.look("tiny/a.npy").size)
        put(*arguments)
        raise KeyboardInterrupt

    large.write_bytes(bytes(10))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(system, "put_file", watch)
        with pytest.raises(KeyboardInterrupt):
            storage.put(large, "tiny/a.npy")
    if "s3" not in storage._kinds:  # where a file appears as a whole it may be there
        assert storage.look("tiny/a.npy").size == 3_000_000
    assert seen == [3_000_000]
    assert list(files_of(remote)) == ["tiny/a.npy"], "nothing else stays"
