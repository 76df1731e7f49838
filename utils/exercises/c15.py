"""The exercises of chapter 15, Pretraining and fine-tuning."""

import torch
from torch import nn

from utils.checks import Exercise
from utils.exercises import randoms, settled


def times_read(length, steps, batch_size, block_size):
    read = 0
    for _ in range(steps):
        read += batch_size * block_size
    return read / length


def when_to_stop(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        if i - best == patience:
            return best, i + 1
    return best, len(losses)


def between(old, new, share):
    mixed = {}
    for name in old:
        if old[name].is_floating_point():
            mixed[name] = old[name] + share * (new[name] - old[name])
        else:
            mixed[name] = new[name].clone()
    return mixed


class Adapted(nn.Module):
    def __init__(self, linear, rank, scale):
        super().__init__()
        self.linear, self.scale = linear, scale
        self.down = nn.Linear(linear.in_features, rank, bias=False)
        self.up = nn.Linear(rank, linear.out_features, bias=False)

    def forward(self, x):
        return self.linear(x) + self.scale * self.up(self.down(x))


# Pieces of the slips.

def _stops(better=lambda loss, best: loss < best, first=None, returned=lambda best, i, losses: (best, i + 1), at=lambda i, best: i - best):
    def stop(losses, patience):
        best = 0
        for i, loss in enumerate(losses):
            if better(loss, losses[best]):
                best = i
            if at(i, best) >= patience:
                return returned(best, i, losses)
        return returned(best, len(losses) - 1, losses)
    return stop


def _worse_than_the_last(losses, patience):
    worse, best = 0, 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        worse = worse + 1 if i and loss >= losses[i - 1] else 0
        if worse == patience:
            return best, i + 1
    return best, len(losses)


def _counted_in_all(losses, patience):
    bad, best = 0, 0
    for i, loss in enumerate(losses):
        if i and loss >= losses[best]:
            bad += 1
        elif i:
            best = i
        if bad == patience:
            return best, i + 1
    return best, len(losses)


def _first_is_bad(losses, patience):
    bad, best = 0, 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            bad, best = 0, i
        else:
            bad += 1
        if bad == patience:
            return best, i + 1
    return best, len(losses)


def _mix(change, whole=lambda a, b: b.clone()):
    return lambda old, new, share: {
        name: change(old[name], new[name], share) if old[name].is_floating_point() else whole(old[name], new[name]) for name in old
    }


def _adapted(write):
    class Wrong(Adapted):
        def forward(self, x):
            return write(self, x)
    return Wrong


def _weights(seed):
    return {
        "wte": randoms(3, 4, seed=seed), "bias": randoms(5, seed=seed + 1), "count": torch.tensor([seed, 7]),
    }


def _run_adapted(cls, C, n, rank, scale, shape):
    module = settled(cls(nn.Linear(C, n), rank, scale))
    return module(randoms(*shape, C, seed=C))


EXERCISES = {
    "15.1": Exercise(
        reference=times_read,
        cases=lambda: [(1000, 10, 5, 20), (4_042_916, 800, 16, 64), (10_038, 200, 16, 64), (70, 3, 4, 9)],
        insight="Below 1 a text cannot be learned by heart: most of it is new each time. Far above 1 it can.",
        slips={
            "Is block_size missing? Each row of a batch has block_size characters.":
                lambda length, steps, batch_size, block_size: steps * batch_size / length,
            "Is batch_size missing? Each step reads batch_size rows.":
                lambda length, steps, batch_size, block_size: steps * block_size / length,
            "Are the steps missing?":
                lambda length, steps, batch_size, block_size: batch_size * block_size / length,
            "Is this the number of characters read? Divide it by the length of the text.":
                lambda length, steps, batch_size, block_size: float(steps * batch_size * block_size),
            "Is the fraction upside down? How often is the text read, not how much of a reading one step is.":
                lambda length, steps, batch_size, block_size: length / (steps * batch_size * block_size),
            "Is it cut to a whole number? Half a reading counts as 0.5: divide with /, not with //.":
                lambda length, steps, batch_size, block_size: float(steps * batch_size * block_size // length),
        },
    ),
    "15.2": Exercise(
        reference=when_to_stop,
        cases=lambda: [
            ([3.0, 2.5, 2.6, 2.7, 2.4, 2.5, 2.6, 2.7, 2.8, 2.2], 3), ([3.0, 2.5, 2.6, 2.4, 2.3], 2), ([2.0, 2.1, 2.2], 1),
            ([2.0, 1.5, 1.5, 1.5, 1.4], 2), ([3.0, 2.0, 2.5, 2.3, 2.2, 1.9], 3), ([1.5], 2),
        ],
        insight="It never sees a better look that comes later. Less patience saves time, and may miss the best model.",
        slips={
            "Does it go on to the end? Stop after `patience` looks that brought nothing new.":
                lambda losses, patience: (losses.index(min(losses)), len(losses)),
            "Do you compare with the look before? Compare with the best look so far.": _worse_than_the_last,
            "Are bad looks added up over the whole run? A new best begins the count anew.": _counted_in_all,
            "Does an equal loss count as better? It must be lower than the best.": _stops(lambda loss, best: loss <= best),
            "Do you return the last look? The model to keep is that of the best look.":
                _stops(returned=lambda best, i, losses: (i, i + 1)),
            "Is it the number of looks, or the index of the last one? Counting begins at 0, so they differ by one.":
                _stops(returned=lambda best, i, losses: (best, i)),
            "Do you return the best loss? The index of its look is asked for.":
                _stops(returned=lambda best, i, losses: (losses[best], i + 1)),
            "Is the first look counted as a bad one? It is the best so far.": _first_is_bad,
            "Are the two results exchanged? First the index of the best look, then how many were made.":
                _stops(returned=lambda best, i, losses: (i + 1, best)),
            "Does it stop one look too late? After `patience` looks without a new best it is over.":
                _stops(at=lambda i, best: i - best - 1),
        },
    ),
    "15.3": Exercise(
        reference=between,
        cases=lambda: [
            ({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 6.0])}, 0.25),
            (_weights(1), _weights(5), 0.3), (_weights(2), _weights(9), 0.0), (_weights(3), _weights(4), 1.0),
        ],
        run=lambda answer, old, new, share: _in_order(answer(old, new, share), old),
        insight="Two models that began as one can be mixed like colours; two that began apart cannot.",
        slips={
            "Are old and new exchanged? With share 0 it is the old model, with 1 the new one.":
                _mix(lambda a, b, share: b + share * (a - b)),
            "Is the old part missing? Start from the old weights, and go a share of the way to the new ones.":
                _mix(lambda a, b, share: share * (b - a)),
            "Do you add a share of the new to the whole old one? The old one's part is 1 − share.":
                _mix(lambda a, b, share: a + share * b),
            "Is it always the middle? Use the share.": _mix(lambda a, b, share: (a + b) / 2),
            "Do you return the new model?": _mix(lambda a, b, share: b.clone()),
            "Is a whole-number tensor mixed too? Counts are not weights: take the new one's as they are.":
                lambda old, new, share: {name: old[name] + share * (new[name] - old[name]) for name in old},
            "Do whole-number tensors come from the old model? Take the new one's.":
                _mix(lambda a, b, share: a + share * (b - a), whole=lambda a, b: a.clone()),
        },
    ),
    "15.4": Exercise(
        reference=Adapted,
        cases=lambda: [(6, 4, 2, 0.5, (3,)), (5, 7, 1, 2.0, (2, 3)), (4, 4, 3, 1.0, (1, 2)), (8, 3, 2, 0.0, (2, 5))],
        run=_run_adapted,
        insight="In a matrix of 1,000 × 1,000, rank 4 trains 8,000 numbers in place of a million.",
        slips={
            "Is the old layer missing? The change is added to what it says.":
                _adapted(lambda self, x: self.scale * self.up(self.down(x))),
            "Is the scale missing?": _adapted(lambda self, x: self.linear(x) + self.up(self.down(x))),
            "Is everything scaled? Only the change is.":
                _adapted(lambda self, x: self.scale * (self.linear(x) + self.up(self.down(x)))),
            "Is only the old layer used? Its change is missing.": _adapted(lambda self, x: self.linear(x)),
            "Is there a ReLU between the two? It would no longer be a change of the matrix.":
                _adapted(lambda self, x: self.linear(x) + self.scale * self.up(self.down(x).relu())),
            "Is the scale a divisor? Multiply by it.":
                _adapted(lambda self, x: self.linear(x) + self.up(self.down(x)) / self.scale),
        },
    ),
}


def _in_order(mixed, old):
    """A dict of tensors as a list, in the order of ``old``, so that it can be compared."""
    if not isinstance(mixed, dict):
        raise TypeError(f"a dict of tensors is asked for, with the names {', '.join(old)}, but this is a {type(mixed).__name__}")
    if mixed.keys() != old.keys():
        raise ValueError(f"the names in the dict are {', '.join(map(str, mixed))}, not {', '.join(old)}")
    return [mixed[name] for name in old]
