"""Callbacks that record trajectories in other people's training loops: transformers' Trainer and Lightning."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from tests.discover.architectures import define_missing_operators
from torch import nn

from isthmus.core.errors import SettingError
from isthmus.integrations import Trajectory, lightning_callback, trainer_callback

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


@pytest.fixture
def trainer(tmp_path):
    """Hugging Face's own Trainer on a tiny language model of its own kind."""
    define_missing_operators()
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def made(folder, *, seed=0, arguments=None, callbacks=(), **settings):
        config = transformers.GPT2Config(vocab_size=17, n_positions=8, n_embd=8, n_layer=1, n_head=2)
        torch.manual_seed(seed)
        model = transformers.GPT2LMHeadModel(config)
        tokens = torch.randint(17, (24, 8), generator=torch.Generator().manual_seed(1))
        data = [{"input_ids": row, "labels": row} for row in tokens]
        chosen = dict(
            output_dir=str(tmp_path / "out"), max_steps=4, per_device_train_batch_size=4, report_to=[], seed=seed,
            save_strategy="no", logging_strategy="no", use_cpu=True, disable_tqdm=True, gradient_accumulation_steps=2,
        )  # fmt: skip
        return transformers.Trainer(
            model,
            transformers.TrainingArguments(**{**chosen, **(arguments or {})}),
            train_dataset=data,
            eval_dataset=data,
            callbacks=[trainer_callback(folder, **settings), *callbacks],
        )

    return made


def test_the_trainer_of_transformers_is_recorded(tmp_path, trainer):
    made = trainer(tmp_path / "run", at=(0, 1), every=3, recipe={"initialisation_seed": 0})
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    made.train()
    found = Trajectory.open(tmp_path / "run")
    assert found.steps == (0, 1, 3, 4)
    assert torch.equal(found.weights(0)["transformer.wte.weight"], before["transformer.wte.weight"])
    after = made.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in found.weights(4).items())
    assert not torch.equal(found.weights(1)["transformer.wte.weight"], before["transformer.wte.weight"])
    recipe = found.recipe
    assert (recipe["initialisation_seed"], recipe["order_seed"], recipe["augmentation_seed"]) == (0, 0, 0)
    assert recipe["arguments"]["learning_rate"] == made.args.learning_rate
    assert recipe["arguments"]["gradient_accumulation_steps"] == 2
    assert recipe["configuration"]["n_embd"] == 8
    assert recipe["order"]["examples"] == 24
    assert (recipe["order"]["sampler"], recipe["order"]["batch_size"]) == ("SeedableRandomSampler", 4)
    # A wheel may leave its build (+cu130) out of its name, and the module never does.
    assert found.provenance["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]


def test_a_trainer_that_was_cut_off_goes_on_in_its_folder(tmp_path, trainer):
    import transformers

    class Cut(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **further):
            if state.global_step == 5:
                raise RuntimeError("no power")

    often = {"max_steps": 8, "save_strategy": "steps", "save_steps": 3}
    with pytest.raises(RuntimeError, match="no power"):
        trainer(tmp_path / "cut", every=2, arguments=often, callbacks=[Cut()]).train()
    before = Trajectory.open(tmp_path / "cut")
    assert (before.steps, before.finished) == ((0, 2, 4), False)
    trainer(tmp_path / "cut", every=2, arguments=often).train(resume_from_checkpoint=True)
    trainer(tmp_path / "whole", every=2, arguments={**often, "output_dir": str(tmp_path / "other")}).train()
    found, whole = Trajectory.open(tmp_path / "cut"), Trajectory.open(tmp_path / "whole")
    assert (found.steps, found.finished, found.resumed) == ((0, 2, 4, 6, 8), True, (3,))
    assert found.recipe == whole.recipe
    for step in found.steps:
        expected = whole.weights(step)
        assert all(torch.allclose(one, expected[name], atol=1e-6) for name, one in found.weights(step).items())
    with pytest.raises(SettingError, match=r"another arguments\.learning_rate \(5e-05 there, 0\.1 here\)"):
        trainer(tmp_path / "cut", arguments={**often, "learning_rate": 0.1}).train(resume_from_checkpoint=True)
    trainer(tmp_path / "cut", every=2, arguments={**often, "max_steps": 10}).train(resume_from_checkpoint=True)
    assert Trajectory.open(tmp_path / "cut").steps == (0, 2, 4, 6, 8, 10)


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_last_step_holds_its_own_weights_where_the_best_come_back(tmp_path, trainer, ours_first):
    import transformers

    often = {
        "max_steps": 20, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1,
        "load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": True,
        "learning_rate": 0.01, "gradient_accumulation_steps": 1,
    }  # fmt: skip
    made = trainer(tmp_path / "run", at=(0,), arguments=often)  # a training gets better, so the first is "best" here
    made.add_callback(transformers.EarlyStoppingCallback(3))
    if not ours_first:
        made.callback_handler.callbacks.reverse()
    made.train()
    found = Trajectory.open(tmp_path / "run")
    assert (found.steps, found.finished) == ((0, 1, 4), True)
    from isthmus.core.checkpoint import load

    for step in (1, 4):
        theirs = load(tmp_path / "out" / f"checkpoint-{step}")
        assert all(torch.equal(one, found.weights(step)[name]) for name, one in theirs.items())


def test_two_trainings_say_whether_they_share_their_start(tmp_path, trainer):
    starts = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer(tmp_path / name, seed=seed).train()
        starts.append(Trajectory.open(tmp_path / name).recipe["start"])
    assert starts[0] == starts[1] != starts[2]
    with pytest.raises(SettingError, match="holds a training with another"):
        trainer(tmp_path / "a", seed=2).train()


@pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning_is_recorded_under_both_names(tmp_path, monkeypatch, name):
    define_missing_operators()
    library = pytest.importorskip(name)

    class Module(library.LightningModule):
        def __init__(self):
            super().__init__()
            self.save_hyperparameters({"width": 3})
            self.net = nn.Linear(2, 1)

        def training_step(self, batch, index):
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.5)

    library.seed_everything(3)
    data = torch.utils.data.TensorDataset(torch.randn(24, 2))
    loader = torch.utils.data.DataLoader(data, batch_size=2, shuffle=True)
    callback = lightning_callback(tmp_path / "run", at=(0, 2), recipe={"note": "mine"})
    trainer = library.Trainer(
        max_epochs=1, accumulate_grad_batches=3, callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path,
    )  # fmt: skip
    assert isinstance(callback, library.Callback)
    module = Module()
    before = module.net.weight.detach().clone()
    trainer.fit(module, loader)
    os.environ.pop("PL_GLOBAL_SEED", None)
    found = Trajectory.open(tmp_path / "run")
    assert found.steps == (0, 2, 4)  # optimiser steps: 12 batches, three for each
    assert torch.equal(found.weights(0)["net.weight"], before)
    assert torch.equal(found.weights(4)["net.weight"], module.net.weight)
    assert found.recipe["configuration"] == {"width": 3}
    assert found.recipe["order_seed"] == 3
    assert found.recipe["optimisers"][0]["momentum"] == 0.5
    assert found.recipe["order"] | {"generator_seed": None} == {
        "sampler": "RandomSampler", "generator_seed": None, "batch_size": 2, "drop_last": False, "workers": 0,
        "examples": 24, "data": None,
    }  # fmt: skip
    assert found.recipe["note"] == "mine"


def test_lightning_goes_on_in_its_folder_and_is_sent_to_other_processes(tmp_path):
    import pickle

    define_missing_operators()
    library = pytest.importorskip("lightning.pytorch")

    class Module(library.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 1)

        def training_step(self, batch, index):
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    class Cut(library.Callback):
        def on_train_batch_end(self, trainer, *further):
            if trainer.global_step == 5:
                raise RuntimeError("no power")

    saving = library.callbacks.ModelCheckpoint
    data = torch.utils.data.TensorDataset(torch.ones(24, 2))

    def fit(*callbacks, steps=8, ckpt_path=None):
        ours = pickle.loads(pickle.dumps(lightning_callback(tmp_path / "run", every=2)))
        kept = saving(tmp_path / "kept", every_n_train_steps=3, save_top_k=-1, filename="{step}")
        trainer = library.Trainer(
            max_steps=steps, callbacks=[ours, kept, *callbacks], logger=False, enable_progress_bar=False,
            enable_model_summary=False, accelerator="cpu", default_root_dir=tmp_path,
        )  # fmt: skip
        torch.manual_seed(0)
        trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=2), ckpt_path=ckpt_path)

    with pytest.raises(RuntimeError, match="no power"):
        fit(Cut())
    started = Trajectory.open(tmp_path / "run")
    assert (started.steps, started.finished) == ((0, 2, 4), False)
    fit(steps=10, ckpt_path=tmp_path / "kept" / "step=3.ckpt")
    found = Trajectory.open(tmp_path / "run")
    assert (found.steps, found.finished, found.resumed) == ((0, 2, 4, 6, 8, 10), True, (3,))
    assert found.recipe["start"] == started.recipe["start"] is not None
    assert found.recipe["arguments"]["max_steps"] == 10


def test_without_lightning_the_error_says_so(monkeypatch):
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("isthmus.integrations.lightning._NAMES", ("not_there_at_all",))
    with pytest.raises(SettingError, match="needs lightning, which is not installed"):
        lightning_callback("x")
