"""MGFN's losses and network against the published formulas in NumPy."""

import math

import numpy as np
import pytest
import torch
from scipy.special import erf

from xelvad.models import MGFN, Bags
from xelvad.models.contextual.mgfn import attraction, longest_clips, separation

from ...helpers.layers import batch_norms, convolved, disturb, layer_normed
from ...helpers.numeric import (
    BATCHES,
    Array,
    Videos,
    assert_loss_is,
    assert_network_loss_is,
    draw_bags,
    draw_scores,
    parameters_of,
    sigmoid,
    split,
)
from ...helpers.planted import assert_learns_planted

Lengths = tuple[tuple[int, ...], tuple[int, ...]]


def attended(video: Array, embed: Array) -> Array:
    """Self-attention within one video, head by head: ``(T, C) -> (T, C)``."""
    channels = video.shape[1]
    query, key, value = np.split(video @ embed.T, 3, axis=1)
    seen = np.zeros_like(video)
    for first in range(0, channels, 64):
        head = slice(first, first + 64)
        weights = np.exp(query[:, head] @ key[:, head].T / 8)
        seen[:, head] = weights / weights.sum(axis=1, keepdims=True) @ value[:, head]
    return seen


def related(video: Array, weight: Array, bias: Array) -> Array:
    """A kernel ``(1, 5)`` for each head; every so many channels belong to the same one."""
    heads, padded = len(weight), np.pad(video, ((2, 2), (0, 0)))
    out = np.zeros_like(video)
    for head in range(heads):
        for tap in range(5):
            out[:, head::heads] += weight[head, 0, tap] * padded[tap : tap + len(video), head::heads]
        out[:, head::heads] += bias[head]
    return out


class Reference:
    """The published network, video by video."""

    def __init__(self, detector: MGFN, parameters: Videos) -> None:
        self.p = dict(zip((name for name, _ in detector.named_parameters()), parameters, strict=True))
        self.batch_norm = batch_norms(detector, self.p)

    def pair(self, name: str) -> tuple[Array, Array]:
        return self.p[f"{name}.weight"], self.p[f"{name}.bias"]

    def linear(self, clips: Array, name: str) -> Array:
        weight, bias = self.pair(name)
        return clips @ weight.T + bias

    def looks(self, videos: Videos, name: str) -> Videos:
        if f"{name}.embed.weight" in self.p:
            normed = [layer_normed(video, *self.pair(f"{name}.norm")) for video in videos]
            seen = [attended(video, self.p[f"{name}.embed.weight"]) for video in normed]
        else:
            values = [video @ self.p[f"{name}.value.weight"].T for video in self.batch_norm(videos, f"{name}.norm")]
            seen = [related(video, *self.pair(f"{name}.relate.conv")) for video in values]
        return [self.linear(video, f"{name}.out") for video in seen]

    def block(self, videos: Videos, name: str) -> Videos:
        videos = [video + convolved(video, *self.pair(f"{name}.shortcut.conv")) for video in videos]
        videos = [video + look for video, look in zip(videos, self.looks(videos, f"{name}.look"), strict=True)]
        after = []
        for video in videos:
            hidden = self.linear(layer_normed(video, *self.pair(f"{name}.feed_forward.0")), f"{name}.feed_forward.1")
            hidden = hidden * (1 + erf(hidden / math.sqrt(2))) / 2
            after.append(video + self.linear(hidden, f"{name}.feed_forward.3"))
        return after

    def __call__(self, videos: Videos) -> tuple[Videos, Videos]:
        """Features ``(T, width)`` and scores ``(T,)`` of each video."""
        lengths = [np.linalg.norm(video, axis=1)[:, None] for video in videos]
        x = [
            convolved(video, *self.pair("network.tokens.conv"))
            + 0.1 * convolved(length, *self.pair("network.amplify.conv"))
            for video, length in zip(videos, lengths, strict=True)
        ]
        for stage, depth, widen in (("glance", 3, "widen"), ("focus", 3, "widen_again"), ("focus_again", 2, None)):
            for number in range(depth):
                x = self.block(x, f"network.{stage}.{number}")
            if widen:
                normed = [layer_normed(video, *self.pair(f"network.{widen}.0")) for video in x]
                x = [self.linear(video, f"network.{widen}.1") for video in normed]
        features = [layer_normed(video, *self.pair("network.norm")) for video in x]
        return features, [sigmoid(self.linear(video, "scorer.0"))[:, 0] for video in features]


def best_three(values: Array) -> Array:
    order = np.argsort(-values)[:3]
    return order[[0, 0, 0] if len(values) == 1 else [0, 0, 1] if len(values) == 2 else [0, 1, 2]]


def reference_attraction(magnitudes: Array) -> float:
    pairs = [(i, j) for i in range(len(magnitudes)) for j in range(i)]
    return float(np.mean([np.sum((magnitudes[i] - magnitudes[j]) ** 2) for i, j in pairs])) if pairs else 0.0


def reference_separation(abnormal: Array, normal: Array, margin: float) -> float:
    return float(np.mean([max(0, margin - np.linalg.norm(a - n)) ** 2 for a in abnormal for n in normal]))


def reference_loss(detector: MGFN, parameters: Videos, clips: Array, bags: Bags) -> float:
    videos = [video for kind in split(clips, bags) for video in kind]
    features, scores = Reference(detector, parameters)(videos)
    count = len(bags.abnormal)
    entropy, magnitudes = [], []
    for number, (video, of_clips) in enumerate(zip(features, scores, strict=True)):
        best = best_three(np.linalg.norm(video, axis=1))
        magnitudes.append(1024 / video.shape[1] * np.abs(video[best]).sum(axis=1))
        verdict = of_clips[best].mean()
        entropy.append(-np.log(verdict if number < count else 1 - verdict))
    long, short = np.array(magnitudes[:count]), np.array(magnitudes[count:])
    contrast = reference_attraction(long) + reference_attraction(short) + 1e-3 * reference_separation(long, short, 200)
    steps = sum(np.sum(np.diff(video) ** 2) for video in scores[:count])
    length = np.sqrt(sum(np.sum(video**2) for video in scores[:count]))
    return float(np.mean(entropy) + 1e-3 * contrast + 8e-3 * length + 8e-4 * steps)


@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("training", [False, True])
def test_the_total_is_the_weighted_formulas_of_the_network(lengths: Lengths, training: bool) -> None:
    """In training, batch norms take the statistics of all clips of the batch."""
    torch.manual_seed(0)
    detector = disturb(MGFN(6, dropout=0.0).double()).train(training)
    bags = draw_bags(lengths, 6)
    expected = reference_loss(detector, parameters_of(detector), bags.clips.numpy(), bags)
    assert detector.loss(bags).total.item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("training", [False, True])
def test_its_gradients_are_those_of_the_formulas(training: bool) -> None:
    torch.manual_seed(0)
    detector = disturb(MGFN(6, dropout=0.0).double()).train(training)
    bags = draw_bags(((3, 1), (2, 4)), 6)
    assert_network_loss_is(lambda p, clips: reference_loss(detector, p, clips, bags), detector, bags)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 5), (2, 32)])
@pytest.mark.parametrize("feature_dim", [1, 7, 400])
def test_the_scores_are_those_of_the_published_network(shape: tuple[int, int], feature_dim: int) -> None:
    torch.manual_seed(0)
    detector = disturb(MGFN(feature_dim).double()).eval()
    videos = torch.randn(*shape, feature_dim).double()
    _, expected = Reference(detector, parameters_of(detector))(list(videos.numpy()))
    np.testing.assert_allclose(detector.score(videos).detach(), expected, atol=1e-8)


def test_the_layers_have_the_published_sizes_at_2048_features() -> None:
    with torch.device("meta"):
        detector = MGFN(2048)
        sizes = {name: tuple(parameter.shape) for name, parameter in detector.named_parameters()}
        widths = {feature_dim: MGFN(feature_dim).network.width for feature_dim in (4, 300, 512, 768, 1024, 4096)}
    assert sizes["network.tokens.conv.weight"] == (64, 2048, 3)
    assert sizes["network.amplify.conv.weight"] == (64, 1, 3)
    assert sizes["network.glance.2.look.embed.weight"] == (3 * 64, 64)
    assert sizes["network.widen.1.weight"] == (128, 64)
    assert sizes["network.focus.2.look.relate.conv.weight"] == (2, 1, 5)
    assert sizes["network.widen_again.1.weight"] == (1024, 128)
    assert sizes["network.focus_again.1.look.relate.conv.weight"] == (16, 1, 5)
    assert sizes["network.focus_again.1.feed_forward.1.weight"] == (4096, 1024)
    assert sizes["scorer.0.weight"] == (1, 1024)
    assert not {"network.glance.3.look.out.weight", "network.focus.3.look.out.weight"} & sizes.keys()
    assert widths == {4: 128, 300: 128, 512: 256, 768: 384, 1024: 512, 4096: 1024}


@pytest.mark.parametrize("length", [1, 2, 3, 32])
def test_the_three_longest_clips_are_chosen_of_fewer_some_several_times(length: int) -> None:
    values = draw_scores((length, 5), 0)
    chosen = longest_clips([torch.from_numpy(each) for each in values], 3)
    np.testing.assert_array_equal(chosen, [best_three(each) for each in values])


@pytest.mark.parametrize("videos", [1, 2, 5])
def test_the_attraction_and_its_gradients_are_the_formula(videos: int) -> None:
    magnitudes = np.random.default_rng(0).random((videos, 3))
    assert_loss_is(lambda m: reference_attraction(m[0]), lambda m: attraction(m[0]), [magnitudes])


@pytest.mark.parametrize("counts", [(1, 1), (4, 2), (3, 5)])
def test_the_separation_and_its_gradients_are_the_formula(counts: tuple[int, int]) -> None:
    """Of pairs that are nearer than the margin and of others."""
    rng = np.random.default_rng(0)
    abnormal, normal = (rng.random((count, 3)) for count in counts)
    for margin in (0.5, 2.0):
        assert_loss_is(
            lambda a, n, margin=margin: reference_separation(a[0], n[0], margin),
            lambda a, n, margin=margin: separation(a[0], n[0], margin),
            [abnormal],
            [normal],
        )


def test_in_training_a_random_few_clips_can_be_chosen() -> None:
    """The loss of a step then is another at each draw, and without dropout it is not."""
    for dropout, draws in ((0.7, 8), (0.0, 1)):
        torch.manual_seed(0)
        detector, bags = MGFN(8, dropout=dropout).train(), draw_bags(((40,), (40,)), 8)
        bags = Bags(bags.clips.float(), bags.abnormal, bags.normal)
        assert len({detector.loss(bags).total.item() for _ in range(8)}) == draws


@pytest.mark.parametrize("with_xel", [False, True])
def test_planted_anomalies_are_found(with_xel: bool) -> None:
    torch.manual_seed(0)
    assert_learns_planted(MGFN(16), steps=60, with_xel=with_xel)
