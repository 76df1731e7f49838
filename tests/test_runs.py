"""Trainings as programs: several processes, one that is killed, one that goes on. Each starts real processes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from utils.data import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torch's gloo and kill -9 as used here need Linux or macOS")


def start(*args, processes=1, **env):
    """Run tests.tiny_run; (exit code, what it printed, its complaint)."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    done = subprocess.run(
        [*command, "tests.tiny_run", "--device", "cpu", *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, **env},
    )
    return done.returncode, done.stdout, done.stderr


def final_weights(out):
    return torch.load(out / "resume.pt", weights_only=True)["model"]


def losses(out):
    return [(row["step"], row["train"], row["val"]) for row in map(json.loads, (out / "log.jsonl").read_text().splitlines())]


def test_two_processes_train_like_one(tmp_path):
    """Each takes half of every batch: the losses and weights of one process with all of it. Only the first one writes."""
    code, printed, err = start("--out", tmp_path / "two", processes=2)
    assert code == 0, err
    assert printed.count("step    40 of 40") == 1
    assert start("--out", tmp_path / "one")[0] == 0
    assert_close(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4, atol=1e-4)
    assert_close(final_weights(tmp_path / "two"), final_weights(tmp_path / "one"), rtol=1e-3, atol=1e-4)


def test_a_killed_worker_ends_the_run_and_the_checkpoint_is_whole(tmp_path):
    code, _, err = start("--out", tmp_path, processes=2, DIES_AT="1 22")
    assert code != 0 and "error: another process of this run has ended" in err and "--resume" in err
    assert losses(tmp_path)[-1][0] == 20
    load_file(tmp_path / "best.safetensors")
    code, _, err = start("--out", tmp_path, "--resume", processes=2)
    assert code == 0, err
    assert [row[0] for row in losses(tmp_path)] == list(range(4, 41, 4))


def test_a_killed_run_goes_on_to_exactly_the_same_weights(tmp_path):
    """kill -9 between two looks, with dropout: everything random goes on where the last look was."""
    assert start("--out", tmp_path / "whole", TINY_DROPOUT="0.3")[0] == 0
    code, _, _ = start("--out", tmp_path / "killed", TINY_DROPOUT="0.3", DIES_AT="0 22")
    assert code == -9 and losses(tmp_path / "killed")[-1][0] == 20
    code, _, err = start("--out", tmp_path / "killed", "--resume", TINY_DROPOUT="0.3")
    assert code == 0, err
    assert_close(final_weights(tmp_path / "killed"), final_weights(tmp_path / "whole"), rtol=0, atol=0)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_processes_that_do_not_divide_the_batch(tmp_path):
    code, _, err = start("--out", tmp_path / "run", processes=3)
    assert code != 0 and err.count("error: a batch of 4 cannot be shared by 3 processes") == 1
    assert not (tmp_path / "run").exists()
