"""Models on disk. Weights go into safetensors files, with what is needed to build them again.

Every write goes to a file beside the target and is then moved there, so a full disk or a
lost connection leaves the last good checkpoint as it was.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from utils.data import ROOT, CharTokenizer
from utils.model import GPT, GPTConfig
from utils.nanogpt import NanoGPT, NanoGPTConfig

MODELS = {"GPT": (GPT, GPTConfig), "NanoGPT": (NanoGPT, NanoGPTConfig)}   # what a checkpoint may hold
PRETRAINED = ROOT / "data" / "models" / "shakespeare.safetensors"


def save(path, model, tokenizer, **info):
    """Write a GPT, its config and its characters to ``path``; ``info`` (numbers, strings) goes along.

    Raises OSError where the folder is read-only or full; what was at ``path`` is then still there.
    """
    # A clone each: safetensors refuses two names for the same memory, which tied weights are.
    weights = {name: w.detach().cpu().clone() for name, w in model.state_dict().items()}
    metadata = {
        "model": type(model).__name__, "config": asdict(model.config), "chars": tokenizer.chars, "info": info,
    }
    metadata = {key: json.dumps(value) for key, value in metadata.items()}
    write_aside(path, lambda part: save_file(weights, part, metadata))


def load(path):
    """The model (in eval mode, on the CPU), its tokenizer, and the info it was saved with.

    Raises FileNotFoundError where there is no file, ValueError where it is not a whole
    checkpoint of this course.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"there is no checkpoint {path.name} in {path.parent}; train one with python -m utils.train"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            weights = {name: file.get_tensor(name) for name in file.keys()}
        build, config = MODELS[metadata.get("model", "GPT")]
        model = build(config(**metadata["config"]))
        model.load_state_dict(weights)
        tokenizer = CharTokenizer(metadata["chars"])
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path.name} is not a checkpoint, or is cut short ({error}); take another copy") from None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path.name} holds weights, but not as this course saves them ({error})") from None
    except RuntimeError as error:
        raise ValueError(f"{path.name} holds weights of another shape than its config says: {error}") from None
    return model.eval(), tokenizer, metadata.get("info", {})


def load_pretrained():
    """The model that ships with the course: (model, tokenizer, info), as ``load`` gives them."""
    return load(PRETRAINED)


def save_state(path, model, optimizer, **rest):
    """All that a stopped training needs to go on: weights, optimizer, and ``rest`` (plain values, tensors)."""
    state = {"config": asdict(model.config), "model": model.state_dict(), "optimizer": optimizer.state_dict(), **rest}
    write_aside(path, lambda part: torch.save(state, part))


def load_state(path, model, optimizer):
    """Put a stopped training's weights back into model and optimizer; the rest of the state as a dict.

    Raises FileNotFoundError where there is nothing, ValueError for a damaged file or
    another model.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"nothing to resume: there is no {path.name} in {path.parent}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:   # torch.load raises many kinds for a damaged file
        raise ValueError(f"{path.name} in {path.parent} is damaged or no training state ({type(error).__name__})") from error
    if state.get("config") != asdict(model.config):
        raise ValueError(
            f"{path.name} in {path.parent} belongs to another model: {state.get('config')}, not {asdict(model.config)}"
        )
    model.load_state_dict(state.pop("model"))
    optimizer.load_state_dict(state.pop("optimizer"))
    return state


def write_aside(path, write):
    """Let ``write`` fill a file beside ``path``, then move it there. Raises OSError, with ``path`` as it was."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        os.replace(part, path)
    # The two libraries have errors of their own for a disk that is full or read-only.
    except (OSError, SafetensorError, RuntimeError) as error:
        raise OSError(
            f"{path.name} could not be written to {path.parent} ({getattr(error, 'strerror', None) or error}). What was "
            "there before is as it was. Free some space, or choose a folder that you may write to"
        ) from error
    finally:
        part.unlink(missing_ok=True)
