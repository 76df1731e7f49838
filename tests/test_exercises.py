"""The exercises: right answers pass, the slips learners make are named, and nothing breaks a check."""

import itertools
import re

import pytest
import torch
from torch import nn

from tests.notebooks import CHAPTERS, cells
from utils import checks
from utils.data import ROOT

NUMBERS = sorted(
    number for path in CHAPTERS for number in (
        checks.find(f"{int(path.stem[:2])}.{n}") and f"{int(path.stem[:2])}.{n}" for n in range(1, 8)
    )
    if number
)
exercises = pytest.mark.parametrize("number", NUMBERS)


def said(capsys, number, answer):
    capsys.readouterr()
    checks.check(number, answer)
    return capsys.readouterr().out


@exercises
def test_the_reference_passes(number, capsys):
    assert said(capsys, number, checks.find(number).reference).startswith(f"{number} ✓ ")


SLIPS = [(number, words) for number in NUMBERS for words in checks.find(number).slips]


@pytest.mark.parametrize("number, words", SLIPS)
def test_a_slip_is_refused_by_its_name(number, words, capsys):
    out = said(capsys, number, checks.find(number).slips[words])
    assert out.startswith(f"{number} ✗ ")
    assert words in out


@exercises
def test_there_are_four_slips_or_more(number):
    assert len(checks.find(number).slips) >= 4


def _stops(*args):
    raise RuntimeError("nothing works")


class Stops(nn.Module):
    def __init__(self, *args):
        raise RuntimeError("nothing works")

    def forward(self, x):
        return x


ODD = {
    "None": lambda *args: [None][0], "a list": lambda *args: [1, [2]], "a string": lambda *args: "x", "nan": lambda *args: float(
        "nan"
    ),
    "a NaN tensor": lambda *args: torch.full((2, 3), torch.nan), "a wrong shape": lambda *args: torch.zeros(1, 2, 3, 4),
    "a float": lambda *args: -123.4, "endless": lambda *args: itertools.count(), "an error": _stops, "no arguments": lambda: 1,
    "exit": lambda *args: exit(), "not a function": 17, "text": "x = 1", "a list itself": [1], "a tensor": torch.tensor(
        [torch.nan]
    ),
    "a class": Stops, "a dict": {"a": 1}, "a function that returns itself": lambda *args: _stops, "a complex": 1j, "a set": {1},
    "a huge number": lambda *args: -(10**400),
}


@exercises
@pytest.mark.parametrize("kind", ODD)
def test_nothing_a_learner_returns_breaks_a_check(number, kind, capsys):
    assert said(capsys, number, ODD[kind]).startswith(f"{number} ✗ ")


def test_stubs_are_not_attempted():
    def plain(x): ...
    def with_words(x):
        """Not yet."""
        ...
    class Module(nn.Module):
        def forward(self, x):
            ...
    for stub in (plain, with_words, Module, ...):
        assert checks._is_stub(stub)
    for tried in (lambda x: x, Stops, 3, torch.zeros(1)):
        assert not checks._is_stub(tried)


def test_an_unknown_number_is_named(capsys):
    for number in ("3.99", "99.1", "abc", None):
        assert "no exercise" in said(capsys, number, lambda: 1)


def test_changing_the_input_is_noticed(capsys):
    def greedy(ids):
        pairs = checks.find("3.1").reference(ids)
        ids.clear()
        return pairs
    assert "changed its input" in said(capsys, "3.1", greedy)


def solution_of(path):
    return ROOT / "notebooks" / "solutions" / path.name


@pytest.mark.parametrize("path", [path for path in CHAPTERS if path.stem[:2] != "00"], ids=lambda path: path.stem)
def test_cards_stubs_and_answers_belong_together(path):
    """3 to 5 cards a chapter, each with minutes and difficulty, a stub, a hint, and two answers that pass."""
    chapter = int(path.stem[:2])
    numbers = [number for number in NUMBERS if number.startswith(f"{chapter}.")]
    assert 3 <= len(numbers) <= 5
    page, answers = ({cell["id"]: cell for cell in cells(p)} for p in (path, solution_of(path)))
    for number in numbers:
        name = number.replace(".", "-")
        card = page[f"exercise-{name}"]["source"]
        assert re.match(rf"### Exercise {re.escape(number)} · .+ · \d+ min · (●○○|●●○|●●●)\n", card), number
        stub = page[f"stub-{name}"]
        assert f'check("{number}", ' in stub["source"]
        assert "".join(stub["outputs"][0]["text"]) == f"{number} not attempted yet\n"
        assert "<details>" in page[f"hint-{name}"]["source"]
        for kind in ("answer", "second"):
            assert f"{number} ✓ " in "".join(
                "".join(out.get("text", "")) for out in answers[f"{kind}-{name}"]["outputs"]
            )
        assert answers[f"answer-{name}"]["source"] != answers[f"second-{name}"]["source"]
