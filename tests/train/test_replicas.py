"""What training together promises: independent seeds, shared trunks, exact masks, marked divergence."""

import dataclasses

import pytest
import torch
from tests.train.few import BASE, images, run
from torch import nn

from isthmus.core.status import Status
from isthmus.train import Recipe, train
from isthmus.train.batches import Batches, noisy_labels
from isthmus.train.replicas import grouped
from isthmus.zoo import build

CPU = torch.device("cpu")


def vector(weights) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in weights.values()])


def test_replicas_come_back_in_order_whatever_their_groups():
    recipes = [
        dataclasses.replace(BASE, initialisation_seed=seed, batch_size=size)
        for seed, size in [(0, 8), (1, 16), (2, 8), (3, 16)]
    ]
    assert grouped(recipes) == [[0, 2], [1, 3]]
    seen = []
    replicas = run(*recipes, progress=lambda done, total, label="": seen.append(done / total))
    assert [replica.recipe for replica in replicas] == recipes
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_the_scores_at_the_end_have_their_share_of_the_progress():
    told = []
    run(*BASE.replicates(3), progress=lambda done, total, label="": told.append((done / total, label)))
    scored = [(share, label) for share, label in told if label.startswith("scores")]
    assert [label for _, label in scored] == [f"scores {place} of 3" for place in (1, 1, 2, 2, 3, 3)]
    assert 0 < scored[0][0] < scored[-1][0] < 1
    assert told[told.index(scored[0]) - 1][0] == scored[0][0]  # all steps are done by then
    quiet = []
    run(BASE, scores="never", progress=lambda done, total, label="": quiet.append((done / total, label)))
    assert next(label for share, label in quiet if share == 1.0).startswith("1 replicas")


def test_a_replica_is_told_by_what_came_out_and_not_by_its_weights():
    (scored,), (unscored,) = run(BASE), run(BASE, scores="never")
    assert repr(scored) == f"<Replica of {BASE.network} on {BASE.data}: stopped, test loss {scored.test.loss:.4g}>"
    assert repr(unscored) == f"<Replica of {BASE.network} on {BASE.data}: stopped>"


def test_a_replica_does_not_depend_on_its_neighbours():
    family = BASE.replicates(4)
    together, alone = run(*family)[2], run(family[2])[0]
    torch.testing.assert_close(vector(together.weights), vector(alone.weights), rtol=1e-10, atol=1e-12)


def streams(recipe: Recipe) -> dict[str, torch.Tensor]:
    """Every source of chance of a recipe, drawn."""
    recipe = dataclasses.replace(recipe, augmentation=("crop", "flip"), label_noise=0.5, subset=20, sparsity=0.5)
    batches = Batches.of([recipe], images(), device=CPU)
    plan = batches.plan(0, apart=False)
    masks = run(dataclasses.replace(recipe, steps=0))[0].masks
    return {
        "initialisation": vector(build(recipe).state_dict()),
        "order": plan.order,
        "augmentation": plan.alterations,
        "label_noise": noisy_labels(images().train_targets, recipe, classes=3),
        "subset": batches.subsets,
        "mask": torch.cat([mask.flatten() for mask in masks.values()]),
    }


@pytest.mark.parametrize("name", ["initialisation", "order", "augmentation", "label_noise", "subset", "mask"])
def test_one_seed_moves_one_source_of_chance_and_no_other(name):
    before, after = streams(BASE), streams(dataclasses.replace(BASE, **{f"{name}_seed": 1}))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {name}


def test_order_and_augmentation_change_with_the_epoch():
    batches = Batches.of([dataclasses.replace(BASE, augmentation=("flip",))], images(), device=CPU)
    first, second = batches.plan(0, apart=False), batches.plan(1, apart=False)
    assert not torch.equal(first.order, second.order)
    assert not torch.equal(first.alterations, second.alterations)


def test_label_noise_is_exact_and_never_the_right_class():
    targets = torch.arange(1000) % 5
    noisy = noisy_labels(targets, Recipe(label_noise=0.3), classes=5)
    assert int((noisy != targets).sum()) == 300
    shifts = torch.bincount((noisy - targets)[noisy != targets] % 5, minlength=5)
    assert shifts[0] == 0
    assert int(shifts[1:].min()) > 45  # 75 expected in each


def crop_by_hand(image: torch.Tensor, alteration: list[int], recipe: Recipe) -> torch.Tensor:
    """Pad, crop, flip, cut out, in plain steps."""
    row, column, flip, centre_y, centre_x = alteration
    if "crop" in recipe.augmentation:
        padded = nn.functional.pad(image, [recipe.crop_padding] * 4)
        size = image.shape[-1]
        image = padded[:, row : row + size, column : column + size]
    if "flip" in recipe.augmentation and flip:
        image = image.flip(-1)
    if "cutout" in recipe.augmentation:
        half = recipe.cutout_size // 2
        image = image.clone()
        top, left = max(0, centre_y - half), max(0, centre_x - half)
        image[:, top : centre_y - half + recipe.cutout_size, left : centre_x - half + recipe.cutout_size] = 0
    return image


@pytest.mark.parametrize(
    "names", [("crop",), ("flip",), ("cutout",), ("crop", "flip"), ("crop", "flip", "cutout")], ids="+".join
)
def test_augmentation_by_hand(names):
    recipe = dataclasses.replace(BASE, augmentation=names, crop_padding=2, cutout_size=3)
    batches = Batches.of(recipe.replicates(2), images(), device=CPU)
    plan = batches.plan(0, apart=False)
    inputs, targets = batches.fetch(plan.order, plan.alterations)
    data = images()
    for replica in range(2):
        for place, example in enumerate(plan.order[replica].tolist()):
            wanted = crop_by_hand(data.train_inputs[example], plan.alterations[replica, place].tolist(), recipe)
            assert torch.equal(inputs[replica, place], wanted)
            assert targets[replica, place] == data.train_targets[example]


def test_a_spawn_shares_exactly_its_first_steps():
    family = dataclasses.replace(BASE, spawn=5, checkpoints=(0, 3, 5, 6)).replicates(3, vary=("spawn",))
    replicas = run(*family)
    for other in replicas[1:]:
        for step in (0, 3, 5):
            assert torch.equal(vector(other.checkpoints[step]), vector(replicas[0].checkpoints[step]))
        assert not torch.allclose(vector(other.checkpoints[6]), vector(replicas[0].checkpoints[6]))
    plain = run(dataclasses.replace(BASE, checkpoints=(5,)))[0]
    torch.testing.assert_close(vector(plain.checkpoints[5]), vector(replicas[0].checkpoints[5]), rtol=1e-10, atol=1e-12)


def test_a_spawn_varies_what_it_says():
    kicked = dataclasses.replace(
        BASE, spawn=4, spawn_vary=("perturbation",), perturbation=0.1, rate=0.0, momentum=0.0
    ).replicates(2, vary=("spawn",))
    first, second = (vector(replica.weights) for replica in run(*kicked))
    start = vector(run(dataclasses.replace(BASE, steps=0))[0].weights)
    for end in (first, second):
        assert float((end - start).norm() / start.norm()) == pytest.approx(0.1, rel=1e-9)
    assert not torch.allclose(first, second)
    same = dataclasses.replace(BASE, spawn=4, spawn_vary=()).replicates(2, vary=("spawn",))
    assert torch.equal(*(vector(replica.weights) for replica in run(*same)))


def test_pruning_removes_the_smallest_and_rewinds_to_the_step():
    recipe = dataclasses.replace(BASE, pruning_levels=3, pruning_rate=0.2, rewind=2, checkpoints=(2,))
    replica = run(*recipe.replicates(2))[1]
    total = sum(mask.numel() for mask in replica.masks.values())
    kept, previous = total, None
    for level in replica.levels:
        masks = torch.cat([mask.flatten() for mask in level.masks.values()])
        assert int(masks.sum()) == kept
        assert level.density == pytest.approx(kept / total)
        weights = torch.cat([level.weights[name].flatten() for name in level.masks])
        assert bool((weights[~masks] == 0).all())
        if previous is not None:
            removed = previous[1] & ~masks
            assert not bool((masks & ~previous[1]).any())
            assert float(previous[0][removed].abs().max()) <= float(previous[0][masks].abs().min())
        previous = (weights, masks)
        kept -= round(0.2 * kept)
    assert set(replica.masks) == {"1.weight", "3.weight"}
    for name, mask in replica.masks.items():
        dense = run(dataclasses.replace(BASE, checkpoints=(2,), **{k: getattr(replica.recipe, k) for k in SEEDS}))[0]
        torch.testing.assert_close(
            replica.checkpoints[2][name], dense.checkpoints[2][name] * mask, rtol=1e-9, atol=1e-12
        )


SEEDS = ("initialisation_seed", "order_seed", "augmentation_seed")


def test_pruning_agrees_between_engines():
    recipe = dataclasses.replace(BASE, pruning_levels=2, rewind=3)
    first, second = (run(*recipe.replicates(2), engine=engine)[1] for engine in ("sequential", "vectorised"))
    for one, other in zip(first.levels, second.levels, strict=True):
        assert all(torch.equal(one.masks[name], other.masks[name]) for name in one.masks)
        torch.testing.assert_close(vector(one.weights), vector(other.weights), rtol=1e-9, atol=1e-12)


def test_sparse_masks_from_the_start_hold_their_share():
    replicas = run(*dataclasses.replace(BASE, sparsity=0.75, weight_decay=0.1).replicates(2, vary=("mask",)))
    for replica in replicas:
        for name, mask in replica.masks.items():
            assert int((~mask).sum()) == round(0.75 * mask.numel())
            assert bool((replica.weights[name][~mask] == 0).all())
            assert bool((replica.weights[name][mask] != 0).all())
    assert not torch.equal(replicas[0].masks["1.weight"], replicas[1].masks["1.weight"])


def test_what_diverges_is_marked_and_kept_and_harms_no_other():
    wild = dataclasses.replace(BASE, rate=1e200, steps=6)
    tame = dataclasses.replace(BASE, steps=6)
    replicas = run(wild, tame)
    assert [replica.status for replica in replicas] == [Status.DIVERGED, Status.STOPPED]
    assert replicas[0].diverged
    assert bool(torch.isfinite(vector(replicas[1].weights)).all())


def test_one_diverging_replica_leaves_its_group_alone():
    def sometimes(recipe: Recipe) -> nn.Module:
        module = build(recipe)
        if recipe.initialisation_seed == 1:
            with torch.no_grad():
                next(module.parameters()).fill_(float("nan"))
        return module

    family = BASE.replicates(3)
    replicas = train(family, data=images(), module=sometimes, engine="vectorised")
    assert [replica.diverged for replica in replicas] == [False, True, False]
    right = run(*family)
    torch.testing.assert_close(vector(replicas[2].weights), vector(right[2].weights), rtol=1e-10, atol=1e-12)


def test_scores_after_every_epoch_and_at_the_end_agree():
    replica = run(dataclasses.replace(BASE, steps=None, epochs=2, label_noise=0.2, subset=30), scores="epochs")[0]
    assert [epoch.steps for epoch in replica.history] == [2, 4]
    last = replica.history[-1]
    assert (last.train_loss, last.test_error) == (replica.train.loss, replica.test.error)
    assert run(BASE, scores="never")[0].train is None


def test_the_history_is_the_mean_of_the_batches():
    replica = run(dataclasses.replace(BASE, rate=0.0, momentum=0.0, steps=None, epochs=1, batch_size=10))[0]
    assert replica.history[0].loss == pytest.approx(replica.train.loss)  # five equal batches, weights that stay


def test_a_result_is_plain_values():
    record = run(BASE)[0].to_dict()
    assert record["recipe"]["network"] == "mlp-10x1"
    assert "weights" not in record
