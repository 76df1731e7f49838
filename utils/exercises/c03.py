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
    """What must hold of many right batches. No two ids are the same, so an id tells its position."""
    place = {one: i for i, one in enumerate(ids.tolist())}
    starts = [[place.get(one, -1) for one in x[:, 0].tolist()] for x, _ in draws]   # −1: not an id of the text
    real = [[i for i in row if 0 <= i < len(ids) - T] for row in starts]
    windows = [[(ids[i : i + T].tolist(), ids[i + 1 : i + T + 1].tolist()) for i in row] for row in real]
    return {
        "starts from which a whole window fits": min(map(len, real)),
        "rows of x that are windows of the text": min(
            sum(row == window for row, (window, _) in zip(x.tolist(), one)) for (x, _), one in zip(draws, windows)
        ),
        "rows of y that are the same windows, one id later": min(
            sum(row == window for row, (_, window) in zip(y.tolist(), one)) for (_, y), one in zip(draws, windows)
        ),
        "different starts in a batch": min(len(set(row)) for row in starts),
        "starts that ever come": len({i for row in starts for i in row}),
        "each start is always followed by its neighbour": all(
            b == a + 1 for row in starts for a, b in zip(row, row[1:])
        ),
    }


def _numbers(n):
    """n different ids in no order."""
    return 50 + torch.randperm(n, generator=torch.Generator().manual_seed(n))


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
        cases=lambda: [(_numbers(10), 3), (_numbers(9), 3), (_numbers(11), 5), (_numbers(65), 8)],
        insight="Over the whole validation text this gives the same number every time: a loss you can compare.",
        slips={
            "Where do these ids come from? Take them out of the text, at the positions of the window.":
                lambda ids, T: windows(torch.arange(len(ids)), T),
            "Is y one more than x? It is the id that comes next in the text.":
                lambda ids, T: (windows(ids, T)[0], windows(ids, T)[0] + 1),
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
        cases=lambda: [(_numbers(12), 4, 3), (_numbers(10), 7, 3), (_numbers(60), 35, 9)],
        draws=40,
        facts=facts_of_draws,
        insight="A random order of all starts, cut into batches, visits every window once: that is an epoch.",
        slips={
            "Can a start come twice? randint draws with replacement.":
                lambda ids, B, T: _gathered(ids, torch.randint(len(ids) - T, (B,)), T),
            "Can every start come? There are len(ids) − T of them, 0 to len(ids) − T − 1.":
                lambda ids, B, T: _gathered(ids, torch.randperm(B), T),
            "Do your starts stand in a row? Each must be drawn for itself.":
                lambda ids, B, T: _gathered(ids, torch.randint(len(ids) - T - B + 1, (1,)) + torch.arange(B), T),
            "Where do these ids come from? Take them out of the text, at the positions of the window.":
                lambda ids, B, T: batch_without_repeats(torch.arange(len(ids)), B, T),
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
