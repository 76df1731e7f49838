"""The exercises of chapter 14, Sampling."""

import math

import torch

from utils.checks import Exercise
from utils.exercises import randoms


def perplexity(logits, targets):
    total = 0.0
    for row, target in zip(logits, targets.tolist()):
        total += -math.log(row.softmax(dim=-1)[target].item())
    return math.exp(total / len(targets))


def min_p(logits, share):
    rows = []
    for row in logits:
        probs = row.softmax(dim=-1)
        kept = torch.zeros_like(probs)
        for i, p in enumerate(probs):
            if p >= share * probs.max():
                kept[i] = p
        rows.append(kept / kept.sum())
    return torch.stack(rows)


def penalize(logits, idx, penalty):
    out = logits.clone()
    for b in range(len(idx)):
        for i in set(idx[b].tolist()):
            out[b, i] = logits[b, i] / penalty if logits[b, i] > 0 else logits[b, i] * penalty
    return out


def cached_step(q, k, v, keys, values):
    keys, values = torch.cat((keys, k[:, None]), dim=1), torch.cat((values, v[:, None]), dim=1)
    outs = []
    for b in range(len(q)):
        wei = torch.stack([q[b] @ key for key in keys[b]]) / math.sqrt(q.shape[-1])   # (T + 1,)
        outs.append(sum(w * value for w, value in zip(wei.softmax(dim=-1), values[b])))
    return torch.stack(outs), keys, values


def typical(probs, mass):
    surprise = -probs.log()
    return _kept(probs, (surprise - (probs * surprise).sum()).abs(), mass)


# Pieces of the slips.

def _kept(probs, badness, mass, last=1):
    """Keep the least bad until they have ``mass``; ``last=0`` leaves out the one that reaches it."""
    kept, total = torch.zeros_like(probs), 0.0
    for i in badness.argsort():
        if last == 0 and total + probs[i].item() >= mass and total > 0:
            break
        kept[i] = probs[i]
        total += probs[i].item()
        if total >= mass:
            break
    return kept / kept.sum()


def _surprises(logits, targets):
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def _chances(logits, targets):
    return (-_surprises(logits, targets)).exp()


def _entropy(logits):
    return torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1)


def _above(probs, least):
    kept = probs * (probs >= least)
    return kept / kept.sum(dim=-1, keepdim=True)


def _best(probs):
    return probs.max(dim=-1, keepdim=True).values


def _each(change, rows=None):
    """A penalty that does ``change(score, how often it was written, penalty)``; ``rows`` picks the text of a row."""
    def penalized(logits, idx, penalty):
        out = logits.clone()
        for b in range(len(idx)):
            written = (rows(idx, b) if rows else idx[b]).flatten().tolist()
            for i in set(written):
                out[b, i] = change(logits[b, i], written.count(i), penalty)
        return out
    return penalized


def _right(score, count, penalty):
    return score / penalty if score > 0 else score * penalty


def _step(scale=lambda H, T: H**0.5, new=True, softmax=True, front=False, dim=-1, kept=True):
    def step(q, k, v, keys, values):
        parts = [((key[:, None], old) if front else (old, key[:, None])) for key, old in ((k, keys), (v, values))]
        all_keys, all_values = (torch.cat(part, dim=1) for part in parts)
        heard_k, heard_v = (all_keys, all_values) if new else (keys, values)
        wei = torch.einsum("bh,bth->bt", q, heard_k) / scale(q.shape[-1], heard_k.shape[1])
        wei = wei.softmax(dim=dim) if softmax else wei
        out = torch.einsum("bt,bth->bh", wei, heard_v)
        return (out, all_keys, all_values) if kept else (out, keys, values)
    return step


def _penalty_cases():
    texts = ([[0, 3, 3, 3, 1], [2, 2, 4, 6, 0]], [[1]], [[5, 5], [1, 2], [0, 7]])
    sizes = (7, 4, 9)
    return [(randoms(len(idx), V, seed=V, scale=2.0), torch.tensor(idx), 1.5) for idx, V in zip(texts, sizes)]


def _cache_cases():
    shapes = ((2, 5, 3), (1, 0, 4), (3, 1, 8), (4, 6, 2))   # (B, T, H)
    return [
        tuple(randoms(B, H, seed=10 * T + i, scale=2.0) for i in range(3))
        + tuple(randoms(B, T, H, seed=10 * T + i, scale=2.0) for i in (3, 4))
        for B, T, H in shapes
    ]


def _typical_cases():
    first = torch.tensor([0.55, 0.15, 0.12, 0.1, 0.05, 0.03])
    return [(first, 0.3), (first, 0.9)] + [
        (randoms(V, seed=V, scale=2.0).softmax(dim=-1), mass) for V, mass in ((9, 0.5), (20, 0.8), (5, 0.2), (1, 0.9))
    ]


EXERCISES = {
    "14.1": Exercise(
        reference=perplexity,
        cases=lambda: [
            (randoms(T, V, seed=T, scale=2.0), torch.arange(T) * 3 % V) for T, V in ((5, 7), (1, 4), (12, 65))
        ] + [(torch.zeros(3, 10), torch.tensor([0, 9, 4]))],
        insight="A model that knows nothing has a perplexity of V; a perfect one has 1, a die with one side.",
        slips={
            "Is it the sum of the surprises? Take their mean, or a long text is punished for its length.":
                lambda logits, targets: _surprises(logits, targets).sum().exp().item(),
            "Is this still the loss? The perplexity is e to the power of it.":
                lambda logits, targets: _surprises(logits, targets).mean().item(),
            "Do you mix nats and bits? With natural logarithms the power must be one of e, not of 2.":
                lambda logits, targets: 2 ** _surprises(logits, targets).mean().item(),
            "Do you average the probabilities? Average the surprises: probabilities of a text are multiplied, not added.":
                lambda logits, targets: 1 / _chances(logits, targets).mean().item(),
            "Do you average after the power? First the mean of the surprises, then the power.":
                lambda logits, targets: (1 / _chances(logits, targets)).mean().item(),
            "Is a minus missing? The surprise is −ln p.":
                lambda logits, targets: (-_surprises(logits, targets).mean()).exp().item(),
            "Does softmax run over the positions? Each position has its own probabilities: dim=-1.":
                lambda logits, targets: (-logits.softmax(dim=0)[range(len(targets)), targets].log().mean()).exp().item(),
            "Is this the surprise of the likeliest tokens? Take the tokens that really came.":
                lambda logits, targets: perplexity(logits, logits.argmax(dim=-1)),
            "Do you use the targets? Not the surprise that the model expects, but that of the tokens that really came.":
                lambda logits, targets: _entropy(logits).mean().exp().item(),
            "Do you use the targets? Not what the model expects counts, but what really came; and then the power of e.":
                lambda logits, targets: _entropy(logits).mean().item(),
        },
    ),
    "14.2": Exercise(
        reference=min_p,
        cases=lambda: [
            (randoms(B, V, seed=V, scale=1.5), share) for B, V, share in ((2, 7, 0.3), (3, 5, 0.2), (1, 12, 0.05))
        ] + [(torch.tensor([[1.0, 1.0, 0.0], [5.0, -5.0, 1.0]]), 1.0), (randoms(2, 1, seed=3), 0.5)],
        insight="Where the model is sure, little is left; where it is not, much: like top-p, without sorting.",
        slips={
            "Is the share compared with the probability itself? It is a share of the row's best.":
                lambda logits, share: _above(logits.softmax(dim=-1), share),
            "Does each row sum to 1? After the cut the rest must be divided by its sum.":
                lambda logits, share: (p := logits.softmax(dim=-1)) * (p >= share * _best(p)),
            "Do all rows have the same best? Each row has its own: dim=-1, keepdim=True.":
                lambda logits, share: _above(p := logits.softmax(dim=-1), share * p.max()),
            "Is the best one cut too? Exactly the share is enough: at least, not more than.":
                lambda logits, share: (
                    kept := (p := logits.softmax(dim=-1)) * (p > share * _best(p))
                ) / kept.sum(dim=-1, keepdim=True),
            "Do you compare scores? The share is one of probabilities: softmax first.":
                lambda logits, share: logits.masked_fill(logits < share * _best(logits), -torch.inf).softmax(dim=-1),
            "Does softmax run over the rows? Each row is a distribution of its own: dim=-1.":
                lambda logits, share: _above(p := logits.softmax(dim=0), share * _best(p)),
            "Is what was cut still possible? A score of 0 is not a probability of 0: set probabilities to 0, or scores to −∞.":
                lambda logits, share: logits.masked_fill((p := logits.softmax(dim=-1)) < share * _best(p), 0.0).softmax(dim=-1),
            "Do you keep the small ones and cut the large?":
                lambda logits, share: _above(-(p := logits.softmax(dim=-1)), -share * _best(p)),
        },
    ),
    "14.3": Exercise(
        reference=penalize,
        cases=_penalty_cases,
        insight="A nudge out of the circle, and a crude one: it also punishes spaces and the letter e.",
        slips={
            "Do you divide negative scores too? That makes them larger, and the token likelier: multiply them.":
                _each(lambda score, count, penalty: score / penalty),
            "Do you multiply positive scores too? That makes the token likelier: divide them.":
                _each(lambda score, count, penalty: score * penalty),
            "Are the two ways exchanged? Positive scores are divided, negative ones multiplied.":
                _each(lambda score, count, penalty: _right(score, 1, 1 / penalty)),
            "Is a token penalized once for every time it was written? Once is enough.":
                _each(lambda score, count, penalty: _right(score, 1, penalty**count)),
            "Do the rows punish each other? Each row looks at its own text only.":
                _each(_right, rows=lambda idx, b: idx),
            "Do all rows look at the text of the first? Each row looks at its own.":
                _each(_right, rows=lambda idx, b: idx[0]),
            "Do you look at the last token only? All that was written counts.":
                _each(_right, rows=lambda idx, b: idx[b, -1:]),
            "Do you subtract the penalty? Divide or multiply by it.":
                _each(lambda score, count, penalty: score - penalty),
            "Are the tokens forbidden? They only become less likely.":
                _each(lambda score, count, penalty: -torch.inf),
            "Is everything punished? Only the tokens that were written.":
                lambda logits, idx, penalty: torch.where(logits > 0, logits / penalty, logits * penalty),
        },
    ),
    "14.4": Exercise(
        reference=cached_step,
        cases=_cache_cases,
        insight="One row instead of all of them, and no mask: the future is not in the cache yet.",
        slips={
            "Does the newest token hear itself? Its own key and value must be in before it asks.":
                _step(new=False),
            "Is the division by √H missing?": _step(scale=lambda H, T: 1),
            "Do you divide by H? It is its root, √H.": _step(scale=lambda H, T: H),
            "Do you divide by the root of the number of tokens? It is the head size, √H.":
                _step(scale=lambda H, T: T**0.5),
            "Is the softmax missing? Weights are positive and sum to 1.": _step(softmax=False),
            "Does softmax run over the batch? It runs over the tokens that are heard: dim=-1.": _step(dim=0),
            "Does the newest key stand first? Tokens are kept in the order of time: it goes to the end.": _step(front=True),
            "Do you return the old cache? The next step needs the one with the newest token in it.": _step(kept=False),
            "Is the newest value missing where the sum is made, or keys taken for values?":
                lambda q, k, v, keys, values: (
                    _step()(q, k, k, keys, keys)[0], *_step()(q, k, v, keys, values)[1:]
                ),
        },
    ),
    "14.5": Exercise(
        reference=typical,
        cases=_typical_cases,
        insight="The likeliest token may go first: to be typical is not to be the most probable.",
        slips={
            "Is this top-p? The order is by the distance from the expected surprise, above or below: an absolute value.":
                lambda probs, mass: _kept(probs, -probs, mass),
            "Is the expected surprise a plain mean? Each surprise counts as much as its p.":
                lambda probs, mass: _kept(probs, ((s := -probs.log()) - s.mean()).abs(), mass),
            "Is the order turned around? The nearest come first.":
                lambda probs, mass: _kept(probs, -((s := -probs.log()) - (probs * s).sum()).abs(), mass),
            "Is the one that reaches the mass left out? It is still in.":
                lambda probs, mass: _kept(probs, ((s := -probs.log()) - (probs * s).sum()).abs(), mass, last=0),
            "Does the result sum to 1? What is kept must be divided by its sum.":
                lambda probs, mass: probs * (typical(probs, mass) > 0),
        },
    ),
}
