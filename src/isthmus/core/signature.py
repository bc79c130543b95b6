"""What a file is that is not what its name says, from its first bytes."""

from __future__ import annotations

from pathlib import Path

_KINDS = (
    (
        b"version https://git-lfs",
        "it is a pointer of Git LFS and not the file itself; run `git lfs pull` where it lies",
    ),
    (b"GGUF", "it is a GGUF file; convert it to safetensors first"),
    (b"\x89HDF", "it is an HDF5 file; convert it to safetensors first"),
    (b"\x1f\x8b", "it is compressed (gzip); unpack it first"),
    (b"<", "it is a page of text, as a failed download leaves it; fetch it again"),
)


def mistaken(file: Path) -> str | None:
    """Why a file that cannot be read is no checkpoint of its suffix, and what to do; ``None`` if nothing is known."""
    try:
        with file.open("rb") as opened:
            start = opened.read(64)
    except OSError:
        return None
    for first, said in _KINDS:
        if start.lstrip().startswith(first):
            return said
    if file.suffix != ".safetensors":
        tensors = len(start) > 9 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < file.stat().st_size
        return "it is a safetensors file; give it that suffix" if tensors else None
    return "it is a torch file; name it .pt" if start.startswith((b"PK\x03\x04", b"\x80\x02")) else None
