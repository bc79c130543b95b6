"""Which solutions a command looks at: checkpoints, folders of them, a store's runs, or some trained on the spot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isthmus.cli import console, inputs
from isthmus.core.progress import Progress, silent

if TYPE_CHECKING:
    from isthmus.core.weights import Weights
    from isthmus.train import Recipe
    from isthmus.zoo.data import Data

_PLAIN: Mapping[str, Any] = {"network": "mlp-64x1", "epochs": 20, "rate": 0.1, "batch_size": 64}


def chosen(
    checkpoints: Sequence[str] | None,
    *,
    model: str | None = None,
    data: str | None = None,
    data_dir: str | None = None,
    train: str | None = None,
    solutions: int = 1,
    store: str | None = None,
    study: str | None = None,
    run: str | None = None,
    trunks: int = 1,
    examples: int | None = None,
    split: str = "test",
    device: str = "auto",
    unsafe_pickle: bool = False,
    least: int = 1,
    most: int | None = None,
    finite: bool = True,
    progress: Progress = silent,
) -> inputs.Case:
    """The solutions that a command line names, with the data they are measured on.

    Args:
        checkpoints: files or folders, which need ``model`` and ``data``.
        model: of the checkpoints.
        data: of the checkpoints or of the training; a store's runs know their own.
        data_dir: where the data's files are.
        train: fields of a recipe, to train instead.
        solutions: how many to train.
        store: take a store's runs instead.
        study: only the runs of this study.
        run: only the run whose key starts so.
        trunks: of a recipe with ``spawn``: the replicas leave so many common trunks, in equal numbers.
        examples: measure on so many at most.
        split: ``test``, or ``train``: for a recipe its own subset and its own labels, as trained.
        device: where.
        unsafe_pickle: run pickles in full.
        least: how many solutions there must be.
        most: how many there may be.
        finite: refuse checkpoints that diverged.
        progress: told of the training.

    Raises:
        SettingError: not exactly one source, or too few solutions.
    """
    from isthmus.core.errors import SettingError

    if split not in ("test", "train"):
        raise SettingError(f"split must be test or train, got {split}")
    if sum((bool(checkpoints), train is not None, store is not None)) != 1:
        raise SettingError("give checkpoints, --train or --store, and only one of them")
    if checkpoints:
        if model is None or data is None:
            raise SettingError("checkpoints need --model and --data")
        files = inputs.expanded(checkpoints)
        _check_count(len(files), "checkpoints", least, most)
        return inputs.case(
            files, model=model, data=data, data_dir=data_dir, examples=examples, split=split, device=device,
            unsafe_pickle=unsafe_pickle, finite=finite,
        )  # fmt: skip
    where = inputs.found_device(device)
    if store is not None:
        keys, recipes, weights = _stored(store, study, run, where)
        _check_count(len(keys), f"runs of {store}", least, most)
        return _case([key[:8] for key in keys], recipes, weights, None, data_dir, examples, split, where)
    _check_count(solutions, "solutions", least, most)
    found, recipes, weights = _trained(train or "", solutions, trunks, data, data_dir, where, progress)
    names = [str(index) for index in range(solutions)] if solutions > 1 else [recipes[0].network]
    return _case(names, recipes, weights, found, data_dir, examples, split, where)


def measured(
    what: str,
    look: Callable[[inputs.Case, Progress], Any],
    *,
    show: Callable[[dict[str, Any]], None],
    output: str | None,
    report: str | None,
    json: bool,
    **source: Any,
) -> None:
    """The way of a command from its words to its files: find the solutions, measure, say where it came from, deliver.

    Args:
        what: the command's name.
        look: the case and who is told of the progress → a result with a field ``provenance``.
        show: prints the result for people.
        output: where the JSON goes too.
        report: where the page goes.
        json: print JSON instead.
        **source: as :func:`chosen` takes them.
    """
    with console.progress(what) as told:
        case = chosen(**source, progress=told)
        found = look(case, told)
        values = console.traced(found, case.data, split=source.get("split", "test"))
    console.deliver(values, output=output, report=report, json=json, show=show)


def _check_count(count: int, what: str, least: int, most: int | None) -> None:
    from isthmus.core.errors import SettingError

    if count < least:
        raise SettingError(f"this needs at least {least} {what}, got {count}")
    if most is not None and count > most:
        raise SettingError(f"this looks at {most} of the {what}, got {count}; name which one")


def data_name(data: str | None, fields: Mapping[str, Any]) -> str:
    """The data that ``--data`` or a recipe's own fields name; digits where neither does.

    Raises:
        SettingError: they name two different ones.
    """
    from isthmus.core.errors import SettingError

    own = fields.get("data")
    if data is not None and own is not None and data != own:
        raise SettingError(f"--data and the recipe must name the same data, got {data} and {own}; name it once")
    return str(data or own or "digits")


def recipe_of(fields: str, found: Data, data: str) -> Recipe:
    """The recipe of a command line's ``--train``: one hidden layer unless it says otherwise."""
    return recipe_for(found, {**_PLAIN, "data": data, **console.settings(fields, what="train")})


def recipe_for(found: Data, fields: Mapping[str, Any]) -> Recipe:
    """A recipe whose network, if it is one of the zoo, takes its input's shape and its classes from the data."""
    from isthmus.train import Recipe
    from isthmus.zoo.networks import is_network

    settings = dict(fields.get("settings", {}))
    if is_network(fields["network"]):
        settings = {"inputs": list(found.shape), "classes": found.classes, **settings}
    return Recipe.from_dict({**fields, "settings": settings})


def width_of(fields: str) -> int:
    """The width of the hidden layers of a recipe's multilayer perceptron.

    Raises:
        SettingError: its network is no ``mlp-WIDTHxDEPTH``.
    """
    import re

    from isthmus.core.errors import SettingError

    network = str({**_PLAIN, **console.settings(fields, what="train")}["network"])
    match = re.fullmatch(r"mlp-(\d+)x\d+", network)
    if match is None:
        raise SettingError(f"other widths need a network of the form mlp-WIDTHxDEPTH, got {network}")
    return int(match[1])


def widened(fields: str, width: int) -> str:
    """The words of the same recipe with hidden layers of another width.

    Raises:
        SettingError: its network is no ``mlp-WIDTHxDEPTH``, or the width is not positive.
    """
    import json

    from isthmus.core.errors import SettingError

    if width < 1:
        raise SettingError(f"widths must be at least 1, got {width}")
    before, given = width_of(fields), {**_PLAIN, **console.settings(fields, what="train")}
    return json.dumps({**given, "network": str(given["network"]).replace(f"mlp-{before}x", f"mlp-{width}x")})


def _trained(
    fields: str,
    solutions: int,
    trunks: int,
    data: str | None,
    data_dir: str | None,
    device: str,
    progress: Progress,
) -> tuple[Data, list[Recipe], list[Weights]]:
    """Replicas of one recipe; those that spawn leave their common trunks, one trunk's replicas in a row."""
    from isthmus.core.errors import SettingError
    from isthmus.core.network import Network
    from isthmus.train import train
    from isthmus.zoo.models import build
    from isthmus.zoo.text import suited

    name = data_name(data, console.settings(fields, what="train"))
    found = inputs.found_data(name, data_dir).to(device)
    recipe = recipe_of(fields, found, name)
    found = suited(found, Network.of(build(recipe).to(device)))
    if solutions % trunks or (trunks > 1 and not recipe.spawn):
        raise SettingError(
            f"trunks must divide the {solutions} solutions and need a recipe with spawn, got {trunks} with "
            f"spawn={recipe.spawn}"
        )
    recipes = recipe.replicates(solutions)
    if recipe.spawn:
        stems = recipe.replicates(trunks)
        recipes = [one for stem in stems for one in stem.replicates(solutions // trunks, vary=("spawn",))]
    replicas = train(recipes, data=found, module=build, device=device, scores="never", progress=progress)
    return found, recipes, [replica.weights for replica in replicas]


def _stored(
    store: str, study: str | None, run: str | None, device: str
) -> tuple[list[str], list[Recipe], list[Weights]]:
    """The runs of a store, which must be of one architecture and one data set."""
    from isthmus.core.errors import SettingError
    from isthmus.studies import Store
    from isthmus.studies.factors.jobs import recipe_of as stored_recipe

    opened = Store.open(store)
    keys = [opened.find(run)] if run else list(opened.members_of(study)) if study else opened.keys
    recipes = [stored_recipe(opened.run(key).recipe) for key in keys]
    alike = [
        (r.network, r.settings, r.data) == (one.network, one.settings, one.data) for r in recipes for one in recipes[:1]
    ]
    if not all(alike):
        raise SettingError(
            f"runs must share one network and data set, but {alike.count(False)} of {len(keys)} differ from "
            f"{recipes[0].network} on {recipes[0].data}; name a study or a run"
        )
    return keys, recipes, [opened.weights(key, device=device) for key in keys]


def _case(
    names: Sequence[str],
    recipes: Sequence[Recipe],
    weights: Sequence[Weights],
    found: Data | None,
    data_dir: str | None,
    examples: int | None,
    split: str,
    device: str,
) -> inputs.Case:
    from isthmus.core.network import Network
    from isthmus.zoo.models import build
    from isthmus.zoo.text import suited

    found = found or inputs.found_data(recipes[0].data, data_dir).to(device)
    if split == "train":
        found = _as_trained(recipes, found)
    found = found if examples is None else found.limited(examples)
    module = build(recipes[0]).to(device)
    network = Network.of(module)
    found = suited(found, network)
    return inputs.Case(
        module=module,
        network=network,
        names=tuple(names),
        solutions=list(weights),
        data=found,
        objective=inputs.objective(network, found, split=split),
    )


def _as_trained(recipes: Sequence[Recipe], found: Data) -> Data:
    """The training examples that the recipes themselves use: their subset and their labels, noise included."""
    from isthmus.core.errors import SettingError
    from isthmus.train.batches import Batches

    own = [Batches.of([recipe], found, device=found.train_inputs.device).own(0) for recipe in recipes]
    if any(not pair[1].equal(own[0][1]) or len(pair[0]) != len(own[0][0]) for pair in own):
        raise SettingError("solutions must share their training examples and labels to be compared on them")
    return dataclasses.replace(found, train_inputs=own[0][0], train_targets=own[0][1])
