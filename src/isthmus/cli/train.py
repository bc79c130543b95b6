"""``isthmus train``: replicas of one recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options, subjects

if TYPE_CHECKING:
    from isthmus.core.history import Lineage
    from isthmus.train import Replica


def train(
    model: Annotated[
        str,
        typer.Option(
            help="mlp-128x2, resnet20, vit, torchvision:NAME, timm:NAME, hf:NAME, a Hugging Face folder or "
            "module:function."
        ),
    ] = "mlp-128x2",
    data: options.RecipeData = None,
    data_dir: options.DataDir = None,
    solutions: Annotated[int, typer.Option(help="How many networks.")] = 4,
    vary: Annotated[
        str, typer.Option(help="Which seeds differ: initialisation, order, augmentation, label_noise, subset, mask.")
    ] = "initialisation,order,augmentation",
    recipe: Annotated[str | None, typer.Option(help=f"Further fields of the recipe: {options.FIELDS}")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training set.")] = 10,
    engine: Annotated[str, typer.Option(help="auto, sequential, vectorised or compiled.")] = "auto",
    device: options.Device = "auto",
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the checkpoints.")] = "isthmus-replicas",
    json: options.Json = False,
) -> None:
    """Train networks that differ only in the seeds you vary; writes one checkpoint each and replicas.json."""
    folder = inputs.output_folder(output)
    with console.progress("train") as told:
        from isthmus.core.errors import SettingError
        from isthmus.core.files import write_text
        from isthmus.core.provenance import provenance
        from isthmus.core.record import to_json
        from isthmus.train import train as train_replicas
        from isthmus.zoo.models import build

        if solutions < 1:
            raise SettingError(f"solutions must be at least 1, got {solutions}")
        fields = console.settings(recipe, what="recipe")
        name = subjects.data_name(data, fields)
        found = inputs.found_data(name, data_dir)
        base = subjects.recipe_for(found, {"network": model, "data": name, "epochs": epochs, **fields})
        found = inputs.taken(found, base)
        recipes = base.replicates(solutions, vary=console.names(vary))
        try:
            replicas = train_replicas(
                recipes, data=found, module=build, engine=engine, device=inputs.found_device(device), progress=told
            )
        except KeyboardInterrupt:
            console.note(
                f"interrupted; {folder} is as it was: networks that are trained together are written together at the "
                "end; isthmus study keeps finished groups and goes on from there"
            )
            raise typer.Exit(130) from None
        rows = _written(replicas, folder, found.fingerprint)
        result = {"kind": "Replicas", "replicas": rows, "provenance": {**provenance(), "data": found.fingerprint}}
        write_text(folder / "replicas.json", to_json(result))
    if json:
        console.emit_json(result)
    else:
        _show(rows)
        console.say(f"{folder / 'replicas.json'} holds the recipes and histories.")


def _written(replicas: Sequence[Replica], folder: Path, data: str) -> list[dict[str, Any]]:
    """One checkpoint for each replica, and what is told of it."""
    from isthmus.core.history import save_with_lineage
    from isthmus.core.record import to_json

    rows = []
    for index, replica in enumerate(replicas):
        file = folder / f"replica-{index}.safetensors"
        held = {"recipe": to_json(replica.recipe.to_dict(), indent=None)}
        save_with_lineage(replica.weights, file, _lineage(replica, data), metadata=held)
        rows.append({"file": file.name, **replica.to_dict()})
    return rows


def _show(rows: Sequence[dict[str, Any]]) -> None:
    def value(score: dict[str, Any] | None, *path: str) -> Any:
        for name in path:
            score = score and score[name]
        return score

    shown = [
        [row["file"], row["status"], value(row["train"], "loss"), value(row["test"], "metrics", "error"), row["engine"]]
        for row in rows
    ]
    console.table(["file", "status", "training loss", "test error", "engine"], shown)


def _lineage(replica: Replica, data: str) -> Lineage:
    """A replica comes from its recipe and its data alone."""
    from isthmus.core.history import Lineage

    scores = {"training": replica.train, "test": replica.test}
    measures = {f"{name} loss": score.loss for name, score in scores.items() if score is not None}
    known = {replica.recipe.data: 1 - replica.test.error} if replica.test is not None else {}
    return Lineage("isthmus train", recipe=replica.recipe.to_dict(), data=data, capabilities=known, measures=measures)
