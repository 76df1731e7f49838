"""Models on disk. Weights go into safetensors files, with what is needed to build them again.

Every write goes to a file beside the target and is then moved there, so a full disk or a
lost connection leaves the last good checkpoint as it was.

``python -m utils.checkpoint RUN`` makes the best model of a run folder the one that ships.
"""

import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from utils.data import ROOT, CharTokenizer
from utils.model import GPT, GPTConfig
from utils.nanogpt import NanoGPT, NanoGPTConfig

MODELS = {"GPT": (GPT, GPTConfig), "NanoGPT": (NanoGPT, NanoGPTConfig)}   # what a checkpoint may hold
PRETRAINED = ROOT / "data" / "models" / "shakespeare.safetensors"
PRETRAINED_SHA256 = "0140f25370cd3560b9a20f2eba3569880f622851b3a916cd9556d0e42f8327b8"


def save(path, model, tokenizer, dtype=torch.float32, **info):
    """Write a GPT, its config and its characters to ``path``; ``info`` (numbers, strings) goes along.

    ``dtype`` torch.float16 takes half the bytes; ``load`` gives 32-bit weights again.

    Raises OSError where the folder is read-only or full; what was at ``path`` is then still there.
    """
    # A clone each: safetensors refuses two names for the same memory, which tied weights are.
    weights = {name: w.detach().to("cpu", dtype, copy=True) for name, w in model.state_dict().items()}
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
    """The model that ships with the course: (model, tokenizer, info), as ``load`` gives them.

    Raises FileNotFoundError where the file is missing, ValueError where it is another one.
    """
    if PRETRAINED.exists() and (found := hashlib.sha256(PRETRAINED.read_bytes()).hexdigest()) != PRETRAINED_SHA256:
        raise ValueError(
            f"{PRETRAINED.name} is not the model that ships with the course (its SHA-256 begins with {found[:8]}, "
            f"not {PRETRAINED_SHA256[:8]}); get the file again with git checkout, or load your own with utils.checkpoint.load"
        )
    return load(PRETRAINED)


def ship(run):
    """Make the best model of a run folder the one that ships, with 16 bits a weight, its log beside it.

    The printed hash goes into PRETRAINED_SHA256, so that nobody's copy is another one unnoticed.
    """
    model, tokenizer, info = load(Path(run) / "best.safetensors")
    save(PRETRAINED, model, tokenizer, torch.float16, **info)
    shutil.copy(Path(run) / "log.jsonl", PRETRAINED.with_suffix(".log.jsonl"))
    print(f"{PRETRAINED.stat().st_size:,} bytes, SHA-256 {hashlib.sha256(PRETRAINED.read_bytes()).hexdigest()}")


def save_state(path, model, optimizers, **rest):
    """All that a stopped training needs to go on: weights, optimizers, and ``rest`` (plain values, tensors)."""
    stepped = [optimizer.state_dict() for optimizer in optimizers]
    state = {"config": asdict(model.config), "model": model.state_dict(), "optimizers": stepped, **rest}
    write_aside(path, lambda part: torch.save(state, part))


def load_state(path, model, optimizers):
    """Put a stopped training's weights back into model and optimizers; the rest of the state as a dict.

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
    for optimizer, stepped in zip(optimizers, state.pop("optimizers"), strict=True):
        optimizer.load_state_dict(stepped)
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


def write_json(path, value):
    """Write a value as JSON, as ``write_aside`` does."""
    write_aside(path, lambda part: part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8"))


def made_with():
    """On what a number was measured, to be stored beside it: hardware, PyTorch's version and the date."""
    hardware = f"{os.cpu_count()}-core CPU, threads: {torch.get_num_threads()}"
    return {"hardware": hardware, "torch": torch.__version__.split("+")[0], "date": date.today().isoformat()}


if __name__ == "__main__":
    ship(sys.argv[1])
