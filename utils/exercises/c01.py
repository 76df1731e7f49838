"""The exercises of chapter 01, Data."""

import math
from collections import Counter

from utils.checks import Exercise


def share(text, ch):
    found = 0
    for one in text:
        if one == ch:
            found += 1
    return found / len(text)


def ranking(text):
    return "".join(sorted(set(text), key=lambda ch: (-text.count(ch), ch)))


def who_speaks(play):
    names = []
    for speech in play.split("\n\n"):
        first = speech.split("\n")[0]
        if first.endswith(":") and first[:-1] not in names:
            names.append(first[:-1])
    return names


def first_gap(V, N):
    T = 1
    while V**T <= N - T + 1:
        T += 1
    return T


def entropy(text):
    return _mean_of(text, lambda p: math.log2(1 / p))


def _mean_of(text, worth):
    total = 0.0
    for n in Counter(text).values():
        total += n / len(text) * worth(n / len(text))
    return total


# Slips that take more than an expression.

def _first_lines(play, is_name=lambda line: line.endswith(":")):
    return [line for line in (speech.split("\n")[0] for speech in play.split("\n\n")) if is_name(line)]


def _once(lines):
    return list(dict.fromkeys(line.split(":")[0] for line in lines))


def _smallest(more):
    T = 1
    while not more(T):
        T += 1
    return T


def _log2s(text):
    return [math.log2(len(text) / n) for n in Counter(text).values()]


PLAYS = (
    "A:\nHi.\n\nBO:\nYes?\n",
    "ROMEO:\nO.\n\nJULIET:\nAy.\n\nROMEO:\nSo.\n",
    "KING:\nI say this:\nGo.\n\nPAGE:\nI go.",
    "First Lord:\nCome.\n\nAll:\nWe come.\n",
    "A:\nHi.\n\nThey go.\n\nB:\nHi.\n",
    "A:\nHi.\n\nEnter two: B and C\n\nB:\nHi.\n",
    "A:\n\nB:\nA? Where?",
    "They go.",
)

# Slips stand in the order of the input they first fail on, the last one first.
EXERCISES = {
    "1.1": Exercise(
        reference=share,
        cases=lambda: [("hello", "l"), ("hello", "z"), ("to be\nor not", " "), ("AaAab", "a"), ("\n\nx\n", "\n")],
        insight="Shares of all characters add up to 1, so they can be read as chances. Models work with such numbers.",
        slips={
            "Are capital and small letters one to you? For Python they are two different characters.":
                lambda text, ch: share(text.lower(), ch.lower()),
            "Is that the number of times? A share is this number divided by the length of the text.":
                lambda text, ch: text.count(ch),
            "Is that a percentage? A share lies between 0 and 1.":
                lambda text, ch: 100 * share(text, ch),
            "Is the fraction rounded down? / keeps what // throws away.":
                lambda text, ch: text.count(ch) // len(text),
            "Did you divide by the number of different characters? It is a share of all of them.":
                lambda text, ch: text.count(ch) / len(set(text)),
            "Is the fraction upside down? The part is divided by the whole.":
                lambda text, ch: len(text) / text.count(ch),
        },
    ),
    "1.2": Exercise(
        reference=ranking,
        cases=lambda: [("qwertyuiop",), ("hello",), ("bb aa\nbb",), ("Abba",), ("zyxzyx",), ("to be, or not to be",), ("q",), ("",)],
        insight="With a rule for equal counts, two people get the same order. Chapter 02 needs such a rule again.",
        slips={
            "Are capital and small letters one to you? For Python they are two different characters.":
                lambda text: ranking(text.lower()),
            "Did you drop what is not a letter? Spaces and new lines are characters, too.":
                lambda text: "".join(ch for ch in ranking(text) if ch.isalpha()),
            "Are characters of equal count in the order in which they first come? They should be sorted.":
                lambda text: "".join(ch for ch, _ in Counter(text).most_common()),
            "Do equal characters come in another order at each start? A set has no order: sort by character, too.":
                lambda text: "".join(sorted(set(text), key=text.count, reverse=True)),
            "Is that a list? One string is asked for: ''.join makes one of many.":
                lambda text: list(ranking(text)),
            "Does the rarest come first? Sorting goes upwards, unless the counts are made negative.":
                lambda text: "".join(sorted(set(text), key=lambda ch: (text.count(ch), ch))),
            "Are characters of equal count in reverse order? reverse=True turns them round as well as the counts.":
                lambda text: "".join(sorted(set(text), key=lambda ch: (text.count(ch), ch), reverse=True)),
            "Is that the vocabulary, sorted by character? Sort by how often each one comes.":
                lambda text: "".join(sorted(set(text))),
            "Does a character come more than once? Each of the different characters stands there once.":
                lambda text: "".join(sorted(text, key=lambda ch: (-text.count(ch), ch))),
        },
    ),
    "1.3": Exercise(
        reference=who_speaks,
        cases=lambda: [(play,) for play in PLAYS],
        insight="The layout alone tells who speaks. A model learns it in the same way: no one tells it what a name is.",
        slips={
            "Is a colon in the middle of a line enough? After a name it is the last character of the line.":
                lambda play: _once(_first_lines(play, lambda line: ":" in line)),
            "Does every piece have a speaker for you? Its first line must end with a colon.":
                lambda play: _once(_first_lines(play, lambda line: line)),
            "Must a name be in capitals? The layout makes it a name: some have small letters.":
                lambda play: _once(_first_lines(play, lambda line: line.endswith(":") and line.isupper())),
            "Is every line with a colon at its end a name? Only the first line of a speech is.":
                lambda play: _once(line for line in play.split("\n") if line.endswith(":")),
            "Does a name come twice? Each speaker is listed once.":
                lambda play: [line[:-1] for line in _first_lines(play)],
            "Did you sort the names? They stand in the order in which they first speak.":
                lambda play: sorted(who_speaks(play)),
            "Does the colon belong to the name? Leave out the last character of the line.":
                lambda play: [name + ":" for name in who_speaks(play)],
            "Is the first speech lost? It has no empty line before it.":
                lambda play: _once(_first_lines(play)[1:]),
            "Is that the whole speech? Only its first line has the name.":
                lambda play: [speech for speech in play.split("\n\n") if ":\n" in speech],
        },
    ),
    "1.4": Exercise(
        reference=first_gap,
        cases=lambda: [(2, 100), (2, 5), (2, 4), (10, 9), (3, 1000), (65, 1_115_394), (7, 1)],
        insight="From there on no text of this length holds every piece. A model must cope with what it has not seen.",
        slips={
            "Did you take N for the number of places? A piece of T needs T characters: there are N - T + 1.":
                lambda V, N: _smallest(lambda T: V**T > N),
            "Is as many enough for you? With as many places as pieces, every piece may still be there.":
                lambda V, N: _smallest(lambda T: V**T >= N - T + 1),
            "Is that the last T without a gap? The first gap comes one later.":
                lambda V, N: first_gap(V, N) - 1,
            "Is that V times T? Each of the T places has V choices, so V is multiplied with itself: V**T.":
                lambda V, N: _smallest(lambda T: V * T > N - T + 1),
            "Are V and T swapped? T places with V choices each give V**T.":
                lambda V, N: _smallest(lambda T: T**V > N - T + 1),
            "Is that the number of pieces? The answer is their length T.":
                lambda V, N: V ** first_gap(V, N),
        },
    ),
    "1.5": Exercise(
        reference=entropy,
        cases=lambda: [("aab",), ("abcd",), ("aaaa",), ("AaaB",), ("to be, or not to be",), ("\n",)],
        insight="A model that knows only how common characters are pays this. Shakespeare: 4.78 bits; 65 equal ones: 6.02.",
        slips={
            "Are capital and small letters one to you? For Python they are two different characters.":
                lambda text: entropy(text.lower()),
            "Is that the natural logarithm? Bits are counted with log2.":
                lambda text: _mean_of(text, lambda p: math.log(1 / p)),
            "Is the sign wrong? The logarithm of a share is negative: log2(1 / p) is -log2(p).":
                lambda text: -entropy(text),
            "Did you treat all characters as equally common? That gives log2 of their number, the most there can be.":
                lambda text: math.log2(len(set(text))),
            "Does each different character count once? A common one counts more: multiply by its share.":
                lambda text: sum(_log2s(text)) / len(set(text)),
            "Is the share missing as a factor? Each log2(1 / p) is multiplied by its p.":
                lambda text: sum(_log2s(text)),
            "Are these the bits of the whole text? The entropy is the mean: divide by the length.":
                lambda text: entropy(text) * len(text),
            "Is p a count? A share is the count divided by the length of the text.":
                lambda text: -sum(n * math.log2(n) for n in Counter(text).values()),
        },
    ),
}
