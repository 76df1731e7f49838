"""The exercises of chapter 09, Residual connections."""

import math

import torch
from torch import nn

from utils.checks import Exercise
from utils.exercises import randoms
from utils.model import Block, LanguageModel


def gradient_at_start(slopes):
    plain, road = 1.0, 1.0
    for slope in slopes:
        plain *= slope
        road *= 1 + slope
    return plain, road


def plus_backward(upstream, weight):
    x = torch.zeros(upstream.shape, requires_grad=True)
    branches = (x * 1, x @ weight.T, x + x @ weight.T)   # the road, the part, both
    return tuple(torch.autograd.grad(branch, x, upstream)[0] for branch in branches)


def write_back(outs, weight, bias):
    total, start = bias.expand(*outs[0].shape[:-1], len(bias)), 0
    for out in outs:
        strip = weight[:, start : start + out.shape[-1]]   # (C, H of this head)
        total = total + out @ strip.T
        start += out.shape[-1]
    return total


def model_parameters(vocab_size, block_size, n_layer, n_head, n_embd):
    blocks = [Block(n_embd, n_head, block_size, norm=lambda C: nn.Identity()) for _ in range(n_layer)]
    model = LanguageModel(vocab_size, n_embd, block_size, nn.Sequential(*blocks))
    return sum(p.numel() for p in model.parameters())


class GatedResidual(nn.Module):
    """As on the card."""

    def __init__(self, part, n_embd):
        super().__init__()
        self.part = part
        self.gate = nn.Parameter(torch.zeros(n_embd))

    def forward(self, x):
        added = self.part(x)
        channels = [x[..., c] + self.gate[c] * added[..., c] for c in range(x.shape[-1])]
        return torch.stack(channels, dim=-1)


def gated_run(cls, x, gate):
    """The output for a gate with these numbers, and the gradients of x and of the gate."""
    C = x.shape[-1]
    block = cls(nn.Sequential(nn.Linear(C, C), nn.Tanh()), C)
    block.gate.data.copy_(gate)
    before, out = x.clone(), block(x)
    if not isinstance(out, torch.Tensor) or out.shape != x.shape or not torch.equal(x, before):
        return out, x, gate   # the check says what is wrong with that
    start = x.clone().requires_grad_()
    loss = (block(start * 1) * torch.linspace(-1, 2, x.numel()).view(x.shape)).sum()
    found = torch.autograd.grad(loss, (start, block.gate), allow_unused=True)
    return out, *(torch.zeros_like(p) if grad is None else grad for p, grad in zip((x, gate), found))


# Pieces of the slips.

def _plus(road, part, total=torch.add):
    """A plus_backward from what each branch gets, and how the two are joined."""
    def backward(upstream, weight):
        one, other = road(upstream), part(upstream, weight)
        return one, other, total(one, other)
    return backward


def _written(order=list, bias=lambda b, outs: b, weight=lambda W: W.T):
    return lambda outs, W, b: torch.cat(order(outs), dim=-1) @ weight(W) + bias(b, outs)


def _by_turns(outs):
    return [torch.stack(outs, dim=-1).flatten(-2)]


def _strips_from(start):
    """A write_back that finds the strip of head h, of size H, at ``start(h, H)``."""
    def write(outs, weight, bias):
        places = [start(h, out.shape[-1]) for h, out in enumerate(outs)]
        return sum(out @ weight[:, i : i + out.shape[-1]].T for i, out in zip(places, outs)) + bias
    return write


def _sizes(*sizes):
    return dict(zip(("vocab_size", "block_size", "n_layer", "n_head", "n_embd"), sizes))


def _count(block=lambda V, T, n_head, C: 12 * C * C + 6 * C, ends=lambda V, T, C: 2 * V * C + T * C + V):
    """A model_parameters from what one block has and what stands around the blocks."""
    return lambda V, T, n_layer, n_head, C: n_layer * block(V, T, n_head, C) + ends(V, T, C)


def _gated(forward):
    return type("GatedResidual", (GatedResidual,), {"forward": forward})


EXERCISES = {
    "9.1": Exercise(
        reference=gradient_at_start,
        cases=lambda: [([0.5, 0.25, 0.1],), ([0.25] * 12,), ([],), ([-0.5, 0.5, 2.0, 3.0],), ([0.0, 1.0, 0.3],)],
        facts=lambda found, slopes: {"without the road": found[0], "with the road": found[1]},
        insight="Without the road one weak part is enough to stop the gradient. With it, a weak part multiplies by "
                "about 1.",
        slips={
            "Are the slopes added? What passes one part must pass the next one too: multiply.":
                lambda slopes: (sum(slopes), sum(slopes) + len(slopes)),
            "Is the road only around the whole stack? Each part has its own plus: multiply by 1 + slope each time.":
                lambda slopes: (math.prod(slopes), 1 + math.prod(slopes)),
            "Is the second number without the road too? With it, each part passes on 1 + slope.":
                lambda slopes: (math.prod(slopes), math.prod(slopes)),
            "Is the road the same as no part at all? The part's own share comes on top: 1 + slope.":
                lambda slopes: (math.prod(slopes), 1.0),
            "Are the slopes added in the second number? Each part multiplies, with the road by 1 + slope.":
                lambda slopes: (math.prod(slopes), 1 + sum(slopes)),
            "Do you use only the first slope? Each part has its own.":
                lambda slopes: gradient_at_start(slopes[:1] * len(slopes)),
            "Is the last part lost?":
                lambda slopes: gradient_at_start(slopes[:-1]),
            "Is the first part lost?":
                lambda slopes: gradient_at_start(slopes[1:]),
            "Are the two numbers exchanged? First without the road.":
                lambda slopes: gradient_at_start(slopes)[::-1],
            "Are the signs lost? A slope may be below zero.":
                lambda slopes: gradient_at_start([abs(slope) for slope in slopes]),
            "Is the gradient halved at each plus? Both branches get it whole.":
                lambda slopes: (math.prod(slopes), math.prod((1 + slope) / 2 for slope in slopes)),
        },
    ),
    "9.2": Exercise(
        reference=plus_backward,
        cases=lambda: [
            (randoms(2, 3, 4, seed=1), randoms(4, 4, seed=2)), (randoms(4, 2, 6, seed=3), torch.zeros(6, 6)),
            (randoms(3, 1, 5, seed=4), randoms(5, 5, seed=5, scale=9)),
            (randoms(1, 4, 1, seed=6), randoms(1, 1, seed=7)),
        ],
        insight="And if all weights of the part are zero, x still gets the whole gradient, over the road.",
        slips={
            "Is the gradient split in two halves? A plus gives it to both branches, whole.":
                _plus(lambda up: up / 2, lambda up, W: up / 2 @ W),
            "Is weight the wrong way round? Forward is x @ weight.T; on the way back it is weight without .T.":
                _plus(lambda up: up, lambda up, W: up @ W.T),
            "Is the third tensor an average? x is used twice, and what comes from both sides is added.":
                _plus(lambda up: up, lambda up, W: up @ W, total=lambda a, b: (a + b) / 2),
            "Are the two gradients multiplied? Where x is used twice, they are added.":
                _plus(lambda up: up, lambda up, W: up @ W, total=torch.mul),
            "Is the road missing in the third tensor?":
                _plus(lambda up: up, lambda up, W: up @ W, total=lambda a, b: b),
            "Is the part missing in the third tensor?":
                _plus(lambda up: up, lambda up, W: up @ W, total=lambda a, b: a),
            "Is the road's gradient 1 everywhere? 1 is its slope; multiply by the gradient that comes back.":
                _plus(torch.ones_like, lambda up, W: up @ W),
            "Is 1 added in the third tensor? What comes over the road is upstream.":
                _plus(lambda up: up, lambda up, W: up @ W, total=lambda a, b: 1 + b),
            "Does the part pass the gradient on unchanged? It goes back through weight.":
                _plus(lambda up: up, lambda up, W: up),
            "Is the order another one? First over the road, then through the part, then both.":
                lambda up, W: (up @ W, up, up + up @ W),
        },
    ),
    "9.3": Exercise(
        reference=write_back,
        cases=lambda: [
            ([randoms(3, 4, 2, seed=8 + h) for h in range(3)], randoms(6, 6, seed=11), randoms(6, seed=12)),
            ([randoms(2, 4, H, seed=H) for H in (3, 5, 2)], randoms(7, 10, seed=13), randoms(7, seed=14)),
            ([randoms(5, 1, H, seed=H) for H in (1, 4, 6, 2)], randoms(3, 13, seed=15), randoms(3, seed=16)),
            ([randoms(4, 3, 6, seed=17)], randoms(2, 6, seed=18), randoms(2, seed=19)),
        ],
        insight="Whatever the heads are, many or few, wide or narrow: the road stays C wide.",
        slips={
            "Is weight the wrong way round? It is (C, sum of all H): you need its transpose.":
                _written(weight=lambda W: W),
            "Is the bias added once for each head? It belongs to the projection, once.":
                _written(bias=lambda b, outs: len(outs) * b),
            "Is the bias missing?":
                _written(bias=lambda b, outs: 0.0),
            "Do the heads' channels take turns? All channels of head 0 come first, then all of head 1.":
                _written(order=_by_turns),
            "Are the heads in the wrong order? Head 0 has the first columns of weight.":
                _written(order=lambda outs: outs[::-1]),
            "Do all heads use the same columns of weight? Each has its own strip.":
                _strips_from(lambda h, H: 0),
            "Do you find the strip at h · H? That needs heads of equal size. Add up the sizes of the heads before.":
                _strips_from(lambda h, H: h * H),
            "Is only the last head heard? Add to the total, do not replace it.":
                lambda outs, W, b: outs[-1] @ W[:, -outs[-1].shape[-1] :].T + b,
        },
    ),
    "9.4": Exercise(
        reference=model_parameters,
        cases=lambda: [
            (_sizes(11, 5, 3, 2, 6),), (_sizes(65, 8, 3, 4, 32),), (_sizes(7, 9, 1, 1, 4),),
            (_sizes(20, 16, 0, 3, 12),), (_sizes(30, 3, 2, 5, 10),),
        ],
        run=lambda answer, sizes: answer(*sizes.values()),
        insight="About 12 · C² in each block, 4 for attention and 8 for feed-forward. The number of heads does not "
                "matter.",
        slips={
            "Do query, key and value have biases? In this course they have none.":
                _count(lambda V, T, n, C: 12 * C * C + 9 * C),
            "Are all biases of the block missing? Both projections and the wide layer have them.":
                _count(lambda V, T, n, C: 12 * C * C),
            "Are all biases missing, of the blocks and of lm_head?":
                _count(lambda V, T, n, C: 12 * C * C, ends=lambda V, T, C: 2 * V * C + T * C),
            "Are the biases of feed-forward missing? Both of its layers have them.":
                _count(lambda V, T, n, C: 12 * C * C + C),
            "Has each head C · C numbers for its query? A head is n_embd // n_head wide; only all heads together have C · C.":
                _count(lambda V, T, n, C: 3 * n * C * C + 9 * C * C + 6 * C),
            "Does the projection take n_head · C numbers? It takes n_head · H, and that is C.":
                _count(lambda V, T, n, C: 3 * C * C + n * C * C + 8 * C * C + 6 * C),
            "Has the wide layer a bias of C? It gives 4C numbers, so it has 4C biases.":
                _count(lambda V, T, n, C: 12 * C * C + 3 * C),
            "Is the bias of one projection missing?":
                _count(lambda V, T, n, C: 12 * C * C + 5 * C),
            "Is each head as wide as C? Its size is n_embd // n_head.":
                _count(lambda V, T, n, C: 4 * n * C * C + 8 * C * C + 6 * C),
            "Is this query, key and value of one head only? There are n_head of them.":
                _count(lambda V, T, n, C: 3 * C * (C // n) + 9 * C * C + 6 * C),
            "Is attention without its projection?":
                _count(lambda V, T, n, C: 11 * C * C + 5 * C),
            "Is feed-forward without its factor four?":
                _count(lambda V, T, n, C: 6 * C * C + 3 * C),
            "Is feed-forward still the one layer of chapter 08?":
                _count(lambda V, T, n, C: 5 * C * C + 2 * C),
            "Do you count the heads' triangles? They are buffers: nothing in them is learned.":
                _count(lambda V, T, n, C: 12 * C * C + 6 * C + n * T * T),
            "Are there layer norms in it? They come in chapter 10.":
                _count(lambda V, T, n, C: 12 * C * C + 10 * C),
            "Is the table of positions (vocab_size, block_size)? Each position has a vector of n_embd numbers.":
                _count(ends=lambda V, T, C: 2 * V * C + V * T + V),
            "Are the position embeddings missing?":
                _count(ends=lambda V, T, C: 2 * V * C + V),
            "Is lm_head missing?":
                _count(ends=lambda V, T, C: V * C + T * C),
            "Is the bias of lm_head missing?":
                _count(ends=lambda V, T, C: 2 * V * C + T * C),
            "Is this the body only? The embeddings and lm_head have parameters too.":
                _count(ends=lambda V, T, C: 0),
            "Is there only one block in it? There are n_layer of them.":
                lambda V, T, n_layer, n, C: _count()(V, T, 1, n, C),
        },
    ),
    "9.5": Exercise(
        reference=GatedResidual,
        cases=lambda: [
            (randoms(2, 3, 5, seed=20), randoms(5, seed=21)), (randoms(3, 4, 6, seed=22), torch.zeros(6)),
            (randoms(4, 1, 3, seed=23, scale=5), randoms(3, seed=24, scale=3)),
            (randoms(1, 2, 1, seed=25), torch.ones(1)),
        ],
        run=gated_run,
        facts=lambda found, *case: dict(zip(("the output", "the gradient of x", "the gradient of the gate"), found)),
        insight="With a gate of zero the block is not there, and yet the gate gets a gradient: it opens if that helps. "
                "So Bachlechner and others (\"ReZero\", 2020) trained very deep networks.",
        slips={
            "Is the gate on the road? It belongs on the part; the road stays free.":
                _gated(lambda self, x: self.gate * x + self.part(x)),
            "Is the gate on the whole sum? It belongs on the part; the road stays free.":
                _gated(lambda self, x: self.gate * (x + self.part(x))),
            "Does the road close while the gate opens? x is added whole, whatever the gate says.":
                _gated(lambda self, x: (1 - self.gate) * x + self.gate * self.part(x)),
            "Is the gate missing? This is the plain Residual.":
                _gated(lambda self, x: x + self.part(x)),
            "Is the road missing? Add x.":
                _gated(lambda self, x: self.gate * self.part(x)),
            "Is there a sigmoid on the gate? Here it is used as it is: zero must mean closed.":
                _gated(lambda self, x: x + self.gate.sigmoid() * self.part(x)),
            "Is there a tanh on the gate? Here it is used as it is.":
                _gated(lambda self, x: x + self.gate.tanh() * self.part(x)),
            "Do x and the part share one whole, 1 − gate and gate? x is added whole.":
                _gated(lambda self, x: self.gate * x + (1 - self.gate) * self.part(x)),
            "Does the gate come before the part? It takes what the part has computed.":
                _gated(lambda self, x: x + self.part(self.gate * x)),
            "Is the gate added? It multiplies what the part has computed.":
                _gated(lambda self, x: x + self.gate + self.part(x)),
            "Is it one gate for all channels? There are C numbers in self.gate, one for each.":
                _gated(lambda self, x: x + self.gate[0] * self.part(x)),
            "Is the gate cut off from the gradient, by .detach() or .data? Then it never learns to open.":
                _gated(lambda self, x: x + self.gate.detach() * self.part(x)),
            "Is x cut off from the gradient, by .detach() or .data? Then the road carries nothing back.":
                _gated(lambda self, x: x.detach() + self.gate * self.part(x)),
        },
    ),
}
