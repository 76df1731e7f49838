"""``utils.train`` with a tiny preset and text, as a program of its own, for the tests that start and kill processes."""

import os
import signal
import sys
import time
from pathlib import Path

from utils import train
from utils.nanogpt import NanoGPT, NanoGPTConfig

train.PRESETS["cpu"] = {
    "model": (NanoGPT, NanoGPTConfig),
    "shape": {"block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8, "dropout": float(os.environ.get("TINY_DROPOUT", "0"))},
    "steps": 40, "batch_size": 4, "lr": 1e-2, "warmup": 5,
}
train.load_text = lambda: Path(__file__).read_text(encoding="utf-8") * 3

if "DIES_AT" in os.environ:   # "RANK STEP": this process is killed there, with no time to say anything
    rank, step = map(int, os.environ["DIES_AT"].split())
    calls, real = [], train._Watch.step

    def step_or_die(self, now, loss):
        if int(os.environ.get("RANK", "0")) == rank and now == step:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, now, loss)

    train._Watch.step = step_or_die

    def say_slowly(*words, **how):   # so that torchrun's SIGTERM comes while the other process complains
        time.sleep(2 * str(words[0]).startswith("error:"))
        print(*words, **how)

    train.print = say_slowly

if __name__ == "__main__":
    sys.exit(train.main())
