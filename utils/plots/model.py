"""Chapters 05 to 14: how the model is built, as diagrams of its parts and of its tensors."""

import itertools

import matplotlib
import torch
from matplotlib.patches import Ellipse, FancyBboxPatch, Rectangle

from utils.plots.base import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    RED,
    SIGNED,
    SKY,
    TINTS,
    draw_cells,
    draw_cube,
    draw_tensor,
    draw_tokens,
    name_axes,
    new,
    show,
    visible,
)
from utils.plots.charts import matrices

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


def cubes(groups, sizes, alt):
    """Chapter 10: a (B, T, C) tensor for each of {title: (b, t, c)}, with one group of numbers in orange; None takes the whole axis."""
    fig, axes = new(5.4 * len(groups), 5, columns=len(groups), squeeze=False)
    for ax, (title, group) in zip(axes[0], groups.items()):
        draw_cube(ax, title, group, sizes)
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
