"""The GPT that people train: chapter 11's model with every head in one tensor. Chapter 13.

The same skeleton, the same ideas, fewer and larger matrix products, and nanoGPT's settings
(https://github.com/karpathy/nanoGPT), each of which can be switched off to see what it does.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from utils.model import LanguageModel, check_ids

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}
INITS = ("pytorch", "normal", "scaled")


@dataclass
class NanoGPTConfig:
    """The shape of a NanoGPT and its four choices, all that is needed to build it again.

    ``activation`` is "relu" or "gelu" (Hendrycks and Gimpel, 2016); ``bias`` gives linear
    layers and norms one; ``tied`` uses the token embedding as output weights too (Press and
    Wolf, 2017). ``init`` is "pytorch" (its own defaults), "normal" (every matrix with
    standard deviation 0.02) or "scaled" (GPT-2's: the matrices that write to the residual
    pathway smaller by √(2 · n_layer), because so many writes add up; Radford et al., 2019).
    """

    vocab_size: int = 65
    block_size: int = 64
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    activation: str = "gelu"
    bias: bool = False
    tied: bool = True
    init: str = "scaled"

    def __post_init__(self):
        if self.n_embd % self.n_head != 0:
            raise ValueError(f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}: each head takes an equal part")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}, but must be one of {', '.join(ACTIVATIONS)}")
        if self.init not in INITS:
            raise ValueError(f"init is {self.init!r}, but must be one of {', '.join(INITS)}")


class CausalSelfAttention(nn.Module):
    """All heads of causal self-attention in one 4-dimensional tensor: (B, T, C) → (B, T, C).

    With a cache (chapter 14), x holds only the new tokens, and the keys and values of the
    earlier ones come from it.
    """

    def __init__(self, config):
        super().__init__()
        C, self.n_head = config.n_embd, config.n_head
        self.qkv = nn.Linear(C, 3 * C, bias=config.bias)   # queries, keys and values of every head at once
        self.proj = nn.Linear(C, C, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, cache=None):
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head)   # (B, T, C) → (B, T, 3, n_head, H)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                             # (B, n_head, T, H) each
        if cache is not None:
            k, v = cache.add(k, v)                                       # (B, n_head, all tokens so far, H) each
        # A single token may look at all the keys there are: none of them lies in its future.
        out = F.scaled_dot_product_attention(                            # (B, n_head, T, H)
            q, k, v, is_causal=T > 1, dropout_p=self.dropout.p if self.training else 0.0
        )
        out = out.transpose(1, 2).reshape(B, T, C)                       # the heads side by side again: (B, T, C)
        return self.dropout(self.proj(out))


class MLP(nn.Module):
    """Feed-forward with a choice of activation: (B, T, C) → (B, T, 4C) → (B, T, C)."""

    def __init__(self, config):
        super().__init__()
        C = config.n_embd
        self.up = nn.Linear(C, 4 * C, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]()
        self.proj = nn.Linear(4 * C, C, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        return self.dropout(self.proj(self.activation(self.up(x))))   # (B, T, C)


class BatchedBlock(nn.Module):
    """Chapter 10's block around the two batched pieces: (B, T, C) → (B, T, C)."""

    def __init__(self, config):
        super().__init__()
        self.ln1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x, cache=None):
        x = x + self.attn(self.ln1(x), cache)   # (B, T, C)
        return x + self.mlp(self.ln2(x))


class Body(nn.Module):
    """Blocks in a row and a last norm: (B, T, C) → (B, T, C)."""

    def __init__(self, config):
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList([BatchedBlock(config) for _ in range(config.n_layer)])
        self.norm = nn.LayerNorm(config.n_embd, bias=config.bias)

    def forward(self, x, caches=None):
        x = self.dropout(x)
        for block, cache in zip(self.blocks, caches or [None] * len(self.blocks)):
            x = block(x, cache)
        return self.norm(x)


class NanoGPT(LanguageModel):
    """The whole batched model. ``generate`` is the skeleton's; chapter 14 has a faster one in ``utils.sample``."""

    def __init__(self, config):
        super().__init__(config.vocab_size, config.n_embd, config.block_size, Body(config))
        self.config = config
        if config.tied:
            # One matrix, used twice: a row is a token's embedding, and what an output must resemble to mean it.
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
            self.lm_head.weight = self.token_embedding.weight
        if config.init != "pytorch":
            self.initialize()

    @torch.no_grad()
    def initialize(self):
        for name, p in self.named_parameters():
            if p.ndim == 2:
                writes = self.config.init == "scaled" and name.endswith("proj.weight")
                p.normal_(0.0, 0.02 / (2 * self.config.n_layer) ** 0.5 if writes else 0.02)
            elif name.endswith("bias"):
                p.zero_()

    def forward(self, idx, targets=None, cache=None):
        """As ``LanguageModel.forward``; with a cache (chapter 14), idx (B, T) follows the tokens already in it."""
        if cache is None:
            return super().forward(idx, targets)
        past, T = len(cache), idx.shape[1]
        if past == self.block_size:
            raise ValueError(f"the cache is full: it holds {past} tokens, the whole block_size; begin with an empty one")
        if past and T > 1:
            raise ValueError(f"idx is {T} tokens long, but a cache that is in use takes one token at a time")
        check_ids(idx, None, self.config.vocab_size, self.block_size)
        tok = self.token_embedding(idx)                                                    # (B, T, C)
        pos = self.position_embedding(torch.arange(past, past + T, device=idx.device))     # (T, C)
        return self.lm_head(self.body(tok + pos, cache.layers)), None                      # (B, T, V)

    @classmethod
    @torch.no_grad()
    def from_heads(cls, gpt):
        """Chapter 11's GPT as a NanoGPT: the same weights in fewer, larger matrices, so the same logits."""
        shape = {**vars(gpt.config)}
        model = cls(NanoGPTConfig(**shape, activation="relu", bias=True, tied=False, init="pytorch"))
        rest = {name: w for name, w in gpt.state_dict().items() if not name.startswith("body")}
        for i, block in enumerate(gpt.body[:-1]):
            heads, to = block.sa.heads, f"body.blocks.{i}."
            stacked = [getattr(head, part).weight for part in ("query", "key", "value") for head in heads]
            rest[to + "attn.qkv.weight"] = torch.cat(stacked)                  # 3 · n_head times (H, C) → (3C, C)
            rest[to + "attn.qkv.bias"] = torch.zeros(3 * gpt.config.n_embd)    # the heads of chapter 06 have none
            for new, old in (
                ("attn.proj", block.sa.proj), ("mlp.up", block.ffwd.net[0]), ("mlp.proj", block.ffwd.net[2]),
                ("ln1", block.ln1), ("ln2", block.ln2),
            ):
                rest |= {f"{to}{new}.weight": old.weight, f"{to}{new}.bias": old.bias}
        rest |= {"body.norm.weight": gpt.body[-1].weight, "body.norm.bias": gpt.body[-1].bias}
        model.load_state_dict(rest)
        return model.train(gpt.training)
