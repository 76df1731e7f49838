"""Training, measuring and checkpoints: seeds, going on after a stop, and files that are not what they should be."""

import itertools
import json
import math
import os
import re
import sys

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.testing import assert_close

from utils import checkpoint, train
from utils.data import CharTokenizer
from utils.model import GPT, GPTConfig

TEXT = "to be, or not to be: that is the question.\n" * 40
TOKENIZER = CharTokenizer(TEXT)
IDS = torch.tensor(TOKENIZER.encode(TEXT))
V = TOKENIZER.vocab_size


def model(seed=0, **changes):
    torch.manual_seed(seed)
    return GPT(GPTConfig(**{"vocab_size": V, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8, **changes}))


def run(m, **settings):
    return train.train(m, IDS, IDS[:200], **{"steps": 6, "batch_size": 4, "eval_every": 3, "eval_iters": 2, **settings})


def weights(m):
    return torch.cat([p.detach().flatten() for p in m.parameters()])


def test_training_depends_on_its_seed_alone():
    first, again, other = model(dropout=0.3), model(dropout=0.3), model(dropout=0.3)
    run(first)
    torch.randn(17)   # what ran before must not matter
    run(again)
    run(other, seed=2)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_looking_more_often_changes_nothing():
    seldom, often = model(), model()
    run(seldom, eval_every=6)
    run(often, eval_every=1)
    assert torch.equal(weights(seldom), weights(often))


def test_training_lowers_the_loss():
    m = model()
    before = train.evaluate(m, IDS)
    history = run(m, steps=100, lr=1e-2, eval_every=50)
    assert train.evaluate(m, IDS) < before - 0.5
    assert [look["step"] for look in history] == [50, 100]


def test_evaluate_is_the_mean_over_every_window():
    m = model().eval()
    T, total, n = 8, 0.0, 0
    for start in range(0, len(IDS) - T, T):
        _, loss = m(IDS[None, start : start + T], IDS[None, start + 1 : start + T + 1])
        total, n = total + loss.item(), n + 1
    assert n == (len(IDS) - 1) // T
    assert math.isclose(train.evaluate(m, IDS), total / n, rel_tol=1e-5)


def test_evaluate_needs_one_window():
    assert train.evaluate(model(), IDS[:9]) > 0
    with pytest.raises(ValueError, match="8 ids are too few.* 9 are needed"):
        train.evaluate(model(), IDS[:8])


def test_estimate_loss_leaves_the_model_in_train_mode():
    m = model()
    losses = train.estimate_loss(m, {"train": IDS, "val": IDS[:100]}, 4, 8, eval_iters=3)
    assert set(losses) == {"train", "val"} and m.training


def test_compare_holds_a_loss_against_its_band(monkeypatch, capsys):
    monkeypatch.setattr(train, "is_original", lambda text: True)
    train.compare("04", 2.48, TEXT)
    for wrong in (2.60, 2.30, float("nan")):
        with pytest.raises(AssertionError, match="outside 2.45 to 2.51"):
            train.compare("04", wrong, TEXT)
    monkeypatch.setattr(train, "is_original", lambda text: False)
    train.compare("04", 9.0, TEXT)
    assert "not compared" in capsys.readouterr().out


def adam(m):
    return {"lr": 1e-2, "schedule": train.flat_linear(6)}


def better(m):
    return {"optimizer": train.muon(m, 1e-2), "schedule": train.flat_linear(6), "average": 0.9}


@pytest.mark.parametrize("how", [adam, better])
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(how, tmp_path):
    whole, first, second = model(dropout=0.3), model(dropout=0.3), model(seed=9, dropout=0.3)
    run(whole, **how(whole))
    with pytest.raises(ZeroDivisionError):   # in the sixth step; the last look was after the third
        stops = {"schedule": lambda step: 1 / (5 - step) and train.flat_linear(6)(step)}
        run(first, **{**how(first), **stops}, out=tmp_path, tokenizer=TOKENIZER)
    torch.randn(17)
    history = run(second, **how(second), out=tmp_path, tokenizer=TOKENIZER, resume=True)
    assert torch.equal(weights(whole), weights(second))
    assert [look["step"] for look in history] == [3, 6]


def test_the_best_model_is_kept_not_the_last(tmp_path, monkeypatch):
    vals, seen = iter([3.0, 1.0, 2.0]), []
    m = model()

    def fake(*args, **kwargs):
        seen.append(weights(m).clone())
        return {"train": 0.0, "val": next(vals)}

    monkeypatch.setattr(train, "estimate_loss", fake)
    run(m, steps=3, eval_every=1, out=tmp_path, tokenizer=TOKENIZER)
    best, _, info = checkpoint.load(tmp_path / "best.safetensors")
    assert info["val"] == 1.0 and info["step"] == 2
    assert torch.equal(weights(best), seen[1])


def test_ctrl_c_keeps_the_best_model_and_says_where(tmp_path, monkeypatch, capsys):
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    real = train.get_batch
    monkeypatch.setattr(train, "estimate_loss", lambda *a, **k: {"train": 1.0, "val": 1.0})
    monkeypatch.setattr(train, "get_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(model(), out=tmp_path, tokenizer=TOKENIZER)
    assert "best.safetensors" in capsys.readouterr().out
    checkpoint.load(tmp_path / "best.safetensors")


def test_a_checkpoint_gives_the_model_back(tmp_path):
    m = model().eval()
    checkpoint.save(tmp_path / "m.safetensors", m, TOKENIZER, val=1.5, made="by hand")
    back, tokenizer, info = checkpoint.load(tmp_path / "m.safetensors")
    idx = torch.randint(V, (2, 8))
    assert_close(back(idx)[0], m(idx)[0], rtol=0, atol=0)
    assert tokenizer.chars == TOKENIZER.chars and info == {"val": 1.5, "made": "by hand"} and not back.training


def test_files_that_are_not_checkpoints(tmp_path):
    good = tmp_path / "good.safetensors"
    checkpoint.save(good, model(), TOKENIZER)
    cut, text, foreign, other = (tmp_path / name for name in ("cut", "text", "foreign", "other"))
    cut.write_bytes(good.read_bytes()[:1000])
    text.write_text("Friends, Romans, countrymen")
    save_file({"w": torch.zeros(2)}, foreign)
    metadata = {"config": json.dumps({**vars(model().config), "n_embd": 16}), "chars": json.dumps(TOKENIZER.chars)}
    save_file(model().state_dict(), other, metadata)
    for path, words in (
        (cut, "cut short"), (text, "not a checkpoint"), (foreign, "not as this course"), (other, "another shape")
    ):
        with pytest.raises(ValueError, match=words):
            checkpoint.load(path)
    with pytest.raises(FileNotFoundError, match="no checkpoint nothing.safetensors"):
        checkpoint.load(tmp_path / "nothing.safetensors")


def test_a_failed_save_leaves_the_last_good_one(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, model(), TOKENIZER)
    before = path.read_bytes()

    def full_disk(weights, part, metadata):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, model(seed=1), TOKENIZER)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_resume_refuses_another_model_and_damage(tmp_path):
    run(model(), out=tmp_path, tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="another model"):
        run(model(n_embd=16), out=tmp_path, tokenizer=TOKENIZER, resume=True)
    state = tmp_path / "resume.pt"
    state.write_bytes(state.read_bytes()[:500])
    with pytest.raises(ValueError, match="damaged"):
        run(model(), out=tmp_path, tokenizer=TOKENIZER, resume=True)


def test_the_shipped_model(tmp_path, monkeypatch):
    m, tokenizer, info = checkpoint.load_pretrained()
    assert checkpoint.PRETRAINED.stat().st_size < 8_000_000
    assert tokenizer.vocab_size == m.config.vocab_size == 65
    text = train.load_text()
    if not train.is_original(text):
        pytest.skip("tiny Shakespeare cannot be had here")
    _, val_ids = train.train_val_split(torch.tensor(tokenizer.encode(text)))
    assert train.evaluate(m, val_ids) <= 1.43


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """python -m utils.train on a tiny preset: its exit code, what it printed, and its complaint."""
    monkeypatch.chdir(tmp_path)
    tiny = {
        "model": (GPT, GPTConfig), "shape": {"block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8},
        "steps": 4, "batch_size": 2, "lr": 1e-3,
    }
    monkeypatch.setitem(train.PRESETS, "cpu", tiny)
    monkeypatch.setattr(train, "load_text", lambda: TEXT)
    monkeypatch.setattr(train, "pick_device", lambda: "cpu")

    def call(*args):
        code = train.main(list(args))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_the_command_trains_and_writes(command, tmp_path):
    code, out, err = command()
    assert code == 0 and err == "" and "over the whole validation split" in out
    assert {p.name for p in (tmp_path / "runs" / "cpu").iterdir()} == {"best.safetensors", "resume.pt", "log.jsonl"}


def test_the_command_never_overwrites_a_run(command, tmp_path):
    command()
    before = (tmp_path / "runs/cpu/best.safetensors").read_bytes()
    code, _, err = command()
    assert code == 2 and "--resume" in err and "Traceback" not in err
    assert (tmp_path / "runs/cpu/best.safetensors").read_bytes() == before
    assert command("--resume", "--steps", "6")[0] == 0


@pytest.mark.parametrize("args, words", [
    (["--resume"], "nothing to resume"),
    (["--steps", "0"], "--steps is 0"),
    (["--resume", "--out", "elsewhere"], "no resume.pt in elsewhere"),
])
def test_the_command_explains_what_is_wrong(command, args, words):
    code, _, err = command(*args)
    assert code == 2 and words in err


def test_the_command_refuses_an_unknown_preset(command, capsys):
    with pytest.raises(SystemExit) as stop:
        command("--preset", "huge")
    assert stop.value.code == 2
    assert "huge" in capsys.readouterr().err


def test_the_command_stops_cleanly_by_ctrl_c(command, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt
    monkeypatch.setattr(train, "get_batch", interrupted)
    code, out, err = command()
    assert code == 130 and "stopped by hand" in out and "Traceback" not in err


def test_a_run_already_as_long_says_so(command):
    command()
    code, _, err = command("--resume")
    assert code == 2 and "step 4" in err


def test_a_folder_that_cannot_be_made(command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = command("--out", str(tmp_path / "file" / "run"))
    assert code == 2 and err.startswith("error:")


@pytest.mark.parametrize("raw, words", [
    (b"", "is empty"),
    (b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8 text (byte 0 is 0x89, which would be '‰' in Windows-1252)"),
    ("Größe".encode("latin-1") * 99, "save it as UTF-8"),
    (b"abc\x00" * 999, "zero bytes"),
    (b"too short", "text of at least 90 characters"),
])
def test_a_text_that_nothing_can_be_learned_from(command, tmp_path, raw, words):
    (tmp_path / "mine.txt").write_bytes(raw)
    code, _, err = command("--data", str(tmp_path / "mine.txt"))
    assert code == 2 and err.startswith("error:") and words in err
    assert not (tmp_path / "runs").exists()


def test_a_text_of_ones_own(command, tmp_path):
    (tmp_path / "mine.txt").write_bytes(("\ufeff" + "Ä löve lètter.\r\n" * 20).encode())
    assert command("--data", str(tmp_path / "mine.txt"))[0] == 0
    _, tokenizer, _ = checkpoint.load(tmp_path / "runs/cpu/best.safetensors")
    assert set(tokenizer.chars) == set("Ä löve lètter.\n")
    code, _, err = command("--resume", "--steps", "6")   # now on the other text
    assert code == 2 and "they differ in" in err and "--out" in err
    assert command("--data", str(tmp_path / "mine.txt"), "--resume", "--steps", "6")[0] == 0
    code, _, err = command("--data", str(tmp_path / "nowhere.txt"), "--out", "other")
    assert code == 2 and "nowhere.txt" in err


def test_resume_with_another_preset_leaves_the_run_as_it_was(command, tmp_path, monkeypatch):
    command()
    before = (tmp_path / "runs/cpu/resume.pt").read_bytes()
    bigger = {**train.PRESETS["cpu"], "shape": {"block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 8}}
    monkeypatch.setitem(train.PRESETS, "lecture", bigger)
    code, _, err = command("--preset", "lecture", "--out", "runs/cpu", "--resume", "--steps", "6")
    assert code == 2 and "belongs to another model" in err
    assert (tmp_path / "runs/cpu/resume.pt").read_bytes() == before


@pytest.mark.parametrize("library", ["save_file", "torch.save"])
def test_a_disk_that_fills_up_while_saving(command, tmp_path, monkeypatch, library):
    command()
    out = tmp_path / "runs" / "cpu"
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def full(weights, part, *metadata):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device") if library == "torch.save" else SafetensorError("No space left on device")

    monkeypatch.setattr(*((checkpoint, "save_file") if library == "save_file" else (torch, "save")), full)
    monkeypatch.setattr(train, "estimate_loss", lambda *args, **settings: {"train": 0.0, "val": 0.0})   # a best model, to be kept
    code, _, err = command("--resume", "--steps", "6")
    assert code == 2 and "No space left" in err and "Traceback" not in err
    after = {p.name: p.read_bytes() for p in out.iterdir()}
    assert after["resume.pt"] == before["resume.pt"] and set(after) == set(before)
    if library == "save_file":
        assert after == before


def test_a_device_that_is_not_there(command):
    code, _, err = command("--device", "abacus")
    assert code == 2 and "no device 'abacus' here; there is cpu" in err


def test_the_log_has_a_line_for_each_look(command, tmp_path):
    command()
    rows = [json.loads(line) for line in (tmp_path / "runs/cpu/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all({"train", "val", "tokens_per_second", "seconds"} <= set(row) for row in rows)


def test_the_progress_line_leaves_nothing_behind(monkeypatch, capsys):
    """Where somebody watches, each step overwrites one line; what stays are the looks."""
    clock = itertools.count(step=2)   # so slow that every step has something to say
    monkeypatch.setattr(train.time, "perf_counter", lambda: next(clock))
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    run(model(), steps=6, eval_every=3)
    said = capsys.readouterr().out
    assert said.count("this batch") == 6
    stays = [line.rpartition("\r")[2] for line in said.split("\n")[:-1]]
    assert [line[:15] for line in stays] == ["step     3 of 6", "step     6 of 6"]
    longest = max(map(len, re.split("[\r\n]", said)))
    assert all(len(line) == longest for line in stays), "the end of a longer line would show behind a shorter one"
