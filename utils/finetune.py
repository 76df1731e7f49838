"""Pretraining on a larger text, fine-tuning on tiny Shakespeare, and what it is worth. Chapter 15.

``python -m utils.finetune`` makes data/finetune.json again, about 21 minutes on one CPU core;
``--data FILE`` takes a text of your own in place of the King James Bible.
"""

import argparse
import copy
import json
import math
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch

from utils import checkpoint
from utils.data import ROOT, CharTokenizer, is_original, load_text, read_text, train_val_split
from utils.nanogpt import NanoGPT, NanoGPTConfig
from utils.train import adamw, estimate_loss, evaluate, train, warmup_cosine

RESULTS = ROOT / "data" / "finetune.json"

SHAPE = {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 96, "tied": False}
LONG, SHORT = 800, 200        # steps of pretraining, and of fine-tuning
RATE, LOWER = 3e-3, 1e-3      # learning rate from scratch, and after pretraining
AMOUNTS = {"all": 1, "a tenth": 10, "a hundredth": 100}   # of Shakespeare's training text
REHEARSED = 0.2               # the share of the first text, where some of it is mixed in

# What a text may be written with, as tiny Shakespeare would have it.
PLAIN = str.maketrans({"—": "--", "–": "-", "‘": "'", "’": "'", "“": "'", "”": "'", '"': "'", "\t": " "})


def clean(text, chars):
    """The text with nothing but ``chars`` in it, and how often each other character was left out."""
    text = text.translate(PLAIN)
    lost = Counter({ch: count for ch, count in Counter(text).items() if ch not in chars})
    return text.translate({ord(ch): None for ch in lost}), lost


def spread_split(ids, piece=10_000, every=40):
    """Cut ids (N,) into pieces; each ``every``-th is to be tested on, the others to learn from.

    Raises ValueError where there are not so many pieces.
    """
    if len(ids) < piece * every:
        raise ValueError(
            f"{len(ids):,} characters are too few: every {every}th piece of {piece:,} is kept for testing, so take a text "
            f"of at least {piece * every:,}, or smaller pieces"
        )
    pieces = ids.split(piece)                                               # (piece,) each
    learn = [p for i, p in enumerate(pieces) if i % every != every - 1]
    return torch.cat(learn), torch.cat(pieces[every - 1 :: every])          # (N_train,), (N_val,)


def fit(model, train_ids, val_ids, tokenizer, *, steps, lr, seed=1337):
    """Train in place, with ten looks at the losses: (the model as it was at the best look, all looks)."""
    with tempfile.TemporaryDirectory() as out:
        history = train(
            model, train_ids, val_ids, steps=steps, batch_size=16, seed=seed,
            eval_every=math.ceil(steps / 10), eval_iters=10, out=out, tokenizer=tokenizer,
            optimizer=adamw(model, lr), schedule=warmup_cosine(steps, steps // 10), clip=1.0,
        )
        best, _, _ = checkpoint.load(Path(out) / "best.safetensors")
    return best, history


def rehearsal(train_ids, first_ids, share):
    """Ids of both texts, so many of the first, from all over it, that they are ``share`` of the whole."""
    n = int(len(train_ids) * share / (1 - share))
    pieces = first_ids.split(1000)                                          # (1000,) each
    chosen = pieces[:: max(1, len(first_ids) // max(n, 1))]
    return torch.cat([train_ids, *chosen])                                  # (N + about n,)


def some_of(ids, parts, seed):
    """One of ``parts`` equal parts of ids (N,), from a place that the seed decides."""
    n = len(ids) // parts
    start = torch.randint(len(ids) - n + 1, (), generator=torch.Generator().manual_seed(seed)).item()
    return ids[start : start + n]                                           # (n,)


def one_seed(seed, tokenizer, first, shakespeare, steps):
    """Everything that is measured with one seed; both texts as (train ids, val ids)."""
    first_ids, first_val = first
    train_ids, val_ids = shakespeare
    long, short = steps

    def new():
        torch.manual_seed(seed)
        return NanoGPT(NanoGPTConfig(tokenizer.vocab_size, **SHAPE))

    def losses(model):
        return {"shakespeare": evaluate(model, val_ids), "first": evaluate(model, first_val)}

    def run(model, ids, steps, lr):
        return fit(model, ids, val_ids, tokenizer, steps=steps, lr=lr, seed=seed)[0]

    pretrained, _ = fit(new(), first_ids, first_val, tokenizer, steps=long, lr=RATE, seed=seed)
    looks = estimate_loss(pretrained, {"train": first_ids, "val": first_val}, 64, SHAPE["block_size"], 50)
    found = {"seed": seed, "before": losses(pretrained), "gap": looks, "amounts": {}, "rates": {}}
    for name, parts in AMOUNTS.items():
        some = some_of(train_ids, parts, seed)
        tuned = run(copy.deepcopy(pretrained), some, short, LOWER)
        found["amounts"][name] = {
            "fine-tuned": losses(tuned),
            "from scratch, as many steps": losses(run(new(), some, short, RATE)),
            "from scratch, as much computing": losses(run(new(), some, long + short, RATE)),
        }
    for rate in (RATE, LOWER / 3):
        found["rates"][f"{rate:g}"] = losses(run(copy.deepcopy(pretrained), train_ids, short, rate))
    found["rates"][f"{LOWER:g}"] = found["amounts"]["all"]["fine-tuned"]
    both = rehearsal(train_ids, first_ids, REHEARSED)
    found["rehearsed"] = losses(run(copy.deepcopy(pretrained), both, short, LOWER))
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m utils.finetune", description="What is pretraining worth? Chapter 15's results.")
    parser.add_argument("--data", type=Path, help="a larger text of your own, UTF-8 (default: the King James Bible)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1337, 1, 2], help="one whole experiment for each (default: 1337 1 2)")
    parser.add_argument("--steps", type=int, nargs=2, default=[LONG, SHORT], metavar=("LONG", "SHORT"), help="of the two trainings")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of results; seeds that it has are not run again")
    args = parser.parse_args(argv)
    try:
        return _run(args)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(args):
    text = load_text()
    larger = read_text(args.data) if args.data else load_text("kjv")
    if not is_original(text) or not (args.data or is_original(larger, "kjv")):
        raise ValueError("without the real texts there is nothing to measure; connect once, or see data/README.md")
    tokenizer = CharTokenizer(text)
    larger, lost = clean(larger, tokenizer.chars)
    if lost:
        print(f"left out of the larger text, since tiny Shakespeare has no such character: {dict(lost.most_common())}")
    first = spread_split(torch.tensor(tokenizer.encode(larger)))
    shakespeare = train_val_split(torch.tensor(tokenizer.encode(text)))
    made = {"text": args.data.name if args.data else "kjv", "steps": list(args.steps)}
    results = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {"made": made, "runs": []}
    if any(results["made"][key] != made[key] for key in made):
        raise ValueError(f"{args.out} holds results of another text or other steps; name another file with --out")
    results["made"] |= checkpoint.made_with()
    for seed in args.seeds:
        if seed in [run["seed"] for run in results["runs"]]:
            continue
        start = time.process_time()
        with redirect_stdout(StringIO()):   # the looks of some fifteen trainings
            run = one_seed(seed, tokenizer, first, shakespeare, args.steps)
        results["runs"].append({**run, "cpu_seconds": round(time.process_time() - start)})
        checkpoint.write_json(args.out, results)
        print(f"seed {seed}: {results['runs'][-1]['cpu_seconds']} s, stored in {args.out}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
