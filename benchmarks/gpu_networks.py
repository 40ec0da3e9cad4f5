"""Clip networks on a device: whether they are as exact as on the CPU, and how fast they are by themselves.

Sections of `gpu.py`. Weights are random, which changes no speed, unless a row says otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module

import numpy as np
import torch
from gpu_report import Section, Setting, seconds_of
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from xelvad.errors import UserError
from xelvad.extractors import EXTRACTORS, ClipExtractor, Preprocessing, create_extractor, spec_of
from xelvad.extractors.flow import Flow
from xelvad.extractors.preprocessing import SideBySide
from xelvad.extractors.runtimes import Engine, fold_batch_norm
from xelvad.extractors.weights import known

Network = Callable[[Tensor], Tensor]
Clips = NDArray[np.uint8]

COSINE = 0.999  # of the same clip's features in half and in single precision, at least
HALF_LARGEST = 65504.0  # float16 holds no larger number
GEMM_SHARE = {"c3d": 40.0, "r3d-18": 40.0, "i3d-rgb": 25.0, "i3d-r50": 25.0}  # per cent, at least
TRIED = ("i3d-rgb", "c3d", "r3d-18")  # of all extractors, where little is to be computed
COMPILED_SMALL = "c3d"  # has the fewest layers
HARD = ("noise", "flash")  # of all pictures, where little is to be computed
FRAMES, HEIGHT, WIDTH = 16, 240, 320


# --- what networks are shown -----------------------------------------------------------------------------------------


def pictures() -> dict[str, Clips]:
    """A clip ``(16, 240, 320, 3)`` of each kind: what moves, and what is hard on half precision."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [[np.sin((x + 4 * t) / 9 + c) * np.cos((y - 2 * t) / 13) for c in range(3)] for t in range(FRAMES)]
    moving = 127 + 90 * np.asarray(waves).transpose(0, 2, 3, 1) + rng.normal(0, 8, (FRAMES, HEIGHT, WIDTH, 3))
    flash = np.full((FRAMES, HEIGHT, WIDTH, 3), 12, np.uint8)
    flash[FRAMES // 2] = 255
    return {
        "moving": moving.clip(0, 255).astype(np.uint8),
        "black": np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8),
        "noise": rng.integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), np.uint8),
        "flash": flash,
    }


def inputs_of(preprocessing: Preprocessing, clips: Clips) -> Tensor:
    """What a network is shown of clips ``(B, 16, 240, 320, 3)``; flow is made up from the same pictures.

    True flow would need OpenCV, and takes seconds a clip.
    """
    if isinstance(preprocessing, SideBySide):
        return torch.cat([inputs_of(stream, clips).float() for stream in preprocessing.streams], dim=1)
    if isinstance(preprocessing, Flow):
        top, left = (HEIGHT - preprocessing.crop) // 2, (WIDTH - preprocessing.crop) // 2
        cut = clips[:, :, top : top + preprocessing.crop, left : left + preprocessing.crop, :2]
        return torch.from_numpy(cut / np.float32(127.5) - 1).permute(0, 4, 1, 2, 3)
    return preprocessing(clips)


def noise_for(name: str, count: int) -> Tensor:
    """Preprocessed noise for so many clips, uint8 ``(B, 3, 16, crop, crop)``, channels last as pictures come."""
    crop = spec_of(name).preprocessing.crop
    generator = torch.Generator().manual_seed(0)
    few = torch.randint(0, 256, (min(count, 8), FRAMES, crop, crop, 3), dtype=torch.uint8, generator=generator)
    return few.repeat(-(-count // len(few)), 1, 1, 1, 1)[:count].permute(0, 4, 1, 2, 3)


def chosen_of(names: Sequence[str], setting: Setting) -> list[str]:
    """Those whose speed is asked for."""
    return [name for name in names if name in setting.networks]


# --- networks --------------------------------------------------------------------------------------------------------


def missing_library(name: str) -> str:
    """Why an extractor cannot be built here; empty where it can."""
    spec = spec_of(name)
    try:
        for each in (spec, *map(spec_of, spec.streams)):
            import_module(each.module, "xelvad.extractors")
    except ModuleNotFoundError as error:
        return f"{(error.name or str(error)).partition('.')[0]} is not installed"
    return ""


@lru_cache(maxsize=4)
def random_extractor(name: str) -> ClipExtractor:
    """With random weights, on the CPU."""
    return create_extractor(name, "random")


def precision(setting: Setting) -> torch.dtype:
    """What networks compute in: half precision on a GPU, as `Engine` does."""
    return torch.float16 if setting.is_cuda else torch.float32


def on_device(name: str, setting: Setting, layout: torch.memory_format = torch.channels_last_3d) -> nn.Module:
    """An extractor's network as `Engine` runs it eagerly, for batches that are on the device already."""
    network = fold_batch_norm(random_extractor(name).network)
    return network.to(setting.device, precision(setting)).to(memory_format=layout)


def work_of(name: str) -> float:
    """Floating-point operations of one clip; a multiplication and an addition are two. Computes nothing."""
    network = copy.deepcopy(random_extractor(name).network).to("meta")
    crop, channels = spec_of(name).preprocessing.crop, spec_of(name).preprocessing.channels
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.empty(1, channels, FRAMES, crop, crop, dtype=torch.uint8, device="meta"))
    return float(counter.get_total_flops())


# --- as exact as on the CPU ------------------------------------------------------------------------------------------


def parity(setting: Setting, section: Section) -> None:
    """Features of the engine on the device against single precision on the CPU, of ordinary and of hard pictures."""
    if not setting.is_cuda:
        section.notes.append("no half precision on the CPU: the engine's float32 against the same network as built")
    shown = {kind: clip for kind, clip in pictures().items() if not setting.small or kind in HARD}
    chosen = [name for name in EXTRACTORS if not setting.small or (name in TRIED and name in setting.networks)]
    for name in chosen:
        if why := missing_library(name):
            section.missing(f"{name}, random weights", why)
        elif section.left < 0:
            section.missing(f"{name}, random weights", "no time left", must=True)
        else:
            _compare(name, "random", shown, setting, section)
            default = spec_of(name).default_weights
            if default and known(default).is_here:
                _compare(name, default, shown, setting, section)


def _compare(name: str, weights: str, shown: dict[str, Clips], setting: Setting, section: Section) -> None:
    extractor = create_extractor(name, weights)
    if extractor.spec.crops:  # each picture is as many
        shown = {kind: shown[kind] for kind in HARD}
    inputs = inputs_of(extractor.spec.preprocessing, np.stack(list(shown.values())))
    if weights == "random":
        enliven(extractor, inputs[::2])
    with largest_activation(extractor) as largest:
        expected = extractor(inputs).numpy()
    found = Engine(extractor, "eager", setting.device)(list(inputs))
    alike = [cosine(a, b) for a, b in zip(found, expected, strict=True)]
    worst = int(np.argmin(alike))
    apart = max(cosine(expected[i], expected[j]) for i in range(len(expected)) for j in range(i))
    error = np.abs(found - expected).max() / np.abs(expected).max()
    section.row(
        f"{name}, {weights} weights" if weights == "random" else f"{name}, {weights}",
        alike[worst],
        "cosine",
        at_least=COSINE,
        must=True,
        note=f"worst of {', '.join(shown)}: {list(shown)[worst]}; largest error {100 * error:.2g} % of the largest "
        f"feature; features of two of these pictures are {apart:.4f} alike at most",
    )
    if extractor.spec.module == ".c3d":
        section.row(f"{name}, {weights}: largest activation", largest[0], "", at_most=HALF_LARGEST)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Of two sets of features; 1 where both are nothing but zeros."""
    one, other = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else float(np.array_equal(one, other))


@torch.no_grad()
def enliven(extractor: ClipExtractor, inputs: Tensor) -> None:
    """Let random weights carry what they are shown to the end, as trained ones do.

    As PyTorch draws them, signals halve from layer to layer, and features would be nothing but biases, or too small for
    half precision. Batch-norms get the statistics of ``inputs``, and networks without any norm He's weights.
    """
    modules = list(extractor.network.modules())
    norms = [module for module in modules if isinstance(module, nn.BatchNorm3d)]
    if not norms and not any(isinstance(module, nn.LayerNorm) for module in modules):
        for module in modules:
            if isinstance(module, (nn.Conv3d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, generator=torch.Generator().manual_seed(0))
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of what it is shown
        norm.train()
    if norms:
        extractor.network(inputs.flatten(0, -5))
    extractor.eval()


@contextmanager
def largest_activation(extractor: ClipExtractor) -> Iterator[list[float]]:
    """The largest number that any layer gives within a block, sign apart; first and only item of the list."""
    largest = [0.0]

    def look(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            largest[0] = max(largest[0], float(output.abs().max()))

    leaves = [module for module in extractor.network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(look) for leaf in leaves]
    try:
        yield largest
    finally:
        for hook in hooks:
            hook.remove()


# --- how fast --------------------------------------------------------------------------------------------------------


def matrix_rate(setting: Setting) -> float:
    """Operations a second of a matrix product in the precision that networks compute in."""
    size = 8192 if setting.is_cuda else 1024
    a, b = (torch.randn(size, size, device=setting.device, dtype=precision(setting)) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: a @ b, setting)


@torch.inference_mode()
def speed(setting: Setting, section: Section) -> None:
    """Clips a second of each network by batch, the batch on the device already; what share of a matrix product's."""
    peak = matrix_rate(setting)
    section.figures["gemm"] = peak
    size, kind = ("8192", "float16") if setting.is_cuda else ("1024", "float32")
    section.row(f"matrix product {size} x {size}, {kind}", peak / 1e12, "TFLOP/s")
    for name in setting.networks:
        if why := missing_library(name):
            section.missing(name, why)
        elif section.left < 0:
            section.missing(name, "no time left")
        else:
            _speed_of(name, peak, setting, section)


def _speed_of(name: str, peak: float, setting: Setting, section: Section) -> None:
    def rate(way: str, network: Network, batch: Tensor) -> float:
        found = len(batch) / seconds_of(lambda: network(batch), setting)
        note = f"{found * work / 1e12:.3g} TFLOP/s"
        section.row(f"{name}, {way}, batch {len(batch)}", found, "clips/s", note=note)
        return found

    network, work = on_device(name, setting), work_of(name)
    most = noise_for(name, setting.batches[-1]).to(setting.device)
    best = max(rate("eager", network, most[:size]) for size in setting.batches)
    section.figures[name] = best
    goal = GEMM_SHARE.get(name) if setting.is_cuda else None
    section.row(f"{name}, share of the matrix product", 100 * best * work / peak, "%", at_least=goal)
    batch = most[: setting.batch]
    if setting.is_cuda:
        torch.backends.cudnn.benchmark = True
        rate("eager, cuDNN tries its kernels", network, batch)
        torch.backends.cudnn.benchmark = False
    rate("eager, clips stacked channels first", network, batch.contiguous())
    network = on_device(name, setting, torch.contiguous_format)
    rate("eager, all channels first", network, batch.contiguous())


def compiled(setting: Setting, section: Section) -> None:
    """`torch.compile`, one batch a network: as ``--runtime compile`` runs it, then whole batches at once.

    Compiling takes up to a minute each, so it comes last, and only while there is time for one as slow as the slowest.
    """
    chosen = [COMPILED_SMALL] if setting.small else sorted(setting.networks, key=lambda name: name != COMPILED_SMALL)
    slowest = 5.0
    for way, start in (("clip by clip, as --runtime compile", _compiled_engine), ("whole batches", _compiled_whole)):
        for name in chosen:
            what = f"{name}, compiled, {way}, batch {setting.batch}"
            if why := missing_library(name):
                section.missing(what, why)
                continue
            if section.left < 1.3 * slowest:
                section.missing(what, f"no time left: compiling took up to {slowest:.0f} s")
                continue
            before = section.left
            try:
                run = start(name, setting)
            except UserError as error:
                section.missing(what, str(error))
                continue
            seconds = seconds_of(run, setting)
            slowest = max(slowest, before - section.left)
            note = f"{before - section.left:.0f} s with compiling"
            section.row(what, setting.batch / seconds, "clips/s", note=note)


def _compiled_engine(name: str, setting: Setting) -> Callable[[], object]:
    engine = Engine(random_extractor(name), "compile", setting.device)
    clips = list(noise_for(name, setting.batch))
    return lambda: engine(clips)


def _compiled_whole(name: str, setting: Setting) -> Callable[[], object]:
    network = torch.compile(on_device(name, setting), dynamic=False)
    batch = noise_for(name, setting.batch).to(setting.device)

    def run() -> Tensor:
        with torch.no_grad():
            return network(batch)

    return run
