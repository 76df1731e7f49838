"""The exercises of chapter 02, Tokenizing."""

from collections import Counter
from dataclasses import dataclass

import torch

from utils.checks import Exercise
from utils.data import train_val_split


def three_parts(ids):
    train, val, test = [], [], []
    for i, one in enumerate(ids):
        part = train if i < 8 * len(ids) // 10 else val if i < 9 * len(ids) // 10 else test
        part.append(one)
    return tuple(torch.tensor(part, dtype=ids.dtype) for part in (train, val, test))


@dataclass(frozen=True)
class Pieces:
    """A tokenizer for exercise 2.2: the longest piece that fits comes first. It loses what no piece spells."""

    pieces: tuple
    unknown: str = ""    # what stands for a character that no piece spells

    def __repr__(self):
        unknown = f", unknown={self.unknown!r}" if self.unknown else ""
        return f"Pieces({', '.join(map(repr, self.pieces))}{unknown})"

    def encode(self, text):
        ids = []
        while text:
            fit = [piece for piece in self.pieces if text.startswith(piece)]
            piece = max(fit, key=len, default=self.unknown)
            if piece:
                ids.append([*self.pieces, self.unknown].index(piece))
            text = text[len(piece) if fit else 1 :]
        return ids

    def decode(self, ids):
        return "".join([*self.pieces, self.unknown][i] for i in ids)


def characters_per_token(tokenizer, text):
    ids = tokenizer.encode(text)
    return len(text) / len(ids) if tokenizer.decode(ids) == text else 0.0


def encode_any(string, chars):
    ids = []
    for ch in string:
        if ch in chars:
            ids.append(chars.index(ch))
        else:
            for byte in ch.encode("utf-8"):
                ids.append(len(chars) + byte)
    return ids


def one_merge(ids, new):
    return _merge_of(ids, new, _pair_of(ids))


def _pair_of(ids):
    counts = Counter(zip(ids, ids[1:]))
    most = max(counts.values())
    return min(pair for pair in counts if counts[pair] == most)


def _merge_of(ids, new, pair, step=2, most=None):
    """``pair`` as the id ``new``; slips go on by another step, or stop after ``most`` places."""
    merged, i = [], 0
    while i < len(ids):
        found = tuple(ids[i : i + 2]) == pair and merged.count(new) != most
        merged.append(new if found else ids[i])
        i += step if found else 1
    return merged


def decode_bpe(ids, merges):
    return _bytes_of(ids, merges).decode("utf-8")


def _bytes_of(ids, merges):
    spelled = [bytes([byte]) for byte in range(256)]
    for a, b in merges:
        spelled.append(spelled[a] + spelled[b])
    return b"".join(spelled[i] for i in ids)


# Slips that take more than an expression.

def _tenth_of_what_was_left(ids):
    rest, test = train_val_split(ids)
    return *train_val_split(rest), test


def _lengths_rounded(ids):
    tenth = len(ids) // 10
    return ids.split([len(ids) - 2 * tenth, tenth, tenth])


def _unchecked(tokenizer, text):
    return len(text) / len(tokenizer.encode(text))


def _lengths_compared(tokenizer, text):
    ids = tokenizer.encode(text)
    return len(text) / len(ids) if len(tokenizer.decode(ids)) == len(text) else 0.0


def _known_or(string, chars, unknown):
    return [i for ch in string for i in ([chars.index(ch)] if ch in chars else unknown(ch, len(chars)))]


def _first_of_equals(ids, new):
    return _merge_of(ids, new, Counter(zip(ids, ids[1:])).most_common(1)[0][0])


def _highest_of_equals(ids, new):
    counts = Counter(zip(ids, ids[1:]))
    return _merge_of(ids, new, max(counts, key=lambda pair: (counts[pair], pair)))


def _every_second_pair(ids, new):
    counts = Counter(zip(ids[::2], ids[1::2]))
    return _merge_of(ids, new, min(counts, key=lambda pair: (-counts[pair], pair)))


def _last_lost(ids, new):
    merged = one_merge(ids, new)
    return merged if merged[-1] == new else merged[:-1]


def _first_id_decides(ids, new):
    counts = Counter(zip(ids, ids[1:]))
    return _merge_of(ids, new, min(counts, key=lambda pair: (-counts[pair], pair[0])))


def _one_token_at_a_time(ids, merges, errors="strict"):
    return "".join(_bytes_of([i], merges).decode("utf-8", errors) for i in ids)


def _one_byte_at_a_time(ids, merges):
    return "".join(bytes([byte]).decode("utf-8") for byte in _bytes_of(ids, merges))


def _one_level_ids(ids, merges):
    return [part for i in ids for part in ([i] if i < 256 else merges[i - 256])]


def _one_level(ids, merges):
    return bytes(_one_level_ids(ids, merges)).decode("utf-8")


def _text_or_error(decode, ids, merges):
    """What comes, or which error the bytes gave: some of the slips end in one."""
    try:
        return decode(ids, merges)
    except UnicodeDecodeError:
        return "UnicodeDecodeError: these bytes are no text"
    except ValueError as error:
        return f"ValueError: {error}"


SHE = [(115, 104), (256, 101), (257, 32)]                # sh, she, she and a space
NAIVE = [(195, 175), (110, 97), (118, 101), (257, 256)]  # ï, na, ve, naï
EUROS = [(226, 130), (172, 226), (257, 130)]             # € is 226, 130, 172: no merge ends where it does


# Slips stand in the order of the input they first fail on, the last one first.
EXERCISES = {
    "2.1": Exercise(
        reference=three_parts,
        cases=lambda: [(torch.arange(n) + 5,) for n in (10, 20, 37, 3, 200)],
        insight="The last tenth is looked at once, at the very end, so that no choice can have been fitted to it.",
        slips={
            "Is the second tenth a tenth of what was left? Both are tenths of the whole.":
                _tenth_of_what_was_left,
            "Did you round the lengths of the last two parts? The cuts are rounded down, the first to 8 * N // 10.":
                _lengths_rounded,
            "Are the ids in a new order? The parts must stay in the order of the text, or neighbours leak.":
                lambda ids: three_parts(ids[torch.randperm(len(ids))]),
            "Is the validation part also in the training part? The training part ends after eight tenths.":
                lambda ids: (ids[: 9 * len(ids) // 10], *three_parts(ids)[1:]),
            "Are the last two parts swapped? The validation part comes before the test part.":
                lambda ids: tuple(three_parts(ids)[i] for i in (0, 2, 1)),
            "Is an id lost at each cut? A slice leaves out its end, so the next slice begins just there.":
                lambda ids: (three_parts(ids)[0], *(part[1:] for part in three_parts(ids)[1:])),
        },
    ),
    "2.2": Exercise(
        reference=characters_per_token,
        cases=lambda: [
            (Pieces(("s", "h", "e")), "she"),
            (Pieces(("sh", "e", "ll", " ")), "she shell"),
            (Pieces(("na", "ï", "v", "e")), "naïve"),
            (Pieces(("the", " ", "king")), "the kings"),
            (Pieces(("the", " ", "king"), "?"), "the kings"),
        ],
        insight="Divide a loss per token by this, and models with different tokenizers can be compared.",
        slips={
            "Do you compare only the lengths? A text of the right length can still be another text.":
                _lengths_compared,
            "Did you try the way back? This tokenizer lost a part of the text, so it has saved nothing.":
                _unchecked,
            "Is the fraction upside down? Characters are divided by tokens, so longer tokens give more.":
                lambda tokenizer, text: 1 / _unchecked(tokenizer, text),
            "Did you count each id once? A token that comes again counts again.":
                lambda tokenizer, text: len(text) / len(set(tokenizer.encode(text))),
            "Is the fraction rounded? / keeps what // throws away.":
                lambda tokenizer, text: len(text) // len(tokenizer.encode(text)),
            "Did you count bytes? len(text) counts characters.":
                lambda tokenizer, text: len(text.encode("utf-8")) / len(tokenizer.encode(text)),
        },
    ),
    "2.3": Exercise(
        reference=encode_any,
        cases=lambda: [
            ("abba", "ab"), ("naïve", "aenv"), ("5 €", " 5"), ("", "abc"), ("Zoë, 三", "\n ,Zo"), ("🙂", "xyz"),
        ],
        insight="256 ids more, and no text is unknown any more. SentencePiece calls this byte fallback.",
        slips={
            "Is everything a byte now? Characters of the vocabulary keep their place in it.":
                lambda string, chars: [len(chars) + byte for byte in string.encode("utf-8")],
            "Are the unknown characters lost? Each becomes one id for each of its bytes.":
                lambda string, chars: _known_or(string, chars, lambda ch, V: []),
            "Do all unknown characters get the same id? Nobody could tell them apart on the way back.":
                lambda string, chars: _known_or(string, chars, lambda ch, V: [V]),
            "Do the bytes begin at id 0? There they collide with the characters: byte b is id V + b.":
                lambda string, chars: _known_or(string, chars, lambda ch, V: [*ch.encode("utf-8")]),
            "Is that ord? It is the character's number in Unicode, up to a million. The bytes come from ch.encode.":
                lambda string, chars: _known_or(string, chars, lambda ch, V: [V + ord(ch)]),
            "Do the bytes of a character stand together, as one thing? Each byte has its own id: loop over them.":
                lambda string, chars: _known_or(string, chars, lambda ch, V: [ch.encode("utf-8")]),
            "Is there a gap before the bytes? The characters end at V - 1, so byte b is id V + b.":
                lambda string, chars: _known_or(string, chars, lambda ch, V: [V + 1 + b for b in ch.encode("utf-8")]),
        },
    ),
    "2.4": Exercise(
        reference=one_merge,
        cases=lambda: [
            ([1, 2, 3, 1, 2], 9), ([4, 7], 8), ([7, 1, 2, 0, 3, 1, 2, 6], 10),
            ([3, 4, 5, 6, 1, 2, 9, 3, 4, 7, 5, 6, 8, 1, 2], 50), ([6, 6, 6, 1, 6, 6, 6], 7),
            ([2, 5, 2, 3, 9, 2, 5, 8, 2, 3], 10), ([0, 3, 4, 0, 5, 3, 4, 3, 4], 6),
            ([5, 6, 5, 6, 7, 7, 8, 7, 7, 8], 300),
        ],
        insight="Repeat this with the next free id until the vocabulary is full: that is the whole training.",
        slips={
            "Does only the first id decide between equal pairs? If it is equal too, the second one decides.":
                _first_id_decides,
            "Do you merge from right to left? In 6, 6, 6 the first two become one.":
                lambda ids, new: one_merge(ids[::-1], new)[::-1],
            "Is the last id lost? A walk over pairs ends one id too early, unless the last two are a pair.":
                _last_lost,
            "Did the highest of several equal pairs win? The rule takes the lowest ids.":
                _highest_of_equals,
            "Did the first of several equal pairs win? The rule takes the lowest ids, whatever came first.":
                _first_of_equals,
            "Do you look at every second pair only? Pairs overlap: zip(ids, ids[1:]) gives all of them.":
                _every_second_pair,
            "Did the lowest pair win at once? The ids decide only between pairs that are equally frequent.":
                lambda ids, new: _merge_of(ids, new, min(zip(ids, ids[1:]))),
            "Does nothing change? A slice of a list is a list, and never equal to a tuple: use tuple(ids[i : i + 2]).":
                lambda ids, new: list(ids),
            "Does the second id of a pair stay in the list? After a merge, go on by two.":
                lambda ids, new: _merge_of(ids, new, _pair_of(ids), step=1),
            "Did you merge only the first place? Every place where the pair stands becomes one id.":
                lambda ids, new: _merge_of(ids, new, _pair_of(ids), most=1),
        },
    ),
    "2.5": Exercise(
        reference=decode_bpe,
        cases=lambda: [
            ([258, 115, 101, 108, 108, 115], SHE), ([104, 105], []), ([259, 258], NAIVE),
            ([256, 258, 172], EUROS), ([], SHE),
        ],
        run=_text_or_error,
        insight="GPT-2's decode is this and no more: look up bytes, join them, and only then read them as text.",
        slips={
            "Do you decode token by token? A merge may end in the middle of a character: join all bytes first.":
                _one_token_at_a_time,
            "Did errors= hide a character that was cut in two? Join all bytes first, then decode once.":
                lambda ids, merges: _one_token_at_a_time(ids, merges, "replace"),
            "Is each byte taken for a character, as by chr? In UTF-8 a character may need several bytes.":
                lambda ids, merges: "".join(map(chr, _bytes_of(ids, merges))),
            "Do you decode byte by byte? A character may need several: join them all, then decode once.":
                _one_byte_at_a_time,
            "Are the ids inside a merge taken for characters? They may be merges too: open them down to the bytes.":
                lambda ids, merges: "".join(map(chr, _one_level_ids(ids, merges))),
            "Do you open a merge only once? Its two ids may be merges too, down to the bytes.":
                _one_level,
            "Are the two halves of a pair swapped? The first id of the pair stands first in the text.":
                lambda ids, merges: decode_bpe(ids, [(b, a) for a, b in merges]),
            "Are the merged ids lost? Each stands for the bytes of its pair.":
                lambda ids, merges: decode_bpe([i for i in ids if i < 256], merges),
            "Is the last step missing? The bytes become text by .decode('utf-8').":
                _bytes_of,
        },
    ),
}
