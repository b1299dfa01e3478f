from __future__ import annotations

import codecs
import re
import unicodedata
from itertools import islice

from optaware.records import EncodingDamage

__all__ = ["mend", "suspicious"]

MAX_ROUNDS = 3
MAX_RUNS = 200_000
_RUN = re.compile(r"[^\x00-\x7f]+")
# What damage looks like: the first two bytes of common UTF-8 sequences, read as cp1252 or as mac_roman.
_LOOKS_DAMAGED = re.compile("ðŸ|â€|Ã[\x80-\xbf]|Â[\xa0-\xbf]|‚Ä|üß|üì|√[°-ø]")


def _table(name: str) -> str:
    """What each byte reads as; bytes that the encoding leaves out read as C1 controls, as browsers do."""
    return "".join(bytes([byte]).decode(name, "ignore") or chr(byte) for byte in range(256))


_MAPS = {name: codecs.charmap_build(_table(name)) for name in ("cp1252", "mac_roman", "latin-1")}


def mend(text: str) -> tuple[str, tuple[EncodingDamage, ...]]:
    """Put back UTF-8 that had been read in another single-byte encoding, up to three times over.

    A run of non-ASCII characters is put back only when its bytes, in the supposed encoding, are valid UTF-8. That
    alone would also change rare legitimate text, so a text is touched only when every one of its runs could have come
    from that encoding, the runs that decode are not outnumbered, and what comes out is more plausible: sequences of
    three or four bytes (emoji, dashes, quotation marks), or else letters of everyday alphabets. A single legitimate
    "Ã" is no valid sequence and always stays.
    """
    found: list[EncodingDamage] = []
    for rounds in range(MAX_ROUNDS, 0, -1):
        tried = [_attempt(text, name, rounds) for name in _MAPS]
        mended, runs, left, name = max(tried, key=lambda attempt: (attempt[1], -attempt[2]))
        if not runs:
            break
        text = mended
        if found and found[-1].read_as == name:
            found[-1] = found[-1].model_copy(update={"rounds": found[-1].rounds + 1})
        else:
            found.append(EncodingDamage(read_as=name, rounds=1, mended=runs, left=left))
    return text, tuple(found)


def suspicious(text: str) -> str | None:
    """The first piece of text that looks mis-read, if any."""
    match = _LOOKS_DAMAGED.search(text)
    return match[0] if match else None


def _attempt(text: str, name: str, rounds: int) -> tuple[str, int, int, str]:
    nothing = (text, 0, 0, name)
    try:
        data = codecs.charmap_encode(text, "strict", _MAPS[name])[0]
    except UnicodeEncodeError:  # a character that this encoding does not have: the text was not read in it
        return nothing
    runs = [match[0] for match in islice(_RUN.finditer(text), MAX_RUNS + 1)]
    if not runs or len(runs) > MAX_RUNS:
        return nothing
    try:
        mended = data.decode("utf-8")
    except UnicodeDecodeError:
        return _run_by_run(text, name, runs)
    # Text damaged twice is no better to read after one round: then the next one must succeed.
    good = _plausible(mended) or (rounds > 1 and any(_attempt(mended, other, rounds - 1)[1] for other in _MAPS))
    return (mended, len(runs), 0, name) if good else nothing


def _run_by_run(text: str, name: str, runs: list[str]) -> tuple[str, int, int, str]:
    readings: dict[str, str] = {}
    for run in set(runs):
        try:
            reading = codecs.charmap_encode(run, "strict", _MAPS[name])[0].decode("utf-8")
        except UnicodeDecodeError:
            continue
        if _plausible(reading):
            readings[run] = reading
    mended = sum(run in readings for run in runs)
    strong = any(ord(char) > 0x7FF for reading in readings.values() for char in reading)
    if not strong or 2 * mended < len(runs):
        return text, 0, 0, name
    return _RUN.sub(lambda match: readings.get(match[0], match[0]), text), mended, len(runs) - mended, name


def _plausible(text: str) -> bool:
    """Whether every non-ASCII character is one that people write.

    Never controls, private or unassigned characters. Two-byte sequences alone are weak evidence, so without a longer
    one beside them only everyday Latin, Greek and Cyrillic letters count.
    """
    chars = {char for char in set(text) if char > "\x7f"}
    strong = any(char > "\u07ff" for char in chars)
    for char in chars:
        code = ord(char)
        # Planes 1 to 3 gain emoji and ideographs every year that this Python's tables may not know yet.
        if unicodedata.category(char) in ("Cc", "Co", "Cs") or (
            unicodedata.category(char) == "Cn" and not 0x10000 <= code < 0x40000
        ):
            return False
        if not strong and not (0xA0 <= code <= 0x17F or 0x370 <= code <= 0x3D6 or 0x400 <= code <= 0x45F):
            return False
    return True
