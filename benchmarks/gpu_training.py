"""Training on a device: the CPU's losses and gradients, the same bits after a stop, and how fast it is.

Sections of `gpu.py`. Everything is computed in float32 without TF32, as `xelvad train` does.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from gpu_report import Section, Setting, seconds_of, synchronise
from made_up_features import EXTRACTOR, UCF_CRIME, Size, make_data
from torch import Tensor

from xelvad.models import (
    MIL,
    SRF,
    XEL,
    ARNet,
    Bags,
    Detector,
    HardInstanceBank,
    LearningDetector,
    MarginSchedule,
    hardest,
)
from xelvad.pipeline.features.config import BagConfig
from xelvad.pipeline.features.store import FeatureStore
from xelvad.pipeline.training import checkpoints
from xelvad.pipeline.training.config import TrainingConfig, XELConfig
from xelvad.pipeline.training.data import TrainingData, load_training_data
from xelvad.pipeline.training.loop import Fitted, Training, fit
from xelvad.pipeline.training.recipes import load_recipe

KINDS: tuple[type[LearningDetector], ...] = (MIL, SRF, ARNet)
TOLERANCE = 1e-4  # relative
EVERY = 9  # steps between two looks at the clock: an epoch of UCF-Crime's is 27 or 810 of them
CLOCK_SECONDS = 5.0  # of each training whose speed is measured
REPEATED = 26  # iterations of a training that is stopped and goes on
STOPPED = 17

# Of each recipe, as much as makes its steps what they are on UCF-Crime. MIL's are of 32 segments, however long a video.
RECIPES = {
    "ucf-crime/mil+xel": Size(clips=40, distinct=40),
    "ucf-crime/srf+xel": Size(distinct=40),
    "ucf-crime/ar-net+xel": Size(feature_dim=1024, distinct=40),
}
SMALL = Size(clips=24, feature_dim=64, abnormal=10, normal=9, distinct=4)


# --- one step --------------------------------------------------------------------------------------------------------


def step(setting: Setting, section: Section) -> None:
    """Loss and gradients of each detector, with and without XEL, on the device against the CPU."""
    torch.set_float32_matmul_precision("highest")
    section.notes.append("float32, TF32 off; dropout off, whose random numbers differ from device to device")
    if not setting.is_cuda:
        section.notes.append("no GPU: the CPU's float32 against its float64")
    reference = torch.float32 if setting.is_cuda else torch.float64
    for kind, with_xel in itertools.product(KINDS, (False, True)):
        expected = loss_and_gradients(kind, with_xel, "cpu", reference)
        found = loss_and_gradients(kind, with_xel, setting.device, torch.float32)
        for part, a, b in zip(("loss", "gradients"), expected, found, strict=True):
            error = float((a - b).norm() / a.norm())
            name = f"{kind.title}{'+XEL' if with_xel else ''}, {part}"
            section.row(name, error, "relative difference", at_most=TOLERANCE, must=True)


def loss_and_gradients(
    kind: type[LearningDetector], with_xel: bool, device: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The loss ``()`` of one batch, and its gradient by all weights ``(n,)``, in float64 on the CPU."""
    feature_dim = 512
    generator = torch.Generator().manual_seed(0)
    videos = []
    for number in range(12):  # the first half abnormal; a third of such a video lies apart, as clusters must
        clips = torch.randn(9 + 5 * number, feature_dim, generator=generator)
        clips[: len(clips) // 3] += 3.0 * (number < 6)
        videos.append(clips.relu().to(device, dtype))
    abnormal, normal = videos[:6], videos[6:]
    torch.manual_seed(0)
    detector = kind(feature_dim).to(device, dtype).eval()
    loss = detector.loss(Bags.pack(abnormal, normal))
    total = loss.total
    if with_xel:
        xel = XEL(MarginSchedule(warmup=0, step=1)).to(device)
        xel.bank.refresh(detector, ([video] for video in normal))
        total = sum(xel.terms(detector, hardest(abnormal, loss.abnormal_scores), 0).values(), total)
    total.backward()
    gradients = [weight.grad.flatten() for weight in detector.parameters() if weight.grad is not None]
    return total.detach().cpu().double(), torch.cat(gradients).cpu().double()


# --- stopping and going on -------------------------------------------------------------------------------------------


class _StopError(Exception):
    """A training is to end here."""


def resume(setting: Setting, section: Section) -> None:
    """A training that is stopped and goes on from its checkpoint ends with the same bits as one that is not."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_data(Path(folder, "features"), replace(SMALL, feature_dim=256))
        for kind in KINDS:
            config = TrainingConfig(
                detector=kind.name,
                extractor=EXTRACTOR,
                iterations=REPEATED,
                batch=4,
                validation=0.0,
                evaluations=REPEATED,
                follow_test=False,
                device=setting.device,
                bags=BagConfig(segments=32 if kind is MIL else 0, scale="l2"),
                xel=XELConfig(mode="epoch", warmup=0.2),
            )
            data = load_training_data(dataset, FeatureStore(dataset.root, EXTRACTOR), config)
            whole, again = (_trained(data, config, Path(folder, f"{kind.name}-{way}")) for way in ("whole", "again"))
            out = Path(folder, f"{kind.name}-stopped")
            with suppress(_StopError), _checkpoint_each_step():
                _trained(data, config, out, stop=STOPPED)
            stopped = _trained(data, config, out, resume=True)
            for what, other in (("twice from the beginning", again), (f"stopped after {STOPPED - 1}", stopped)):
                differing, of = _differing(whole, other)
                name = f"{kind.title}+XEL, {REPEATED} iterations, {what}"
                section.row(name, differing, "numbers that differ", at_most=0, must=True, note=f"of {of:,}")


def _trained(data: TrainingData, config: TrainingConfig, folder: Path, stop: int = 0, resume: bool = False) -> Fitted:
    looks = itertools.count(1)

    def judge(detector: Detector) -> float:
        if next(looks) == stop:
            raise _StopError
        return 0.0

    return fit(data.abnormal, data.normal, config, folder, judges={"stop": judge}, identity={}, resume=resume)


@contextmanager
def _checkpoint_each_step() -> Iterator[None]:
    before = checkpoints.SECONDS
    checkpoints.SECONDS = -1.0
    try:
        yield
    finally:
        checkpoints.SECONDS = before


def _differing(one: Fitted, other: Fitted) -> tuple[int, int]:
    """How many numbers of the weights and of the bank differ, and how many there are."""
    assert one.bank is not None
    assert other.bank is not None
    pairs = [
        (a.cpu(), b.cpu())
        for one_of, other_of in ((one.detector, other.detector), (one.bank, other.bank))
        for a, b in zip(one_of.state_dict().values(), other_of.state_dict().values(), strict=True)
    ]
    return sum(int((a != b).sum()) for a, b in pairs), sum(a.numel() for a, _ in pairs)


# --- the bank --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def bank(setting: Setting, section: Section) -> None:
    """A bank of as many rows as UCF-Crime has normal videos, its refresh from clips on the device, and its memory."""
    size = replace(UCF_CRIME, clips=30, normal=80) if setting.small else UCF_CRIME
    generator = torch.Generator().manual_seed(0)
    few = [torch.randn(size.clips, size.feature_dim, generator=generator).relu() for _ in range(20)]
    there = [video.to(setting.device) for video in few]
    torch.manual_seed(0)
    detector = MIL(size.feature_dim).to(setting.device).eval()
    hard = HardInstanceBank().to(setting.device)

    def refresh() -> None:
        hard.refresh(detector, ([there[number % len(there)]] for number in range(size.normal)))

    shape = f"{size.normal} x {size.feature_dim}"
    with _peak_memory(setting) as peak:
        seconds = seconds_of(refresh, setting)
    note = f"{size.clips} clips a video, on the device"
    section.row(f"refresh of {shape}", 1000 * seconds, "ms", note=note)
    held = sum(buffer.numel() * buffer.element_size() for buffer in hard.buffers())
    section.row(f"memory of {shape}", held / 2**20, "MiB")
    if setting.is_cuda:
        section.row("memory of its refresh, beside the clips", peak[0] / 2**20, "MiB")
    clips = [int(clip) for clip in hard.clips[: len(few)]]
    detector.to("cpu")
    expected = [detector.score(video) for video in few]
    short = max(float(scores.max() - scores[clip]) for scores, clip in zip(expected, clips, strict=True))
    note = "by which a chosen clip's score on the CPU is below the highest of its video"
    section.row("hardest clips against the CPU's", short, "score", at_most=1e-5, must=True, note=note)


@contextmanager
def _peak_memory(setting: Setting) -> Iterator[list[int]]:
    """Bytes that were allocated at most on the device within a block, beyond those before it."""
    found = [0]
    if not setting.is_cuda:
        yield found
        return
    torch.cuda.reset_peak_memory_stats(setting.device)
    before = torch.cuda.memory_allocated(setting.device)
    yield found
    found[0] = torch.cuda.max_memory_allocated(setting.device) - before


# --- how fast --------------------------------------------------------------------------------------------------------


@dataclass
class _Clock:
    """Looks at the time every `EVERY` steps of a training, as its judge, and ends it when there is no more.

    Attributes:
        seconds: that the training may take.
        per_epoch: steps of an epoch.
        times: of each look.
    """

    device: str
    seconds: float
    per_epoch: int
    times: list[float] = field(default_factory=list)

    def __call__(self, detector: Detector) -> float:
        synchronise(self.device)
        self.times.append(time.perf_counter())
        if self.times[-1] - self.times[0] > self.seconds:
            raise _StopError
        return -float(len(self.times))  # ever worse: else the weights would be copied each time

    @property
    def step(self) -> float:
        """Seconds of a step, of those intervals in which no epoch begins; else of all."""
        starts = [EVERY * number for number in range(1, len(self.times))]
        lasted = [later - earlier for earlier, later in itertools.pairwise(self.times)]
        within = [
            seconds
            for start, seconds in zip(starts, lasted, strict=True)
            if start % self.per_epoch and start // self.per_epoch == (start + EVERY - 1) // self.per_epoch
        ]
        chosen = within or lasted
        return sum(chosen) / len(chosen) / EVERY


class _NoCurves:
    """Takes the points of curves and forgets them."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        pass

    def flush(self) -> None:
        pass


def training(setting: Setting, section: Section) -> None:
    """UCF-Crime's recipes on made-up features as many as its own: pairs a second, the bank's refresh, memory."""
    section.notes.append(
        "XEL from the first step on, no validation videos; few of the feature files hold data of their own, so that "
        "they stay in the system's cache; an epoch is all pairs and one refresh of the bank"
    )
    for recipe, size in RECIPES.items():
        if section.left < 0:
            section.missing(recipe, "no time left")
            continue
        with tempfile.TemporaryDirectory() as folder:
            _train(recipe, SMALL if setting.small else size, Path(folder), setting, section)


def _train(recipe: str, size: Size, folder: Path, setting: Setting, section: Section) -> None:
    dataset = make_data(folder / "features", size)
    config = load_recipe(recipe)
    config = replace(
        config,
        extractor=EXTRACTOR,
        validation=0.0,
        follow_test=False,
        batch=min(config.batch, 2) if setting.small else config.batch,
        iterations=3 * EVERY if setting.small else 810,
        xel=replace(config.xel, warmup=0.0),
    )
    config = replace(config, evaluations=config.iterations // EVERY)
    began = time.perf_counter()
    data = load_training_data(dataset, FeatureStore(dataset.root, EXTRACTOR), config)
    note = f"{size.abnormal} + {size.normal} videos of {size.clips} clips of {size.feature_dim} numbers"
    section.row(f"{recipe}, getting ready", time.perf_counter() - began, "s", note=note)
    with _peak_memory(setting) as peak:
        rate = _epoch(f"{recipe}, on the device", data, replace(config, device=setting.device), folder, section)
    if setting.is_cuda:
        section.row(f"{recipe}, on the device: memory", peak[0] / 2**20, "MiB")
    if section.left < 0:
        section.missing(f"{recipe}, on the CPU", "no time left")
        return
    of_cpu = _epoch(f"{recipe}, on the CPU", data, replace(config, device="cpu"), folder, section)
    section.row(f"{recipe}, device against CPU", rate / of_cpu, "times the pairs/s")


def _epoch(what: str, data: TrainingData, config: TrainingConfig, folder: Path, section: Section) -> float:
    """Pairs a second over an epoch, from its steps and a refresh of the bank that are timed apart."""
    state = Training(data.abnormal, data.normal, config, {})
    assert state.xel is not None
    clock = _Clock(config.device, CLOCK_SECONDS, state.batches.per_epoch)
    with suppress(_StopError):
        fit(data.abnormal, data.normal, config, folder / what.replace("/", " "), judges={"clock": clock}, identity={})
    began = time.perf_counter()
    state.xel.refresh_if_due(state.detector, 0, True, _NoCurves())
    synchronise(config.device)
    refresh = time.perf_counter() - began
    pairs = state.batches.per_epoch * config.batch
    rate = pairs / (state.batches.per_epoch * clock.step + refresh)
    section.row(f"{what}: steps alone", config.batch / clock.step, "pairs/s")
    section.row(f"{what}: refresh of the bank", refresh, "s", note=f"{len(data.normal)} rows")
    section.row(f"{what}: an epoch", rate, "pairs/s")
    return rate
