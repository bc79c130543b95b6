"""Folders of several processes, as FSDP and DeepSpeed leave them: joined, or told how they are to be joined."""

from __future__ import annotations

import pathlib
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.core.checkpoint_files import NAMES, WEIGHTS, part, readers, refused, same

from isthmus.core.checkpoint import load
from isthmus.core.fitting import fit
from isthmus.core.lazy import Fitted, LazyCheckpoint, lazily

# --- torch.distributed.checkpoint, as FSDP writes it


def distributed(folder: Path, content: dict) -> Path:
    checkpoint = pytest.importorskip("torch.distributed.checkpoint")
    checkpoint.save(content, checkpoint_id=str(folder), no_dist=True)
    return folder


def rewritten(folder: Path, change: Callable) -> Path:
    """The folder with other metadata."""
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    return folder


def in_pieces(metadata) -> None:
    """Two saved halves become one tensor ``2.weight``, as two processes would have written it."""
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorStorageMetadata

    halves = [metadata.state_dict_metadata.pop(name) for name in ("top", "bottom")]
    chunks = [ChunkStorageMetadata(torch.Size(o), torch.Size(s)) for o, s in (((0, 0), (1, 6)), ((1, 0), (2, 6)))]
    whole = TensorStorageMetadata(halves[0].properties, torch.Size((3, 6)), chunks)
    metadata.state_dict_metadata["2.weight"] = whole
    for name, chunk in zip(("top", "bottom"), chunks, strict=True):
        place = metadata.storage_data.pop(MetadataIndex(name, (0, 0)))
        metadata.storage_data[MetadataIndex("2.weight", chunk.offsets)] = place
    metadata.planner_data = None


@pytest.mark.filterwarnings("ignore")
class TestDistributed:
    def test_of_a_state_dict(self, tmp_path):
        folder = distributed(tmp_path / "a", dict(WEIGHTS))
        for path in (folder, folder / ".metadata", next(folder.glob("*.distcp"))):
            assert same(load(path))
        assert same(dict(lazily(folder)))

    def test_of_a_training(self, tmp_path):
        state = {"state": {name: {"exp_avg": tensor} for name, tensor in WEIGHTS.items()}}
        content = {"app": {"model": dict(WEIGHTS), "optim": state}, "step": 3}
        assert same(load(distributed(tmp_path / "a", content)))

    def test_one_folder_down_where_accelerate_puts_it(self, tmp_path):
        distributed(tmp_path / "pytorch_model_fsdp_0", {"model": dict(WEIGHTS)})
        distributed(tmp_path / "optimizer_0", {"optimizer": {"a": torch.ones(2)}})
        assert same(load(tmp_path))

    def test_in_pieces(self, tmp_path):
        halves = {"top": WEIGHTS["2.weight"][:1].clone(), "bottom": WEIGHTS["2.weight"][1:].clone()}
        folder = rewritten(distributed(tmp_path / "a", part(0, 1, 3) | halves), in_pieces)
        assert same(dict(sorted(load(folder).items(), key=lambda item: NAMES.index(item[0]))))

        def forget(metadata) -> None:
            metadata.state_dict_metadata["2.weight"].chunks.pop()

        refused(lambda: load(rewritten(folder, forget)), r"all pieces of 2\.weight, and does not")

    def test_metadata_that_ask_for_more_run_nothing(self, tmp_path):
        class Runs:
            def __reduce__(self):
                return pathlib.Path.mkdir, (tmp_path / "trap",)

        folder = distributed(tmp_path / "a", dict(WEIGHTS))
        (folder / ".metadata").write_bytes(pickle.dumps(Runs()))
        refused(lambda: load(folder), r"only records, but asks for .*mkdir.*, and nothing of it was run; convert it")
        assert not (tmp_path / "trap").exists()

    def test_pieces_elsewhere_missing_or_cut_short(self, tmp_path):
        folder = distributed(tmp_path / "a", dict(WEIGHTS))
        file = next(folder.glob("*.distcp"))
        content = file.read_bytes()
        file.write_bytes(content[:200])
        refused(lambda: load(folder), "must be a whole folder of torch.distributed.checkpoint")
        file.unlink()
        refused(lambda: load(folder), r"needs __0_0\.distcp, which one of the processes wrote and is missing")

        def outside(metadata) -> None:
            for place in metadata.storage_data.values():
                place.relative_path = f"../{place.relative_path}"

        (tmp_path / "__0_0.distcp").write_bytes(content)
        refused(lambda: load(rewritten(folder, outside)), "pieces in its own folder")

        def huge(metadata) -> None:
            for one in metadata.state_dict_metadata.values():
                one.size = one.chunks[0].sizes = torch.Size((1 << 40,))

        refused(lambda: load(rewritten(folder, huge)), "its pieces are shorter than that")
        (folder / ".metadata").write_bytes(b"\x80\x04]")
        refused(lambda: load(folder), r"\.metadata must be whole")


# --- DeepSpeed


def test_the_parts_of_zero_3_are_told_how_to_be_joined(tmp_path):
    step = tmp_path / "global_step10"
    step.mkdir()
    (tmp_path / "latest").write_text("global_step10")
    for rank in range(2):
        torch.save({"module": {}}, step / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        torch.save({"optimizer_state_dict": {}}, step / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    for place in (tmp_path, step):
        for read in readers(place):
            refused(read, rf"run `python zero_to_fp32\.py \. whole` in {tmp_path} once")


def test_the_weights_of_zero_2_are_found_below_the_folder(tmp_path):
    step = tmp_path / "global_step10"
    step.mkdir()
    (tmp_path / "latest").write_text("global_step10\n")
    torch.save({"module": WEIGHTS, "optimizer": None, "lr_scheduler": {}}, step / "mp_rank_00_model_states.pt")
    torch.save({"optimizer_state_dict": {}}, step / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    assert same(load(tmp_path))
    assert same(load(step))
    (tmp_path / "latest").write_text("../elsewhere")
    refused(lambda: load(tmp_path), "found none, but further down in global_step10; name that folder")


def test_empty_tensors_of_zero_3_are_told_from_other_misfits(tmp_path):
    hollow = {name: torch.empty(0) for name in WEIGHTS}
    save_file(hollow, tmp_path / "model.safetensors")
    advice = r"\(0,\) in the file; DeepSpeed saves empty tensors .*zero_to_fp32\.py"
    refused(lambda: fit(load(tmp_path), WEIGHTS), advice)
    shapes = {name: tuple(tensor.shape) for name, tensor in WEIGHTS.items()}
    refused(lambda: Fitted(LazyCheckpoint(tmp_path), shapes), advice)
