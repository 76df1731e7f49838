"""The exercises of chapter 10, Layer norm."""

import torch
from torch import nn

from utils.checks import Exercise
from utils.exercises import randoms, settled

KINDS = ("batch", "layer", "instance")


def how_many_means(kind, B, T, C):
    together = {"batch": ("B", "T"), "layer": ("C",), "instance": ("T",)}[kind]
    number = 1
    for letter, size in (("B", B), ("T", T), ("C", C)):
        if letter not in together:
            number *= size   # what is not taken together is counted
    return number


def normalize_tokens(x, gamma, beta, eps=1e-5):
    B, T, C = x.shape
    out = torch.zeros(B, T, C)
    for b in range(B):
        for t in range(T):
            mean = sum(x[b, t, c] for c in range(C)) / C
            variance = sum((x[b, t, c] - mean) ** 2 for c in range(C)) / C
            for c in range(C):
                out[b, t, c] = gamma[c] * (x[b, t, c] - mean) / (variance + eps) ** 0.5 + beta[c]
    return out


class RMSNorm(nn.Module):
    """As on the card."""

    def __init__(self, dim, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        out = torch.zeros_like(x)
        for b, row in enumerate(x):
            for t, token in enumerate(row):
                mean_square = sum(number ** 2 for number in token) / len(token)
                out[b, t] = self.gamma * token / (mean_square + self.eps) ** 0.5
        return out


def sees_future(norm, x):
    before = norm(x)
    for t in range(1, x.shape[1]):
        changed = x.clone()
        changed[:, t:] = randoms(*changed[:, t:].shape, seed=t)
        if not torch.allclose(norm(changed)[:, :t], before[:, :t], atol=1e-5):
            return True
    return False


class RunningBatchNorm(nn.Module):
    """As on the card."""

    def __init__(self, dim, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.gamma = nn.Parameter(torch.ones(dim))
        self.beta = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean(0), x.var(0, unbiased=False)
            tenth = self.momentum
            self.running_mean = (1 - tenth) * self.running_mean + tenth * mean
            self.running_var = (1 - tenth) * self.running_var + tenth * x.var(0, unbiased=True)
        return self.gamma * (x - mean) / (var + self.eps).sqrt() + self.beta


# Pieces of the slips.

def _group(x, dims, gamma=1.0, beta=0.0, eps=1e-5, unbiased=False):
    """x with mean 0 and variance 1 over these dimensions."""
    centred = x - x.mean(dims, keepdim=True)
    variance = x.var(dims, keepdim=True) if unbiased else centred.pow(2).mean(dims, keepdim=True)
    return gamma * centred / (variance + eps).sqrt() + beta


def _count(batch, layer, instance):
    return lambda kind, B, T, C: {"batch": batch, "layer": layer, "instance": instance}[kind](B, T, C)


def _rms(divisor, gamma=lambda self: self.gamma):
    """An RMSNorm that divides by ``divisor(x, eps)``."""
    return type("RMSNorm", (RMSNorm,), {"forward": lambda self, x: gamma(self) * x / divisor(x, self.eps)})


def _batch_norm(self, x, unbiased=True, own_unbiased=False, new=None, old=None, train=None, learn=None, affine=True):
    """Batch norm with memory, its parts to be changed, as slips do."""
    train = self.training if train is None else train
    learn = self.training if learn is None else learn
    new = self.momentum if new is None else new
    old = 1 - new if old is None else old
    if learn:
        self.running_mean = old * self.running_mean + new * x.mean(0)
        self.running_var = old * self.running_var + new * x.var(0, unbiased=unbiased)
    mean, var = (x.mean(0), x.var(0, unbiased=own_unbiased)) if train else (self.running_mean, self.running_var)
    normal = (x - mean) / (var + self.eps).sqrt()
    return self.gamma * normal + self.beta if affine else normal


def _memory(**parts):
    return type("RunningBatchNorm", (RunningBatchNorm,), {"forward": lambda self, x: _batch_norm(self, x, **parts)})


def _learned(C, seed):
    """A gamma and a beta that are far from 1 and 0."""
    return randoms(C, seed=100 + seed), randoms(C, seed=200 + seed)


def _with_gamma(cls, x, gamma):
    norm = cls(len(gamma))
    norm.gamma.data.copy_(gamma)
    return norm(x)


def _use(cls, batches, later):
    """Train on the batches, then use it: what it says each time, and what it remembers."""
    norm = settled(cls(later.shape[-1]))
    said = [norm(batch) for batch in batches]
    for name in ("running_mean", "running_var"):
        if getattr(norm, name).shape != later.shape[1:]:
            raise ValueError(f"{name} has become {tuple(getattr(norm, name).shape)}, it must stay (C,)")
    norm.eval()
    return [*said, norm.running_mean.clone(), norm.running_var.clone(), norm(later), norm.running_mean]


def _named(results, batches, later):
    names = [f"what it says to batch {k} in training" for k in range(len(batches))]
    names += ["running_mean after training", "running_var after training", "what it says in eval mode"]
    return dict(zip([*names, "running_mean after use in eval mode"], results))


# Norms to be judged: does an output hang on a later token?

def _so_far(x):
    return torch.stack([_group(x[:, : t + 1], (1, 2))[:, t] for t in range(x.shape[1])], dim=1)


def _next_too(x):
    return torch.stack([_group(x[:, t : t + 2], (1, 2))[:, 0] for t in range(x.shape[1])], dim=1)


def _two_halves(x):
    half = x.shape[1] // 2
    return torch.cat([_group(x[:, :half], (2,)), _group(x[:, half:], (1, 2))], dim=1)


def _tokens_then_times(x):
    tokens = _group(x, (2,))
    return tokens - tokens.mean(1, keepdim=True)


NORMS = {
    "a norm of each token alone": lambda x: _group(x, (2,)),
    "a norm of all tokens of all rows": lambda x: _group(x, (0, 1)),
    "a norm of all times of one row": lambda x: _group(x, (1,)),
    "a norm of all rows at one time": lambda x: _group(x, (0,)),
    "a norm of everything up to this token": _so_far,
    "a norm of this token and the next": _next_too,
    "a norm by the mean of the first two tokens": lambda x: x - x[:, :2].mean((1, 2), keepdim=True),
    "a norm of each token alone, then minus the mean over all times": _tokens_then_times,
    "a norm of each token in the first half, of all times together in the second half": _two_halves,
}


def _verdicts(answer, x):
    found = [answer(norm, x) for norm in NORMS.values()]
    return [bool(one) if isinstance(one, torch.Tensor) and one.numel() == 1 else one for one in found]


def _moves(change, watch, starts=lambda T: range(1, T)):
    """A check that changes some tokens from time t on, and watches others."""
    def judge(norm, x):
        for t in starts(x.shape[1]):
            changed = x.clone()
            change(changed, t)
            if not torch.allclose(watch(norm(changed), t), watch(norm(x), t), atol=1e-5):
                return True
        return False
    return judge


def _anew(part):
    part.copy_(randoms(*part.shape, seed=part.numel()))


def _after(x, t):
    _anew(x[:, t:])


def _louder(x, t):
    x[:, t:] += 10


EXERCISES = {
    "10.1": Exercise(
        reference=how_many_means,
        cases=lambda: [(4, 6, 32), (2, 5, 7), (1, 8, 3), (3, 1, 10), (1, 1, 1)],
        run=lambda answer, *sizes: [answer(kind, *sizes) for kind in KINDS],
        facts=lambda means, *sizes: {f"{kind} norm": number for kind, number in zip(KINDS, means)},
        insight="All these norms are one formula. Only the numbers that share a mean differ.",
        slips={
            "Is this how many numbers go into one mean? We ask how many means there are.":
                _count(lambda B, T, C: B * T, lambda B, T, C: C, lambda B, T, C: T),
            "Are batch norm and layer norm exchanged? The name says what is taken together: the batch, or the "
            "layer's channels.":
                _count(lambda B, T, C: B * T, lambda B, T, C: C, lambda B, T, C: B * C),
            "Has each time its own mean? For batch norm, the times of a row are only more of the batch.":
                _count(lambda B, T, C: T * C, lambda B, T, C: B * T, lambda B, T, C: B * C),
            "Does a whole row share one mean? In layer norm each token has its own.":
                _count(lambda B, T, C: C, lambda B, T, C: B, lambda B, T, C: B * C),
            "Do you count gamma? It has C numbers in every norm, but it is no mean.":
                _count(lambda B, T, C: C, lambda B, T, C: C, lambda B, T, C: C),
            "Are the rows of a batch taken together in instance norm? Each row is an instance of its own.":
                _count(lambda B, T, C: C, lambda B, T, C: B * T, lambda B, T, C: C),
            "Are the channels of a row taken together in instance norm? Each channel of each row has its own mean.":
                _count(lambda B, T, C: C, lambda B, T, C: B * T, lambda B, T, C: B),
            "Is it T for instance norm? So many numbers go into one mean. There is a mean for each channel of each row.":
                _count(lambda B, T, C: C, lambda B, T, C: B * T, lambda B, T, C: T),
            "Has instance norm a mean for each token? It takes all the times of a row together.":
                _count(lambda B, T, C: C, lambda B, T, C: B * T, lambda B, T, C: B * T),
        },
    ),
    "10.2": Exercise(
        reference=normalize_tokens,
        cases=lambda: [
            (torch.tensor([[[1.0, 3, 5, 7], [2, 0, 0, 6]], [[4, 0, 9, 1], [9, 8, 0, 0]]]), torch.ones(4), torch.zeros(4)),
            (torch.tensor([[[1.0, 2, 6], [4, 4, 4]]]), *_learned(3, seed=3)),
            (5 + randoms(2, 3, 7, seed=1, scale=3), *_learned(7, seed=2)),
            (randoms(3, 4, 5, seed=4, scale=1e-3), *_learned(5, seed=5)),
            (randoms(4, 1, 6, seed=7, scale=100), *_learned(6, seed=8)),
            (randoms(2, 5, 1, seed=10), *_learned(1, seed=11)),
        ],
        insight="B · T means, B · T variances, and only 2 · C parameters: what is learned is the same for every token.",
        slips={
            "Do you divide the squares by C − 1? var does so unless it is told unbiased=False. "
            "Layer norm divides by C.":
                lambda x, g, b: _group(x, (-1,), g, b, unbiased=True),
            "Do you divide by the variance? It is the square of a size; the standard deviation is its root.":
                lambda x, g, b: g * (x - x.mean(-1, True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5) + b,
            "Do all the tokens of a row share a mean? Each token must stand alone.":
                lambda x, g, b: _group(x, (1, 2), g, b),
            "Do you take the mean over time? Then a token is mixed with later ones. It goes over the channels.":
                lambda x, g, b: _group(x, (1,), g, b),
            "Do you take the mean over the batch? That is batch norm. It goes over the channels of one token.":
                lambda x, g, b: _group(x, (0, 1), g, b),
            "Is the mean still in it? Subtract it before you divide.":
                lambda x, g, b: g * x / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() + b,
            "Is eps missing? A token whose numbers are all equal has variance 0, and 0 / 0 is nan.":
                lambda x, g, b: _group(x, (-1,), g, b, eps=0.0),
            "Is eps outside the root? It is added to the variance, and the root is taken of both.":
                lambda x, g, b: g * (x - x.mean(-1, True)) / (x.std(-1, keepdim=True, unbiased=False) + 1e-5) + b,
            "Are gamma and beta exchanged? gamma multiplies, beta is added.":
                lambda x, g, b: _group(x, (-1,), b, g),
            "Is beta multiplied by gamma too? First times gamma, then plus beta.":
                lambda x, g, b: _group(x, (-1,), g, g * b),
            "Are gamma and beta missing?":
                lambda x, g, b: _group(x, (-1,)),
            "Is gamma missing?":
                lambda x, g, b: _group(x, (-1,), 1.0, b),
            "Is beta missing?":
                lambda x, g, b: _group(x, (-1,), g),
        },
    ),
    "10.3": Exercise(
        reference=RMSNorm,
        cases=lambda: [
            (torch.tensor([[[3.0, -4, 2]]]), torch.ones(3)), (torch.tensor([[[1.0, 5], [0, 0]]]), torch.tensor([2.0, 0.5])),
            (2 + randoms(2, 3, 7, seed=13), randoms(7, seed=40)), (randoms(3, 5, 4, seed=14, scale=1e-3), torch.ones(4)),
            (randoms(4, 1, 6, seed=15, scale=300), randoms(6, seed=41)), (randoms(2, 4, 1, seed=16), randoms(1, seed=42)),
        ],
        run=_with_gamma,
        insight="The mean was not needed: models like Llama use this norm, with half the parameters "
                "(Zhang and Sennrich, 2019).",
        slips={
            "Do you still subtract the mean? RMSNorm leaves it in.":
                type("RMSNorm", (RMSNorm,), {"forward": lambda self, x: _group(x, (-1,), self.gamma)}),
            "Do you divide by the standard deviation? It measures from the mean. Here we measure from 0.":
                _rms(lambda x, eps: (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()),
            "Is there a mean in it? You divide by the root of the sum of the squares; we need the root of their mean.":
                _rms(lambda x, eps: (x.pow(2).sum(-1, True) + eps).sqrt()),
            "Do you divide by the mean of the sizes? Square first, then the mean, then the root.":
                _rms(lambda x, eps: x.abs().mean(-1, True) + eps),
            "Is the root missing? The mean of the squares has the wrong unit.":
                _rms(lambda x, eps: x.pow(2).mean(-1, True) + eps),
            "Is this the square of the mean? We need the mean of the squares.":
                _rms(lambda x, eps: (x.mean(-1, True).pow(2) + eps).sqrt()),
            "Is eps outside the root? It is added to the mean of the squares, and the root is taken of both.":
                _rms(lambda x, eps: x.pow(2).mean(-1, True).sqrt() + eps),
            "Is eps missing? A token of zeros gives 0 / 0, which is nan.":
                _rms(lambda x, eps: x.pow(2).mean(-1, True).sqrt()),
            "Do you multiply by the root instead of dividing?":
                _rms(lambda x, eps: 1 / (x.pow(2).mean(-1, True) + eps).sqrt()),
            "Is gamma missing?":
                _rms(lambda x, eps: (x.pow(2).mean(-1, True) + eps).sqrt(), gamma=lambda self: 1.0),
            "Is keepdim=True missing? Without it the roots meet the channels, not their own tokens.":
                _rms(lambda x, eps: (x.pow(2).mean(-1) + eps).sqrt()),
            "Do the tokens of a row share one size? Each token has its own.":
                _rms(lambda x, eps: (x.pow(2).mean((1, 2), True) + eps).sqrt()),
            "Does the mean run over time? It runs over the channels of one token.":
                _rms(lambda x, eps: (x.pow(2).mean(1, True) + eps).sqrt()),
        },
    ),
    "10.4": Exercise(
        reference=sees_future,
        cases=lambda: [
            (5 + randoms(2, 6, 4, seed=17),), (randoms(3, 5, 7, seed=18, scale=3),), (randoms(2, 1, 5, seed=19),),
        ],
        run=_verdicts,
        facts=lambda found, *case: {f"for {name}": verdict for name, verdict in zip(NORMS, found)},
        insight="You may now test any part of a model before you train it: a leak of the future makes a wonderful "
                "loss, and a useless model.",
        slips={
            "Is it turned around? True means that the future is seen.":
                lambda norm, x: not sees_future(norm, x),
            "Do you also watch the tokens that you changed? Of course they move. Watch only the ones before.":
                _moves(_after, lambda out, t: out),
            "Do you change the past and watch what comes later? That is allowed. "
            "Change later tokens, watch the earlier ones.":
                _moves(lambda x, t: _anew(x[:, :t]), lambda out, t: out[:, t:]),
            "Do you change another row? We ask about later tokens of the same row.":
                _moves(lambda x, t: _anew(x[-1:]), lambda out, t: out[:-1]),
            "Do you add the same number to all channels? A norm over the channels takes just that away again. "
            "Put in random numbers.":
                _moves(_louder, lambda out, t: out[:, :t]),
            "Do you change only the last token? A norm may peek at a nearer one. Try every t.":
                _moves(_after, lambda out, t: out[:, :t], starts=lambda T: range(max(1, T - 1), T)),
            "Do you look at only one t, or only at the first token? A later one may peek. Try every t.":
                _moves(_after, lambda out, t: out[:, :1]),
            "Do you always say False?": lambda norm, x: False,
        },
    ),
    "10.5": Exercise(
        reference=RunningBatchNorm,
        cases=lambda: [
            (5 + randoms(2, 4, 3, seed=20, scale=2), randoms(2, 3, seed=21)),
            (randoms(4, 9, 5, seed=22, scale=3) - 2, randoms(6, 5, seed=23)),
            (randoms(1, 2, 7, seed=24), randoms(3, 7, seed=25)),
            (10 + randoms(3, 16, 1, seed=26), randoms(5, 1, seed=27)),
        ],
        run=_use,
        facts=_named,
        insight="So batch norm needs a memory, a momentum and two modes. Layer norm does without all three.",
        slips={
            "Which variance goes into the memory? Normalize with the one divided by B, but remember the one "
            "divided by B − 1.":
                _memory(unbiased=False),
            "Which variance do you normalize with? In training it is the one divided by B. Only the memory gets B − 1.":
                _memory(own_unbiased=True),
            "Does the memory keep a tenth of the old and take nine tenths of the new? "
            "It is the other way round: it is slow.":
                _memory(new=0.9),
            "Is nothing of the old memory taken away? It keeps nine tenths of it, so that it stays an average.":
                _memory(old=1.0),
            "Does the memory hold only the last batch? Mix the new with the old.":
                _memory(new=1.0),
            "Does the memory never learn? In training, each batch changes it.":
                _memory(learn=False),
            "Does the memory go on learning in eval mode? Ask self.training first.":
                _memory(learn=True),
            "Do you use the memory in training too? There each batch is normalized by its own mean and variance.":
                _memory(train=False),
            "Do you never use the memory? In eval mode it takes the place of the batch's own mean and variance.":
                _memory(train=True),
            "Do you never ask self.training? In eval mode the memory takes the place of the batch's own mean and variance, "
            "and does not change.":
                _memory(train=True, learn=True),
            "Is it upside down? self.training is True while training, so the batch's own numbers belong there.":
                type("RunningBatchNorm", (RunningBatchNorm,), {
                    "forward": lambda self, x: _batch_norm(self, x, train=not self.training)}),
            "Are gamma and beta missing?":
                _memory(affine=False),
        },
    ),
}
