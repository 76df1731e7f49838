"""What the explorers of utils/widgets.py draw at every move; pages show some of it too."""

import matplotlib
import torch
from matplotlib.collections import PatchCollection
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import MaxNLocator

from utils.plots.base import (
    BLUE,
    FORBIDDEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    RED,
    SIGNED,
    TINTS,
    draw_cube,
    draw_level,
    draw_tokens,
    new,
    show,
    visible,
)
from utils.plots.charts import attention, draw_matrix
from utils.sample import next_probs


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
