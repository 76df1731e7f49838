"""The exercises of chapter 13, nanoGPT."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from utils.checks import Exercise
from utils.exercises import randoms, settled
from utils.model import LanguageModel


def size_after(embedding, write, n_layer):
    variance = embedding ** 2
    for _ in range(n_layer):
        variance += write ** 2   # attention
        variance += write ** 2   # MLP
    return math.sqrt(variance)


def clip_together(gradients, limit):
    total = 0.0
    for gradient in gradients:
        for number in gradient.flatten().tolist():
            total += number ** 2
    length = math.sqrt(total)
    return [gradient * limit / length if length > limit else gradient.clone() for gradient in gradients]


def accumulated(model, batches):
    """Row by row: each weighs as much as it has tokens."""
    total = sum(y.numel() for _, y in batches)
    model.zero_grad()
    for x, y in batches:
        for row, answer in zip(x, y):
            (model(row[None], answer[None])[1] * len(answer) / total).backward()
    return _gradients(model)


def split_qkv(qkv, n_head):
    B, T, C3 = qkv.shape
    H = C3 // 3 // n_head
    q, k, v = (torch.zeros(B, n_head, T, H, dtype=qkv.dtype) for _ in range(3))
    for h in range(n_head):
        for place, part in enumerate((q, k, v)):
            first = (3 * h + place) * H
            part[:, h] = qkv[:, :, first : first + H]
    return q, k, v


def grouped_attention(q, k, v):
    B, n_head, T, H = q.shape
    group = n_head // k.shape[1]
    out = torch.zeros(B, T, n_head * H)
    for h in range(n_head):
        keys, values = k[:, h // group], v[:, h // group]
        for t in range(T):
            wei = F.softmax((keys[:, : t + 1] @ q[:, h, t, :, None])[..., 0] * H ** -0.5, dim=-1)
            out[:, t, h * H : (h + 1) * H] = (wei[:, None] @ values[:, : t + 1])[:, 0]
    return out


# Pieces of the slips.

def _gradients(model):
    return [p.grad for p in model.parameters()]


def _length(own):
    return math.hypot(*own)


def _clipped(length, factor=lambda limit, whole: min(1.0, limit / whole)):
    """A clip by one length for all, made of the tensors' own lengths; ``factor`` multiplies each number."""
    def answer(gradients, limit):
        whole = length([gradient.norm().item() for gradient in gradients])
        return [gradient * factor(limit, whole) for gradient in gradients]
    return answer


def _one_by_one(gradients, limit):
    return [clip_together([gradient], limit)[0] for gradient in gradients]


def _largest_number(gradients, limit):
    largest = max(gradient.abs().max().item() for gradient in gradients)
    return [gradient * min(1.0, limit / largest) for gradient in gradients]


def _accumulated(weight, emptied=True):
    """An accumulation in which a part's loss counts ``weight(y, all ys)`` times."""
    def answer(model, batches):
        ys = [y for _, y in batches]
        if emptied:
            model.zero_grad()
        for x, y in batches:
            (model(x, y)[1] * weight(y, ys)).backward()
        return _gradients(model)
    return answer


def _share(y, ys):
    return y.numel() / sum(other.numel() for other in ys)


def _only_the_last(model, batches):
    for x, y in batches:
        model.zero_grad()
        (model(x, y)[1] * _share(y, [y for _, y in batches])).backward()
    return _gradients(model)


def _with_old_gradients(answer, model, batches):
    """Accumulate in a model that still holds gradients of the step before."""
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.5)
    return answer(model, batches)


def _parts(V, *shapes):
    """A small model that knows V tokens, and random batches of these shapes (B, T)."""
    model = settled(LanguageModel(V, 6, 8, nn.Tanh()))
    generator = torch.Generator().manual_seed(V)
    return model, [tuple(torch.randint(V, (2, *shape), generator=generator)) for shape in shapes]


def _split(cut, order):
    """A split that views the 3C numbers as ``cut`` says (-1 is H) and permutes them to q, k, v."""
    return lambda qkv, n_head: tuple(qkv.reshape(cut(*qkv.shape[:2], n_head)).permute(order))


def _by_head(B, T, n_head):
    return B, T, n_head, 3, -1


def _three(answer, qkv, n_head):
    """q, k and v, also if they come as one tensor (3, B, n_head, T, H)."""
    parts = answer(qkv, n_head)
    return tuple(parts) if isinstance(parts, torch.Tensor) and parts.ndim == 5 else parts


def _grouped(share=None, scale=lambda n_head, H: H, weights=None, join=None):
    """A grouped attention with parts to be changed: who shares which keys, the scale, the weights, the joining."""
    share = share or (lambda k, group: k.repeat_interleave(group, dim=1))
    weights = weights or _causal
    join = join or (lambda out: out.transpose(1, 2).flatten(2))

    def answer(q, k, v):
        n_head, H = q.shape[1], q.shape[-1]
        keys, values = (share(z, n_head // z.shape[1]) for z in (k, v))
        return join(weights(q @ keys.mT * scale(n_head, H) ** -0.5) @ values)
    return answer


def _hidden(scores):
    return torch.triu(torch.ones(scores.shape[-2:]), 1) == 1


def _causal(scores, dim=-1):
    return F.softmax(scores.masked_fill(_hidden(scores), float("-inf")), dim=dim)


def _cut_after_softmax(scores):
    return F.softmax(scores, dim=-1).masked_fill(_hidden(scores), 0.0)


def _heads(B, n_head, n_kv, T, H, seed, scale=1.0):
    q = randoms(B, n_head, T, H, seed=seed, scale=scale)
    return q, randoms(B, n_kv, T, H, seed=seed + 1, scale=scale), randoms(B, n_kv, T, H, seed=seed + 2)


class _Named(dict):
    """Arguments that a message shows with their names."""

    def __repr__(self):
        return ", ".join(f"{name}={value}" for name, value in self.items())


EXERCISES = {
    "13.1": Exercise(
        reference=size_after,
        cases=lambda: [
            (_Named(embedding=embedding, write=write, n_layer=n_layer),)
            for embedding, write, n_layer in (
                (2.0, 1.0, 6), (3.0, 2.0, 2), (1.0, 1.0, 24), (0.5, 4.0, 7), (2.0, 0.0, 5), (0.0, 1.5, 3), (20.0, 3.0, 96),
            )
        ],
        run=lambda answer, sizes: answer(*sizes.values()),
        insight="24 blocks that write as much as the embedding make the road 7 times as large. With each write divided "
                "by √48 it would be √2: this is what GPT-2's initialization is for.",
        slips={
            "Do you add the sizes? Independent numbers partly cancel: their squares add up.":
                lambda embedding, write, n_layer: embedding + 2 * n_layer * write,
            "Is it one write for each block? Attention writes, and the MLP writes.":
                lambda embedding, write, n_layer: math.sqrt(embedding ** 2 + n_layer * write ** 2),
            "Is the root missing? What adds up is the variance; the size is its root.":
                lambda embedding, write, n_layer: embedding ** 2 + 2 * n_layer * write ** 2,
            "Is the embedding forgotten? The road does not begin empty.":
                lambda embedding, write, n_layer: math.sqrt(2 * n_layer) * write,
            "Do you add the embedding to what all writes make? It is independent of them, so its square adds up, too.":
                lambda embedding, write, n_layer: embedding + math.sqrt(2 * n_layer) * write,
            "Are the writes added before they are squared? Square each one, then add.":
                lambda embedding, write, n_layer: math.sqrt(embedding ** 2 + (2 * n_layer * write) ** 2),
        },
    ),
    "13.2": Exercise(
        reference=clip_together,
        cases=lambda: [
            ([torch.tensor([2.0, 6.0]), torch.tensor([-3.0])], 1.0),
            ([torch.tensor([[0.8, 0.0], [0.0, 0.1]]), torch.tensor([-0.9])], 1.0),
            ([torch.tensor([0.3, -0.2]), torch.tensor([[0.1]])], 1.0),
            ([randoms(3, 4, seed=1), randoms(5, seed=2, scale=3), randoms(2, 2, 3, seed=3)], 0.5),
            ([torch.zeros(2, 3), torch.zeros(4)], 1.0),
            ([randoms(4, 3, seed=4, scale=1e4)], 2.0),
        ],
        insight="The direction of the step stays, only its length is cut. Tensor by tensor, the direction would change.",
        slips={
            "Do you clip each tensor by its own length? Then the direction changes. There is one length for all.":
                _one_by_one,
            "Do you cut every single number off at the limit? It is the length of the whole that is limited.":
                lambda gradients, limit: [gradient.clamp(-limit, limit) for gradient in gradients],
            "Do you make short gradients longer, too? Only what is longer than the limit is changed.":
                _clipped(_length, lambda limit, whole: limit / whole),
            "Do you add the tensors' lengths? The squares of all numbers add up; the root comes last.":
                _clipped(sum),
            "Is the root missing? The length is the root of the sum of squares.":
                _clipped(lambda own: sum(one ** 2 for one in own)),
            "Do you divide by the longest tensor's length? All numbers together make the length.":
                _clipped(max),
            "Do you divide by the largest number? The length is the root of the sum of all squares.":
                _largest_number,
            "Do you divide by the length only? Then it becomes 1, whatever the limit is.":
                _clipped(_length, lambda limit, whole: 1 / whole if whole > limit else 1.0),
            "Is it turned around? Long gradients become shorter: the factor is the limit divided by the length.":
                _clipped(_length, lambda limit, whole: max(1.0, whole / limit)),
        },
    ),
    "13.3": Exercise(
        reference=accumulated,
        cases=lambda: [
            _parts(8, (2, 4), (2, 4)), _parts(7, (3, 5), (1, 5)), _parts(9, (2, 4), (2, 4), (1, 4)),
            _parts(5, (4, 2), (1, 8)), _parts(11, (2, 3)),
            _parts(6, (1, 1), (2, 6), (3, 2)),
        ],
        run=_with_old_gradients,
        insight="Each token weighs the same, in whatever part it stands: this is the gradient of the whole batch.",
        slips={
            "Is it a mean of the parts' means? Then a token in a small part weighs more than one in a large part.":
                _accumulated(lambda y, ys: 1 / len(ys)),
            "Is the division missing? The parts' gradients add up, so each loss needs its share first.":
                _accumulated(lambda y, ys: 1.0),
            "Do you weigh by rows? The rows of another part may be longer. Count tokens.":
                _accumulated(lambda y, ys: len(y) / sum(len(other) for other in ys)),
            "Is it the sum over all tokens? Divide by their number.":
                _accumulated(lambda y, ys: float(y.numel())),
            "Are the old gradients still in it? backward adds to what is there, so empty it first.":
                _accumulated(_share, emptied=False),
            "Do you empty the gradients before each part? Then only the last part is left.":
                _only_the_last,
            "Do you divide by the number of tokens, but without weighing? Each part's loss is a mean already; "
            "multiply it by the tokens of the part first.":
                _accumulated(lambda y, ys: 1 / sum(other.numel() for other in ys)),
            "Do you divide by the number of parts, too? The shares of all parts already sum to 1.":
                _accumulated(lambda y, ys: _share(y, ys) / len(ys)),
        },
    ),
    "13.4": Exercise(
        reference=split_qkv,
        cases=lambda: [
            (torch.arange(36.0).view(1, 3, 12), 2), (randoms(2, 5, 36, seed=10), 3), (randoms(3, 1, 24, seed=11), 4),
            (randoms(2, 4, 15, seed=12), 1), (randoms(2, 7, 24, seed=13), 8), (randoms(4, 2, 90, seed=14), 5),
        ],
        run=_three,
        insight="view must name the dimensions in the order in which the numbers lie; only then may they be moved.",
        slips={
            "Is it the order of the chapter, all queries first? Here each head has its query, key and value together.":
                _split(lambda B, T, n: (B, T, 3, n, -1), (2, 0, 3, 1, 4)),
            "Is it a view without a transpose, with n_head before T? That cuts the text into pieces, not the channels.":
                _split(lambda B, T, n: (B, n, T, 3, -1), (3, 0, 1, 2, 4)),
            "Are the queries of all heads cut off first, and then viewed without a transpose? Each head's query, key "
            "and value stand together, and view keeps the order of the numbers.":
                lambda qkv, n: tuple(part.reshape(len(qkv), n, qkv.shape[1], -1) for part in qkv.chunk(3, dim=-1)),
            "Is the transpose forgotten? The head must stand before the time.":
                _split(_by_head, (3, 0, 1, 2, 4)),
            "Are the parts in another order? Each head has its query first, then its key, then its value.":
                lambda qkv, n_head: _split(_by_head, (3, 0, 2, 1, 4))(qkv, n_head)[::-1],
            "Does each head take every n_head-th part? Its 3 · H numbers stand side by side.":
                _split(lambda B, T, n: (B, T, -1, 3, n), (3, 0, 4, 1, 2)),
            "Does every third number belong to the query? The H numbers of a query stand side by side.":
                _split(lambda B, T, n: (B, T, n, -1, 3), (4, 0, 2, 1, 3)),
        },
    ),
    "13.5": Exercise(
        reference=grouped_attention,
        cases=lambda: [
            _heads(2, 4, 2, 5, 3, seed=20), _heads(1, 6, 2, 4, 5, seed=23, scale=2), _heads(3, 3, 3, 2, 4, seed=26),
            _heads(2, 5, 1, 3, 2, seed=29), _heads(2, 6, 3, 1, 7, seed=32),
        ],
        insight="Fewer keys and values to keep: in Llama 3 four or more heads share them, and the cache of chapter 14 "
                "would be as many times smaller.",
        slips={
            "Do the heads take the keys by turns (h % n_kv)? Neighbours share: head h hears number h // group.":
                _grouped(lambda z, group: z.repeat(1, group, 1, 1)),
            "Do all heads share the first keys and values? Only each group of neighbours shares one.":
                _grouped(lambda z, group: z[:, :1]),
            "Is the future visible? Hide it with −∞ before the softmax.":
                _grouped(weights=lambda scores: F.softmax(scores, dim=-1)),
            "Is the future hidden after the softmax? Then the rows no longer sum to 1. Hide it before.":
                _grouped(weights=_cut_after_softmax),
            "Does the softmax run over the listeners? It runs over the keys, the last dimension.":
                _grouped(weights=lambda scores: _causal(scores, dim=-2).nan_to_num(0.0)),
            "Do you divide by √C? A head has only H channels, so it is √H.":
                _grouped(scale=lambda n_head, H: n_head * H),
            "Is the scale missing? The scores are divided by √H.":
                _grouped(scale=lambda n_head, H: 1),
            "Is the transpose back missing? Without it, reshape mixes heads and times.":
                _grouped(join=lambda out: out.reshape(out.shape[0], out.shape[2], -1)),
            "Are the heads still apart? Put them side by side at the end: (B, T, C).":
                _grouped(join=lambda out: out),
        },
    ),
}
