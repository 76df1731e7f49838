"""What each of chapter 18's features brings: every one alone, three seeds, on the model of chapter 13.

``python -m utils.features`` trains all of it, about an hour on one CPU core, and stores it in
data/features.json. It stores after every run, and goes on where it was stopped.

The file has "about" (hardware, versions, date, steps), "pace", seconds a step of each feature, and
"runs", a list of {"part", "name", "seed", "steps", "val"}, with ``val`` over the whole validation
split. Its parts:

    equal steps   each feature alone, and all together, at STEPS steps
    equal time    the same, with as many steps as fit into the time the base model takes; no
                  run of its own where that is less than 3 % from STEPS
    race          preset "nanogpt-cpu" to its end, and "better-cpu" in the same time, half and a quarter of it
"""

import json
import platform
import sys
import time

import torch
from torch.optim.swa_utils import AveragedModel

from utils.checkpoint import made_with, write_aside
from utils.data import ROOT, CharTokenizer, get_batch, is_original, load_text, train_val_split
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
    "PyTorch's start": ({"init": "pytorch"}, {}),
    "zero-initialized": ({"init": "zero"}, {}),   # with PyTorch's start for the rest
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


def build(shape, seed):
    torch.manual_seed(seed)
    return NanoGPT(NanoGPTConfig(**{**BASE["shape"], **shape}))


def paces(wanted, rounds=20, steps=5):
    """Seconds a step of the wanted features, or of "better-cpu", of this process's work: the least of some rounds.

    In each round every one has its turn, because a machine is slower at one minute than at another, and each must have both;
    the least, because what else a machine does can only add.
    """
    ids = torch.randint(BASE["shape"]["block_size"], (10_000,))
    works = {name: (shape, base_with(changes)) for name, (shape, changes) in FEATURES.items() if name in wanted}
    if "better-cpu" in wanted:
        works["better-cpu"] = PRESETS["better-cpu"]["shape"], of_preset(PRESETS["better-cpu"])
    models = {name: build(shape, 0) for name, (shape, _) in works.items()}
    hows = {name: how(models[name], STEPS) for name, (_, how) in works.items()}
    seconds = {name: [] for name in works}
    for _ in range(rounds):
        for name, model in models.items():
            x, y = get_batch(ids, hows[name]["batch_size"], model.block_size)
            optimizers = hows[name]["optimizer"]
            mean = AveragedModel(model) if hows[name]["average"] else None
            start = time.process_time()
            for _ in range(steps):
                model.zero_grad(set_to_none=True)
                model(x, y)[1].backward()
                if "clip" in hows[name]:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), hows[name]["clip"])
                for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
                    optimizer.step()
                if mean:
                    mean.update_parameters(model)
            seconds[name].append((time.process_time() - start) / steps)
    return {name: round(min(found), 5) for name, found in seconds.items()}


def run(shape, how, steps, seed, ids):
    """Train one model; its loss over the whole validation split."""
    train_ids, val_ids = ids
    model = build(shape, seed)
    train(model, train_ids, val_ids, steps=steps, eval_every=steps, eval_iters=1, seed=seed, **how(model, steps))
    return round(evaluate(model, val_ids), 4)


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


def todo(runs, pace):
    """One after the other, what is still to be trained: (part, name, seed, steps), shape, how."""
    done = {(r["part"], r["name"], r["seed"]) for r in runs}
    for part in ("equal steps", "equal time"):
        for seed in SEEDS:
            for name, (shape, changes) in FEATURES.items():
                steps = STEPS if part == "equal steps" else round(STEPS * pace["base"] / pace[name])
                if (part, name, seed) not in done and (part == "equal steps" or abs(steps - STEPS) > 0.03 * STEPS):
                    yield (part, name, seed, steps), shape, base_with(changes)
    for seed in SEEDS:
        for name, (preset, share) in RACE.items():
            if ("race", name, seed) not in done:
                faster = 1 if preset == "nanogpt-cpu" else pace["base"] / pace["better-cpu"]
                yield ("race", name, seed, round(share * BASE["steps"] * faster)), PRESETS[preset]["shape"], of_preset(PRESETS[preset])


def store(about, pace, runs):
    rows = ",\n".join("  " + json.dumps(r, ensure_ascii=False) for r in runs)   # a run a line, for whoever reads the file
    written = (
        f'{{\n "about": {json.dumps(about)},\n "pace": {json.dumps(pace, ensure_ascii=False)},\n "runs": [\n{rows}\n ]\n}}\n'
    )
    write_aside(RESULTS, lambda part: part.write_text(written, encoding="utf-8"))


def main():
    text = load_text()
    if not is_original(text):
        print("error: tiny Shakespeare cannot be had, and only its results are stored", file=sys.stderr)
        return 2
    ids = train_val_split(torch.tensor(CharTokenizer(text).encode(text)))
    torch.set_num_threads(1)
    about = {**made_with(), "python": platform.python_version(), "steps": STEPS}
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"runs": []}
    pace, runs = before.get("pace", {}), before["runs"]
    missing = {*FEATURES, "better-cpu"} - {*pace}
    if missing:   # beside the base, so that all are measured at the same speed of the machine
        found = paces({*missing, "base"})
        scale = pace.get("base", found["base"]) / found["base"]
        pace = {name: round(seconds * scale, 5) for name, seconds in found.items()} | pace
    for (part, name, seed, steps), shape, how in todo(runs, pace):
        runs.append({"part": part, "name": name, "seed": seed, "steps": steps, "val": run(shape, how, steps, seed, ids)})
        store(about, pace, runs)
        print(runs[-1], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
