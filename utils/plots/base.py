"""The palette, how a picture is shown and stored, and what many pictures are made of: levels, boxes of tokens, tensors."""

import io
import itertools
import math
import warnings
from contextvars import ContextVar

import matplotlib
import torch
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure  # without pyplot: no global state, nothing to close
from matplotlib.patches import Polygon, Rectangle
from matplotlib.patheffects import withStroke

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442"
INK, GREY, PALE = "#222222", "#8A8A8A", "#EEEEEE"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
WEIGHTS = LinearSegmentedColormap.from_list("weights", ["#FFFFFF", SKY, BLUE, "#00243B"])   # 0 is white, dark is much
TINTS = ("#CFE6F5", "#FBE3B0", "#BFE5D8", "#F3D3E2")   # the pale ones, under dark letters; the first is the usual one
FORBIDDEN = {"facecolor": PALE, "edgecolor": "#BBBBBB", "hatch": "//", "lw": 0}   # a cell that is no zero: nobody may look at it
SIGNED = LinearSegmentedColormap.from_list("signed", [RED, "#FFFFFF", BLUE])

matplotlib.rcParams.update({
    "font.size": 13, "axes.titlesize": 15, "axes.titleweight": "bold", "axes.labelsize": 13,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GREY, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "white", "lines.linewidth": 2.5,
    "text.parse_math": False,   # a learner's text may have a $
})
warnings.filterwarnings("ignore", "Glyph .* missing from")   # the font has no such character: an empty box says it


TAKEN = ContextVar("taken", default=None)   # while an explorer draws: the list that takes the picture


def show(fig, alt):
    """Show a figure and store ``alt`` with it, for screen readers and for pages without pictures."""
    png, explored = io.BytesIO(), TAKEN.get()
    if explored is not None:   # drawn once, not three times, and always in one size: 100 ms less at every move
        FigureCanvasAgg(fig).print_png(png)
        explored.append((png.getvalue(), alt))
        return
    fig.savefig(png, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
    bundle = {"image/png": png.getvalue(), "text/plain": f"[figure] {alt}"}
    display(bundle, metadata={"image/png": {"alt": alt}}, raw=True)


def taken(draw, *args, **options):
    """What ``draw`` returns, and the last picture it would show, as (png, alt): an explorer puts it in place of the one before."""
    pictures = []
    token = TAKEN.set(pictures)
    try:
        return draw(*args, **options), pictures[-1]
    finally:
        TAKEN.reset(token)


def visible(text):
    """Characters as they can be seen in a picture: ␣ for a space, ↵ for a new line."""
    return text.replace(" ", "␣").replace("\n", "↵")


def tick(label):
    """A label beside an axis: characters and tokens made visible, ordinary words as they are."""
    text = str(label)
    return visible(text) if len(text) == 1 or text.strip() != text or "\n" in text else text


def new(width=9, height=4, columns=1, **options):
    """A figure and its axes (one, or a list of several side by side)."""
    fig = Figure(figsize=(width, height), layout="constrained")
    return fig, fig.subplots(1, columns, **options)


def power_of_ten(number):
    """0.01, 1 and 100 as they are, 10⁻⁸ as a power."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return f"{number:,g}" if 1e-4 < number < 1e7 else "10" + f"{math.log10(number):.0f}".translate(raised)


def draw_rows(ax, names):
    """One row for each name, with a pale line through it and behind what is drawn there."""
    ax.set_yticks(range(len(names)), list(names))
    ax.grid(axis="y", color=PALE, lw=1.5)
    ax.set_axisbelow(True)


def draw_level(ax, height, name):
    """A dotted line to compare with, its name above the right end; a white rim keeps both legible over bars."""
    rim = [withStroke(linewidth=5, foreground="white")]
    ax.axhline(height, color=INK, lw=2, ls=":", path_effects=rim)
    ax.annotate(
        name, (1, height), (-4, 4), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", path_effects=rim
    )


def draw_tokens(ax, tokens, x, y, colours, widths=None):
    """Tokens in boxes from (x, y) to the right, each one unit wide or as ``widths`` say; a colour of None is a forbidden cell."""
    for token, colour, width in zip(tokens, colours, widths or [1] * len(tokens)):
        look = {"facecolor": colour, "edgecolor": GREY, "lw": 0.8} if colour else FORBIDDEN
        ax.add_patch(Rectangle((x + 0.04, y), width - 0.08, 0.86, **look))
        for i, label in enumerate((token if width > 1 else [token]) if colour else ()):
            ax.text(x + i + 0.5, y + 0.4, visible(str(label)), ha="center", va="center", fontsize=14).set_in_layout(False)
        x += width


DEPTH = (0.5, 0.4)   # one step into the depth of a tensor, to the right and up


def draw_cells(ax, shape, at, colour, marked=None):
    """The cells of ``draw_tensor``: of a block, the faces in front, on top and on the right."""
    *_, rows, columns = shape
    (x0, y0), (dx, dy) = at, DEPTH
    for index in itertools.product(*map(range, shape)):
        *deep, row, column = index
        behind = sum(deep)
        x, y = x0 + column + dx * behind, y0 - row - 1 + dy * behind
        inside = marked is not None and all(m is None or m == i for m, i in zip(marked, index))
        face = torch.tensor(to_rgb(ORANGE if inside else colour))
        top = [(x, y + 1), (x + 1, y + 1), (x + 1 + dx, y + 1 + dy), (x + dx, y + 1 + dy)]
        side = [(x + 1, y), (x + 1 + dx, y + dy), (x + 1 + dx, y + 1 + dy), (x + 1, y + 1)]
        for corners, shade, seen in (
            ([(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)], face, behind == 0),
            (top, 0.5 + face / 2, deep and row == 0), (side, 0.82 * face, deep and column == columns - 1),
        ):
            if seen:
                ax.add_patch(Polygon(corners, facecolor=shade.tolist(), edgecolor="white", lw=0.8))


def name_axes(ax, axes, at):
    """The names of ``draw_tensor``."""
    *_, rows, columns = axes.values()
    *depth, down, right = [f"{letter} = {size}" for letter, size in axes.items()]
    (x, y), look = at, {"textcoords": "offset points", "rotation_mode": "anchor", "fontweight": "bold"}
    ax.annotate(f"{right} →", (x, y - rows), (0, -6), va="top", **look)
    ax.annotate(f"← {down}", (x, y - rows), (-6, 0), va="bottom", rotation=90, **look)
    for name in depth:
        slope = math.degrees(math.atan2(*DEPTH[::-1]))
        ax.annotate(f"{name} →", (x + columns, y - rows), (6, -6), va="top", rotation=slope, **look)


def draw_tensor(ax, axes, at=(0, 0), colour=TINTS[0], marked=None):
    """A tensor as cells with its axes named: the last one goes right, the one before it down, a third into the depth.

    ``axes`` is {letter: size}, ``at`` the upper left corner of the front. The cells at
    ``marked``, an index in which None takes the whole axis, are orange.
    """
    draw_cells(ax, axes.values(), at, colour, marked)
    name_axes(ax, axes, at)


def draw_cube(ax, title, group, sizes):
    """Draw a (B, T, C) tensor into ``ax`` with the numbers of ``group`` (b, t, c) in orange; None takes the whole axis."""
    draw_tensor(ax, dict(zip("BTC", sizes)), marked=group)
    ax.autoscale_view()
    ax.set(aspect="equal", title=title)
    ax.axis("off")
