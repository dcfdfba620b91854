"""A task of one's own: a folder of images.

The layout::

    my_task/
        train/<class>/*.jpg
        test/<class>/*.jpg
        classes.txt      (optional) one line per class: folder name, tab, readable name
        templates.txt    (optional) one prompt per line, with {} for the class name

The rules:

- Labels follow the natural order of the class folders' names (ignoring case, `2` before `10`), whatever `classes.txt`
  says, so that adding readable names never changes a label.
- Hidden files and folders are ignored. A file is an image if its name ends like one or if it opens as one; a warning
  says how many others were left out. A folder inside a class folder and an image outside of one are errors, since
  images would be lost silently.
- A class in test that train lacks is an error. A class in train that test lacks is a possible answer that is never
  tested; a warning is logged.
- Validation images are carved out of train; a folder `val` or `validation` is not read, with a logged warning.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.assemble import Pool, RawTask
from rmtllmf_lib.tasks.base import require_templates
from rmtllmf_lib.tasks.images import image_endings, opened
from rmtllmf_lib.tasks.prompts import DEFAULT_TEMPLATES, prompts_for, readable_name
from rmtllmf_lib.validated import validated_call

LAYOUT = "train/<class>/*.jpg and test/<class>/*.jpg (optional: classes.txt, templates.txt)"

TABLES = ("train.tsv", "test.tsv")
TEXT_LAYOUT = "train.tsv and test.tsv, a label, a tab and a text in each line (optional: classes.tsv, templates.txt)"

logger = logging.getLogger(__name__)


@validated_call
def read_folder(folder: str | Path, name: str | None = None) -> RawTask:
    """Read the task in exactly this folder, in the layout above.

    Parameters
    ----------
    folder : path
    name : str, optional
        The task's name; default the folder's. The name of a known data set (`"resisc45"`, `"eurosat"`, …) also brings
        its prompt templates and class names, unless the folder has its own.

    Raises
    ------
    InputError
        A missing or empty folder, a class in test that train lacks, a malformed `classes.txt` or `templates.txt`; the
        message names the file (and the line).
    """
    folder = Path(folder).expanduser()
    _require_folder(folder)
    if not holds_task(folder) or holds_texts(folder):
        raise InputError(f"neither train nor test found in {folder}; expected {LAYOUT}")
    name = name or folder.resolve().name
    prompts = prompts_for(name)
    train, test = (class_folders(folder / split) for split in ("train", "test"))
    if unknown := [c for c in test if c not in train]:
        raise InputError(
            f"{folder / 'test'} has classes that {folder / 'train'} lacks: {', '.join(unknown)}; "
            "a task can only learn classes with training images: add them to train, or remove them from test"
        )
    for ignored in ("val", "valid", "validation"):
        if (folder / ignored).is_dir():
            logger.warning("%s is not read: validation images are carved out of train", folder / ignored)
    classes = list(train)
    renamed = read_classes(folder / "classes.txt", classes)
    train_pool, test_pool = (
        Pool.of_files(folder, [(path, label) for label, c in enumerate(classes) for path in images.get(c, [])])
        for images in (train, test)
    )
    return RawTask(
        name=name,
        title=prompts.title if prompts else readable_name(name),
        source="folder",
        class_names=[renamed.get(c) or readable_name(c, prompts) for c in classes],
        templates=read_templates(folder / "templates.txt") or (prompts.templates if prompts else DEFAULT_TEMPLATES),
        train=train_pool,
        test=test_pool,
        split_note="folders train and test",
    )


@validated_call
def find_folder(name: str | None, root: Path) -> Path:
    """The folder with `train` and `test`: `root/name`, or `root` itself if that is its name or `name` is None.

    A root with another name is not taken even if it holds a task: two names would silently mean the same task.
    """
    _require_folder(root)
    own = {root.name, root.resolve().name}
    candidates = [root] if name is None else [root / name, root] if name in own else [root / name]
    for folder in candidates:
        if holds_task(folder):
            return folder
    if root not in candidates and any((root / split).exists() for split in ("train", "test", *TABLES)):
        raise InputError(
            f"neither train nor test found in {candidates[0]}; {root} itself holds a task, but its name is "
            f"{root.resolve().name!r}: give that name, or None, or the folder that holds {name!r} as root"
        )
    raise InputError(
        f"neither train nor test found in {' or '.join(map(str, candidates))}; expected {LAYOUT}, or {TEXT_LAYOUT}"
    )


@validated_call
def holds_task(folder: Path) -> bool:
    """Whether a folder holds `train` and `test`, of images or of texts; `InputError` for one without the other."""
    found = [(folder / split).is_dir() for split in ("train", "test")]
    if any(found) and holds_texts(folder):
        raise InputError(f"{folder} has tables of texts and folders of images: expected one kind; move the other")
    if any(found) and not all(found):
        raise InputError(f"{folder} has no folder {'test' if found[0] else 'train'!r}; expected {LAYOUT}")
    return all(found) or holds_texts(folder)


@validated_call
def holds_texts(folder: Path) -> bool:
    """Whether a folder holds the two tables of a text task, see `texts`; `InputError` for one without the other."""
    found = [(folder / name).is_file() for name in TABLES]
    if any(found) and not all(found):
        raise InputError(f"{folder} has no {TABLES[found.index(False)]}; expected {TEXT_LAYOUT}")
    return all(found)


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected one that holds {LAYOUT}")


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that takes runs of digits as numbers and ignores case; the text itself breaks ties."""
    runs = re.findall(r"[0-9]+|[^0-9]+", text.casefold())
    return [(0, int(run), "") if run.isdecimal() and run.isascii() else (1, 0, run) for run in runs], text


@validated_call
def class_folders(split: Path) -> dict[str, list[Path]]:
    """The images of each class folder in `split`, both in natural order.

    Raises
    ------
    InputError
        No class folder, an empty one, a folder inside one, an image outside of them.
    """
    classes: dict[str, list[Path]] = {}
    left_out: Counter[str] = Counter()
    for entry in _visible(split):
        if not entry.is_dir():
            if _is_image(entry):
                raise InputError(f"{entry} lies outside of a class folder; move it to {split / '<class>' / entry.name}")
            continue
        files = {file: _is_image(file) for file in _class_files(entry)}
        classes[entry.name] = [file for file, image in files.items() if image]
        left_out.update(file.suffix.lower() or "no ending" for file, image in files.items() if not image)
        if not classes[entry.name]:
            raise InputError(
                f"class folder {entry} has no images; add some, or remove the folder (none of its {len(files)} files "
                "has the ending or the content of an image that can be read)"
            )
    if not classes:
        raise InputError(f"{split} has no class folders; expected {LAYOUT}")
    if left_out:
        kinds = ", ".join(f"{count} of {ending}" for ending, count in left_out.most_common())
        logger.warning(
            "%s: %d files left out (%s): Pillow does not open them as images; HEIC needs the package pillow-heif",
            split,
            left_out.total(),
            kinds,
        )
    return classes


def _is_image(path: Path) -> bool:
    """Whether a file's name ends like that of an image, or else the file opens as one."""
    if path.suffix.lower() in image_endings():
        return True
    try:
        with opened(path) as image:
            return image.format != "TGA"  # which has no signature
    except InputError:
        return False


def _class_files(folder: Path) -> list[Path]:
    entries = _visible(folder)
    if nested := [entry for entry in entries if entry.is_dir()]:
        raise InputError(
            f"{nested[0]} is a folder inside the class folder {folder}; put its images into {folder} itself"
        )
    return entries


def _visible(folder: Path) -> list[Path]:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return sorted(entries, key=lambda path: natural_key(path.name))


@validated_call
def read_classes(path: Path, classes: list[str]) -> dict[str, str]:
    """Readable names by folder name from a `classes.txt`; empty if there is no such file.

    The file need not name every class. Blank lines are ignored.

    Raises
    ------
    InputError
        naming the line, if it is not "folder, tab, name", names a missing folder, or repeats a folder or readable name.
    """
    names: dict[str, str] = {}
    first_line: dict[str, int] = {}
    for number, line in read_lines(path):
        folder, tab, readable = (text.strip() for text in line.partition("\t"))
        where = f"{path}, line {number}"
        if not folder or not readable or "\t" in readable:
            raise InputError(f"{where}: {line!r}; expected a folder name, one tab, and a readable name")
        if folder not in classes:
            raise InputError(
                f"{where}: there is no class folder {folder!r} in train; correct the name or remove the line"
            )
        if folder in names:
            raise InputError(f"{where}: folder {folder!r} was named before; keep one of the lines")
        if readable in first_line:
            raise InputError(
                f"{where}: readable name {readable!r} was given in line {first_line[readable]}; "
                "a text head needs one name per class"
            )
        names[folder] = readable
        first_line[readable] = number
    return names


@validated_call
def read_templates(path: Path) -> tuple[str, ...]:
    """Prompt templates, one per line, from a `templates.txt`; empty if there is no such file or it is blank."""
    templates = []
    for number, line in read_lines(path):
        require_templates([line.strip()], f"{path}, line {number}")
        templates.append(line.strip())
    return tuple(templates)


@validated_call
def read_lines(path: Path) -> list[tuple[int, str]]:
    """The non-blank lines of a text file with their numbers, from 1; none if there is no such file."""
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
