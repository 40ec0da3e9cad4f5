"""What a file may claim, and what it may not make FFmpeg do."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from xelvad.pipeline.videos import probe as probing
from xelvad.pipeline.videos.probe import Orientation, VideoError, probe
from xelvad.pipeline.videos.reader import open_video

from ..helpers.footage import Footage


@pytest.fixture
def asked() -> list[str]:
    """What is asked of a web server on this machine, whose port stands first."""
    requests: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    requests.append(str(server.server_port))
    yield requests
    server.shutdown()


SCRIPTS = {
    "a play list": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{there}\n#EXT-X-ENDLIST\n",
    "a list of files": "ffconcat version 1.0\nfile '{there}'\n",
    "a manifest": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
    "<Representation><BaseURL>{there}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "a session": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".m3u8", ".txt"])
@pytest.mark.parametrize("kind", SCRIPTS)
def test_what_names_other_files_or_hosts_is_no_video_whatever_it_is_called(
    tmp_path: Path, kind: str, suffix: str, asked: list[str]
) -> None:
    secret = Footage.video(tmp_path / "secret.ts", 10)
    for there in (f"http://127.0.0.1:{asked[0]}/a.ts", secret.name, str(secret)):
        path = tmp_path / f"a{suffix}"
        path.write_text(SCRIPTS[kind].format(there=there))
        with pytest.raises(VideoError, match=f"a{suffix}: "):
            probe(path)
    assert len(asked) == 1, "nobody was asked"


@pytest.mark.parametrize("name", ["http:evil.mp4", "concat:a|b.mp4", "pipe:0.mp4", "-i.mp4", "a\nb.mp4", "%03d.mp4"])
def test_a_name_is_a_name_whatever_it_looks_like(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Footage.video(tmp_path / "plain.mp4", 10).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert sum(len(block.frames) for block in open_video(Path(name)).blocks(16)) == 10


def test_a_picture_larger_than_anything_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Footage.video(tmp_path / "a.mp4", 3)
    monkeypatch.setattr(probing, "LARGEST_PICTURE", 128 * 64 - 1)
    with pytest.raises(VideoError, match=r"a\.mp4: claims pictures of 128x64 pixels"):
        probe(path)


def test_a_count_that_no_file_could_hold_costs_nothing(tmp_path: Path) -> None:
    path = Footage.video(tmp_path / "a.avi", 20, codec="mpeg4")
    data = bytearray(path.read_bytes())
    for tag, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        place = data.index(tag) + offset
        data[place : place + 4] = (10**9).to_bytes(4, "little")
    path.write_bytes(data)
    video = open_video(path)
    assert video.info.declared_frames >= 20
    assert sum(len(block.frames) for block in video.blocks(16)) == 20


def test_no_display_matrix_turns_nothing() -> None:
    assert Orientation.of(None).upright
    assert Orientation.of(b"short").upright
    assert Orientation(transposed=True).size(3, 5) == (5, 3)
