"""Every picture of the course, drawn one way.

One palette (Okabe and Ito's, safe for colour blindness), one type size that reads from the
back of a room, rows are queries and columns are keys, forbidden cells are hatched and never
look like a zero. Each function draws, shows and stores its picture with ``alt``: a sentence
that says what is to be seen.
"""

import io
import itertools
import json
import math
import warnings
from contextvars import ContextVar

import matplotlib
import torch
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure  # without pyplot: no global state, nothing to close
from matplotlib.patches import Circle, Ellipse, FancyBboxPatch, Polygon, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator

from utils.sample import next_probs
from utils.train import LADDER

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


def draw_level(ax, height, name):
    """A dotted line to compare with, its name above the right end; a white rim keeps both legible over bars."""
    rim = [withStroke(linewidth=5, foreground="white")]
    ax.axhline(height, color=INK, lw=2, ls=":", path_effects=rim)
    ax.annotate(
        name, (1, height), (-4, 4), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", path_effects=rim
    )


def draw_matrix(
    ax, matrix, title, rows=None, columns=None, xlabel="", ylabel="", mask=None, numbers=None, cmap=WEIGHTS, limits=None,
    frame=None,
):
    """Draw a (rows, columns) tensor into ``ax``. Cells where ``mask`` is True are forbidden: grey and crossed out.

    ``numbers`` is a format like "{:.2f}" to write into the cells, ``limits`` the values of
    the palest and darkest colour, ``frame`` the first and last of the rows to put a frame around.
    """
    matrix = torch.as_tensor(matrix).detach().float()
    low, high = limits or (matrix[matrix.isfinite()].min().item(), matrix[matrix.isfinite()].max().item())
    cells = matrix.nan_to_num(neginf=low)
    if mask is not None:   # the hatching lies under all cells and shows through the forbidden ones: many patches would be slow
        cells = cells.masked_fill(torch.as_tensor(mask).bool(), math.nan)
        ax.add_patch(Rectangle((-0.5, -0.5), matrix.shape[1], matrix.shape[0], **FORBIDDEN, zorder=-1))
    ax.imshow(cells.numpy(), cmap=cmap, vmin=low, vmax=max(high, low + 1e-9), aspect="equal")
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            if numbers is not None and not cells[i, j].isnan():
                red, green, blue, _ = cmap((matrix[i, j].item() - low) / max(high - low, 1e-9))
                dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
                number = ax.text(j, i, numbers.format(matrix[i, j].item()), ha="center", va="center", fontsize=11)
                number.set(color="white" if dark else INK, in_layout=False)   # it lies inside, so the layout need not measure it
    if frame is not None:
        first, last = frame
        ax.add_patch(Rectangle(
            (-0.5, first - 0.5), matrix.shape[1], last - first + 1, fill=False, edgecolor=ORANGE, lw=4, clip_on=False,
        ))
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    for axis, labels, count in ((ax.xaxis, columns, matrix.shape[1]), (ax.yaxis, rows, matrix.shape[0])):
        if labels is not None:
            axis.set_ticks(range(count), [tick(label) for label in labels])
        else:
            axis.set_major_locator(MaxNLocator(integer=True))
        axis.set_tick_params(length=0)
    ax.spines[:].set_visible(False)


def matrices(panels, alt, width=None, height=4.2, columns=None, signs=()):
    """Several matrices, ``columns`` of them in a row; each panel is a dict of ``draw_matrix``'s arguments.

    ``signs`` stand between the matrices of a row, as in a product.
    """
    columns = columns or len(panels)
    rows = -(-len(panels) // columns)
    fig = Figure(figsize=(width or 4.2 * columns, height * rows), layout="constrained")
    fig.get_layout_engine().set(h_pad=0.15)
    shares = [len(panel["matrix"][0]) for panel in panels[:columns]]
    shares = [share for pair in zip(shares, [0.6] * columns) for share in pair][:-1] if signs else [1] * columns
    grid = fig.subplots(rows, len(shares), squeeze=False, width_ratios=shares)
    for ax, panel in zip(grid[:, :: 2 if signs else 1].flat, panels):
        draw_matrix(ax, **panel)
    for line in grid[:, 1::2] if signs else ():
        for ax, sign in zip(line, signs):
            ax.axis("off")
            ax.text(0.5, 0.5, sign, ha="center", va="center", fontsize=20)
    show(fig, alt)


def attention(weights, title, tokens=None, mask=None, **look):
    """A panel of ``matrices`` that shows attention: rows listen, columns are heard, white is 0 and the darkest is 1."""
    names = {"rows": tokens, "columns": tokens, "xlabel": "is heard (key)", "ylabel": "listens (query)"}
    return {"matrix": weights, "title": title, "mask": mask, "limits": (0, 1), **names, **look}


def bars(labels, values, title, xlabel, ylabel, alt, highlight=(), line=None, numbers=None, width=10, height=4):
    """Bars, some of them in a second colour; ``line`` is (height, what it means), ``numbers`` a format to write above them."""
    fig, ax = new(width, height)
    drawn = ax.bar(range(len(values)), values, color=[ORANGE if i in highlight else BLUE for i in range(len(values))])
    ax.set_xticks(range(len(labels)), [tick(label) for label in labels])
    if line:
        draw_level(ax, *line)
    if numbers:
        ax.bar_label(drawn, fmt=numbers, padding=3)
        ax.margins(y=0.12)   # room for them
    if all(isinstance(value, int) for value in values):
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    show(fig, alt)


def lines(
    curves, title, xlabel, ylabel, alt, levels=(), best=None, xscale="linear", yscale="linear", marker="", width=9, height=4.5
):
    """Curves {name: (xs, ys)}, each with its own colour and line style; ``levels`` are (height, name) to compare with.

    ``best`` is (x, y, name) of a point to mark.
    """
    fig, ax = new(width, height)
    for (name, (xs, ys)), colour, style in zip(curves.items(), COLOURS * 2, ("-", "--", "-.", ":") * 3):
        ax.plot(xs, ys, style, color=colour, label=name, marker=marker)
    if best:
        ax.plot(*best[:2], "o", color=RED, ms=10, label=best[2])
    for level in levels:
        draw_level(ax, *level)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
    if all(isinstance(x, int) for xs, _ in curves.values() for x in xs):   # no mark at step 2.5
        ax.xaxis.set_major_locator(MaxNLocator("auto", steps=(1, 2, 2.5, 5, 10), integer=True))
    measured = sorted({x for xs, _ in curves.values() for x in xs})
    if xscale == "log" and len(measured) < 20:   # name the points that were measured, not the powers of ten
        ax.set_xticks(measured, [f"{x:,}" for x in measured], minor=False)
        ax.minorticks_off()
    elif xscale == "log":
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    if yscale == "log":
        ax.yaxis.set_major_formatter(lambda y, _: power_of_ten(y))
        ax.yaxis.set_minor_locator(NullLocator())
    if len(curves) > 1:
        ax.legend(frameon=False)
    show(fig, alt)


def curve(history, title="Loss while training", levels=()):
    """Train and validation loss over the steps, with the best look marked."""
    best = min(history, key=lambda look: look["val"])
    steps = [look["step"] for look in history]
    lines(
        {"train": (steps, [look["train"] for look in history]), "validation": (steps, [look["val"] for look in history])},
        title, "step", "loss (nats per character)", levels=levels, best=(best["step"], best["val"], "best validation"),
        alt=f"The training loss (a full line) and the validation loss (a dashed line) at {len(steps)} looks in {steps[-1]} steps; "
            "a red point marks the lowest validation loss.",
    )


def ladder(chapter, val_loss):
    """The validation losses so far: earlier chapters as stored, this chapter's own number highlighted."""
    rungs = {key: dict(rung) for key, rung in json.loads(LADDER.read_text()).items() if key <= chapter}
    rungs[chapter]["val"] = val_loss
    known = [(f"{key} · {rung['name']}", rung["val"]) for key, rung in rungs.items() if rung["val"] is not None]
    names, losses = ["guessing"] + [name for name, _ in known], [math.log(65)] + [loss for _, loss in known]
    fig, ax = new(9, 1.2 + 0.5 * len(names))
    ax.barh(range(len(names)), losses, color=[GREY] + [BLUE] * (len(known) - 1) + [ORANGE], height=0.65)
    for i, loss in enumerate(losses):
        ax.text(loss + 0.04, i, f"{loss:.2f}", va="center")
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(title="The ladder so far", xlabel="validation loss (nats per character), less is better", xlim=(0, 4.6))
    show(fig, "Bars of the validation loss, from above: " + ", ".join(names) + ". The longest is guessing at random; "
              "the last one, orange, is this chapter.")


PARTS = (   # (name, the chapter that builds it), from ids at the bottom to logits at the top
    ("token and position embedding", "06"),
    ("layer norm", "10"), ("attention", "06"), ("projection", "09"), ("dropout", "11"), ("+", "09"),
    ("layer norm", "10"), ("feed-forward", "08"), ("dropout", "11"), ("+", "09"),
    ("last layer norm", "10"), ("lm_head", "06"),
)
GROWS = {("07", "attention"), ("09", "feed-forward"), ("11", "attention")}   # parts that grow in a later chapter
LOOKS = {   # face, edge, text
    "new here": (ORANGE, INK, INK), "built before": (TINTS[0], BLUE, INK), "still to come": ("white", "#BBBBBB", "#767676"),
}


def skeleton(chapter):
    """The model as a column of parts: new in this chapter, built before, or still to come."""
    fig, ax = new(9, 7.6)
    ax.set(xlim=(-0.2, 13), ylim=(-1, 14.6), title="The model, and what this chapter adds")
    ax.axis("off")
    up = {"arrowstyle": "-|>", "color": GREY}
    height, leaves, added = 0.0, 0.0, []   # leaves: where the next residual path does
    ax.text(4, -0.6, "idx (B, T)", ha="center", va="center")
    for name, born in PARTS:
        new_here = born == chapter or (chapter, name) in GROWS
        how = "new here" if new_here else "built before" if born < chapter else "still to come"
        added += ["residual sums" if name == "+" else name] * new_here
        face, edge, colour = LOOKS[how]
        style = {"facecolor": face, "edgecolor": edge, "lw": 2.5 if new_here else 1.5, "ls": "--" if how == "still to come" else "-"}
        ax.annotate("", (4, height), (4, height - 0.4), arrowprops=up)
        if name == "+":
            ax.add_patch(Ellipse((4, height + 0.35), 0.62, 0.7, **style))
            ax.text(4, height + 0.32, "+", ha="center", va="center", fontsize=16, color=colour)
            path = {"color": edge, "lw": 4 if new_here else 1.5}
            ax.plot([4, 7.7, 7.7], [leaves, leaves, height + 0.35], ls=style["ls"], **path)
            ax.annotate("", (4.4, height + 0.35), (7.7, height + 0.35), arrowprops={"arrowstyle": "-|>", **path})
        else:
            ax.add_patch(FancyBboxPatch((0.8, height), 6.4, 0.7, boxstyle="round,pad=0.05", **style))
            ax.text(4, height + 0.33, name, ha="center", va="center", color=colour, fontweight="bold" if new_here else "normal")
        height += 1.12
        if name == "token and position embedding":
            ax.add_patch(Rectangle((0.2, height - 0.25), 8.1, 10.45, fill=False, edgecolor=GREY, ls=":", lw=1.5))
            ax.plot([4, 4], [height - 0.4, height], color=GREY, lw=1)
            height += 0.35
        leaves = height - 0.3 if name in ("+", "token and position embedding") else leaves
    ax.annotate("", (4, height), (4, height - 0.4), arrowprops=up)
    ax.text(4, height + 0.3, "logits (B, T, V)", ha="center", va="center")
    ax.text(8.5, 5.9, "body: one block" if chapter < "09" else "body: several\nblocks in a row", va="center")
    for i, (how, (face, edge, _)) in enumerate(LOOKS.items()):
        dashes = "--" if how == "still to come" else "-"
        ax.add_patch(Rectangle((9.2, 13 - 0.9 * i), 0.7, 0.5, facecolor=face, edgecolor=edge, lw=2, ls=dashes))
        ax.text(10.2, 13.25 - 0.9 * i, how, va="center")
    show(fig, "The model as a column of parts, from ids at the bottom to logits at the top. Orange, new in chapter "
              f"{chapter}: {', '.join(dict.fromkeys(added)) or 'nothing, all parts are there'}.")


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


def contexts(chunk):
    """Chapter 03: the T questions in T + 1 characters, one a row."""
    T = len(chunk) - 1
    fig, ax = new(9, 0.55 * T + 1)
    for t in range(T):
        draw_tokens(ax, chunk, 0, T - 1 - t, [TINTS[0]] * (t + 1) + [ORANGE] + [None] * (T - t - 1))
        ax.text(-0.3, T - 1 - t + 0.4, f"t = {t}", ha="right", va="center")
    ax.set(xlim=(-1.6, T + 1.2), ylim=(-0.2, T + 0.1), title="Every position asks its own question")
    ax.axis("off")
    show(fig, f"{T} rows. In row t the first t + 1 characters are the context, the next one is the target, the rest is hidden.")


def text_to_batch(text, ids, starts, T):
    """Chapter 03: the beginning of a text, its ids, chunks of T ids, and the chunks as rows of a batch (B, T)."""
    ids, B = ids.tolist(), len(starts)
    fig, ax = new(12, 0.5 * (2 * B + 5))
    top = 2 * B + 3.6
    for y, name, row in ((top, "text", text), (top - 1.3, "ids", ids)):
        ax.text(-0.4, y + 0.43, name, ha="right", va="center", fontweight="bold")
        draw_tokens(ax, row, 0, y, ["white"] * len(row))
    for i in range(len(ids)):
        ax.annotate("", (i + 0.5, top - 0.44), (i + 0.5, top), arrowprops={"arrowstyle": "-|>", "color": GREY})
    left = (len(ids) - T) / 2   # of the batch
    for b, start in enumerate(starts):
        y, chunk = top - 2.7 - b, ids[start : start + T]
        draw_tokens(ax, chunk, start, y, [TINTS[b]] * T)
        ax.text(start - 0.2, y + 0.43, f"from {start}", ha="right", va="center")
        draw_tokens(ax, chunk, left, B - b - 0.9, [TINTS[b]] * T)
    ax.text(-0.4, top - 1.77 - B / 2, "chunks", ha="right", va="center", fontweight="bold")
    ax.text(-0.4, B / 2, "batch", ha="right", va="center", fontweight="bold")
    ax.annotate("", (left + T / 2, B + 0.1), (left + T / 2, B + 1.8), arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 2})
    name_axes(ax, {"B": B, "T": T}, (left, B))
    ax.set(xlim=(-2, len(ids) + 0.1), ylim=(-1, top + 1), title="From text to a batch")
    ax.axis("off")
    show(fig, f"Four steps from above: {len(ids)} characters in boxes; under each its id; {B} chunks of {T} ids, from different "
              f"places; and the same chunks as the {B} rows of one tensor.")


def batch_windows(ids, starts, T, decode):
    """Chapter 03: windows of the text become the rows of x, and one step later the rows of y."""
    B = len(starts)
    fig, ax = new(11, 5)
    for b, start in enumerate(starts.tolist()):
        y, colours = B - 1 - b, [TINTS[b % 4]] * T
        around = decode(ids[start - 2 : start + T + 3].tolist())
        draw_tokens(ax, around, 0, y, ["white"] * 2 + colours + ["white"] * 3)
        ax.text(-0.3, y + 0.4, f"… from {start:,}", ha="right", va="center", fontsize=11)
        draw_tokens(ax, around[2:-3], T + 7, y, colours)
        draw_tokens(ax, around[3:-2], 2 * T + 9, y, colours)
    for left, name in ((2, "the text"), (T + 7, "x"), (2 * T + 9, "y")):
        ax.text(left + T / 2, B + 0.2, name, ha="center", fontweight="bold")
    for left in (T + 7, 2 * T + 9):
        name_axes(ax, {"B": B, "T": T}, (left, B))
    ax.set(xlim=(-4.2, 3 * T + 9.2), ylim=(-1, B + 1), title="Windows of the text become rows of a batch", aspect="equal")
    ax.axis("off")
    show(fig, f"{B} windows of {T} characters, from random places in the text, become the rows of x. "
              "The rows of y are the same windows moved one character to the right.")


def product(weights, values, names, alt, rows=(None,), mask=None, tokens=None, channels=None, numbers="{:.2f}", width=9, height=2.9):
    """Chapter 05: weights (T, T) @ values (T, C) = result (T, C), drawn once for each of ``rows``.

    That row is framed on both sides, and so are the values it uses. ``names`` are the
    titles of the three matrices, ``tokens`` and ``channels`` the labels of rows and columns.
    """
    weights, values = torch.as_tensor(weights).detach().float(), torch.as_tensor(values).detach().float()
    result = weights @ values   # (T, T) @ (T, C) → (T, C)
    T, C = values.shape
    tokens, channels = tokens or range(T), channels or range(C)
    most = max(values.abs().max().item(), result.abs().max().item())
    look = {"cmap": SIGNED, "limits": (-most, most)} if values.min() < 0 else {"limits": (0, most)}
    look |= {"rows": tokens, "columns": channels, "xlabel": "channel", "numbers": numbers}
    panels = []
    for row in rows:
        used = weights[row].nonzero().flatten() if row is not None else None
        framed, uses = (None, None) if row is None else ((row, row), (used.min().item(), used.max().item()))
        heard = {"rows": tokens, "columns": tokens, "xlabel": "is heard", "ylabel": "listens", "mask": mask, "numbers": numbers}
        panels += [
            {"matrix": weights, "title": names[0], "frame": framed, **heard},
            {"matrix": values, "title": names[1], "frame": uses, **look},
            {"matrix": result, "title": names[2], "frame": framed, **look},
        ]
    matrices(panels, alt, width, height, columns=3, signs="@=")


def graph(hears, labels, title, alt, listener=None):
    """Chapter 06: who hears whom, as nodes with arrows and as a matrix.

    ``hears`` (T, T) is true at [i, j] where node i hears node j: an arrow from j to i, above
    the nodes if j comes first, below if it comes later. The arrows into ``listener`` are orange.
    """
    hears = torch.as_tensor(hears).bool()
    fig, (ax, table) = new(10.5, 4.2, columns=2, width_ratios=(1.9, 1))
    for i, j in hears.nonzero().tolist():
        colour, weight = (ORANGE, 3) if i == listener else (BLUE, 1.2)
        if i == j:
            ax.add_patch(Circle((i, -0.36), 0.2, fill=False, edgecolor=colour, lw=weight))
        else:
            arrow = {"arrowstyle": "-|>", "color": colour, "lw": weight, "shrinkA": 13, "shrinkB": 13, "connectionstyle": "arc3,rad=-0.55"}
            ax.annotate("", (i, 0), (j, 0), arrowprops=arrow, zorder=3 if i == listener else 2).set_in_layout(False)
    for i, label in enumerate(labels):
        face = TINTS[0] if i != listener else TINTS[1]
        ax.add_patch(Circle((i, 0), 0.24, facecolor=face, edgecolor=INK, lw=1.5, zorder=4))
        ax.text(i, -0.02, visible(str(label)), ha="center", va="center", fontsize=14, zorder=5)
    reach = 0.3 * len(labels)
    ax.set(xlim=(-0.6, len(labels) - 0.4), ylim=(-reach if hears.triu(1).any() else -0.8, reach), title=title, aspect="equal")
    ax.axis("off")
    draw_matrix(table, **attention(hears.float(), "the same as a matrix", labels, mask=~hears, limits=(0, 1.5)))
    show(fig, alt)


def heads_joined(n_head, head_size, T):
    """Chapter 07: one input, several heads side by side, their outputs joined along the channels."""
    C = n_head * head_size
    fig, ax = new(10, 7.2)
    top, middle, bottom = 3 * T + 14, 2 * T + 7, T   # the upper edges of the three rows, read from above
    draw_tensor(ax, {"T": T, "C": C}, (0, top), "#DDDDDD")
    for h in range(n_head):
        left, tint = h * (head_size + 3) - 1.5 * (n_head - 1), TINTS[h % 4]
        draw_tensor(ax, {"T": T, "H": head_size}, (left, middle), tint)
        draw_cells(ax, (T, head_size), (h * head_size, bottom), tint)
        for x, y in ((left, middle), (h * head_size, bottom)):
            ax.text(x + head_size / 2, y - T / 2, f"head {h}", ha="center", va="center", fontweight="bold")
        center, joined = left + head_size / 2, h * head_size + head_size / 2
        for start, end in (((joined, top - T), (center, middle)), ((center, middle - T), (joined, bottom))):
            ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.5, "shrinkA": 24, "shrinkB": 4})
    name_axes(ax, {"T": T, f"{n_head}·H": C}, (0, bottom))
    right = C + 1.5 * n_head + 1
    for y, name in ((top, "x, every token,\nto every head"), (middle, "each head,\non its own"), (bottom, "joined by cat")):
        ax.text(right, y - T / 2, name, va="center")
    ax.set(xlim=(-1.5 * n_head - 2, right + 9), ylim=(-3, top + 0.5), title="Heads work side by side, then their outputs are joined")
    ax.axis("off")
    show(fig, f"From above: the same input of {C} channels goes into {n_head} heads. Each gives {head_size} channels for every token. "
              f"Laid side by side they are {C} channels again.")


def communicate_compute(tokens):
    """Chapter 08: arrows between tokens (attention), then for each token a step of its own (feed-forward)."""
    fig, ax = new(10, 5.2)
    for y, colour in ((0, "white"), (2.8, TINTS[0]), (4.8, ORANGE)):
        draw_tokens(ax, tokens, 0, y, [colour] * len(tokens))
    for t in range(len(tokens)):
        for s in range(t + 1):
            ax.annotate("", (t + 0.5, 2.8), (s + 0.5, 0.86), arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 1.2})
        ax.annotate("", (t + 0.5, 4.8), (t + 0.5, 3.66), arrowprops={"arrowstyle": "-|>", "color": RED, "lw": 3})
    right = len(tokens) + 0.3
    ax.text(right, 1.8, "communicate:\nattention, each token hears\nitself and those before", va="center", color=BLUE)
    ax.text(right, 4.2, "compute:\nfeed-forward, each\ntoken on its own", va="center", color=RED)
    ax.set(xlim=(-0.1, right + 3.2), ylim=(-0.2, 5.8), title="Communicate, then compute")
    ax.axis("off")
    show(fig, "Below, arrows go from every token to itself and to the later ones: attention. "
              "Above, one arrow goes straight up from each token: feed-forward, with no arrow between tokens.")


def token_rows(rows, title, alt):
    """Chapter 02: the same text cut in several ways, one row each: (label, its tokens, the new token or None)."""
    longest = max(sum(map(len, tokens)) for _, tokens, _ in rows)
    fig, ax = new(11, 0.55 * len(rows) + 0.9)
    for y, (label, tokens, made) in enumerate(reversed(rows)):
        colours = [ORANGE if token == made else (TINTS[0], TINTS[2])[i % 2] for i, token in enumerate(tokens)]
        draw_tokens(ax, tokens, 0, y, colours, widths=list(map(len, tokens)))
        ax.text(-0.5, y + 0.4, label, ha="right", va="center")
        ax.text(longest + 0.5, y + 0.4, f"{len(tokens)} tokens", va="center")
    ax.set(xlim=(-0.24 * longest, 1.16 * longest), ylim=(-0.2, len(rows)), title=title)
    ax.axis("off")
    show(fig, alt)


def trade_off(curve, points, alt):
    """Chapter 02: tokens in the whole text against vocabulary size; ``points`` is {name: (size, length, label's place)}."""
    fig, ax = new(10, 5)
    ax.plot(*curve, color=BLUE, label="byte-pair encoding, learned from this text")
    for (name, (size, length, place)), colour in zip(points.items(), (ORANGE, GREEN, PURPLE, RED)):
        ax.plot(size, length, "o", color=colour, ms=11)
        ax.annotate(f"{name}\n{size:,} symbols", (size, length), (0, 11 if place == "above" else -11), ha="center",
                    va="bottom" if place == "above" else "top", textcoords="offset points")
    sizes = (65, 256, 1024, 4096, 16384, 65536)
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.set(title="A larger vocabulary makes a shorter text", xlabel="vocabulary size (symbols)", ylabel="tokens in the whole text",
           ylim=(0, 1.35 * max(curve[1])), xlim=(28, 150_000))
    ax.legend(frameon=False, loc="upper right")
    show(fig, alt)


def split_strip(n_train, n_val):
    """Chapter 02: the text as one strip, its first part to learn from, its last part hidden."""
    fig, ax = new(10, 1.9)
    ax.barh(0, n_train, color=TINTS[0], edgecolor=INK)
    ax.barh(0, n_val, left=n_train, color=ORANGE, edgecolor=INK)
    ax.text(n_train / 2, 0, f"train: learn from these {n_train:,}", ha="center", va="center")
    ax.text(n_train + n_val / 2, 0.55, f"validation: {n_val:,}", ha="center", va="bottom")
    ax.set(xlim=(0, 1.04 * (n_train + n_val)), ylim=(-0.5, 1), yticks=[], xlabel="position in the text", title="The split, in order")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.spines["left"].set_visible(False)
    show(fig, f"One strip for the whole text. The first {n_train:,} characters are for training, the last {n_val:,} for validation.")


def overlapping(chunk, size, hidden):
    """Chapter 02: every window of ``size`` characters of a chunk, one a row; window number ``hidden`` is for validation."""
    count = len(chunk) - size + 1
    fig, ax = new(10, 0.45 * count + 1)
    for i in range(count):
        draw_tokens(ax, chunk[i : i + size], i, count - 1 - i, [ORANGE if i == hidden else TINTS[0]] * size)
        ax.text(-0.3, count - 0.6 - i, "validation" if i == hidden else "train", ha="right", va="center")
    ax.set(xlim=(-3.4, len(chunk) + 0.2), ylim=(-0.2, count + 0.1), title="Windows overlap, so a random split hides nothing")
    ax.axis("off")
    show(fig, f"{count} windows of {size} characters, each one character further. One is for validation, "
              "and every character of it stands in the training windows above and below, too.")


def sticks(rows, title, alt):
    """Chapter 00: chances as pieces of a stick of length 1, and where the dart hit.

    Each row is (label, characters, their chances, dart), the dart a number from 0 to 1.
    """
    fig, ax = new(11, 1.1 + 0.62 * len(rows))
    for y, (label, chars, chances, dart) in enumerate(rows):
        start = 0.0
        for ch, chance in zip(chars, chances):
            hit = start <= dart < start + chance
            ax.barh(y, chance, left=start, height=0.62, color=ORANGE if hit else TINTS[0], edgecolor="white", lw=0.8)
            if hit or chance > 0.025:
                ax.text(
                    start + chance / 2, y, visible(ch), ha="center", va="center", fontweight="bold" if hit else "normal"
                )
            start += chance
            if hit:
                ax.text(1.01, y, f"→ {visible(ch)}", va="center", fontweight="bold")
        ax.plot([dart], [y - 0.42], "v", color=RED, ms=9, clip_on=False)
    ax.set_yticks(range(len(rows)), [visible(label) for label, *_ in rows])
    ax.tick_params(axis="y", length=0)
    ax.set(title=title, xlabel="the stick, from 0 to 1: a piece is as long as its character's chance")
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.7))
    ax.spines["left"].set_visible(False)
    show(fig, alt)


def sizes(models):
    """Chapter 00: parameters and training tokens of {name: (parameters, tokens)}, each mark of the axis a thousand times more."""
    fig, axes = new(11, 1.6 + 0.5 * len(models), columns=2, sharey=True)
    for ax, k, colour, title in zip(axes, (0, 1), (BLUE, ORANGE), ("Parameters", "Tokens in the training text")):
        values = [numbers[k] for numbers in models.values()]
        ax.barh(range(len(values)), values, color=colour, height=0.65)
        for i, value in enumerate(values):
            power = max(
                p for p in ((1, ""), (1e3, " thousand"), (1e6, " million"), (1e9, " billion")) if p[0] <= value
            )
            ax.text(value * 1.4, i, f"{value / power[0]:.3g}{power[1]}", va="center")
        ax.set(title=title, xscale="log", xlim=(1e3, 1e15), xlabel="a thousand times more at each mark")
        ax.set_xticks([1e3, 1e6, 1e9, 1e12], ["thousand", "million", "billion", "trillion"])
        ax.minorticks_off()
    axes[0].set_yticks(range(len(models)), list(models))
    axes[0].invert_yaxis()
    show(fig, "Bars of the number of parameters and of training tokens, on an axis where each mark is a thousand times more, for "
              + ", ".join(models) + ": both grow from top to bottom.")


def play_layout(passage):
    """Chapter 01: a passage of a play with every character in a box, coloured by its part in the layout."""
    rows = passage.split("\n")
    tints = {"name": ORANGE, "colon": YELLOW, "speech": TINTS[0], "new line": TINTS[2]}
    fig, ax = new(12, 0.45 * len(rows) + 1.2)
    heading = True
    for y, row in enumerate(rows):
        named = heading and row.endswith(":")
        colours = [tints["name" if named else "speech"]] * len(row) + [tints["new line"]]
        if named:
            colours[len(row) - 1] = tints["colon"]
        draw_tokens(ax, row + "\n", 0, -1.15 * y, colours)
        heading = row == ""
    right = max(map(len, rows)) + 1
    for i, (name, tint) in enumerate(tints.items()):
        draw_tokens(ax, [""], i * right / 4, 1.6, [tint])
        ax.text(i * right / 4 + 1.4, 2.0, name, va="center")
    ax.set(xlim=(-0.3, right + 0.3), ylim=(-1.15 * len(rows) + 0.8, 2.8), title="How a play is laid out")
    ax.axis("off")
    show(fig, "A passage of the text, one character a box. A name and a colon stand on their own line, then come lines of speech; "
              "every line ends with a new-line character, and an empty line ends the speech.")


def timeline(places, length, mark, title):
    """Chapter 01: where in a text of ``length`` characters something stands, a row for each name of {name: positions}.

    ``mark`` is (position, what begins there).
    """
    fig, ax = new(11, 1.3 + 0.42 * len(places))
    for y, positions in enumerate(places.values()):
        ax.plot(positions, [y] * len(positions), "|", color=BLUE, ms=16, mew=1.5)
    ax.axvline(mark[0], color=INK, ls="--", lw=1.5)
    ax.annotate(mark[1], (mark[0], -0.6), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(places)), list(places))
    ax.set(title=title, xlabel="position in the text (characters)", xlim=(0, length), ylim=(len(places) - 0.5, -1.1))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    show(fig, f"{len(places)} rows of marks along the text, one row for each speaker. The marks of a speaker crowd in one or a few places.")


def dots(names, values, title, alt, xlabel="validation loss (nats per character), less is better", highlight=(), numbers="{:.2f}"):
    """One named point a row, its value beside it, on an axis that need not begin at 0."""
    fig, ax = new(10, 1.3 + 0.45 * len(names))
    for i, (name, value) in enumerate(zip(names, values)):
        ax.plot(value, i, "o", ms=11, color=ORANGE if name in highlight else BLUE)
        ax.annotate(numbers.format(value), (value, i), (11, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(names)), list(names))
    ax.grid(axis="y", color=PALE, lw=1.5)
    ax.set_axisbelow(True)
    ax.margins(x=0.12)
    ax.set(title=title, xlabel=xlabel, ylim=(len(names) - 0.4, -0.6))
    show(fig, alt)


def draw_cube(ax, title, group, sizes):
    """Draw a (B, T, C) tensor into ``ax`` with the numbers of ``group`` (b, t, c) in orange; None takes the whole axis."""
    draw_tensor(ax, dict(zip("BTC", sizes)), marked=group)
    ax.autoscale_view()
    ax.set(aspect="equal", title=title)
    ax.axis("off")


def cubes(groups, sizes, alt):
    """Chapter 10: a (B, T, C) tensor for each of {title: (b, t, c)}, with one group of numbers in orange; None takes the whole axis."""
    fig, axes = new(5.4 * len(groups), 5, columns=len(groups), squeeze=False)
    for ax, (title, group) in zip(axes[0], groups.items()):
        draw_cube(ax, title, group, sizes)
    show(fig, alt)


def sharpening(scores, title, alt):
    """Chapter 06: scores (T,), their softmax, and its slopes: how much each weight moves when a score moves."""
    weights = scores.softmax(dim=-1)                                    # (T,)
    slopes = torch.diag(weights) - torch.outer(weights, weights)        # (T, T)
    T, most = len(scores), max(1.0, scores.abs().max().item())
    fig, (left, middle, right) = new(11, 4, columns=3)
    left.bar(range(T), scores.tolist(), color=BLUE)
    left.axhline(0, color=INK, lw=1)
    left.set(title=title, xlabel="token (key)", ylabel="score", ylim=(-1.15 * most, 1.15 * most))
    middle.bar(range(T), weights.tolist(), color=ORANGE)
    draw_level(middle, 1 / T, "all even")
    heard = torch.special.entr(weights).sum().exp()
    middle.set(title=f"{heard:.1f} of {T} nodes heard", xlabel="token (key)", ylabel="weight (softmax)", ylim=(0, 1.02))
    draw_matrix(
        right, slopes, f"slopes, diagonal: {weights.dot(1 - weights):.2f}", xlabel="score that moves up",
        ylabel="weight: blue rises, red falls", cmap=SIGNED, limits=(-0.25, 0.25),
    )
    right.spines[:].set_visible(True)
    for axis in (left.xaxis, middle.xaxis, right.xaxis, right.yaxis):   # few marks: an explorer draws this at every move
        axis.set_ticks([0, T - 1])
    middle.set_yticks([0, 0.5, 1])
    show(fig, alt)


def encoder_decoder():
    """Chapter 12: encoder and decoder side by side, and the way from the one into the other."""
    columns = {   # name: (left edge, its parts from below, what goes in, what comes out)
        "encoder": (
            0, ("token and position embedding", "self-attention, no mask", "feed-forward", "last layer norm"),
            "source (B, S)\nthe whole text to be read", "memory (B, S, C)",
        ),
        "decoder": (
            8.4, (
                "token and position embedding", "self-attention, triangle", "cross-attention", "feed-forward", "last layer norm", "lm_head",
            ),
            "idx (B, T)\n<start> and what is written so far", "logits (B, T, V)",
        ),
    }
    fig, ax = new(11, 7)
    up = {"arrowstyle": "-|>", "color": GREY}
    for name, (x, parts, below, above) in columns.items():
        ax.text(x + 3, -1.1, below, ha="center", va="center")
        for i, part in enumerate(parts):
            added = part in ("self-attention, no mask", "cross-attention")
            look = {"facecolor": ORANGE if added else TINTS[0], "edgecolor": INK if added else BLUE, "lw": 2.5 if added else 1.5}
            ax.add_patch(FancyBboxPatch((x, 1.4 * i), 6, 0.9, boxstyle="round,pad=0.05", **look))
            ax.text(x + 3, 1.4 * i + 0.45, part, ha="center", va="center", fontweight="bold" if added else "normal")
            ax.annotate("", (x + 3, 1.4 * i - 0.05), (x + 3, 1.4 * i - 0.5), arrowprops=up)
        top = 1.4 * len(parts)
        ax.annotate("", (x + 3, top - 0.05), (x + 3, top - 0.5), arrowprops=up)
        ax.text(x + 3, top + 0.3, above, ha="center", va="center")
        inner = sum("attention" in part or part == "feed-forward" for part in parts)
        ax.add_patch(Rectangle((x - 0.35, 1.15), 6.7, 1.4 * inner, fill=False, edgecolor=GREY, ls=":", lw=1.5))
        ax.text(x - 0.3, top + 0.3, name, va="center", fontweight="bold", fontsize=15)
    ax.plot([4.7, 7.2, 7.2], [5.9, 5.9, 3.25], color=RED, lw=3)
    ax.annotate("", (8.3, 3.25), (7.2, 3.25), arrowprops={"arrowstyle": "-|>", "color": RED, "lw": 3})
    ax.text(6, 6.15, "keys and values,\ninto every decoder block", ha="center", va="bottom", color=RED)
    ax.text(7.2, -2.5, "orange: new here    blue: built before    dotted: a block, of which there may be several", ha="center")
    ax.set(xlim=(-0.6, 15), ylim=(-2.8, 9.1), title="Encoder and decoder")
    ax.axis("off")
    show(fig, "Two columns of parts. On the left the encoder: embedding, self-attention without mask, feed-forward, last norm. "
              "On the right the decoder, with the triangle in its self-attention and with cross-attention as a third part in between. "
              "An arrow leads from the top of the encoder into the cross-attention: keys and values.")


def normalized(x, group, title, alt):
    """Chapter 10: x (B, T, C) before and after a normalization whose group of numbers, (b, t, c), is marked; None takes the whole axis."""
    dims = [i for i, g in enumerate(group) if g is None]
    mean, std = x.mean(dims, keepdim=True), (x.var(dims, keepdim=True, unbiased=False) + 1e-5).sqrt()
    fig, (left, *tables) = new(10.5, 4.4, columns=3)
    draw_cube(left, title, group, x.shape)
    B, T, C = x.shape
    rows, mark = [f"b {b}, t {t}" for b in range(B) for t in range(T)], tuple(slice(None) if g is None else g for g in group)
    inside = torch.zeros(B, T, C, dtype=torch.bool)
    inside[mark] = True
    look = {"rows": rows, "columns": range(C), "cmap": SIGNED, "numbers": "{:.1f}"}
    for ax, numbers, name, most in ((tables[0], x, "before", 10), (tables[1], (x - mean) / std, "after", 3)):
        ours = numbers[mark]
        inner = f"mean {ours.mean() + 1e-4:.1f}, std {ours.std(unbiased=False):.1f}"   # not -0.0
        draw_matrix(ax, numbers.flatten(0, 1), name, xlabel=f"channel\norange: {inner}", limits=(-most, most), **look)
        boxes = [Rectangle((c - 0.45, row - 0.45), 0.9, 0.9) for row, c in inside.flatten(0, 1).nonzero().tolist()]
        ax.add_collection(PatchCollection(boxes, facecolor="none", edgecolor=ORANGE, lw=4))
    show(fig, alt)


def choices(chars, probs, temperature=1.0, top_k=None, top_p=None, sample="", shown=16):
    """Chapter 14: what the settings of ``utils.sample.next_probs`` make of a model's probabilities (V,).

    The likeliest ``shown`` of the characters stand each for itself, all others together in the last bar.
    ``sample`` is a text that was written so, to stand below.
    """
    drawn = next_probs(probs.log(), temperature, top_k, top_p)                         # (V,)
    order = probs.argsort(descending=True, stable=True)                                # (V,)
    kept = int((drawn > 0).sum())
    before, after = ([*x[order[:shown]].tolist(), x[order[shown:]].sum().item()] for x in (probs, drawn))
    fig, ax = new(11, 4.2)
    places = [*range(shown), shown + 0.4]   # the last bar is of another kind
    for looks, stay in (({"color": TINTS[0]}, True), ({"facecolor": PALE, "edgecolor": GREY, "hatch": "///", "lw": 0}, False)):
        own = [(x, p) for x, p, q in zip(places, before, after) if (q > 0) == stay]
        if own:
            ax.bar(*zip(*own), width=0.86, **looks)
    ax.bar(places, after, width=0.4, color=ORANGE)
    cut = {f"top-k {top_k}": top_k, f"top-p {top_p or 0:g}": top_p}
    words = " · ".join(["greedy" if temperature == 0 else f"temperature {temperature:g}", *(name for name, on in cut.items() if on)])
    if kept < shown:
        ax.axvline(kept - 0.5, color=RED, ls="--", lw=2)
    ax.set_xticks(places, [*(visible(chars[i]) for i in order[:shown].tolist()), f"{len(chars) - shown} more"])
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.tick_params(axis="x", length=0)
    ax.set(title=words, xlabel="next character, the likeliest first", ylabel="probability", xlim=(-0.6, shown + 1.1))
    share = f"{kept} of {len(chars)} can be drawn;\nthe model gave\nthem {probs[drawn > 0].sum():.1%}"
    looks = {"the model's own": TINTS[0], "what we draw from": ORANGE, share: "none"}
    patches = [matplotlib.patches.Patch(color=colour) for colour in looks.values()]
    fig.legend(patches, list(looks), frameon=False, loc="outside right upper")   # the last bar can be the highest
    if sample:
        fig.supxlabel(visible(sample), family="monospace", fontsize=12)
    show(fig, f"Bars of the probability of the next character, {words}. {kept} of {len(chars)} characters can be drawn. "
              "A pale bar is what the model gave, the orange bar inside it what we draw from; what is cut is hatched."
              + (f" A text written so: {visible(sample)}." if sample else ""))


def cache(tokens, head_size=3):
    """Chapter 14: what one head computes to continue ``tokens``, without and with a cache."""
    T = len(tokens)
    parts = {"q": head_size, "k": head_size, "v": head_size, "weights": T, "out": head_size}   # name: columns
    looks = {
        "computed now": {"facecolor": ORANGE, "edgecolor": "white"}, "kept in the cache": {"facecolor": SKY, "edgecolor": "white"},
        "not needed": {"facecolor": "white", "edgecolor": "#CCCCCC"}, "future": {"facecolor": PALE, "edgecolor": "#BBBBBB", "hatch": "///"},
    }
    fig, axes = new(13.5, 0.42 * T + 1.9, columns=2)
    panels = {"Without a cache: all of it, at every step": "computed now", "With a cache: one row": "kept in the cache"}
    for ax, (title, kept) in zip(axes, panels.items()):
        left = 0
        for name, width in parts.items():
            for t in range(T):
                for c in range(width):
                    how = "computed now" if kept == "computed now" or t == T - 1 else kept if name in "kv" else "not needed"
                    if name == "weights" and c > t:
                        how = "future"
                    ax.add_patch(matplotlib.patches.Rectangle((left + c, T - 1 - t), 1, 1, lw=1, **looks[how]))
            ax.text(left + width / 2, T + 0.25, name, ha="center", fontweight="bold")
            left += width + 0.8
        ax.add_patch(matplotlib.patches.Rectangle((left - 0.8 - head_size, 0), head_size, 1, fill=False, edgecolor=INK, lw=3))
        for t, ch in enumerate(tokens):
            ax.text(-0.5, T - 0.5 - t, visible(ch), ha="right", va="center")
        ax.set(xlim=(-1.4, left), ylim=(-0.3, T + 1), title=title)
        ax.axis("off")
    patches = [matplotlib.patches.Patch(**{**look, "edgecolor": GREY}) for look in looks.values()]
    fig.legend(patches, list(looks), frameon=False, loc="outside lower center", ncols=len(looks))
    show(fig, f"Two drawings of q, k, v, the weights and the output of one head for {T} tokens. "
              "Without a cache every row is computed at each step. With a cache only the last row of each "
              "is computed; the earlier rows of k and v are kept, the others are not needed.")


def draw_characters(ax, text, axis="x"):
    """Characters along an axis, one for each cell. Faster than ticks, for explorers draw them at every move."""
    for i, ch in enumerate(text):
        if axis == "x":
            label = ax.text(i, -0.02, visible(ch), ha="center", va="top", transform=ax.get_xaxis_transform())
        else:
            label = ax.text(-0.01, i, visible(ch), ha="right", va="center", transform=ax.get_yaxis_transform())
        label.set_in_layout(False)
    ax.set(**{axis + "ticks": []})
    getattr(ax, axis + "axis").labelpad = 22   # the room that they take


def draw_attention(ax, weights, title, text, query=None):
    """One head's attention (T, T) on the characters of ``text``, with a frame around the row of ``query``."""
    future = torch.ones(weights.shape).triu(1).bool()   # (T, T)
    frame = None if query is None else (query, query)
    draw_matrix(ax, **attention(weights, title, mask=future, frame=frame))
    draw_characters(ax, text, "x")
    draw_characters(ax, text, "y")


def listening(weights, text, query, title, alt):
    """Chapter 11: one head's attention (T, T) on a line, and the row of one query as bars over the same characters."""
    T = len(text)
    fig, (left, right) = new(13, 6, columns=2)
    draw_attention(left, weights, title, text, query)
    right.bar(range(T), weights[query].tolist(), color=BLUE)
    right.axvspan(query + 0.5, T - 0.5, **FORBIDDEN)
    right.plot(query, 0.97, "v", color=ORANGE, ms=14)
    draw_characters(right, text)
    right.set(title=f"{visible(text[query])} at place {query} listens", xlabel="is heard (key); hatched: its future", ylabel="weight")
    right.set(xlim=(-0.5, T - 0.5), ylim=(0, 1), yticks=(0, 0.5, 1))
    show(fig, alt)


def next_characters(ids, chances, chars, back, alt):
    """Chapter 11: how much each character of ids (T,) surprised each model, and what they expect ``back`` places before the end.

    ``chances`` is {model: (T, V)}, after each of the ids. The last 24 characters are drawn; the first id only begins the text.
    """
    T, text, at = len(ids), [chars[i] for i in ids[1:]], len(ids) - 1 - back
    fig, (left, right) = new(13, 4.3, columns=2, width_ratios=(1.8, 1))
    probs = torch.stack(list(chances.values()))                            # (models, T, V)
    surprise = -probs[:, range(T - 1), ids[1:]].log()                      # (models, T − 1)
    shown = torch.zeros(len(chances), 24)                                  # white where nothing was typed
    shown[:, : min(24, T - 1)] = surprise[:, -24:]
    names = [f"{name}  {mean:.2f}" if T > 1 else name for name, mean in zip(chances, surprise.mean(dim=1))]
    draw_matrix(left, shown, "How surprised was each? Mean, then each character", names, limits=(0, 6))
    draw_characters(left, text[-24:])
    left.axvline(min(24, T - 1) - back - 0.5, color=ORANGE, lw=4)
    left.set(aspect="auto", xlabel="what was typed; white: no surprise, dark blue: 6 nats and more")
    pieces = []   # (row, from, chance, character, colour)
    for y, row in enumerate(probs[:, at]):
        start = 0.0
        for chance, i in zip(*(values.tolist() for values in row.topk(6))):
            pieces.append((y, start, chance, visible(chars[i]), TINTS[0] if start else ORANGE))
            start += chance
        pieces.append((y, start, 1 - start, "", PALE))
    rows, starts, widths, labels, colours = zip(*pieces)
    right.barh(rows, widths, left=starts, color=colours, edgecolor="white")
    for y, start, width, label in zip(rows, starts, widths, labels):
        if label and width > 0.05:
            right.text(start + width / 2, y, label, ha="center", va="center", fontweight="bold").set_in_layout(False)
    right.set(title="What comes next?" + (f" (It was {visible(text[at])})" if back else ""), xlabel="chance; grey: all other characters")
    right.set(xlim=(0, 1), ylim=left.get_ylim(), xticks=(0, 0.5, 1), yticks=[])
    right.spines["left"].set_visible(False)
    show(fig, alt)


def training_shot(shot, text, block, head, steps, alt):
    """Chapter 11: one moment of a training of so many ``steps``: the loss so far, a sample, and what one head of block 1, 2 … hears."""
    fig, (left, middle, right) = new(13, 5, columns=3, width_ratios=(1, 1.15, 1.1))
    looks = shot["looks"]
    for name, key, style, colour in (("train", "train", "-", BLUE), ("validation", "val", "--", ORANGE)):
        left.plot([look["step"] for look in looks], [look[key] for look in looks], style, color=colour, label=name)
    left.plot(looks[-1]["step"], looks[-1]["val"], "o", color=RED, ms=10)
    left.set(title=f"step {shot['step']:,}: loss {looks[-1]['val']:.2f}", xlabel="step", ylabel="loss (nats per character)")
    left.set(xlim=(-0.04 * steps, 1.04 * steps), ylim=(1.5, 4.5), xticks=(0, steps // 2, steps), yticks=(2, 3, 4))
    left.legend(frameon=False, loc="upper right")
    rows = [line[i : i + 36] for line in shot["sample"].split("\n") for i in range(0, max(1, len(line)), 36)]
    middle.text(0, 1, "\n".join(rows[:14]), family="monospace", va="top").set_in_layout(False)
    middle.set_title("what it writes")
    middle.axis("off")
    draw_attention(right, shot["attention"][block - 1, head], f"block {block}, head {head}", text)
    show(fig, alt)


def stacked(n_head):
    """Chapter 13: the weights (H, C) of every head's query, key and value, and the one matrix (3C, C) they become."""
    fig, ax = new(11, 5.2)
    parts, right = ("query", "key", "value"), 3.4 * n_head + 2.6
    for i, (part, head) in enumerate(itertools.product(range(3), range(n_head))):
        look = {"facecolor": TINTS[part], "edgecolor": INK, "lw": 1.5}
        height = 9 / (3 * n_head)
        x, y, name = 3.4 * head, 9 - 3 * part - 1.5, f"{parts[part]}, head {head}"
        ax.add_patch(Rectangle((x, y - height / 2), 3, height, **look))
        ax.text(x + 1.5, y, name, ha="center", va="center")
        ax.add_patch(Rectangle((right, 9 - (i + 1) * height), 3, height, **look))
        ax.text(right + 1.5, 9 - (i + 0.5) * height, name, ha="center", va="center")
    ax.annotate("", (right - 0.3, 4.5), (right - 2.3, 4.5), arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 3})
    ax.text(right / 2 - 1.3, -0.6, f"{3 * n_head} weights (H, C)", ha="center", va="center")
    ax.text(right + 1.5, -0.6, "one weight (3C, C)", ha="center", va="center")
    ax.set(xlim=(-0.3, right + 3.3), ylim=(-1, 9.2), title="The same rows, under each other")
    ax.axis("off")
    show(fig, f"Left, {3 * n_head} small matrices: the queries, keys and values of {n_head} heads. Right, the same ones under each "
              "other as one tall matrix: first all queries, then all keys, then all values.")


def spread(groups, title, alt, xlabel="validation loss (nats per character), less is better"):
    """Chapter 13: for each of {name: values} a row with its values as small points and their mean as a large one."""
    fig, ax = new(10, 1.3 + 0.55 * len(groups))
    for i, values in enumerate(groups.values()):
        mean = sum(values) / len(values)
        ax.plot(values, [i] * len(values), "o", ms=6, color=SKY)
        ax.plot(mean, i, "D", ms=10, color=BLUE, mec="white")
        ax.annotate(f"{mean:.2f}", (mean, i), (0, 9), textcoords="offset points", ha="center")
    ax.set_yticks(range(len(groups)), list(groups))
    ax.grid(axis="y", color=PALE, lw=1.5)
    ax.set_axisbelow(True)
    ax.margins(x=0.08)
    ax.set(title=title, xlabel=xlabel, ylim=(len(groups) - 0.5, -0.8))
    show(fig, alt)


def durations(seconds, title):
    """Chapter 13: how long each of {name: seconds} takes, each mark of the axis a thousand times more."""
    units = ((1, "seconds"), (60, "minutes"), (3600, "hours"), (86400, "days"), (31557600, "years"))
    fig, ax = new(10, 1.3 + 0.42 * len(seconds))
    ax.barh(range(len(seconds)), seconds.values(), color=[BLUE if name.startswith("GPT-3") else ORANGE for name in seconds], height=0.65)
    for i, value in enumerate(seconds.values()):
        unit, word = max(u for u in units if 2 * u[0] <= max(value, 2))   # at least 2 of the unit
        ax.text(value * 1.5, i, f"{value / unit:,.0f} {word}", va="center")
    ax.set_yticks(range(len(seconds)), list(seconds))
    ax.invert_yaxis()
    ax.set(title=title, xscale="log", xlim=(1, 1e16), xlabel="a thousand times more at each mark")
    ax.set_xticks([1, 1e3, 1e6, 1e9, 1e12], ["1 second", "17 minutes", "12 days", "32 years", "32,000 years"])
    ax.minorticks_off()
    show(fig, "Bars of the training time, on an axis where each mark is a thousand times more, for " + ", ".join(seconds)
              + ": it grows from seconds or minutes to many thousand years.")


def bands(curves, title, xlabel, ylabel, alt, levels=(), xscale="log"):
    """Chapters 15 and 16: for each of {name: (xs, ys)} the mean of ys[i], several values at xs[i], and a band from least to largest."""
    fig, ax = new(10, 4.8)
    for (name, (xs, ys)), colour, style in zip(curves.items(), COLOURS, ("-", "--", "-.", ":")):
        ax.plot(xs, [sum(values) / len(values) for values in ys], style, color=colour, marker="o", label=name)
        ax.fill_between(xs, [min(values) for values in ys], [max(values) for values in ys], color=colour, alpha=0.25, lw=0)
    for level in levels:
        draw_level(ax, *level)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel, xscale=xscale)
    if xscale == "log":   # name the points that were measured
        xs = next(iter(curves.values()))[0]
        ax.set_xticks(xs, [f"{x:,}" for x in xs])
        ax.minorticks_off()
    else:
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    ax.legend(frameon=False)
    show(fig, alt)


def trade(points, title, xlabel, ylabel, alt, path=()):
    """Chapter 15: two losses against each other, for each of {name: [(x, y), …]} small points and their mean with its name.

    ``path`` names those that a line joins, in its order.
    """
    fig, ax = new(10, 5.4)
    means = {name: tuple(sum(one) / len(pairs) for one in zip(*pairs)) for name, pairs in points.items()}
    if path:
        ax.plot(*zip(*(means[name] for name in path)), color=GREY, lw=1.5, zorder=0)
    for name, pairs in points.items():
        ax.plot(*zip(*pairs), "o", ms=6, color=SKY)
        ax.plot(*means[name], "D", ms=10, color=BLUE, mec="white")
        ax.annotate(name, means[name], (10, 6), textcoords="offset points")
    ax.margins(x=0.12, y=0.12)
    ax.grid(color=PALE, lw=1.5)
    ax.set_axisbelow(True)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    show(fig, alt)


def masked_targets(text, start):
    """Chapter 17: a problem's inputs below and its targets above; those inside the question have no loss."""
    fig, ax = new(10, 2.6)
    n = len(text) - 1
    draw_tokens(ax, text[1:], 0, 1.5, [None] * (start - 1) + [ORANGE] * (n - start + 1))
    draw_tokens(ax, text[:-1], 0, 0, [TINTS[0]] * n)
    for t in range(start - 1, n):
        ax.annotate("", (t + 0.5, 1.48), (t + 0.5, 0.9), arrowprops={"arrowstyle": "-|>", "color": GREY})
    for y, name in ((1.5, "targets"), (0, "inputs")):
        ax.text(-0.3, y + 0.4, name, ha="right", va="center")
    ax.set(xlim=(-1.8, n + 0.2), ylim=(-0.2, 2.5), title="Only the answer has a loss")
    ax.axis("off")
    show(fig, f"Two rows of boxes. Below, the {n} inputs of the problem {text}. Above, their targets: those inside the question are "
              f"hatched, the {n - start + 1} characters of the answer are orange, with an arrow from the input below.")


RIGHT_OR_WRONG = LinearSegmentedColormap.from_list("right or wrong", [RED, TINTS[0]])


def answer_map(maps, alt, trained=None):
    """Chapter 17: for each of {title: (right (A, B), largest number)}, with a and b in equal steps, which pairs are answered right.

    ``trained``, the largest number of the training, draws a frame.
    """
    fig, axes = new(5.4 * len(maps), 5, columns=len(maps), squeeze=False)
    for ax, (title, (right, most)) in zip(axes[0], maps.items()):
        ax.imshow(
            torch.as_tensor(right).float().T.numpy(), origin="lower", extent=(0, most, 0, most), cmap=RIGHT_OR_WRONG,
            vmin=0, vmax=1, interpolation="nearest",
        )
        if trained:
            ax.add_patch(Rectangle((0, 0), trained, trained, fill=False, edgecolor=INK, lw=2))
        ax.set(title=title, xlabel="a", ylabel="b")
        ax.spines[:].set_visible(False)
    marks = [Rectangle((0, 0), 1, 1, facecolor=colour, edgecolor=GREY) for colour in (TINTS[0], RED)]
    fig.legend(marks, ["right", "wrong"], loc="outside lower center", ncols=2, frameon=False)
    show(fig, alt)


def against_base(panels, alt):
    """Chapter 18: for each of {title: {name: losses}} a panel with a row for each name: a circle a seed, a bar at their mean.

    The dotted line is the mean of the first row; every panel has the same rows.
    """
    names = list(next(iter(panels.values())))
    fig, axes = new(13, 1.4 + 0.42 * len(names), columns=len(panels), sharex=True, squeeze=False)
    for ax, (title, rows) in zip(axes[0], panels.items()):
        base = sum(rows[names[0]]) / len(rows[names[0]])
        ax.axvline(base, color=INK, lw=2, ls=":")
        for i, name in enumerate(names):
            mean = sum(rows[name]) / len(rows[name])
            ax.plot([mean, mean], [i - 0.32, i + 0.32], color=BLUE if i else INK, lw=3)
            ax.plot(rows[name], [i] * len(rows[name]), "o", ms=8, color=SKY, mec=INK, mew=1, alpha=0.8)
        ax.set_yticks(range(len(names)), names if ax is axes[0][0] else [""] * len(names))
        ax.grid(axis="y", color=PALE, lw=1.5)
        ax.set_axisbelow(True)
        ax.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
        ax.set(title=title, xlabel="validation loss (nats per character)", ylim=(len(names) - 0.5, -0.6))
    show(fig, alt)


def three_stages():
    """Chapter 16: what goes into each of the three stages, and which model comes out of it."""
    stages = {
        "1 · fine-tune": ("trained model\nof the course", "questions with\nanswers", "answers in\nform"),
        "2 · reward model": ("fine-tuned\nmodel", "pairs of its answers,\nranked by raters", "a number\nfor an answer"),
        "3 · PPO": ("fine-tuned\nmodel", "its own answers,\nrewarded by stage 2", "answers that\nare preferred"),
    }
    fig, ax = new(11, 4.6)
    for y, (name, (begin, data, end)) in zip((4, 2, 0), stages.items()):
        ax.text(-0.2, y + 0.65, name, ha="right", va="center", fontweight="bold")
        for x, text, colour in ((0, begin, TINTS[0]), (3.4, data, TINTS[1]), (6.8, end, TINTS[2])):
            ax.add_patch(FancyBboxPatch((x, y), 2.6, 1.3, boxstyle="round,pad=0.05", facecolor=colour, edgecolor=INK, lw=1.5))
            ax.text(x + 1.3, y + 0.65, text, ha="center", va="center")
        for x in (2.7, 6.1):
            ax.annotate("", (x + 0.6, y + 0.65), (x, y + 0.65), arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 2})
    for x, text in ((1.3, "begins as"), (4.7, "learns from"), (8.1, "gives")):
        ax.text(x, 5.75, text, ha="center", color=INK)
    ax.set(xlim=(-3.2, 9.7), ylim=(-0.3, 6.1), title="From document completer to assistant")
    ax.axis("off")
    show(fig, "Three rows of boxes. Fine-tuning: the trained model learns from questions with answers, and answers in form. Reward "
              "model: it learns from ranked pairs, and gives a number for an answer. PPO: it learns from its own rewarded answers.")


def shares(stages, title, alt, stored=None):
    """Chapter 16: for each of {stage: {name: share}} a bar at each name; ``stored`` is {stage: {name: shares}}, rings."""
    names = list(next(iter(stages.values())))
    fig, ax = new(10, 4.2)
    width = 0.8 / len(stages)
    for i, (stage, values) in enumerate(stages.items()):
        places = [x - 0.4 + (i + 0.5) * width for x in range(len(names))]
        ax.bar(places, [values[name] for name in names], width * 0.92, color=COLOURS[i], label=stage)
        for x, name in zip(places, names):
            points = (stored or {}).get(stage, {}).get(name, [])
            side_by_side = [x + (k - (len(points) - 1) / 2) * 0.22 * width for k in range(len(points))]
            rings, = ax.plot(side_by_side, points, "o", ms=6, color="white", mec=INK)
            top = max([values[name], *points])   # the number stands above the bar and its rings
            ax.annotate(f"{values[name]:.0%}", (x, top), (0, 7), textcoords="offset points", ha="center", fontsize=11)
    if stored:
        rings.set_label("a stored run")
    ax.set_xticks(range(len(names)), names)
    ax.set(title=title, xlabel="what the rule looks at", ylabel="share of the answers", ylim=(0, 1.12), yticks=(0, 0.5, 1))
    fig.legend(*ax.get_legend_handles_labels(), frameon=False, loc="outside right upper")
    show(fig, alt)


def growth(rows):
    """README: how time and memory of a training step grow, for each of {what: {"values", "ms", "megabytes", "exponents"}}."""
    fig, axes = new(15, 4.4, columns=len(rows))
    for ax, (what, row) in zip(axes, rows.items()):
        for (key, unit), colour, style in zip({"ms": "time", "megabytes": "memory"}.items(), COLOURS, ("-", "--")):
            ax.plot(row["values"], row[key], style, color=colour, marker="o", label=f"{unit}: {what}^{row['exponents'][key]}")
        ax.set(title=f"A step against {what}", xlabel=what, ylabel="milliseconds, megabytes", xscale="log", yscale="log")
        ax.set_xticks(row["values"], [f"{value:,}" for value in row["values"]])
        ax.minorticks_off()
        low, high = min(row["ms"] + row["megabytes"]), max(row["ms"] + row["megabytes"])
        ax.set_ylim(low / 4, 1.2 * high)   # room for the legend below
        ax.set_yticks((30, 100, 300), ("30", "100", "300"))
        ax.legend(frameon=False, fontsize=11, loc="lower right")
    show(fig, "Four panels of rising lines: time and memory of a training step against " + ", ".join(rows) + ".")
