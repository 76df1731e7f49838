"""Charts that many chapters draw: matrices and attention, bars, curves, the ladder of losses, points with their spread."""

import json
import math

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from utils.plots.base import (
    BLUE,
    COLOURS,
    FORBIDDEN,
    GREY,
    INK,
    ORANGE,
    RED,
    SKY,
    WEIGHTS,
    draw_level,
    draw_rows,
    new,
    power_of_ten,
    show,
    tick,
)
from utils.train import LADDER


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


def dots(names, values, title, alt, xlabel="validation loss (nats per character), less is better", highlight=(), numbers="{:.2f}"):
    """One named point a row, its value beside it, on an axis that need not begin at 0."""
    fig, ax = new(10, 1.3 + 0.45 * len(names))
    for i, (name, value) in enumerate(zip(names, values)):
        ax.plot(value, i, "o", ms=11, color=ORANGE if name in highlight else BLUE)
        ax.annotate(numbers.format(value), (value, i), (11, 0), textcoords="offset points", va="center")
    draw_rows(ax, names)
    ax.margins(x=0.12)
    ax.set(title=title, xlabel=xlabel, ylim=(len(names) - 0.4, -0.6))
    show(fig, alt)


def spread(groups, title, alt, xlabel="validation loss (nats per character), less is better"):
    """Chapter 13: for each of {name: values} a row with its values as small points and their mean as a large one."""
    fig, ax = new(10, 1.3 + 0.55 * len(groups))
    for i, values in enumerate(groups.values()):
        mean = sum(values) / len(values)
        ax.plot(values, [i] * len(values), "o", ms=6, color=SKY)
        ax.plot(mean, i, "D", ms=10, color=BLUE, mec="white")
        ax.annotate(f"{mean:.2f}", (mean, i), (0, 9), textcoords="offset points", ha="center")
    draw_rows(ax, groups)
    ax.margins(x=0.08)
    ax.set(title=title, xlabel=xlabel, ylim=(len(groups) - 0.5, -0.8))
    show(fig, alt)


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
