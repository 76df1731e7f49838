"""The GPT that people train: chapter 11's model with every head in one tensor. Chapters 13 and 18.

The same skeleton, the same ideas, fewer and larger matrix products, and nanoGPT's settings
(https://github.com/karpathy/nanoGPT), each of which can be switched off to see what it does.
Chapter 18's features from papers are further settings of the same config.
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from utils.model import LanguageModel, check_ids


class SquaredReLU(nn.Module):
    """ReLU, then the square: (…) → (…). So et al., "Primer", 2021."""

    def forward(self, x):
        x = F.relu(x)
        return x * x


class SwiGLU(nn.Module):
    """One half of the channels decides how much of the other passes: (…, 2n) → (…, n). Shazeer, 2020."""

    def forward(self, x):
        gate, value = x.chunk(2, dim=-1)   # (…, n) each
        return F.silu(gate) * value        # (…, n)


ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "relu2": SquaredReLU, "swiglu": SwiGLU}
INITS = ("pytorch", "normal", "scaled", "zero")
NORMS = ("layer", "rms")
POSITIONS = ("learned", "rotary")


@dataclass
class NanoGPTConfig:
    """The shape of a NanoGPT and its choices, all that is needed to build it again.

    ``activation`` is "relu", "gelu" (Hendrycks and Gimpel, 2016), "relu2" (So et al., 2021) or
    "swiglu" (Shazeer, 2020); ``bias`` gives linear layers and norms one; ``tied`` uses the token
    embedding as output weights too (Press and Wolf, 2017). ``init`` is "pytorch" (its own
    defaults), "normal" (every matrix with standard deviation 0.02), "scaled" (GPT-2's: the
    matrices that write to the residual pathway smaller by √(2 · n_layer), because so many
    writes add up; Radford et al., 2019) or "zero" (PyTorch's, but those matrices begin at zero,
    so that a new block changes nothing; Zhang et al., "Fixup", 2019).

    ``norm`` is "layer" or "rms" (Zhang and Sennrich, 2019); ``position`` is "learned" or
    "rotary" (Su et al., 2021); ``qk_norm`` gives queries and keys one length (Henry et al., 2020).
    ``attn_dropout=False`` spares the attention weights from dropout: on a CPU it makes them slow.
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
    norm: str = "layer"
    position: str = "learned"
    qk_norm: bool = False
    attn_dropout: bool = True

    def __post_init__(self):
        if self.n_embd % self.n_head != 0:
            raise ValueError(f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}: each head takes an equal part")
        choices = {"activation": ACTIVATIONS, "init": INITS, "norm": NORMS, "position": POSITIONS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be one of {', '.join(allowed)}")
        if self.position == "rotary" and self.n_embd // self.n_head % 2 != 0:
            raise ValueError(
                f"rotary positions turn channels in pairs, but a head has {self.n_embd // self.n_head} channels; "
                "take an even number for n_embd / n_head"
            )


def make_norm(config):
    """The norm that the config asks for, over C channels."""
    return nn.RMSNorm(config.n_embd) if config.norm == "rms" else nn.LayerNorm(config.n_embd, bias=config.bias)


def rotary_angles(block_size, head_size):
    """Cosine and sine of how far each pair of channels turns at each position: (block_size, H/2) each."""
    rates = 10000.0 ** -(torch.arange(0, head_size, 2) / head_size)      # (H/2,): radians a position, from 1 down to near 0
    angles = torch.outer(torch.arange(block_size, dtype=torch.float), rates)   # (T, H/2)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """Turn each pair of channels by its angle: x (…, T, H), cos and sin (T, H/2) → (…, T, H).

    A query at position m and a key at position n then have a product that depends on m − n
    alone. Su et al., "RoFormer", 2021.
    """
    first, second = x.chunk(2, dim=-1)   # (…, T, H/2) each; channel i and channel i + H/2 are a pair
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)   # (…, T, H)


class CausalSelfAttention(nn.Module):
    """All heads of causal self-attention in one 4-dimensional tensor: (B, T, C) → (B, T, C).

    With a cache (chapter 14), x holds only the new tokens, and the keys and values of the
    earlier ones come from it.
    """

    def __init__(self, config):
        super().__init__()
        C, self.n_head, self.qk_norm = config.n_embd, config.n_head, config.qk_norm
        self.rotary = config.position == "rotary"
        if self.rotary:   # buffers move with the model, and are rebuilt here, so not saved
            cos, sin = rotary_angles(config.block_size, C // self.n_head)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self.qkv = nn.Linear(C, 3 * C, bias=config.bias)   # queries, keys and values of every head at once
        self.proj = nn.Linear(C, C, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)
        self.attn_dropout = config.dropout if config.attn_dropout else 0.0

    def forward(self, x, cache=None):
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head)   # (B, T, C) → (B, T, 3, n_head, H)
        qk, v = qkv.permute(2, 0, 3, 1, 4).split((2, 1))                 # (2, B, n_head, T, H), (1, B, n_head, T, H)
        q, k, v = *self.place(qk, 0 if cache is None else len(cache)), v[0]   # (B, n_head, T, H) each
        if cache is not None:
            k, v = cache.add(k, v)                                       # (B, n_head, all tokens so far, H) each
        # A single token may look at all the keys there are: none of them lies in its future.
        out = F.scaled_dot_product_attention(                            # (B, n_head, T, H)
            q, k, v, is_causal=T > 1, dropout_p=self.attn_dropout if self.training else 0.0
        )
        out = out.transpose(1, 2).reshape(B, T, C)                       # the heads side by side again: (B, T, C)
        return self.dropout(self.proj(out))

    def place(self, qk, past):
        """Queries and keys (2, B, n_head, T, H) as chapter 18 has them: of one length, turned by their position."""
        if self.qk_norm:
            qk = F.rms_norm(qk, qk.shape[-1:])
        if self.rotary:
            here = slice(past, past + qk.shape[-2])
            qk = rotate(qk, self.cos[here], self.sin[here])
        return qk


class MLP(nn.Module):
    """Feed-forward with a choice of activation: (B, T, C) → (B, T, 4C) → (B, T, C).

    SwiGLU has three matrices instead of two, so its middle is narrower: the same number of weights.
    """

    def __init__(self, config):
        super().__init__()
        C = config.n_embd
        middle = 8 * C // 3 if config.activation == "swiglu" else 4 * C
        self.up = nn.Linear(C, 2 * middle if config.activation == "swiglu" else middle, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]()
        self.proj = nn.Linear(middle, C, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        return self.dropout(self.proj(self.activation(self.up(x))))   # (B, T, C)


class BatchedBlock(nn.Module):
    """Chapter 10's block around the two batched pieces: (B, T, C) → (B, T, C)."""

    def __init__(self, config):
        super().__init__()
        self.ln1 = make_norm(config)
        self.attn = CausalSelfAttention(config)
        self.ln2 = make_norm(config)
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
        self.norm = make_norm(config)

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
        if config.position == "rotary":
            self.position_embedding = None   # the heads know the positions
        if config.init != "pytorch":
            self.initialize()

    @torch.no_grad()
    def initialize(self):
        for name, p in self.named_parameters():
            writes = name.endswith("proj.weight")   # to the residual pathway
            if self.config.init == "zero":
                if writes:
                    p.zero_()
            elif p.ndim == 2:
                p.normal_(0.0, 0.02 / (2 * self.config.n_layer) ** 0.5 if writes and self.config.init == "scaled" else 0.02)
            elif name.endswith("bias"):
                p.zero_()

    def embed(self, idx, past=0):
        """What the blocks get for ids (B, T) at positions past, past + 1, …: (B, T, C)."""
        tok = self.token_embedding(idx)                                                          # (B, T, C)
        if self.position_embedding is None:
            return tok
        return tok + self.position_embedding(torch.arange(past, past + idx.shape[1], device=idx.device))   # + (T, C)

    def forward(self, idx, targets=None, cache=None):
        """As ``LanguageModel.forward``; with a cache (chapter 14), idx (B, T) follows the tokens already in it."""
        if cache is None:
            check_ids(idx, targets, self.config.vocab_size, self.block_size)
            logits = self.lm_head(self.body(self.embed(idx)))                                    # (B, T, V)
            loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            return logits, loss
        past, T = len(cache), idx.shape[1]
        if past == self.block_size:
            raise ValueError(f"the cache is full: it holds {past} tokens, the whole block_size; begin with an empty one")
        if past and T > 1:
            raise ValueError(f"idx is {T} tokens long, but a cache that is in use takes one token at a time")
        check_ids(idx, None, self.config.vocab_size, self.block_size)
        return self.lm_head(self.body(self.embed(idx, past), cache.layers)), None                # (B, T, V)

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
