"""How fast the course is, and what it costs: ``python -m tests.bench``, or ``--quick`` for a minute-long form.

Everything is measured in one run on one machine, the candidates in turn, each several times;
the medians go into data/benchmark.json with hardware, versions and date, and are printed as
tables. ``--notebooks`` runs every page and adds its time and memory to the stored file. Nothing of
this is a test: what a clock says depends on the machine, and on what else it does.
"""

import argparse
import contextlib
import io
import json
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from tests import refresh
from tests.notebooks import CHAPTERS
from utils import plots, sample
from utils.checkpoint import load_pretrained, made_with, write_aside, write_json
from utils.data import ROOT, CharTokenizer, get_batch, load_text, train_val_split
from utils.model import GPT, GPTConfig
from utils.nanogpt import NanoGPT, NanoGPTConfig
from utils.train import PRESETS, evaluate, pick_device, recipe, train

RESULTS = ROOT / "data" / "benchmark.json"
TARGET = 1.8857   # where nanoGPT's own CPU recipe ends, over the whole validation split


class TorchLayers(nn.Module):
    """The same shape from PyTorch's own layers: ids (B, T) → logits (B, T, V)."""

    def __init__(self, vocab_size, block_size, n_layer, n_head, n_embd, **_):
        super().__init__()
        self.token_embedding, self.position_embedding = nn.Embedding(vocab_size, n_embd), nn.Embedding(block_size, n_embd)
        layer = nn.TransformerEncoderLayer(n_embd, n_head, 4 * n_embd, 0.0, "gelu", batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, n_layer, nn.LayerNorm(n_embd), enable_nested_tensor=False)
        self.lm_head = nn.Linear(n_embd, vocab_size)

    def forward(self, idx, targets):
        T = idx.shape[1]
        x = self.token_embedding(idx) + self.position_embedding(torch.arange(T, device=idx.device))   # (B, T, C)
        mask = nn.Transformer.generate_square_subsequent_mask(T, device=idx.device)                   # (T, T)
        logits = self.lm_head(self.body(x, mask, is_causal=True))                                     # (B, T, V)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def hugging_face(vocab_size, block_size, n_layer, n_head, n_embd, **_):
    """The same shape as an independent GPT-2; called with ids and labels."""
    from transformers import GPT2Config, GPT2LMHeadModel
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    shape = {"vocab_size": vocab_size, "n_positions": block_size, "n_embd": n_embd, "n_layer": n_layer, "n_head": n_head}
    model = GPT2LMHeadModel(GPT2Config(**shape, use_cache=False, **dropout))
    model.loss_type = "ForCausalLM"
    return lambda idx, targets: (None, model(idx, labels=idx).loss), model


def candidate(name, preset):
    """(forward, model) of "ours", "PyTorch's layers" or "Hugging Face" in a preset's shape."""
    shape = {"vocab_size": 65, **preset["shape"]}
    if name == "Hugging Face":
        return hugging_face(**shape)
    build, config = preset["model"]
    model = build(config(**shape)) if name == "ours" else TorchLayers(**shape)
    return model, model


GROWTH = {   # what grows, and through which values; the rest stays as in the base
    "T": (64, 128, 256, 512), "C": (64, 128, 256, 512), "layers": (2, 4, 8, 16), "batch": (4, 8, 16, 32, 64),
}


def preset_of(name):
    """The preset called ``name``; or for "T=256" and the like the base of ``growth`` with that number changed."""
    if "=" not in name:
        return PRESETS[name]
    what, value = name.split("=")
    n = {"T": 128, "C": 128, "layers": 4, "batch": 12, what: int(value)}
    shape = {"block_size": n["T"], "n_layer": n["layers"], "n_head": 4, "n_embd": n["C"], "tied": False}
    return {"model": (NanoGPT, NanoGPTConfig), "shape": shape, "batch_size": n["batch"], "lr": 1e-3}


def megabytes(who):
    """The most memory that this process, or the largest of its children, has held."""
    status = Path("/proc/self/status")   # on Linux ru_maxrss begins with what the parent held
    if who == resource.RUSAGE_SELF and status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1e3
    return resource.getrusage(who).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def one_training(preset, name, seconds):
    """In a process of its own, for its own peak of memory: tokens per second and megabytes."""
    preset = preset_of(preset)
    before = megabytes(resource.RUSAGE_SELF)
    torch.manual_seed(1337)
    forward, model = candidate(name, preset)
    B, T = preset["batch_size"], preset["shape"]["block_size"]
    how = recipe(preset, model, 1000) if name == "ours" else {}
    optimizer = how.get("optimizer") or torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    x = torch.randint(65, (B, T))   # (B, T)

    def step():
        _, loss = forward(x, x)
        loss.backward()
        for each in optimizer if isinstance(optimizer, list) else [optimizer]:
            each.step()
        model.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    n, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        n += 1
    pace = (time.perf_counter() - start) / n
    return {"tokens_per_second": round(B * T / pace), "megabytes": round(megabytes(resource.RUSAGE_SELF) - before)}


def in_turn(candidates, repeats, seconds):
    """{(preset, model): medians of ``one_training``}: in turn, so that a machine that slows down slows them all."""
    found = {each: [] for each in candidates}
    for _ in range(repeats):
        for preset, model in candidates:
            found[preset, model].append(_apart("--one", preset, model, str(seconds)))
    return {
        each: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for each, runs in found.items()
    }


def _apart(*args):
    """What another process of this program prints as its last line."""
    said = subprocess.run([sys.executable, "-m", "tests.bench", *args], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return json.loads(said.splitlines()[-1])


def trainings(repeats, seconds):
    names = ("ours", "PyTorch's layers", "Hugging Face")
    candidates = [(preset, name) for preset in ("cpu", "nanogpt-cpu", "better-cpu") for name in names]
    return [{"preset": preset, "model": name} | row for (preset, name), row in in_turn(candidates, repeats, seconds).items()]


def growth(repeats, seconds):
    """Milliseconds of a training step, and megabytes, against T, C, layers and batch; the exponents of power laws through them."""
    found = in_turn([(f"{what}={value}", "ours") for what, values in GROWTH.items() for value in values], repeats, seconds)
    rows = {}
    for what, values in GROWTH.items():
        rows[what] = {"values": values, "ms": [], "megabytes": []}
        for value in values:
            name = f"{what}={value}"
            tokens = preset_of(name)["batch_size"] * preset_of(name)["shape"]["block_size"]
            rows[what]["ms"].append(round(1000 * tokens / found[name, "ours"]["tokens_per_second"], 1))
            rows[what]["megabytes"].append(found[name, "ours"]["megabytes"])
        rows[what]["exponents"] = {key: round(exponent(values, rows[what][key]), 2) for key in ("ms", "megabytes")}
    return rows


def exponent(xs, ys):
    """p of the power law y = c · x^p that is nearest to the points, as their logarithms lie."""
    logs = torch.tensor([xs, ys]).log()                        # (2, points)
    x, y = logs - logs.mean(dim=1, keepdim=True)               # (points,) each
    return (x @ y / (x @ x)).item()


def to_a_loss(ids, steps_of):
    """Train presets to the end: seconds, and the loss over the whole validation split."""
    rows = []
    for preset, steps in steps_of:
        torch.manual_seed(1337)
        settings = PRESETS[preset]
        model = NanoGPT(NanoGPTConfig(65, **settings["shape"]))
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            train(
                model, *ids, steps=steps, batch_size=settings["batch_size"], eval_every=steps, eval_iters=1,
                **recipe(settings, model, steps),
            )
        seconds = time.perf_counter() - start
        rows.append({"preset": preset, "steps": steps, "seconds": round(seconds, 1), "val": round(evaluate(model, ids[1]), 4)})
    return rows


def median_seconds(works, repeats):
    """{name: median seconds} of several works, in turn."""
    times = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def generation(lengths, repeats):
    """Tokens per second at the lecture's size, by chapter 11's model and generate, by chapter 13's, and with the cache."""
    torch.manual_seed(1337)
    shape = {**PRESETS["lecture"]["shape"], "dropout": 0.0}
    gpt = GPT(GPTConfig(65, **shape)).eval()
    batched, start, rows = NanoGPT.from_heads(gpt), torch.zeros(1, 1, dtype=torch.long), []
    for n in lengths:
        seconds = median_seconds({
            "lecture's generate": lambda n=n: gpt.generate(start, n),
            "batched heads": lambda n=n: sample.generate(batched, start, n, cached=False),
            "with the cache": lambda n=n: sample.generate(batched, start, n),
        }, repeats)
        rows.append({"tokens": n} | {name: round(n / s, 1) for name, s in seconds.items()})
    return rows


def small_things(text, ids, repeats):
    """Seconds of what every page does."""
    tokenizer = CharTokenizer(text)
    imports = "import time, torch; s = time.perf_counter(); import {}; print(time.perf_counter() - s)"

    def importing(module):
        said = subprocess.run([sys.executable, "-c", imports.format(module)], capture_output=True, text=True, check=True, cwd=ROOT)
        return float(said.stdout)

    seconds = median_seconds({
        "get_batch, 64 × 256": lambda: get_batch(ids[0], 64, 256), "encode the whole text": lambda: tokenizer.encode(text),
        "load_text": load_text, "load_pretrained": load_pretrained,
    }, repeats)
    for module in ("utils.data", "utils.train"):
        seconds[f"import {module}, without torch's own"] = statistics.median(importing(module) for _ in range(repeats))
    return {name: float(f"{s:.2g}") for name, s in seconds.items()}


def one_notebook(name):
    """Run a page in a fresh kernel and leave it as it is: seconds by the clock and of computing, and megabytes."""
    path, ladder = ROOT / "notebooks" / f"{name}.ipynb", ROOT / "data" / "ladder.json"
    before = path.read_bytes(), ladder.read_bytes()
    try:
        seconds = refresh.refresh(path)
    finally:
        path.write_bytes(before[0])
        ladder.write_bytes(before[1])
    kernel = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "page": name, "seconds": round(seconds), "computing": round(kernel.ru_utime + kernel.ru_stime),
        "megabytes": round(megabytes(resource.RUSAGE_CHILDREN)),
    }


def table(rows):
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{value:,}" if isinstance(value, (int, float)) else value for value in row.values()) + " |")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the course's speed on this machine.")
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer repeats and no long training")
    parser.add_argument("--notebooks", action="store_true", help="run each page and add its time and memory to the stored results")
    parser.add_argument("--one", nargs=3, metavar=("PRESET", "MODEL", "SECONDS"), help=argparse.SUPPRESS)
    parser.add_argument("--page", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one or args.page:
        print(json.dumps(one_notebook(args.page) if args.page else one_training(*args.one[:2], float(args.one[2]))))
        return 0
    if args.notebooks:
        found = json.loads(RESULTS.read_text(encoding="utf-8"))
        found["notebooks"] = [_apart("--page", path.stem) for path in CHAPTERS]
        table(found["notebooks"])
        write_json(RESULTS, found)
        return 0
    text, repeats = load_text(), 1 if args.quick else 3
    ids = train_val_split(torch.tensor(CharTokenizer(text).encode(text)))
    found = {"about": {**made_with(), "device": pick_device(), "python": platform.python_version()}}
    found["on a GPU"] = "not measured"   # the lecture's size and the best model; none was at hand
    found["training"] = trainings(repeats, 1 if args.quick else 4)
    table(found["training"])
    if not args.quick:
        found["to a loss"] = to_a_loss(ids, (("nanogpt-cpu", 2000), *(("better-cpu", n) for n in (150, 350, 800))))
        table(found["to a loss"])
    found["generation"] = generation((32, 64) if args.quick else (64, 128, 256), repeats)
    table(found["generation"])
    found["small things"] = small_things(text, ids, repeats)
    table([{"what": name, "seconds": s} for name, s in found["small things"].items()])
    if args.quick:
        print("not stored: this was the quick form")
        return 0
    found["growth"] = growth(3, 1)
    table([{"of": what, "time": f"{what}^{e['ms']}", "memory": f"{what}^{e['megabytes']}"}
           for what, e in ((what, row["exponents"]) for what, row in found["growth"].items())])
    _, picture = plots.taken(plots.growth, found["growth"])
    write_aside(RESULTS.with_suffix(".png"), lambda part: part.write_bytes(picture[0]))
    write_json(RESULTS, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
