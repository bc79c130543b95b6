"""The files of a model folder that are not weights: carried over to the merged model, with the precision made true."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from isthmus.core.errors import CheckpointError
from isthmus.merge.floats import Precision

# Whatever a loader of Hugging Face folders reads beside the weights. Other files (logs, optimiser states) stay behind.
_CARRIED = (
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "spiece.model"),
    *("*.tiktoken", "chat_template*", "*.jinja", "*.py", "modules.json", "sentence_*_config.json", "LICENSE*"),
)
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "spiece.model")


def carry(source: Path, target: Path, *, precision: Precision | None) -> list[str]:
    """Copy what belongs to the model; returns the names.

    Args:
        source: a model folder.
        target: where the merged model is made.
        precision: the merged weights' precision, if it is one for all; ``config.json`` is made to say so.
    """
    names = []
    for file in sorted(source.iterdir()):
        if not file.is_file() or not any(fnmatch.fnmatch(file.name, pattern) for pattern in _CARRIED):
            continue
        if file.name == "config.json" and precision is not None:
            _write_config(file, target / file.name, precision)
        else:
            shutil.copyfile(file, target / file.name)
        names.append(file.name)
    return names


def tokenizer_of(folder: Path | None) -> str | None:
    """A digest of the files that map text to token numbers; None where there are none."""
    present = [folder / name for name in _TOKENIZER if (folder / name).is_file()] if folder is not None else []
    if not present:
        return None
    digest = hashlib.sha256()
    for file in present:
        digest.update(file.name.encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def tokenizers_differ(folders: Sequence[Path | None]) -> bool:
    """Whether two of the folders that have a tokenizer have different ones."""
    return len({digest for folder in folders if (digest := tokenizer_of(folder)) is not None}) > 1


def _write_config(source: Path, target: Path, precision: Precision) -> None:
    """The configuration with the weights' precision under the key that it already uses."""
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        held = [key for key in ("torch_dtype", "dtype") if key in content]
    except (ValueError, TypeError) as problem:
        raise CheckpointError(f"{source} must be JSON to be carried over, but: {problem}") from problem
    for key in held:
        content[key] = precision.name
    target.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
