"""The visual language: what every picture of the course must have, whatever it shows."""

import importlib
import inspect
import pkgutil
import re

import matplotlib
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from tests.notebooks import ALL, cells
from utils import plots
from utils.data import ROOT

MODULES = [plots, *(importlib.import_module(f"{plots.__name__}.{module.name}") for module in pkgutil.iter_modules(plots.__path__))]
FUNCTIONS = [   # (name, function) of all that the package defines
    (name, thing) for module in MODULES for name, thing in inspect.getmembers(module, inspect.isfunction)
    if thing.__module__ == module.__name__
]
T, LETTERS = 4, "tea "
CAUSAL = torch.ones(T, T).tril()
WEIGHTS, FUTURE = CAUSAL / CAUSAL.sum(1, keepdim=True), CAUSAL == 0
SAYS = "Eight words that say what is to be seen."
LOOKS = [{"step": 100 * i, "train": 3 - 0.3 * i, "val": 3 - 0.2 * i} for i in range(1, 6)]
CHARS, CHANCES = "abcdefghijklmnopqrst", torch.arange(20.0).softmax(dim=0)
AXES = ("a title", "x", "y")
PICTURES = {   # each function that shows a picture, as the pages call it
    "against_base": lambda: plots.against_base({"one": {"base": [2, 2.1], "new": [1.9, 1.8]}, "two": {"base": [2], "new": [1.9]}}, SAYS),
    "attention": lambda: plots.matrices(
        [plots.attention(WEIGHTS, f"head {h}", LETTERS, FUTURE, numbers="{:.2f}") for h in range(4)], SAYS, columns=2
    ),
    "bands": lambda: plots.bands({"one": ([1, 10], [[3, 3.2], [2, 2.1]]), "two": ([1, 10], [[4], [3]])}, *AXES, SAYS, [(2.5, "even")]),
    "answer_map": lambda: plots.answer_map({"one": (torch.eye(9) > 0, 99)}, SAYS, trained=30),
    "bars": lambda: plots.bars("a\n ", [3, 2, 1], *AXES, SAYS, highlight=[1], line=(1.5, "even"), numbers="{:.0f}"),
    "batch_windows": lambda: plots.batch_windows(torch.zeros(60, dtype=torch.long), torch.tensor([4, 30]), 8, lambda ids: "a" * len(ids)),
    "cache": lambda: plots.cache("tea "),
    "choices": lambda: plots.choices(CHARS, CHANCES, top_k=5),
    "communicate_compute": lambda: plots.communicate_compute("hear me "),
    "contexts": lambda: plots.contexts("First Cit"),
    "cubes": lambda: plots.cubes({"one": (None, None, 5), "two": (0, 1, None)}, (3, 5, 6), SAYS),
    "curve": lambda: plots.curve(LOOKS, levels=[(2.5, "before")]),
    "dots": lambda: plots.dots(["one", "two"], [2.4, 2.3], "a title", SAYS, highlight=["two"]),
    "durations": lambda: plots.durations({"bigram": 13, "GPT-3, one GPU": 1e10}, "a title"),
    "encoder_decoder": lambda: plots.encoder_decoder(),
    "graph": lambda: plots.graph(CAUSAL, LETTERS, "a title", SAYS, listener=2),
    "heads_joined": lambda: plots.heads_joined(4, 8, 6),
    "ladder": lambda: plots.ladder("11", 1.8),
    "lines": lambda: plots.lines(
        {"one": ([1, 10, 100], [1e-8, 1e-4, 1]), "two": ([1, 10, 100], [1, 1, 1])}, *AXES, SAYS, xscale="log", yscale="log"
    ),
    "growth": lambda: plots.growth({
        what: {"values": (4, 8, 16), "ms": [10.0, 21.0, 44.5], "megabytes": [30, 50, 120], "exponents": {"ms": 1.07, "megabytes": 0.9}}
        for what in ("T", "C", "layers", "batch")
    }),
    "listening": lambda: plots.listening(WEIGHTS, LETTERS, 2, "a title", SAYS),
    "masked_targets": lambda: plots.masked_targets("3+4=70", 4),
    "matrices": lambda: plots.matrices(
        [{"matrix": WEIGHTS, "title": "a title", "xlabel": "x", "ylabel": "y", "cmap": plots.SIGNED}] * 2, SAYS, signs="="
    ),
    "next_characters": lambda: plots.next_characters(torch.arange(8), {"one": CHANCES.expand(8, -1)}, CHARS, 0, SAYS),
    "normalized": lambda: plots.normalized(torch.randn(2, 3, 4), (0, 1, None), "a title", SAYS),
    "overlapping": lambda: plots.overlapping("First Citizen:\nBefo", 12, hidden=4),
    "play_layout": lambda: plots.play_layout("First Citizen:\nBefore we proceed.\n\nAll:\nSpeak.\n"),
    "product": lambda: plots.product(WEIGHTS, torch.randn(T, 2), ("a", "b", "c"), SAYS, rows=range(2), mask=FUTURE, tokens=LETTERS),
    "sharpening": lambda: plots.sharpening(torch.randn(8), "a title", SAYS),
    "sizes": lambda: plots.sizes({"small": (465_000, 1e6), "large": (175e9, 300e9)}),
    "skeleton": lambda: plots.skeleton("09"),
    "shares": lambda: plots.shares(
        {"before": {"formed": 0.1, "right": 0.0}, "after": {"formed": 0.9, "right": 1.0}}, "a title", SAYS,
        stored={"after": {"formed": [0.8, 0.95]}},
    ),
    "split_strip": lambda: plots.split_strip(1_003_854, 111_540),
    "spread": lambda: plots.spread({"one": [2.1, 2.2], "two": [2.3, 2.4]}, "a title", SAYS),
    "stacked": lambda: plots.stacked(4),
    "sticks": lambda: plots.sticks([("a ", "ab", [0.3, 0.7], 0.4), ("b", "ab", [0.99, 0.01], 0.995)], "a title", SAYS),
    "text_to_batch": lambda: plots.text_to_batch("First Citizen:\nBefore we", torch.arange(24), (2, 9, 14), 8),
    "three_stages": lambda: plots.three_stages(),
    "timeline": lambda: plots.timeline({"ROMEO": [10, 500], "JULIET": [600]}, 1000, (900, "the last tenth"), "a title"),
    "token_rows": lambda: plots.token_rows([("start", list("she"), None), ("merge", ["sh", "e"], "sh")], "a title", SAYS),
    "training_shot": lambda: plots.training_shot(
        {"looks": LOOKS, "step": 500, "sample": "ROMEO:\nO me", "attention": WEIGHTS[None, None]}, LETTERS, 0, 0, 500, SAYS
    ),
    "trade": lambda: plots.trade({"one": [(1, 2), (1.1, 2.1)], "two": [(2, 1)]}, *AXES, SAYS, path=("one", "two")),
    "trade_off": lambda: plots.trade_off(((65, 1024, 8192), (10**6, 5 * 10**5, 3 * 10**5)), {"bytes": (256, 10**6, "above")}, SAYS),
}


def drawn(name, monkeypatch):
    """The figure, laid out, and its words."""
    shown = []
    for module in MODULES:   # each has imported its own
        monkeypatch.setattr(module, "show", lambda fig, alt: shown.append((fig, alt)))
    PICTURES[name]()
    (fig, alt), = shown
    FigureCanvasAgg(fig).draw()
    return fig, alt


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_title_labels_and_words_in_legible_type(name, monkeypatch):
    fig, alt = drawn(name, monkeypatch)
    assert len(alt.split()) >= 8
    assert any(ax.get_title() for ax in fig.axes)
    for ax in fig.axes:
        if ax.axison:
            assert ax.get_title() and ax.get_xlabel(), "an axis without its name"
            # names beside the axis, as of bars that lie, need no name above them; so does the second of a pair
            named = [label.get_text() for label in ax.get_yticklabels() if label.get_text()]
            assert ax.get_ylabel() or not named or not all(re.fullmatch(r"[-−.\d]+", label) for label in named) or ax is not fig.axes[0]
    for text in fig.findobj(Text):
        assert not text.get_text() or text.get_fontsize() >= 11, text.get_text()
        assert "$" not in text.get_text(), "a formula that nobody sets"


@pytest.mark.parametrize("name", PICTURES)
def test_no_words_lie_on_other_words(name, monkeypatch):
    fig, _ = drawn(name, monkeypatch)
    off = {text for ax in fig.axes if not ax.axison for axis in (ax.xaxis, ax.yaxis) for text in axis.findobj(Text)}
    seen = [
        text for text in fig.findobj(Text)
        if text not in off and text.get_visible() and text.get_text().strip() and text.get_rotation() in (0, 90)
    ]
    inside = [(text.get_text(), text.get_window_extent()) for text in seen]
    for i, (one, box) in enumerate(inside):
        for other, box_2 in inside[:i]:
            wide = min(box.x1, box_2.x1) - max(box.x0, box_2.x0)
            high = min(box.y1, box_2.y1) - max(box.y0, box_2.y0)
            assert wide < 2 or high < 2, f"{one!r} and {other!r}"


def test_the_package_gives_every_function_of_its_modules():
    assert [name for name, thing in FUNCTIONS if getattr(plots, name, None) is not thing] == []


def test_every_picture_function_is_drawn_here_and_used():
    showing = {
        name for name, thing in FUNCTIONS if re.search(r"\b(show|matrices|lines)\(", inspect.getsource(thing)) and name != "show"
    }
    assert showing <= set(PICTURES)
    pages = "".join(cell["source"] for path in ALL for cell in cells(path, "code"))
    sources = (*(ROOT / "utils").glob("*.py"), *(ROOT / "utils" / "plots").glob("*.py"))
    modules = "".join(path.read_text(encoding="utf-8") for path in (*sources, ROOT / "tests" / "bench.py"))
    for name, _ in FUNCTIONS:
        used = len(re.findall(rf"\b{name}\(", modules)) - modules.count(f"def {name}(")
        assert f"plots.{name}(" in pages or used, f"{name} is used nowhere"


def grey(colour):
    """How light a colour is, printed without colour: from 0 to 1."""
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_colours_can_be_told_apart_in_grey():
    assert abs(grey(plots.BLUE) - grey(plots.ORANGE)) > 0.25           # what is there, what is new
    assert all(grey(tint) - grey(plots.ORANGE) > 0.2 for tint in plots.TINTS)
    assert all(grey(tint) - grey(plots.INK) > 0.6 for tint in (*plots.TINTS, plots.ORANGE, plots.PALE)[:4])
    steps = [grey(plots.WEIGHTS(i / 10)) for i in range(11)]
    assert steps == sorted(steps, reverse=True), "more weight must be darker"


def test_a_forbidden_cell_is_no_zero():
    fig = plots.Figure()
    ax = fig.add_subplot()
    plots.draw_matrix(ax, WEIGHTS * 0, "", mask=FUTURE)
    ground, = (patch for patch in ax.patches if patch.get_hatch())   # it shows through where no cell is painted
    assert (ax.images[0].get_array().mask == FUTURE.numpy()).all()
    assert to_rgb(ground.get_facecolor()) != plots.WEIGHTS(0.0)[:3]
    assert matplotlib.rcParams["figure.facecolor"] == "white"   # a ground of its own: legible in a dark theme too
