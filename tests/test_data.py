"""Texts, tokenizer and batches: the exact facts, and every way a download can go wrong."""

import http.server
import threading

import pytest
import torch

from utils import data
from utils.data import CharTokenizer, get_batch, is_original, load_text, train_val_split
from utils.understudy import write_play


@pytest.fixture(scope="module")
def shakespeare():
    text = load_text()
    if not is_original(text):
        pytest.skip("tiny Shakespeare cannot be had here")
    return text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project folder with no text in it and no network."""
    monkeypatch.setattr(data, "ROOT", tmp_path)
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setitem(
        data.TEXTS, "tinyshakespeare", {**data.TEXTS["tinyshakespeare"], "urls": ("http://127.0.0.1:9/",)}
    )
    monkeypatch.setattr(data.time, "sleep", lambda seconds: None)
    return tmp_path


@pytest.fixture
def serve(monkeypatch):
    """serve(a, b): addresses on this machine that answer with those bytes; ``promised`` is the length they announce."""
    servers = []

    def start(*answers, promised=None):
        urls = []
        for answer in answers:
            class Handler(http.server.BaseHTTPRequestHandler):
                body = answer

                def do_GET(self):
                    self.send_response(200)
                    self.send_header("Content-Length", promised or len(self.body))
                    self.end_headers()
                    self.wfile.write(self.body)

                def log_message(self, *args):
                    pass
            server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            servers.append(server)
            urls.append(f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setitem(data.TEXTS, "tinyshakespeare", {**data.TEXTS["tinyshakespeare"], "urls": tuple(urls)})

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_facts_of_tiny_shakespeare(shakespeare):
    tokenizer = CharTokenizer(shakespeare)
    ids = torch.tensor(tokenizer.encode(shakespeare))
    train_ids, val_ids = train_val_split(ids)
    assert (len(shakespeare), tokenizer.vocab_size) == (1_115_394, 65)
    assert (len(train_ids), len(val_ids)) == (1_003_854, 111_540)
    assert ids[:9].tolist() == [18, 47, 56, 57, 58, 1, 15, 47, 58]
    assert tokenizer.encode("hii there") == [46, 47, 47, 1, 58, 46, 43, 56, 43]
    assert tokenizer.decode(tokenizer.encode(shakespeare)) == shakespeare
    torch.manual_seed(1337)
    x, _ = get_batch(train_ids, 4, 8)
    assert x[0].tolist() == [24, 43, 58, 5, 57, 1, 46, 43]


def test_the_facts_of_gpt2(shakespeare):
    encoding = data.gpt2_encoding()
    if encoding is None:
        pytest.skip("GPT-2's vocabulary cannot be had here")
    assert encoding.encode("hii there") == [71, 4178, 612]
    assert encoding.n_vocab == 50_257
    assert len(encoding.encode(shakespeare)) == 338_025


def test_the_facts_of_the_bible():
    bible = load_text("kjv")
    if not is_original(bible, "kjv"):
        pytest.skip("the King James Bible cannot be had here")
    assert (len(bible), bible.count("\n"), bible.count("—")) == (4_143_593, 31_102, 1)
    assert bible.startswith("In the beginning God created the heaven and the earth.\n")


def test_the_bible_has_an_understudy_of_its_own(folder, monkeypatch, capsys):
    monkeypatch.setitem(data.TEXTS, "kjv", {**data.TEXTS["kjv"], "urls": ("http://127.0.0.1:9/",)})
    play, other = load_text("kjv"), load_text()
    assert len(play) == 4_143_593 and set(play) == set(other)
    assert play[:1000] != other[:1000]
    assert capsys.readouterr().out.count("understudy") == 2


def test_understudy_is_like_the_text():
    play = write_play()
    assert play == write_play()
    assert len(play) == 1_115_394
    assert "".join(sorted(set(play))) == "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert not is_original(play)


def test_batches_are_the_windows_of_a_loop():
    ids = torch.arange(1000)
    for seed in range(20):
        torch.manual_seed(seed)
        x, y = get_batch(ids, 5, 13)
        torch.manual_seed(seed)
        starts = torch.randint(1000 - 13, (5,))
        assert torch.equal(x, torch.stack([ids[i : i + 13] for i in starts]))
        assert torch.equal(y, torch.stack([ids[i + 1 : i + 14] for i in starts]))


def test_batches_reach_the_first_and_the_last_window():
    ids, seen = torch.arange(10), set()
    for _ in range(200):
        x, y = get_batch(ids, 4, 8)
        seen |= set(x[:, 0].tolist())
        assert y.max() <= 9
    assert seen == {0, 1}


def test_a_generator_fixes_the_batch():
    ids = torch.arange(1000)
    draws = [get_batch(ids, 4, 8, generator=torch.Generator().manual_seed(7))[0] for _ in range(2)]
    assert torch.equal(*draws)


@pytest.mark.parametrize("make, error, words", [
    (lambda: CharTokenizer("abc").encode("abxc"), ValueError, "'x' at position 2"),
    (lambda: CharTokenizer("abc").decode([0, 3]), ValueError, "id 3 is out of range: .* 0 to 2"),
    (lambda: CharTokenizer("abc").decode([-1]), ValueError, "id -1"),
    (lambda: CharTokenizer(""), ValueError, "empty"),
    (lambda: get_batch(torch.arange(8), 4, 8), ValueError, "8 ids are too few.* need 9"),
    (lambda: load_text("hamlet"), ValueError, "no text called 'hamlet'; there is 'tinyshakespeare', 'kjv'"),
])
def test_bad_input_gets_a_clear_error(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_nine_ids_are_enough_for_a_window_of_eight():
    x, y = get_batch(torch.arange(9), 4, 8)
    assert x.shape == y.shape == (4, 8)


def test_no_network_gives_the_understudy_and_says_so(folder, capsys):
    assert load_text() == write_play()
    assert "understudy" in capsys.readouterr().out
    assert not list(folder.rglob("*.txt"))


def test_a_download_is_checked_and_stored(folder, serve, shakespeare, capsys):
    serve(shakespeare.encode())
    assert load_text() == shakespeare
    assert (folder / "data" / "tinyshakespeare.txt").read_bytes() == shakespeare.encode()
    assert not list(folder.rglob("*.part"))
    serve(b"gone")
    assert load_text() == shakespeare   # from the folder now
    assert capsys.readouterr().out == ""


def test_a_login_page_is_refused_and_the_mirror_taken(folder, serve, shakespeare, capsys):
    serve(b"<html>please log in</html>", shakespeare.encode())
    assert load_text() == shakespeare
    assert "login page" in capsys.readouterr().out


@pytest.mark.parametrize("promised", [None, 1_115_394])   # a short answer, and a connection cut half-way
def test_half_an_answer_is_refused(folder, serve, shakespeare, promised):
    serve(shakespeare.encode()[:1000], promised=promised)
    assert load_text() == write_play()
    assert not list(folder.rglob("*.txt"))


@pytest.mark.parametrize("content", ["half", "wrong"])
def test_a_damaged_file_is_neither_used_nor_replaced(folder, serve, shakespeare, content, capsys):
    damaged = {"half": shakespeare.encode()[:500_000], "wrong": b"my own notes"}[content]
    path = folder / "data" / "tinyshakespeare.txt"
    path.parent.mkdir()
    path.write_bytes(damaged)
    serve(shakespeare.encode())
    assert load_text() == shakespeare
    assert path.read_bytes() == damaged
    assert "is not the published text" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_does_not_stop_the_course(folder, serve, shakespeare, capsys):
    (folder / "data").write_text("a file where the folder should be")   # fails for root as well, unlike permissions
    serve(shakespeare.encode())
    assert load_text() == shakespeare
    assert "could not be stored" in capsys.readouterr().out


def test_course_data_comes_first(folder, monkeypatch, tmp_path_factory, shakespeare):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "tinyshakespeare.txt").write_bytes(shakespeare.encode())
    monkeypatch.setenv("COURSE_DATA", str(elsewhere))
    assert load_text() == shakespeare


def test_gpt2_encoding_without_network(folder, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr(data, "GPT2_FILES", {"http://127.0.0.1:9/": "0"})
    assert data.gpt2_encoding() is None
    assert "cannot be had" in capsys.readouterr().out
