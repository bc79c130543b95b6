"""Recipes: every field counts, nothing else does, and mistakes are named."""

import copy
import dataclasses
import itertools
import pickle

import pytest

from isthmus.core.errors import SettingError
from isthmus.train import Recipe

OTHER = {
    "network": "mlp-8x1",
    "settings": {"inputs": [1, 8, 8]},
    "data": "mnist",
    "optimiser": "adam",
    "rate": 0.2,
    "momentum": 0.5,
    "nesterov": True,
    "betas": (0.8, 0.99),
    "epsilon": 1e-6,
    "radius": 0.1,
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "warmup": 5,
    "batch_size": 64,
    "last_batch": "drop",
    "epochs": 3,
    "steps": 7,
    "loss": "squared_error",
    "label_smoothing": 0.1,
    "label_noise": 0.2,
    "subset": 100,
    "augmentation": ("crop",),
    "crop_padding": 2,
    "cutout_size": 3,
    "precision": "float64",
    "spawn": 4,
    "spawn_seed": 1,
    "spawn_vary": ("augmentation",),
    "perturbation": 0.01,
    "sparsity": 0.5,
    "pruning_levels": 2,
    "pruning_rate": 0.3,
    "rewind": 3,
    "checkpoints": (1, 2),
    "initialisation_seed": 1,
    "order_seed": 1,
    "augmentation_seed": 1,
    "label_noise_seed": 1,
    "subset_seed": 1,
    "mask_seed": 1,
}


def test_the_table_covers_every_field():
    assert set(OTHER) == {field.name for field in dataclasses.fields(Recipe)}


@pytest.mark.parametrize("name", OTHER)
def test_every_field_changes_the_key(name):
    assert dataclasses.replace(Recipe(), **{name: OTHER[name]}).key() != Recipe().key()


def test_keys_are_all_different():
    keys = {dataclasses.replace(Recipe(), **{name: value}).key() for name, value in OTHER.items()}
    assert len(keys) == len(OTHER)


def test_the_same_values_in_another_form_have_one_key():
    first = Recipe(rate=1, checkpoints=[2, 1], augmentation=["flip", "crop"], settings={"inputs": (1, 8, 8)})
    second = Recipe(rate=1.0, checkpoints=(1, 2), augmentation=("crop", "flip"), settings={"inputs": [1, 8, 8]})
    assert first.key() == second.key()
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda recipe: pickle.loads(pickle.dumps(recipe))])
def test_copies_and_pickles_are_equal(copied):
    recipe = Recipe(settings={"inputs": [1, 8, 8]}, spawn=3)
    assert copied(recipe) == recipe


def test_a_dictionary_and_back():
    recipe = Recipe(**{**OTHER, "label_smoothing": 0.0, "spawn": 0})
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_settings_cannot_be_changed_afterwards():
    recipe = Recipe(settings={"width": 3})
    with pytest.raises(TypeError):
        recipe.settings["width"] = 4


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"learning_rat": 1}, "no field learning_rat"),
        ({"epoch": 3}, "did you mean epochs?"),
        ({"optimiser": "adamm"}, "did you mean adam?"),
        ({"rate": -1}, "rate must be at least 0"),
        ({"rate": "high"}, "rate must be a finite number"),
        ({"rate": float("nan")}, "rate must be a finite number"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"epochs": True}, "epochs must be a whole number"),
        ({"nesterov": 1}, "nesterov must be true or false"),
        ({"nesterov": True, "momentum": 0}, "nesterov needs a momentum"),
        ({"label_noise": 1.0}, "label_noise must be at least 0 and below 1"),
        ({"augmentation": "crop"}, "augmentation must be a list"),
        ({"augmentation": ["rotate"]}, "augmentation must be some of"),
        ({"loss": "squared_error", "label_smoothing": 0.1}, "label_smoothing goes with cross_entropy"),
        ({"pruning_levels": 1, "spawn": 1}, "cannot be combined"),
        ({"steps": 3, "spawn": 4}, "must lie within the 3 steps"),
        ({"betas": [0.9]}, "betas must be two numbers"),
        ({"checkpoints": [-1]}, "checkpoints must be steps of at least 0"),
        ({"settings": {"a": object()}}, "settings must hold plain values"),
        ({"network": 3}, "network must be a word"),
    ],
)
def test_mistakes_are_named_in_one_line(values, part):
    with pytest.raises(SettingError, match=part.replace("?", r"\?")) as caught:
        Recipe.from_dict(values)
    assert "\n" not in str(caught.value)


def test_replicates_differ_in_the_named_seeds_only():
    family = Recipe(initialisation_seed=7).replicates(3, vary=("order", "augmentation"))
    assert [recipe.initialisation_seed for recipe in family] == [7, 7, 7]
    assert [recipe.order_seed for recipe in family] == [0, 1, 2]
    with pytest.raises(SettingError, match="vary must be some of"):
        Recipe().replicates(2, vary=("weather",))
    with pytest.raises(SettingError, match="spawn must be above 0, got 0"):
        Recipe().replicates(2, vary=("spawn",))
    assert len(Recipe().replicates(2, vary=("order", "spawn"))) == 2


def test_warm_up_then_cosine():
    recipe = Recipe(rate=1.0, warmup=4, schedule="cosine")
    rates = [recipe.rate_at(step, 12) for step in range(12)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5)  # halfway from step 4 to 12
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))


@pytest.mark.parametrize(("last_batch", "steps"), [("keep", 4), ("drop", 3)])
def test_the_uneven_last_batch_is_counted(last_batch, steps):
    recipe = Recipe(batch_size=10, last_batch=last_batch, epochs=2)
    assert recipe.steps_in_epoch(31) == steps
    assert recipe.total_steps(31) == 2 * steps
    assert Recipe(batch_size=100, last_batch=last_batch).steps_in_epoch(31) == 1
