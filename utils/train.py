"""Measuring a model's loss, and training it. Chapters 04, 06 and 11.

``python -m utils.train --preset cpu`` trains chapter 11's GPT from the terminal.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from utils import checkpoint
from utils.data import ROOT, CharTokenizer, get_batch, is_original, load_text, train_val_split
from utils.model import GPT, GPTConfig

LADDER = ROOT / "data" / "ladder.json"   # the validation loss each chapter should reach, and last reached

PRESETS = {
    # About two minutes on one CPU core.
    "cpu": {
        "shape": {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 96},
        "steps": 1200, "batch_size": 24, "lr": 3e-3,
    },
    # The lecture's, for a GPU.
    "lecture": {
        "shape": {"block_size": 256, "n_layer": 6, "n_head": 6, "n_embd": 384, "dropout": 0.2},
        "steps": 5000, "batch_size": 64, "lr": 3e-4,
    },
}


def pick_device():
    """The fastest device there is: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@torch.no_grad()
def estimate_loss(model, splits, batch_size, block_size, eval_iters=200, generator=None):
    """The mean loss over some random batches of each split, in nats per token: {name: loss}.

    ``splits`` is {name: ids (N,)}. The model is measured in eval mode, then back in train mode.
    """
    device = next(model.parameters()).device
    model.eval()
    means = {}
    for name, ids in splits.items():
        losses = torch.zeros(eval_iters)
        for k in range(eval_iters):
            _, loss = model(*get_batch(ids, batch_size, block_size, generator=generator, device=device))
            losses[k] = loss.item()
        means[name] = losses.mean().item()
    model.train()
    return means


@torch.no_grad()
def evaluate(model, ids, block_size=None):
    """The mean loss over all of ids (N,), in nats per token: windows side by side, in order.

    No chance in it: the same model gives the same number. ``block_size`` is the model's own
    unless given. The model is left in eval mode.
    """
    T = block_size or model.block_size
    n = (len(ids) - 1) // T   # whole windows; the last target is one further
    if n < 1:
        raise ValueError(f"{len(ids)} ids are too few for one window of {T} and its last target; {T + 1} are needed")
    x = ids[: n * T].view(n, T)            # (n, T)
    y = ids[1 : n * T + 1].view(n, T)      # (n, T), one step later
    device = next(model.parameters()).device
    model.eval()
    total = 0.0
    for xb, yb in zip(x.split(256), y.split(256)):   # at most 256 windows at a time, for the memory
        _, loss = model(xb.to(device), yb.to(device))
        total += loss.item() * len(xb)
    return total / n


def compare(chapter, val_loss, text):
    """Hold a chapter's final loss against its band in data/ladder.json. Raises AssertionError outside it.

    A loss below the band is as suspicious as one above: perhaps the model sees the future.
    A text other than tiny Shakespeare has no band, and the line says so.
    """
    rung = json.loads(LADDER.read_text())[chapter]
    print(f"validation loss {val_loss:.4f}", end="   ")
    if not is_original(text):
        print("not compared: this is not tiny Shakespeare")
        return
    low, high = rung["band"]
    assert low <= val_loss <= high, f"{val_loss:.4f} is outside {low} to {high}, where chapter {chapter} should end"
    print(f"within {low} to {high}" + (f"; the lecture has {rung['lecture']}" if rung["lecture"] else ""))


def train(
    model, train_ids, val_ids, *, steps, batch_size=32, lr=1e-3, eval_every=500, eval_iters=50, seed=1337,
    out=None, tokenizer=None, resume=False,
):
    """Train in place with AdamW; a list of {"step", "train", "val"}, one for each look at the losses.

    The batches depend on ``seed`` alone, not on what ran before, nor on how often one looks.
    With a folder ``out`` (and the tokenizer) the best model so far is kept there as
    best.safetensors, and resume.pt holds what ``resume=True`` needs to go on.
    The model is left in eval mode.
    """
    if out is not None and tokenizer is None:
        raise ValueError("a checkpoint in out needs the tokenizer too, or nobody could read what the model writes")
    block_size, device = model.block_size, next(model.parameters()).device
    # fused does AdamW's arithmetic in one pass: the same steps, a quarter less time here.
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=device.type in ("cpu", "cuda"))
    torch.manual_seed(seed)   # for dropout
    batches = torch.Generator().manual_seed(seed)
    first, history = 0, []
    if resume:
        state = checkpoint.load_state(Path(out) / "resume.pt", model, optimizer)
        first, history = state["step"], state["history"]
        batches.set_state(state["batches"])
        torch.set_rng_state(state["dropout"])
        if first >= steps:
            raise ValueError(f"this run is already at step {first}: to go on, ask for more than {steps} steps")
    start = time.perf_counter()
    model.train()
    try:
        for step in range(first + 1, steps + 1):
            _, loss = model(*get_batch(train_ids, batch_size, block_size, generator=batches, device=device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if step % eval_every == 0 or step == steps:
                looks = torch.Generator().manual_seed(seed + 1)   # the same looks each time: less noise between them
                losses = estimate_loss(
                    model, {"train": train_ids, "val": val_ids}, batch_size, block_size, eval_iters, generator=looks
                )
                history.append({"step": step, **losses})
                pace = (time.perf_counter() - start) / (step - first)
                print(
                    f"step {step:5d} of {steps}   train {losses['train']:.3f}   val {losses['val']:.3f}   "
                    f"{pace * 1000:.0f} ms a step, {pace * (steps - step):.0f} s left", flush=True,
                )
                if out is not None:
                    _keep(Path(out), model, optimizer, tokenizer, history, batches)
    except KeyboardInterrupt:
        kept = f"; the best model so far is in {Path(out) / 'best.safetensors'}" if out and history else ""
        print(f"\nstopped by hand after step {step - 1}{kept}", flush=True)
        raise
    model.eval()
    return history


def _keep(out, model, optimizer, tokenizer, history, batches):
    """Store the state to go on from, and the model itself if it is the best so far."""
    checkpoint.save_state(
        out / "resume.pt", model, optimizer, step=history[-1]["step"], history=history,
        batches=batches.get_state(), dropout=torch.get_rng_state(),
    )
    if history[-1]["val"] == min(look["val"] for look in history):
        checkpoint.save(out / "best.safetensors", model, tokenizer, **history[-1])
    (out / "log.json").write_text(json.dumps(history, indent=1) + "\n")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m utils.train", description="Train a GPT on tiny Shakespeare.")
    parser.add_argument("--preset", choices=PRESETS, default="cpu", help="shape and settings (default: cpu)")
    parser.add_argument("--steps", type=int, help="train this many steps instead of the preset's")
    parser.add_argument("--out", type=Path, help="folder for the checkpoints (default: runs/PRESET)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    args = parser.parse_args(argv)
    try:
        return _run(args)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(args):
    preset = PRESETS[args.preset]
    out = args.out or Path("runs") / args.preset
    steps = preset["steps"] if args.steps is None else args.steps
    if steps < 1:
        raise ValueError(f"--steps is {steps}, but training takes at least 1")
    if args.resume != (out / "resume.pt").exists():
        raise ValueError(
            f"nothing to resume: there is no resume.pt in {out}; leave out --resume" if args.resume
            else f"{out} holds an earlier run: go on with it by --resume, or name another folder with --out"
        )
    text = load_text()
    tokenizer = CharTokenizer(text)
    train_ids, val_ids = train_val_split(torch.tensor(tokenizer.encode(text)))
    torch.manual_seed(1337)
    model = GPT(GPTConfig(tokenizer.vocab_size, **preset["shape"])).to(pick_device())
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {pick_device()}; checkpoints go to {out}")
    train(
        model, train_ids, val_ids, steps=steps, batch_size=preset["batch_size"], lr=preset["lr"],
        eval_every=max(1, steps // 10), out=out, tokenizer=tokenizer, resume=args.resume,
    )
    best, _, _ = checkpoint.load(out / "best.safetensors")
    print(
        f"\nbest model: {evaluate(best, val_ids):.4f} over the whole validation split, in {out / 'best.safetensors'}\n"
    )
    start = torch.tensor([tokenizer.encode("\n")])   # (1, 1)
    print(tokenizer.decode(best.generate(start, 1500)[0].tolist()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
