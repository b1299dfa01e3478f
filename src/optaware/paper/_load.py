from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optaware._io import file_sha256
from optaware.errors import InputError
from optaware.paper._latex import load_latex
from optaware.paper._pdf import load_pdf

__all__ = ["MAX_BYTES", "PaperText", "load_text"]

MAX_BYTES = 100 * 1024 * 1024
_BOMS = (("utf-8-sig", b"\xef\xbb\xbf"), ("utf-16", b"\xff\xfe"), ("utf-16", b"\xfe\xff"))


@dataclass(frozen=True)
class PaperText:
    """The text of a paper.

    Attributes:
        form: What it was read from.
        text: With LF line ends.
        sha256: Hash of the (main) file.
        page_starts: Offset of each page of a PDF.
        notes: What was noticed on the way.
    """

    form: Literal["pdf", "markdown", "latex", "text"]
    text: str
    sha256: str
    page_starts: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def load_text(path: Path) -> PaperText:
    """Read a paper's text; the form is told by the content, then by the file's ending.

    Raises:
        InputError: No such file, too large, encrypted, damaged, a scan without text, or no text at all.
    """
    try:
        if path.is_dir():
            return _latex(path)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError.of("file-missing", str(path), "there is no such file", "Check the path.") from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InputError.of("file-unreadable", str(path), why, "Give a readable file.") from error
    if len(data) > MAX_BYTES:
        why = f"a paper may have {MAX_BYTES >> 20} MiB"
        raise InputError.of("paper-too-large", f"more than {MAX_BYTES} bytes", why, "Give the paper alone.", str(path))
    if b"%PDF-" in data[:1024]:
        text, starts, notes = load_pdf(data, str(path))
        return PaperText("pdf", text, file_sha256(path), starts, notes)
    text = _decoded(data, path)
    if path.suffix.lower() in (".tex", ".ltx") or "\\begin{document}" in text or "\\documentclass" in text:
        return _latex(path)
    marked = path.suffix.lower() in (".md", ".markdown") or any(
        line.startswith(("# ", "## ", "### ")) for line in text.splitlines()
    )
    return PaperText("markdown" if marked else "text", text, file_sha256(path))


def _latex(path: Path) -> PaperText:
    main, text, notes = load_latex(path, lambda file: _decoded(file.read_bytes(), file))
    return PaperText("latex", text, file_sha256(main), (), notes)


def _decoded(data: bytes, path: Path) -> str:
    encoding = next((name for name, mark in _BOMS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
        encoding = "cp1252"
    odd = sum(1 for char in text[:100_000] if (ord(char) < 32 and char not in "\n\r\t\f") or char == "\ufffd")
    if odd * 200 > len(text[:100_000]) or (encoding == "cp1252" and b"\0" in data[:100_000]):
        raise InputError.of(
            "paper-not-text",
            path.name,
            "it is neither a PDF nor a text",
            "Give a PDF with text, Markdown, LaTeX or plain text.",
            str(path),
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise InputError.of("paper-empty", path.name, "it holds no words", "Give another file.", str(path))
    return text
