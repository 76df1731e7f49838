"""Choosing the next token, and generating fast: temperature, top-k, top-p, and a key/value cache. Chapter 14.

``python -m utils.sample --prompt "ROMEO:"`` writes with the model that ships with the course.
"""

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from utils import checkpoint
from utils.nanogpt import NanoGPT
from utils.train import check_device


def next_probs(logits, temperature=1.0, top_k=None, top_p=None):
    """The distribution to draw from: logits (…, V) → probabilities (…, V).

    ``temperature`` 0 is greedy: all on the likeliest. ``top_k`` keeps the k likeliest
    (Fan et al., 2018); ``top_p`` the fewest whose sum reaches p ("nucleus", Holtzman et al.,
    2020). Both are applied after the temperature, top-k first. Of several equally likely,
    the lowest id comes first.

    Raises ValueError for a temperature below 0, a top_k below 1, a top_p outside (0, 1].
    """
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}, but must be 0 (greedy) or above; 0.8 is a good start")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}, but at least 1 token must remain to draw from")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}, but must be above 0 and at most 1; 0.9 is a good start")
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)   # (…, V)
    probs = F.softmax(logits / temperature, dim=-1)                                  # (…, V)
    if top_k is None and top_p is None:
        return probs
    ranked, ids = probs.sort(dim=-1, descending=True, stable=True)                   # (…, V) each
    if top_k is not None:
        ranked[..., top_k:] = 0
        ranked = ranked / ranked.sum(dim=-1, keepdim=True)
    if top_p is not None:
        before = ranked.cumsum(dim=-1) - ranked     # what the likelier ones have together; 0 for the first, so it stays
        ranked = ranked.masked_fill(before >= top_p, 0.0)
    probs = torch.zeros_like(probs).scatter(-1, ids, ranked)                         # back to the order of the ids
    return probs / probs.sum(dim=-1, keepdim=True)


class LayerCache:
    """The keys and values of one layer, computed once and kept: (B, n_head, tokens so far, H)."""

    def __init__(self):
        self.k = self.v = None

    def add(self, k, v):
        """Append those of the new tokens, (B, n_head, T, H) each; all of them so far."""
        if self.k is not None:
            k, v = torch.cat((self.k, k), dim=2), torch.cat((self.v, v), dim=2)
        self.k, self.v = k, v
        return k, v

    def __len__(self):
        return 0 if self.k is None else self.k.shape[2]


class Cache:
    """A ``LayerCache`` for each layer of a model; its length is the number of tokens it holds."""

    def __init__(self, n_layer):
        self.layers = [LayerCache() for _ in range(n_layer)]

    def __len__(self):
        return len(self.layers[0])


@torch.no_grad()
def generate(
    model, idx, max_new_tokens, *, temperature=1.0, top_k=None, top_p=None, generator=None, cached=True
):
    """Continue ids (B, T) by max_new_tokens: (B, T + max_new_tokens). The model is left in eval mode.

    ``model`` is a NanoGPT. With ``cached`` each step computes the new token alone, as long as
    everything fits into block_size. Beyond that, every token moves one position down at each
    step, so the kept keys and values, which hold the learned position, are stale: each
    step computes its whole window afresh. The tokens are the same with and without.
    """
    model.eval()
    cache = None
    for _ in range(max_new_tokens):
        if cached and idx.shape[1] <= model.block_size:
            if cache is None:
                cache, new = Cache(model.config.n_layer), idx              # (B, T), all of it once
            else:
                new = idx[:, -1:]                                          # (B, 1), then only what is new
            logits, _ = model(new, cache=cache)                            # (B, T or 1, V)
        else:
            logits, _ = model(idx[:, -model.block_size :])                 # (B, block_size, V)
        probs = next_probs(logits[:, -1], temperature, top_k, top_p)       # (B, V)
        idx = torch.cat((idx, torch.multinomial(probs, 1, generator=generator)), dim=1)   # (B, T + 1)
    return idx


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m utils.sample", description="Write with a trained model.")
    parser.add_argument("--checkpoint", type=Path, default=checkpoint.PRETRAINED, help="default: the course's own model")
    parser.add_argument("--prompt", default="\n", help="the text to continue (default: an empty line)")
    parser.add_argument("--length", type=int, default=500, help="how many tokens to write (default: 500)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy, 1 the model's own (default: 0.8)")
    parser.add_argument("--top-k", type=int, help="draw from the k likeliest only")
    parser.add_argument("--top-p", type=float, help="draw from the likeliest that make up p together")
    parser.add_argument("--seed", type=int, default=1337, help="the same seed writes the same text (default: 1337)")
    parser.add_argument("--device", default=None, help="cpu, cuda or mps (default: the fastest there is)")
    args = parser.parse_args(argv)
    try:
        return _run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(args):
    model, tokenizer, _ = checkpoint.load(args.checkpoint)
    if args.length < 1:
        raise ValueError(f"--length is {args.length}, but at least 1 token must be written")
    if not args.prompt:
        raise ValueError("--prompt is empty, but a model needs something to continue; leave it out to begin with an empty line")
    ids = tokenizer.encode(args.prompt)
    if len(ids) > model.block_size:
        raise ValueError(
            f"--prompt has {len(ids)} tokens, but this model sees at most {model.block_size}; give it the end of the text"
        )
    device = check_device(args.device)
    if not isinstance(model, NanoGPT):
        model = NanoGPT.from_heads(model)
    draws = torch.Generator(device).manual_seed(args.seed)
    idx = generate(
        model.to(device), torch.tensor([ids], device=device), args.length,
        temperature=args.temperature, top_k=args.top_k, top_p=args.top_p, generator=draws,
    )
    print(tokenizer.decode(idx[0].tolist()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
