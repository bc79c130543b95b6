"""Networks: shapes, counts, seeds; and the ways to a user's own module."""

import json
import math

import pytest
import torch
from tests.discover.architectures import define_missing_operators
from torch import nn

from isthmus.core.errors import SettingError
from isthmus.discover import discover
from isthmus.zoo import network, resolve
from isthmus.zoo.networks import NETWORKS, is_network

NAMES = ["mlp", "mlp-12x3", "mlp-8-4", "vgg", "vgg-4-8", "resnet20-x0.5", "resnet20-layer-x0.25", "vit", "vit-16x2"]


def usable(library: str) -> None:
    """Skip where a library is missing, or broken by one that it needs (torchvision, built for another torch)."""
    define_missing_operators()
    try:
        __import__(library)
        if library == "transformers":
            import transformers

            _ = transformers.BertForSequenceClassification  # read lazily
    except Exception as problem:
        pytest.skip(f"{library} cannot be imported: {type(problem).__name__}")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("inputs", [(1, 8, 8), (3, 32, 32)])
def test_images_in_scores_out(name, inputs):
    module = network(name, inputs=inputs, classes=7)
    scores = module(torch.randn(3, *inputs))
    assert scores.shape == (3, 7)
    assert bool(torch.isfinite(scores).all())


@pytest.mark.parametrize("name", NAMES)
def test_weights_follow_the_seed_and_nothing_else(name):
    before = torch.get_rng_state()
    first, again, other = (network(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_a_language_model_does_not_look_ahead():
    module = network("gpt-16x2", inputs=(12,), classes=7)
    tokens = torch.randint(7, (3, 12))
    changed = tokens.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % 7
    with torch.no_grad():
        before, after, short = module(tokens), module(changed), module(tokens[:, :8])
    assert before.shape == (3, 12, 7)
    assert torch.allclose(before[:, :8], after[:, :8], atol=1e-6)
    assert torch.allclose(before[:, :8], short, atol=1e-6)
    assert not torch.allclose(before[:, 8:], after[:, 8:], atol=1e-3)


def test_another_start():
    """Torch's own layers start uniform within ±1/√fan-in, biases too; a scale multiplies weights and nothing else."""
    he = network("mlp-400x1", inputs=(1, 20, 20)).state_dict()
    torchs = network("mlp-400x1", inputs=(1, 20, 20), initialisation="torch").state_dict()
    small = network("mlp-400x1", inputs=(1, 20, 20), initialisation="torch", initial_scale=0.1).state_dict()
    own = nn.Linear(400, 400)
    for name in ("weight", "bias"):
        drawn, expected = torchs[f"1.{name}"], getattr(own, name).detach()
        assert float(drawn.abs().max()) == pytest.approx(float(expected.abs().max()), rel=0.01)
        assert float(drawn.std()) == pytest.approx(float(expected.std()), rel=0.1)
    assert float(he["1.weight"].var()) == pytest.approx(6 * float(torchs["1.weight"].var()), rel=0.05)
    assert torch.equal(small["1.weight"], torchs["1.weight"] * 0.1)
    assert torch.equal(small["1.bias"], torchs["1.bias"])


def test_a_language_model_has_all_its_symmetry():
    module = network("gpt-8x1", inputs=(6,), classes=5, heads=2)
    symmetry = discover(module, torch.randint(5, (2, 6)))
    # The stream, the hidden units, the heads, and in each head the query-key and the value-output channels.
    copies = math.prod(math.factorial(size) for size in (8, 32, 2, 4, 4, 4, 4))
    assert symmetry.log10_size == pytest.approx(math.log10(copies))


def test_known_sizes():
    assert count(network("resnet20", inputs=(3, 32, 32))) == 272_474  # He et al. state .27 million
    assert count(network("mlp-64x2", inputs=(1, 8, 8))) == 64 * 64 + 64 + 64 * 64 + 64 + 64 * 10 + 10


def test_stages_of_a_vgg_may_differ_in_depth():
    settings = {"channels": (64, 128, 256, 512, 512), "convolutions": (2, 2, 3, 3, 3), "inputs": (3, 32, 32)}
    features = sum(
        p.numel() for name, p in network("vgg", norm="none", **settings).named_parameters() if "feat" in name
    )
    assert features == 14_714_688  # VGG-16's convolutions, as torchvision counts them
    with pytest.raises(SettingError, match="one for each of 2 stages"):
        network("vgg-8-8", convolutions=(1, 2, 3))


def test_signals_keep_their_size_through_depth():
    module = network("mlp-256x8", inputs=(1, 16, 16))
    hidden = torch.randn(200, 1, 16, 16)
    with torch.no_grad():
        for layer in list(module)[:-1]:
            hidden = layer(hidden)
    assert 0.5 < float(hidden.square().mean()) < 2.0


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    [
        ("mpl", {}, "did you mean mlp?"),
        ("mlp", {"widht": 3}, "widht is unknown; did you mean width?"),
        ("mlp", {"width": 0}, "must be at least 1"),
        ("mlp", {"norm": "batchnorm"}, "norm must be one of"),
        ("vgg", {"inputs": (64,)}, "needs inputs of"),
        ("vit", {"width": 6}, "multiple of heads"),
        ("vit", {"patch": 5}, "patch must divide"),
        ("gpt", {"inputs": (3, 8, 8)}, r"needs inputs of \(tokens,\)"),
        ("gpt", {"width": 6}, "multiple of heads"),
        ("resnet20-wide", {}, "not understood"),
        ("vgg-3x3", {}, "not understood"),
        ("mlp", {"initialisation": "xavier"}, "initialisation must be one of he, torch, got xavier"),
        ("mlp", {"initial_scale": -1}, "initial_scale must be a finite number of at least 0, got -1"),
        ("dense", {"initial_scale": 0.5}, "starts as He says only"),
    ],
)
def test_mistakes_are_one_line(name, settings, part):
    with pytest.raises(SettingError, match=part.replace("?", r"\?")) as caught:
        network(name, **settings)
    assert "\n" not in str(caught.value)


def test_every_name_is_known():
    assert all(is_network(name) for name in NETWORKS)
    assert not is_network("torchvision:resnet18")


def test_the_users_own_module(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("WIDTH = 5\n")
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nfrom beside import WIDTH\n"
        "def make(classes=3):\n    return nn.Linear(WIDTH, classes)\n"
        "def broken():\n    raise KeyError('no such weight')\n"
        "def nothing():\n    return 3\n"
    )
    before = torch.get_rng_state()
    first, again, other = (resolve(f"{tmp_path}/mine.py:make", seed=seed, classes=2) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.weight.shape == (2, 5)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    monkeypatch.chdir(tmp_path)
    assert isinstance(resolve("mine:make"), nn.Linear)
    for spec, part in {
        "mine:broken": "raised KeyError: 'no such weight'",
        "mine:nothing": "must return a torch.nn.Module, got int",
        "mine:absent": "has no function absent; it has make, broken, nothing",
        "no_such_module:make": "there is no module named no_such_module",
        "absent.py:make": "there is no file absent.py",
        "nonsense": "model must be module:function",
    }.items():
        with pytest.raises(SettingError, match=part):
            resolve(spec)


def test_torchvision_and_timm_by_name():
    usable("torchvision")
    usable("timm")
    assert resolve("torchvision:squeezenet1_1", num_classes=3)(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    assert resolve("timm:resnet10t", num_classes=3)(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    with pytest.raises(SettingError, match="torchvision has no model resnet19; did you mean resnet"):
        resolve("torchvision:resnet19")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('{"model_type": "gpt2", ', "config.json must be readable JSON"),
        ("[3]", "config.json must be a JSON object, got list"),
        ('{"model_type": "nosuch"}', "must hold a configuration that transformers knows, but: .*nosuch"),
        ('{"hidden": 3}', "must hold a configuration that transformers knows, but: Unrecognized model"),
        ('{"architecture": "resnet10tt"}', "timm has no model resnet10tt; did you mean resnet10t"),
        (None, "must be a folder that holds a config.json, and .* holds none"),
    ],
)
def test_folders_that_are_no_configuration_are_one_line(tmp_path, content, part):
    usable("transformers")
    usable("timm")
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(SettingError, match=part) as caught:
        resolve(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_words_that_are_no_model_say_what_is_near(tmp_path):
    with pytest.raises(SettingError, match="got resnet-20; did you mean resnet20"):
        resolve("resnet-20")
    with pytest.raises(SettingError, match=r"got ' '$"):
        resolve(" ")
    (tmp_path / "net.py").write_text("")
    with pytest.raises(
        SettingError, match=r"must say which function of .*net\.py makes the network, as in .*net\.py:build"
    ):
        resolve(str(tmp_path / "net.py"))


def test_a_folder_of_timm_is_the_network_that_it_names(tmp_path):
    usable("timm")
    content = {"architecture": "resnet10t", "num_classes": 3, "model_args": {"in_chans": 1}, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    module = resolve(str(tmp_path))
    assert module.eval()(torch.randn(1, 1, 64, 64)).shape == (1, 3)
    named = resolve("timm:hf_hub:timm/resnet10t.c3_in1k", num_classes=3, in_chans=1)
    assert all(torch.equal(one, named.state_dict()[name]) for name, one in module.state_dict().items())


def test_a_hugging_face_configuration(tmp_path):
    usable("transformers")
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 50, **settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    module = resolve(str(tmp_path))
    assert type(module).__name__ == "BertForSequenceClassification"
    assert resolve(str(tmp_path / "config.json"))(torch.randint(0, 50, (2, 6))).logits.shape == (2, 2)
