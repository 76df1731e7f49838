"""Measuring a model's loss, and training it. Chapters 04, 06, 11, 13 and 18.

``python -m utils.train --preset cpu`` trains chapter 11's GPT from the terminal, and
``torchrun --nproc_per_node=2 -m utils.train …`` does it with two processes, one a device.
"""

import argparse
import json
import math
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from utils import checkpoint
from utils.data import ROOT, CharTokenizer, get_batch, is_original, load_text, read_text, train_val_split
from utils.model import GPT, GPTConfig
from utils.muon import Muon
from utils.nanogpt import NanoGPT, NanoGPTConfig

LADDER = ROOT / "data" / "ladder.json"   # the validation loss each chapter should reach, and last reached

# What chapter 18 found to help, as settings of a NanoGPTConfig.
BETTER = {
    "norm": "rms", "position": "rotary", "qk_norm": True, "activation": "relu2", "init": "zero", "tied": False,
    "attn_dropout": False,
}

PRESETS = {
    # Chapter 11's: about two minutes on one CPU core.
    "cpu": {
        "model": (GPT, GPTConfig), "shape": {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 96},
        "steps": 1200, "batch_size": 24, "lr": 3e-3,
    },
    # The lecture's, for a GPU.
    "lecture": {
        "model": (GPT, GPTConfig),
        "shape": {"block_size": 256, "n_layer": 6, "n_head": 6, "n_embd": 384, "dropout": 0.2},
        "steps": 5000, "batch_size": 64, "lr": 3e-4,
    },
    # nanoGPT's own setting for a CPU, but untied: with 65 characters tying saves nothing and costs a little (chapter 13).
    "nanogpt-cpu": {
        "model": (NanoGPT, NanoGPTConfig),
        "shape": {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128, "tied": False},
        "steps": 2000, "batch_size": 12, "lr": 1e-3, "warmup": 100,
    },
    # nanoGPT's for a GPU.
    "nanogpt": {
        "model": (NanoGPT, NanoGPTConfig),
        "shape": {"block_size": 256, "n_layer": 6, "n_head": 6, "n_embd": 384, "dropout": 0.2},
        "steps": 5000, "batch_size": 64, "lr": 1e-3, "warmup": 100,
    },
    # Chapter 18's best, in nanoGPT's size for a CPU.
    "better-cpu": {
        "model": (NanoGPT, NanoGPTConfig),
        "shape": {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128, **BETTER},
        "steps": 1000, "batch_size": 24, "lr": 6e-3, "muon": 0.03, "average": 0.97,
    },
    # The model that ships with the course: about an hour on one CPU core. It reads its text thirteen times, so it needs
    # more against learning by heart than the others: dropout, and weight decay (chapter 18 says how much each brought).
    "better": {
        "model": (NanoGPT, NanoGPTConfig),
        "shape": {"block_size": 256, "n_layer": 6, "n_head": 6, "n_embd": 192, "dropout": 0.15, **BETTER},
        "steps": 1650, "batch_size": 32, "lr": 6e-3, "muon": 0.02, "weight_decay": 0.2, "average": 0.99, "eval_iters": 10,
    },
}


def pick_device():
    """The fastest device there is: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_device(name):
    """The device called ``name`` if this machine has it; the fastest there is for None. Raises ValueError otherwise."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name is not None and not there.get(name):
        raise ValueError(f"there is no device {name!r} here; there is {', '.join(d for d in there if there[d])}")
    return name or pick_device()


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


def adamw(model, lr, weight_decay=0.1, betas=(0.9, 0.99)):
    """AdamW that pulls only matrices and embeddings towards zero, never biases and norms. Chapter 13.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019; the two groups are GPT-3's habit.
    """
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=_can_fuse(model))


def _can_fuse(model):
    # fused does AdamW's arithmetic in one pass: the same steps, a quarter less time here.
    return next(model.parameters()).device.type in ("cpu", "cuda")


def warmup_cosine(steps, warmup, floor=0.1):
    """A schedule for ``train``: from near 0 up to 1 in ``warmup`` steps, then half a cosine down to ``floor``. Chapter 13."""

    def factor(step):
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, steps - warmup)   # 0 to 1
        return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2

    return factor


def muon(model, lr, muon_lr=0.02, weight_decay=0.0):
    """[Muon for the matrices of the body, AdamW at ``lr`` for embeddings, head and vectors]. Chapter 18."""
    matrices = [p for p in model.body.parameters() if p.ndim == 2]
    taken = set(matrices)
    rest = [p for p in model.parameters() if p not in taken]
    return [
        Muon(matrices, lr=muon_lr, weight_decay=weight_decay),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=_can_fuse(model)),
    ]


def flat_linear(steps):
    """A schedule for ``train``: the full rate for half of the steps, then a straight line down to 0. Chapter 18."""
    return lambda step: min(1.0, 2 * (1 - step / steps))


def train(
    model, train_ids, val_ids, *, steps, batch_size=32, lr=1e-3, eval_every=500, eval_iters=50, seed=1337,
    optimizer=None, schedule=None, clip=None, accumulate=1, mixed=False, average=None,
    out=None, tokenizer=None, resume=False,
):
    """Train in place; a list of {"step", "train", "val"}, one for each look at the losses.

    The batches depend on ``seed`` alone, not on what ran before, nor on how often one looks.
    The optimizer is AdamW at ``lr`` unless another is given, or a list of several.
    ``schedule(step)`` multiplies their learning rates at step 0, 1, …; ``clip`` limits the
    length of the whole gradient; ``accumulate`` computes a batch in that many parts, for the
    memory, with the same result; ``mixed`` lets matrix products run in bfloat16. With
    ``average`` the looks, the checkpoints and the model in the end have a running mean of the
    weights: each step keeps that share of the mean and takes the rest from the weights.

    With a folder ``out`` (and the tokenizer) the best model so far is kept there as
    best.safetensors, every look in log.jsonl, and resume.pt holds what ``resume=True`` needs
    to go on exactly where the last look was. Under torchrun each process takes its share of
    every batch, and only the first one looks and writes. The model is left in eval mode.

    Raises ValueError where the processes and parts do not divide the batch, OSError where
    ``out`` cannot be written or another process of the run has ended.
    """
    rank, world = _rank_and_world()
    if out is not None and tokenizer is None:
        raise ValueError("a checkpoint in out needs the tokenizer too, or nobody could read what the model writes")
    if batch_size % (world * accumulate) != 0:
        raise ValueError(
            f"a batch of {batch_size} cannot be shared by {world} processes in {accumulate} parts each; "
            f"take a multiple of {world * accumulate} as the batch size"
        )
    device = next(model.parameters()).device
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=lr, fused=_can_fuse(model))
    optimizers = optimizer if isinstance(optimizer, list) else [optimizer]
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    # The library's running mean; without one, the model itself is what we look at and keep.
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(average)) if average else None
    shown = mean.module if average else model
    torch.manual_seed(seed + rank)   # for dropout
    batches = torch.Generator().manual_seed(seed)
    first, history, log = 0, [], []
    if resume:
        state = checkpoint.load_state(Path(out) / "resume.pt", model, optimizers)
        if average:
            mean.load_state_dict(state["mean"])
        first, history, log = state["step"], state["history"], state["log"]
        batches.set_state(state["batches"])
        _chance(device).set_rng_state(state["dropout"][rank % len(state["dropout"])])
        if first >= steps:
            raise ValueError(f"this run is already at step {first}: to go on, ask for more than {steps} steps")
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]   # only now: resuming replaces them
    # The wrapper averages the gradients of all processes, so all make the same step.
    forward = model if world == 1 else DistributedDataParallel(model)
    watch = _Watch(first, steps, batch_size * model.block_size, rank == 0, log)
    model.train()
    try:
        for step in range(first + 1, steps + 1):
            # Every process draws the whole batch and keeps its share, so the run is the same with any number of them.
            x, y = get_batch(train_ids, batch_size, model.block_size, generator=batches)   # (B, T) each
            model.zero_grad(set_to_none=True)
            loss = _backward(forward, x[rank::world].to(device), y[rank::world].to(device), accumulate, mixed)
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            for group, rate in zip(groups, rates):
                group["lr"] = rate * (schedule(step - 1) if schedule else 1)
            for optimizer in optimizers:
                optimizer.step()
            if average:
                mean.update_parameters(model)
            watch.step(step, loss)
            if step % eval_every == 0 or step == steps:
                dropout = _from_all(_chance(device).get_rng_state())
                if rank == 0:
                    looks = torch.Generator().manual_seed(seed + 1)   # the same looks each time: less noise between them
                    splits = {"train": train_ids, "val": val_ids}
                    losses = estimate_loss(shown, splits, batch_size, model.block_size, eval_iters, generator=looks)
                    history.append({"step": step, **losses})
                    watch.look(history[-1])
                    if out is not None:
                        _keep(Path(out), shown, tokenizer, history, log)
                        checkpoint.save_state(
                            Path(out) / "resume.pt", model, optimizers, step=step, history=history, log=log,
                            batches=batches.get_state(), dropout=dropout, mean=mean.state_dict() if average else None,
                        )
    except KeyboardInterrupt:
        kept = f"; the best model so far is in {Path(out) / 'best.safetensors'}" if out and history else ""
        print(f"\nstopped by hand after step {step - 1}{kept}", flush=True)
        raise
    except RuntimeError as error:
        if world > 1 and "onnection" in str(error):   # what gloo and nccl say when a neighbour is gone
            _ended()
        raise
    if average:
        model.load_state_dict(shown.state_dict())
    model.eval()
    return history


def _backward(forward, x, y, parts, mixed):
    """Add the gradient of the mean loss over a batch (B, T), in equal parts one after the other; the last part's loss."""
    for xb, yb in zip(x.chunk(parts), y.chunk(parts)):   # (B / parts, T) each
        with torch.autocast(x.device.type, torch.bfloat16) if mixed else nullcontext():
            _, loss = forward(xb, yb)
        (loss / parts).backward()
    return loss


def _keep(out, model, tokenizer, history, log):
    """Store the model if it is the best so far, and every look."""
    if history[-1]["val"] == min(look["val"] for look in history):
        checkpoint.save(out / "best.safetensors", model, tokenizer, **history[-1])
    rows = "".join(json.dumps(row) + "\n" for row in log)
    checkpoint.write_aside(out / "log.jsonl", lambda part: part.write_text(rows, encoding="utf-8"))


class _Watch:
    """Says how a training goes: a line that is overwritten each second, and one that stays for each look."""

    def __init__(self, first, steps, tokens_per_step, speaks, log):
        self.first, self.steps, self.tokens, self.speaks, self.log = first, steps, tokens_per_step, speaks, log
        # A line can only be overwritten where somebody is watching: in a terminal or a notebook.
        self.live = speaks and (sys.stdout.isatty() or "ipykernel" in sys.modules)
        self.start = self.said = time.perf_counter()

    def _say(self, line, end=""):
        print(f"\r{line:<100}" if self.live else line, end=end, flush=True)

    def _speed(self, step):
        """Tokens a second so far, the looks included, and how long that will still take."""
        pace = (time.perf_counter() - self.start) / (step - self.first)   # seconds a step
        return f"{self.tokens / pace:,.0f} tokens a second, {pace * (self.steps - step):.0f} s left"

    def step(self, step, loss):
        if self.live and time.perf_counter() - self.said > 1:
            self.said = time.perf_counter()
            self._say(f"step {step:5d} of {self.steps}   this batch {loss.item():.3f}   {self._speed(step)}")

    def look(self, look):
        seconds = time.perf_counter() - self.start
        speed = self.tokens * (look["step"] - self.first) / seconds
        self.log.append({**look, "tokens_per_second": round(speed), "seconds": round(seconds, 1)})
        self._say(
            f"step {look['step']:5d} of {self.steps}   train {look['train']:.3f}   val {look['val']:.3f}   "
            f"{self._speed(look['step'])}", end="\n",
        )


_GONE = "another process of this run has ended; the last checkpoint is whole: go on from it with --resume"


def _rank_and_world():
    """Which process this is, and of how many: (0, 1) without torchrun."""
    there = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if there else (0, 1)


def _from_all(thing):
    """[thing of process 0, thing of process 1, …]; every process must ask."""
    _, world = _rank_and_world()
    things = [thing] * world
    if world > 1:
        dist.all_gather_object(things, thing)
    return things


def _chance(device):
    """Where a device keeps the state of its random numbers, dropout's among them."""
    return {"cuda": torch.cuda, "mps": torch.mps}.get(device.type, torch.random)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m utils.train", description="Train a GPT, on tiny Shakespeare or your own text.")
    parser.add_argument("--preset", choices=PRESETS, default="cpu", help="shape and settings (default: cpu)")
    parser.add_argument("--data", type=Path, help="a text file of your own, UTF-8 (default: tiny Shakespeare)")
    parser.add_argument("--steps", type=int, help="train this many steps instead of the preset's")
    parser.add_argument("--device", help="cpu, cuda or mps (default: the fastest there is)")
    parser.add_argument("--compile", action="store_true", help="let torch.compile join the model's operations; slow to start")
    parser.add_argument(
        "--mixed", action=argparse.BooleanOptionalAction,
        help="matrix products in bfloat16 (default: on a GPU that can); pays on CPUs with AMX too, for large models",
    )
    parser.add_argument("--out", type=Path, help="folder for the checkpoints (default: runs/PRESET)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    args = parser.parse_args(argv)
    first = os.environ.get("RANK", "0") == "0"   # under torchrun only the first process speaks
    try:
        return _run(args)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        if first:
            print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


def _join(device):
    """Under torchrun: meet the other processes, and take the device that is this one's."""
    if "WORLD_SIZE" not in os.environ:
        return device
    signal.signal(signal.SIGTERM, _ended)   # what torchrun sends when another process has failed
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return device


def _ended(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)   # a second one would interrupt the complaint about the first
    raise ConnectionAbortedError(_GONE)


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
    text = read_text(args.data) if args.data else load_text()
    tokenizer = CharTokenizer(text)
    if args.resume:
        _same_alphabet(tokenizer, checkpoint.load(out / "best.safetensors")[1], out)
    train_ids, val_ids = train_val_split(torch.tensor(tokenizer.encode(text)))
    block_size = preset["shape"]["block_size"]
    if len(val_ids) <= block_size:
        raise ValueError(
            f"the text has {len(text):,} characters, so {len(val_ids)} for validation, but one window of this preset takes "
            f"{block_size + 1}; take a text of at least {10 * (block_size + 1):,} characters"
        )
    device = _join(check_device(args.device))
    rank, _ = _rank_and_world()
    torch.manual_seed(1337)
    build, config = preset["model"]
    model = build(config(tokenizer.vocab_size, **preset["shape"])).to(device)
    if args.compile:
        model.compile()
    if rank == 0:
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}; checkpoints go to {out}")
    train(
        model, train_ids, val_ids, steps=steps, batch_size=preset["batch_size"],
        eval_every=max(1, steps // 10), eval_iters=preset.get("eval_iters", 50), **recipe(preset, model, steps),
        mixed=device.startswith("cuda") and torch.cuda.is_bf16_supported() if args.mixed is None else args.mixed,
        out=out, tokenizer=tokenizer, resume=args.resume,
    )
    if rank == 0:
        _show_off(out, tokenizer, val_ids)
    return 0


def recipe(preset, model, steps):
    """How a preset trains: the arguments of ``train`` that say with which optimizer, schedule and clipping."""
    lr = preset["lr"]
    if "muon" in preset:
        optimizer = muon(model, lr, preset["muon"], preset.get("weight_decay", 0.0))
        return {"optimizer": optimizer, "schedule": flat_linear(steps), "average": preset["average"]}
    if "warmup" in preset:
        return {"optimizer": adamw(model, lr), "schedule": warmup_cosine(steps, preset["warmup"]), "clip": 1.0}
    return {"lr": lr}


def _same_alphabet(new, old, out):
    if new.chars != old.chars:
        odd = set(new.chars) ^ set(old.chars)
        raise ValueError(
            f"the text has {new.vocab_size} distinct characters, the run in {out} has {old.vocab_size}, and they differ "
            f"in {''.join(sorted(odd))[:10]!r}; go on with the text it began with, or begin anew with another --out"
        )


def _show_off(out, tokenizer, val_ids):
    best, _, _ = checkpoint.load(out / "best.safetensors")
    print(
        f"\nbest model: {evaluate(best, val_ids):.4f} over the whole validation split, in {out / 'best.safetensors'}\n"
    )
    start = torch.tensor([tokenizer.encode("\n" if "\n" in tokenizer.chars else tokenizer.chars[0])])   # (1, 1)
    print(tokenizer.decode(best.generate(start, 1500)[0].tolist()))


if __name__ == "__main__":
    sys.exit(main())
