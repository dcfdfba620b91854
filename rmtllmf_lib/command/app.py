"""What all subcommands share: `~` in paths, and messages in the words of the command line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from rmtllmf_lib.errors import InputError

# Arguments of the library whose options have another name.
_OPTIONS = {"n_train": "train_images", "n_test": "test_images", "weights_file": "backbone_file", "lambda": "lam"}


class Command(TyperCommand):
    """A subcommand; whatever its callback receives and raises passes through `invoke`."""

    def invoke(self, ctx: Any) -> Any:
        """Call the command with expanded paths; name options in errors as the user types them."""
        from rmtllmf_lib.workers import allowed  # not for the help alone

        ctx.params = {name: _expanded(value) for name, value in ctx.params.items()}
        try:
            allowed(1)  # what the environment says is checked before anything is loaded
            return super().invoke(ctx)
        except InputError as error:
            error.args = (self._as_typed(str(error)),)
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command's name, without the braces that typer puts around what is required."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """List arguments and options by their metavars; typer would add an argument's Python type."""
        for param in self.params:
            if param.param_type_name == "argument":
                setattr(param, "display_type_rich", lambda ctx: "")  # noqa: B010 -- typer before 0.20 has none
        super().format_options(ctx, formatter)

    def _as_typed(self, message: str) -> str:
        """The message with the library's arguments replaced by this command's options.

        An argument is recognised by an underscore in its name, or by its place: first in a clause and followed by a
        verb or a value, or after a verb that says what to give. Paths and quoted words are left alone.
        """
        options = {option.name: max(option.opts, key=len) for option in self.params if option.opts[0].startswith("-")}
        options |= {name: options[ours] for name, ours in _OPTIONS.items() if ours in options}
        options.pop("task", None)  # in messages it is the task itself
        names = "|".join(sorted(map(re.escape, options), key=len, reverse=True))
        if not names:
            return message
        before = r"(?:^|(?<=: )|(?<=; )|(?<=\bgive )|(?<=\bset )|(?<=\blower )|(?<=\bmost )|(?<=\bleast ))"
        after = r"(?= (?:is|are|was|has|holds|must|says|cannot) | = | '|,|$)"
        long = "|".join(re.escape(name) for name in options if "_" in name) or "(?!)"
        pattern = rf"{before}(?P<a>{names}){after}|(?<![\w'\"/.=-])(?P<b>{long})(?![\w'\"/.=])"
        return re.sub(pattern, lambda found: options[found["a"] or found["b"]], message)


class App(typer.Typer):
    """`typer.Typer` whose commands are `Command`s."""

    def command(self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **options: Any) -> Any:
        """Register a command, as in `typer.Typer.command`."""
        return super().command(name, cls=cls or Command, **options)


def _expanded(value: Any) -> Any:
    """Paths with `~` for the home folder expanded, wherever it stands: shells leave ``--out=~/tau`` as it is."""
    if isinstance(value, list | tuple):
        return type(value)(_expanded(item) if isinstance(item, Path) else item for item in value)
    return type(value)(os.path.expanduser(value)) if isinstance(value, str | Path) else value
