"""The exercises of chapter 04, The bigram model."""

import math
from collections import Counter

import torch
import torch.nn.functional as F

from utils.checks import Exercise


def softmax(logits):
    probs = torch.zeros_like(logits)
    rows, out = logits.reshape(-1, logits.shape[-1]), probs.view(-1, logits.shape[-1])
    for i, row in enumerate(rows):
        powers = (row - row.max()).exp()   # the largest power is 1, so nothing overflows
        out[i] = powers / powers.sum()
    return probs


def cross_entropy(logits, targets):
    B, T, _ = logits.shape
    total = 0.0
    for b in range(B):
        for t in range(T):
            scores = logits[b, t].double()
            total += (torch.logsumexp(scores, dim=0) - scores[targets[b, t]]).item()
    return total / (B * T)


def draw(logits, temperature, u):
    drawn = []
    for row, chance in zip(logits, u):
        reached, i = 0.0, -1
        for i, p in enumerate(softmax(row / temperature).tolist()):
            reached += p
            if reached > chance.item():
                break
        drawn.append(i)
    return torch.tensor(drawn)


def sgd_step(table, x, y, lr):
    new = table.clone()
    for this, following in zip(x.tolist(), y.tolist()):
        error = softmax(table[this])
        error[following] -= 1
        new[this] -= lr * error / len(x)
    return new


def ngram_loss(train, val, V, n):
    grams = Counter(tuple(train[i : i + n]) for i in range(len(train) - n + 1))
    contexts = Counter()
    for gram, times in grams.items():
        contexts[gram[:-1]] += times
    total, guesses = 0.0, len(val) - n + 1
    for i in range(guesses):
        gram = tuple(val[i : i + n])
        total -= math.log((grams[gram] + 1) / (contexts[gram[:-1]] + V))
    return total / guesses


# Slips that take more than an expression.

def _shares(logits, *away, over=-1, keep=True):
    """Powers of the scores less ``away`` (or else the row's largest), divided by a sum that may be a wrong one."""
    powers = (logits - (away[0] if away else logits.amax(-1, True))).exp()
    return powers / (powers.sum() if over is None else powers.sum(dim=over, keepdim=keep))


def _surprises(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


def _log_of_softmax(logits, targets):
    powers = (logits - logits.amax(dim=-1, keepdim=True)).exp()
    probs = powers / powers.sum(dim=-1, keepdim=True)
    return -probs.gather(-1, targets[..., None]).log().mean()


def _picked(logits, u, probs):
    return (probs.cumsum(dim=-1) <= u[:, None]).sum(dim=-1)


def _overwritten(table, x, y, lr):
    new = table.clone()
    for this, following in zip(x.tolist(), y.tolist()):   # starts from the old row each time
        new[this] = table[this] - lr * (softmax(table[this]) - F.one_hot(torch.tensor(following), len(table))) / len(x)
    return new


def _one_by_one(table, x, y, lr):
    for this, following in zip(x, y):   # each position takes a step of its own
        table = sgd_step(table, this[None], following[None], lr / len(x))
    return table


def _ngram(train, val, V, n, plus=1, below=None, ends=False, size=None, once=False):
    """The n-gram loss with its parts to be changed, as slips do; infinite where a surprise is."""
    grams = Counter(tuple(train[i : i + n]) for i in range(len(train) - n + 1))
    contexts = Counter(tuple(train[i : i + n - 1]) for i in range(len(train) - n + 1 + ends))
    guesses = [tuple(val[i : i + n]) for i in range(len(val) - n + 1)]
    if once:
        guesses = set(guesses)
    total = 0.0
    for gram in guesses:
        count, seen = grams[gram] + plus, contexts[gram[:-1]] + (V if below is None else below)
        total += -math.log(count / seen) if count and seen else math.inf
    return total / (size or len(guesses))


def _random(*shape, seed, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _uniform(n, seed):
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def _ids(*shape, top, seed):
    return torch.randint(top, shape, generator=torch.Generator().manual_seed(seed))


def _text(length, top, seed):
    return (_ids(length, top=top, seed=seed) * _uniform(length, seed)).long().tolist()   # low ids are common


EXERCISES = {
    "4.1": Exercise(
        reference=softmax,
        cases=lambda: [
            (torch.tensor([[0.0, 1, 2], [3, 3, 3], [0, 0, 5]]),),
            (_random(5, seed=1),), (_random(2, 7, seed=2),), (_random(3, 4, 6, seed=3),), (_random(1, 1, 1, seed=4),),
            (torch.tensor([1000.0, 1001, 1002]),),
            (torch.tensor([[0.0, -400, -400, -400], [1, 2, 3, 4]]),),
            (torch.tensor([[1000.0, 1001], [-1000, -1001]]),),
            (torch.tensor([2.0, 1.0, -math.inf]),),
        ],
        insight="Moving all scores of a row by the same amount changes nothing, so exp never has to see a large number.",
        slips={
            "Did exp overflow? It gives inf for large scores, and inf / inf is nan. "
            "Only differences between the scores of a row matter: how can the largest one become harmless?":
                lambda logits: logits.exp() / logits.exp().sum(dim=-1, keepdim=True),
            "Over which dimension do your probabilities sum to 1? The scores that compete stand side by side in the last one.":
                lambda logits: F.softmax(logits, dim=0),
            "Is each row divided by its own sum? A sum without keepdim=True drops its dimension, and then it meets the columns.":
                lambda logits: logits.exp() / logits.exp().sum(dim=-1),
            "Does each row stay beside its own sum? Without keepdim=True the sums lie along the columns.":
                lambda logits: _shares(logits, keep=False),
            "Does each row stay beside its own maximum? Without keepdim=True the maxima lie along the columns.":
                lambda logits: _shares(logits, logits.amax(-1)),
            "Do the numbers of each row sum to 1? A sum without dim adds up the whole tensor; each row has its own sum.":
                lambda logits: _shares(logits, 0.0, over=None),
            "Do the numbers of each row sum to 1? The maximum is taken row by row; the sum must be, too.":
                lambda logits: _shares(logits, over=None),
            "Do the numbers of each row sum to 1? Your sum goes down the columns, over the first dimension.":
                lambda logits: _shares(logits, over=0),
            "Do you subtract the same number from all scores? It makes small powers vanish and large ones still overflow. "
            "Ask each row for a number of its own.":
                lambda logits: _shares(logits, 100.0),
            "Do you take one maximum for the whole tensor? Each row needs its own: a row far below it has only zeros left.":
                lambda logits: (logits - logits.max()).exp() / (logits - logits.max()).exp().sum(dim=-1, keepdim=True),
            "What do you subtract from a row? One score is still far above it, and exp gives inf. Which score must become 0?":
                lambda logits: (logits - logits.mean(-1, True)).exp() / (logits - logits.mean(-1, True)).exp().sum(
                    -1, True
                ),
            "Are these still logarithms? Probabilities are between 0 and 1.":
                lambda logits: F.log_softmax(logits, dim=-1),
            "Does anything divide by the sum? The powers of a row must sum to 1 at the end.":
                lambda logits: (logits - logits.amax(-1, True)).exp(),
        },
    ),
    "4.2": Exercise(
        reference=cross_entropy,
        cases=lambda: [
            (torch.tensor([[[2.0, 0], [0, 3], [1, 1]], [[0, 1], [2, 0], [4, 0]]]), torch.tensor([[0, 1, 1], [0, 0, 1]])),
            (_random(4, 3, 3, seed=5), _ids(4, 3, top=3, seed=6)),
            (_random(2, 3, 7, seed=7), _ids(2, 3, top=7, seed=8)),
            (_random(5, 1, 4, seed=9, scale=3), _ids(5, 1, top=4, seed=10)),
            (_random(1, 6, 65, seed=11), _ids(1, 6, top=65, seed=12)),
            (torch.tensor([[[0.0, -200, 1], [0, 1, 2]]]), torch.tensor([[1, 2]])),
            (torch.tensor([[[1000.0, 1001, 1003]]]), torch.tensor([[1]])),
        ],
        insight="Without the detour over probabilities no surprise is too large to be counted; F.cross_entropy does the same.",
        slips={
            "Is it the sum? The loss is the mean over all B · T positions.":
                lambda logits, targets: _surprises(logits, targets).sum(),
            "Do you divide by B only? The mean goes over positions too: B · T surprises.":
                lambda logits, targets: _surprises(logits, targets).sum() / len(targets),
            "Does the mean go over the zeros of the other characters too? There is one surprise for each position, not V.":
                lambda logits, targets: _surprises(logits, targets).sum() / logits.numel(),
            "Is a minus sign missing? ln p is below 0, a surprise is above.":
                lambda logits, targets: -_surprises(logits, targets).mean(),
            "Is this the surprise of the mean probability? First the logarithm, for each position, then the mean.":
                lambda logits, targets: -(-_surprises(logits, targets)).exp().mean().log(),
            "Over which dimension do your probabilities sum to 1? The characters compete, in the last one.":
                lambda logits, targets: -F.log_softmax(logits, dim=1).gather(-1, targets[..., None]).mean(),
            "Is this in bits? We count in nats, with the natural logarithm.":
                lambda logits, targets: _surprises(logits, targets).mean() / math.log(2),
            "Is this the logarithm of a probability that was rounded to 0? Work with ln p from the start: "
            "write down ln of (power / sum) and simplify it.":
                _log_of_softmax,
            "Did exp overflow? Make the largest score of each position 0 first, as in 4.1.":
                lambda logits, targets: (logits.exp().sum(-1).log() - logits.gather(-1, targets[..., None])[..., 0]).mean(),
            "Are the positions in another order than the targets? view only cuts the numbers elsewhere; use transpose.":
                lambda logits, targets: F.cross_entropy(logits.view(len(logits), logits.shape[2], -1), targets),
        },
    ),
    "4.3": Exercise(
        reference=draw,
        cases=lambda: [
            (torch.tensor([[2.0, 1, 0], [0, 1, 2], [0, 1, 0], [1, 1, 1]]), 1.0, torch.tensor([0.75, 0.125, 0.5, 0.875])),
            (_random(40, 7, seed=13), 1.0, _uniform(40, seed=14)),
            (_random(30, 65, seed=15, scale=2), 0.5, _uniform(30, seed=16)),
            (_random(50, 9, seed=17, scale=2), 3.0, _uniform(50, seed=18)),
            (_random(1, 5, seed=19), 0.8, torch.tensor([0.6])),
            (torch.tensor([[-math.inf, 0, 0], [0, -math.inf, 0]]), 1.0, torch.tensor([0.0, 0.75])),
            (torch.tensor([[800.0, 799.5, 0], [0, 800, 799.5]]), 0.5, torch.tensor([0.9, 0.1])),
        ],
        insight="Below 1 the likely characters get likelier, above 1 the odds even out; chapter 14 plays with it.",
        slips={
            "Did exp overflow? Make the largest score of each row 0 first, as in 4.1.":
                lambda logits, temperature, u: _picked(
                    logits, u, (logits / temperature).exp() / (logits / temperature).exp().sum(-1, True)),
            "Do you multiply by the temperature? A high temperature must make the scores more alike.":
                lambda logits, temperature, u: _picked(logits, u, F.softmax(logits * temperature, dim=-1)),
            "Is the temperature used at all?":
                lambda logits, temperature, u: _picked(logits, u, F.softmax(logits, dim=-1)),
            "Do you divide the probabilities by the temperature? Then they no longer sum to 1. It belongs to the scores.":
                lambda logits, temperature, u: _picked(logits, u, F.softmax(logits, -1) / temperature).clamp(
                    max=logits.shape[1] - 1
                ),
            "Do you always take the likeliest id? Then u is not used, and nothing is drawn.":
                lambda logits, temperature, u: logits.argmax(dim=-1),
            "Do you draw with your own chance? The chance is in u already, one number for each row.":
                lambda logits, temperature, u: torch.multinomial(F.softmax(logits / temperature, -1), 1)[:, 0],
            "Which running sums do you count? Those that u has reached or passed; the others lie beyond it.":
                lambda logits, temperature, u: (F.softmax(logits / temperature, -1).cumsum(-1) > u[:, None]).sum(-1),
            "Is it one id too far? Id 0 owns the numbers from 0 up to its own probability.":
                lambda logits, temperature, u: (draw(logits, temperature, u) + 1).clamp(max=logits.shape[1] - 1),
            "Is it one id too early? Stop at the id whose own share takes the running sum past u.":
                lambda logits, temperature, u: (draw(logits, temperature, u) - 1).clamp(min=0),
            "Do you compare u with single probabilities? The share of an id begins where the one before it ends: add them up.":
                lambda logits, temperature, u: (F.softmax(logits / temperature, -1) > u[:, None]).int().argmax(dim=-1),
            "Can an id with probability 0 be drawn? The running sum must be greater than u; equal is not enough.":
                lambda logits, temperature, u: (F.softmax(logits / temperature, -1).cumsum(-1) < u[:, None]).sum(-1),
            "Do you add up over the batch? Each row is a distribution of its own, along the last dimension.":
                lambda logits, temperature, u: (F.softmax(logits / temperature, -1).cumsum(0) > u[:, None]).int().argmax(
                    -1
                ),
        },
    ),
    "4.4": Exercise(
        reference=sgd_step,
        cases=lambda: [
            (torch.tensor([[0.0, 1, 2], [1, 1, 1], [0, 0, 3]]), torch.tensor([0, 2, 0]), torch.tensor([1, 0, 2]), 1.0),
            (_random(5, 5, seed=20), _ids(12, top=5, seed=21), _ids(12, top=5, seed=22), 0.5),
            (_random(9, 9, seed=23), _ids(7, top=9, seed=24), _ids(7, top=9, seed=25), 2.0),
            (_random(4, 4, seed=26), torch.tensor([3]), torch.tensor([3]), 0.1),
            (_random(65, 65, seed=27), _ids(32, top=65, seed=28), _ids(32, top=65, seed=29), 10.0),
            (torch.tensor([[0.0, 200], [500, 500]]), torch.tensor([0, 1]), torch.tensor([0, 0]), 1.0),
        ],
        insight="What backward and step do for this model is only this: take off what was believed, and add what came.",
        slips={
            "Do you go up? The step goes against the gradient.":
                lambda table, x, y, lr: 2 * table - sgd_step(table, x, y, lr),
            "Is the 1/N missing? The loss is a mean, so each position counts one N-th.":
                lambda table, x, y, lr: sgd_step(table, x, y, lr * len(x)),
            "Is the learning rate used?":
                lambda table, x, y, lr: sgd_step(table, x, y, 1.0) if lr != 1.0 else sgd_step(table, x, y, 0.0),
            "Is nothing taken off at the target? The gradient is p everywhere, minus 1 at the character that came.":
                lambda table, x, y, lr: table.index_add(0, x, -lr * F.softmax(table, -1)[x] / len(x)),
            "Does only the target change? All scores of the row have a gradient: each its own p.":
                lambda table, x, y, lr: table.index_put((x, y), torch.tensor(lr / len(x)), accumulate=True),
            "What if a character comes twice in x? Both its gradients count; the second must not replace the first.":
                _overwritten,
            "Does a later position use a row that you have changed already? All probabilities come from the old table.":
                _one_by_one,
            "Are rows and columns exchanged? The row is the character that is seen, the column the one that follows.":
                lambda table, x, y, lr: sgd_step(table.T, x, y, lr).T,
            "Are x and y exchanged? x is what is seen, y what came next.":
                lambda table, x, y, lr: sgd_step(table, y, x, lr),
            "Over which dimension do your probabilities sum to 1? Each row of the table is one distribution.":
                lambda table, x, y, lr: table.index_add(
                    0, x, -lr * (F.softmax(table, 0)[x] - F.one_hot(y, len(table))) / len(x)),
        },
    ),
    "4.5": Exercise(
        reference=ngram_loss,
        cases=lambda: [
            ([0, 1, 0, 1, 0, 2, 1], [1, 0, 2, 0, 0], 3, 2),
            ([0, 1, 2, 0, 1, 0, 0, 1, 2], [0, 1, 2, 0, 1, 1], 4, 3),
            (_text(60, 6, seed=30), _text(31, 6, seed=31), 7, 1),
            (_text(80, 5, seed=32), _text(40, 5, seed=33), 6, 4),
            (_text(300, 9, seed=34), _text(90, 9, seed=35), 11, 2),
            ([1, 2, 3, 1, 2, 3, 1], [0, 0, 4], 5, 3),
        ],
        insight="Now the real text, for n = 2, 3, 4, 5: n = 2 must give the 2.4819 of this page, and one of the others gets below 2.",
        slips={
            "Are there surprises without end? A group of ids that is new in val has the count 0: add 1 to every count.":
                lambda *case: _ngram(*case, plus=0, below=0),
            "Do the V followers of a context each get 1 more? Then the sum that you divide by grows by V.":
                lambda *case: _ngram(*case, below=0),
            "Does the sum that you divide by grow by 1 only? All V followers got one more.":
                lambda *case: _ngram(*case, below=1),
            "Do you count a context at the very end of train? Nothing follows it there, so it must not count.":
                lambda *case: _ngram(*case, ends=True),
            "Is it the sum? The loss is a mean over the guesses.":
                lambda *case: _ngram(*case, size=1),
            "By how many do you divide? The first n − 1 ids of val are only context, so there are len(val) − n + 1 guesses.":
                lambda train, val, V, n: _ngram(train, val, V, n, size=len(val)) if n > 1 else 0.0,
            "Do both your loops stop too early? A list of length N holds N − n + 1 n-grams.":
                lambda train, val, V, n: _ngram(train[:-1], val[:-1], V, n),
            "Is the last n-gram of train counted? A list of length N holds N − n + 1 n-grams.":
                lambda train, val, V, n: _ngram(train[:-1], val, V, n),
            "Is the last n-gram of val guessed? A list of length N holds N − n + 1 n-grams.":
                lambda train, val, V, n: _ngram(train, val[:-1], V, n),
            "Does an n-gram that stands in val twice count only once? The mean goes over all its places.":
                lambda *case: _ngram(*case, once=True),
            "Do your counts come from val? They must come from train: val is what we are tested on.":
                lambda train, val, V, n: _ngram(val, val, V, n),
            "Is your context one id too long? An n-gram has n ids, the one to be guessed included.":
                lambda train, val, V, n: _ngram(train, val, V, n + 1),
            "Is a minus sign missing? ln p is below 0, a surprise is above.":
                lambda *case: -_ngram(*case),
            "Is this in bits? We count in nats, with the natural logarithm.":
                lambda *case: _ngram(*case) / math.log(2),
        },
    ),
}
