"""``isthmus stationary``: where SGD at a constant rate settles, against the law that predicts it."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from isthmus.cli import console, options, subjects

# A smooth network with a true minimum: weight decay keeps it from fitting its labels ever more surely.
_DEMO = '{"network": "mlp-8x1", "settings": {"activation": "tanh"}, "weight_decay": 0.01, "epochs": 30, ' \
        '"schedule": "cosine"}'  # fmt: skip
_SETTLE = 1000


def stationary(
    checkpoint: options.Checkpoint = None,
    model: options.MaybeModel = None,
    data: options.MaybeData = None,
    train: options.Train = None,
    store: options.Store = None,
    run: options.Run = None,
    data_dir: options.DataDir = None,
    noise: Annotated[
        str, typer.Option(help="Kinds, separated by commas: sampling, labels, isotropic, moving.")
    ] = "sampling,labels,isotropic,moving",
    rate: Annotated[
        float | None, typer.Option(help="The constant rate; by default a tenth of 2/λ_max, where SGD diverges.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Examples in each step.")] = 32,
    walkers: Annotated[int, typer.Option(help="Walkers at once.")] = 64,
    steps: Annotated[
        int | None, typer.Option(help="Of each walker; by default ten relaxation times of the flattest direction.")
    ] = None,
    pairs: Annotated[int, typer.Option(help="Directions: so many of the largest eigenvalues.")] = 12,
    weight_decay: Annotated[
        float | None, typer.Option(help="Weight decay of the objective; by default that of --train, else none.")
    ] = None,
    settle: Annotated[
        int | None,
        typer.Option(help="Iterations of descent on all data before; by default 1000 after --train, none otherwise."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Go on where the start is no minimum.")] = False,
    quadratic: Annotated[bool, typer.Option(help="Also test the law on quadratics, where it is exact.")] = True,
    examples: options.Examples = 500,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Many walkers at once from a minimum: variance in each eigendirection against ηC/(nλ(2−ηλ)).

    Without a checkpoint a small network is trained on digits and brought to its minimum.
    """
    with console.progress("stationary") as told:
        from isthmus.core.errors import SettingError
        from isthmus.studies.redundancy.stationary import KINDS, Walking, on_network, on_quadratics

        kinds = tuple(dict.fromkeys(console.names(noise)))
        if not kinds or set(kinds) - set(KINDS):
            raise SettingError(f"noise must be some of {', '.join(KINDS)}, got {noise!r}")
        for name, value in {"batch-size": batch_size, "pairs": pairs}.items():
            if value < 1:
                raise SettingError(f"{name} must be at least 1, got {value}")
        own = checkpoint is not None or store is not None
        fields = train if own or train is not None else _DEMO
        case = subjects.chosen(
            [checkpoint] if checkpoint else None, model=model, data=data, data_dir=data_dir, train=fields, store=store,
            run=run, examples=examples, split="train", device=device, unsafe_pickle=unsafe_pickle, most=1,
            progress=told,
        )  # fmt: skip
        trained = console.settings(fields, what="train") if fields else {}
        found = on_network(
            case.objective,
            case.solutions[0],
            name=case.names[0] if own else str(trained.get("network", "network")),
            kinds=kinds,
            pairs=pairs,
            weight_decay=float(trained.get("weight_decay", 0.0)) if weight_decay is None else weight_decay,
            settle=(0 if own else _SETTLE) if settle is None else settle,
            walking=Walking(rate, batch_size, walkers, steps, seed),
            forced=force,
            progress=told,
        )
        exact = on_quadratics(kinds, seed=seed, progress=told) if quadratic else ()
        made_by = {**found.provenance, "data": case.data.fingerprint}
        values = dataclasses.replace(found, quadratic=exact, provenance=made_by).to_dict()
    console.deliver(values, output=output, report=report, json=json, show=_show)


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.stationary import headline, stationary_table, stationary_text
    from isthmus.report.words import words_for

    words = words_for("en")
    table = stationary_table(values, words)
    console.table(table.columns, table.rows, title=table.title)
    for line in [*stationary_text(values, words)[1:], headline(values, words)]:
        console.say(line)
