"""Texts, the character tokenizer, the split, and batches. Chapters 01 to 03."""

import hashlib
import http.client
import os
import tempfile
import time
import urllib.request
from pathlib import Path

import torch

from utils.understudy import write_play

ROOT = Path(__file__).resolve().parent.parent   # the project's folder
TIMEOUT = 6     # seconds to wait for an address that does not answer

TEXTS = {
    "tinyshakespeare": {
        "sha256": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        "encoding": "utf-8",
        "urls": (
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            "https://raw.githubusercontent.com/karpathy/ng-video-lecture/master/input.txt",
        ),
        "understudy": {},
    },
    "kjv": {   # the King James Bible, one verse a line; chapter 15
        "sha256": "9079053ce669e82257f54a82cdc16d10962a8fbff4eccbb1c6df26d3cfb19b4c",
        "encoding": "cp1252",   # Windows-1252
        "urls": (
            "https://raw.githubusercontent.com/AnastasiaBelenkii/kjv-word2vec/341d0b3192ff4ab312bdc48a12b597ee88ea7b26/kjv.txt",
        ),
        "understudy": {"length": 4_143_593, "seed": 1611},   # another play, as long as the Bible
    },
}

# What tiktoken's GPT-2 encoding is made of, and its SHA-256.
GPT2_FILES = {
    "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe":
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/encoder.json":
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}


def load_text(name="tinyshakespeare"):
    """The text called ``name``: from ``COURSE_DATA``, from ``data/``, or downloaded once.

    Every byte is checked against the SHA-256 above. Where no good copy can be had, a line
    says why, and the understudy takes its place: a play the course writes itself, with the
    same length, layout and 65 characters, so that everything still runs.

    Raises ValueError for a name that is not in TEXTS.
    """
    if name not in TEXTS:
        raise ValueError(f"there is no text called {name!r}; there is {', '.join(map(repr, TEXTS))}")
    folders = [ROOT / "data"]
    if os.environ.get("COURSE_DATA"):
        folders.insert(0, Path(os.environ["COURSE_DATA"]))
    for folder in folders:
        raw = _read_checked(folder / f"{name}.txt", TEXTS[name]["sha256"])
        if raw is not None:
            break
    else:
        raw = _download(TEXTS[name]["urls"], TEXTS[name]["sha256"])
        if raw is None:
            print(f"No copy of {name} to be had: the understudy, a play written by this course, takes its place.")
            return write_play(**TEXTS[name]["understudy"])
        _store(ROOT / "data" / f"{name}.txt", raw)
    return raw.decode(TEXTS[name]["encoding"])


def read_text(path):
    """Any text file, UTF-8. Raises ValueError where it is empty or not text, OSError where it cannot be read."""
    raw = Path(path).read_bytes()
    if not raw:
        raise ValueError(f"{path} is empty, but there must be something to learn from")
    try:
        text = raw.decode("utf-8-sig")   # without the mark that some editors put first
    except UnicodeDecodeError as error:
        other = raw[error.start : error.start + 1].decode("cp1252", errors="replace")
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start:,} is {raw[error.start]:#04x}, which would be {other!r} in "
            "Windows-1252); if it is text, save it as UTF-8"
        ) from None
    if "\0" in text:
        raise ValueError(f"{path} holds zero bytes, so it is not text; take a plain text file")
    return text.replace("\r\n", "\n")


def gpt2_encoding():
    """tiktoken's GPT-2 encoding, or None, with a line that says why, where its vocabulary cannot be had.

    tiktoken downloads without a time-out, so its two files are fetched here, into its own cache.
    """
    import tiktoken  # here, because only chapter 02 needs it

    cache = Path(os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(ROOT / "data" / "tiktoken-cache")))
    for url, sha256 in GPT2_FILES.items():
        path = cache / hashlib.sha1(url.encode()).hexdigest()   # the name tiktoken looks for
        if _read_checked(path, sha256) is None:
            raw = _download((url,), sha256)
            if raw is None or not _store(path, raw):
                print("GPT-2's vocabulary cannot be had here, so what needs it is left out.")
                return None
    return tiktoken.get_encoding("gpt2")


def is_original(text, name="tinyshakespeare"):
    """True if ``text`` is the published text byte for byte, and not the understudy or another."""
    return _sha256(text.encode(TEXTS[name]["encoding"])) == TEXTS[name]["sha256"]


def _sha256(raw):
    return hashlib.sha256(raw).hexdigest()


def _read_checked(path, sha256):
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        print(f"{path.name} in {path.parent.name}/ cannot be read ({error.strerror}), so it is left out.")
        return None
    if _sha256(raw) == sha256:
        return raw
    # It may be somebody's work, so it is neither used nor replaced.
    print(
        f"{path.name} in {path.parent.name}/ is not the published text ({len(raw):,} bytes; half a file?), "
        "so it is not used. Delete it or move it away, and the next run stores a good copy."
    )
    return None


def _download(urls, sha256, tries=2):
    """The bytes behind the first address that gives the right ones, or None."""
    for url in urls:
        for attempt in range(tries):
            try:
                with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                    raw = answer.read()
            # No network, no such host, a time-out, a connection cut half-way, a bad proxy setting.
            except (OSError, http.client.HTTPException, ValueError) as error:
                print(f"Download failed: {getattr(error, 'reason', error)}.")
                time.sleep(0.5)
                continue
            if _sha256(raw) == sha256:
                return raw
            print(f"Download refused: {len(raw):,} bytes that are not the text. Is there a login page in the way?")
            break   # the same wrong page would come again: try the mirror
    return None


def _store(path, raw):
    """Write beside, then move: a reader never meets half a file, and no file is replaced. True if stored."""
    if path.exists():
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            part.write(raw)
        os.replace(part.name, path)
    except OSError as error:
        print(f"{path.name} could not be stored ({error.strerror}), so the next run downloads it again.")
        return False
    return True


class CharTokenizer:
    """One id per distinct character, in sorted order. Chapter 02.

    ``CharTokenizer(text)`` takes its alphabet from any text; ``chars`` and ``vocab_size``
    show it. ``CharTokenizer(tokenizer.chars)`` builds the same one again.
    """

    def __init__(self, text):
        if not text:
            raise ValueError("the text is empty: a tokenizer takes its characters from a text")
        self.chars = "".join(sorted(set(text)))
        self.vocab_size = len(self.chars)
        self.stoi = {ch: i for i, ch in enumerate(self.chars)}   # string to integer

    def encode(self, text):
        """The ids of a string, as a list. Raises ValueError for a character outside ``chars``."""
        try:
            return [self.stoi[ch] for ch in text]
        except KeyError as error:
            ch = error.args[0]
            raise ValueError(
                f"{ch!r} at position {text.index(ch)} is not among the {self.vocab_size} characters of this "
                "tokenizer; leave it out, or build the tokenizer from a text that has it"
            ) from None

    def decode(self, ids):
        """The string behind a list of ids. Raises ValueError for an id outside 0 … vocab_size − 1."""
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"id {i} is out of range: this tokenizer has ids 0 to {self.vocab_size - 1}")
        return "".join(self.chars[i] for i in ids)


def train_val_split(ids, val_fraction=0.1):
    """The first part of ids (N,) to learn from, the last ``val_fraction`` to be tested on."""
    n = int((1 - val_fraction) * len(ids))
    return ids[:n], ids[n:]


def get_batch(ids, batch_size, block_size, *, generator=None, device=None):
    """Random windows of ids (N,): inputs x (B, T) and targets y (B, T), one step later. Chapter 03.

    Raises ValueError where the ids are too few for one window and its last target.
    """
    if len(ids) < block_size + 1:
        raise ValueError(
            f"{len(ids)} ids are too few: one window of block_size {block_size} and its last target "
            f"need {block_size + 1}; take a longer text or a smaller block_size"
        )
    starts = torch.randint(len(ids) - block_size, (batch_size,), generator=generator)   # (B,)
    windows = ids[starts[:, None] + torch.arange(block_size + 1)]                        # (B, T + 1)
    return windows[:, :-1].to(device), windows[:, 1:].to(device)                         # (B, T) each
