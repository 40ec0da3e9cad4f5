"""Bags of any length, and what holds for every detector: no video depends on its neighbours."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from xelvad.models import DETECTORS, MIL, SRF, SVM, ARNet, Bags, DetectorLoss, LearningDetector, hardest, highest

from ..helpers.numeric import BATCHES, assert_loss_is, draw_bags, draw_scores, sigmoid
from ..helpers.planted import FEATURE_DIM, assert_learns_planted

Lengths = tuple[tuple[int, ...], tuple[int, ...]]
LEARNING: list[type[LearningDetector]] = [kind for kind in DETECTORS.values() if issubclass(kind, LearningDetector)]
PLAIN = [MIL, SRF, ARNet]  # a batch's loss is the mean over pairs of its videos, scores come from one chain of layers


def alone(bags: Bags, abnormal: int, normal: int) -> Bags:
    """One abnormal and one normal video of a batch, as a batch of their own."""
    abnormal_clips, normal_clips = bags.split(bags.clips)
    return Bags.pack([abnormal_clips[abnormal]], [normal_clips[normal]])


@pytest.mark.parametrize("lengths", BATCHES)
def test_packed_videos_come_apart_as_they_went_in(lengths: Lengths) -> None:
    abnormal, normal = ([torch.randn(length, 3) for length in kind] for kind in lengths)
    bags = Bags.pack(abnormal, normal)
    assert (bags.abnormal, bags.normal) == lengths
    assert torch.equal(bags.clips, torch.cat([*abnormal, *normal]))
    for packed, given in zip(bags.split(bags.clips), (abnormal, normal), strict=True):
        assert all(torch.equal(*pair) for pair in zip(packed, given, strict=True))
    sums = bags.split(bags.clips.sum(dim=1))
    assert [len(video) for video in sums[0]] == list(lengths[0])
    torch.testing.assert_close(sums[1][-1], normal[-1].sum(dim=1))


@pytest.mark.parametrize(
    ("abnormal", "normal"), [([0], [3]), ([3], [0]), ([2, 0, 2], [1]), ([2], [1, 0]), ([], [])], ids=str
)
def test_a_video_without_clips_is_refused(abnormal: list[int], normal: list[int]) -> None:
    kinds = [[torch.randn(length, 3) for length in kind] for kind in (abnormal, normal)]
    with pytest.raises(ValueError, match="at least one"):
        Bags(torch.cat([*kinds[0], *kinds[1], torch.empty(0, 3)]), tuple(abnormal), tuple(normal))
    if abnormal:
        with pytest.raises(ValueError, match="at least one"):
            Bags.pack(*kinds)


@pytest.mark.parametrize("clips", [4, 6])
def test_lengths_that_are_not_those_of_the_clips_are_refused(clips: int) -> None:
    with pytest.raises(ValueError, match=f"{clips} clips"):
        Bags(torch.randn(clips, 3), (2,), (3,))


def test_bags_move_to_a_device_as_a_whole() -> None:
    moved = Bags(torch.randn(5, 3), (2,), (1, 2)).to("meta")
    assert moved.clips.device.type == "meta"
    assert (moved.abnormal, moved.normal) == ((2,), (1, 2))


@pytest.mark.parametrize("lengths", [(1,), (7, 1, 40)])
def test_the_highest_scores_and_their_gradients_are_numpys(lengths: tuple[int, ...]) -> None:
    weights = np.arange(1.0, len(lengths) + 1)
    assert_loss_is(
        lambda s: float(sum(w * video.max() for w, video in zip(weights, s, strict=True))),
        lambda s: highest(s) @ torch.from_numpy(weights),
        draw_scores(lengths, 0),
    )


@pytest.mark.parametrize("lengths", [(1,), (3, 3), (7, 1, 40)])
def test_the_hardest_clips_are_numpys(lengths: tuple[int, ...]) -> None:
    videos, scores = [torch.randn(length, 5) for length in lengths], draw_scores(lengths, 0)
    expected = [video[int(np.argmax(each))].numpy() for video, each in zip(videos, scores, strict=True)]
    np.testing.assert_array_equal(hardest(videos, [torch.from_numpy(each) for each in scores]), expected)


def test_a_loss_is_the_sum_of_its_terms() -> None:
    loss = DetectorLoss.of({"one": torch.tensor(1.0), "two": torch.tensor(2.5)}, (), ())
    assert loss.total.item() == 3.5


@pytest.mark.parametrize("kind", DETECTORS.values())
@pytest.mark.parametrize("shape", [(4,), (1, 4), (7, 4), (3, 10, 4), (0, 4)])
def test_every_detector_scores_clips_of_any_leading_shape_in_the_unit_interval(kind, shape: tuple[int, ...]) -> None:
    detector = kind(4).eval()
    assert detector.feature_dim == 4
    if detector.context and len(shape) == 1:
        shape = (1, 4)  # a clip alone is a video of one
    features = 10 * torch.randn(shape)
    scores = detector.score(features)
    assert scores.shape == shape[:-1]
    assert ((scores >= 0) & (scores <= 1)).all()
    if detector.context:  # the last but one dimension is time
        alone = [detector.score(video) for video in features.view(math.prod(shape[:-2]), *shape[-2:])]
        torch.testing.assert_close(scores.flatten(), torch.cat(alone))
    else:
        torch.testing.assert_close(scores.flatten(), detector.score(features.reshape(-1, 4)))


def test_an_svm_scores_the_side_of_its_plane_by_platts_sigmoid() -> None:
    svm = SVM(3).double()
    x = np.random.default_rng(0).normal(size=(5, 3))
    weight, bias = (parameter.detach().numpy() for parameter in svm.parameters())
    np.testing.assert_allclose(svm.score(torch.from_numpy(x)).detach(), sigmoid(x @ weight[0] + bias[0]), atol=1e-12)


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("lengths", [((1, 40, 7), (300, 1, 2)), ((3, 3), (3, 3))])
def test_a_batch_is_its_videos_alone_whatever_their_lengths(kind: type[LearningDetector], lengths: Lengths) -> None:
    """No clip of another video, and none that does not exist, enters scores, losses or gradients."""
    torch.manual_seed(0)
    detector = kind(4).double().eval()
    bags = draw_bags(lengths, 4)
    loss = detector.loss(bags)
    gradient = torch.autograd.grad(loss.total, list(detector.parameters()))
    numbers = range(len(lengths[0]))
    pairs = [(a, n, detector.loss(alone(bags, a, n))) for a in numbers for n in numbers]
    for a, n, pair in pairs:
        torch.testing.assert_close(loss.abnormal_scores[a], pair.abnormal_scores[0])
        torch.testing.assert_close(loss.normal_scores[n], pair.normal_scores[0])
    for term, value in loss.terms.items():
        torch.testing.assert_close(value, torch.stack([pair.terms[term] for _, _, pair in pairs]).mean())
    mean = torch.stack([pair.total for _, _, pair in pairs]).mean()
    for together, apart in zip(gradient, torch.autograd.grad(mean, list(detector.parameters())), strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("kind", LEARNING)
def test_the_scores_of_a_loss_are_the_detectors_and_have_a_gradient(kind: type[LearningDetector]) -> None:
    detector = kind(4).double().eval()
    bags = draw_bags(((5, 2), (1, 9)), 4)
    loss = detector.loss(bags)
    for ours, clips in zip([loss.abnormal_scores, loss.normal_scores], bags.split(bags.clips), strict=True):
        for scores, video in zip(ours, clips, strict=True):
            torch.testing.assert_close(scores, detector.score(video))
            assert scores.requires_grad


@pytest.mark.parametrize("kind", LEARNING)
def test_no_score_depends_on_the_other_videos_of_a_batch(kind: type[LearningDetector]) -> None:
    """Whatever their lengths: what is filled in to lay videos side by side, if anything is, changes nothing."""
    torch.manual_seed(0)
    detector = kind(4).double().eval()
    bags = draw_bags(((1, 40, 7), (100, 1, 7)), 4)
    scores = detector.loss(bags)
    for a in range(3):
        pair = detector.loss(alone(bags, a, a))
        torch.testing.assert_close(scores.abnormal_scores[a], pair.abnormal_scores[0])
        torch.testing.assert_close(scores.normal_scores[a], pair.normal_scores[0])


@pytest.mark.parametrize("kind", PLAIN)
def test_scores_of_a_training_step_are_those_that_its_dropout_gave(kind: type[LearningDetector]) -> None:
    """XEL compares the bank with the highest of these scores; they belong to the same draw as the loss."""
    detector = kind(4).train()
    bags = draw_bags(((9,), (9,)), 4)
    bags = Bags(bags.clips.float(), bags.abnormal, bags.normal)
    torch.manual_seed(3)
    loss = detector.loss(bags)
    torch.manual_seed(3)
    torch.testing.assert_close(torch.cat([*loss.abnormal_scores, *loss.normal_scores]), detector.score(bags.clips))
    assert not torch.equal(loss.abnormal_scores[0], detector.loss(bags).abnormal_scores[0])


@pytest.mark.parametrize("kind", PLAIN)
def test_dropout_drops_the_published_share_and_keeps_the_mean(kind: type[LearningDetector]) -> None:
    torch.manual_seed(0)
    for dropout in [layer for layer in kind(4).scorer if type(layer).__name__ == "Dropout"]:
        kept = dropout.train()(torch.ones(200_001))
        assert kept.count_nonzero().item() / len(kept) == pytest.approx(1 - dropout.p, abs=0.005)
        assert kept.max().item() == pytest.approx(1 / (1 - dropout.p), rel=1e-4)
        assert torch.equal(dropout.eval()(kept), kept)


@pytest.mark.parametrize("kind", LEARNING)
def test_every_parameter_learns(kind: type[LearningDetector]) -> None:
    """At the second step: what lies in front of a layer that begins at zero has a gradient once that has moved."""
    torch.manual_seed(0)
    detector = kind(4).train()
    bags = draw_bags(((9, 3), (9, 4)), 4)
    optimiser = torch.optim.Adam(detector.parameters())
    for _ in range(2):
        optimiser.zero_grad()
        detector.loss(Bags(bags.clips.float(), bags.abnormal, bags.normal)).total.backward()
        optimiser.step()
    moved: list[Tensor | None] = [parameter.grad for parameter in detector.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() and gradient.any() for gradient in moved)


@pytest.mark.parametrize("with_xel", [False, True])
@pytest.mark.parametrize("kind", [MIL, ARNet])
def test_it_finds_a_planted_anomaly(kind: type[LearningDetector], with_xel: bool) -> None:
    torch.manual_seed(0)
    assert_learns_planted(kind(FEATURE_DIM), 150, with_xel)


def test_srf_finds_a_planted_anomaly_with_xel() -> None:
    """Without it the bursts that both kinds have, a cluster of their own, hold it at an AUC of 0.83."""
    torch.manual_seed(0)
    assert_learns_planted(SRF(FEATURE_DIM, labels="guided"), 150, with_xel=True)
