"""What a trained sequence tower makes of histories, with NumPy: the user vector after the last row of each.

The same functions as the networks of pipeline/training/readers.py, but of the last state alone, and without
what only a training needs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit, softmax

from pipeline.models.binding import Arrays

MOST_ROWS = 100  # of a history that are read
HEADS = 2  # of a transformer's attention

Reader = Callable[[Arrays, np.ndarray, np.ndarray], np.ndarray]
"""Weights, (points, longest, size) item vectors with padding behind, (points,) lengths of at least 1 ->
(points, size) last states."""


def linear(weights: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    """As torch's nn.Linear with a bias."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _mean(weights: Arrays, x: np.ndarray, length: np.ndarray) -> np.ndarray:
    inside = np.arange(x.shape[1]) < length[:, None]
    return _pooled(weights, x, inside.astype(np.float32))


def _recency(weights: Arrays, x: np.ndarray, length: np.ndarray) -> np.ndarray:
    newer = length[:, None] - 1 - np.arange(x.shape[1])
    half_life = np.exp2(weights["log2_half_life"])
    return _pooled(weights, x, np.where(newer >= 0, np.exp2(-np.maximum(newer, 0) / half_life), 0))


def _pooled(weights: Arrays, x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    counts = (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    return linear(weights, "out", (counts[:, None] @ x)[:, 0])


def _gru(weights: Arrays, x: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Equations of torch's nn.GRU: reset, update and new gate stand behind each other in its weights."""
    if len(x) == 1:
        return _gru_of_one(weights, x[0, : length[0]])
    order = np.argsort(-length, kind="stable")  # so that those that go on are the first
    entering = x[order] @ weights["gru.weight_ih_l0"].T + weights["gru.bias_ih_l0"]
    inner, bias = weights["gru.weight_hh_l0"].T, weights["gru.bias_hh_l0"]
    size = len(inner)
    state = np.zeros((len(x), size), np.float32)
    going = np.searchsorted(-length[order], -np.arange(x.shape[1]), side="left")
    for place, count in enumerate(going):
        before = state[:count]
        of_state = before @ inner + bias
        gates = expit(entering[:count, place, : 2 * size] + of_state[:, : 2 * size])
        new = np.tanh(entering[:count, place, 2 * size :] + gates[:, :size] * of_state[:, 2 * size :])
        state[:count] = new + gates[:, size:] * (before - new)
    last = np.empty_like(state)
    last[order] = state
    return linear(weights, "out", last)


def _gru_of_one(weights: Arrays, x: np.ndarray) -> np.ndarray:
    """(length, size) of one point -> (1, size): a step costs little beside what NumPy needs for a call."""
    inner, bias = weights["gru.weight_hh_l0"], weights["gru.bias_hh_l0"]
    size = inner.shape[1]
    entering = x @ weights["gru.weight_ih_l0"].T + weights["gru.bias_ih_l0"]
    entering[:, : 2 * size] += bias[: 2 * size]
    bias, state, of_state = bias[2 * size :], np.zeros(size, np.float32), np.empty(3 * size, np.float32)
    gates, new = of_state[: 2 * size], of_state[2 * size :]  # views: every step is made in place
    reset, update = gates[:size], gates[size:]
    for row in entering:
        np.dot(inner, state, out=of_state)
        gates += row[: 2 * size]
        expit(gates, out=gates)
        new += bias
        new *= reset
        new += row[2 * size :]
        np.tanh(new, out=new)
        state -= new
        state *= update
        state += new
    return linear(weights, "out", state[None])


def _transformer(weights: Arrays, x: np.ndarray, length: np.ndarray) -> np.ndarray:
    blocks = sorted({name.split(".")[1] for name in weights if name.startswith("blocks.")}, key=int)
    for number in blocks:
        own = {
            name.removeprefix(f"blocks.{number}."): value
            for name, value in weights.items()
            if name.startswith(f"blocks.{number}.")
        }
        x = x + linear(own, "join", _attention(own, _normed(own, "before_attention", x)))
        hidden = np.maximum(linear(own, "feed.0", _normed(own, "before_feed", x)), 0)
        x = x + linear(own, "feed.2", hidden)
    last = x[np.arange(len(x)), length - 1]
    return linear(weights, "out", _normed(weights, "norm", last))


def _normed(weights: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    return normed(weights[f"{name}.weight"], weights[f"{name}.bias"], x, 1e-5)


def normed(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, epsilon: float) -> np.ndarray:
    """As torch's nn.LayerNorm over the last side."""
    x = x - x.mean(axis=-1, keepdims=True)
    x /= np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon)
    return x * weight + bias


def _attention(weights: Arrays, x: np.ndarray) -> np.ndarray:
    """(points, length, size) -> the same, each place from itself and those before."""
    points, length, size = x.shape
    parts = linear(weights, "query_key_value", x).reshape(points, length, 3, HEADS, size // HEADS)
    query, key, value = parts.transpose(2, 0, 3, 1, 4)  # each (points, heads, length, part)
    since = np.arange(length)[:, None] - np.arange(length)
    bias = np.where(since < 0, -np.inf, weights["since"][:, np.maximum(since, 0)])
    logits = query @ key.swapaxes(2, 3) * (size // HEADS) ** -0.5 + bias
    share = softmax(logits.astype(np.float32), axis=-1)
    return (share @ value).transpose(0, 2, 1, 3).reshape(points, length, size)


READERS: dict[str, Reader] = {"mean": _mean, "recency": _recency, "gru": _gru, "transformer": _transformer}
