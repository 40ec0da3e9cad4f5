"""Where weights come from, with a server on this machine that answers in every wrong way."""

import hashlib
import pickle
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from xelvad.errors import UserError
from xelvad.extractors import EXTRACTORS, ExtractorSpec, spec_of, weights
from xelvad.extractors.origins import ByHand, Download
from xelvad.extractors.weights import CATALOGUE, KnownWeights
from xelvad.pipeline.cli import main

DATA = pickle.dumps({"layer": {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(2, np.float32)}})
DIGEST = hashlib.sha256(DATA).hexdigest()
TINY = ExtractorSpec("tiny", "Two numbers", __name__, 2, spec_of("i3d-rgb").preprocessing, "tiny-weights")


def build(spec: ExtractorSpec) -> torch.nn.Module:
    return torch.nn.ModuleDict({"layer": torch.nn.Linear(3, 2)})


def convert_layout(arrays: dict[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    return {name.replace("/", "."): torch.from_numpy(np.array(array)) for name, array in arrays.items()}


class Answer(BaseHTTPRequestHandler):
    """Answers as the path says."""

    def do_GET(self) -> None:
        kind = self.path.strip("/").partition("/")[0]
        if kind == "missing":
            self.send_error(404)
        elif kind == "gibberish":
            self.wfile.write(b"this is no HTTP\r\n\r\n")
        elif kind == "chunks":  # the second chunk, and the end of all chunks, never come
            self.protocol_version = "HTTP/1.1"
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n40\r\nhalf" % (len(DATA), DATA))
        else:
            self.send_response(200)
            if kind != "lengthless":
                self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()
            self.wfile.write(DATA[: len(DATA) // 2] if kind == "cut" else DATA)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownWeights:
    """Weights that the catalogue knows, of an extractor that it knows; a cache that is the test's own; no proxy."""
    monkeypatch.setenv("XELVAD_CACHE", str(tmp_path / "cache"))
    for name in ["no_proxy", "NO_PROXY"]:
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setitem(EXTRACTORS, TINY.name, TINY)
    entry = KnownWeights(TINY.default_weights, (TINY.name,), "Two numbers", "none", ByHand("tiny.pkl of its author"))
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    return entry


def stored(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def from_address(monkeypatch: pytest.MonkeyPatch, tiny: KnownWeights, url: str, sha256: str) -> None:
    monkeypatch.setitem(CATALOGUE, tiny.name, replace(tiny, origin=Download(url, sha256)))


@pytest.mark.parametrize("digits", [8, 20, 64])
@pytest.mark.parametrize("kind", ["whole", "lengthless", "file"])
def test_a_download_of_the_right_digest_is_converted_and_stored(
    tmp_path: Path, tiny: KnownWeights, server: str, monkeypatch: pytest.MonkeyPatch, kind: str, digits: int
) -> None:
    (tmp_path / "tiny.pkl").write_bytes(DATA)
    url = (tmp_path / "tiny.pkl").as_uri() if kind == "file" else f"{server}/{kind}/tiny-{DIGEST[:8]}.pkl?download=true"
    from_address(monkeypatch, tiny, url, DIGEST[:digits])
    path = weights.fetch(tiny.name)
    assert stored(tmp_path) == [path.name] == ["tiny-weights.safetensors"]
    state, digest = weights.load(TINY, None)
    assert state is not None
    assert state["layer.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("whole", "has SHA-256 " + DIGEST + ", not the pinned 00000000: nothing was stored"),
        ("cut", f"the download broke off after {len(DATA) // 2} of {len(DATA)} bytes, nothing was stored"),
        ("missing", "cannot be fetched (Not Found); download the file by hand"),
        ("gibberish", "cannot be fetched (this is no HTTP"),
        ("chunks", "cannot be fetched (IncompleteRead"),
        ("closed port", "refused); download the file by hand"),
        ("no such file", "No such file or directory"),
        ("no address", "cannot be fetched (unknown url type"),
    ],
)
def test_whatever_goes_wrong_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    tiny: KnownWeights,
    server: str,
    closed_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    said: str,
) -> None:
    url = {
        "closed port": f"http://127.0.0.1:{closed_port}/tiny.pkl",
        "no such file": (tmp_path / "nowhere.pkl").as_uri(),
        "no address": "tiny.pkl",
    }.get(kind, f"{server}/{kind}/tiny.pkl")
    from_address(monkeypatch, tiny, url, "0" * 8 if kind == "whole" else DIGEST[:8])
    with pytest.raises(UserError) as caught:
        weights.fetch(tiny.name)
    message = str(caught.value)
    assert said in message
    assert url in message or kind == "cut"
    assert "\n" not in message
    assert stored(tmp_path) == []
    assert main(["weights", "fetch", tiny.name]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed
    assert stored(tmp_path) == []


def test_nothing_is_left_in_the_folder_for_temporary_files(
    tmp_path: Path, tiny: KnownWeights, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(weights.tempfile, "tempdir", str(tmp_path / "temporary"))
    for kind in ["whole", "cut", "missing"]:
        from_address(monkeypatch, tiny, f"{server}/{kind}/tiny.pkl", "0" * 64)
        with pytest.raises(UserError):
            weights.fetch(tiny.name)
    from_address(monkeypatch, tiny, f"{server}/whole/tiny.pkl", DIGEST)
    weights.fetch(tiny.name)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_what_is_downloaded_for_another_network_is_refused(
    tmp_path: Path, tiny: KnownWeights, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRACTORS, "r3d-18", replace(EXTRACTORS["r3d-18"], default_weights=tiny.name))
    url = f"{server}/whole/tiny.pkl"
    monkeypatch.setitem(CATALOGUE, tiny.name, replace(tiny, extractors=("r3d-18",), origin=Download(url, DIGEST)))
    with pytest.raises(UserError, match=r"tiny\.pkl: weights of another network than r3d-18"):
        weights.fetch(tiny.name)
    assert stored(tmp_path) == []


# --- weights add -----------------------------------------------------------------------------------------------------


def test_an_address_is_added_with_its_digest(
    tmp_path: Path, tiny: KnownWeights, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", "add", tiny.name, f"{server}/whole/tiny.pkl", "--sha256", DIGEST.upper()]) == 0
    assert "tiny-weights.safetensors" in capsys.readouterr().out
    assert stored(tmp_path) == ["tiny-weights.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{server}/whole/tiny.pkl"], "{server}/whole/tiny.pkl: say which SHA-256 it has (--sha256)"),
        (["{server}/whole/tiny.pkl", "--sha256", "0" * 64], f"has SHA-256 {DIGEST}, not the pinned {'0' * 64}"),
        (["{server}/whole/tiny.pkl", "--sha256", ""], "'' is no SHA-256"),
        (["{server}/whole/tiny.pkl", "--sha256", DIGEST[:7]], f"'{DIGEST[:7]}' is no SHA-256"),
        (["{server}/cut/tiny.pkl", "--sha256", DIGEST], "broke off"),
        (["{file}", "--sha256", "0" * 64], f"has SHA-256 {DIGEST}, not the pinned {'0' * 64}"),
        (["{file}", "--sha256", "sixteen"], "'sixteen' is no SHA-256"),
    ],
)
def test_without_the_right_digest_nothing_is_added(
    tmp_path: Path,
    tiny: KnownWeights,
    server: str,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "tiny.pkl").write_bytes(DATA)
    filled = [argument.format(server=server, file=tmp_path / "tiny.pkl") for argument in arguments]
    assert main(["weights", "add", tiny.name, *filled]) == 2
    assert said.format(server=server) in capsys.readouterr().err.splitlines()[-1]
    assert stored(tmp_path) == []


def test_a_file_is_added_with_its_digest_its_beginning_or_none(tmp_path: Path, tiny: KnownWeights) -> None:
    (tmp_path / "tiny.pkl").write_bytes(DATA)
    for sha256 in [None, DIGEST, DIGEST[:8]]:
        path, _ = weights.add(tiny.name, tmp_path / "tiny.pkl", sha256)
        assert stored(tmp_path) == [path.name]
        path.unlink()


def test_weights_that_nobody_pins_are_not_fetched_but_it_is_said_where_they_are(
    tmp_path: Path, tiny: KnownWeights, capsys: pytest.CaptureFixture[str]
) -> None:
    line = (
        "tiny-weights: published without a digest, so it is not fetched unseen; download the file by hand (tiny.pkl of "
        "its author) and run: xelvad weights add tiny-weights FILE"
    )
    with pytest.raises(UserError) as caught:
        weights.load(TINY, None)
    assert str(caught.value) == line
    assert main(["weights", "fetch", tiny.name]) == 2
    assert line in capsys.readouterr().err
    assert stored(tmp_path) == []
