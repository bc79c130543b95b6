"""Guard rails: each trouble is planted and must be found, and what is in order must stay quiet."""

import pytest
import torch
from torch import nn

from isthmus.core.checkpoint import save
from isthmus.core.errors import CheckpointError
from isthmus.merge import examine
from isthmus.merge.finding import Severity


def network(seed: int, *, normalised: bool = False) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(20, 40), nn.BatchNorm1d(40) if normalised else nn.ReLU(), nn.Linear(40, 40)]
        return {name: t.clone() for name, t in nn.Sequential(*layers).state_dict().items()}


def nudged(weights: dict[str, torch.Tensor], size: float, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: t + size * torch.randn(t.shape, generator=generator) if t.is_floating_point() else t
            for n, t in weights.items()}  # fmt: skip


def named(findings) -> dict[str, Severity]:
    return {finding.what: finding.severity for finding in findings.findings}


def test_independent_networks_are_unrelated():
    found = examine([network(0), network(1)])
    assert named(found) == {"unrelated": Severity.WARNING}
    assert all(abs(cosine) < 0.1 for cosine in found.weight_cosines.values())


def test_strangers_that_were_aligned_are_not_told_to_be_aligned():
    found = examine([network(0), network(1)], aligner=lambda moving, fixed: moving)
    assert named(found) == {"unrelated": Severity.WARNING}
    assert "once aligned" in found.findings[0].sentence
    assert "align them first" not in str(found.findings[0])
    assert "align them first" in str(examine([network(0), network(1)]).findings[0])


def test_children_of_one_base_need_no_alignment():
    base = network(0)
    found = examine([nudged(base, 0.005, 1), nudged(base, 0.005, 2)], base)
    assert named(found) == {"one base": Severity.NOTE}
    assert "identity" in found.findings[0].advice
    assert set(found.delta_cosines) == set(found.weight_cosines)


def test_a_permuted_copy_is_recognised_once_aligned():
    fixed = network(0)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    moving = {"0.weight": fixed["0.weight"][order], "0.bias": fixed["0.bias"][order],
              "2.weight": fixed["2.weight"][:, order], "2.bias": fixed["2.bias"]}  # fmt: skip

    def undo(weights, _):
        back = order.argsort()
        return {"0.weight": weights["0.weight"][back], "0.bias": weights["0.bias"][back],
                "2.weight": weights["2.weight"][:, back], "2.bias": weights["2.bias"]}  # fmt: skip

    assert "unrelated" in examine([fixed, moving])
    found = examine([fixed, moving], aligner=undo)
    assert named(found) == {"permuted": Severity.WARNING}
    assert min(found.aligned_cosines.values()) > 0.999


def test_opposite_changes_are_named():
    base = network(0)
    one = nudged(base, 0.005, 1)
    other = {name: 2 * base[name] - tensor for name, tensor in one.items()}
    assert "opposed" in examine([one, other], base)
    assert "opposed" not in examine([one, nudged(base, 0.005, 2)], base)


def test_batch_statistics_are_named_with_what_to_do():
    base = network(0, normalised=True)
    found = examine([base, base])
    assert "batch statistics" in found
    assert any("estimate them anew" in finding.advice for finding in found.findings)


def test_nan_anywhere_in_memory_is_an_error():
    bad = network(0)
    bad["2.bias"][7] = torch.nan
    found = examine([network(0), bad])
    assert found.worst is Severity.ERROR
    assert "solution 1 holds NaN or infinities in 2.bias" in str(found.findings[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_files_and_memory_are_seen_alike(tmp_path, dtype):
    solutions = [{n: t.to(dtype) for n, t in network(seed).items()} for seed in (0, 1)]
    paths = [save(weights, tmp_path / f"{place}.safetensors") for place, weights in enumerate(solutions)]
    on_disk, in_memory = examine(paths), examine(solutions)
    assert on_disk.weight_cosines == pytest.approx(in_memory.weight_cosines, abs=1e-12)
    assert named(on_disk) == named(in_memory)


def test_other_vocabulary_tied_weights_and_tokenizers(tmp_path):
    table = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    one = {"embed_tokens.weight": table, "lm_head.weight": table.clone(), "layers.0.w.weight": torch.eye(8)}
    other = {**one, "embed_tokens.weight": torch.randn(32, 8), "lm_head.weight": torch.randn(32, 8)}
    assert named(examine([one, one]))["tied weights"] is Severity.NOTE
    found = examine([one, other])
    assert named(found)["other vocabulary"] is Severity.ERROR
    assert "(30, 8) and (32, 8)" in str(found.findings[0])
    untied = {name: tensor for name, tensor in one.items() if name != "lm_head.weight"}
    assert named(examine([one, untied]))["half tied"] is Severity.ERROR
    for name, text in (("a", "{}"), ("b", '{"other": 1}')):
        (tmp_path / name).mkdir()
        save(one, tmp_path / name / "model.safetensors")
        (tmp_path / name / "tokenizer.json").write_text(text)
    assert "other tokenizers" in examine([tmp_path / "a", tmp_path / "b"])
    assert "other tokenizers" not in examine([tmp_path / "a", tmp_path / "a"])


def test_one_solution_is_refused():
    with pytest.raises(CheckpointError, match="at least two"):
        examine([network(0)])


def test_findings_become_json():
    record = examine([network(0), network(1)]).to_dict()
    assert record["kind"] == "Findings"
    assert record["findings"][0]["severity"] == "warning"
