"""The exercises' checks: ``check("3.2", windows)`` prints what it finds, and never raises.

What an exercise asks is in ``utils/exercises``, one module a chapter: an obvious reference,
inputs of several shapes, and the slips that learners make. A check runs the answer on each
input, compares, and names the slip if the answer does just what that slip does. It calls
the learner's code as it stands and never reads or rewrites its text.
"""

import copy
import dis
import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class Exercise:
    """One exercise: what a right answer does, and what wrong ones do.

    ``cases`` gives the inputs, each a tuple of arguments, fresh and the same at every call.
    ``run(answer, *case)`` is what is compared; without it the answer is called with the case.
    Where right answers differ (by chance, say), ``facts(result, *case)`` gives a dict of what must
    hold of all of them, and those are compared; with ``draws`` the answer is called that often,
    and ``facts`` gets the list of results.
    ``slips`` maps what to say to a wrong answer that would explain it.
    """

    reference: object
    cases: Callable
    insight: str
    slips: dict = field(default_factory=dict)
    run: Callable = lambda answer, *case: answer(*case)
    facts: Callable | None = None
    draws: int = 0


def check(number, answer):
    """Print what the check of exercise ``number`` ("3.2") finds in ``answer``."""
    exercise = find(number)
    if exercise is None:
        print(f"there is no exercise {number!r}; the number is on its card")
    elif _is_stub(answer):
        print(f"{number} not attempted yet")
    else:
        problem = _problem(exercise, answer)
        print(f"{number} ✗ {problem}" if problem else f"{number} ✓ {exercise.insight}")


def find(number):
    """The Exercise called ``number``, or None."""
    try:
        chapter = importlib.import_module(f"utils.exercises.c{int(str(number).split('.')[0]):02d}")
    except (ModuleNotFoundError, ValueError):
        return None
    return chapter.EXERCISES.get(str(number))


def _is_stub(answer):
    """True for ``...`` and for functions and classes that still hold only ``...`` (beside ``__init__``)."""
    if inspect.isclass(answer):
        methods = [method for name, method in vars(answer).items() if inspect.isfunction(method) and name != "__init__"]
        return all(map(_is_stub, methods))
    if answer is ...:
        return True
    if not inspect.isfunction(answer):
        return False
    steps = [step for step in dis.get_instructions(answer) if step.opname not in ("RESUME", "NOP")]
    return all(step.opname in ("LOAD_CONST", "RETURN_VALUE", "RETURN_CONST") and step.argval is None for step in steps)


def _problem(exercise, answer):
    """What is wrong with the answer, in a sentence or two, or None."""
    passed = []
    for case in exercise.cases():
        given = copy.deepcopy(case)
        expected = _result(exercise, exercise.reference, case)
        try:
            got = _run(exercise, answer, given)
        except (Exception, SystemExit) as error:   # whatever the answer raises is a finding, not our failure
            return f"{_shown(case)} your code stopped with {type(error).__name__}: {_cut(error, 200)}"
        if not _same(given, case):
            return f"{_shown(case)} your code changed its input in place. Work on a copy, or make a new tensor."
        difference = _compare(exercise, case, got, expected)
        if difference:
            return f"{_shown(case)} {difference}{_slip(exercise, passed, case, got)}"
        passed.append(case)
    return None


def _run(exercise, answer, case):
    torch.manual_seed(0)   # so that an answer that draws, draws as the reference does
    if exercise.draws:
        return [exercise.run(answer, *case) for _ in range(exercise.draws)]
    return exercise.run(answer, *case)


def _slip(exercise, passed, case, got):
    """The words of a slip that gives just what came, and passes what the answer passed; or nothing."""
    for words, wrong in exercise.slips.items():
        try:
            if _compare(exercise, case, _plain(got), _plain(_result(exercise, wrong, case))) is None and all(
                _compare(exercise, one, _result(exercise, wrong, one), _result(exercise, exercise.reference, one)) is None
                for one in passed
            ):
                return f" {words}"
        except Exception:   # a slip may fail on a case that others pass
            continue
    return ""


def _plain(thing):
    """A tensor with one number as that number: the same slip, whether it was returned with or without .item()."""
    return thing.item() if isinstance(thing, torch.Tensor) and thing.ndim == 0 else thing


def _result(exercise, answer, case):
    return _run(exercise, answer, copy.deepcopy(case))


def _compare(exercise, case, got, expected):
    """How what came differs from what was expected, or None; by the exercise's facts where it has some."""
    if exercise.facts is None:
        return _difference(got, expected)
    results = zip(got, expected) if exercise.draws else [(got, expected)]
    difference = next(filter(None, (_difference(one, other, values=False) for one, other in results)), None)
    if difference:
        return difference
    facts = exercise.facts(expected, *case)
    found = exercise.facts(got, *case)
    for name, value in facts.items():
        difference = _difference(found[name], value)
        if difference:
            return f"{name}: {difference}"
    return None


def _difference(got, expected, values=True):
    """The first difference in kind, shape, type or (unless ``values`` is False) in numbers, or None."""
    if isinstance(expected, (tuple, list)):
        if not isinstance(got, (tuple, list)):
            return f"we expected {len(expected)} values together, but got {_kind(got)}."
        if len(got) != len(expected):
            return f"we expected {len(expected)} values, but got {len(got)}: {_cut(got)}."
        for i, (one, other) in enumerate(zip(got, expected)):
            difference = _difference(one, other, values)
            if difference:
                return f"[{i}]{difference}" if difference.startswith("[") else f"[{i}]: {difference}"
        return None
    if isinstance(expected, torch.Tensor):
        return _tensor_difference(got, expected, values)
    if isinstance(expected, (bool, str, bytes, set)) or expected is None:
        same = type(got) is type(expected) and (got == expected or not values)
    else:   # numbers; a tensor that holds one number is as good
        number = got.item() if isinstance(got, torch.Tensor) and got.numel() == 1 else got
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            return f"we expected the number {expected:.6g}, but got {_kind(got)}."
        if isinstance(number, int) and abs(number) > 10**300:   # too large to become a float
            number = math.inf if number > 0 else -math.inf
        close = abs(number - expected) <= 1e-4 * max(1, abs(expected)) < math.inf
        both_nan = number != number and expected != expected
        # A count must be exact, a measured number need not.
        same = number == expected or both_nan or (close and isinstance(expected, float)) or not values
        if not same and isinstance(expected, float):
            return f"we expected {expected:.6g}, but got {number:.6g}."
    return None if same else f"we expected {_cut(repr(expected))}, but got {_cut(repr(got))}."


def _tensor_difference(got, expected, values):
    if not isinstance(got, torch.Tensor):
        return f"we expected a tensor of shape {tuple(expected.shape)}, but got {_kind(got)}."
    if got.shape != expected.shape:
        return f"we expected shape {tuple(expected.shape)}, but got {tuple(got.shape)}."
    if got.device != expected.device:
        return f"we expected a tensor on {expected.device}, but got one on {got.device}."
    if got.dtype != expected.dtype:
        return f"we expected numbers of type {expected.dtype}, but got {got.dtype}."
    if not values:
        return None
    got, expected = got.detach(), expected.detach()
    wrong = ~torch.isclose(got.double(), expected.double(), rtol=1e-4, atol=1e-5, equal_nan=True) & (got != expected)
    if not wrong.any():
        return None
    place = tuple(wrong.nonzero()[0].tolist())
    where = f" at {list(place)}" if place else ""
    words = "{}" if expected.dtype == torch.bool else "{:.4g}"
    return f"we expected {words.format(expected[place].item())}{where}, but got {words.format(got[place].item())}."


def _same(one, other):
    """True if two inputs are equal, whatever is nested in them."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, nn.Module):
        return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))
    return callable(one) or one == other


def _shown(case):
    """The input in a few words: small values as they are, tensors by their shape."""
    words = []
    for value in case:
        if isinstance(value, torch.Tensor):
            words.append(_rounded(value.tolist()) if value.numel() <= 12 else f"a tensor of shape {tuple(value.shape)}")
        elif isinstance(value, nn.Module):
            words.append(f"a {type(value).__name__}")
        else:
            words.append(_cut(_rounded(value)))
    return f"With {', '.join(words)}" + (":" if words else "")


def _rounded(value):
    """A value as it is typed, its floats to four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(_rounded, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)


def _kind(value):
    if value is None:
        return "None (is the return missing?)"
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _cut(value, length=100):
    text = " ".join(str(value).split())
    return text if len(text) <= length else text[: length - 1] + "…"
