"""The exercises of chapter 17, Arithmetic."""

import torch

from utils.checks import Exercise
from utils.exercises import randoms


def read_sum(text):
    total = 0
    for place, digit in enumerate(text.split("=")[1]):
        total += int(digit) * 10**place
    return total


def masked_mean(logits, targets):
    terms = []
    for row, wanted in zip(logits, targets.tolist()):
        for scores, target in zip(row, wanted):
            if target != -1:
                terms.append(-scores.log_softmax(dim=-1)[target])
    return (sum(terms) / len(terms)).item()


def longest_carry(a, b, width):
    longest = []
    for x, y in zip(a.tolist(), b.tolist()):
        carry, run, best = 0, 0, 0
        for i in range(width):
            carry = (x // 10**i % 10 + y // 10**i % 10 + carry) // 10
            run = run + 1 if carry else 0
            best = max(best, run)
        longest.append(best)
    return torch.tensor(longest)


def three_steps(a, b, c):
    rows = []
    for numbers in zip(a.tolist(), b.tolist(), c.tolist()):
        row, carry = [], 0
        for i in range(3):
            column = sum(number // 10**i % 10 for number in numbers) + carry
            carry = column // 10
            row += [column % 10, carry]
        rows.append(row)
    return torch.tensor(rows)


# Pieces of the slips.

def _losses(logits, targets):
    """−ln p at every position (B, T); where the target is −1, of the last character."""
    return -logits.log_softmax(dim=-1).gather(-1, (targets % logits.shape[-1])[..., None])[..., 0]


def _loss_cases():
    def case(B, T, V, seed, hidden, scale=2.0):
        targets = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))
        for row, n in enumerate(hidden):
            targets[row, :n] = -1
        return randoms(B, T, V, seed=seed, scale=scale), targets

    gap = case(2, 5, 4, 9, (1, 2))
    gap[1][0, 3] = -1   # what does not count need not stand in front
    return [case(3, 6, 5, 1, (2, 4, 3)), case(2, 4, 7, 2, (3, 0)), gap, case(1, 1, 3, 4, ()), case(2, 3, 6, 5, (1, 2), scale=60.0)]


def _carried(a, b, width, incoming=True):
    """Whether each column carries: (B, width)."""
    carry, out = torch.zeros_like(a), []
    for i in range(width):
        carry = (a // 10**i % 10 + b // 10**i % 10 + (carry if incoming else 0)) // 10
        out.append(carry)
    return torch.stack(out, dim=1)


def _downwards(a, b, width):
    """As ``_carried``, but begun at the highest column."""
    carry, out = torch.zeros_like(a), []
    for i in reversed(range(width)):
        carry = (a // 10**i % 10 + b // 10**i % 10 + carry) // 10
        out.append(carry)
    return torch.stack(out, dim=1)


def _longest(carried):
    run = best = torch.zeros(len(carried), dtype=torch.long)
    for column in carried.T:
        run = (run + 1) * column
        best = torch.maximum(best, run)
    return best


def _last_run(carried):
    run = torch.zeros(len(carried), dtype=torch.long)
    for column in carried.T:
        run = (run + 1) * column
    return run


def _steps(change):
    """``change(column, i)`` gives the digit and the carry of a column."""
    def steps(a, b, c):
        carry, out = torch.zeros_like(a), []
        for i in range(3):
            digit, carry = change(a // 10**i % 10 + b // 10**i % 10 + c // 10**i % 10 + carry)
            out += [digit, carry]
        return torch.stack(out, dim=1)
    return steps


def _two_steps(a, b):
    """``three_steps`` of two numbers."""
    return three_steps(a, b, torch.zeros_like(a))


def _forgetful(a, b, c):
    out = []
    for i in range(3):
        column = a // 10**i % 10 + b // 10**i % 10 + c // 10**i % 10
        out += [column % 10, column // 10]
    return torch.stack(out, dim=1)


def _numbers(*rows):
    return tuple(torch.tensor(row) for row in rows)


EXERCISES = {
    "17.1": Exercise(
        reference=read_sum,
        cases=lambda: [(text,) for text in (
            "37+48=580", "007+005=2100", "99+99=891", "1+2=30", "37+48=480", "1234+0006=04210", "50+50=001", "0+0=00",
        )],
        insight="Zeros at the end of the text are zeros in front of the number: int() drops them.",
        slips={
            "Is the sum read forwards? Its lowest digit stands first.": lambda text: int(text.split("=")[1]),
            "Do you add the two numbers? Read what is written after the =, right or wrong.":
                lambda text: sum(int(part) for part in text.split("=")[0].split("+")),
            "Is this a text still? int(…) makes a number of it.": lambda text: text.split("=")[1][::-1],
            "Is the last character dropped? It is the highest digit, and not always 0.":
                lambda text: int(text.split("=")[1][:-1][::-1]),
            "Is the question in it too? Only what comes after the = is the sum.":
                lambda text: int("".join(filter(str.isdigit, text))[::-1]),
        },
    ),
    "17.2": Exercise(
        reference=masked_mean,
        cases=_loss_cases,
        insight="That is all that ignore_index does: it leaves positions out of the sum and out of the count.",
        slips={
            "Do you divide by all positions? Only those that count are counted: a mask leaves fewer.":
                lambda logits, targets: (_losses(logits, targets) * (targets != -1)).sum() / targets.numel(),
            "Is it the mean of the rows' means? A row with a longer answer counts more: one mean over all positions.":
                lambda logits, targets: (
                    (_losses(logits, targets) * (targets != -1)).sum(dim=1) / (targets != -1).sum(dim=1)
                ).mean(),
            "Do the positions with −1 count? As an index, −1 is the last character: leave them out first.":
                lambda logits, targets: _losses(logits, targets).mean(),
            "Is the mean missing? This is the sum.":
                lambda logits, targets: (_losses(logits, targets) * (targets != -1)).sum(),
            "Is the sign turned around? The logarithm of a probability is below 0, the loss above.":
                lambda logits, targets: -_losses(logits, targets)[targets != -1].mean(),
            "Is the softmax missing? Scores are no probabilities yet.":
                lambda logits, targets: -logits[targets != -1].gather(-1, targets[targets != -1][:, None]).mean(),
            "Is the logarithm missing? The loss is the mean of −ln p, not of p.":
                lambda logits, targets: (-_losses(logits, targets)[targets != -1]).exp().mean(),
            "Do you take all columns? Of row i only the number at targets[i] counts: index with torch.arange(n) too.":
                lambda logits, targets: -logits.log_softmax(dim=-1)[targets != -1][:, targets[targets != -1]].mean(),
            "Do you take whole rows? Of row i only the number at targets[i] counts: index with torch.arange(n) too.":
                lambda logits, targets: -logits.log_softmax(dim=-1)[targets != -1][targets[targets != -1]].mean(),
            "Does softmax run over the positions? Each position has its own probabilities: dim=-1.":
                lambda logits, targets: -logits.log_softmax(dim=1).gather(-1, targets.clamp(min=0)[..., None])[..., 0][
                    targets != -1
                ].mean(),
            "Is −1 made 0? The first character is then wanted there: leave these positions out.":
                lambda logits, targets: _losses(logits, targets.clamp(min=0)).mean(),
        },
    ),
    "17.3": Exercise(
        reference=longest_carry,
        cases=lambda: [
            (*_numbers([5905, 9165, 999, 1111], [5105, 1936, 1, 1111]), 4), (*_numbers([36, 36], [64, 63]), 2),
            (*_numbers([7, 4, 5], [5, 5, 5]), 1), (*_numbers([50505, 99999, 12345], [50505, 1, 11111]), 5),
            (*_numbers([95095], [5905]), 5), (*_numbers([0], [0]), 3),
        ],
        insight="In plain order the first digit must know this whole chain before anything is written.",
        slips={
            "Do you count all columns that carry? Only those next to each other belong to one run.":
                lambda a, b, width: _carried(a, b, width).sum(dim=1),
            "Does a column know of the carry that comes in? 9 + 0 carries too, if the column below does.":
                lambda a, b, width: _longest(_carried(a, b, width, incoming=False)),
            "Is this the last run? Keep the longest one that you have met.":
                lambda a, b, width: _last_run(_carried(a, b, width)),
            "Is this the first run, from the lowest column? A longer one may begin further up.":
                lambda a, b, width: _carried(a, b, width).cumprod(dim=1).sum(dim=1),
            "Does it say only whether there is a carry? Count the columns.":
                lambda a, b, width: _carried(a, b, width).amax(dim=1),
            "Do you go from the highest column down? A carry comes from below.":
                lambda a, b, width: _longest(_downwards(a, b, width)),
            "Is one column too many counted? The column that only receives a carry is not in the run.":
                lambda a, b, width: _longest(_carried(a, b, width)) + 1,
        },
    ),
    "17.4": Exercise(
        reference=three_steps,
        cases=lambda: [
            _numbers([187, 999], [280, 999], [305, 999]), _numbers([9, 0, 12], [9, 0, 30], [9, 0, 45]),
            _numbers([123], [456], [789]), _numbers([500, 940, 77, 8], [500, 70, 88, 6], [500, 95, 99, 9]),
        ],
        insight="One more case for each look-up, and the same trace: the carry is 2 at most.",
        slips={
            "Can a carry be more than 1? Three nines are 27: take column // 10.":
                _steps(lambda column: (column % 10, (column > 9).long())),
            "Do you take 10 away once only? 27 becomes 17, which is no digit: take column % 10.":
                _steps(lambda column: (torch.where(column > 9, column - 10, column), column // 10)),
            "Is the carry forgotten in the next column?": _forgetful,
            "Does the carry stand before its digit? The digit comes first.":
                lambda a, b, c: three_steps(a, b, c).view(-1, 3, 2).flip(2).flatten(1),
            "Is the highest column first? Begin with the lowest.":
                lambda a, b, c: three_steps(a, b, c).view(-1, 3, 2).flip(1).flatten(1),
            "Are all digits first and then all carries? They take turns: a digit, then its carry.":
                lambda a, b, c: three_steps(a, b, c).view(-1, 3, 2).transpose(1, 2).flatten(1),
            "Is the whole row turned around? Begin with the lowest column, its digit first.":
                lambda a, b, c: three_steps(a, b, c).flip(1),
            "Do you add a + b first, and then c? The carries of the first sum are then hidden.":
                lambda a, b, c: _two_steps(a + b, c),
            "Is only c missing?": lambda a, b, c: three_steps(a, b, 0 * c),
            "Are these ids? Plain numbers are wanted: leave out the id of 0.": lambda a, b, c: three_steps(a, b, c) + 4,
        },
    ),
}
