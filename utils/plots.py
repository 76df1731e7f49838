"""Every picture of the course, drawn one way.

One palette (Okabe and Ito's, safe for colour blindness), one type size that reads from the
back of a room, rows are queries and columns are keys, forbidden cells are hatched and never
look like a zero. Each function draws, shows and stores its picture with ``alt``: a sentence
that says what is to be seen.
"""

import io
import json
import math
from contextvars import ContextVar

import matplotlib
import torch
from IPython.display import display
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure  # without pyplot: no global state, nothing to close
from matplotlib.ticker import MaxNLocator

from utils.train import LADDER

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442"
INK, GREY, PALE = "#222222", "#8A8A8A", "#EEEEEE"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
WEIGHTS = LinearSegmentedColormap.from_list("weights", ["#FFFFFF", SKY, BLUE, "#00243B"])   # 0 is white, dark is much
# For the name of a horizontal line, above its right end.
AT_RIGHT_EDGE = {
    "xytext": (-4, 4), "xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right",
}
WHITE_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85}   # behind a label that lies over bars
SIGNED = LinearSegmentedColormap.from_list("signed", [RED, "#FFFFFF", BLUE])

matplotlib.rcParams.update({
    "font.size": 13, "axes.titlesize": 15, "axes.titleweight": "bold", "axes.labelsize": 13,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GREY, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "white", "lines.linewidth": 2.5,
})


TAKEN = ContextVar("taken", default=None)   # while an explorer draws: the list that takes the picture


def show(fig, alt):
    """Show a figure and store ``alt`` with it, for screen readers and for pages without pictures."""
    explored = TAKEN.get()
    png = io.BytesIO()
    margins = "tight" if explored is None else None   # an explorer's pictures keep one size, and are drawn faster
    fig.savefig(png, format="png", dpi=100, bbox_inches=margins, metadata={"Software": None})
    if explored is not None:
        explored.append((png.getvalue(), alt))
        return
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


def draw_matrix(
    ax, matrix, title, rows=None, columns=None, xlabel="", ylabel="", mask=None, numbers=None, cmap=WEIGHTS, limits=None
):
    """Draw a (rows, columns) tensor into ``ax``. Cells where ``mask`` is True are forbidden: grey and crossed out.

    ``numbers`` is a format like "{:.2f}" to write into the cells, ``limits`` the values of
    the palest and darkest colour.
    """
    matrix = torch.as_tensor(matrix).detach().float()
    low, high = limits or (matrix[matrix.isfinite()].min().item(), matrix[matrix.isfinite()].max().item())
    ax.imshow(matrix.nan_to_num(neginf=low).numpy(), cmap=cmap, vmin=low, vmax=max(high, low + 1e-9), aspect="equal")
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            if mask is not None and mask[i, j]:
                ax.add_patch(matplotlib.patches.Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=PALE, edgecolor="#BBBBBB", hatch="//", lw=0))
            elif numbers is not None:
                red, green, blue, _ = cmap((matrix[i, j].item() - low) / max(high - low, 1e-9))
                dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
                ax.text(j, i, numbers.format(matrix[i, j].item()), ha="center", va="center", color="white" if dark else INK, fontsize=11)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    for axis, labels, count in ((ax.xaxis, columns, matrix.shape[1]), (ax.yaxis, rows, matrix.shape[0])):
        if labels is not None:
            axis.set_ticks(range(count), [tick(label) for label in labels])
        else:
            axis.set_major_locator(MaxNLocator(integer=True))
        axis.set_tick_params(length=0)
    ax.spines[:].set_visible(False)


def matrices(panels, alt, width=None, height=4.2):
    """Several matrices side by side; each panel is a dict of ``draw_matrix``'s arguments."""
    fig, axes = new(width or 4.2 * len(panels), height, columns=len(panels), squeeze=False)
    for ax, panel in zip(axes[0], panels):
        draw_matrix(ax, **panel)
    show(fig, alt)


def bars(labels, values, title, xlabel, ylabel, alt, highlight=(), line=None, width=10, height=4):
    """Bars, some of them in a second colour; ``line`` is (height, what it means)."""
    fig, ax = new(width, height)
    ax.bar(range(len(values)), values, color=[ORANGE if i in highlight else BLUE for i in range(len(values))])
    ax.set_xticks(range(len(labels)), [tick(label) for label in labels])
    if line:
        ax.axhline(line[0], color=RED, ls="--", lw=2)
        ax.annotate(line[1], (1, line[0]), color=RED, bbox=WHITE_BOX, **AT_RIGHT_EDGE)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    show(fig, alt)


def lines(
    curves, title, xlabel, ylabel, alt, levels=(), xscale="linear", yscale="linear", marker="", width=9, height=4.5
):
    """Curves {name: (xs, ys)}, each with its own colour and line style; ``levels`` are (height, name) to compare with."""
    fig, ax = new(width, height)
    for (name, (xs, ys)), colour, style in zip(curves.items(), COLOURS * 2, ("-", "--", "-.", ":") * 3):
        ax.plot(xs, ys, style, color=colour, label=name, marker=marker)
    for height_, name in levels:
        ax.axhline(height_, color=GREY, lw=1.5, ls=":")
        ax.annotate(name, (1, height_), **AT_RIGHT_EDGE)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
    if xscale == "log":   # name the points that were measured, not the powers of ten
        measured = sorted({x for xs, _ in curves.values() for x in xs})
        ax.set_xticks(measured, [f"{x:,}" for x in measured], minor=False)
        ax.minorticks_off()
    if len(curves) > 1:
        ax.legend(frameon=False)
    show(fig, alt)


def curve(history, title="Loss while training", levels=()):
    """Train and validation loss over the steps, with the best look marked."""
    best = min(history, key=lambda look: look["val"])
    fig, ax = new(9, 4.5)
    steps = [look["step"] for look in history]
    ax.plot(steps, [look["train"] for look in history], "--", color=BLUE, label="train")
    ax.plot(steps, [look["val"] for look in history], "-", color=ORANGE, label="validation")
    ax.plot(best["step"], best["val"], "o", color=RED, ms=10, label="best validation")
    for height, name in levels:
        ax.axhline(height, color=GREY, lw=1.5, ls=":")
        ax.annotate(name, (1, height), **AT_RIGHT_EDGE)
    ax.set(title=title, xlabel="step", ylabel="loss (nats per character)")
    ax.legend(frameon=False)
    show(fig, f"{title}: training and validation loss over {steps[-1]} steps; the lowest validation loss is marked.")


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
    show(fig, "Bars of the validation loss, one for each chapter so far, getting shorter from guessing at random to this chapter.")


PARTS = (   # (name, the chapter that builds it), from ids at the bottom to logits at the top
    ("token and position embedding", "06"), ("layer norm", "10"), ("attention", "06"), ("projection", "09"),
    ("+", "09"), ("layer norm", "10"), ("feed-forward", "08"), ("+", "09"), ("last layer norm", "10"), (
        "lm_head", "06"
    ),
)


def skeleton(chapter):
    """The model as a column of parts: new in this chapter, built before, or still to come."""
    fig, ax = new(9, 7)
    ax.set(xlim=(-1, 14), ylim=(-1, 13.2), title="The model, and what this chapter adds")
    ax.axis("off")
    looks = {   # face, edge, text
        "new": (ORANGE, INK, INK), "built": ("#CFE6F5", BLUE, INK), "to come": ("white", "#BBBBBB", GREY),
    }
    state = {"07": {"attention": "new"}, "09": {"feed-forward": "new"}}.get(chapter, {})   # parts that grow a second time
    height = start = 0   # start: where the next residual path leaves
    ax.text(4, -0.6, "idx (B, T)", ha="center", va="center")
    for name, born in PARTS:
        how = state.get(name, "new" if born == chapter else "built" if born < chapter else "to come")
        face, edge, colour = looks[how]
        style = {"facecolor": face, "edgecolor": edge, "lw": 2.5 if how == "new" else 1.5, "ls": "--" if how == "to come" else "-"}
        if name == "+":
            ax.add_patch(matplotlib.patches.Circle((4, height + 0.4), 0.36, **style))
            ax.text(4, height + 0.36, "+", ha="center", va="center", fontsize=16, color=colour)
            line = {"color": edge, "lw": 4 if how == "new" else 1.5}
            ax.plot([4, 7.7, 7.7], [start, start, height + 0.4], ls=style["ls"], **line)
            ax.annotate("", (4.4, height + 0.4), (7.7, height + 0.4), arrowprops={"arrowstyle": "-|>", **line})
        else:
            ax.add_patch(matplotlib.patches.FancyBboxPatch((0.8, height), 6.4, 0.8, boxstyle="round,pad=0.05", **style))
            ax.text(4, height + 0.4, name, ha="center", va="center", color=colour, fontweight="bold" if how == "new" else "normal")
        ax.annotate("", (4, height - 0.05), (4, height - 0.4), arrowprops={"arrowstyle": "-|>", "color": GREY})
        height += 1.2
        if name in ("+", "token and position embedding"):
            start = height - 0.25
    ax.annotate("", (4, height), (4, height - 0.4), arrowprops={"arrowstyle": "-|>", "color": GREY})
    ax.text(4, height + 0.35, "logits (B, T, V)", ha="center", va="center")
    ax.add_patch(matplotlib.patches.Rectangle((0.2, 0.95), 8.1, 8.35, fill=False, edgecolor=GREY, ls=":", lw=1.5))
    ax.text(8.5, 5.2, "body: one block" if chapter < "09" else "body: several\nblocks in a row", va="center")
    for i, (how, (face, edge, colour)) in enumerate(looks.items()):
        dashes = "--" if how == "to come" else "-"
        box = matplotlib.patches.Rectangle((9.6, 11.6 - 0.9 * i), 0.7, 0.5, facecolor=face, edgecolor=edge, lw=2, ls=dashes)
        ax.add_patch(box)
        ax.text(10.6, 11.85 - 0.9 * i, {"new": "new here", "built": "built before", "to come": "still to come"}[how], va="center")
    added = ", ".join(dict.fromkeys("residual sums" if name == "+" else name for name, born in PARTS if born == chapter or name in state))
    show(fig, "The model as a column of parts, from ids at the bottom to logits at the top. "
              f"New in chapter {chapter}: {added or 'nothing, all parts are there'}.")


def draw_tokens(ax, text, x, y, colours):
    """Write characters into boxes from (x, y) to the right, one unit each; a colour of None is a forbidden cell."""
    for i, (ch, colour) in enumerate(zip(text, colours)):
        look = {"facecolor": colour} if colour else {"facecolor": PALE, "hatch": "///"}
        ax.add_patch(matplotlib.patches.Rectangle((x + i, y), 0.94, 0.86, edgecolor="#BBBBBB", lw=0.5, **look))
        if colour:
            ax.text(x + i + 0.47, y + 0.4, visible(ch), ha="center", va="center", fontsize=14, color=INK)


def contexts(chunk):
    """Chapter 03: the T questions in T + 1 characters, one a row."""
    T = len(chunk) - 1
    fig, ax = new(9, 0.55 * T + 1)
    for t in range(T):
        draw_tokens(ax, chunk, 0, T - 1 - t, ["#CFE6F5"] * (t + 1) + [ORANGE] + [None] * (T - t - 1))
        ax.text(-0.3, T - 1 - t + 0.4, f"t = {t}", ha="right", va="center")
    ax.set(xlim=(-1.6, T + 1.2), ylim=(-0.2, T + 0.1), title="Every position asks its own question")
    ax.axis("off")
    show(fig, f"{T} rows. In row t the first t + 1 characters are the context, the next one is the target, the rest is hidden.")


def batch_windows(ids, starts, T, decode):
    """Chapter 03: windows of the text become the rows of x, and one step later the rows of y."""
    fig, ax = new(11, 5)
    tints = ("#CFE6F5", "#FBE3B0", "#BFE5D8", "#F3D3E2")
    for b, start in enumerate(starts.tolist()):
        y = 1.15 * (len(starts) - 1 - b)
        around = decode(ids[start - 2 : start + T + 3].tolist())
        draw_tokens(ax, around, 0, y, ["white"] * 2 + [tints[b % 4]] * T + ["white"] * 3)
        ax.text(-0.3, y + 0.4, f"… from {start:,}", ha="right", va="center", fontsize=11)
        draw_tokens(ax, around[2:-3], T + 7, y, [tints[b % 4]] * T)
        draw_tokens(ax, around[3:-2], 2 * T + 8, y, [tints[b % 4]] * T)
    top = 1.15 * len(starts) + 0.2
    for x, name in ((2 + T / 2, "the text"), (T + 7 + T / 2, f"x  ({len(starts)}, {T})"), (2 * T + 8 + T / 2, f"y  ({len(starts)}, {T})")):
        ax.text(x, top, name, ha="center", fontweight="bold")
    ax.set(xlim=(-4, 3 * T + 8.2), ylim=(-0.3, top + 0.8), title="Windows of the text become rows of a batch", aspect="equal")
    ax.axis("off")
    show(fig, f"{len(starts)} windows of {T} characters, from random places in the text, become the rows of x. "
              "The rows of y are the same windows moved one character to the right.")


def product(weights, values, names, alt, rows=(None,), mask=None, tokens=None, channels=None, numbers="{:.2f}", width=9, height=2.9):
    """Chapter 05: weights (T, T) @ values (T, C) = result (T, C), drawn once for each of ``rows``.

    That row is outlined on both sides, and so are the values it uses. ``names`` are the
    titles of the three matrices, ``tokens`` and ``channels`` the labels of rows and columns.
    """
    weights, values = torch.as_tensor(weights).detach().float(), torch.as_tensor(values).detach().float()
    result = weights @ values   # (T, T) @ (T, C) → (T, C)
    T, C = values.shape
    tokens, channels = tokens or range(T), channels or range(C)
    most = max(values.abs().max().item(), result.abs().max().item())
    look = {"cmap": SIGNED, "limits": (-most, most)} if values.min() < 0 else {"cmap": WEIGHTS, "limits": (0, most)}
    fig = Figure(figsize=(width, height * len(rows)), layout="constrained")
    grid = fig.subplots(len(rows), 5, squeeze=False, width_ratios=[T, 0.6, C, 0.6, C])
    for row, (left, at, middle, equals, right) in zip(rows, grid):
        draw_matrix(left, weights, names[0], tokens, tokens, "is heard", "listens", mask, numbers)
        draw_matrix(middle, values, names[1], tokens, channels, "channel", numbers=numbers, **look)
        draw_matrix(right, result, names[2], tokens, channels, "channel", numbers=numbers, **look)
        for ax, sign in ((at, "@"), (equals, "=")):
            ax.axis("off")
            ax.text(0.5, 0.5, sign, ha="center", va="center", fontsize=20)
        if row is not None:
            used = weights[row].nonzero().flatten()
            for ax, top, bottom, across in (
                (left, row, row, T), (middle, used.min().item(), used.max().item(), C), (right, row, row, C)
            ):
                ax.add_patch(matplotlib.patches.Rectangle(
                    (-0.5, top - 0.5), across, bottom - top + 1, fill=False, edgecolor=ORANGE, lw=4, clip_on=False,
                ))
    show(fig, alt)


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
            ax.add_patch(matplotlib.patches.Circle((i, -0.36), 0.2, fill=False, edgecolor=colour, lw=weight))
        else:
            arrow = {"arrowstyle": "-|>", "color": colour, "lw": weight, "shrinkA": 13, "shrinkB": 13, "connectionstyle": "arc3,rad=-0.55"}
            ax.annotate("", (i, 0), (j, 0), arrowprops=arrow, zorder=3 if i == listener else 2)
    for i, label in enumerate(labels):
        face = "#CFE6F5" if i != listener else "#FBE3B0"
        ax.add_patch(matplotlib.patches.Circle((i, 0), 0.24, facecolor=face, edgecolor=INK, lw=1.5, zorder=4))
        ax.text(i, -0.02, visible(str(label)), ha="center", va="center", fontsize=14, zorder=5)
    reach = 0.3 * len(labels)
    ax.set(xlim=(-0.6, len(labels) - 0.4), ylim=(-reach if hears.triu(1).any() else -0.8, reach), title=title, aspect="equal")
    ax.axis("off")
    names = {"rows": labels, "columns": labels, "xlabel": "is heard (key)", "ylabel": "listens (query)"}
    draw_matrix(table, hears.float(), "the same as a matrix", **names, mask=~hears, limits=(0, 1.5))
    show(fig, alt)


def heads_joined(n_head, head_size, T):
    """Chapter 07: one input, several heads side by side, their outputs joined along the channels."""
    C, tints = n_head * head_size, ("#CFE6F5", "#FBE3B0", "#BFE5D8", "#F3D3E2")
    fig, ax = new(10, 6.2)

    def grid(x, y, columns, colour):
        for i in range(T):
            for j in range(columns):
                ax.add_patch(
                    matplotlib.patches.Rectangle((x + j, y + i), 1, 1, facecolor=colour, edgecolor="white", lw=0.8)
                )

    low, middle, high = 0, T + 4, 2 * T + 8
    grid(0, low, C, "#DDDDDD")
    ax.text(C + 0.7, low + T / 2, f"x, every token\n(T, C) = ({T}, {C})", va="center")
    for h in range(n_head):
        left = h * (head_size + 2) - (n_head - 1)
        grid(left, middle, head_size, tints[h % 4])
        grid(h * head_size, high, head_size, tints[h % 4])
        ax.text(left + head_size / 2, middle + T / 2, f"head {h}", ha="center", va="center", fontweight="bold")
        ax.text(h * head_size + head_size / 2, high + T / 2, f"head {h}", ha="center", va="center", fontweight="bold")
        center, joined = left + head_size / 2, h * head_size + head_size / 2
        for start, end in (((C / 2, low + T), (center, middle)), ((center, middle + T), (joined, high))):
            ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.5})
    ax.text(C + n_head, middle + T / 2, f"each head\n(T, H) = ({T}, {head_size})", va="center")
    ax.text(C + 0.7, high + T / 2, f"joined by cat\n(T, {n_head}·H) = ({T}, {C})", va="center")
    ax.set(xlim=(-n_head - 0.5, C + 14), ylim=(-0.5, high + T + 0.5), title="Heads work side by side, then their outputs are joined")
    ax.axis("off")
    show(fig, f"The same input of {C} channels goes into {n_head} heads. Each gives {head_size} channels for every token. "
              f"Laid side by side they are {C} channels again.")


def communicate_compute(tokens):
    """Chapter 08: arrows between tokens (attention), then for each token a step of its own (feed-forward)."""
    fig, ax = new(10, 5.2)
    box = {"boxstyle": "round,pad=0.35", "edgecolor": GREY}
    for t, ch in enumerate(tokens):
        ax.text(t, 0, visible(ch), ha="center", va="center", fontsize=16, bbox={**box, "facecolor": PALE})
        ax.text(t, 2.4, visible(ch), ha="center", va="center", fontsize=16, bbox={**box, "facecolor": "#CFE6F5"})
        ax.text(t, 4, visible(ch), ha="center", va="center", fontsize=16, bbox={**box, "facecolor": ORANGE})
        for s in range(t + 1):
            ax.annotate("", (t, 2.0), (s, 0.4), arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 1, "alpha": 0.7})
        ax.annotate("", (t, 3.6), (t, 2.8), arrowprops={"arrowstyle": "-|>", "color": RED, "lw": 3})
    right = len(tokens) - 0.4
    ax.text(right, 1.2, "communicate:\nattention, each token hears\nitself and those before", va="center", color=BLUE)
    ax.text(right, 3.2, "compute:\nfeed-forward, each\ntoken on its own", va="center", color=RED)
    ax.set(xlim=(-0.6, right + 2.6), ylim=(-0.6, 4.6), title="Communicate, then compute")
    ax.axis("off")
    show(fig, "Below, arrows go from every token to itself and to the later ones: attention. "
              "Above, one arrow goes straight up from each token: feed-forward, with no arrow between tokens.")


def token_rows(rows, title, alt):
    """Chapter 02: the same text cut in several ways, one row each: (label, its tokens, the new token or None)."""
    longest = max(sum(map(len, tokens)) for _, tokens, _ in rows)
    fig, ax = new(11, 0.55 * len(rows) + 0.9)
    for y, (label, tokens, made) in enumerate(reversed(rows)):
        x = 0
        for i, token in enumerate(tokens):
            face = ORANGE if token == made else ("#CFE6F5", "#BFE5D8")[i % 2]
            ax.add_patch(matplotlib.patches.Rectangle((x + 0.06, y), len(token) - 0.12, 0.8, facecolor=face, edgecolor=INK, lw=0.8))
            for ch in token:
                ax.text(x + 0.5, y + 0.38, visible(ch), ha="center", va="center", fontsize=13)
                x += 1
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
    ax.barh(0, n_train, color="#CFE6F5", edgecolor=INK)
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
        draw_tokens(ax, chunk[i : i + size], i, count - 1 - i, [ORANGE if i == hidden else "#CFE6F5"] * size)
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
            ax.barh(y, chance, left=start, height=0.62, color=ORANGE if hit else "#CFE6F5", edgecolor="white", lw=0.8)
            if chance > 0.025:
                ax.text(
                    start + chance / 2, y, visible(ch), ha="center", va="center", fontweight="bold" if hit else "normal"
                )
            start += chance
            if hit:
                ax.text(1.01, y, f"→ {visible(ch)}", va="center", fontweight="bold")
        ax.plot([dart], [y - 0.42], "v", color=RED, ms=9, clip_on=False)
    ax.set_yticks(range(len(rows)), [tick(label) for label, *_ in rows])
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
    tints = {"name": ORANGE, "colon": YELLOW, "speech": "#CFE6F5", "new line": "#BFE5D8"}
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
        ax.add_patch(
            matplotlib.patches.Rectangle((i * right / 4, 1.6), 0.94, 0.86, facecolor=tint, edgecolor="#BBBBBB")
        )
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


def cubes(groups, sizes, alt):
    """Chapter 10: a B × T × C cube for each of {title: (b, t, c)}, with one group of numbers in orange; None takes the whole axis."""
    B, T, C = sizes
    fig, axes = new(5 * len(groups), 5.4, columns=len(groups), squeeze=False)
    dx, dy = 0.55, 0.42   # one step into the depth: the batch

    for ax, (title, group) in zip(axes[0], groups.items()):
        for b in reversed(range(B)):   # from the back to the front, so that what is in front covers what is behind
            for c in range(C):
                for t in range(T):
                    inside = all(g is None or g == i for g, i in zip(group, (b, t, c)))
                    x, y = t + b * dx, c + b * dy
                    front = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]
                    top = [(x, y + 1), (x + 1, y + 1), (x + 1 + dx, y + 1 + dy), (x + dx, y + 1 + dy)]
                    side = [(x + 1, y), (x + 1 + dx, y + dy), (x + 1 + dx, y + 1 + dy), (x + 1, y + 1)]
                    for face, look in (
                        (front, ("#DCEBF5", ORANGE)), (top, ("#EEF5FA", "#F4C767")), (side, ("#BBD3E4", "#C98500"))
                    ):
                        ax.add_patch(
                            matplotlib.patches.Polygon(face, facecolor=look[inside], edgecolor="white", lw=1.2)
                        )
        ax.text(T / 2, -0.45, "T, time →", ha="center", va="center")
        ax.text(-0.45, C / 2, "C, channels →", ha="center", va="center", rotation=90)
        ax.text(T + 0.75 * dx * B + 0.45, 0.2 * dy * B, "B, batch", ha="left", va="center", rotation=37, rotation_mode="anchor")
        ax.set(xlim=(-1, T + B * dx + 1.4), ylim=(-1, C + B * dy + 0.2), aspect="equal", title=title)
        ax.axis("off")
    show(fig, alt)


def sharpening(scores, title, alt):
    """Chapter 06: scores (T,), their softmax, and its slopes: how much each weight moves when a score moves."""
    weights = scores.softmax(dim=-1)                                    # (T,)
    slopes = torch.diag(weights) - torch.outer(weights, weights)        # (T, T)
    T, most = len(scores), max(1.0, scores.abs().max().item())
    fig, (left, middle, right) = new(12.5, 4.4, columns=3)
    left.bar(range(T), scores.tolist(), color=BLUE)
    left.axhline(0, color=INK, lw=1)
    left.set(title=title, xlabel="token (key)", ylabel="score", ylim=(-1.15 * most, 1.15 * most))
    middle.bar(range(T), weights.tolist(), color=ORANGE)
    middle.axhline(1 / T, color=GREY, lw=1.5, ls=":")
    middle.annotate("all even", (1, 1 / T), bbox=WHITE_BOX, **AT_RIGHT_EDGE)
    heard = torch.special.entr(weights).sum().exp()
    middle.set(title=f"softmax: {heard:.1f} of {T} nodes heard", xlabel="token (key)", ylabel="weight", ylim=(0, 1.02))
    draw_matrix(
        right, slopes, f"its slopes: {weights.dot(1 - weights):.2f} on the diagonal", xlabel="score that moves",
        ylabel="weight that answers", cmap=SIGNED, limits=(-0.25, 0.25),
    )
    for axis in (left.xaxis, middle.xaxis, right.xaxis, right.yaxis):   # few marks: an explorer draws this at every move
        axis.set_ticks([0, T - 1])
    middle.set_yticks([0, 0.5, 1])
    show(fig, alt)
