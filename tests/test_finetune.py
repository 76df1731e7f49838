"""Chapter 15: cleaning loses nothing in silence, the split is fair, and the measurements can be made again."""

import json
from collections import Counter

import pytest
import torch

from utils import finetune
from utils.data import CharTokenizer, load_text, read_text
from utils.finetune import clean, rehearsal, some_of, spread_split

CHARS = "\n !'-.abcdefghijklmnopqrstuvwxyz"


def test_cleaning_accounts_for_every_character():
    text, lost = clean("it’s “one” — (two) é é", CHARS)
    assert text == "it's 'one' -- two  "
    assert lost == {"(": 1, ")": 1, "é": 2}
    assert clean("all is known", CHARS) == ("all is known", Counter())


def test_the_split_keeps_all_and_tests_all_over_the_text():
    ids = torch.arange(1050)
    learn, tested = spread_split(ids, piece=10, every=20)
    assert torch.equal(torch.cat([learn, tested]).sort().values, ids)
    assert tested.tolist() == [i for start in range(190, 1050, 200) for i in range(start, start + 10)]
    assert torch.equal(learn, learn.sort().values)


def test_some_of_a_text_is_in_one_piece_and_hangs_on_the_seed():
    ids = torch.arange(1000)
    some = some_of(ids, 10, seed=1)
    assert some.tolist() == list(range(some[0], some[0] + 100))
    assert torch.equal(some, some_of(ids, 10, seed=1)) and not torch.equal(some, some_of(ids, 10, seed=2))
    assert torch.equal(some_of(ids, 1, seed=5), ids)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_rehearsal_has_the_share_it_is_asked_for(share):
    new, old = torch.zeros(100_000, dtype=torch.long), torch.ones(1_234_567, dtype=torch.long)
    assert rehearsal(new, old, share).float().mean().item() == pytest.approx(share, rel=0.1)


def test_the_best_look_is_what_fit_returns(monkeypatch):
    """An overfitted model must not come back: on random letters the validation loss soon rises."""
    monkeypatch.setitem(finetune.SHAPE, "block_size", 8)
    tokenizer, few = CharTokenizer(CHARS), torch.randint(5, (60,), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = finetune.NanoGPT(finetune.NanoGPTConfig(tokenizer.vocab_size, 8, 1, 2, 32, tied=False))
    best, history = finetune.fit(model, few[:40], few[40:], tokenizer, steps=60, lr=3e-2)
    lowest = min(look["val"] for look in history)
    assert lowest < history[-1]["val"] - 0.1
    again = finetune.estimate_loss(best, {"val": few[40:]}, 16, 8, 40)["val"]
    assert abs(again - lowest) < 0.3 < history[-1]["val"] - again


def test_one_seed_measures_every_comparison(monkeypatch):
    for name, value in {"block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}.items():
        monkeypatch.setitem(finetune.SHAPE, name, value)
    tokenizer, ids = CharTokenizer(CHARS), torch.randint(len(CHARS), (6000,), generator=torch.Generator().manual_seed(0))
    found = finetune.one_seed(1, tokenizer, (ids[:4000], ids[4000:4500]), (ids[:5000], ids[5000:]), (4, 2))
    stored = json.loads(finetune.RESULTS.read_text(encoding="utf-8"))["runs"]
    for run in stored:
        assert {key: run[key].keys() for key in ("before", "amounts", "rates")} == {
            key: found[key].keys() for key in ("before", "amounts", "rates")
        }
    assert len(stored) >= 3


@pytest.mark.parametrize("raw, words", [
    ("“Größe”".encode("cp1252") * 9, "byte 0 is 0x93, which would be '“' in Windows-1252); if it is text, save it as UTF-8"),
    (b"too short " * 9, "90 characters are too few"),
    (b"", "is empty"),
])
def test_a_text_that_cannot_be_used_is_refused_in_words(raw, words, tmp_path, capsys):
    path = tmp_path / "mine.txt"
    path.write_bytes(raw)
    try:
        text, _ = clean(read_text(path), CHARS)
        spread_split(torch.tensor(CharTokenizer(CHARS).encode(text)))
    except ValueError as error:
        assert words in str(error)
    else:
        pytest.fail("it was taken")


def test_the_command_does_not_mix_results(tmp_path, capsys):
    if not finetune.is_original(load_text()):
        pytest.skip("tiny Shakespeare cannot be had here")
    capsys.readouterr()
    mine, out = tmp_path / "mine.txt", tmp_path / "out.json"
    mine.write_text("the quick brown fox. " * 20_000)
    out.write_text(json.dumps({"made": {"text": "kjv", "steps": [800, 200]}, "runs": []}))
    assert finetune.main(["--data", str(mine), "--out", str(out)]) == 2
    assert "results of another text" in capsys.readouterr().err
    assert finetune.main(["--data", str(tmp_path / "nowhere.txt")]) == 2
