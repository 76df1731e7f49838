"""The exercises of chapter 08, Feed-forward."""

import torch
from torch import nn

from utils.checks import Exercise
from utils.exercises import randoms, settled


def network_parameters(widths):
    layers = [nn.Linear(n_in, n_out) for n_in, n_out in zip(widths[:-1], widths[1:])]
    return sum(p.numel() for layer in layers for p in layer.parameters())


def relu_and_back(v, upstream):
    out, grad = torch.zeros_like(v), torch.zeros_like(v)
    for i, number in enumerate(v.flatten()):
        if number > 0:   # not at exactly zero, as PyTorch has it
            out.view(-1)[i] = number
            grad.view(-1)[i] = upstream.flatten()[i]
    return out, grad


def feed_forward(x, weight, bias):
    B, T, _ = x.shape
    out = torch.zeros(B, T, len(bias))
    for b in range(B):
        for t in range(T):
            for k in range(len(bias)):
                out[b, t, k] = max(0.0, weight[k] @ x[b, t] + bias[k])
    return out


def exactly_one():
    W1 = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])   # a without b, b without a
    return W1, torch.zeros(2), torch.ones(2)


def answers_of(weights, pairs):
    """What the small network of the card says to each pair: relu(pairs @ W1.T + b1) @ w2."""
    W1, b1, w2 = (torch.as_tensor(numbers, dtype=torch.float32).detach() for numbers in weights)
    if W1.ndim != 2 or W1.shape[-1] != 2 or b1.shape != W1.shape[:1] or w2.shape != W1.shape[:1]:
        shapes = ", ".join(str(tuple(part.shape)) for part in (W1, b1, w2))
        raise ValueError(f"W1, b1, w2 have the shapes {shapes}; the network needs (K, 2), (K,), (K,)")
    return (pairs @ W1.T + b1).relu() @ w2


class GatedFeedForward(nn.Module):
    """As on the card."""

    def __init__(self, n_embd, n_inner):
        super().__init__()
        self.gate = nn.Linear(n_embd, n_inner)
        self.value = nn.Linear(n_embd, n_inner)
        self.proj = nn.Linear(n_inner, n_embd)

    def forward(self, x):
        inner = torch.zeros(*x.shape[:-1], self.gate.out_features)
        for k in range(inner.shape[-1]):
            heard = x @ self.gate.weight[k] + self.gate.bias[k]
            said = x @ self.value.weight[k] + self.value.bias[k]
            inner[..., k] = torch.where(heard > 0, heard * said, 0.0)
        return self.proj(inner)


# Pieces of the slips.

def _steps(widths):
    return list(zip(widths[:-1], widths[1:]))


def _weights(widths):
    return sum(n_in * n_out for n_in, n_out in _steps(widths))


def _network(W1, b1, w2):
    return lambda: (torch.tensor(W1), torch.tensor(b1), torch.tensor(w2))


def _gated(inner, end=lambda out, x: out):
    """A GatedFeedForward whose K channels are ``inner(g, v)`` of its two layers; ``end=None`` leaves out proj."""
    def forward(self, x):
        out = inner(self.gate(x), self.value(x))
        return end(self.proj(out), x) if end else out
    return type("GatedFeedForward", (GatedFeedForward,), {"forward": forward})


CORNERS = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]

EXERCISES = {
    "8.1": Exercise(
        reference=network_parameters,
        cases=lambda: [([5, 7, 3],), ([32, 32],), ([32, 128, 32],), ([4, 9, 2, 11],), ([6],), ([1, 1, 1, 1],)],
        insight="ReLU is free: it learns nothing. And nothing in the count depends on B or T.",
        slips={
            "Are the biases missing? Each layer has one for each number that it gives.":
                _weights,
            "Does each layer have a bias for each number that it takes? It has one for each number that it gives.":
                lambda widths: _weights(widths) + sum(widths[:-1]),
            "Is there only one bias in each layer? It has one for each number that it gives.":
                lambda widths: _weights(widths) + len(_steps(widths)),
            "Do you count biases for the first width too? It is the input, no layer makes it.":
                lambda widths: _weights(widths) + sum(widths),
            "Is this one layer from the first width to the last? With ReLUs between them, layers do not collapse.":
                lambda widths: widths[0] * widths[-1] + widths[-1],
            "Is the last layer lost? Three widths mean two layers.":
                lambda widths: network_parameters(widths[:-1]),
            "Do you count ReLUs? There is nothing in them that is learned.":
                lambda widths: network_parameters(widths) + sum(widths[1:-1]),
        },
    ),
    "8.2": Exercise(
        reference=relu_and_back,
        cases=lambda: [
            (torch.tensor([-2.0, -0.5, 0.0, 0.5, 3.0]), torch.tensor([1.0, -4.0, 5.0, -2.0, 0.3])),
            (randoms(3, 7, seed=1), randoms(3, 7, seed=2)), (randoms(2, 5, 3, seed=3), randoms(2, 5, 3, seed=4)),
            (torch.tensor([[-1e30, 1e30]]), torch.tensor([[2.0, -2.0]])), (torch.tensor(-1.0), torch.tensor(7.0)),
        ],
        insight="Where a unit is silent it also learns nothing: its gradient is zero. A unit that is silent for "
                "every token is called dead.",
        slips={
            "Does the whole gradient come through? Where v was below zero, v may move a little, and nothing changes.":
                lambda v, up: (v * (v > 0), up.clone()),
            "Is the gradient cut by its own sign? What counts is where v was above zero; a gradient may be negative.":
                lambda v, up: (v * (v > 0), up * (up > 0)),
            "Does the gradient come through where v is exactly 0? We take 0 there, as PyTorch does.":
                lambda v, up: (v * (v > 0), up * (v >= 0)),
            "Is this only the slope, 0 or 1? It must still be multiplied by the gradient that comes back.":
                lambda v, up: (v * (v > 0), (v > 0).to(v.dtype)),
            "Is the gradient multiplied by v? The slope of ReLU above zero is 1.":
                lambda v, up: (v * (v > 0), up * v * (v > 0)),
            "Is this the size of v? Below zero ReLU gives 0, not the number without its sign.":
                lambda v, up: (v.abs(), up * (v > 0)),
            "Are the two parts exchanged? First the output, then the gradient.":
                lambda v, up: (up * (v > 0), v * (v > 0)),
            "Do you let through what is below zero, and stop what is above?":
                lambda v, up: (v * (v < 0), up * (v < 0)),
        },
    ),
    "8.3": Exercise(
        reference=feed_forward,
        cases=lambda: [
            (randoms(2, 3, 4, seed=5), randoms(4, 4, seed=6), randoms(4, seed=7)),
            (randoms(3, 5, 4, seed=8), randoms(6, 4, seed=9), randoms(6, seed=10)),
            (randoms(2, 1, 7, seed=11), randoms(3, 7, seed=12), randoms(3, seed=13)),
            (randoms(5, 4, 3, seed=14), randoms(1, 3, seed=15), randoms(1, seed=16)),
        ],
        insight="A loop over tokens and one product for all of them give the same: no token sees another one.",
        slips={
            "Is weight the wrong way round? Row k of weight, (K, C), makes output k: you need x @ weight.T.":
                lambda x, W, b: (x @ W + b).relu(),
            "Is the bias missing?":
                lambda x, W, b: (x @ W.T).relu(),
            "Does the bias come after the ReLU? First the whole linear layer, with its bias, then the ReLU.":
                lambda x, W, b: (x @ W.T).relu() + b,
            "Is the ReLU missing?":
                lambda x, W, b: x @ W.T + b,
            "Does the ReLU come first? First the linear layer, then the ReLU.":
                lambda x, W, b: x.relu() @ W.T + b,
            "Are the tokens of a row mixed? Each token is computed from its own vector only.":
                lambda x, W, b: (x.mean(dim=1, keepdim=True) @ W.T + b).relu().expand(-1, x.shape[1], -1),
            "Does every row of the batch get the answers of row 0?":
                lambda x, W, b: (x[:1] @ W.T + b).relu().expand(len(x), -1, -1),
            "Is this only the first row of the batch? x has B rows.":
                lambda x, W, b: (x[0] @ W.T + b).relu(),
            "Is this only the last row of the batch? Is a result overwritten, or the return inside the loop?":
                lambda x, W, b: (x[-1] @ W.T + b).relu(),
        },
    ),
    "8.4": Exercise(
        reference=exactly_one,
        cases=lambda: [(torch.tensor(CORNERS),)],
        run=lambda answer, pairs: answers_of(answer(), pairs),
        insight="0, 1, 1, 0: neither + both is not only a + only b. No linear layer can say this, two ReLUs can.",
        slips={
            "Does it say 1 when at least one holds? Both together must give 0 again.":
                _network([[1.0, 1.0], [1.0, 1.0]], [0.0, -1.0], [1.0, -1.0]),
            "Does it say 1 when both hold? That was the chapter's unit; here both together give 0.":
                _network([[1.0, 1.0]], [-1.0], [1.0]),
            "Does it see only a without b? It needs a second unit for b without a.":
                _network([[1.0, -1.0]], [0.0], [1.0]),
            "Does it see only b without a? It needs a second unit for a without b.":
                _network([[-1.0, 1.0]], [0.0], [1.0]),
            "Is this a + b? Then no unit has used its bend.":
                _network([[1.0, 1.0]], [0.0], [1.0]),
            "Is it the opposite? You say 1 when the two facts agree.":
                _network([[1.0, -1.0], [-1.0, 1.0], [0.0, 0.0]], [0.0, 0.0, 1.0], [-1.0, -1.0, 1.0]),
            "Do your two units take away from each other? Look at the signs in w2.":
                _network([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0], [1.0, -1.0]),
            "Is nothing ever above zero?":
                _network([[1.0, 1.0]], [-2.0], [1.0]),
        },
    ),
    "8.5": Exercise(
        reference=GatedFeedForward,
        cases=lambda: [
            (randoms(2, 3, 5, seed=17), 7), (randoms(4, 1, 6, seed=18), 3), (randoms(3, 5, 4, seed=19, scale=9), 8),
        ],
        run=lambda cls, x, n_inner: settled(cls(x.shape[-1], n_inner))(x),
        insight="Here two facts are multiplied, so one can switch the other off. Many of today's large models have "
                "such a gate, with a smoother curve in place of the ReLU.",
        slips={
            "Is the ReLU on the value? It belongs on the gate; what is let through may be negative.":
                _gated(lambda g, v: g * v.relu()),
            "Is there a ReLU on both? Only the gate has one; what is let through may be negative.":
                _gated(lambda g, v: g.relu() * v.relu()),
            "Is the ReLU missing? A gate must be able to close, to be exactly zero.":
                _gated(lambda g, v: g * v),
            "Does the ReLU come after the product? It belongs on the gate, before.":
                _gated(lambda g, v: (g * v).relu()),
            "Are gate and value added? The gate multiplies.":
                _gated(lambda g, v: g.relu() + v),
            "Is the value missing? This is a feed-forward layer without its gate.":
                _gated(lambda g, v: g.relu()),
            "Is the value used in both places? The gate has a layer of its own.":
                _gated(lambda g, v: v.relu() * v),
            "Is the gate used in both places? The value has a layer of its own.":
                _gated(lambda g, v: g.relu() * g),
            "Is this a sigmoid? The gate on this card is a ReLU.":
                _gated(lambda g, v: g.sigmoid() * v),
            "Is proj missing at the end? It brings the K inner numbers back to C.":
                _gated(lambda g, v: g.relu() * v, end=None),
            "Is the ReLU on x, before the layers? It belongs on what self.gate gives.":
                type("GatedFeedForward", (GatedFeedForward,), {
                    "forward": lambda self, x: self.proj(self.gate(x.relu()) * self.value(x))}),
            "Is this a softmax? A gate is a ReLU: each inner channel is opened or closed for itself.":
                _gated(lambda g, v: g.softmax(dim=-1) * v),
            "Is x added at the end? Here the layer gives only what it has computed.":
                _gated(lambda g, v: g.relu() * v, end=lambda out, x: out + x),
        },
    ),
}
