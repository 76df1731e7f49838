"""The exercises of chapter 05, Averaging."""

import torch
import torch.nn.functional as F

from utils.checks import Exercise


def average_cumsum(x):
    out, rows = torch.zeros_like(x), x.reshape(-1, *x.shape[-2:])
    for means, tokens in zip(out.view(rows.shape), rows):   # (T, C) each
        for t in range(len(tokens)):
            means[t] = tokens[: t + 1].mean(dim=0)
    return out


def window_mask(T, W):
    allowed = torch.zeros(T, T, dtype=torch.bool)
    for t in range(T):
        for s in range(T):
            allowed[t, s] = s <= t and t - s < W   # W tokens, t itself is one of them
    return allowed


def weights_loop(q, k):
    B, T, _ = q.shape
    weights = torch.zeros(B, T, T)
    for b in range(B):
        for t in range(T):
            scores = torch.stack([q[b, t] @ k[b, s] for s in range(t + 1)])
            weights[b, t, : t + 1] = F.softmax(scores, dim=0)
    return weights


def weights_product(q, k, allowed):
    B, T, _ = q.shape
    weights = torch.zeros(B, T, T)
    for b in range(B):
        for t in range(T):
            audible = [s for s in range(T) if allowed[t, s]]
            scores = torch.stack([q[b, t] @ k[b, s] for s in audible])
            weights[b, t, audible] = F.softmax(scores, dim=0)
    return weights


def decayed_average(x, d):
    out = torch.zeros_like(x)
    for t in range(x.shape[1]):
        shares = torch.tensor([float(d) ** (t - s) for s in range(t + 1)])
        out[:, t] = shares / shares.sum() @ x[:, : t + 1]   # (t + 1,) @ (B, t + 1, C) → (B, C)
    return out


def _tril(T):
    return torch.tril(torch.ones(T, T, dtype=torch.bool))


def _distance(T):
    return torch.arange(T)[:, None] - torch.arange(T)   # (T, T), above 0 in the past


def _causal(scores):
    return F.softmax(scores.masked_fill(~_tril(scores.shape[-1]), float("-inf")), dim=-1)


def _shares(raw, dim=-1):
    return raw / raw.sum(dim=dim, keepdim=True)


def _fading(T, d):
    """The shares before they are divided by their sum: 1 for the token itself, d, d · d, …"""
    return torch.where(_tril(T), torch.tensor(float(d)) ** _distance(T).clamp(min=0), torch.tensor(0.0))


def _strictly_before(q, k):
    past = torch.tril(torch.ones(q.shape[1], q.shape[1]), -1) == 0
    return F.softmax((q @ k.mT).masked_fill(past, float("-inf")), dim=-1)


def _moving(x, d, first_whole):
    """The exponential moving average, which starts from zero or from the first token."""
    mean, out = x[:, 0] if first_whole else torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        mean = d * mean + (1 - d) * x[:, t]
        out.append(mean)
    return torch.stack(out, dim=1)


def _masked_after(q, k, allowed, divide):
    weights = F.softmax(q @ k.mT, dim=-1).masked_fill(~allowed, 0.0)
    return _shares(weights) if divide else weights


def _random(*shape, seed, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _pair(B, T, H, seed, scale=1.0):
    return _random(B, T, H, seed=seed, scale=scale), _random(B, T, H, seed=seed + 100, scale=scale)


# Two tokens; the first finds the second, which is its future, by far the most interesting.
EAGER = torch.tensor([[[200.0], [1.0]]]), torch.tensor([[[0.0], [1.0]]])

EXERCISES = {
    "5.1": Exercise(
        reference=average_cumsum,
        cases=lambda: [
            (torch.tensor([[2.0, 7, 1], [6, 4, 1], [6, 5, 4]]),),
            (_random(4, 6, seed=1),), (_random(2, 5, 3, seed=2),), (_random(3, 1, 4, seed=3),),
            (_random(2, 3, 7, 5, seed=4),),
        ],
        insight="T steps of work instead of T · T, and the same numbers; but the matrix can hold any recipe, cumsum only this one.",
        slips={
            "Do you add up over the channels? Time is the last dimension but one.":
                lambda x: x.cumsum(dim=-1) / torch.arange(1, x.shape[-1] + 1),
            "Do you add along the channels? With (T, C) coming in, dim=1 is no longer time; count from the end.":
                lambda x: x.cumsum(dim=1) / torch.arange(1, x.shape[-2] + 1)[:, None],
            "Do you add up over dimension 0? That is time only if nothing stands before it. Count from the end.":
                lambda x: x.cumsum(dim=0) / torch.arange(1, x.shape[-2] + 1)[:, None],
            "Do you divide all by T? Token t has only t + 1 tokens to average.":
                lambda x: x.cumsum(dim=-2) / x.shape[-2],
            "Are these sums, not averages?":
                lambda x: x.cumsum(dim=-2),
            "Do your counts begin at 0? The first token averages one token, itself.":
                lambda x: x.cumsum(dim=-2) / torch.arange(x.shape[-2])[:, None],
            "Do the counts meet the channels? Shapes are lined up from the right, so the counts must be a column, (T, 1).":
                lambda x: x.cumsum(dim=-2) / torch.arange(1, x.shape[-2] + 1),
            "Is this the mean of all tokens, for everyone? Each token hears only its past and itself.":
                lambda x: x.mean(dim=-2, keepdim=True).expand(x.shape),
        },
    ),
    "5.2": Exercise(
        reference=window_mask,
        cases=lambda: [(5, 2), (8, 3), (7, 1), (4, 4), (3, 9), (1, 1), (12, 5)],
        insight="A token then needs only W others, not T, which saves work in long texts; some large models look back in this way.",
        slips={
            "Does each token hear its whole past? Only the last W tokens, itself included.":
                lambda T, W: _tril(T),
            "Does each token hear W + 1 tokens? It counts as one of the W itself.":
                lambda T, W: window_mask(T, W + 1),
            "Does it hear one token too few? W tokens: itself and the W − 1 before it.":
                lambda T, W: window_mask(T, W - 1),
            "Does the token not hear itself? The last W tokens end with itself.":
                lambda T, W: (_distance(T) >= 1) & (_distance(T) <= W),
            "Is the future open? The window must not reach to the right of the diagonal.":
                lambda T, W: _distance(T).abs() < W,
            "Is the future open? A token that lies ahead has a negative distance t − s, and that is below W too.":
                lambda T, W: _distance(T) < W,
            "Are rows and columns exchanged? The row listens, the column is heard.":
                lambda T, W: window_mask(T, W).T,
            "Is it upside down? Here True means: may be heard.":
                lambda T, W: ~window_mask(T, W),
        },
    ),
    "5.3": Exercise(
        reference=weights_loop,
        cases=lambda: [
            (torch.tensor([[[1.0, 0], [2, 1], [0, 3]]]), torch.tensor([[[0.0, 1], [1, 0], [1, 1]]])),
            _pair(2, 5, 3, seed=5), _pair(3, 4, 7, seed=6), _pair(4, 1, 2, seed=7), _pair(1, 9, 6, seed=8, scale=4),
        ],
        insight="No mask is needed where nobody looks further than t; this is what the mask in the fast form must reproduce.",
        slips={
            "Is the future in it? Token t gives a weight only to the tokens 0 to t.":
                lambda q, k: F.softmax(q @ k.mT, dim=-1),
            "Does token t not hear itself? The slice [:t] leaves t out.":
                lambda q, k: _strictly_before(q, k).nan_to_num(0.0),
            "Is the diagonal forbidden too? Then token 0 hears nobody, and softmax divides 0 by 0.":
                _strictly_before,
            "Over which dimension do your weights sum to 1? One listener divides its attention among those it hears.":
                lambda q, k: F.softmax((q @ k.mT).masked_fill(~_tril(q.shape[1]), float("-inf")), dim=-2),
            "Do you fill column t? The listener is the row.":
                lambda q, k: weights_loop(q, k).mT,
            "Are query and key exchanged? The one that listens asks with its query, the one that is heard answers with its key.":
                lambda q, k: _causal(k @ q.mT),
            "Are these still affinities? Softmax turns each row into shares that sum to 1.":
                lambda q, k: torch.tril(q @ k.mT),
            "Did softmax run over the whole row, and the future was removed afterwards? Then its share is lost.":
                lambda q, k: torch.tril(F.softmax(q @ k.mT, dim=-1)),
            "Does a 0 stand for the future when softmax runs? For softmax it is a score like any other: e to the power 0 is 1.":
                lambda q, k: F.softmax(torch.tril(q @ k.mT), dim=-1),
            "Do you divide the affinities by √H? That comes in chapter 06.":
                lambda q, k: _causal(q @ k.mT / q.shape[-1] ** 0.5),
            "Are shares made without exp? Affinities can be negative; softmax raises e to their power first.":
                lambda q, k: _shares(torch.tril(q @ k.mT)),
        },
    ),
    "5.4": Exercise(
        reference=weights_product,
        cases=lambda: [
            (torch.tensor([[[1.0, 0], [2, 1], [0, 3]]]), torch.tensor([[[0.0, 1], [1, 0], [1, 1]]]), _tril(3)),
            (*_pair(2, 5, 3, seed=9), _tril(5)), (*_pair(3, 7, 4, seed=10), window_mask(7, 3)),
            (*_pair(4, 1, 2, seed=11), _tril(1)), (*_pair(1, 6, 8, seed=12), window_mask(6, 2).T),
            (*EAGER, _tril(2)),
        ],
        insight="The affinities say who is interesting, the mask says who may be heard, and neither knows of the other.",
        slips={
            "Is the mask used at all?":
                lambda q, k, allowed: F.softmax(q @ k.mT, dim=-1),
            "Do you always use the triangle? `allowed` may be another mask.":
                lambda q, k, allowed: _causal(q @ k.mT),
            "Is the mask upside down? In `allowed`, True means: may be heard.":
                lambda q, k, allowed: F.softmax((q @ k.mT).masked_fill(allowed, float("-inf")), dim=-1),
            "Does the mask come after softmax? Then the share of the forbidden is lost, and the row does not sum to 1.":
                lambda q, k, allowed: _masked_after(q, k, allowed, divide=False),
            "Do you mask after softmax and then divide? If a forbidden token takes the whole share, 0 / 0 is left.":
                lambda q, k, allowed: _masked_after(q, k, allowed, divide=True),
            "Do you write 0 for the forbidden before softmax? e to the power 0 is 1, so they are heard.":
                lambda q, k, allowed: F.softmax((q @ k.mT).masked_fill(~allowed, 0.0), dim=-1),
            "Over which dimension do your weights sum to 1? Each row must, so the last one.":
                lambda q, k, allowed: F.softmax((q @ k.mT).masked_fill(~allowed, float("-inf")), dim=-2),
            "Does softmax run over dimension 0? That is the batch. Each row of weights must sum to 1, so take the last.":
                lambda q, k, allowed: F.softmax((q @ k.mT).masked_fill(~allowed, float("-inf")), dim=0),
            "Is k.view in it? It has the right shape and mixes the keys. Which function exchanges two dimensions?":
                lambda q, k, allowed: F.softmax(
                    (q @ k.view(len(k), k.shape[2], -1)).masked_fill(~allowed, float("-inf")), dim=-1),
            "Are query and key exchanged? Row t asks with the query of t.":
                lambda q, k, allowed: F.softmax((k @ q.mT).masked_fill(~allowed, float("-inf")), dim=-1),
            "Do you divide the affinities by √H? That comes in chapter 06.":
                lambda q, k, allowed: F.softmax(
                    (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, float("-inf")), dim=-1),
        },
    ),
    "5.5": Exercise(
        reference=decayed_average,
        cases=lambda: [
            (torch.tensor([[[2.0], [6.0], [7.0]]]), 0.5), (_random(2, 5, 3, seed=13), 0.5),
            (_random(3, 8, 4, seed=14), 0.9), (_random(4, 1, 2, seed=15), 0.7),
            (_random(2, 6, 5, seed=16), 1.0), (_random(1, 30, 2, seed=17), 0.8),
            (_random(1, 300, 2, seed=18), 0.3),   # 0.3 to the power −299 overflows
        ],
        insight="Softmax of the affinities (t − s) · ln d gives the same shares: "
                "to tell attention how far away a token is, it is enough to add a number to each affinity.",
        slips={
            "Do the weights of a row sum to 1? Divide them by their sum.":
                lambda x, d: _fading(x.shape[1], d) @ x,
            "Is the future in it? Only the tokens from 0 to t count.":
                lambda x, d: _shares(torch.tensor(float(d)) ** _distance(x.shape[1]).abs()) @ x,
            "Does the oldest token count most? The distance is t − s: 0 for the token itself.":
                lambda x, d: _shares(_fading(x.shape[1], 1) * torch.tensor(float(d)) ** torch.arange(x.shape[1])) @ x,
            "Does each column sum to 1? It must be the rows: each listener divides its attention.":
                lambda x, d: _shares(_fading(x.shape[1], d), dim=0) @ x,
            "Is this d times the old mean plus 1 − d times the new token, from zero? Then the first tokens come out too small.":
                lambda x, d: _moving(x, d, first_whole=False),
            "Is this d times the old mean plus 1 − d times the new token? Then token 0 counts more than its share.":
                lambda x, d: _moving(x, d, first_whole=True),
            "Is keepdim=True missing? A flat list of sums meets the columns; the sums must be a column, (T, 1).":
                lambda x, d: _fading(x.shape[1], d) / _fading(x.shape[1], d).sum(dim=-1) @ x,
            "Far in the future d to the power t − s is huge, and inf · 0 is nan. "
            "Remove the future before you take the power (or clamp the distance at 0).":
                lambda x, d: _shares(torch.tensor(float(d)) ** _distance(x.shape[1]) * _tril(x.shape[1])) @ x,
            "Do you take d to the power −s? In a long text that is too large for a float, and inf / inf is nan.":
                lambda x, d: _shares(torch.tril((float(d) ** -torch.arange(x.shape[1])).expand(x.shape[1], -1))) @ x,
            "Is everyone heard equally? The share must fall by the factor d with each step back.":
                lambda x, d: _shares(_fading(x.shape[1], 1)) @ x,
            "Is the last token left out of its own average? Its distance is 0, and its weight the largest.":
                lambda x, d: _shares(torch.tril(_fading(x.shape[1], d), -1)).nan_to_num(0.0) @ x,
            "Do you divide by t + 1? The weights do not sum to that.":
                lambda x, d: _fading(x.shape[1], d) @ x / torch.arange(1, x.shape[1] + 1)[:, None],
        },
    ),
}
