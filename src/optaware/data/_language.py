"""Whether a rewrite is still in the original's language, as far as scripts and function words tell."""

from __future__ import annotations

import unicodedata
from collections import Counter

from optaware.data._words import words

__all__ = ["language_change"]

_ENGLISH_TEXT = """
the a an and or but of to in on at by for from with is are was were be been it its he his she her they their we you i
not this that there as had has have will would can could did do does who which what when where why how into after
before because so than then if my your our out up down over all no
"""
_ENGLISH = frozenset(_ENGLISH_TEXT.split())
# German, French, Spanish, Italian, Portuguese and Dutch.
_OTHERS_TEXT = """
der das und nicht ein eine einen dem den ist sind von mit auf für zu im sich auch wurde hat er sie es
le la les des du une et est dans pour que qui sur pas au avec il elle ce sont été aux
el los las un y en por con del se al como más su fue una lo gli di che è per non della nel sono alla dei si
o os um uma e do da dos das em não com ao foi ele ela de het een van niet zijn op met voor werd
"""
_OTHERS = frozenset(_OTHERS_TEXT.split()) - _ENGLISH
_SCRIPT_SHARE = 0.2
_FEWEST_WORDS = 5


def language_change(before: str, text: str) -> str | None:
    """What shows that `text` is in another language than `before`; None when nothing does.

    - A script that `before` does not use makes up a fifth or more of the letters of `text`.
    - `before` has English function words, and `text` (of five words or more) has none, or fewer than function words of
      German, French, Spanish, Italian, Portuguese or Dutch that `before` lacks, which are a sixth of its words or more.
    """
    old, new = _scripts(before), _scripts(text)
    total = sum(new.values())
    for script, count in new.most_common():
        if script not in old and old and count >= _SCRIPT_SHARE * total:
            return f"{count} of {total} letters are {script.title()}"
    known, found = words(before), words(text)
    if len(found) < _FEWEST_WORDS or not _ENGLISH & set(known):
        return None
    foreign = [word for word in found if word in _OTHERS and word not in known]
    english = sum(word in _ENGLISH for word in found)
    if len(foreign) * 6 >= len(found) and len(foreign) > english:
        return f"words of another language: {', '.join(dict.fromkeys(foreign))}"
    return None


def _scripts(text: str) -> Counter[str]:
    """Letters by script, the first word of their Unicode names; those of Chinese and Japanese count as one."""
    found: Counter[str] = Counter()
    for char in text:
        if char.isalpha():
            script = unicodedata.name(char, "UNKNOWN").split()[0].split("-")[0]
            found["HAN" if script in ("CJK", "HIRAGANA", "KATAKANA") else script] += 1
    return found
