"""Runtimes: the same network, the same features, as fast as the machine allows.

``eager`` folds batch-norm into the convolutions before it. ``compile`` is `torch.compile` with frozen weights.
``openvino`` is Intel's inference engine, for the processors that it knows. In which arithmetic: see `precision`.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
import torch.fx
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..errors import UserError
from .networks import ClipExtractor, Normalise, over_crops
from .precision import Arithmetic, Calibration, Precision, choose_precision, mark_of

Runtime = Literal["auto", "eager", "compile", "openvino"]
Network = Callable[[Tensor], Tensor]  # (n, C, T, H, W) -> (n, F) in floating point, on the engine's device


def choose_runtime(runtime: Runtime, device: torch.device) -> Runtime:
    """What "auto" stands for: the fastest that is installed (benchmarks/extraction.py).

    Raises:
        UserError: the runtime is not installed, or not for this device.
    """
    if runtime == "auto":
        return "openvino" if device.type == "cpu" and find_spec("openvino") is not None else "eager"
    if runtime == "openvino":
        if device.type != "cpu":
            raise UserError(f"--runtime openvino runs on the CPU, not on {device}; take eager or compile")
        if find_spec("openvino") is None:
            raise UserError('--runtime openvino is not installed: pip install "xelvad[openvino]"')
    if runtime == "compile" and device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        raise UserError("--runtime compile needs a C++ compiler (g++ or clang++) on the CPU; take eager or openvino")
    return runtime


def choose_device(device: str) -> torch.device:
    """The device of that name; "auto" is a GPU if there is one.

    Raises:
        UserError: there is no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch's ways of saying that it has no such device
        reason = str(error).split("\n")[0]
        raise UserError(f"--device {device}: not to be had here ({reason})") from error
    return chosen


class Engine:
    """An extractor, ready to run on a device by a runtime.

    Args:
        extractor: the network with its weights; it is not changed.
        runtime: see the module.
        device: "cpu", "cuda", "cuda:1", or "auto".
        precision: see `choose_precision`.
        calibration: clips to quantise by; only int8 needs any.

    Attributes:
        fingerprint: of the features that it computes.

    Raises:
        UserError: the device, the runtime or the precision is not to be had here.
    """

    def __init__(
        self,
        extractor: ClipExtractor,
        runtime: Runtime = "auto",
        device: str = "auto",
        precision: Precision = "auto",
        calibration: Calibration | None = None,
    ) -> None:
        self.extractor, self.device = extractor, choose_device(device)
        self.runtime = choose_runtime(runtime, self.device)
        self.arithmetic = choose_precision(precision, extractor.spec, self.runtime, self.device)
        if self.arithmetic == "float32" and self.device.type != "cpu":
            torch.backends.cudnn.allow_tf32 = False  # else convolutions on GPUs would keep ten bits of 23
        self.fingerprint = extractor.fingerprint + mark_of(self.arithmetic, calibration)
        if self.runtime == "openvino":
            self._network = _openvino(extractor, self.arithmetic, calibration)
        else:
            self._network = START[self.runtime](extractor, self.device, self.arithmetic)

    @property
    def description(self) -> str:
        """Runtime, version, precision and device, for the record."""
        library = "openvino" if self.runtime == "openvino" else "torch"
        return f"{self.runtime} ({library} {version(library)}), {self.arithmetic}, {self.device}"

    def __call__(self, inputs: Sequence[Tensor]) -> NDArray[np.float32]:
        """Features ``(n, feature_dim)``, or ``(n, crops, feature_dim)``, of n preprocessed clips of one shape each."""
        return self.finish(self.start(inputs))

    @torch.inference_mode()
    def start(self, inputs: Sequence[Tensor]) -> Started:
        """The same, which a GPU may still be computing: what the caller does meanwhile costs no time."""
        on_gpu = self.device.type == "cuda"
        batch = stacked(inputs, page_locked=on_gpu)
        features = over_crops(self._network, batch.to(self.device, non_blocking=True))
        if not on_gpu:
            return Started(features)
        here = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
        here.copy_(features, non_blocking=True)
        return Started(here, torch.cuda.current_stream(self.device).record_event())

    @staticmethod
    def finish(started: Started) -> NDArray[np.float32]:
        """What `start` has begun, once it is there; batches behind it are not waited for."""
        if started.ready is not None:
            started.ready.synchronize()
        found: NDArray[np.float32] = started.features.float().numpy()
        return found


@dataclass(frozen=True)
class Started:
    """Features on their way.

    Attributes:
        features: ``(n, …, F)`` on the CPU, complete once ``ready`` has come to pass.
        ready: None where they are complete.
    """

    features: Tensor
    ready: torch.cuda.Event | None = None


def stacked(inputs: Sequence[Tensor], page_locked: bool = False) -> Tensor:
    """One batch of clips ``(…, C, T, H, W)``, whose memory runs channels last, as that of clips does.

    Args:
        inputs: the clips.
        page_locked: in memory that a GPU reads while it computes.
    """
    *lead, channels, length, height, width = inputs[0].shape
    shape = (len(inputs), *lead, length, height, width, channels)
    room = torch.empty(shape, dtype=inputs[0].dtype, pin_memory=page_locked)
    return torch.stack(list(inputs), out=room.movedim(-1, -4))


def _eager(extractor: ClipExtractor, device: torch.device, arithmetic: Arithmetic) -> Network:
    return _on(fold_batch_norm(extractor.network), device, arithmetic)


def _on(network: nn.Module, device: torch.device, arithmetic: Arithmetic) -> Network:
    dtype: torch.dtype = getattr(torch, arithmetic)
    network = network.to(device, dtype).to(memory_format=torch.channels_last_3d)

    def run(x: Tensor) -> Tensor:
        # Pictures, 0 to 255, are exact in half precision; flow is the network's input already.
        result: Tensor = network(x if x.dtype == torch.uint8 else x.to(dtype))
        return result

    return run


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of a network whose batch-norms are part of the convolutions before them."""
    network = copy.deepcopy(network)
    modules = dict(network.named_modules())
    if not any(isinstance(module, nn.BatchNorm3d) for module in modules.values()):
        return network  # transformers: there is nothing to fold, and no graph of them to trace
    graph = _Tracer().trace(network)
    for node in [node for node in graph.nodes if node.op == "call_module"]:
        norm, before = modules[node.target], node.args[0]
        convolution = modules.get(str(before.target)) if before.op == "call_module" else None
        if isinstance(norm, nn.BatchNorm3d) and isinstance(convolution, nn.Conv3d) and len(before.users) == 1:
            _fold(norm, convolution)
            node.replace_all_uses_with(before)
            graph.erase_node(node)
    return torch.fx.GraphModule(network, graph)


def _fold(norm: nn.BatchNorm3d, convolution: nn.Conv3d) -> None:
    assert norm.running_mean is not None, "in evaluation it needs what it learned"
    assert norm.running_var is not None
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )


class _Tracer(torch.fx.Tracer):
    """Looks into no convolution, of whatever subclass, nor into what depends on the precision of the network."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (nn.Conv3d, Normalise)) or super().is_leaf_module(m, module_qualified_name)


def _compiled(extractor: ClipExtractor, device: torch.device, arithmetic: Arithmetic) -> Network:
    import torch._inductor.config as inductor

    network = torch.compile(_on(copy.deepcopy(extractor.network), device, arithmetic), dynamic=False)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad(), inductor.patch(freezing=True):
            return torch.cat([network(one) for one in x.split(1)])  # one shape, compiled once

    return run


START: dict[str, Callable[[ClipExtractor, torch.device, Arithmetic], Network]] = {
    "eager": _eager,
    "compile": _compiled,
}


def _openvino(extractor: ClipExtractor, arithmetic: Arithmetic, calibration: Calibration | None) -> Network:
    from .converted import compiled

    preprocessing = extractor.spec.preprocessing
    example = preprocessing(np.zeros((1, extractor.spec.clip_length, 240, 320, 3), np.uint8)).flatten(0, -5)[:1]
    request = compiled(extractor, example, arithmetic, calibration).create_infer_request()

    def run(x: Tensor) -> Tensor:
        rows = [request.infer([one.contiguous().numpy()])[0] for one in x.split(1)]
        return torch.from_numpy(np.concatenate(rows))

    return run
