"""The exercises of chapter 12, Encoder and decoder."""

import torch
import torch.nn.functional as F
from torch import nn

from utils.checks import Exercise
from utils.exercises import randoms, settled


def decoder_rows(answers, start, end, pad):
    T = max(len(answer) for answer in answers) + 1
    x = torch.full((len(answers), T), pad)
    y = torch.full((len(answers), T), pad)
    for b, answer in enumerate(answers):
        x[b, 0] = start
        for t, i in enumerate(answer):
            x[b, t + 1] = i
            y[b, t] = i
        y[b, len(answer)] = end
    return x, y


def masked_loss(logits, targets, pad):
    losses = []
    for scores, right in zip(logits.flatten(0, 1), targets.flatten().tolist()):
        if right != pad:
            losses.append(torch.logsumexp(scores, dim=0) - scores[right])
    return torch.stack(losses).mean()


def hide(ids, hidden, mask_id):
    x, y = ids.clone(), torch.full_like(ids, -100)
    for b in range(ids.shape[0]):
        for t in range(ids.shape[1]):
            if hidden[b, t]:
                x[b, t] = mask_id
                y[b, t] = ids[b, t]
    return x, y


class BatchedAttention(nn.Module):
    """As on the card; the reference goes head by head, token by token."""

    def __init__(self, n_embd, n_head):
        super().__init__()
        self.n_head = n_head
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.key = nn.Linear(n_embd, n_embd, bias=False)
        self.value = nn.Linear(n_embd, n_embd, bias=False)
        self.proj = nn.Linear(n_embd, n_embd)

    def forward(self, x, source, real):
        H = x.shape[-1] // self.n_head
        out = torch.zeros_like(x)
        for b in range(len(x)):
            heard = source[b, real[b]]
            q, k, v = self.query(x[b]), self.key(heard), self.value(heard)
            for h in range(self.n_head):
                own = slice(h * H, (h + 1) * H)
                for t in range(x.shape[1]):
                    out[b, t, own] = F.softmax(k[:, own] @ q[t, own] * H ** -0.5, dim=0) @ v[:, own]
        return self.proj(out)


def beam_search(log_probs, start, end, width, max_len):
    return _beam(log_probs, start, end, width, max_len)


# Pieces of the slips.

def _beam(
    log_probs, start, end, width, max_len, ended="kept",
    score=lambda old, step: old + step, rank=lambda total, road: total,
):
    """A beam search, its parts to be changed, as slips do; ``rank(total, road)`` is what the roads compete by."""
    roads = [(0.0, [start])]
    for _ in range(max_len):
        longer = []
        for total, road in roads:
            if road[-1] == end and ended == "kept":
                longer.append((total, road))
            elif road[-1] != end or ended == "continued":
                steps = enumerate(log_probs(road).tolist())
                longer += [(score(total, step), [*road, i]) for i, step in steps]
        roads = sorted(longer, key=lambda pair: rank(*pair), reverse=True)[:width]
    return roads[0][1]


def _rows(x_ends=(True, False), y_ends=(False, True), pad=None, left=False):
    """A ``decoder_rows`` with start and end put on x and y as the pairs say."""
    def answer(answers, start, end, fill):
        fill = fill if pad is None else pad
        made = []
        for first, last in (x_ends, y_ends):
            rows = [[start] * first + one + [end] * last for one in answers]
            T = max(map(len, rows))
            filled = [[fill] * (T - len(row)) + row if left else row + [fill] * (T - len(row)) for row in rows]
            made.append(torch.tensor(filled))
        return tuple(made)
    return answer


def _cut_at_the_end(answers, start, end, pad):
    x, y = _rows((True, True), (True, True))(answers, start, end, pad)
    return x[:, :-1], y[:, 1:]


def _end_after_the_filling(answers, start, end, pad):
    x, y = decoder_rows(answers, start, end, pad)
    y[y == end] = pad
    y[:, -1] = end
    return x, y


def _losses(logits, targets, pad):
    """The loss at every place (B, T), and where a target is real."""
    safe = targets.clamp(0, logits.shape[-1] - 1)
    losses = -F.log_softmax(logits, dim=-1).gather(-1, safe[..., None])[..., 0]
    return losses, targets != pad


def _mean(reduce):
    return lambda logits, targets, pad: reduce(*_losses(logits, targets, pad))


def _wrong_dimension(logits, targets, pad):
    losses = -F.log_softmax(logits, dim=1).gather(-1, targets[..., None])[..., 0]
    return losses[targets != pad].mean()


def _no_log(logits, targets, pad):
    chances = -F.softmax(logits, dim=-1).gather(-1, targets[..., None])[..., 0]
    return chances[targets != pad].mean()


def _batched(H=lambda C, n: C // n, split=None, join=None, mask=None, dim=-1):
    """A BatchedAttention with parts to be changed: the scale, how heads are split and joined, and the mask."""
    split = split or (lambda z, n: z.unflatten(-1, (n, -1)).transpose(1, 2))
    join = join or (lambda out: out.transpose(1, 2).flatten(2))

    def forward(self, x, source, real):
        n, C = self.n_head, x.shape[-1]
        q, k, v = split(self.query(x), n), split(self.key(source), n), split(self.value(source), n)
        scores = q @ k.mT * H(C, n) ** -0.5
        scores = mask(scores, real) if mask else scores.masked_fill(~real[:, None, None], float("-inf"))
        return self.proj(join(F.softmax(scores, dim=dim) @ v))
    return type("BatchedAttention", (BatchedAttention,), {"forward": forward})


class _Unprojected(BatchedAttention):
    def forward(self, x, source, real):
        proj, self.proj = self.proj, nn.Identity()
        out = super().forward(x, source, real)
        self.proj = proj
        return out


class _OneHead(BatchedAttention):
    def forward(self, x, source, real):
        n, self.n_head = self.n_head, 1
        out = super().forward(x, source, real)
        self.n_head = n
        return out


def _zeroed(scores, real):
    return scores.masked_fill(~real[:, None, None], 0.0)


def _use(cls, sizes, x, source, real):
    return settled(cls(*sizes))(x, source, real)


def _attention_case(B, T, S, n_head, H, lengths, seed, scale=1.0):
    C = n_head * H
    real = torch.arange(S) < torch.tensor(lengths)[:, None]
    x, source = randoms(B, T, C, seed=seed, scale=scale), randoms(B, S, C, seed=seed + 1, scale=scale)
    return (C, n_head), x, source, real


class _Chances:
    """A ``log_probs`` that looks the next chances up by the last id, or makes them up from the whole road."""

    def __init__(self, rows=None, V=0, seed=0):
        self.rows, self.V, self.seed = rows, len(rows) if rows else V, seed

    def __call__(self, road):
        if self.rows:
            return torch.tensor(self.rows[road[-1]]).log()
        number = self.seed + sum((place + 1) * 31 * i for place, i in enumerate(road))
        return F.log_softmax(randoms(self.V, seed=number, scale=1.5), dim=0)

    def __repr__(self):
        return f"log_probs for {self.V} ids"


TRAP = [   # ids 0 start, 1 end, 2 the tempting first step, 3 the better road; no ties, or a slip would have two results
    [0.01, 0.04, 0.55, 0.40], [0.28, 0.26, 0.24, 0.22], [0.30, 0.19, 0.17, 0.34], [0.01, 0.95, 0.025, 0.015],
]


EXERCISES = {
    "12.1": Exercise(
        reference=decoder_rows,
        cases=lambda: [
            ([[7, 8], [9]], 1, 2, 0), ([[5, 6, 7]], 3, 4, 0), ([[], [9, 8, 7, 6], [5]], 11, 12, 10),
            ([[4], [5], [6]], 0, 1, 2),
        ],
        insight="The decoder reads what is written so far and says the next token; the first and the last step "
                "have their own tokens.",
        slips={
            "Does x have the end, too? The decoder never reads it: after it, nobody asks any more. So T is one more "
            "than the longest answer, not two.":
                _rows((True, True), (True, True)),
            "Is the end of short answers still in x? It is cut off only in the longest row. Build x and y apart.":
                _cut_at_the_end,
            "Is the end missing in y? Then the decoder never learns to stop.":
                _rows((True, False), (True, False)),
            "Is start missing in x? Before the first token the decoder must read something.":
                _rows((False, True), (False, True)),
            "Are x and y turned around? x is what is read, and begins with start; y ends with end.":
                _rows((False, True), (True, False)),
            "Does the filling stand in front? It belongs behind the answer.":
                _rows(left=True),
            "Do you fill up with 0? It should be pad, which is not always 0.":
                _rows(pad=0),
            "Does the end of y stand behind the filling? It comes directly after the answer.":
                _end_after_the_filling,
        },
    ),
    "12.2": Exercise(
        reference=masked_loss,
        cases=lambda: [
            (randoms(2, 4, 5, seed=1), torch.tensor([[3, 1, 4, 0], [2, 0, 0, 0]]), 0),
            (randoms(3, 5, 7, seed=2, scale=3), torch.tensor([[1, 2, 6, 6, 6], [0, 0, 0, 5, 4], [3, 6, 6, 6, 6]]), 6),
            (randoms(1, 3, 4, seed=3), torch.tensor([[1, 2, 3]]), 0),
            (randoms(2, 3, 6, seed=4, scale=200), torch.tensor([[1, 2, 0], [4, 0, 0]]), 0),
        ],
        insight="This is what ignore_index does. Filling costs time, but it must never count.",
        slips={
            "Does the padding count? Leave those places out of the mean.":
                _mean(lambda losses, real: losses.mean()),
            "Do you divide by all places? The padding adds nothing, but it must not be counted either.":
                _mean(lambda losses, real: (losses * real).sum() / losses.numel()),
            "Is it a mean of the rows' means? Then the tokens of short rows weigh more. Take one mean over all "
            "real places.":
                _mean(lambda losses, real: ((losses * real).sum(1) / real.sum(1)).mean()),
            "Is it the sum? We ask for the mean.":
                _mean(lambda losses, real: losses[real].sum()),
            "Do you divide by the number of rows? Divide by the number of real places.":
                _mean(lambda losses, real: losses[real].sum() / len(losses)),
            "Is the minus missing? A loss is minus the log of the probability.":
                _mean(lambda losses, real: -losses[real].mean()),
            "Is it turned around: do you keep the padding and drop the rest?":
                _mean(lambda losses, real: losses[~real].mean()),
            "Does the softmax run over time? It runs over the V scores, the last dimension.": _wrong_dimension,
            "Is the logarithm missing?": _no_log,
        },
    ),
    "12.3": Exercise(
        reference=hide,
        cases=lambda: [
            (torch.tensor([[5, 6, 7, 8]]), torch.tensor([[False, True, False, False]]), 1),
            (torch.arange(10, 25).view(3, 5), randoms(3, 5, seed=5) > 0.3, 2),
            (torch.arange(6).view(2, 3), torch.zeros(2, 3).bool(), 9),
            (torch.tensor([[3], [4]]), torch.tensor([[True], [False]]), 0),
        ],
        insight="No shift and no triangle: the answer stands at its own place, and both sides may be looked at.",
        slips={
            "Is y the whole text? Only hidden tokens are asked for; the others would be copied, for praise.":
                lambda ids, hidden, mask_id: (ids.masked_fill(hidden, mask_id), ids),
            "Is nothing hidden in x? Then the answer stands in the question.":
                lambda ids, hidden, mask_id: (ids, ids.masked_fill(~hidden, -100)),
            "Is it turned around? hidden is True where the token is to be hidden.":
                lambda ids, hidden, mask_id: hide(ids, ~hidden, mask_id),
            "Does y ask for the tokens that can be seen? It should ask for the hidden ones.":
                lambda ids, hidden, mask_id: (ids.masked_fill(hidden, mask_id), ids.masked_fill(hidden, -100)),
            "Is y moved by one, as in a GPT? Here the target stands at its own place.":
                lambda *case: (hide(*case)[0], hide(*case)[1].roll(-1, dims=1)),
            "Are x and y cut and moved by one, as in a GPT? Here both keep their length, and the target stands at "
            "its own place.":
                lambda *case: (hide(*case)[0][:, :-1], hide(*case)[1][:, 1:]),
            "Is mask_id in y? There every place that is not asked is −100.":
                lambda ids, hidden, mask_id: (ids.masked_fill(hidden, mask_id), ids.masked_fill(~hidden, mask_id)),
            "Is −100 in x? There the hidden tokens become mask_id; the embedding has no row for −100.":
                lambda ids, hidden, mask_id: (ids.masked_fill(hidden, -100), ids.masked_fill(~hidden, -100)),
        },
    ),
    "12.4": Exercise(
        reference=BatchedAttention,
        cases=lambda: [
            _attention_case(2, 3, 5, 4, 6, (5, 2), seed=30),   # all sizes differ: a mask without heads stops here
            _attention_case(3, 7, 4, 5, 3, (1, 4, 2), seed=32, scale=2),
            _attention_case(1, 1, 6, 3, 2, (4,), seed=34),
            _attention_case(4, 2, 3, 1, 5, (3, 1, 2, 3), seed=36),
        ],
        run=_use,
        insight="One product for all heads: chapter 13 does the same in the decoder, and measures what it saves.",
        slips={
            "Is it one large head? Split the channels into n_head pieces before the scores.": _OneHead,
            "Do you divide by √C? Each head has only H channels, so it is √H.": _batched(H=lambda C, n: C),
            "Is the scale missing? The scores are divided by √H.": _batched(H=lambda C, n: 1),
            "Is the division made with √n_head? It is √H, with H = C / n_head.": _batched(H=lambda C, n: n),
            "Does every head take every n_head-th channel? Head h has its H channels side by side: "
            "view(B, T, n_head, H), not view(B, T, H, n_head).":
                _batched(
                    split=lambda z, n: z.unflatten(-1, (-1, n)).permute(0, 3, 1, 2),
                    join=lambda out: out.permute(0, 2, 3, 1).flatten(2),
                ),
            "Is the split a view without a transpose? view(B, n_head, T, H) cuts the text into pieces, "
            "not the channels.":
                _batched(
                    split=lambda z, n: z.reshape(z.shape[0], n, z.shape[1], -1),
                    join=lambda out: out.transpose(1, 2).flatten(2),
                ),
            "Is the transpose back missing at the end? Without it, reshape mixes heads and times.":
                _batched(join=lambda out: out.reshape(out.shape[0], out.shape[2], -1)),
            "Is the padding heard? Its scores must be −∞ before the softmax.":
                _batched(mask=lambda scores, real: scores),
            "Do the scores of the padding become 0? The softmax still gives them weight. They must be −∞.":
                _batched(mask=_zeroed),
            "Is it turned around: is only the padding heard? real is True where a token may be heard.":
                _batched(mask=lambda scores, real: scores.masked_fill(real[:, None, None], -1e9)),
            "Is the projection missing at the end?": _Unprojected,
            "Does the softmax run over the listeners? It runs over the source, the last dimension.": _batched(dim=-2),
        },
    ),
    "12.5": Exercise(
        reference=beam_search,
        cases=lambda: [
            (_Chances(TRAP), 0, 1, 2, 4), (_Chances(TRAP), 0, 1, 1, 4), (_Chances(V=5, seed=118), 0, 1, 3, 6),
            (_Chances(V=6, seed=200), 2, 5, 4, 3), (_Chances(V=7, seed=300), 3, 0, 2, 5),
            (_Chances(V=4, seed=400), 0, 1, 5, 1),
        ],
        insight="With width 1 this is greedy decoding. Translators use a width of four or so; chatbots draw at random.",
        slips={
            "Is only the best road kept? That is greedy decoding. Let `width` roads survive each round.":
                lambda log_probs, start, end, width, max_len: beam_search(log_probs, start, end, 1, max_len),
            "Does a road go on after its end? It is kept as it is, with its score.":
                lambda *case: _beam(*case, ended="continued"),
            "Is a road lost when it has its end? It competes on, with the score that it has.":
                lambda *case: _beam(*case, ended="lost"),
            "Do you keep the worst roads? A log-probability nearer to 0 is better.":
                lambda *case: _beam(*case, rank=lambda total, road: -total),
            "Do you compare only the last steps? The score of a road is the sum of all its steps.":
                lambda *case: _beam(*case, score=lambda old, step: step),
            "Is the score divided by the length? That is a known variant, but here it is the plain sum.":
                lambda *case: _beam(*case, rank=lambda total, road: total / len(road)),
            "Is start missing in what you return? The card keeps it.":
                lambda *case: beam_search(*case)[1:],
            "Is the end missing in what you return? The card keeps it, if the road has one.":
                lambda log_probs, start, end, *case: [
                    i for i in beam_search(log_probs, start, end, *case) if i != end
                ],
            "Is it one round too many? max_len counts the steps after start.":
                lambda log_probs, start, end, width, max_len: beam_search(log_probs, start, end, width, max_len + 1),
            "Is it one round too few? max_len counts the steps after start.":
                lambda log_probs, start, end, width, max_len: beam_search(log_probs, start, end, width, max_len - 1),
        },
    ),
}
