"""Chapters 00 to 03: a few first ideas, the text, its tokens, the split, and batches."""

from utils.plots.base import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, RED, TINTS, YELLOW, draw_tokens, name_axes, new, show, visible


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
