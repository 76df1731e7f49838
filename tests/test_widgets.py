"""Every explorer, driven from Python with what a learner may choose or type: it answers, and leaves nothing behind."""

import time

import ipywidgets
import pytest

from utils import widgets


def words(text, n):
    """As a page's byte-pair encoding: the more merges, the longer the pieces."""
    return [text[i : i + n + 1] for i in range(0, len(text), n + 1)]


class Bytes:
    """As tiktoken's encoding, with a token for each byte."""

    def encode_ordinary(self, text):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


EXPLORERS = {
    "softmax_scale": widgets.softmax_scale, "masks": widgets.masks, "normalization": widgets.normalization,
    "tokenizers": lambda: widgets.tokenizers(words, 9, Bytes()), "next_character": widgets.next_character,
    "attention_heads": widgets.attention_heads, "training_steps": widgets.training_steps,
    "sampling": widgets.sampling,
}
HOSTILE = ["", " ", "\n", "x", "ï", "naïve 漢字 🙂", "$x^2$ \\frac", "<b>&amp;</b> <|endoftext|>", "\t\0\x07", "O " * 5000, "ï" * 5000]
everyone = pytest.mark.parametrize("name", EXPLORERS)


def alive():
    """How many widgets there are in this process."""
    module = ipywidgets.widgets.widget
    return len(module._instances if hasattr(module, "_instances") else ipywidgets.Widget.widgets)   # ipywidgets 8 and 7


@everyone
def test_it_opens_with_a_picture_and_a_sentence_for_a_page_that_is_not_run(name):
    started = time.perf_counter()
    explorer = EXPLORERS[name]()
    assert time.perf_counter() - started < 5   # 1 on a quiet machine
    assert explorer.picture.value.startswith("<img") and " alt=" in explorer.picture.value
    assert "Run this cell" in explorer._repr_mimebundle_()["text/plain"]


def extremes(control):
    if hasattr(control, "options"):
        return [control.options[0], control.options[-1]]
    return [control.min, control.max] if hasattr(control, "min") else HOSTILE


@everyone
def test_each_extreme_gives_a_picture_or_says_why_not(name):
    explorer = EXPLORERS[name]()
    for control in explorer.controls.values():
        usual = control.value
        for value in extremes(control):
            control.value = value
            drawn, said = explorer.picture.value, explorer.words.value
            assert drawn.startswith("<img") or said, (control.description, value)
            assert "cannot be drawn" not in said, (control.description, value, said)
        control.value = usual
    assert explorer.picture.value.startswith("<img")


@everyone
def test_unknown_and_too_many_characters_are_named(name):
    explorer = EXPLORERS[name]()
    text = explorer.controls.get("text")
    if text is None or name == "masks":   # no text, or one that no model reads
        return
    text.value = "naïve" + " and so on" * 30
    assert "Only the last" in explorer.words.value and explorer.picture.value
    text.value = "naïve"
    assert "ï" in explorer.words.value and "<img" in explorer.picture.value


@everyone
def test_a_thousand_changes_leave_nothing_behind(name, monkeypatch):
    explorer = EXPLORERS[name]()
    before, pictures = alive(), []
    monkeypatch.setattr(widgets.plots, "taken", lambda draw, **values: pictures.append(values) or ("", (b"", "")))   # 200 ms each
    control = next(control for control in explorer.controls.values() if not isinstance(control, ipywidgets.Text))
    low, high = extremes(control)
    for i in range(1000):
        control.value = (high, low)[i % 2]
    assert len(pictures) >= 999 and alive() == before and len(explorer.children) == len(explorer.controls) + 2
