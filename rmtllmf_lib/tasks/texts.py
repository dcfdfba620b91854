"""A text task of one's own: a folder of two tables.

The layout::

    my_texts/
        train.tsv        one text a line: label, tab, text
        test.tsv         the same
        classes.tsv      (optional) one line per class: label, tab, words for prompts
        templates.txt    (optional) one prompt per line, with {} for the words of the class

The rules:

- Files are UTF-8 without a header. Whatever follows the first tab is the text.
- Labels are numbered in natural order of those in train, whatever `classes.tsv` says. Without that file, the words of a
  class are its label, with spaces for underscores.
- A label in test, or in `classes.tsv`, that train lacks is an error. A class that test lacks is a possible answer that
  is never tested; a warning is logged.
- Validation texts are carved out of train by a hash of each text, so the order of the lines does not matter.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.assemble import Pool, RawTask
from rmtllmf_lib.tasks.folder import TABLES, TEXT_LAYOUT, holds_texts, natural_key, read_lines, read_templates
from rmtllmf_lib.tasks.prompts import readable_name
from rmtllmf_lib.validated import validated_call

TEXT_TEMPLATES = ("{}",)


@validated_call
def read_texts(folder: str | Path, name: str | None = None) -> RawTask:
    """Read the text task in exactly this folder, in the layout above.

    Parameters
    ----------
    folder : path
    name : str, optional
        The task's name; default the folder's.

    Raises
    ------
    InputError
        A missing or empty table, one that is not UTF-8, a line without a tab, a label or a text, a label in test that
        train lacks, a malformed `classes.tsv` or `templates.txt`; the message names the file and the line.
    """
    folder = Path(folder).expanduser()
    if not holds_texts(folder):
        raise InputError(f"neither train.tsv nor test.tsv found in {folder}; expected {TEXT_LAYOUT}")
    train, test = (_rows(folder / table) for table in TABLES)
    labels = sorted({label for label, _, _ in train}, key=natural_key)
    number = {label: place for place, label in enumerate(labels)}
    for label, _, where in test:
        if label not in number:
            raise InputError(
                f"{where}: the label {label!r} is not in {folder / TABLES[0]}, which has {len(labels)}; a task can "
                "only learn classes with training texts: add some, or remove the line"
            )
    words = _class_words(folder / "classes.tsv", labels)
    name = name or folder.resolve().name
    pools = []
    for table, rows in zip(TABLES, (train, test), strict=True):
        texts = tuple(text for _, text, _ in rows)
        pools.append(Pool(texts, [number[label] for label, _, _ in rows], _keys(table, texts)))
    return RawTask(
        name=name,
        title=readable_name(name),
        source="folder",
        class_names=[words.get(label) or readable_name(label) for label in labels],
        templates=read_templates(folder / "templates.txt") or TEXT_TEMPLATES,
        train=pools[0],
        test=pools[1],
        split_note="tables train and test",
    )


def _rows(table: Path) -> list[tuple[str, str, str]]:
    """Label, text and place of each line."""
    rows = []
    for number, line in read_lines(table):
        label, tab, text = (part.strip() for part in line.partition("\t"))
        where = f"{table}, line {number}"
        if "\t" not in line:
            raise InputError(f"{where}: {line[:60]!r} has no tab; expected a label, a tab, and a text")
        if not label or not text:
            missing = "text" if label else "label"
            raise InputError(f"{where}: {line[:60]!r} has no {missing}; expected a label, a tab, and a text")
        rows.append((label, text, where))
    if not rows:
        raise InputError(f"{table} is empty; expected a label, a tab, and a text in each line")
    return rows


def _keys(table: str, texts: tuple[str, ...]) -> list[str]:
    """Identifiers of texts: the texts themselves, and how often each was there before."""
    seen: Counter[str] = Counter()
    keys = []
    for text in texts:
        keys.append(f"{table}\t{text}\t{seen[text]}")
        seen[text] += 1
    return keys


def _class_words(path: Path, labels: list[str]) -> dict[str, str]:
    """Words for prompts by label from a `classes.tsv`; empty if there is no such file."""
    words: dict[str, str] = {}
    first_line: dict[str, int] = {}
    for number, line in read_lines(path) if path.exists() else ():
        label, tab, readable = (part.strip() for part in line.partition("\t"))
        where = f"{path}, line {number}"
        if not label or not readable:
            raise InputError(f"{where}: {line[:60]!r}; expected a label, a tab, and words for prompts")
        if label not in labels:
            raise InputError(f"{where}: train.tsv has no text of {label!r}; correct the label or remove the line")
        if label in words:
            raise InputError(f"{where}: label {label!r} was named before; keep one of the lines")
        if readable in first_line:
            raise InputError(
                f"{where}: the words {readable!r} were given in line {first_line[readable]}; a head of prompts needs "
                "other words for each class"
            )
        words[label], first_line[readable] = readable, number
    return words
