"""The exercises of chapter 18, A better GPT."""

import math

import torch

from utils.checks import Exercise
from utils.exercises import randoms
from utils.muon import orthogonalize


def gated(x, gate, value, out):
    result = torch.empty_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            z = gate @ x[b, t]
            result[b, t] = out @ (z / (1 + (-z).exp()) * (value @ x[b, t]))
    return result


def running_mean(weights, keep):
    mean = weights[0]
    for w in weights[1:]:
        mean = keep * mean + (1 - keep) * w
    return mean


def rotate_neighbours(x):
    return _turn(x)


def muon_step(p, grad, mean, lr, momentum):
    return _muon()(p, grad, mean, lr, momentum)


# Pieces of the references and the slips.

def _turn(x, angle=lambda t, i, H: t * 10000.0 ** (-2 * i / H), pair=lambda i, H: (2 * i, 2 * i + 1), sign=1, places=1):
    out, H = x.clone(), x.shape[-1]
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            for i in range(H // 2):
                turn = sign * angle((b, t)[places], i, H)
                one, two = pair(i, H)
                out[b, t, one] = x[b, t, one] * math.cos(turn) - x[b, t, two] * math.sin(turn)
                out[b, t, two] = x[b, t, one] * math.sin(turn) + x[b, t, two] * math.cos(turn)
    return out


def _halves_together(x):
    """The right numbers, but all first channels of the pairs before all second ones."""
    turned = _turn(x)
    return torch.cat((turned[..., 0::2], turned[..., 1::2]), dim=-1)


def _changed_too_early(x):
    turned = _turn(x)
    angles = torch.outer(torch.arange(x.shape[1]), 10000.0 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1]))   # (T, H/2)
    turned[..., 1::2] = turned[..., 0::2] * angles.sin() + x[..., 1::2] * angles.cos()
    return turned


def _even(x):
    U, _, Vt = torch.linalg.svd(x, full_matrices=False)
    return U @ Vt


def _muon(even=_even, taken=lambda momentum: 1 - momentum, look=lambda grad, mean, momentum: grad.lerp(mean, momentum),
          longer=lambda m, n: max(1, m / n) ** 0.5, sign=-1, kept=True):
    def step(p, grad, mean, lr, momentum):
        new = momentum * mean + taken(momentum) * grad
        return p + sign * lr * longer(*p.shape) * even(look(grad, new, momentum)), new if kept else mean
    return step


def _exchanged(p, grad, mean, lr, momentum):
    new = (1 - momentum) * mean + momentum * grad
    longer = max(1, p.shape[0] / p.shape[1]) ** 0.5
    return p - lr * longer * _even(grad.lerp(new, momentum)), new


def _gate(mix):
    """A slip of 18.1: ``mix`` makes one of what the two matrices gave."""
    return lambda x, gate, value, out: mix(x @ gate.T, x @ value.T) @ out.T


def _summed(weights, old, new):
    mean = weights[0]
    for w in weights[1:]:
        mean = old * mean + new * w
    return mean


EXERCISES = {
    "18.1": Exercise(
        reference=gated,
        cases=lambda: [
            (randoms(B, T, C, seed=C), *(randoms(*shape, seed=n + i) for i, shape in enumerate(((n, C), (n, C), (C, n)))))
            for B, T, C, n in ((2, 3, 5, 4), (1, 1, 3, 8), (4, 2, 6, 7))
        ],
        insight="All gated layers look like this; they differ in the curve that the gate goes through.",
        slips={
            "Are the two halves exchanged? SiLU is for what gate gave.": _gate(lambda g, v: torch.nn.functional.silu(v) * g),
            "Is this the sigmoid alone? SiLU is z times the sigmoid of z.": _gate(lambda g, v: g.sigmoid() * v),
            "Is SiLU missing?": _gate(lambda g, v: g * v),
            "Do you add the two? They are multiplied.": _gate(lambda g, v: torch.nn.functional.silu(g) + v),
            "Is this ReLU? SiLU is smooth: z times the sigmoid of z.": _gate(lambda g, v: g.relu() * v),
            "Does the whole product go through SiLU? Only the gate does.": _gate(lambda g, v: torch.nn.functional.silu(g * v)),
            "Do both halves go through SiLU? Only the gate does.":
                _gate(lambda g, v: torch.nn.functional.silu(g) * torch.nn.functional.silu(v)),
            "Does x go through SiLU before the matrix? What gate gave goes through it.":
                lambda x, gate, value, out: ((torch.nn.functional.silu(x) @ gate.T) * (x @ value.T)) @ out.T,
            "Is it the sigmoid of what value gave? SiLU takes both its z and its sigmoid from what gate gave.":
                _gate(lambda g, v: g * v.sigmoid()),
            "Is the value left out? It is multiplied with the gate.": _gate(lambda g, v: torch.nn.functional.silu(g)),
        },
    ),
    "18.2": Exercise(
        reference=running_mean,
        cases=lambda: [
            ([randoms(*shape, seed=10 * len(shape) + i) for i in range(n)], keep)
            for shape, n, keep in (((2, 3), 4, 0.9), ((5,), 3, 0.5), ((1, 2, 4), 6, 0.75), ((3, 2), 1, 0.9))
        ],
        insight="With a share of 0.97 it remembers about the last thirty steps.",
        slips={
            "Are the shares exchanged? The mean keeps the share keep, the new weights bring the rest.":
                lambda weights, keep: running_mean(weights, 1 - keep),
            "Does the mean begin at zero? Then it is too small for long: begin with the first weights.":
                lambda weights, keep: running_mean([torch.zeros_like(weights[0]), *weights], keep),
            "Is this the plain mean? Newer weights count more.": lambda weights, keep: torch.stack(weights).mean(dim=0),
            "Are these the last weights only?": lambda weights, keep: weights[-1],
            "Are these still the first weights?": lambda weights, keep: weights[0],
            "Do the two shares sum to 1? The new weights bring 1 − keep.": lambda weights, keep: _summed(weights, keep, 1.0),
            "Is the old mean kept whole? Only the share keep of it stays.": lambda weights, keep: _summed(weights, 1.0, 1 - keep),
            "Does your function return inside the loop? Then only the first round is made.":
                lambda weights, keep: running_mean(weights[:2], keep),
            "Do you divide by the number of weights? The shares already sum to 1.":
                lambda weights, keep: running_mean(weights, keep) / len(weights),
            "Is the last step left out?": lambda weights, keep: running_mean(weights[:-1] or weights, keep),
            "Do you go from the last to the first? The oldest weights come first.":
                lambda weights, keep: running_mean(weights[::-1], keep),
        },
    ),
    "18.3": Exercise(
        reference=rotate_neighbours,
        cases=lambda: [(randoms(*shape, seed=sum(shape)),) for shape in ((2, 3, 8), (1, 5, 4), (3, 7, 6), (2, 1, 2))],
        insight="The same turns of other pairs: the scores of a trained model would be wrong, but no error would say so.",
        slips={
            "Are the pairs i and i + H/2? Here neighbours turn: 2i and 2i + 1.":
                lambda x: _turn(x, pair=lambda i, H: (i, i + H // 2)),
            "Do all first channels stand before all second ones? They must go back between each other: out[..., 0::2], out[..., 1::2].":
                _halves_together,
            "Do you turn the other way? (a, b) becomes (a·cos − b·sin, a·sin + b·cos).": lambda x: _turn(x, sign=-1),
            "Do positions begin at 1? The first token, t = 0, is not turned.":
                lambda x: _turn(x, angle=lambda t, i, H: (t + 1) * 10000.0 ** (-2 * i / H)),
            "Do you read a first channel after you have changed it? Keep both old ones until both new ones are made.":
                _changed_too_early,
            "Does the rate fall too slowly? The power is −2i/H, with i the number of the pair.":
                lambda x: _turn(x, angle=lambda t, i, H: t * 10000.0 ** (-i / H)),
            "Is i the channel in your power? It is the pair's number: 0, 1, 2, … for channels 0, 2, 4, …":
                lambda x: _turn(x, angle=lambda t, i, H: t * 10000.0 ** (-4 * i / H)),
            "Is a minus missing? The rates become smaller from pair to pair: a power of −2i/H.":
                lambda x: _turn(x, angle=lambda t, i, H: t * 10000.0 ** (2 * i / H)),
            "Do all pairs turn alike? Each has its own rate.": lambda x: _turn(x, angle=lambda t, i, H: t),
            "Does the row of the batch decide the angle? It is the position t.": lambda x: _turn(x, places=0),
            "Is this x as it was? Nothing is turned.": lambda x: x.clone(),
        },
    ),
    "18.4": Exercise(
        reference=muon_step,
        cases=lambda: [
            (*(randoms(m, n, seed=10 * m + n + i) for i in range(3)), lr, momentum)
            for m, n, lr, momentum in ((3, 5, 0.1, 0.9), (6, 2, 0.02, 0.95), (4, 4, 1.0, 0.5), (1, 3, 0.5, 0.8))
        ],
        insight="All directions make steps of one length; five rounds of a polynomial come close to it, much faster.",
        slips={
            "Do you step along the gradient? It must go against it: minus.": _muon(sign=1),
            "Is the gradient's own stretch still in? All singular values become 1: U @ Vt.": _muon(even=lambda x: x),
            "Is the whole step divided by its length? That evens nothing: each singular value becomes 1.":
                _muon(even=lambda x: x / x.norm()),
            "Does the mean take in the whole gradient? Its share is 1 − momentum.": _muon(taken=lambda momentum: 1.0),
            "Do you step with the mean, or look ahead to the OLD mean? From the gradient, the share momentum of the way to the new one.":
                _muon(look=lambda grad, mean, momentum: mean),
            "Do you step with the gradient alone? The mean belongs to it.": _muon(look=lambda grad, mean, momentum: grad),
            "Is the look ahead taken from the wrong end? It begins at the gradient, and goes the share momentum to the mean.":
                _muon(look=lambda grad, mean, momentum: mean.lerp(grad, momentum)),
            "Is the longer step missing? Where m > n it is √(m/n) times as long.": _muon(longer=lambda m, n: 1),
            "Is the root missing in the longer step? It is √(m/n).": _muon(longer=lambda m, n: max(1, m / n)),
            "Is the step shorter where m < n? There it stays as it is.": _muon(longer=lambda m, n: (m / n) ** 0.5),
            "Are m and n exchanged? The step is longer where there are more rows than columns.":
                _muon(longer=lambda m, n: max(1, n / m) ** 0.5),
            "Are the shares of the mean exchanged? It keeps the share momentum and takes in 1 − momentum of the gradient.":
                _exchanged,
            "Is this the chapter's polynomial? Here the singular values become exactly 1: U @ Vt.": _muon(even=orthogonalize),
            "Is the second result the look ahead? It is the mean.":
                lambda p, grad, mean, lr, momentum: (
                    muon_step(p, grad, mean, lr, momentum)[0], grad.lerp(mean.lerp(grad, 1 - momentum), momentum)
                ),
            "Do you return the old mean? The next step needs the new one.": _muon(kept=False),
            "Are p and the mean returned in the wrong order?": lambda *case: muon_step(*case)[::-1],
        },
    ),
}
