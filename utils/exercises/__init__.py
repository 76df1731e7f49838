"""What each chapter's exercises ask, for utils.checks: references, inputs, slips."""

from zlib import crc32

import torch


def randoms(*shape, seed, scale=1.0):
    """Normal random numbers that are the same at every call."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def settled(module):
    """The module with weights that hang on their names and shapes only, not on the order in which they were made."""
    for name, p in module.named_parameters():
        p.data.copy_(randoms(*p.shape, seed=crc32(name.encode()), scale=p.shape[-1] ** -0.5))
    return module
