"""The exercises of chapter 03, Batches."""

import torch

from utils.checks import Exercise


def examples(ids):
    pairs = []
    for t in range(len(ids) - 1):
        pairs.append((ids[: t + 1], ids[t + 1]))
    return pairs


def windows(ids, T):
    xs, ys, start = [], [], 0
    while start + T + 1 <= len(ids):   # the last target must fit too
        xs.append(ids[start : start + T])
        ys.append(ids[start + 1 : start + T + 1])
        start += T
    return torch.stack(xs), torch.stack(ys)


def batch_without_repeats(ids, B, T):
    starts = torch.randperm(len(ids) - T)[:B]
    x = torch.stack([ids[i : i + T] for i in starts])
    y = torch.stack([ids[i + 1 : i + T + 1] for i in starts])
    return x, y


def facts_of_draws(draws, ids, B, T):
    """What must hold of any two draws of right batches. The ids count up, so each is its own position."""
    (x, y), (other, _) = draws
    return {
        "rows of x that are windows of the text": int((x == x[:, :1] + torch.arange(x.shape[1])).all(dim=1).sum()),
        "ids of y that are the one after x": int((y == x + 1).sum()),
        "different starts": len(set(x[:, 0].tolist())),
        "a second draw is another one": not torch.equal(x, other),
    }


def _numbers(n):
    return torch.arange(n)


EXERCISES = {
    "3.1": Exercise(
        reference=examples,
        cases=lambda: [([5, 6, 7],), ([18, 47, 56, 57, 58, 1],), ([3, 3],), ([9],)],
        insight="A chunk of T + 1 ids holds T questions, one for each context length.",
        slips={
            "Is the target inside its own context? It is the id after it.":
                lambda ids: [(ids[: t + 1], ids[t]) for t in range(len(ids) - 1)],
            "Does each context hold only one id? It holds everything up to position t.":
                lambda ids: [([ids[t]], ids[t + 1]) for t in range(len(ids) - 1)],
            "Is the first question lost? A context of one id asks one too.":
                lambda ids: [(ids[: t + 1], ids[t + 1]) for t in range(1, len(ids) - 1)],
            "Does the first context hold nothing? It holds the id at position 0: slices leave out their end.":
                lambda ids: [(ids[:t], ids[t]) for t in range(len(ids))],
        },
    ),
    "3.2": Exercise(
        reference=windows,
        cases=lambda: [(_numbers(10), 3), (_numbers(9), 3), (_numbers(23), 5), (_numbers(65), 8)],
        insight="Over the whole validation text this gives the same number every time: a loss you can compare.",
        slips={
            "Is the last whole window lost? It needs T + 1 ids, not 2T.":
                lambda ids, T: tuple(w[:-1] for w in windows(ids, T)),
            "Do your windows overlap? The next one starts T further.":
                lambda ids, T: (ids.unfold(0, T, 1)[:-1], ids.unfold(0, T, 1)[1:]),
            "Is y the same as x? The target is the next id.":
                lambda ids, T: (windows(ids, T)[0], windows(ids, T)[0]),
            "Do you skip an id between windows? The last target of one is the first input of the next.":
                lambda ids, T: (ids.unfold(0, T + 1, T + 1)[:, :-1], ids.unfold(0, T + 1, T + 1)[:, 1:]),
        },
    ),
    "3.3": Exercise(
        reference=batch_without_repeats,
        cases=lambda: [(_numbers(12), 4, 3), (_numbers(10), 7, 3), (_numbers(100), 60, 9)],
        run=lambda draw, *case: (draw(*case), draw(*case)),
        facts=facts_of_draws,
        insight="A random order of all starts, cut into batches, visits every window once: that is an epoch.",
        slips={
            "Can a start come twice? randint draws with replacement.":
                lambda ids, B, T: _gathered(ids, torch.randint(len(ids) - T, (B,)), T),
            "Is there any chance in your starts? They must be in random order.":
                lambda ids, B, T: _gathered(ids, torch.arange(B), T),
            "Is y the same as x? The target is the next id.":
                lambda ids, B, T: (batch_without_repeats(ids, B, T)[0],) * 2,
            "Are B and T swapped? B counts the rows.":
                lambda ids, B, T: batch_without_repeats(ids, T, B),
        },
    ),
}


def _gathered(ids, starts, T):
    table = ids[starts[:, None] + torch.arange(T + 1)]
    return table[:, :-1], table[:, 1:]
