"""Reports on work folders: a page and Markdown, written at once or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mobilenmt.compression.core.errors import ReportError
from mobilenmt.compression.report import markdown, page
from mobilenmt.compression.report.content import Content, make_content
from mobilenmt.compression.report.read import read_run
from mobilenmt.compression.report.run import Run
from mobilenmt.runtime.atomic import atomic_path

HTML = "report.html"
MARKDOWN = "report.md"


def report(folders: Sequence[Path], html: Path, markdown_file: Path | None = None) -> None:
    """Report on work folders side by side.

    Args:
        folders: work folders of ``mobilenmt compress``, finished or not.
        html: the page to write.
        markdown_file: the same as Markdown, without pictures.

    Raises:
        ReportError: a folder is none of ours or holds something damaged, or a file cannot be written there.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ReportError("a run is named twice; name each once")
    write([read_run(folder) for folder in folders], html, markdown_file)


def write(runs: Sequence[Run], html: Path, markdown_file: Path | None = None) -> None:
    """The same for runs that were read. Raises ReportError as :func:`report` does."""
    content = make_content(runs)
    files: list[tuple[Path, Callable[[Content], str]]] = [(html, page.render)]
    if markdown_file is not None:
        files.append((markdown_file, markdown.render))
    texts = [(path, render(content)) for path, render in files]
    for path, _ in texts:
        if path.is_dir() or not path.absolute().parent.is_dir():
            wrong = "a folder, not a file" if path.is_dir() else "its folder is not there"
            raise ReportError(f"{path}: {wrong}; name a file to write")
    for path, text in texts:
        try:
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise ReportError(f"{path} cannot be written: {error.strerror or error}") from None
