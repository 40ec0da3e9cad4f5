import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from xelvad.pipeline.reports.preview import THUMBNAIL_HEIGHT, container_start, make_preview
from xelvad.pipeline.videos.probe import VideoError
from xelvad.pipeline.videos.reader import open_video
from xelvad.pipeline.videos.worker import DecodedVideo, Decoder

VARYING_STEPS = np.where(np.arange(89) % 20 < 10, 0.04, 0.12)
VARYING_TIMES = np.concatenate([[0.0], np.cumsum(VARYING_STEPS)])


@pytest.fixture(scope="module", autouse=True)
def decoder():
    """One worker process for all tests of this module."""
    with Decoder() as worker:
        preview_of.decoder = worker
        yield


def preview_of(source, thumbnail_frames, **options):
    return make_preview(source, thumbnail_frames, preview_of.decoder, **options)


def brightness(index):
    return 20 + 2 * index


def write_video(path, times, width=96, height=64):
    """A film whose frame `i` is grey of `brightness(i)`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(times):
            grey = np.full((height, width, 3), brightness(index), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_folder(path, count, width=91, height=61):
    path.mkdir()
    for index in range(count):
        Image.fromarray(np.full((height, width, 3), brightness(index), np.uint8)).save(path / f"{index}.png")
    return path


def decoded(mp4):
    with av.open(io.BytesIO(mp4)) as container:
        return list(container.decode(video=0))


def test_film_shows_every_frame_at_its_time(tmp_path):
    source = write_video(tmp_path / "varying.mkv", VARYING_TIMES)
    preview = preview_of(source, [])
    frames = decoded(preview.mp4)
    with open_video(source) as video:
        times = np.concatenate([block.times for block in video.blocks(7)])
    assert len(frames) == len(VARYING_TIMES)
    np.testing.assert_allclose([frame.time + preview.start for frame in frames], times, atol=1e-4)
    np.testing.assert_allclose(times - times[0], VARYING_TIMES, atol=1e-3)
    greys = [frame.to_ndarray(format="rgb24").mean() for frame in frames]
    np.testing.assert_allclose(greys, brightness(np.arange(len(frames))), atol=4)


def test_film_can_be_sought_second_by_second_and_starts_at_once(tmp_path):
    preview = preview_of(write_video(tmp_path / "varying.mkv", VARYING_TIMES), [])
    keyframes = [frame.time for frame in decoded(preview.mp4) if frame.key_frame]
    assert keyframes[0] == 0
    assert max(np.diff(keyframes)) <= 1.0 + 0.12  # the first frame after the second is full
    assert preview.mp4.index(b"moov") < preview.mp4.index(b"mdat")


def test_film_is_small_and_even(tmp_path):
    preview = preview_of(write_folder(tmp_path / "frames", 5), [], short_side=61)
    frame = decoded(preview.mp4)[0]
    assert (preview.width, preview.height) == (frame.width, frame.height) == (90, 60)
    assert frame.format.name == "yuv420p"
    assert len(decoded(preview.mp4)) == 5
    assert preview_of(write_folder(tmp_path / "more", 2), []).height == 60  # never enlarged


def test_film_is_the_same_every_time(tmp_path):
    (tmp_path / "noise").mkdir()
    for index in range(40):
        noise = np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "noise" / f"{index}.png")
    assert len({preview_of(tmp_path / "noise", []).mp4 for _ in range(4)}) == 1


def test_times_that_go_back_do_not_stop_the_film(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "frames", 4)
    with open_video(source) as video:
        block = next(video.blocks(4))
    times = np.array([1.0, 1.04, 1.04, 1.02])
    monkeypatch.setattr(DecodedVideo, "blocks", lambda self: iter([type(block)(block.frames, times)]))
    preview = preview_of(source, [], short_side=61)
    shown = [frame.time for frame in decoded(preview.mp4)]
    assert preview.start == 1.0
    assert len(shown) == 4
    assert np.all(np.diff(shown) > 0)


def test_thumbnails_are_the_frames_asked_for(tmp_path):
    source = write_video(tmp_path / "film.mp4", np.arange(70) / 25)
    preview = preview_of(source, [0, 33, 69, 70, 500])
    assert sorted(preview.thumbnails) == [0, 33, 69]  # the film has no others
    for index, jpeg in preview.thumbnails.items():
        image = Image.open(io.BytesIO(jpeg))
        assert image.format == "JPEG"
        assert image.size == (THUMBNAIL_HEIGHT * 3 // 2, THUMBNAIL_HEIGHT)
        assert abs(np.asarray(image).mean() - brightness(index)) < 5


def test_film_over_the_limit_is_given_up_but_not_its_thumbnails(tmp_path):
    source = write_video(tmp_path / "film.mp4", np.arange(100) / 25)
    size = len(preview_of(source, []).mp4)
    assert preview_of(source, [], byte_limit=size).mp4 is not None
    for limit in (0, size // 3, size - 1):
        preview = preview_of(source, [80], byte_limit=limit)
        assert preview.mp4 is None
        assert list(preview.thumbnails) == [80]


def test_nothing_is_decoded_that_nobody_wants(tmp_path, monkeypatch):
    blocks = []
    original = DecodedVideo.blocks

    def counted(self):
        for block in original(self):
            blocks.append(block)
            yield block

    monkeypatch.setattr(DecodedVideo, "blocks", counted)
    preview_of(write_folder(tmp_path / "frames", 100), [3], byte_limit=0)
    assert len(blocks) == 1


def test_container_start_is_the_clock_of_the_file(tmp_path):
    assert container_start(write_video(tmp_path / "late.mkv", 5 + np.arange(10) / 25)) == pytest.approx(5, abs=0.002)
    assert container_start(write_video(tmp_path / "plain.mp4", np.arange(10) / 25)) == 0


@pytest.mark.parametrize("content", [None, b"", b"not a film"])
def test_unreadable_source_is_named(tmp_path, content):
    source: Path = tmp_path / "broken.mp4"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        preview_of(source, [0])
