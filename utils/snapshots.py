"""What the explorers look at: the model of every chapter, one training in snapshots, attention weights.

``python -m utils.snapshots`` trains all of it again as the chapters do, about nine minutes on
one core, and stores it in two small files in data/models.
"""

import json
import sys
import tempfile

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from utils import checkpoint
from utils.data import ROOT, CharTokenizer, get_batch, is_original, load_text, train_val_split
from utils.model import GPT, Block, FeedForward, GPTConfig, Head, LanguageModel, MultiHeadAttention
from utils.nanogpt import NanoGPT
from utils.train import LADDER, PRESETS, estimate_loss, evaluate, train

CHAPTERS = ROOT / "data" / "models" / "chapters.safetensors"
TRAINING = ROOT / "data" / "models" / "training.safetensors"

STEPS = (0, 10, 30, 60, 100, 200, 400, 700, 1000, 1500, 2000)   # where the training of chapter 11 is looked at
LINE = "GLOUCESTER:\nMy lord, my"                                # the line whose attention is kept


class Bigram(nn.Module):
    """Chapter 04's model, a table of scores: ids (B, T) → logits (B, T, V)."""

    block_size = 8   # in training and measuring; the table itself sees one character

    def __init__(self, vocab_size):
        super().__init__()
        self.token_embedding_table = nn.Embedding(vocab_size, vocab_size)   # (V, V)

    def forward(self, idx, targets=None):
        logits = self.token_embedding_table(idx)   # (B, T, V)
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss


BODIES = {   # 32 channels, context 8, as the chapters build them
    "06": lambda: Head(32, 32, 8),
    "07": lambda: MultiHeadAttention(32, 4, 8, 8, proj=False),
    "08": lambda: nn.Sequential(MultiHeadAttention(32, 4, 8, 8, proj=False), FeedForward(32, widen=1, proj=False)),
    "09": lambda: nn.Sequential(*[Block(32, 4, 8, norm=nn.Identity) for _ in range(3)]),
    "10": lambda: nn.Sequential(*[Block(32, 4, 8) for _ in range(3)], nn.LayerNorm(32)),
}


def build(chapter, vocab_size):
    """The model of chapter 04, 06, 07, 08, 09, 10 or 11, untrained."""
    if chapter == "11":
        return GPT(GPTConfig(vocab_size, **PRESETS["cpu"]["shape"]))
    return Bigram(vocab_size) if chapter == "04" else LanguageModel(vocab_size, 32, 8, BODIES[chapter]())


def chapter_models():
    """({"04 · bigram": model, … "11 · scaled up": model}, tokenizer), trained, in eval mode.

    Raises FileNotFoundError or ValueError where a stored file is missing or damaged.
    """
    weights, about = _read(CHAPTERS)
    tokenizer, names, models = CharTokenizer(about["chars"]), json.loads(LADDER.read_text()), {}
    for chapter in about["losses"]:
        model = build(chapter, tokenizer.vocab_size)
        model.load_state_dict({name[3:]: w.float() for name, w in weights.items() if name.startswith(chapter)})
        models[f"{chapter} · {names[chapter]['name']}"] = model.eval()
    return models, tokenizer


def training():
    """The snapshots of one training, each {"step", "looks", "sample", "attention"}, and the line that is attended to.

    ``looks`` are the losses so far, ``attention`` is (n_layer, n_head, T, T). Raises as
    ``chapter_models`` does.
    """
    weights, about = _read(TRAINING)
    shots = [
        {"step": step, "looks": [look for look in about["looks"] if look["step"] <= step],
         "sample": sample, "attention": weights[str(step)].float()}
        for step, sample in about["samples"]
    ]
    return shots, about["line"]


@torch.no_grad()
def predictions(model, ids):
    """Chances (n, V) of what comes after each of ids (n,), from at most block_size of them before it."""
    T = model.block_size
    first = model(ids[None, :T])[0][0]                     # (n or T, V): every position of the first window
    if len(ids) > T:
        windows = ids.unfold(0, T, 1)[1:]                  # (n − T, T): then a window for each character
        first = torch.cat([first, model(windows)[0][:, -1]])   # (n, V)
    return first.softmax(dim=-1)


@torch.no_grad()
def attention(model, idx):
    """Who hears whom, in every head of a GPT or NanoGPT in eval mode: ids (1, T) → weights (n_layer, n_head, T, T)."""
    T, layers = idx.shape[1], []
    future = torch.ones(T, T).triu(1).bool()                                     # (T, T)
    batched = isinstance(model, NanoGPT)
    x = model.embed(idx) if batched else model.token_embedding(idx) + model.position_embedding(torch.arange(T))   # (1, T, C)
    for block in model.body.blocks if batched else model.body[:-1]:
        q, k = _queries_and_keys(block, block.ln1(x)[0])                         # (n_head, T, H) each
        scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5                   # (n_head, T, H) @ (n_head, H, T) → (n_head, T, T)
        layers.append(scores.masked_fill(future, float("-inf")).softmax(dim=-1))
        x = block(x)                                                             # (1, T, C)
    return torch.stack(layers)


def _queries_and_keys(block, x):
    """x (T, C), normalized → queries and keys (n_head, T, H) of one block."""
    if hasattr(block, "sa"):
        return [torch.stack([layer(x) for layer in layers]) for layers in zip(*[(h.query, h.key) for h in block.sa.heads])]
    qkv = block.attn.qkv(x).view(len(x), 3, block.attn.n_head, -1).permute(1, 2, 0, 3)   # (3, n_head, T, H)
    return block.attn.place(qkv[:2], 0)


def _read(path):
    """The tensors and the words of a stored file."""
    if not path.exists():
        raise FileNotFoundError(f"there is no {path.name} in {path.parent.name}; make it with python -m utils.snapshots")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path.name} is damaged or cut short ({error}); take another copy, or make it with python -m utils.snapshots"
        ) from None


def _store(path, tensors, about):
    small = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}   # half the bytes, the same pictures
    checkpoint.write_aside(path, lambda part: save_file(small, part, {"about": json.dumps(about)}))
    print(f"{path.name}: {path.stat().st_size:,} bytes", flush=True)


def _train_chapter(chapter, train_ids, val_ids, vocab_size):
    torch.manual_seed(1337)
    model = build(chapter, vocab_size)
    if chapter != "04":
        how = PRESETS["cpu"] if chapter == "11" else {"steps": 5000, "batch_size": 32, "lr": 1e-3}
        how = {name: how[name] for name in ("steps", "batch_size", "lr")}
        train(model, train_ids, val_ids, **how, eval_every=how["steps"])
        return model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)   # chapter 04 has a loop of its own
    for _ in range(3000):
        _, loss = model(*get_batch(train_ids, 32, 8))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return model


def _store_chapters(train_ids, val_ids, tokenizer):
    weights, losses, ladder = {}, {}, json.loads(LADDER.read_text())
    for chapter in ("04", *BODIES, "11"):
        model = _train_chapter(chapter, train_ids, val_ids, tokenizer.vocab_size)
        losses[chapter] = round(evaluate(model, val_ids), 4)
        # Another machine adds up in another order; more than that is another model than the page's.
        assert abs(losses[chapter] - ladder[chapter]["val"]) < 0.01, f"chapter {chapter}: {losses[chapter]}, not {ladder[chapter]['val']}"
        print(f"chapter {chapter}: {losses[chapter]}, on the page {ladder[chapter]['val']}", flush=True)
        weights |= {f"{chapter}.{name}": w for name, w in model.state_dict().items()}
    _store(CHAPTERS, weights, {"chars": tokenizer.chars, "losses": losses})


def _store_training(train_ids, val_ids, tokenizer):
    torch.manual_seed(1337)
    model = GPT(GPTConfig(tokenizer.vocab_size, block_size=32, n_layer=2, n_head=4, n_embd=64))
    splits, start = {"train": train_ids, "val": val_ids}, torch.tensor([tokenizer.encode("\n")])   # (1, 1)
    looks = [{"step": 0, **estimate_loss(model, splits, 32, 32, 20, generator=torch.Generator().manual_seed(1338))}]
    line, maps, samples = torch.tensor([tokenizer.encode(LINE)]), {}, []   # (1, T)
    with tempfile.TemporaryDirectory() as out:
        for before, step in zip((None, *STEPS), STEPS):
            if step:   # stop at each snapshot, then go on exactly there
                history = train(
                    model, train_ids, val_ids, steps=step, batch_size=32, lr=3e-3, eval_every=50, eval_iters=20,
                    out=out, tokenizer=tokenizer, resume=before > 0,
                )
            written = model.eval().generate(start, 420, generator=torch.Generator().manual_seed(1337))[0, 1:]
            maps[str(step)] = attention(model, line)
            samples.append((step, tokenizer.decode(written.tolist())))
    _store(TRAINING, maps, {"line": LINE, "looks": looks + history, "samples": samples})


def main():
    text = load_text()
    if not is_original(text):
        print("error: tiny Shakespeare cannot be had, and only its models are stored", file=sys.stderr)
        return 2
    tokenizer = CharTokenizer(text)
    train_ids, val_ids = train_val_split(torch.tensor(tokenizer.encode(text)))
    _store_training(train_ids, val_ids, tokenizer)
    _store_chapters(train_ids, val_ids, tokenizer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
