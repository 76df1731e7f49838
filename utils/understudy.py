"""The understudy: a play this course writes itself, for when the real text cannot be had.

Every word list and rule is here. The same call gives the same text on any machine, laid
out like tiny Shakespeare (a name, a colon, lines of about forty characters, an empty
line) and with the same 65 characters, so every cell of the course runs on it.
"""

import random

LENGTH = 1_115_394   # as long as tiny Shakespeare, so the sizes on the pages hold

SPEAKERS = (
    "ORSINA DUKE_OF_QUILL MARGERY First_Sailor Second_Sailor JASPER ZENOBIA XANTHUS BEATRIX "
    "KING_FERDIN WILLOW HUGH_VANE Old_Keeper LYSANDRA PEREGRIN YORICK Third_Watchman CAMBER"
).split()
OPENINGS = (
    "O good my lord,|Nay,|Hark,|Come,|Alas,|I pray you,|Then|Yet|And so|But|What, sir!|Now|By this hand,|"
    "Soft you;|If it please you,|Believe me,|For $ 3 & more,"
).split("|")
SUBJECTS = (
    "I|thou|we|the night|my heart|this quiet house|our captain|the sea|her brother|a king|the wind|"
    "no honest man|your letter|the moon|every lantern|the fox|his just quarrel|my father's voice"
).split("|")
VERBS = (
    "shall keep|must leave|will remember|did seek|cannot forgive|may yet find|would follow|hath broken|"
    "doth answer|should fear|never saw|might mend|has sworn by|will exchange"
).split("|")
OBJECTS = (
    "the morning|thy name|a crown of reeds|the long road home|that which was lost|my only hope|"
    "the garden gate|all the gold in Quill|an idle dream|the bell at midnight|our bread and wine|"
    "a promise made in haste|the well-worn stair|such grief|the zealous judge|a box of wax"
).split("|")
ENDINGS = (
    "to-night|before the tide turns|with all my strength|and say no more|till winter come|as I live|"
    "in spite of them|for love's sake|like snow in June|without a word"
).split("|")
STOPS = (".", ".", ".", ",", ",", ";", ":", "!", "?", "--")


def write_play(length=LENGTH, seed=1337):
    """A play of exactly ``length`` characters. The same length and seed give the same play."""
    rng = random.Random(seed)
    speeches, written = [], 0
    while written < length:
        speech = _speech(rng)
        speeches.append(speech)
        written += len(speech)
    return "".join(speeches)[: length - 1] + "\n"


def _pick(rng, choices):
    return choices[int(rng.random() * len(choices))]   # choice() may differ between Python versions


def _speech(rng):
    name = _pick(rng, SPEAKERS).replace("_", " ")
    lines = [_line(rng) for _ in range(1 + int(rng.random() * 5))]
    return f"{name}:\n" + "\n".join(lines) + "\n\n"


def _line(rng):
    words = [_pick(rng, SUBJECTS), _pick(rng, VERBS), _pick(rng, OBJECTS)]
    if rng.random() < 0.5:
        words.insert(0, _pick(rng, OPENINGS))
    if rng.random() < 0.5:
        words.append(_pick(rng, ENDINGS))
    line = " ".join(words)
    return line[0].upper() + line[1:] + _pick(rng, STOPS)
