"""The options that many commands share, each with one name, one meaning and one help text."""

from __future__ import annotations

from typing import Annotated

import typer

MODEL = "module:function, file.py:function, torchvision:NAME, timm:NAME, hf:NAME, a Hugging Face folder or a zoo name."
_DATA = "digits, mnist, fashion-mnist, cifar10, an .npz (x, y, x_test, y_test), a .txt or module:function."

Checkpoints = Annotated[
    list[str], typer.Argument(help="Checkpoints: .safetensors, .pt, .pth, .bin, .ckpt, or folders of them.")
]
Model = Annotated[str, typer.Option(help=MODEL)]
MaybeCheckpoints = Annotated[
    list[str] | None, typer.Argument(help="Checkpoints: .safetensors, .pt, .pth, .bin, .ckpt or folders.")
]
MaybeModel = Annotated[str | None, typer.Option("--model", help=MODEL)]
Checkpoint = Annotated[
    str | None, typer.Argument(help="A checkpoint: .safetensors, .pt, .pth, .bin, .ckpt or a folder.")
]
FIELDS = "name=value,…, a JSON object or a .json file."
Train = Annotated[str | None, typer.Option("--train", help=f"Train instead: fields of a recipe, {FIELDS}")]
Recipe = Annotated[str | None, typer.Option("--train", help=f"Fields of the recipe: {FIELDS}")]
Solutions = Annotated[int, typer.Option("--solutions", help="How many to train.")]
Store = Annotated[str | None, typer.Option("--store", help="Take the runs of this store instead.")]
Study = Annotated[str | None, typer.Option("--study", help="Only the store's runs of this study.")]
Run = Annotated[str | None, typer.Option("--run", help="Only the store's run whose key starts so.")]
Data = Annotated[str, typer.Option(help=_DATA)]
MaybeData = Annotated[str | None, typer.Option("--data", help=_DATA)]
RecipeData = Annotated[str | None, typer.Option("--data", help=f"{_DATA} The recipe's own by default, else digits.")]
DataDir = Annotated[str | None, typer.Option(help="Folder with the data's files.")]
Split = Annotated[str, typer.Option(help="Measure on the test or the train split.")]
Examples = Annotated[int | None, typer.Option(help="Use at most so many examples of each split.")]
Points = Annotated[int, typer.Option(help="Points on each path, at least 3.")]
Normalisation = Annotated[
    str, typer.Option(help="Statistics between the ends: reestimate, interpolate, repair or rescale.")
]
Shape = Annotated[
    str | None, typer.Option("--input", help="Shape of an example, such as 1x3x224x224; several with commas.")
]
Tokens = Annotated[bool, typer.Option("--tokens", help="The input is token numbers, not real numbers.")]
Align = Annotated[
    str, typer.Option("--align", help="First permute to match the first checkpoint: none, weights or activations.")
]
Seed = Annotated[int, typer.Option(help="Seed of what is drawn at random.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto.")]
UnsafePickle = Annotated[
    bool, typer.Option("--unsafe-pickle", help="Run pickles in full: they can execute any code. Own files only.")
]
Language = Annotated[str, typer.Option("--lang", help="Language of the page: en or ja.")]


def new_file(path: str | None) -> str | None:
    """A file that will be written, tried before the work.

    Raises:
        IsthmusError: it cannot be written.
    """
    from isthmus.core.files import check_writable

    if path:
        check_writable(path)
    return path


def page_file(path: str | None) -> str | None:
    """A page that will be written, tried before the work.

    Raises:
        IsthmusError: it has another suffix, or cannot be written.
    """
    from isthmus.core.errors import SettingError

    if path is not None and not path.lower().endswith((".html", ".htm")):
        raise SettingError(f"a page must end in .html, got {path!r}; choose such a name")
    return new_file(path)


Report = Annotated[str | None, typer.Option(help="Also write a page with figures here (.html).", callback=page_file)]
Output = Annotated[
    str | None, typer.Option("--output", "-o", help="Also write the results here, as JSON.", callback=new_file)
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
