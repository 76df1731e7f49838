"""What each of chapter 18's features brings: every one alone, three seeds, on the model of chapter 13.

``python -m utils.features`` trains all of it, about an hour on one CPU core, and stores it in
data/features.json. It stores after every run, and goes on where it was stopped.

The file has "about" (hardware, versions, date, steps) and "runs", a list of {"part", "name",
"seed", "steps", "val", "seconds"}: ``val`` over the whole validation split, ``seconds`` of one core's
work. Its parts:

    equal steps   each feature alone, and all together, at STEPS steps
    equal time    the same, with as many steps as fit into the time the base model takes; no
                  run of its own where that is less than 3 % from STEPS
    race          preset "nanogpt-cpu" to its end, and "better-cpu" in the same time, half and a quarter of it
"""

import json
import platform
import statistics
import sys
import time

import torch

from utils.checkpoint import write_aside
from utils.data import ROOT, CharTokenizer, is_original, load_text, train_val_split
from utils.nanogpt import NanoGPT, NanoGPTConfig
from utils.train import BETTER, PRESETS, adamw, evaluate, flat_linear, muon, recipe, train, warmup_cosine

RESULTS = ROOT / "data" / "features.json"
STEPS, SEEDS = 400, (1337, 1338, 1339)
BASE = PRESETS["nanogpt-cpu"]

FEATURES = {   # name: (settings of the model, of the training)
    "base": ({}, {}),
    "RMSNorm": ({"norm": "rms"}, {}),
    "rotary positions": ({"position": "rotary"}, {}),
    "squared ReLU": ({"activation": "relu2"}, {}),
    "SwiGLU": ({"activation": "swiglu"}, {}),
    "query–key norm": ({"qk_norm": True}, {}),
    "zero-initialized": ({"init": "zero"}, {}),
    "biases": ({"bias": True}, {}),
    "weight tying": ({"tied": True}, {}),
    "averaged weights": ({}, {"average": 0.97}),
    "flat, then linear": ({}, {"schedule": flat_linear}),
    "Muon": ({}, {"optimizer": muon}),
    "all the good ones": (BETTER, {"optimizer": lambda model, lr: muon(model, 6e-3), "schedule": flat_linear, "average": 0.97}),
}
RACE = {   # name: (preset, its share of nanogpt-cpu's time)
    "nanogpt-cpu": ("nanogpt-cpu", 1), "better-cpu": ("better-cpu", 1),
    "better-cpu, half": ("better-cpu", 1 / 2), "better-cpu, a quarter": ("better-cpu", 1 / 4),
}


def run(shape, how, steps, seed, ids):
    """Train one model: {"steps", "val", "seconds"}."""
    train_ids, val_ids = ids
    torch.manual_seed(seed)
    model = NanoGPT(NanoGPTConfig(**{**BASE["shape"], **shape}))
    start = time.process_time()   # what this process computed; what else the machine did does not count
    train(model, train_ids, val_ids, steps=steps, eval_every=steps, eval_iters=1, seed=seed, **how(model, steps))
    seconds = time.process_time() - start
    return {"steps": steps, "val": round(evaluate(model, val_ids), 4), "seconds": round(seconds, 2)}


def base_with(changes):
    """Chapter 13's training with a feature's changes, as arguments of ``train``."""
    def how(model, steps):
        schedule = changes.get("schedule")
        return {
            "batch_size": BASE["batch_size"], "clip": 1.0, "average": changes.get("average"),
            "optimizer": changes.get("optimizer", adamw)(model, BASE["lr"]),
            "schedule": schedule(steps) if schedule else warmup_cosine(steps, STEPS // 10),
        }
    return how


def of_preset(preset):
    """A preset's training, as arguments of ``train``."""
    return lambda model, steps: {"batch_size": preset["batch_size"], **recipe(preset, model, steps)}


def pace(runs, name):
    """Seconds a step of a feature or preset: the median of what was run."""
    return statistics.median(r["seconds"] / r["steps"] for r in runs if r["name"] == name)


def todo(runs):
    """One after the other, what is still to be trained: (part, name, seed, shape, how, steps)."""
    done = {(r["part"], r["name"], r["seed"]) for r in runs}
    for part in ("equal steps", "equal time"):
        for seed in SEEDS:   # the seeds outside, so that a machine that slows down slows every feature alike
            for name, (shape, changes) in FEATURES.items():
                steps = STEPS if part == "equal steps" else round(STEPS * pace(runs, "base") / pace(runs, name))
                if (part, name, seed) not in done and (part == "equal steps" or abs(steps - STEPS) > 0.03 * STEPS):
                    yield part, name, seed, shape, base_with(changes), steps
    whole = BASE["steps"] * pace(runs, "base")   # seconds that nanogpt-cpu takes
    for seed in SEEDS:
        for name, (preset, share) in RACE.items():
            if ("race", name, seed) not in done:
                steps = BASE["steps"] if preset == "nanogpt-cpu" else round(share * whole / pace(runs, "all the good ones"))
                yield "race", name, seed, PRESETS[preset]["shape"], of_preset(PRESETS[preset]), steps


def store(about, runs):
    rows = ",\n".join("  " + json.dumps(r, ensure_ascii=False) for r in runs)   # a run a line, for whoever reads the file
    written = f'{{\n "about": {json.dumps(about)},\n "runs": [\n{rows}\n ]\n}}\n'
    write_aside(RESULTS, lambda part: part.write_text(written, encoding="utf-8"))


def main():
    text = load_text()
    if not is_original(text):
        print("error: tiny Shakespeare cannot be had, and only its results are stored", file=sys.stderr)
        return 2
    ids = train_val_split(torch.tensor(CharTokenizer(text).encode(text)))
    torch.set_num_threads(1)
    about = {
        "hardware": "2-core CPU, one thread", "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"), "steps": STEPS,
    }
    runs = json.loads(RESULTS.read_text(encoding="utf-8"))["runs"] if RESULTS.exists() else []
    for part, name, seed, shape, how, steps in todo(runs):
        runs.append({"part": part, "name": name, "seed": seed, **run(shape, how, steps, seed, ids)})
        store(about, runs)
        print(runs[-1], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
