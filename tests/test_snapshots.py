"""What the explorers look at: attention weights are the model's own, and the stored models are the pages'."""

import json

import pytest
import torch
from torch.testing import assert_close

from utils import snapshots
from utils.data import CharTokenizer, is_original, load_text, train_val_split
from utils.model import GPT, GPTConfig
from utils.nanogpt import NanoGPT, NanoGPTConfig
from utils.train import LADDER, evaluate

T, C, n_head = 7, 30, 5


@pytest.mark.parametrize("kind", ["GPT", "NanoGPT", "rotary"])
def test_attention_is_what_the_model_itself_computes(kind):
    torch.manual_seed(0)
    shape = {"vocab_size": 11, "block_size": 9, "n_layer": 3, "n_head": n_head, "n_embd": C}
    rotary = {"position": "rotary", "qk_norm": True, "norm": "rms"} if kind == "rotary" else {}
    model = GPT(GPTConfig(**shape)) if kind == "GPT" else NanoGPT(NanoGPTConfig(**shape, **rotary, init="pytorch"))
    seen = []   # what goes into each attention, and what comes out
    layers = [block.sa for block in model.body[:-1]] if kind == "GPT" else [block.attn for block in model.body.blocks]
    for layer in layers:
        layer.register_forward_hook(lambda _, into, out: seen.append((into[0], out)))
    idx = torch.randint(11, (1, T))
    with torch.no_grad():
        model.eval()(idx)
        weights = snapshots.attention(model, idx)
        assert weights.shape == (3, n_head, T, T)
        assert_close(weights.sum(dim=-1), torch.ones(3, n_head, T))
        assert weights.triu(1).abs().max() == 0
        for layer, wei, (x, out) in zip(layers, weights, seen):
            if kind == "GPT":
                v = torch.stack([head.value(x[0]) for head in layer.heads])             # (n_head, T, H)
            else:
                v = layer.qkv(x[0])[:, 2 * C :].view(T, n_head, C // n_head).transpose(0, 1)
            assert_close(layer.proj((wei @ v).transpose(0, 1).reshape(T, C)), out[0])   # (n_head, T, T) @ (n_head, T, H)


def test_predictions_see_what_the_model_can_see():
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=11, block_size=4, n_layer=1, n_head=2, n_embd=8)).eval()
    ids = torch.randint(11, (9,))
    for n in (1, 3, 4, 5, 9):
        probs = snapshots.predictions(model, ids[:n])   # (n, V)
        for t in range(n):
            alone = model(ids[None, max(0, t - 3) : t + 1])[0][0, -1].softmax(dim=-1)
            assert_close(probs[t], alone)


def test_the_stored_models_are_the_pages():
    models, tokenizer = snapshots.chapter_models()
    ladder = json.loads(LADDER.read_text())
    assert [name[:2] for name in models] == list(ladder)[: len(models)]
    text = load_text()
    if not is_original(text):
        pytest.skip("the understudy has no numbers to agree with")
    assert tokenizer.chars == CharTokenizer(text).chars
    _, val_ids = train_val_split(torch.tensor(tokenizer.encode(text)))
    made = snapshots._read(snapshots.CHAPTERS)[1]["losses"]
    for name, model in models.items():
        assert evaluate(model, val_ids) == pytest.approx(made[name[:2]], abs=0.005)            # 16 bits a weight
        assert made[name[:2]] == pytest.approx(ladder[name[:2]]["val"], abs=0.01)   # the page, perhaps on another machine


def test_the_training_goes_down_from_snapshot_to_snapshot():
    shots, line = snapshots.training()
    for before, shot in zip(shots, shots[1:]):
        assert before["step"] < shot["step"] == shot["looks"][-1]["step"]
        assert shot["looks"][-1]["val"] < before["looks"][-1]["val"]
    for shot in shots:
        assert shot["attention"].shape[-2:] == (len(line), len(line)) and len(shot["sample"]) > 200
        assert_close(shot["attention"].sum(dim=-1), torch.ones(shot["attention"].shape[:-1]), atol=0.01, rtol=0)


@pytest.mark.parametrize("harm", ["missing", "cut", "empty", "strange"])
def test_a_bad_file_is_a_sentence(harm, tmp_path, monkeypatch):
    path = tmp_path / "training.safetensors"
    whole = snapshots.TRAINING.read_bytes()
    if harm != "missing":
        path.write_bytes({"cut": whole[:5000], "empty": b"", "strange": whole[8:]}[harm])
    monkeypatch.setattr(snapshots, "TRAINING", path)
    with pytest.raises(FileNotFoundError if harm == "missing" else ValueError, match="python -m utils.snapshots"):
        snapshots.training()
