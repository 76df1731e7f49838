"""Every explorer of the course: some controls and one picture that follows them.

An explorer is a function without arguments. It draws with the function that drew the still
picture on the page before it, and needs nothing but the core of ipywidgets (7.7 or later).
"""

import asyncio
import base64
import html

import torch
from ipywidgets import HTML, Dropdown, FloatSlider, IntSlider, Layout, SelectionSlider, Text, VBox

from utils import checkpoint, plots, snapshots
from utils.sample import generate


class Explorer(VBox):
    """Controls above, then a line of words, then the picture that ``draw(**values of the controls)`` shows.

    ``draw`` may return a sentence for the line of words. A ValueError is said there too, and
    the picture goes; nothing that a learner can choose or type leaves a traceback.
    ``about`` is what a stored page shows in the explorer's place.
    """

    def __init__(self, about, draw, **controls):
        self.about, self.draw, self.controls = about, draw, controls
        self.words, self.picture, self.waiting = HTML(), HTML(), False
        for control in controls.values():
            control.style.description_width = "9em"
            control.layout.width = "min(100%, 34em)"
            control.observe(self.changed, "value")
        super().__init__([*controls.values(), self.words, self.picture], layout=Layout(overflow="hidden"))
        self.redraw()

    def changed(self, _):
        """Redraw soon, once for all changes that come until then: a drag sends many."""
        if self.waiting:
            return
        try:
            asyncio.get_running_loop().call_later(0.02, self.redraw)
            self.waiting = True
        except RuntimeError:   # outside a notebook nothing runs later
            self.redraw()

    def redraw(self):
        self.waiting = False
        try:
            words, (png, alt) = plots.taken(self.draw, **{name: control.value for name, control in self.controls.items()})
            source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            picture = f'<img src="{source}" alt="{html.escape(alt)}" style="max-width: 100%">'
        except Exception as error:
            words, picture = str(error) if isinstance(error, ValueError) else f"This cannot be drawn ({error}).", ""
        self.words.value, self.picture.value = html.escape(words or ""), picture

    _ipython_display_ = None   # ipywidgets 7 would show the list of its parts; the bundle below is for both

    def _repr_mimebundle_(self, **_):
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {"text/plain": f"[explorer] {self.about}", "application/vnd.jupyter.widget-view+json": view}


C = 32   # of chapter 06, for the slip that divides by its root
SCALES = {"by nothing": lambda H: 1, "by √H": lambda H: H**0.5, "by √C, C = 32": lambda H: C**0.5, "by H": lambda H: H}


def softmax_scale():
    """Chapter 06: the head size and the divisor of the scores against the weights and the slopes of softmax."""
    def draw(size, divide, seed):
        q, *k = torch.randn(9, 1024, generator=torch.Generator().manual_seed(seed))[:, :size]   # (H,) each
        scores = torch.stack(k) @ q / SCALES[divide](size)   # (T, H) @ (H,) → (T,)
        weights = scores.softmax(dim=-1)   # (T,)
        plots.sharpening(
            scores, f"scores, H = {size}",
            f"Eight scores of a head of size {size}, divided {divide}; the weights that softmax makes of them, the largest "
            f"{weights.max():.2f}; and the slopes of softmax, which add up to {(weights * (1 - weights)).sum():.2f}.",
        )
        return f"Head size {size}, scores divided {divide}: the largest weight is {weights.max():.2f}."

    return Explorer(
        "Softmax and √H. Run this cell, then drag the head size and choose what divides the scores.", draw,
        size=SelectionSlider(options=[2**n for n in range(11)], value=64, description="head size H"),
        divide=Dropdown(options=list(SCALES), value="by nothing", description="divide scores"),
        seed=IntSlider(value=12, min=0, max=20, description="other numbers"),
    )


def masks():
    """Chapter 06: who hears whom, as a graph and as a matrix, for three masks."""
    def draw(mask, width, text, listener):
        if not text:
            raise ValueError("Type at least one character: each one becomes a node.")
        T = min(len(text), 8)
        tokens, listener = text[-T:], min(listener, T - 1)
        hears = torch.ones(T, T)   # (T, T)
        if mask != "encoder":
            hears = hears.tril(0)
        if mask == "window":
            hears = hears.triu(1 - width)
        count = int(hears[listener].sum())
        plots.graph(
            hears, tokens, f"Who hears whom: {mask}",
            f"{T} nodes with arrows between them, and the same as a matrix. Mask: {mask}. "
            f"Node {listener} is marked: {count} arrows end there.", listener,
        )
        cropped = f" Only the last {T} of your {len(text)} characters are taken." if len(text) > T else ""
        return f"Node {listener} hears {count} of {T}. All nodes together: {int(hears.sum())} arrows.{cropped}"

    return Explorer(
        "Masks. Run this cell, then choose who may hear whom: the graph and the matrix follow.", draw,
        mask=Dropdown(options=["causal", "window", "encoder"], description="mask"),
        width=IntSlider(value=3, min=1, max=8, description="window's width"),
        listener=IntSlider(value=5, min=0, max=7, description="orange node"),
        text=Text(value="First Ci", description="text"),
    )


NORMS = {   # which of (b, t, c) the mean runs over
    "C (layer norm)": (False, False, True), "B and T (batch norm)": (True, True, False),
    "T": (False, True, False), "B, T and C": (True, True, True),
}


def normalization():
    """Chapter 10: which numbers are normalized together, on the cube and on the numbers."""
    x = 4 + 3 * torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1337))   # (B, T, C)

    def draw(over, **at):
        group = tuple(None if taken else at[name] for taken, name in zip(NORMS[over], "btc"))
        count = x[tuple(slice(None) if g is None else g for g in group)].numel()
        plots.normalized(
            x, group, "one group of numbers",
            f"A cube with the axes B, T and C, and its numbers before and after. Mean over {over}. {count} numbers are marked: "
            "they share a mean and a standard deviation, and afterwards these are 0 and 1.",
        )
        return f"{count} numbers share one mean and one standard deviation. Groups like this: {x.numel() // count}."

    return Explorer(
        "Normalization. Run this cell, then choose the axes of the mean, and which group is marked.", draw,
        over=Dropdown(options=list(NORMS), description="mean over"),
        b=IntSlider(value=0, min=0, max=1, description="b, row of batch"),
        t=IntSlider(value=1, min=0, max=2, description="t, time"),
        c=IntSlider(value=2, min=0, max=3, description="c, channel"),
    )


def strangers(text, chars):
    """The characters of a text that are not among ``chars``, each once and quoted, the first few of them."""
    found = list(dict.fromkeys(ch for ch in text if ch not in chars))
    return " ".join(map(repr, found[:8])) + (" …" if len(found) > 8 else "")


def readable(text, chars, longest):
    """What a model can read of a typed text (\\n is a new line), and a sentence about what it cannot."""
    text = text.replace("\\n", "\n")
    kept = "".join(ch for ch in text if ch in chars)
    said = f"Left out, since no model here has met it: {strangers(text, chars)}. " if len(kept) < len(text) else ""
    if len(kept) > longest:
        said += f"Only the last {longest} of {len(kept):,} characters are read. "
    return kept[-longest:], said


def tokenizers(cut, n_merges, gpt2=None):
    """Chapter 02: a text as characters, cut by the page's byte-pair encoding, and cut by GPT-2.

    ``cut(text, n)`` gives the tokens after the first n of ``n_merges`` merges, ``gpt2`` is tiktoken's encoding or None.
    """
    chars, longest = checkpoint.load_pretrained()[1].chars, 44

    def draw(text, merges):
        if not text:
            raise ValueError("Nothing to cut: type at least one character.")
        shown = text[-longest:]
        rows = [("characters", list(shown), None), (f"{merges} merges", cut(shown, merges), None)]
        if gpt2 is not None:   # a character outside English may be cut into several tokens of bytes: each is drawn as �
            rows.append(("GPT-2", [gpt2.decode([i]) for i in gpt2.encode_ordinary(shown)], None))
        counts = ", ".join(f"{label}: {len(tokens)}" for label, tokens, _ in rows)
        plots.token_rows(rows, "The same text, cut in several ways", f"The typed text in rows of tokens. Number of tokens, {counts}.")
        strange = strangers(shown, chars)
        said = f"Only the last {longest} of {len(text):,} characters are cut. " if len(text) > longest else ""
        if strange:
            said += f"Not in our vocabulary, so without an id in the upper rows: {strange}. "
        return said + ("GPT-2 is left out: its vocabulary cannot be had here." if gpt2 is None else "")

    return Explorer(
        "Tokenizers. Run this cell, then type a text, and choose how many merges are made.", draw,
        text=Text(value="The king shall tokenize his kingdom.", description="text"),
        merges=IntSlider(value=n_merges, min=0, max=n_merges, description="merges made"),
    )


def next_character():
    """Chapter 11: how much a typed text surprises the model of each chapter, and what each expects next."""
    models, tokenizer = snapshots.chapter_models()
    models["18 · shipped model"], _, _ = checkpoint.load_pretrained()

    def draw(text, back):
        text, said = readable(text, tokenizer.chars, 64)
        ids = torch.tensor(tokenizer.encode("\n" + text))   # (T,): a new line, then the text
        chances = {name: snapshots.predictions(model, ids) for name, model in models.items()}   # (T, V) each
        back = min(back, len(text), 23)
        guesses = [tokenizer.chars[probs[-1 - back].argmax()] for probs in chances.values()]
        plots.next_characters(
            ids, chances, tokenizer.chars, back,
            "A row for each chapter's model: its surprise at each typed character, and the chances of the next one. "
            f"Best guesses from the first model to the last: {' '.join(map(repr, guesses))}.",
        )
        return said or ("" if text else "Nothing is typed: the models see a new line and nothing else.")

    return Explorer(
        "The next character. Run this cell, then type a text: every chapter's model reads along.", draw,
        text=Text(value="My lord, I will", description="text"),
        back=IntSlider(value=0, min=0, max=23, description="look back"),
    )


def attention_heads():
    """Chapter 11: every head of the trained model on a typed line, and the row of one query."""
    model, tokenizer, _ = checkpoint.load_pretrained()

    def draw(text, block, head, query):
        text, said = readable(text, tokenizer.chars, 24)
        if not text:
            raise ValueError(f"{said}Type at least one character that the model knows.")
        query = min(query, len(text) - 1)
        weights = snapshots.attention(model, torch.tensor([tokenizer.encode(text)]))[block - 1, head]   # (T, T)
        heard = weights[query].argmax().item()
        plots.listening(
            weights, text, query, f"block {block}, head {head}",
            f"The weights of one head as a lower triangle, the future hatched, and row {query} of it as bars. "
            f"{text[query]!r} at place {query} hears {text[heard]!r} at place {heard} most, with weight {weights[query, heard]:.2f}.",
        )
        return said

    return Explorer(
        "Attention. Run this cell, then type a line, and choose a head and a query.", draw,
        text=Text(value="My lord, I know my lord", description="text"),
        block=IntSlider(value=1, min=1, max=model.config.n_layer, description="block"),
        head=IntSlider(value=0, min=0, max=model.config.n_head - 1, description="head"),
        query=IntSlider(value=16, min=0, max=23, description="query (row)"),
    )


def training_steps():
    """Chapter 11: one short training, forward and back: the loss so far, a sample, and a head's attention."""
    shots, line = snapshots.training()
    steps = [shot["step"] for shot in shots]
    n_layer, n_head, _, _ = shots[0]["attention"].shape

    def draw(step, block, head):
        shot = shots[steps.index(step)]
        plots.training_shot(
            shot, line, block, head, steps[-1],
            f"After {step} steps: the validation loss so far, down to {shot['looks'][-1]['val']:.2f}; a sample of the text "
            f"that the model writes; and what head {head} of block {block} attends to.",
        )

    return Explorer(
        "A training in snapshots. Run this cell, then step forward and back, and choose a head.", draw,
        step=SelectionSlider(options=steps, value=0, description="step"),
        block=IntSlider(value=1, min=1, max=n_layer, description="block"),
        head=IntSlider(value=1, min=0, max=n_head - 1, description="head"),
    )


def sampling():
    """Chapter 14: what temperature, top-k and top-p make of the next character, and of a short sample."""
    model, tokenizer, _ = checkpoint.load_pretrained()

    def draw(text, temperature, top_k, top_p, seed):
        text, said = readable(text, tokenizer.chars, model.block_size)
        if not text:
            raise ValueError(f"{said}Type at least one character that the model knows.")
        idx = torch.tensor([tokenizer.encode(text)])                         # (1, T)
        with torch.no_grad():
            probs = model(idx)[0][0, -1].softmax(dim=-1)                     # (1, T, V) → (V,)
        how = {"temperature": round(temperature, 2), "top_k": top_k if top_k < len(probs) else None, "top_p": round(top_p, 2)}
        out = generate(model, idx, 24, **how, generator=torch.Generator().manual_seed(seed))   # (1, T + 24)
        plots.choices(tokenizer.chars, probs, **how, sample=f"{text[-14:]}→{tokenizer.decode(out[0, idx.shape[1] :].tolist())}")
        return said

    return Explorer(
        "Temperature, top-k, top-p. Run this cell, then type a text and drag: the distribution and a sample follow.", draw,
        text=Text(value="JULIET:\\nO, my ", description="text"),
        temperature=FloatSlider(value=0.8, min=0.0, max=2.0, step=0.1, description="temperature"),
        top_k=IntSlider(value=12, min=1, max=65, description="top-k"),
        top_p=FloatSlider(value=0.9, min=0.05, max=1.0, step=0.05, description="top-p"),
        seed=IntSlider(value=0, min=0, max=20, description="seed of the dice"),
    )
