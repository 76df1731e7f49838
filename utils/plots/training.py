"""Chapters 13 and 15 to 18, and the benchmark: what training costs, what it learns from, and what comes of it."""

import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import MaxNLocator

from utils.plots.base import BLUE, COLOURS, GREY, INK, ORANGE, PALE, RED, SKY, TINTS, draw_rows, draw_tokens, new, show


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
        draw_rows(ax, names if ax is axes[0][0] else [""] * len(names))
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
