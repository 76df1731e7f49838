"""Every explorer of the course: some controls and one picture that follows them.

An explorer is a function without arguments. It draws with the function that drew the still
picture on the page before it, and needs nothing but the core of ipywidgets (7.7 or later).
"""

import asyncio
import base64
import html

import torch
from ipywidgets import HTML, Dropdown, IntSlider, Layout, SelectionSlider, VBox

from utils import plots


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
SCALES = {"by nothing": lambda H: 1, "by √H": lambda H: H**0.5, "by √C (C = 32)": lambda H: C**0.5, "by H": lambda H: H}


def softmax_scale():
    """Chapter 06: the head size and the divisor of the scores against the weights and the slopes of softmax."""
    def draw(size, divide, seed):
        q, *k = torch.randn(9, 1024, generator=torch.Generator().manual_seed(seed))[:, :size]   # (H,) each
        scores = torch.stack(k) @ q / SCALES[divide](size)   # (T, H) @ (H,) → (T,)
        weights = scores.softmax(dim=-1)   # (T,)
        plots.sharpening(
            scores, f"H = {size}, divided {divide}",
            f"Eight scores of a head of size {size}, divided {divide}; the weights that softmax makes of them, the largest "
            f"{weights.max():.2f}; and the slopes of softmax, which add up to {(weights * (1 - weights)).sum():.3f}.",
        )

    return Explorer(
        "Softmax and √H. Run this cell, then drag the head size and choose what divides the scores.", draw,
        size=SelectionSlider(options=[2**n for n in range(11)], value=16, description="head size H"),
        divide=Dropdown(options=list(SCALES), value="by nothing", description="divide scores"),
        seed=IntSlider(value=0, min=0, max=20, description="other numbers"),
    )
