from __future__ import annotations

import io
import logging

from optaware.errors import InputError

__all__ = ["load_pdf"]

_LETTERS_PER_PAGE = 40


def load_pdf(data: bytes, where: str) -> tuple[str, tuple[int, ...], tuple[str, ...]]:
    """The text of a PDF, the offset of each page in it, and notes (pages without text).

    Raises:
        InputError: Encrypted, damaged, or a scan without text.
    """
    import pypdf  # costs 0.2 s, needed for PDFs only

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns of every small fault of a file that it can read
    pages: list[str] = []
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        locked = reader.is_encrypted and not reader.decrypt("")
        if not locked:
            pages = [page.extract_text() or "" for page in reader.pages]
    except pypdf.errors.DependencyError:
        locked = True
    except Exception as error:  # a damaged file may raise anything in a parser
        why = f"its structure is damaged ({type(error).__name__}: {error})"
        raise InputError.of("paper-damaged", where, why, "Print it to a new PDF, or give its text.", where) from error
    if locked:
        next = "Remove the password, or give the paper as text."
        raise InputError.of("paper-encrypted", where, "it opens only with a password", next, where)
    if not pages:
        raise InputError.of("paper-damaged", where, "it has no pages", "Give another file.", where)
    letters = [sum(map(str.isalpha, page)) for page in pages]
    empty = [number for number, count in enumerate(letters, start=1) if count < _LETTERS_PER_PAGE]
    if sum(letters) < _LETTERS_PER_PAGE * max(1, len(pages) // 2):
        why = f"{len(empty)} of its {len(pages)} pages hold no text: it seems to be a scan"
        raise InputError.of("paper-scanned", where, why, "Run text recognition (OCR) on it first.", where)
    starts, text = [], ""
    for page in pages:
        starts.append(len(text))
        text += page.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").rstrip("\n") + "\n"
    notes = (f"pages with hardly any text: {', '.join(map(str, empty))}",) if empty else ()
    return text, tuple(starts), notes
