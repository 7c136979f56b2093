"""How the scorer is fitted: its linear part to the optimum, then an MLP that corrects it.

The linear part is a conditional logit (McFadden 1974) on standardised features: listwise log-likelihood of
the item taken among its candidates, minus a penalty on the squared distance from a simple blend (PRIOR). It
is fitted to its optimum; validation's likelihood chooses the penalty, so where data are few the blend
remains. The MLP starts at zero. Of the correction it makes, that share is kept which validation's likelihood
prefers: where tastes move, an MLP is surer than it should be, and half of what it says is worth more than all
of it or nothing (docs/log.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.living import LONG, SHORT
from pipeline.models.scorer import CLIP, MLP, Scorer
from pipeline.training.fitting import fit
from pipeline.training.networks import ScorerNetwork
from pipeline.training.sampling import NOWHERE, Sample
from pipeline.training.task import Batches, Run, Task

PRIOR = {"ease_5": 0.4, "knn_5": 0.2, "ials_5": 0.4, f"live_{SHORT}": 0.3, f"live_{LONG}": 0.2}
PENALTIES = (0.3, 0.1, 3e-2, 1e-2, 3e-3, 1e-3)  # of the squared distance from the blend, per nat
STEPS, PRECISE = 20, 1e-6  # of Newton's method: at most; it ends where one would gain less than this share
POINTS = 64  # of one pass: their features stay in the processor's cache
BATCH, EPOCHS = 128, 5
SHARES = tuple(tenth / 10 for tenth in range(1, 11))  # of the correction


def listwise(logits: Tensor, sample: Sample, batch: np.ndarray | slice) -> Tensor:
    """(points,) minus log-likelihood of the items taken; logits (points, places), the item taken first."""
    logits = logits + torch.from_numpy(sample.log_weight[batch]).to(logits.device)
    return -F.log_softmax(logits, dim=1)[:, 0]


def fit_scorer(
    run: Run, phase: str, names: list[str], sample: Sample, validation: Sample
) -> tuple[Scorer, dict[str, Any]]:
    """The scorer, and its figures: penalty, losses in nats (blend, linear part, with the MLP), epochs."""
    network = prior_scorer(names, sample, run.seed)
    figures = fit_linear(network, names, sample, validation)
    linear, task = network.scorer(), ScorerTask(run, phase, network, sample, validation)
    epochs = fit(run, task, Batches(run, phase, len(sample), BATCH), EPOCHS)
    task.cpu().eval()
    share, likelihood = task.best_share()
    scorer = shrunk(linear, network.scorer(), share)
    if not -likelihood < figures["linear_loss"]:  # no better than the linear part alone
        scorer, epochs, share = linear, 0, 0.0
    figures |= {"mlp_loss": round(-likelihood, 6), "mlp_share": share, "scorer_epochs": epochs}
    return scorer, figures


def shrunk(linear: Scorer, corrected: Scorer, share: float) -> Scorer:
    """A scorer whose scores are `share` of the way from those of the linear one to those of the other."""
    weights = dict(corrected.weights)
    start, own = linear.weights["linear.weight"], weights["linear.weight"]
    weights["linear.weight"] = start + np.float32(share) * (own - start)
    weights[f"{MLP[-1]}.weight"] = weights[f"{MLP[-1]}.weight"] * np.float32(share)
    return Scorer(weights)


def prior_scorer(names: list[str], sample: Sample, seed: int = 0) -> ScorerNetwork:
    """The simple blend, on features standardised over the sample."""
    torch.manual_seed(seed)
    network = ScorerNetwork(len(names))
    if len(sample):
        network.standardise(sample.features[::4], sample.log_weight[::4] > NOWHERE / 2)
    with torch.no_grad():
        network.linear.weight.copy_(_prior(names).float()[None])
    return network.eval()


def _prior(names: list[str]) -> Tensor:
    return torch.tensor([PRIOR.get(name, 0.0) for name in names], dtype=torch.float64)


def fit_linear(
    network: ScorerNetwork, names: list[str], sample: Sample, validation: Sample
) -> dict[str, Any]:
    """Leaves the weights with validation's best likelihood in the network."""
    blend = weights = _prior(names)
    blend_loss = _mean_loss(network, blend, validation)
    best, penalty, kept = blend_loss, None, blend
    for value in PENALTIES:  # from the blend outwards, each from where the last ended
        weights = _optimum(network, sample, weights, blend, value)
        loss = _mean_loss(network, weights, validation)
        if loss < best:
            best, penalty, kept = loss, value, weights
    with torch.no_grad():
        network.linear.weight.copy_(kept.float()[None])
    return {"penalty": penalty, "blend_loss": round(blend_loss, 6), "linear_loss": round(best, 6)}


def _inputs(network: ScorerNetwork, features: np.ndarray) -> Tensor:
    """The same as `network.inputs`, in place, of some points: of all at once these would be the largest of
    the training's arrays."""
    copy = torch.from_numpy(features).float()
    return copy.sub_(network.mean).div_(network.deviation).clamp_(-CLIP, CLIP)


def _mean_loss(network: ScorerNetwork, weights: Tensor, sample: Sample) -> float:
    """Mean weighted loss of the linear part alone."""
    total = 0.0
    for begin in range(0, len(sample), 256):
        rows = slice(begin, begin + 256)
        loss = listwise(_inputs(network, sample.features[rows]) @ weights.float(), sample, rows)
        total += float((loss * torch.from_numpy(sample.weight[rows])).sum())
    return total / max(1e-12, float(sample.weight.sum()))


def _optimum(
    network: ScorerNetwork, sample: Sample, weights: Tensor, start: Tensor, penalty: float
) -> Tensor:
    """Newton's method on the mean weighted loss + penalty |weights - start|^2; both (features,) float64.

    A step costs two passes of L-BFGS, of which a fit needs some twenty and leaves the last digits open.
    """
    loss, gradient, hessian = _derivatives(network, sample, weights, start, penalty)
    for _ in range(STEPS):
        step = torch.linalg.solve(hessian, gradient)
        expected, share = float(gradient @ step), 1.0
        if expected < PRECISE * abs(loss):
            break
        while True:  # the loss is convex: some share of the step makes it less, most often all of it
            tried = weights - share * step
            found = _derivatives(network, sample, tried, start, penalty)
            if found[0] <= loss - 1e-4 * share * expected or share < 1e-3:
                break
            share /= 2
        if not found[0] < loss:
            break
        weights, (loss, gradient, hessian) = tried, found
    return weights


def _derivatives(
    network: ScorerNetwork, sample: Sample, weights: Tensor, start: Tensor, penalty: float
) -> tuple[float, Tensor, Tensor]:
    """(loss, (features,) gradient, (features, features) Hessian), float64.

    With p the softmax of a point over its places and m = sum p x, the Hessian is the mean of
    sum p x x' - m m', plus the penalty's.
    """
    features = sample.features.shape[2]
    of_point = torch.from_numpy(sample.weight / sample.weight.sum())
    away = weights - start
    total = penalty * float(away @ away)
    gradient, hessian = 2 * penalty * away, 2 * penalty * torch.eye(features, dtype=torch.float64)
    for begin in range(0, len(sample), POINTS):
        rows = slice(begin, begin + POINTS)
        x, weight = _inputs(network, sample.features[rows]), of_point[rows]
        likely = (x @ weights.float() + torch.from_numpy(sample.log_weight[rows])).log_softmax(dim=1)
        total -= float(likely[:, 0].double() @ weight.double())
        p = likely.exp_()
        mean = torch.bmm(p[:, None], x)[:, 0]
        gradient += ((mean - x[:, 0]) * weight[:, None]).sum(dim=0)
        spread = (x * (p * weight[:, None]).sqrt_()[:, :, None]).reshape(-1, features)
        centre = mean * weight.sqrt()[:, None]
        hessian += spread.T @ spread - centre.T @ centre
    return total, gradient, hessian


class ScorerTask(Task):
    """The MLP learns what the linear part leaves over; the linear part goes on as well."""

    weight_decay = 1e-3
    metric = "validation_log_likelihood"

    def __init__(
        self, run: Run, phase: str, network: ScorerNetwork, sample: Sample, validation: Sample
    ) -> None:
        super().__init__(run, None)
        self.phase, self.learning_rate = phase, 2e-3
        self.network, self.sample, self.validation = network, sample, validation
        self.start = network.linear.weight.detach().clone()  # (1, features) of the linear part alone

    def training_step(self, batch: np.ndarray, index: int) -> Tensor:
        features = torch.from_numpy(self.sample.features[batch]).to(self.device).float()
        weight = torch.from_numpy(self.sample.weight[batch] / self.sample.weight.mean()).to(self.device)
        return self.record((listwise(self.network(features), self.sample, batch) * weight).mean(), len(batch))

    def quality(self) -> float:
        """Mean weighted log-likelihood of validation's items taken, by the best share of the correction."""
        return self.best_share()[1]

    @torch.no_grad()
    def best_share(self) -> tuple[float, float]:
        """(share of the correction, mean weighted log-likelihood of validation's items taken with it)."""
        totals = np.zeros(len(SHARES))
        for begin in range(0, len(self.validation), 256):
            rows = slice(begin, begin + 256)
            features = torch.from_numpy(self.validation.features[rows]).to(self.device).float()
            weight = torch.from_numpy(self.validation.weight[rows]).to(self.device)
            corrected = self.network(features)
            linear = (self.network.inputs(features) @ self.start.to(self.device)[0]).lerp
            for place, share in enumerate(SHARES):
                loss = listwise(linear(corrected, share), self.validation, rows)
                totals[place] -= float((loss * weight).sum())
        best = int(totals.argmax())
        return SHARES[best], float(totals[best]) / max(1e-12, float(self.validation.weight.sum()))
