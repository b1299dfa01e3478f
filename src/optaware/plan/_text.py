from __future__ import annotations

import codecs

from optaware.errors import InputError
from optaware.records import Repair

__all__ = ["MAX_BYTES", "decode"]

MAX_BYTES = 10 * 1024 * 1024
MAX_LINES = 200_000
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def decode(data: bytes, where: str) -> tuple[str, list[Repair]]:
    """Bytes as text with LF line ends; whatever had to be assumed is a `Repair`.

    Raises:
        InputError: Too large, empty, too many lines, or no text at all.
    """
    if len(data) > MAX_BYTES:
        raise InputError.of(
            "plan-too-large",
            f"{len(data)} bytes",
            f"a plan may have {MAX_BYTES} bytes (10 MiB)",
            "Give the plan alone, without the material around it.",
            where,
        )
    text, repairs = _decoded(data, where)
    if "\r\n" in text:
        text = text.replace("\r\n", "\n")
        repairs.append(Repair(code="line-ends", before="CRLF", after="LF"))
    if not text.strip():
        raise InputError.of("plan-empty", "a text without words", "there is nothing to read", "Give a plan.", where)
    if "\0" in text:
        raise InputError.of(
            "plan-not-text", "NUL characters", "this is not a text file", "Give a page, JSONL or a model reply.", where
        )
    if text.count("\n") >= MAX_LINES:
        raise InputError.of(
            "plan-too-large",
            f"{text.count(chr(10)) + 1} lines",
            f"a plan may have {MAX_LINES} lines",
            "Give the plan alone, without the material around it.",
            where,
        )
    return text, repairs


def _decoded(data: bytes, where: str) -> tuple[str, list[Repair]]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                text = data[len(mark) :].decode(encoding)
            except UnicodeDecodeError as error:
                raise InputError.of(
                    "plan-not-text",
                    f"byte {error.start + len(mark)}",
                    f"the file says {encoding} but is not",
                    "Save it as UTF-8.",
                    where,
                ) from error
            return text, [Repair(code="byte-order-mark", before=encoding, after="utf-8")]
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError:
        pass
    replaced = data.decode("utf-8", "replace")
    lost = replaced.count("\ufffd") - data.count(b"\xef\xbf\xbd")
    sound = sum(1 for byte in data if byte >= 0xC2) if len(data) < 1 << 16 else lost + 1
    if lost < sound:  # most of it is UTF-8: keep that, and show the bytes that are not as U+FFFD
        return replaced, [Repair(code="invalid-utf-8", before=f"{lost} invalid sequences", after="U+FFFD")]
    try:
        return data.decode("cp1252"), [Repair(code="not-utf-8", before="cp1252", after="utf-8")]
    except UnicodeDecodeError:
        return replaced, [Repair(code="invalid-utf-8", before=f"{lost} invalid sequences", after="U+FFFD")]
