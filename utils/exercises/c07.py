"""The exercises of chapter 07, Multi-head attention."""

import torch
import torch.nn.functional as F
from torch import nn

from utils.checks import Exercise
from utils.exercises import randoms, settled
from utils.model import MultiHeadAttention


def attention_parameters(n_embd, n_head, head_size, block_size):
    attention = MultiHeadAttention(n_embd, n_head, head_size, block_size, proj=False)
    return sum(p.numel() for p in attention.parameters())


def split_heads(q, n_head):
    B, T, C = q.shape
    H = C // n_head
    out = torch.zeros(B, n_head, T, H, dtype=q.dtype)
    for h in range(n_head):
        out[:, h] = q[:, :, h * H : (h + 1) * H]
    return out


def mix_heads(joined, keep):
    H = joined.shape[-1] // len(keep)
    out = joined.clone()
    for h, loudness in enumerate(keep):
        out[..., h * H : (h + 1) * H] *= loudness
    return out


class AllHeads(nn.Module):
    """As on the card; its ``forward`` is the ``MultiHeadAttention`` of utils, with these weights cut into strips."""

    def __init__(self, n_embd, n_head, head_size, block_size):
        super().__init__()
        self.n_head = n_head
        self.query = nn.Linear(n_embd, n_head * head_size, bias=False)
        self.key = nn.Linear(n_embd, n_head * head_size, bias=False)
        self.value = nn.Linear(n_embd, n_head * head_size, bias=False)
        self.register_buffer("tril", torch.tril(torch.ones(block_size, block_size)), persistent=False)

    def forward(self, x):
        H = self.query.out_features // self.n_head
        per_head = MultiHeadAttention(x.shape[-1], self.n_head, H, len(self.tril), proj=False)
        for h, head in enumerate(per_head.heads):
            for name in ("query", "key", "value"):
                getattr(head, name).weight.data.copy_(getattr(self, name).weight[h * H : (h + 1) * H])
        return per_head(x)


# Pieces of the slips.

def _join(out):
    return out.transpose(1, 2).flatten(2)   # (B, n_head, T, H) → (B, T, n_head · H)


def _causal(scores):
    past = torch.tril(torch.ones(scores.shape[-2:]))
    return F.softmax(scores.masked_fill(past == 0, float("-inf")), dim=-1)


def _open_then_cut(scores):
    return torch.tril(F.softmax(scores, dim=-1))


def _all_heads(split=split_heads, weights=_causal, join=_join, size=lambda C, n, H: H):
    """An AllHeads made of these steps; scores are divided by the root of ``size(C, n_head, H)``."""
    def forward(self, x):
        q, k, v = (split(layer(x), self.n_head) for layer in (self.query, self.key, self.value))
        scores = q @ k.mT * size(x.shape[-1], self.n_head, q.shape[-1]) ** -0.5
        return join(weights(scores) @ v)
    return type("AllHeads", (AllHeads,), {"forward": forward})


def _cut_in_order(q, n_head):
    B, T, C = q.shape
    return q.reshape(B, n_head, T, C // n_head)


def _by_turns(q, n_head):
    return q.unflatten(-1, (-1, n_head)).permute(0, 3, 1, 2)


def _softmax_over(dim):
    def weights(scores):
        past = torch.tril(torch.ones(scores.shape[-2:]))
        return F.softmax(scores.masked_fill(past == 0, float("-inf")), dim=dim).nan_to_num(0.0)
    return weights


def _loudness(joined, keep):
    """``keep`` for each channel."""
    return keep.repeat_interleave(joined.shape[-1] // len(keep))


def _counting(*shape):
    return torch.arange(torch.Size(shape).numel()).view(shape).float()


class _Sizes(dict):
    """The sizes that __init__ gets; a message shows them as arguments."""

    def __repr__(self):
        return ", ".join(f"{name}={size}" for name, size in self.items()) + " in __init__"


def _sizes(n_head, head_size, block_size):
    return _Sizes(n_head=n_head, head_size=head_size, block_size=block_size)


EXERCISES = {
    "7.1": Exercise(
        reference=attention_parameters,
        cases=lambda: [(20, 4, 3, 7), (32, 4, 8, 8), (32, 1, 32, 8), (7, 2, 5, 16), (768, 12, 64, 16), (1, 1, 1, 1)],
        insight="As long as n_head · H stays the same, so does the number of parameters: more heads, but smaller ones.",
        slips={
            "Is it 3 · C · C? Only if n_head · H is C, and nobody has promised that here.":
                lambda C, n, H, T: 3 * C * C,
            "Are these the parameters of one head? There are n_head of them.":
                lambda C, n, H, T: 3 * C * H,
            "Is this one matrix for each head? A head has three: query, key and value.":
                lambda C, n, H, T: n * C * H,
            "Do the layers lead from H to H? They read all C channels: each is (H, C).":
                lambda C, n, H, T: 3 * n * H * H,
            "Do you count the triangles? They are buffers: nothing in them is learned.":
                lambda C, n, H, T: n * (3 * C * H + T * T),
            "Do you count biases? The three layers of a head have none.":
                lambda C, n, H, T: 3 * n * (C + 1) * H,
            "Do you count a projection after the joining? It comes in chapter 09.":
                lambda C, n, H, T: 3 * n * C * H + n * H * C + C,
            "Is the projection of chapter 09 in it already, without its bias?":
                lambda C, n, H, T: 4 * n * C * H,
        },
    ),
    "7.2": Exercise(
        reference=split_heads,
        cases=lambda: [
            (_counting(1, 3, 4), 2), (_counting(2, 5, 12), 3), (randoms(3, 4, 10, seed=1), 5),
            (randoms(2, 1, 8, seed=2), 4), (randoms(2, 6, 7, seed=3), 1), (randoms(5, 4, 6, seed=4).transpose(0, 1), 2),
        ],
        insight="Nothing need be copied or computed for it: "
                "one large head's numbers are only read as several small ones.",
        slips={
            "Is this one view or reshape straight to (B, n_head, T, H)? It cuts the numbers in the order "
            "in which they lie, and mixes tokens with heads. First cut C, then move the heads.":
                _cut_in_order,
            "Is the transpose missing? The heads must stand before T.":
                lambda q, n: split_heads(q, n).transpose(1, 2),
            "Do the heads take the channels by turns? Head 0 gets the first H channels, all together.":
                _by_turns,
            "Do the heads stand before the batch? We ask for (B, n_head, T, H).":
                lambda q, n: split_heads(q, n).transpose(0, 1),
            "Are T and H exchanged at the end? We ask for (B, n_head, T, H).":
                lambda q, n: split_heads(q, n).mT,
            "Is this a list of pieces? We ask for one tensor. "
            "(And split(k) makes pieces of size k; chunk(k) makes k pieces.)":
                lambda q, n: list(split_heads(q, n).unbind(1)),
            "Are n_head and H exchanged? n_head says how many pieces, H how long each is.":
                lambda q, n: split_heads(q, q.shape[-1] // n)[:, : n + 1],
        },
    ),
    "7.3": Exercise(
        reference=mix_heads,
        cases=lambda: [
            (_counting(1, 2, 6) + 1, torch.tensor([1.0, 0.0])),
            (randoms(2, 5, 12, seed=5), torch.tensor([0.0, 1.0, 1.0, 0.0])),
            (randoms(3, 4, 15, seed=6), torch.tensor([0.5, 1.0, 0.0])), (randoms(2, 3, 4, seed=7), torch.tensor([0.0])),
            (randoms(4, 1, 10, seed=8), torch.ones(5)),
        ],
        insight="The slope of the loss with respect to `keep` tells which head would be missed, without silencing "
                "one after the other: so Michel et al., 2019, found the heads that a model can spare.",
        slips={
            "Do the channels take turns? A head owns H channels in a row: repeat_interleave, not repeat.":
                lambda joined, keep: joined * keep.repeat(joined.shape[-1] // len(keep)),
            "Is it upside down? Where keep is 0, the head is silent.":
                lambda joined, keep: joined * (1 - _loudness(joined, keep)),
            "Are the channels of silent heads gone? They stay, with 0 in them, so that the next layer still fits.":
                lambda joined, keep: joined[..., _loudness(joined, keep) != 0],
            "Do the other heads speak louder now? They stay as they are.":
                lambda joined, keep: joined * _loudness(joined, keep) * len(keep) / keep.sum(),
            "Is −inf in it? That is for scores, before softmax. A silent head says 0.":
                lambda joined, keep: joined.masked_fill(_loudness(joined, keep) == 0, float("-inf")),
            "Is nobody silent?":
                lambda joined, keep: joined * 1.0,
            "Does a head with 0.5 speak as loud as one with 1?":
                lambda joined, keep: joined * (_loudness(joined, keep) != 0),
        },
    ),
    "7.4": Exercise(
        reference=AllHeads,
        cases=lambda: [
            (randoms(2, 4, 7, seed=9), _sizes(3, 5, 8)), (randoms(3, 6, 20, seed=10, scale=2), _sizes(4, 5, 6)),
            (randoms(4, 1, 6, seed=11), _sizes(2, 3, 5)), (randoms(2, 5, 3, seed=12), _sizes(1, 4, 9)),
            (randoms(1, 9, 10, seed=13), _sizes(5, 2, 16)),
        ],
        run=lambda cls, x, sizes: settled(cls(x.shape[-1], *sizes.values()))(x),
        insight="The same numbers as `MultiHeadAttention`, head by head, but in one product for all heads of all rows. "
                "Chapter 13 builds its model on it.",
        slips={
            "Is this one view straight to (B, n_head, T, H)? It mixes tokens with heads; exercise 7.2 has the way.":
                _all_heads(split=_cut_in_order),
            "Do the heads take the channels by turns? Head h owns H channels in a row.":
                _all_heads(split=_by_turns),
            "Are the heads joined without moving T back before them? "
            "(B, n_head, T, H) must first become (B, T, n_head, H).":
                _all_heads(join=lambda out: out.reshape(out.shape[0], out.shape[2], -1)),
            "Are the heads not joined yet? First move T before them, then join the last two dimensions.":
                _all_heads(join=lambda out: out),
            "Is only the last step missing? Join the last two dimensions, heads and H.":
                _all_heads(join=lambda out: out.transpose(1, 2)),
            "Are the channels of the heads mixed at the end? "
            "The result must be head 0's H numbers, then head 1's, and so on.":
                _all_heads(join=lambda out: out.permute(0, 2, 3, 1).flatten(2)),
            "Is it √C? Each head divides by the root of its own size, H.":
                _all_heads(size=lambda C, n, H: C),
            "Is it the root of n_head · H? Each head divides by the root of its own size, H.":
                _all_heads(size=lambda C, n, H: n * H),
            "Is the scale missing? Scores are divided by √H.":
                _all_heads(size=lambda C, n, H: 1),
            "Is the future open? The triangle is missing.":
                _all_heads(weights=lambda scores: F.softmax(scores, dim=-1)),
            "Does the triangle come after softmax? Then the future's share is lost, and rows do not sum to 1.":
                _all_heads(weights=_open_then_cut),
            "Do the heads share one softmax, over dimension 1? "
            "It runs over the tokens that are heard, the last dimension.":
                _all_heads(weights=_softmax_over(1)),
            "Does softmax run over the listeners? It runs over the tokens that are heard, the last dimension.":
                _all_heads(weights=_softmax_over(2)),
            "Have all heads the same weights? Their scores must not be added up: that is one large head.":
                _all_heads(weights=lambda scores: _causal(scores.sum(dim=1, keepdim=True))),
        },
    ),
}
