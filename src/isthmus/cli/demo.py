"""``isthmus demo``: the main job on real data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isthmus.core.history import Lineage, Parent
    from isthmus.core.weights import Weights
    from isthmus.studies.demo import Demo


def demo(
    data: options.Data = "digits",
    data_dir: options.DataDir = None,
    model: Annotated[str, typer.Option(help="mlp, resnet20, vit, or your own module:function.")] = "mlp",
    widths: Annotated[str | None, typer.Option(help="Widths, separated by commas, such as 32,128,512.")] = None,
    solutions: Annotated[int | None, typer.Option(help="Networks of each width; 4 or more for intervals.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set.")] = None,
    examples: Annotated[int | None, typer.Option(help="Use at most so many training and test examples.")] = None,
    points: Annotated[int | None, typer.Option(help="Points on each path.")] = None,
    device: options.Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the alignment; trainings are numbered from 0.")] = 0,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the report and results.")] = "isthmus-demo",
    language: Annotated[str, typer.Option("--lang", help="Language of the page: en or ja.")] = "en",
    quick: Annotated[bool, typer.Option("--quick", help="Two small widths, few epochs: does everything work?")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of the verdict.")] = False,
) -> None:
    """Train networks from different seeds, find their symmetry, align and merge them, and write a report."""
    with console.progress("demo") as told:
        from isthmus.core.files import write_text
        from isthmus.core.history import save_with_lineage
        from isthmus.core.record import to_json
        from isthmus.report.demo import demo_page, demo_verdict
        from isthmus.report.page import write_page
        from isthmus.report.words import words_for
        from isthmus.studies.demo import Settings, demonstrate

        words = words_for(language)
        small = {"widths": (16.0, 64.0), "solutions": 2, "epochs": 8, "points": 9} if quick and model == "mlp" else {}
        small |= {"examples": 200, "epochs": 1} if quick and model != "mlp" else {}
        asked = {"widths": parsed_widths(widths) or None, "solutions": solutions, "epochs": epochs}
        asked |= {"examples": examples, "points": points}
        settings = Settings.sensible(
            model,
            data,
            **{**small, **{name: value for name, value in asked.items() if value is not None}},
        )
        where = inputs.found_device(device)
        folder = inputs.output_folder(output)
        found, kept = demonstrate(settings, folder=data_dir, seed=seed, device=where, progress=told)
        values = found.to_dict()
        write_text(folder / "results.json", to_json(values))
        for name, weights in kept.items():
            file, about = folder / f"{name}.safetensors", _lineage(name, found, kept, seed)
            save_with_lineage(weights, file, about, metadata={"made_by": "isthmus demo"})
        page = demo_page(values, language=language)
        write_page(page, folder / "report.html", language=language)
    if json:
        console.emit_json(values)
        return
    verdict, _ = demo_verdict(values, words)
    console.say(verdict)
    for reason in page.reasons:
        console.say(f"- {reason}")
    console.say(f"{folder / 'report.html'} has the figures, {folder / 'results.json'} the numbers.")


def _lineage(name: str, found: Demo, kept: Mapping[str, Weights], seed: int) -> Lineage:
    """Where each of the four checkpoints comes from: two trainings, an alignment, an average."""
    from isthmus.core.history import Lineage, Parent, content_of

    def parent(of: str, role: str = "model") -> Parent:
        return Parent(content_of(kept[of]), f"{of}.safetensors", role)

    trained: dict[str, Any] = dict(zip(("first", "second"), found.provenance["trained"], strict=True))
    parents, recipe = {
        "second_aligned": ((parent("second"), parent("first", "fixed")), {"method": "weights", "seed": seed}),
        "merged": ((parent("first"), parent("second_aligned")), {"method": "linear"}),
    }.get(name, ((), trained.get(name, {})))
    score = {"first": "first", "second": "second", "second_aligned": "second", "merged": "aligned"}[name]
    return Lineage(
        "isthmus demo", parents, recipe, found.data["fingerprint"],
        capabilities={found.data["name"]: found.merged[score]["accuracy"]},
        measures={"test loss": found.merged[score]["loss"]},
    )  # fmt: skip


def parsed_widths(text: str | None) -> tuple[float, ...]:
    """Widths separated by commas; none of ``None``.

    Raises:
        SettingError: something else.
    """
    from isthmus.core.errors import SettingError

    found = tuple(console.numbers(text, float, what="widths"))
    if any(not width > 0 for width in found):
        raise SettingError(f"widths must be above 0, got {text!r}")
    return found
