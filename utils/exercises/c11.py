"""The exercises of chapter 11, Scaling up."""

import math

import torch
from torch import nn

from utils.checks import Exercise
from utils.exercises import randoms


def reading(n_train, steps, batch_size, block_size):
    tokens = 0
    for _ in range(steps):
        tokens += batch_size * block_size
    return tokens, tokens / n_train


class DropoutByHand(nn.Module):
    """As on the card."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        out = torch.zeros_like(x)
        kept = torch.rand(x.shape) >= self.p
        out[kept] = x[kept] / (1 - self.p)
        return out


def gpt_parameters(vocab_size, block_size, n_layer, n_embd, widen, qkv_bias, tied):
    C = n_embd
    with torch.device("meta"):   # shapes without numbers, so that large models cost nothing
        layers = [nn.Embedding(vocab_size, C), nn.Embedding(block_size, C), nn.LayerNorm(C)]
        for _ in range(n_layer):
            layers += [nn.Linear(C, C, bias=qkv_bias) for _ in range(3)] + [nn.Linear(C, C)]
            layers += [nn.Linear(C, widen * C), nn.Linear(widen * C, C), nn.LayerNorm(C), nn.LayerNorm(C)]
        if not tied:
            layers.append(nn.Linear(C, vocab_size))
    return sum(p.numel() for layer in layers for p in layer.parameters())


def copied_share(sample, source, n):
    found, pieces = 0, 0
    for start in range(len(sample) - n + 1):
        pieces += 1
        if source.find(sample[start : start + n]) >= 0:
            found += 1
    return found / pieces if pieces else 0.0


def predict_loss(sizes, losses, size):
    x, y = [math.log(one) for one in sizes], [math.log(one) for one in losses]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)
    return math.exp(mean_y + slope * (math.log(size) - mean_x))


# Pieces of the slips.

def _dropout(forward):
    return type("DropoutByHand", (DropoutByHand,), {"forward": forward})


def _in_training(drop):
    """A dropout that is right in eval mode, and does ``drop(x, p)`` in training."""
    return _dropout(lambda self, x: drop(x, self.p) if self.training else x)


def _dropped(x, p, shape=None, draw=torch.rand):
    return x * (draw(x.shape if shape is None else shape) >= p) / (1 - p)


def _always_the_same(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1337))


def _passes(cls, x, p):
    dropout = cls(p)
    return [dropout.train()(x), dropout(x), dropout.eval()(x)]


def _facts_of_dropout(passes, x, p):
    first, second, used = (one.detach() for one in passes)
    kept = first != 0
    factors = first[kept] / x[kept]
    some = 0 < p < 1
    return {
        "share of zeros in train mode": round(1 - kept.float().mean().item(), 1),
        "all that survive are multiplied by the same number": torch.allclose(factors, factors[:1], rtol=1e-3),
        "what they are multiplied by": factors.mean().item() if kept.any() else 0.0,
        "all rows lose the same numbers": some and bool((kept == kept[:1]).all()),
        "all tokens lose the same channels": some and bool((kept == kept[:1, :1]).all()),
        "each token is lost as a whole, or not at all": some and bool((kept == kept[..., :1]).all()),
        "a second pass loses the same numbers": some and torch.equal(kept, second != 0),
        "eval mode loses numbers": bool((used == 0).any()),
        "eval mode gives back x": torch.equal(used, x),
    }


def _count(
    V, T, L, C, w, bias, tied, *, head_bias=True, norms=2, last=1, qkv=1, four=False, all_biases=1, position=1
):
    """The count with its parts to be changed, as slips do."""
    w = 4 if four else w
    attention = 3 * (C * C + C * bias * qkv) + C * C + C * all_biases
    feed_forward = 2 * w * C * C + (w * C + C) * all_biases
    head = 0 if tied else V * C + V * head_bias
    return V * C + T * C * position + L * (attention + feed_forward + norms * 2 * C) + 2 * C * last + head


def _fit(x, y, at, slope=None):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    best = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)
    return mean_y + (best if slope is None else slope(best, x, y)) * (at - mean_x)


def _ln(numbers):
    return [math.log(one) for one in numbers]


def _log_line(slope):
    return lambda sizes, losses, size: math.exp(_fit(_ln(sizes), _ln(losses), math.log(size), slope))


def _through(first, last):
    """The line through two of the points only."""
    def predict(sizes, losses, size):
        x, y = _ln([sizes[first], sizes[last]]), _ln([losses[first], losses[last]])
        return math.exp(_fit(x, y, math.log(size)))
    return predict


def _from_zero(sizes, losses, size):
    x, y = _ln(sizes), _ln(losses)
    return math.exp(sum(a * b for a, b in zip(x, y)) / sum(a * a for a in x) * math.log(size))


def _turned(best, x, y):
    """The slope that a line for x by y has, seen from the other side."""
    return 1 / (_fit(y, x, 1.0) - _fit(y, x, 0.0))


def _pieces(sample, n):
    return [sample[i : i + n] for i in range(len(sample) - n + 1)]


def _share(pieces, source, none=0.0):
    return sum(piece in source for piece in pieces) / len(pieces) if pieces else none


_TEXT = "the cat sat on the mat, and the cat saw the rat on the mat. "
_TABLE = [3073, 9153, 30529, 110145], [2.605, 2.428, 2.216, 2.034]


EXERCISES = {
    "11.1": Exercise(
        reference=reading,
        cases=lambda: [
            (1_003_854, 1200, 24, 64), (1_003_854, 5000, 64, 256), (1_003_854, 5000, 32, 8),
            (1000, 7, 3, 11), (50, 1, 1, 1),
        ],
        facts=lambda results, *case: dict(zip(("tokens", "epochs"), results)),
        insight="The more epochs, the easier it is to learn a text by heart. GPT-3 read the larger part of its text "
                "less than once.",
        slips={
            "Do you count rows? Each of the B rows holds T tokens.":
                lambda n, S, B, T: (S * B, S * B / n),
            "Is the batch size missing? A step reads B rows.":
                lambda n, S, B, T: (S * T, S * T / n),
            "Are these the tokens of one step only? There are many steps.":
                lambda n, S, B, T: (B * T, B * T / n),
            "Do you count T + 1 for each row? The last id of a window is only a target; T tokens are read.":
                lambda n, S, B, T: (S * B * (T + 1), S * B * (T + 1) / n),
            "Are your epochs upside down? How often does the text fit into what was read?":
                lambda n, S, B, T: (S * B * T, n / (S * B * T)),
            "Are your epochs rounded? A text can be read one and a half times.":
                lambda n, S, B, T: (S * B * T, S * B * T // n),
            "Is this how many steps an epoch takes? We ask how many epochs the run has.":
                lambda n, S, B, T: (S * B * T, n / (B * T)),
            "Are the two exchanged? First the tokens, then the epochs.":
                lambda n, S, B, T: (S * B * T / n, S * B * T),
        },
    ),
    "11.2": Exercise(
        reference=DropoutByHand,
        cases=lambda: [
            (randoms(6, 50, 60, seed=1), 0.2), (randoms(7, 45, 33, seed=2), 0.5), (randoms(40, 1, 300, seed=3), 0.9),
            (randoms(5, 60, 41, seed=4), 0.1), (randoms(2, 3, 7, seed=5), 0.0), (randoms(3, 4, 5, seed=6), 1.0),
        ],
        run=_passes,
        facts=_facts_of_dropout,
        insight="In training a different net each time, with the same sums on average; afterwards one net, "
                "and no chance at all.",
        slips={
            "Is the scaling missing? The survivors must make up for those that are lost.":
                _in_training(lambda x, p: x * (torch.rand(x.shape) >= p)),
            "Do you divide by p? A share 1 − p survives, so that is what you divide by.":
                _in_training(lambda x, p: x * (torch.rand(x.shape) >= p) / p),
            "Do you multiply by 1 − p? Then the sum shrinks twice. Divide.":
                _in_training(lambda x, p: x * (torch.rand(x.shape) >= p) * (1 - p)),
            "Does a share p survive? p is the share that is lost.":
                _in_training(lambda x, p: x * (torch.rand(x.shape) < p) / (1 - p)),
            "Does a share p survive, divided by p? Then p has changed its meaning: it is the share that is lost.":
                _in_training(lambda x, p: x * (torch.rand(x.shape) < p) / p),
            "Do you drop in eval mode too? Ask self.training.":
                _dropout(lambda self, x: _dropped(x, self.p)),
            "Do you drop in eval mode, and not in training? self.training is True while training.":
                _dropout(lambda self, x: x if self.training else _dropped(x, self.p)),
            "Do you scale in eval mode? If the survivors were scaled in training, nothing is left to do later.":
                _dropout(lambda self, x: _dropped(x, self.p) if self.training else x * (1 - self.p)),
            "Do all the tokens share one mask? Each number of x needs its own chance: a mask as large as x.":
                _in_training(lambda x, p: _dropped(x, p, shape=x.shape[-1:])),
            "Do all the rows of the batch share one mask? Each number of x needs its own chance: a mask as large as x.":
                _in_training(lambda x, p: _dropped(x, p, shape=x.shape[1:])),
            "Do you drop whole tokens? Each number of x needs its own chance: a mask as large as x.":
                _in_training(lambda x, p: _dropped(x, p, shape=(*x.shape[:-1], 1))),
            "Is it the same mask at every pass? Draw a new one each time, without a fixed seed.":
                _in_training(lambda x, p: _dropped(x, p, draw=_always_the_same)),
            "Do you draw with randn? Its numbers are not spread evenly between 0 and 1; rand's are.":
                _in_training(lambda x, p: _dropped(x, p, draw=torch.randn)),
            "What if p is 1? Then nothing survives, and 0 / 0 is nan.":
                _in_training(_dropped),
        },
    ),
    "11.3": Exercise(
        reference=gpt_parameters,
        cases=lambda: [
            (65, 64, 4, 96, 4, False, False), (11, 7, 3, 10, 2, True, False), (13, 8, 2, 6, 3, False, True),
            (50257, 1024, 12, 768, 4, True, True), (5, 3, 0, 4, 4, True, False), (65, 256, 6, 384, 4, False, False),
        ],
        insight="With GPT-2's shape this gives 124,439,808: the number that is written on its smallest model.",
        slips={
            "Is the feed-forward always 4 times as wide? widen says how wide it is.":
                lambda *case: _count(*case, four=True),
            "Does the first feed-forward bias grow too? It has widen · C numbers, not 4 · C.":
                lambda V, T, L, C, w, *more: _count(V, T, L, C, w, *more) + L * (4 - w) * C,
            "How often does widen count? Feed-forward has two matrices, each of widen · C · C numbers.":
                lambda V, T, L, C, w, *more: _count(V, T, L, C, w, *more) + L * 6 * w * C * C,
            "Do you forget the biases of queries, keys and values? "
            "With qkv_bias there are three times C more in each block.":
                lambda *case: _count(*case, qkv=0),
            "Do you count one bias for queries, keys and values together? Each of the three has its own C numbers.":
                lambda *case: _count(*case, qkv=1 / 3),
            "Do you count queries, keys and values with a bias even where qkv_bias is False?":
                lambda V, T, L, C, w, bias, tied: _count(V, T, L, C, w, True, tied),
            "Do you count lm_head although it is tied? It is the token table, which you have counted already.":
                lambda V, T, L, C, w, bias, tied: _count(V, T, L, C, w, bias, False),
            "Do you count a bias of V numbers although lm_head is tied? Here a tied head has no bias.":
                lambda *case: _count(*case) + case[0] * case[-1],
            "Is the head never counted? It is only free where it is tied.":
                lambda V, T, L, C, w, bias, tied: _count(V, T, L, C, w, bias, True),
            "Is the bias of lm_head missing? It has V numbers, if the head is not tied.":
                lambda *case: _count(*case, head_bias=False),
            "Is the last layer norm missing?":
                lambda *case: _count(*case, last=0),
            "Do you count one layer norm for each block? There are two.":
                lambda *case: _count(*case, norms=1),
            "Are the layer norms in the blocks missing? Each has 2 · C numbers.":
                lambda *case: _count(*case, norms=0),
            "Do you count weights only? The projection and both feed-forward layers have biases too.":
                lambda *case: _count(*case, all_biases=0),
            "Is the position table missing?":
                lambda *case: _count(*case, position=0),
            "Is this a model of one block? There are n_layer of them.":
                lambda V, T, L, *more: _count(V, T, 1, *more),
        },
    ),
    "11.4": Exercise(
        reference=copied_share,
        cases=lambda: [
            ("a dog and the rat on the mat ate a cat", _TEXT, 4), ("the rat ate a fox on the mat", _TEXT, 1),
            ("the mat, and a dog, and a dog, and a dog", _TEXT, 4), (_TEXT[7:40], _TEXT, 9), ("xyz", _TEXT, 2),
            ("The Cat sat", _TEXT, 3), ("cat", _TEXT, 3), ("cat", _TEXT, 4), ("", _TEXT, 2),
        ],
        insight="The longest run is the largest n whose share is above 0; the shares also tell "
                "how much else was copied.",
        slips={
            "Do your pieces stand side by side? A new piece starts at every character, so they overlap.":
                lambda sample, source, n: _share(_pieces(sample, n)[::n], source),
            "Do you count each different piece only once? A piece that comes three times counts three times.":
                lambda sample, source, n: _share(set(_pieces(sample, n)), source),
            "Is the last piece lost? A sample of L characters has L − n + 1 pieces.":
                lambda sample, source, n: _share(_pieces(sample, n)[:-1], source),
            "Do you count pieces at the end that are shorter than n? Then the last ones are found too easily.":
                lambda sample, source, n: _share([sample[i : i + n] for i in range(len(sample))], source),
            "Do you divide by the length of the sample? Divide by the number of its pieces.":
                lambda sample, source, n: _share(_pieces(sample, n), source) * len(_pieces(sample, n)) / len(sample),
            "Is this how many pieces were found? We ask for their share, between 0 and 1.":
                lambda sample, source, n: sum(piece in source for piece in _pieces(sample, n)),
            "Is it turned around? We ask which pieces of the sample stand in the source.":
                lambda sample, source, n: copied_share(source, sample, n),
            "Are these the new pieces? We ask for the copied ones.":
                lambda sample, source, n: 1 - copied_share(sample, source, n),
            "Do you look for single characters? They are found nearly always. Look for whole pieces of n.":
                lambda sample, source, n: copied_share(sample, source, 1),
            "Do you compare words? A piece is n characters, wherever words begin and end.":
                lambda sample, source, n: _share(sample.split(), source.split()),
            "Do capitals count as small letters? Character for character means the same character.":
                lambda sample, source, n: copied_share(sample.lower(), source.lower(), n),
            "Is the sample too short for a single piece? Then the share is 0.":
                lambda sample, source, n: _share(_pieces(sample, n), source, none=1.0),
        },
    ),
    "11.5": Exercise(
        reference=predict_loss,
        cases=lambda: [
            (*_TABLE, 416833), (*_TABLE, 20000), ([1000, 4000], [3.0, 2.5], 64000),
            ([800, 50, 200], [2.0, 4.1, 2.7], 5000), ([10, 20, 40, 80, 160], [1.9, 1.7, 1.4, 1.5, 1.2], 1000),
            ([125e6, 1.3e9, 13e9], [3.0, 2.6, 2.3], 175e9),
        ],
        insight="A straight line on two logarithmic axes is how runs that cost millions are planned "
                "(Kaplan and others, 2020).",
        slips={
            "Is there no logarithm in it? Sizes that grow by factors need one, and so do losses.":
                lambda sizes, losses, size: _fit(sizes, losses, size),
            "Do you take the logarithm of the sizes only? The line needs both axes.":
                lambda sizes, losses, size: _fit(_ln(sizes), losses, math.log(size)),
            "Do you take the logarithm of the losses only? The line needs both axes.":
                lambda sizes, losses, size: math.exp(_fit(sizes, _ln(losses), size)),
            "Is this the logarithm of the loss? Undo it at the end.":
                lambda sizes, losses, size: _fit(_ln(sizes), _ln(losses), math.log(size)),
            "Do you take log10 and undo it with exp? exp belongs to the natural logarithm.":
                lambda sizes, losses, size: predict_loss(sizes, losses, size) ** (1 / math.log(10)),
            "Do you use only the first and the last run? The line must come as near as it can to all of them.":
                _through(0, -1),
            "Do you use only the last two runs? The line must come as near as it can to all of them.":
                _through(-2, -1),
            "Do you use only the first two runs? The line must come as near as it can to all of them.":
                _through(0, 1),
            "Does your line go up? Look at the sign of the slope.":
                _log_line(lambda best, x, y: -best),
            "Does your line have to go through 0? It needs a slope and a start of its own.":
                _from_zero,
            "Are the two axes exchanged? Keep the distances in the loss small, not those in the size.":
                _log_line(_turned),
            "Is there a slope in it? This is the average of all runs, whatever their size.":
                _log_line(lambda best, x, y: 0.0),
        },
    ),
}
