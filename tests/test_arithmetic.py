"""Chapter 17: problems that are right, unseen ones that stay unseen, a loss on the answer alone, and refusals."""

import ast
import json
import re

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tests.notebooks import CHAPTERS, definitions
from utils import arithmetic, checkpoint
from utils.arithmetic import (
    LIMITS,
    START,
    STEPS,
    addition,
    all_pairs,
    answer_loss,
    is_right,
    is_unseen,
    practise,
    problem,
    shuffled,
    small_model,
    some,
    tokenizer,
)
from utils.sample import generate


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("width", [2, 3])
def test_sums_are_pythons(width):
    pairs = torch.cat((torch.randint(10**width, (300, 2), generator=seeded()), torch.tensor([[0, 0], [10**width - 1] * 2])))
    for plain in (False, True):
        for (a, b), row in zip(pairs.tolist(), addition(pairs, width, plain).tolist()):
            total = f"{a + b:0{width + 1}}"
            assert tokenizer.decode(row) == f"{a:0{width}}+{b:0{width}}={total if plain else total[::-1]}"


def school(op, a, b):
    """The trace as a person would write it, from Python's numbers alone."""
    def reverse(number, width):
        return f"{number:0{width}}"[::-1]

    x, y, out = [int(d) for d in reverse(a, 3)], [int(d) for d in reverse(b, 3)], ""
    if op in "+-":
        carry = 0
        for one, other in zip(x, y):
            carry, digit = divmod(one + other + carry, 10) if op == "+" else divmod(one - other - carry, 10)
            carry = abs(carry)
            out += f"{digit}{carry}"
        return out + (reverse(abs(a - b), 3) if op == "-" else "")
    if op == "/":
        return "".join(f"{n // b % 10}{n % b}" for n in (a // 100, a // 10, a))
    for digit in y[:2]:
        out += reverse(x[0] * digit, 2) + reverse(x[1] * digit, 2) + reverse(a * digit // 10, 2)
    tens = a * y[0] // 10 % 10 + a * y[1] % 10
    return out + reverse(tens, 2) + reverse((a * y[0] + 10 * (a * y[1])) // 100 - 10 * (a * y[1] // 100), 2)


RESULT = {
    "+": lambda a, b: f"{a + b:04}", "-": lambda a, b: f"{a - b:+04}", "*": lambda a, b: f"{a * b:04}",
    "/": lambda a, b: f"{a // b:03}r{a % b}",
}


@pytest.mark.parametrize("op", STEPS)
def test_traces_are_steps_at_school_and_end_with_the_result(op):
    largest = torch.tensor([LIMITS[op], (0, int(op == "/")), (5, LIMITS[op][1])])
    pairs = torch.cat((shuffled(torch.cat(all_pairs(*LIMITS[op], least_b=int(op == "/"))))[:400], largest))
    rows = zip(pairs.tolist(), problem(op, pairs, True).tolist(), problem(op, pairs, False).tolist())
    for (a, b), traced, bare in rows:
        question, result = f"{a:03}{op}{b:03}=", RESULT[op](a, b)
        assert len(question) == START
        assert tokenizer.decode(traced) == f"{question}{school(op, a, b)}={result}"
        assert tokenizer.decode(bare) == question + (result if op == "/" else result[::-1])


@pytest.mark.parametrize("limits", {*LIMITS.values(), (99, 99)}, ids=str)
def test_what_is_unseen_is_never_drawn_in_either_order(limits):
    seen, unseen = all_pairs(*limits)
    assert len(seen) + len(unseen) == (limits[0] + 1) * (limits[1] + 1)
    assert 0.45 < len(unseen) / (len(seen) + len(unseen)) < 0.55
    a, b = some(seen, 2000, seeded()).T
    assert not is_unseen(a, b).any() and not is_unseen(b, a).any()
    hidden = {(a, b) for a, b in unseen[:5000].tolist()}
    assert not hidden & set(map(tuple, seen.tolist()))


def test_the_loss_is_the_mean_over_the_answers_alone():
    torch.manual_seed(0)
    model = small_model(longest=9)
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)   # it begins with many zeros, which would hide mistakes
    ids = addition(torch.randint(100, (5, 2), generator=seeded()), 2)   # (5, 9)
    logits, _ = model(ids[:, :-1])                                      # (5, 8, V)
    terms = [-logits[i, t - 1].log_softmax(dim=-1)[ids[i, t]] for i in range(5) for t in range(6, 9)]
    assert_close(answer_loss(model, ids, 6), torch.stack(terms).mean())
    gradient, = torch.autograd.grad(
        F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].masked_fill(torch.arange(8) < 5, -1).flatten(), ignore_index=-1), logits
    )
    assert (gradient[:, :5] == 0).all() and (gradient[:, 5:] != 0).any(dim=-1).all()


def test_one_pass_and_greedy_writing_agree():
    """On a model that saw only half of the problems, so that there are right and wrong answers."""
    torch.manual_seed(0)
    model, pairs = small_model(longest=6), all_pairs(9, 9)[0]
    ids = addition(pairs, 1)                                            # (N, 6)
    half = pairs[pairs[:, 0] < 5]                                       # no sum that begins with 5 to 9
    practise(model, lambda generator: [addition(some(half, 64, generator), 1)], 4, 40, [ids])
    right = is_right(model, ids, 4)
    assert 0 < right.sum() < len(ids)
    assert torch.equal((generate(model, ids[:, :4], 2, temperature=0) == ids).all(dim=1), right)


def test_what_ships_calculates_as_stored():
    model, same, info = checkpoint.load(arithmetic.CALCULATOR)
    assert same.chars == tokenizer.chars and arithmetic.CALCULATOR.stat().st_size < 1e6
    stored = json.loads(arithmetic.RESULTS.read_text(encoding="utf-8"))["models"]["with steps"]
    assert len(stored) >= 3
    for op in STEPS:
        tests = problem(op, shuffled(all_pairs(*LIMITS[op], least_b=int(op == "/"))[1])[:200], traced=True)
        assert is_right(model, tests, START).float().mean() > 0.95
        assert all(run["right"][op] >= 0.98 for run in stored.values()) and info["right"] == stored[str(info["seed"])]["right"]


@pytest.fixture(scope="module")
def page():
    """The page's own functions parse and calculate, with the calculator that ships."""
    path = next(path for path in CHAPTERS if path.stem.startswith("17"))
    calculator, _, _ = checkpoint.load(arithmetic.CALCULATOR)
    space = {**vars(arithmetic), "re": re, "generate": generate, "calculator": calculator}
    for name in ("parse", "calculate"):
        exec(compile(ast.Module([definitions(path)[name]], []), path.name, "exec"), space)
    return space


@pytest.mark.parametrize("question, result", [
    ("37*48", "1776"), (" 7 + 5 ", "12"), ("187-280", "-93"), ("5−5", "0"), ("99×99", "9801"), ("831÷7", "118 r 5"), ("007+5", "12"),
])
def test_it_calculates(question, result, page, capsys):
    assert page["calculate"](question) == result
    assert "=" in capsys.readouterr().out


@pytest.mark.parametrize("question, words", [
    ("37^48", "'\\^' at position 2 is unknown"), ("x+1", "'x' at position 0"), ("3\n+4", "position 1"), ("１+1", "position 0 is unknown"),
    ("", "write a number, a sign and a number"), ("37*", "is no question"), ("2+3+4", "is no question"), ("-5+3", "is no question"),
    ("1000+1", "1000 is too large: before \\+ .* up to 999"), ("7*100", "100 is too large: after \\* .* up to 99"),
    ("84/12", "12 is too large: after / .* up to 9"), ("7/0", "divided by 0"), ("9" * 5000 + "+1", "a number of 5000 digits is too large"),
])
def test_it_refuses_what_it_was_not_trained_on(question, words, page):
    with pytest.raises(ValueError, match=words):
        page["calculate"](question)
