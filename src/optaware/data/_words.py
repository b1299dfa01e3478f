"""Words, numbers, names and negations of an English text, as far as rules can tell them."""

from __future__ import annotations

import re
import unicodedata

__all__ = [
    "bare_words",
    "contains_run",
    "content_words",
    "count_words",
    "names",
    "negated",
    "number_words",
    "numbers",
    "soft_negations",
    "words",
]

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
# Scripts without spaces between words: each character counts as a word, so that lengths can be compared.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")

_SMALL = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = {word: value for value, word in enumerate(_SMALL.split(), start=2)} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), start=2)
}
_WORDS_FOR_TWO = frozenset({"both", "pair", "couple", "twice", "double", "twin"})
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_NEGATIONS_TEXT = "not no never none nobody nothing nowhere neither nor cannot without"
_NEGATIONS = frozenset(_NEGATIONS_TEXT.split())
_SOFT_TEXT = """
hardly scarcely barely rarely seldom few little unable unlikely impossible lack lacks lacked lacking fail fails failed
failing refuse refuses refused refusing deny denies denied denying absent absence avoid avoids avoided missing except
instead only until unless stop stops stopped decline declines declined reject rejects rejected free short dislike
dislikes disliked disagree disagreed disapprove ignore ignored ignores doubt doubts doubted
"""
_SOFT_NEGATIONS = frozenset(_SOFT_TEXT.split())
_SOFT_PREFIX = re.compile(r"^(?:un|in|im|ir|dis|non)[a-z]{4,}|[a-z]{3,}less$")

_STOP_TEXT = """
a an the and or but if of to in on at by for from with as is are was were be been being am do does did has have had will
would can could shall should may might must it its he him his she her hers they them their we us our you your i me my
this that these those there here who whom whose which what when where how why so than then too very just not no nor up
down out off over into about after before some any all each more most other such own same
"""
_STOP = frozenset(_STOP_TEXT.split())


def words(text: str) -> list[str]:
    """The words of a text in lower case, straight apostrophes, compatibility forms folded."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'")
    return [word.casefold() for word in _WORD.findall(text)]


def count_words(text: str) -> int:
    """Number of words; in scripts without spaces, of characters."""
    unspaced = len(_UNSPACED.findall(text))
    return unspaced + len(_WORD.findall(_UNSPACED.sub(" ", text)))


def content_words(text: str) -> set[str]:
    """Stems (the first five letters) of the words that carry content."""
    return {_stem(word) for word in words(text) if word not in _STOP}


def _stem(word: str) -> str:
    return word.removesuffix("'s")[:5]


def contains_run(sequence: list[str], run: list[str]) -> bool:
    """Whether the words `run` stand in `sequence` one after another."""
    length = len(run)
    return bool(run) and any(sequence[at : at + length] == run for at in range(len(sequence) - length + 1))


def numbers(text: str) -> tuple[set[str], set[str]]:
    """Numbers of a text in digits, and those in words; `1,500`, `1500` and "fifteen hundred" are one number.

    "one" is left out of the words, because it is mostly a pronoun; so are ordinals.
    """
    text = unicodedata.normalize("NFKC", text)
    digits: set[str] = set()
    spelled: set[str] = set()
    last: tuple[float, set[str]] | None = None
    for token in re.findall(r"\d+(?:[.,:]\d+)*|[^\W\d_]+", text):
        word = token.casefold()
        if _NUMBER.fullmatch(token):
            value = _value(token)
            digits.add(value)
            last = (float(value), digits) if ":" not in value else None
        elif word in _SCALES:
            base, place = last or (1.0, spelled)
            if last is not None:
                place.discard(_plain(base))
            value_now = base * _SCALES[word]
            place.add(_plain(value_now))
            last = (value_now, place)
        elif word in _UNITS:
            base = last[0] if last and last[1] is spelled and 20 <= last[0] < 100 and last[0] % 10 == 0 else 0
            if base and _UNITS[word] < 10:
                spelled.discard(_plain(base))
            else:
                base = 0
            last = (base + _UNITS[word], spelled)
            spelled.add(_plain(last[0]))
        elif word == "one":
            last = (1.0, spelled)
        else:
            last = None
            if word == "dozen":
                spelled.add("12")
    return digits, spelled


def _value(token: str) -> str:
    if ":" in token:
        return token
    plain = re.sub(r",(?=\d{3}(?:\D|$))", "", token)
    try:
        return _plain(float(plain))
    except ValueError:  # 3.2.1 or 12,5: compared as written
        return plain


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def number_words(text: str) -> set[str]:
    """Values that a text may express without a number: "both", "a pair", "once", "one"."""
    found = set(words(text))
    return ({"2"} if found & _WORDS_FOR_TWO else set()) | (
        {"1"} if found & {"one", "once", "single", "a", "an"} else set()
    )


def names(text: str) -> set[str] | None:
    """Capitalised words within sentences, in lower case; None when capitals tell nothing (a headline, all capitals)."""
    tokens = [match for match in _WORD.finditer(text) if len(match.group()) > 1]
    capital = [match for match in tokens if match.group()[0].isupper()]
    long = [match.group() for match in tokens if len(match.group()) > 3]
    if len(long) > 2 and sum(word[0].isupper() for word in long) > 0.7 * len(long):
        return None
    found = set()
    for match in capital:
        before = text[: match.start()].rstrip(" \"'“‘`([")
        if before and before[-1] not in ".?!:;-–—":
            found.add(_bare(match.group()))
    return found


def _bare(word: str) -> str:
    return re.sub(r"['’]s$", "", word).casefold()


def bare_words(text: str) -> set[str]:
    """All words without possessive endings, in lower case."""
    return {_bare(word) for word in _WORD.findall(text)}


def negated(text: str) -> bool:
    """Whether a word of the text negates outright ("not", "n't", "no", "never", "without")."""
    return any(word in _NEGATIONS or word.endswith("n't") for word in words(text))


def soft_negations(text: str) -> set[str]:
    """Words that may stand for a negation ("fails", "unhappy", "hardly")."""
    return {word for word in words(text) if word in _SOFT_NEGATIONS or _SOFT_PREFIX.match(word)}
