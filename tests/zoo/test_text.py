"""Text as data: every character predicted once, the end held out; a language model that learns from it."""

import math

import pytest
import torch

from isthmus.core.errors import DataError
from isthmus.train import Recipe, train
from isthmus.zoo import build, characters, load_data

TEXT = "the quick brown fox jumps over the lazy dog. " * 40


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_targets_are_what_follows(file):
    data = characters(file, length=8)
    alphabet = sorted(set(TEXT))
    assert data.classes == len(alphabet)
    spelled = ["".join(alphabet[token] for token in row) for row in data.train_inputs.tolist()]
    assert "".join(spelled) == TEXT[: 8 * len(spelled)]
    following = ["".join(alphabet[token] for token in row) for row in data.train_targets.tolist()]
    assert "".join(following) == TEXT[1 : 8 * len(spelled) + 1]


def test_the_end_is_held_out(file):
    data = characters(file, length=8, held_out=0.25)
    edge = len(TEXT) - round(0.25 * len(TEXT))
    alphabet = sorted(set(TEXT))
    first = "".join(alphabet[token] for token in data.test_inputs[0].tolist())
    assert first == TEXT[edge : edge + 8]
    assert len(data.train_targets) == (edge - 1) // 8


def test_a_stride_overlaps_training_examples_only(file):
    wide, narrow = characters(file, length=8), characters(file, length=8, stride=4)
    assert len(narrow.train_targets) in (2 * len(wide.train_targets) - 1, 2 * len(wide.train_targets))
    assert torch.equal(narrow.train_inputs[1], torch.cat([wide.train_inputs[0, 4:], wide.train_inputs[1, :4]]))
    assert torch.equal(narrow.test_inputs, wide.test_inputs)


def test_a_name_that_ends_in_txt_is_text(file):
    assert load_data(str(file)).fingerprint == characters(file).fingerprint


def test_mistakes_are_one_line(tmp_path, file):
    short, bytes_ = tmp_path / "short.txt", tmp_path / "bytes.txt"
    short.write_text("abc")
    bytes_.write_bytes(b"\xff\xfe\x00")
    for call, part in (
        (lambda: characters(tmp_path / "absent.txt"), "there is none"),
        (lambda: characters(short), "at least 130 characters"),
        (lambda: characters(bytes_), "UTF-8"),
        (lambda: characters(file, length=0), "at least 1 character"),
        (lambda: characters(file, held_out=1.0), "between 0 and 1"),
    ):
        with pytest.raises(DataError, match=part) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_language_model_learns_it(file):
    data = characters(file, length=16)
    recipe = Recipe(
        network="gpt-16x1",
        settings={"inputs": data.shape, "classes": data.classes, "heads": 2},
        data=data.name,
        optimiser="adam",
        rate=1e-2,
        batch_size=16,
        epochs=8,
    )
    replica = train(recipe, data=data, module=build, device="cpu")[0]
    assert replica.test is not None
    assert replica.test.examples == data.test_targets.numel()  # a mean over characters
    assert replica.test.loss < 0.5 * math.log(data.classes)


def test_whole_numbers_become_tokens_only_for_a_network_that_looks_them_up(tmp_path):
    import numpy as np

    from isthmus.core.network import Network
    from isthmus.zoo.text import suited

    tokens = np.random.default_rng(0).integers(0, 9, (20, 4))
    np.savez(tmp_path / "tokens.npz", x=tokens, y=tokens[:, 0] % 2)
    data = load_data(str(tmp_path / "tokens.npz"))
    reader = torch.nn.Sequential(torch.nn.Embedding(9, 3), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    found = suited(data, Network.of(reader))
    assert found.train_inputs.dtype == found.test_inputs.dtype == torch.int64
    assert torch.equal(found.train_inputs, data.train_inputs.long())
    assert found.fingerprint == data.fingerprint == found.to("cpu").fingerprint
    assert suited(data, Network.of(torch.nn.Linear(4, 2))) is data  # these may be pixels


def test_labels_for_each_token_of_a_file(tmp_path):
    import numpy as np

    tokens = np.random.default_rng(0).integers(0, 9, (20, 5))
    np.savez(tmp_path / "next.npz", x=tokens[:, :-1], y=tokens[:, 1:])
    data = load_data(str(tmp_path / "next.npz"))
    assert data.train_targets.shape == (16, 4)
    assert data.classes == int(tokens[:, 1:].max()) + 1


def test_training_says_how_a_file_s_numbers_become_tokens(tmp_path):
    import numpy as np

    from isthmus.core.errors import SettingError
    from isthmus.core.network import Network
    from isthmus.zoo import build, suited

    tokens = np.random.default_rng(0).integers(0, 9, (30, 5))
    np.savez(tmp_path / "next.npz", x=tokens[:, :-1], y=tokens[:, 1:])
    data = load_data(str(tmp_path / "next.npz"))
    recipe = Recipe(network="gpt-8x1", settings={"inputs": [4], "classes": 9}, epochs=1)
    with pytest.raises(SettingError, match=r"does not take inputs of shape \(4,\).*isthmus.zoo.suited"):
        train(recipe, data=data, module=build)
    known = suited(data, Network.of(build(recipe)))
    assert train(recipe, data=known, module=build)[0].test.examples == known.test_targets.numel()


def test_a_label_of_minus_hundred_counts_in_nothing(tmp_path):
    """What data collators write over padding: refused, although a how-to promised it."""
    import numpy as np

    from isthmus.core.errors import DataError
    from isthmus.core.network import Network
    from isthmus.core.objective import Objective
    from isthmus.zoo import build
    from isthmus.zoo.examples import load_examples

    tokens = np.random.default_rng(0).integers(0, 9, (30, 6))
    labels = tokens % 4
    labels[:, 4:] = -100
    np.savez(tmp_path / "tags.npz", x=tokens, y=labels)
    data = load_data(str(tmp_path / "tags.npz"))
    assert data.classes == 4
    assert load_examples(str(tmp_path / "tags.npz")).targets.shape == (30, 6)
    reader = torch.nn.Sequential(torch.nn.Embedding(9, 5), torch.nn.Linear(5, 4)).double()
    score = Objective(Network.of(reader), data.test_inputs.long(), data.test_targets)(reader.state_dict())
    scores = reader(data.test_inputs.long())[:, :4].flatten(0, 1)  # by hand: the four that count
    wanted = torch.nn.functional.cross_entropy(scores, data.test_targets[:, :4].flatten())
    assert score.loss == pytest.approx(wanted.item(), rel=1e-12)
    recipe = Recipe(network="gpt-8x1", settings={"inputs": [6], "classes": 9}, epochs=1)
    with pytest.raises(DataError, match="labels that all count, got -100"):
        train(recipe, data=data, module=build)
    np.savez(tmp_path / "none.npz", x=tokens, y=np.full_like(tokens, -100))
    with pytest.raises(DataError, match="but all are -100"):
        load_data(str(tmp_path / "none.npz"))
