"""``isthmus train``: replicas of one recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli import console, inputs, options, subjects

if TYPE_CHECKING:
    from isthmus.core.history import Descent
    from isthmus.train import Replica


def train(
    model: Annotated[
        str, typer.Option(help="mlp-128x2, resnet20, vit, torchvision:NAME or module:function.")
    ] = "mlp-128x2",
    data: options.Data = "digits",
    data_dir: options.DataDir = None,
    solutions: Annotated[int, typer.Option(help="How many networks.")] = 4,
    vary: Annotated[
        str, typer.Option(help="Which seeds differ: initialisation, order, augmentation, label_noise, subset, mask.")
    ] = "initialisation,order,augmentation",
    recipe: Annotated[
        str | None, typer.Option(help="Further fields of the recipe: name=value,… or a JSON object, or a .json file.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training set.")] = 10,
    engine: Annotated[str, typer.Option(help="auto, sequential, vectorised or compiled.")] = "auto",
    device: options.Device = "auto",
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the checkpoints.")] = "isthmus-replicas",
    json: Annotated[bool, typer.Option("--json", help="Print what was trained as JSON.")] = False,
) -> None:
    """Train networks that differ only in the seeds you vary; writes one checkpoint each and replicas.json."""
    folder = inputs.output_folder(output)
    with console.progress("train") as told:
        from isthmus.core.errors import SettingError
        from isthmus.core.files import write_text
        from isthmus.core.history import save_with_descent
        from isthmus.core.provenance import provenance
        from isthmus.core.record import to_json
        from isthmus.train import train as train_replicas
        from isthmus.zoo.models import build

        if solutions < 1:
            raise SettingError(f"solutions must be at least 1, got {solutions}")
        found = inputs.found_data(data, data_dir)
        fields = {"network": model, "data": data, "epochs": epochs, **console.settings(recipe, what="recipe")}
        base = subjects.recipe_for(found, fields)
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
        rows = []
        for index, replica in enumerate(replicas):
            file = folder / f"replica-{index}.safetensors"
            held = {"recipe": to_json(replica.recipe.to_dict(), indent=None)}
            save_with_descent(replica.weights, file, _descent(replica, found.fingerprint), metadata=held)
            rows.append({"file": file.name, **replica.to_dict()})
        result = {"kind": "Replicas", "replicas": rows, "provenance": {**provenance(), "data": found.fingerprint}}
        write_text(folder / "replicas.json", to_json(result))
    if json:
        console.emit_json(result)
        return
    console.table(
        ["file", "status", "training loss", "test error", "engine"],
        [
            [
                row["file"],
                row["status"],
                replica.train and replica.train.loss,
                replica.test and replica.test.error,
                row["engine"],
            ]
            for row, replica in zip(rows, replicas, strict=True)
        ],
    )
    console.say(f"{folder / 'replicas.json'} holds the recipes and histories.")


def _descent(replica: Replica, data: str) -> Descent:
    """A replica comes from its recipe and its data alone."""
    from isthmus.core.history import Descent

    scores = {"training": replica.train, "test": replica.test}
    measures = {f"{name} loss": score.loss for name, score in scores.items() if score is not None}
    known = {replica.recipe.data: 1 - replica.test.error} if replica.test is not None else {}
    return Descent("isthmus train", recipe=replica.recipe.to_dict(), data=data, capabilities=known, measures=measures)
