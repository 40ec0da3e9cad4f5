"""Zhong et al.'s losses, labels and networks against the formulas in NumPy, and what cleaning is worth."""

import math
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from xelvad.models import MIL, XEL, Bags, GCNCleaner, LearningDetector, MarginSchedule, hardest
from xelvad.models.clipwise.zhong import certain, cleaned, dropout_variance, entropy, indirect_loss
from xelvad.models.context import scorer_of_rows

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
    three_layers,
)
from .test_graph import reference_cleaner

Lengths = tuple[tuple[int, ...], tuple[int, ...]]
OF_CLASSIFIER = 6  # parameters, which come first


def reference_entropy(scores: Videos, labels: Videos) -> float:
    losses = []
    for video, truth in zip(scores, labels, strict=True):
        losses.append(
            np.mean([-t * math.log(p) - (1 - t) * math.log(1 - p) for p, t in zip(video, truth, strict=True)])
        )
    return float(np.mean(losses))


def reference_indirect(scores: Videos, ensemble: Videos) -> float:
    pairs = zip(scores, ensemble, strict=True)
    return float(np.mean([np.mean([abs(p - m) for p, m in zip(*pair, strict=True)]) for pair in pairs]))


def reference_certain(variance: Array) -> Array:
    return variance <= sorted(variance)[int(0.3 * len(variance))]


def reference_variance(parameters: Videos, clips: Array, p: float = 0.6) -> tuple[Array, Array]:
    """Scores and their variance, the sums written out unit by unit: E[z²] - E[z]² of products of independent masks."""
    first, first_bias, second, second_bias, third, third_bias = parameters
    hidden = np.maximum(clips @ first.T + first_bias, 0)
    middle = hidden @ second.T + second_bias  # (n, 32)
    # Masks of mean 1 and mean square 1 / (1 - p). E[z²] is a sum over pairs of units k, l of the second dropout, within
    # it over j of the first.
    square = 1 / (1 - p)
    products = middle[:, :, None] * middle[:, None, :]  # (n, 32, 32), E of a product but for what one mask does twice
    products += (square - 1) * np.einsum("nj,kj,lj->nkl", hidden**2, second, second)
    masks = np.ones((32, 32)) + (square - 1) * np.eye(32)
    squares = np.einsum("k,nkl,kl,l->n", third[0], products, masks, third[0])
    logits = middle @ third[0]
    scores = sigmoid(logits + third_bias)
    return scores, (squares - logits**2) * (scores * (1 - scores)) ** 2


# --- losses and labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(1,), (32,), (4, 1, 9)])
def test_losses_and_their_gradients_are_the_formulas(lengths: tuple[int, ...]) -> None:
    scores, labels = draw_scores(lengths, 0), draw_scores(lengths, 1)
    fixed = [torch.from_numpy(video) for video in labels]
    assert_loss_is(lambda s: reference_entropy(s, labels), lambda s: entropy(s, fixed), scores)
    assert_loss_is(lambda s: reference_indirect(s, labels), lambda s: indirect_loss(s, fixed), scores)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 10, 31])
def test_the_certain_clips_are_those_of_the_lowest_variance(length: int) -> None:
    (variance,) = draw_scores((length,), 2)
    found = certain(torch.from_numpy(variance))
    np.testing.assert_array_equal(found, reference_certain(variance))
    assert found.sum() == int(0.3 * length) + 1
    assert certain(torch.ones(length)).all(), "equals are all as certain"


def test_labels_are_stretched_to_the_unit_interval() -> None:
    torch.testing.assert_close(cleaned(torch.tensor([0.4, 0.5, 0.6, 0.4])), torch.tensor([0.0, 0.5, 1.0, 0.0]))
    for flat in (torch.full((3,), 0.2), torch.tensor([0.0])):
        assert torch.equal(cleaned(flat), torch.ones(len(flat))), "some clip of an abnormal video is abnormal"


def test_the_variance_over_dropout_is_that_of_the_formula_and_of_many_draws() -> None:
    torch.manual_seed(0)
    scorer = GCNCleaner(6).scorer.double()
    clips = 3 * np.random.default_rng(0).normal(size=(5, 6))
    with torch.no_grad():
        hidden = scorer[:2](torch.from_numpy(clips))
        scores, variance = dropout_variance(scorer, hidden)
        draws = scorer.train()[2:-1](hidden.expand(4000, -1, -1))[..., 0]  # (4000, 5) logits
        assert torch.equal(scores, scorer.eval()[2:](hidden)[:, 0]), "without dropout"
    expected, expected_variance = reference_variance(parameters_of(scorer), clips)
    np.testing.assert_allclose(scores, expected, rtol=1e-10)
    np.testing.assert_allclose(variance, expected_variance, rtol=1e-10)
    slope = scores * (1 - scores)
    torch.testing.assert_close(variance / slope**2, draws.var(dim=0), rtol=0.1, atol=0)
    none = GCNCleaner(6, dropout=0.0).scorer
    assert not dropout_variance(none, none[:2](torch.randn(4, 6)))[1].any(), "nothing is uncertain without dropout"


# --- the total --------------------------------------------------------------------------------------------------------


def elsewhere(detector: GCNCleaner) -> GCNCleaner:
    """The mean of a cleaner that has come some way: it is not what the weights are."""
    detector.average += 0.05 * torch.randn_like(detector.average)
    return detector


def unpacked(detector: GCNCleaner) -> Videos:
    """The mean over the cleaner's weights, array by array."""
    shapes = [parameter.shape for parameter in detector.cleaner.parameters()]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = np.split(detector.average.numpy(), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


@pytest.mark.parametrize("steps", [0, 9])
@pytest.mark.parametrize("lengths", BATCHES)
def test_the_total_and_its_gradients_are_the_published_sum_of_both_networks(lengths: Lengths, steps: int) -> None:
    torch.manual_seed(1)  # at 0 the kink of a ReLU lies within the step of a slope
    detector = elsewhere(GCNCleaner(6, warmup=9).double().eval())
    detector.steps += steps
    bags = draw_bags(lengths, 6)
    # Targets come from where everything is now, and do not move.
    videos, _ = split(bags.clips.numpy(), bags)
    ensemble = [sigmoid(reference_cleaner(unpacked(detector), video)) for video in videos]
    before = parameters_of(detector)
    judged = [reference_variance(before[:OF_CLASSIFIER], video) for video in videos]
    sure = [reference_certain(variance) for _, variance in judged]
    targets = [scores[which] for (scores, _), which in zip(judged, sure, strict=True)]
    labels = [np.ones(len(video)) for video in videos]
    if steps == 9:
        labels = [
            (e - e.min()) / (e.max() - e.min()) if len(e) > 1 else label
            for e, label in zip(ensemble, labels, strict=True)
        ]

    def reference(parameters: Videos, clips: Array) -> float:
        abnormal, normal = split(three_layers(parameters[:OF_CLASSIFIER], clips)[1], bags)
        outputs = [
            [sigmoid(reference_cleaner(parameters[OF_CLASSIFIER:], video)) for video in kind]
            for kind in split(clips, bags)
        ]
        zeros = [np.zeros(len(video)) for video in normal]
        of_sure = [video[which] for video, which in zip(outputs[0], sure, strict=True)]
        classification = reference_entropy(abnormal, labels) + reference_entropy(normal, zeros)
        direct = reference_entropy(of_sure, targets) + reference_entropy(outputs[1], zeros)
        return (classification + direct + reference_indirect(outputs[0], ensemble)) / 2

    assert_network_loss_is(reference, detector, bags)


def test_each_network_learns_from_its_own_terms_alone() -> None:
    torch.manual_seed(0)
    detector, bags = elsewhere(GCNCleaner(6).double()), draw_bags(((7, 4), (9, 3)), 6)
    terms = detector.loss(bags).terms
    networks = [list(network.parameters()) for network in (detector.scorer, detector.cleaner)]
    for name, own, other in [("classification", *networks), ("direct", *networks[::-1]), ("indirect", *networks[::-1])]:
        moved = torch.autograd.grad(terms[name], own + other, retain_graph=True, allow_unused=True)
        assert all(gradient is not None and gradient.any() for gradient in moved[: len(own)])
        assert all(gradient is None for gradient in moved[len(own) :])


# --- what changes from step to step -----------------------------------------------------------------------------------


def test_training_counts_its_steps_and_carries_the_mean_of_the_cleaner_along() -> None:
    detector, bags = GCNCleaner(6, decay=0.9).double(), draw_bags(((7, 4), (9, 3)), 6)
    before = [weight.copy() for weight in unpacked(detector)]
    with torch.no_grad():
        for weight in detector.cleaner.parameters():
            weight.add_(1.0)
    detector.eval().loss(bags)
    assert detector.steps == 0
    detector.train().loss(bags)
    assert detector.steps == 1
    for mean, weight in zip(unpacked(detector), before, strict=True):
        np.testing.assert_allclose(mean, weight + 0.1, atol=1e-12)


def test_labels_are_the_videos_until_the_warm_up_is_over() -> None:
    torch.manual_seed(0)
    detector, bags = GCNCleaner(6, warmup=2).double(), draw_bags(((7, 4), (9, 3)), 6)
    found = []
    for _ in range(4):
        torch.manual_seed(1)
        found.append(detector.loss(bags).terms["classification"].item())
    assert found[0] == found[1] != found[2] == found[3]


def test_a_training_that_is_taken_up_again_gives_the_same_bits() -> None:
    bags = draw_bags(((7, 4), (9, 3)), 6)
    bags = Bags(bags.clips.float(), bags.abnormal, bags.normal)

    def go_on(detector: GCNCleaner, optimiser: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimiser.zero_grad()
            detector.loss(bags).total.backward()
            optimiser.step()

    def begin() -> tuple[GCNCleaner, torch.optim.Optimizer]:
        detector = GCNCleaner(6, warmup=5)
        return detector, torch.optim.Adam(detector.parameters())

    torch.manual_seed(0)
    first, optimiser = begin()
    go_on(first, optimiser, 3)
    kept = deepcopy((first.state_dict(), optimiser.state_dict()))
    dice = torch.get_rng_state()
    second, other = begin()
    second.load_state_dict(kept[0])
    other.load_state_dict(kept[1])
    for each in ((first, optimiser), (second, other)):
        torch.set_rng_state(dice)
        go_on(*each, 5)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert int(second.steps) == 8


@pytest.mark.parametrize("options", [{"dropout": 1.0}, {"certain_share": 1.0}, {"certain_share": -0.1}])
def test_shares_that_are_none_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="shares in"):
        GCNCleaner(6, **options)


# --- what it is for ---------------------------------------------------------------------------------------------------

ABNORMAL = 0.3  # of an abnormal video's clips: 70 % of its labels are noise
STEPS, WARMUP = 100, 40


@dataclass
class Planted:
    """Abnormal and normal videos, and which clips of either are abnormal."""

    abnormal: list[Tensor]
    normal: list[Tensor]
    truth: list[Tensor]

    @property
    def bags(self) -> Bags:
        return Bags.pack(self.abnormal, self.normal)


def plant(videos: int, directions: Tensor, generator: torch.Generator) -> Planted:
    """Videos of 20 to 40 clips of noise, four clips of each moved along one direction, abnormal ones along another."""

    def draw(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    drawn, truth = [], []
    for number in range(2 * videos):
        clips = torch.randn(20 + draw(21), 16, generator=generator)
        start = draw(len(clips) - 4)
        clips[start : start + 4] += 3 * directions[1]
        abnormal = torch.zeros(len(clips), dtype=torch.bool)
        if number < videos:
            length = round(ABNORMAL * len(clips))
            start = draw(len(clips) - length + 1)
            abnormal[start : start + length] = True
        clips[abnormal] += 3 * directions[0]
        drawn.append(clips)
        truth.append(abnormal)
    return Planted(drawn[:videos], drawn[videos:], truth)


def auc(detector: LearningDetector, planted: Planted) -> float:
    detector.eval()
    with torch.no_grad():
        scores = detector.score(planted.bags.clips)
    truth = torch.cat(planted.truth)
    wins = (scores[truth][:, None] > scores[~truth]).double() + (scores[truth][:, None] == scores[~truth]).double() / 2
    return float(wins.mean())


def planted_and_fresh(seed: int) -> tuple[Planted, Planted]:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(2, 16, generator=generator))
    return plant(12, directions, generator), plant(20, directions, generator)


def train(detector: LearningDetector, planted: Planted, xel: XEL | None = None) -> None:
    optimiser = torch.optim.Adam(detector.parameters(), lr=1e-3)
    for iteration in range(STEPS):
        if xel is not None and iteration % 10 == 0:
            xel.bank.refresh(detector, ([video] for video in planted.normal))
        detector.train()
        loss = detector.loss(planted.bags)
        total = loss.total
        if xel is not None:
            clips = hardest(planted.abnormal, loss.abnormal_scores, detector.context)
            total = sum(xel.terms(scorer_of_rows(detector), clips, iteration).values(), total)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()


@dataclass
class Outcome:
    """Of one seed: AUC on fresh videos before and after, MIL's, and the share of labels that are right."""

    before: float
    after: float
    mil: float
    noisy: float
    clean: float


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    found = []
    for seed in range(5):
        planted, fresh = planted_and_fresh(seed)
        torch.manual_seed(seed)
        detector, mil = GCNCleaner(16, warmup=WARMUP), MIL(16)
        before = auc(detector, fresh)
        train(detector, planted)
        train(mil, planted)
        truth = torch.cat(planted.truth[: len(planted.abnormal)])
        labels = torch.cat([cleaned(video) for video in detector.clean(planted.bags)]) > 0.5
        shares = (truth.float().mean(), (labels == truth).float().mean())
        found.append(Outcome(before, auc(detector, fresh), auc(mil, fresh), *map(float, shares)))
    return found


def test_cleaned_labels_are_right_more_often_than_the_noisy_ones(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        assert outcome.noisy == pytest.approx(ABNORMAL, abs=0.02)
        assert outcome.clean > 2 * outcome.noisy


def test_of_noisy_labels_it_learns_what_is_abnormal_and_better_than_mil(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        assert outcome.after > 0.9
    assert np.mean([outcome.before for outcome in outcomes]) < 0.7
    assert np.mean([outcome.after - outcome.mil for outcome in outcomes]) > 0


def test_it_learns_with_xel_too() -> None:
    planted, fresh = planted_and_fresh(0)
    torch.manual_seed(0)
    detector = GCNCleaner(16, warmup=WARMUP)
    assert auc(detector, fresh) < 0.9
    train(detector, planted, XEL(MarginSchedule(warmup=30, step=12), progressive=True))
    assert auc(detector, fresh) > 0.9
