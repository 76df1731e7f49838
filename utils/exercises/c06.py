"""The exercises of chapter 06, A single head of attention."""

import torch
import torch.nn.functional as F
from torch import nn

from utils.checks import Exercise
from utils.exercises import randoms, settled
from utils.model import Head


def score_factor(head_size, var_q, var_k):
    variance = 0.0
    for _ in range(head_size):
        variance += var_q * var_k   # one product of two independent numbers, mean 0
    return variance ** -0.5


def prefix_mask(T, P):
    allowed = torch.zeros(T, T, dtype=torch.bool)
    for t in range(T):
        for s in range(T):
            allowed[t, s] = s <= t or s < P
    return allowed


class PaddedEncoder(Head):
    def forward(self, x, lengths):
        rows = []
        for tokens, length in zip(x, lengths.tolist()):   # (T, C)
            heard = tokens[:length]
            rows.append(torch.stack([_answer(self, token, heard) for token in tokens]))
        return torch.stack(rows)


def ask(head, asker, source):
    return torch.stack([_answer(head, token, tokens) for token, tokens in zip(asker, source)])


class RelativeHead(Head):
    def __init__(self, n_embd, head_size, block_size):
        super().__init__(n_embd, head_size, block_size)
        self.bias = nn.Parameter(torch.randn(block_size))

    def forward(self, x):
        out = torch.zeros(*x.shape[:2], self.value.out_features)
        for b, tokens in enumerate(x):
            for i in range(len(tokens)):
                bias = torch.stack([self.bias[i - j] for j in range(i + 1)])
                out[b, i] = _answer(self, tokens[i], tokens[: i + 1], bias)
        return out


def _answer(head, token, heard, bias=0.0):
    """What one token (C,) gets from those it hears (S, C): (H,)."""
    q, k, v = head.query(token), head.key(heard), head.value(heard)
    return F.softmax(k @ q * len(q) ** -0.5 + bias, dim=0) @ v


# Pieces of the slips.

def _scores(head, x, size=None):
    """Scores (B, T, T), divided by the root of ``size``, or of H."""
    q, k = head.query(x), head.key(x)
    return q @ k.mT * (size or q.shape[-1]) ** -0.5


def _heard(lengths, T):
    return (torch.arange(T) < lengths[:, None])[:, None]   # (B, 1, T)


def _past(scores):
    return torch.tril(torch.ones_like(scores)).bool()


def _forbid(scores, allowed):
    return F.softmax(scores.masked_fill(~allowed, float("-inf")), dim=-1)


def _padded(weights):
    """A PaddedEncoder whose weights (B, T, T) are ``weights(head, x, audible)``, audible being (B, 1, T)."""
    def forward(self, x, lengths):
        return weights(self, x, _heard(lengths, x.shape[1])) @ self.value(x)
    return type("PaddedEncoder", (Head,), {"forward": forward})


def _shifted(by):
    """A PaddedEncoder that takes each text for so many tokens longer."""
    def forward(self, x, lengths):
        return PaddedEncoder.forward(self, x, (lengths + by).clamp(1, x.shape[1]))
    return type("PaddedEncoder", (Head,), {"forward": forward})


class _Zeroed(Head):
    def forward(self, x, lengths):
        x = x * _heard(lengths, x.shape[1]).mT
        return F.softmax(_scores(self, x), dim=-1) @ self.value(x)


class _Silenced(PaddedEncoder):
    def forward(self, x, lengths):
        return super().forward(x, lengths) * _heard(lengths, x.shape[1]).mT


def _asked(weights, layers=("query", "key", "value")):
    """An ``ask`` with ``weights(head, q, k)``, all with their dimension of T = 1: (B, 1, S)."""
    def answer(head, asker, source):
        query, key, value = (getattr(head, name) for name in layers)
        return (weights(head, query(asker[:, None]), key(source)) @ value(source)).squeeze(1)
    return answer


def _attention(head, q, k):
    return F.softmax(_dots(head, q, k), dim=-1)


def _dots(head, q, k):
    return q @ k.mT * q.shape[-1] ** -0.5


def _related(scores):
    """A RelativeHead with the scores ``scores(head, x, bias, distance)``; the future is forbidden afterwards."""
    def forward(self, x):
        made = scores(self, x, self.bias, _distance(x.shape[1]))
        return _forbid(made, _past(made)) @ self.value(x)
    return type("RelativeHead", (RelativeHead,), {"forward": forward})


class _BiasedWeights(RelativeHead):
    def forward(self, x):
        scores = _scores(self, x)
        bias = torch.tril(self.bias[_distance(x.shape[1])])
        return (_forbid(scores, _past(scores)) + bias) @ self.value(x)


def _unmasked(index):
    """A RelativeHead without the triangle; ``index`` makes the places in the bias out of i − j."""
    def forward(self, x):
        place = torch.arange(x.shape[1])
        bias = self.bias[index(place[:, None] - place)]
        return F.softmax(_scores(self, x) + bias, dim=-1) @ self.value(x)
    return type("RelativeHead", (RelativeHead,), {"forward": forward})


def _distance(T):
    place = torch.arange(T)
    return (place[:, None] - place).clamp(min=0)   # (T, T)


def _sizes(head_size, block_size):
    return {"head_size": head_size, "block_size": block_size}


def _head(C, H, block_size):
    return settled(Head(C, H, block_size))


EXERCISES = {
    "6.1": Exercise(
        reference=score_factor,
        cases=lambda: [
            (16, 4.0, 9.0), (16, 1.0, 1.0), (64, 1.0, 1.0), (4, 0.25, 1.0), (8, 0.5, 0.02), (1, 1.0, 1.0),
            (100, 0.1, 3.0),
        ],
        insight="With both variances 1 this is 1 / √H: the scale is no law, it follows from the numbers that go in.",
        slips={
            "Do the variances of query and key play no part? Only if both are 1.":
                lambda H, a, b: H ** -0.5,
            "Is the root missing? A factor f changes the variance by f · f.":
                lambda H, a, b: 1 / (H * a * b),
            "Is this the number to divide by? We ask for the factor to multiply with.":
                lambda H, a, b: (H * a * b) ** 0.5,
            "Is this the variance of the scores? We ask for the factor that makes it 1.":
                lambda H, a, b: H * a * b,
            "Did you take the variances for standard deviations? They belong under the root, too.":
                lambda H, a, b: H ** -0.5 / (a * b),
            "Do you add the two variances? That is for a sum; "
            "the variance of a product of independent numbers is their product.":
                lambda H, a, b: (H * (a + b)) ** -0.5,
            "Is the head size missing? A score is a sum of head_size products.":
                lambda H, a, b: (a * b) ** -0.5,
            "Is head_size outside of the root? A sum of H products has H times the variance of one.":
                lambda H, a, b: (a * b) ** -0.5 / H,
        },
    ),
    "6.2": Exercise(
        reference=prefix_mask,
        cases=lambda: [(6, 3), (5, 2), (7, 0), (4, 4), (3, 1), (1, 1), (9, 7)],
        insight="With P = 0 it is the decoder's triangle, with P = T the encoder's full table: "
                "one mask for both, and all between.",
        slips={
            "Is this the plain triangle? The first P tokens also hear those after them, up to the end of the question.":
                lambda T, P: prefix_mask(T, 0),
            "Is the answer missing? A token of the answer hears its own past and itself too, not only the question.":
                lambda T, P: (torch.arange(T) < P).expand(T, T),
            "Does the question hear the answer? The first P rows end at column P − 1.":
                lambda T, P: prefix_mask(T, 0) | (torch.arange(T) < P)[:, None],
            "Does the answer not hear the question? All rows hear the first P columns.":
                lambda T, P: prefix_mask(T, P) & ((torch.arange(T) < P) == (torch.arange(T) < P)[:, None]),
            "Must both be true in your table, past and question? One of the two is enough.":
                lambda T, P: prefix_mask(T, 0) & (torch.arange(T) < P),
            "Is token P part of your question? Counted from 0, the last one is P − 1.":
                lambda T, P: prefix_mask(T, min(P + 1, T)),
            "Is the last token of the question left out? Its place is P − 1, counted from 0.":
                lambda T, P: prefix_mask(T, max(P - 1, 0)),
            "Are rows and columns exchanged? The row listens, the column is heard.":
                lambda T, P: prefix_mask(T, P).T,
            "Does everybody hear everybody? The answer must not hear its own future.":
                lambda T, P: torch.ones(T, T, dtype=torch.bool),
            "Does everybody look P − 1 tokens ahead? Only up to the end of the question, place P − 1.":
                lambda T, P: torch.tril(torch.ones(T, T), P - 1).bool(),
            "Is it upside down? Here True means: may be heard.":
                lambda T, P: ~prefix_mask(T, P),
            "Is this a table of numbers? We ask for True and False; a comparison gives them.":
                lambda T, P: prefix_mask(T, P).float(),
        },
    ),
    "6.3": Exercise(
        reference=ask,
        cases=lambda: [
            (_head(7, 3, 2), randoms(2, 7, seed=1), randoms(2, 5, 7, seed=2)),
            (_head(4, 6, 1), randoms(3, 4, seed=3), randoms(3, 8, 4, seed=4, scale=3)),
            (_head(13, 2, 4), randoms(1, 13, seed=5), randoms(1, 3, 13, seed=6)),
            (_head(6, 4, 3), randoms(5, 6, seed=7), randoms(5, 1, 6, seed=8)),
        ],
        insight="Let the last token of x ask x itself, and you have the last row of `Head`. "
                "Only keys and values of the past are needed for it: chapter 14 keeps them, and writes faster.",
        slips={
            "Is it √C? Scores are divided by the root of the head size.":
                _asked(lambda head, q, k: F.softmax(q @ k.mT * head.query.in_features ** -0.5, dim=-1)),
            "Is the scale missing? Scores are divided by √H.":
                _asked(lambda head, q, k: F.softmax(q @ k.mT, dim=-1)),
            "Is softmax missing? These are the values times the raw scores.":
                _asked(_dots),
            "Do your weights sum to 1 over the source? A softmax over a dimension of size 1 makes all of them 1.":
                _asked(lambda head, q, k: torch.ones_like(_dots(head, q, k))),
            "Is this the plain mean of the values? The scores must decide who counts more.":
                _asked(lambda head, q, k: torch.ones_like(_dots(head, q, k)) / k.shape[1]),
            "Does your softmax run over the batch? "
            "Each row of the batch shares out its own attention, over the source.":
                _asked(lambda head, q, k: F.softmax(_dots(head, q, k), dim=0)),
            "Is the dimension of the one asker still there? We expect (B, H).":
                lambda head, asker, source: ask(head, asker, source)[:, None],
            "Does squeeze() take away B as well, when B is 1? Name the dimension that must go: squeeze(1).":
                lambda head, asker, source: ask(head, asker, source).squeeze(),
            "Does every asker ask every source? (B, H) @ (B, H, S) is taken as B askers for each row. "
            "Give each row its own asker, (B, 1, H).":
                lambda head, asker, source: _attention(head, head.query(asker), head.key(source)) @ head.value(source),
            "Are query and key exchanged? The asker makes the query, the source the keys.":
                _asked(_attention, layers=("key", "query", "value")),
            "Do you sum up keys? The weights belong to the values.":
                _asked(_attention, layers=("query", "key", "key")),
        },
    ),
    "6.4": Exercise(
        reference=PaddedEncoder,
        cases=lambda: [
            (randoms(2, 4, 6, seed=9), torch.tensor([3, 2]), _sizes(3, 8)),
            (randoms(3, 5, 4, seed=10, scale=2), torch.tensor([1, 5, 3]), _sizes(7, 5)),
            (randoms(4, 1, 3, seed=11), torch.tensor([1, 1, 1, 1]), _sizes(2, 6)),
            (randoms(1, 7, 8, seed=12), torch.tensor([6]), _sizes(5, 9)),
        ],
        run=lambda cls, x, lengths, sizes: settled(cls(x.shape[-1], *sizes.values()))(x, lengths),
        insight="The same line as in `Head`, with another table: the mask says who may be heard, for whatever reason.",
        slips={
            "Is the padding still heard? Its scores must be forbidden before softmax.":
                _padded(lambda head, x, audible: F.softmax(_scores(head, x), dim=-1)),
            "Is the triangle still there? In an encoder each token hears the whole text, before and after it.":
                _padded(lambda head, x, audible: _forbid(_scores(head, x), audible & _past(_scores(head, x)))),
            "Is this the triangle alone? Here the end of the text counts, not the past.":
                _padded(lambda head, x, audible: _forbid(_scores(head, x), _past(_scores(head, x)))),
            "Do you forbid whole rows? The padding may listen; it must not be heard, so its columns go.":
                _padded(lambda head, x, audible: _forbid(_scores(head, x), audible.mT)),
            "Do you forbid the padding's rows as well as its columns? A row in which all is forbidden becomes NaN.":
                _padded(lambda head, x, audible: _forbid(_scores(head, x), audible & audible.mT)),
            "Do the padding's own rows hold 0? They listen like all others: only their columns are forbidden.":
                _Silenced,
            "Is the padding removed only after softmax? Then its share is lost, and the rows no longer sum to 1.":
                _padded(lambda head, x, audible: F.softmax(_scores(head, x), dim=-1) * audible),
            "Do you write 0 for the padding's scores? e to the power 0 is 1, so it is heard.":
                _padded(lambda head, x, audible: F.softmax(_scores(head, x) * audible, dim=-1)),
            "Do you set the padding to 0 in x? Then its scores are 0, and 0 still takes a share in softmax.":
                _Zeroed,
            "Is it upside down, so that only the padding is heard? `masked_fill` forbids where its table is True.":
                _padded(lambda head, x, audible: _forbid(_scores(head, x), ~audible)),
            "Is one token of padding still heard? The last real token of a text stands at its length − 1.":
                _shifted(1),
            "Is the last real token lost? It stands at the length − 1, counted from 0.":
                _shifted(-1),
            "Do all rows get the length of the longest text? Each row of the batch has its own.":
                _padded(lambda head, x, audible: _forbid(_scores(head, x), audible.any(dim=0, keepdim=True))),
            "Is it √C? Scores are divided by the root of the head size.":
                _padded(lambda head, x, audible: _forbid(_scores(head, x, x.shape[-1]), audible)),
            "Is the scale missing? Scores are divided by √H.":
                _padded(lambda head, x, audible: _forbid(_scores(head, x, 1), audible)),
        },
    ),
    "6.5": Exercise(
        reference=RelativeHead,
        cases=lambda: [
            (randoms(2, 4, 6, seed=13), _sizes(3, 9)), (randoms(3, 5, 4, seed=14, scale=2), _sizes(7, 5)),
            (randoms(4, 1, 3, seed=15), _sizes(2, 6)), (randoms(1, 7, 8, seed=16), _sizes(5, 8)),
        ],
        run=lambda cls, x, sizes: settled(cls(x.shape[-1], *sizes.values()))(x),
        insight="No absolute position is left in it: the same text ten places later gets the same scores. "
                "Large models mark positions by distance in this way or a related one.",
        slips={
            "Is the bias without effect? Either it is not added, or it depends on i alone: "
            "then a whole row rises by one number, and softmax does not notice.":
                _related(lambda head, x, bias, d: _scores(head, x)),
            "Does your bias depend on j alone? Then it marks places, not distances.":
                _related(lambda head, x, bias, d: _scores(head, x) + bias[: x.shape[1]]),
            "Is it j − i instead of i − j? A negative index counts from the end, so there is no error.":
                _related(lambda head, x, bias, d: _scores(head, x) + bias[-d]),
            "Does bias[0] go to the token furthest away? It belongs to distance 0, the token itself.":
                _related(lambda head, x, bias, d: _scores(head, x) + bias[x.shape[1] - 1 - d]),
            "Are the distances one too small? A token is at distance 0 from itself, so the one before it gets bias[1].":
                _related(lambda head, x, bias, d: _scores(head, x) + bias[(d - 1).clamp(min=0)]),
            "Is the bias scaled, too? First the division by √H, then the bias.":
                _related(lambda head, x, bias, d: _scores(head, x) + bias[d] * head.key.out_features ** -0.5),
            "Is the bias added after softmax? Then the weights no longer sum to 1. It belongs to the scores.":
                _BiasedWeights,
            "Do you multiply by the bias? It is added to the scores.":
                _related(lambda head, x, bias, d: _scores(head, x) * bias[d]),
            "Is the future open? The triangle is still needed: a bias can only advise, not forbid.":
                _unmasked(torch.abs),
            "Is the triangle missing? A negative index takes its number from the end of the bias, but forbids nothing.":
                _unmasked(lambda distance: distance),
            "Is the triangle missing? `clamp` gives the future the bias of distance 0, but forbids nothing.":
                _unmasked(lambda distance: distance.clamp(min=0)),
            "Is it √C? Scores are divided by the root of the head size.":
                _related(lambda head, x, bias, d: _scores(head, x, x.shape[-1]) + bias[d]),
            "Is the scale missing? Scores are divided by √H.":
                _related(lambda head, x, bias, d: _scores(head, x, 1) + bias[d]),
        },
    ),
}
