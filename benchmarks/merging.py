"""Merging checkpoints of half a billion parameters: time and memory beside mergekit, and the floor of copying.

    python benchmarks/merging.py --mergekit /path/to/venv/bin/mergekit-yaml
    python benchmarks/merging.py --parameters 50e6 --methods linear ties      # smaller, ours alone

Three Llama-shaped bfloat16 checkpoints are made in a temporary folder (two solutions and their base), 1.0 GB each.
Every run is a process of its own, on two processors, with a warm page cache; its memory is sampled from /proc:
``anonymous`` is what the program holds, ``mapped`` are pages of the input files, which the system may drop at any time.

Results are compared entry by entry; a difference counts in units of the last place of the largest number involved: the
results, the inputs and the differences from the base. Two conventions differ and are counted apart: which of the
entries that tie with the trimming threshold are kept (mergekit's sort is not stable, so its choice is arbitrary; ours
are the first ones), and which sign two opposite changes elect that mergekit has rounded to the same magnitude.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from isthmus.merge.floats import BF16, narrow, tobits, widen
from isthmus.merge.shards import Shards
from isthmus.merge.sink import Sink

TARGETS = {"linear": 4, "slerp": 5, "dare_ties": 5, "ties": 10}


def shapes(parameters: float) -> dict[str, tuple[int, ...]]:
    """A Llama of about this many parameters."""
    hidden, inner, tokens = 1280, 3456, 32000
    layer = 4 * hidden * hidden + 3 * hidden * inner + 2 * hidden
    layers = max(1, round((parameters - 2 * tokens * hidden) / layer))
    result = {"model.embed_tokens.weight": (tokens, hidden)}
    for i in range(layers):
        for part in ("q", "k", "v", "o"):
            result[f"model.layers.{i}.self_attn.{part}_proj.weight"] = (hidden, hidden)
        result[f"model.layers.{i}.mlp.gate_proj.weight"] = (inner, hidden)
        result[f"model.layers.{i}.mlp.up_proj.weight"] = (inner, hidden)
        result[f"model.layers.{i}.mlp.down_proj.weight"] = (hidden, inner)
        result[f"model.layers.{i}.input_layernorm.weight"] = (hidden,)
        result[f"model.layers.{i}.post_attention_layernorm.weight"] = (hidden,)
    return result | {"model.norm.weight": (hidden,), "lm_head.weight": (tokens, hidden)}


def make(folder: Path, parameters: float) -> None:
    """A base and two models that differ from it by noise of a tenth of its size."""
    named = shapes(parameters)
    tensors = {name: ("BF16", shape) for name, shape in named.items()}
    config = {
        **{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"},
        **{"hidden_size": 1280, "intermediate_size": 3456, "vocab_size": 32000, "num_attention_heads": 20},
        **{"num_key_value_heads": 20, "num_hidden_layers": sum("input_layernorm" in name for name in named)},
        **{"rms_norm_eps": 1e-5, "tie_word_embeddings": False, "max_position_embeddings": 2048, "hidden_act": "silu"},
    }
    rng = np.random.Generator(np.random.SFC64(0))
    sinks = [Sink(folder / part, tensors, fingerprint=part, shard_size=10**12, metadata={}) for part in "bxy"]
    with sinks[0], sinks[1], sinks[2]:
        for name, shape in named.items():
            size = int(np.prod(shape))
            for first in range(0, size, 1 << 20):
                length = min(1 << 20, size - first)
                base = rng.standard_normal(length, dtype=np.float32) * np.float32(0.02)
                for sink in sinks:
                    noise = rng.standard_normal(length, dtype=np.float32) * np.float32(0.002)
                    values = base + noise if sink is not sinks[0] else base
                    bits = narrow(values, BF16, np.empty(length, np.uint16), np.empty(length, np.uint32))
                    sink.write(name, 2 * first, bits)
        for sink in sinks:
            (sink.work / "config.json").write_text(json.dumps(config))
            sink.commit()


def recipe(folder: Path, method: str, dtype: str) -> Path:
    """A configuration that both programs read."""
    x, y, base = (str(folder / part) for part in "xyb")
    weight = {"weight": 0.5}
    if method == "linear":
        content = {"merge_method": "linear", "models": [{"model": m, "parameters": weight} for m in (x, y)]}
    elif method == "slerp":
        content = {"merge_method": "slerp", "base_model": x, "models": [{"model": y}], "parameters": {"t": 0.5}}
    else:
        each = {**weight, "density": 0.5}
        content = {
            **{"merge_method": method, "base_model": base},
            **{"models": [{"model": m, "parameters": each} for m in (x, y)], "parameters": {"normalize": True}},
        }
    file = folder / f"{method}-{dtype}.yml"
    file.write_text(json.dumps({**content, "dtype": dtype, "out_dtype": "bfloat16"}))  # JSON is YAML
    return file


def watched(command: list[str]) -> tuple[float, float, float, float]:
    """Seconds, the largest anonymous and mapped memory in MB, and processor seconds of a process.

    Processor seconds are there because wall clocks on a shared machine are not comparable.
    """
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        anonymous = mapped = 0.0
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            found = {key: int(value) for key, value in re.findall(r"(Rss\w+):\s+(\d+) kB", status)}
            anonymous = max(anonymous, (found.get("RssAnon", 0) + found.get("RssShmem", 0)) / 1000)
            mapped = max(mapped, found.get("RssFile", 0) / 1000)
            time.sleep(0.02)
        assert process.stderr is not None
        errors = process.stderr.read().decode()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, anonymous, mapped, used


def floor(folder: Path) -> float:
    """Seconds to read both inputs and write one of them, forced to the disk: nothing that merges can be faster."""
    begun = time.perf_counter()
    with (folder / "copy").open("wb") as target:
        for part in "xy":
            with (folder / part / "model.safetensors").open("rb") as source:
                while block := source.read(1 << 22):
                    if part == "x":
                        target.write(block)
        target.flush()
        os.fsync(target.fileno())
    seconds = time.perf_counter() - begun
    (folder / "copy").unlink()
    return seconds


def compare(ours: Path, theirs: Path, inputs: list[Path], density: float | None) -> dict[str, float]:
    """Shares of entries that are equal, that differ by more than one rounding, and that no convention explains.

    Args:
        ours: one result.
        theirs: the other.
        inputs: the two solutions, and the base where there is one.
        density: of trimming; None where nothing is trimmed.
    """
    first, second, *sources = (Shards.open(path) for path in (ours, theirs, *inputs))
    total = equal = beyond = unexplained = 0

    def numbers(shards: Shards, name: str) -> np.ndarray:
        bits = tobits(shards.raw(name), BF16)
        return widen(bits, BF16, np.empty(len(bits), np.float32))

    def rounded(values: np.ndarray) -> np.ndarray:
        bits = narrow(values, BF16, np.empty(len(values), np.uint16), np.empty(len(values), np.uint32))
        return widen(bits, BF16, np.empty(len(values), np.float32))

    for name in first.entries:
        a, b = numbers(first, name), numbers(second, name)
        involved = [numbers(shards, name) for shards in sources]
        deltas = [rounded(solution - involved[2]) for solution in involved[:2]] if len(involved) == 3 else []
        size = np.maximum.reduce([np.abs(values) for values in (a, b, *involved, *deltas)])
        unit = np.ldexp(np.float32(1), np.frexp(size)[1] - 8)  # one unit in the last of 8 significant bits
        off = np.abs(a - b) > unit
        convention = np.zeros(len(a), bool)
        if density is not None:
            convention |= deltas[0] == -deltas[1]
            for delta in deltas:
                kept = max(1, int(density * len(delta)))
                threshold = np.partition(np.abs(delta), len(delta) - kept)[len(delta) - kept]
                convention |= np.abs(delta) == threshold
        total += len(a)
        equal += int((a == b).sum())
        beyond += int(off.sum())
        unexplained += int((off & ~convention).sum())
    return {"equal": equal / total, "beyond one rounding": beyond / total, "of these unexplained": unexplained / total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", help="path of mergekit-yaml, installed in an environment of its own")
    parser.add_argument("--parameters", type=float, default=0.5e9)
    parser.add_argument("--methods", nargs="+", default=list(TARGETS))
    parser.add_argument("--repeats", type=int, default=1, help="of ours; mergekit runs once")
    parser.add_argument("--dtype", default="bfloat16", help="working precision given to both programs")
    parser.add_argument("--folder", type=Path, help="keep the checkpoints here and use them again")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="merging-"))
    try:
        figures = measure(options, folder)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2) + "\n")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    if not (folder / "y").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, options.parameters)
    size = (folder / "x" / "model.safetensors").stat().st_size
    isthmus = [str(Path(sys.executable).parent / "isthmus")]
    versions = {"isthmus": importlib.metadata.version("isthmus"), "numpy": np.__version__}
    versions["python"] = ".".join(map(str, sys.version_info[:3]))
    if options.mergekit:
        python = Path(options.mergekit).parent / "python"
        line = "import importlib.metadata as m; print(m.version('mergekit'), m.version('torch'))"
        versions["mergekit"], versions["its torch"] = subprocess.check_output(
            [str(python), "-c", line], text=True
        ).split()
    print(f"checkpoints of {size / 1e9:.2f} GB; {versions}; {len(os.sched_getaffinity(0))} processors")
    figures: dict[str, object] = {"bytes": size, "versions": versions}
    figures["copy floor, s"] = floor(folder)
    print(f"floor (read both inputs, write one, synced): {figures['copy floor, s']:.1f} s")
    figures["start-up, s"], *_ = watched([*isthmus, "merge", "--help"])
    if options.mergekit:
        figures["their start-up, s"], *_ = watched([options.mergekit, "--help"])
        print(f"start-up: ours {figures['start-up, s']:.2f} s, theirs {figures['their start-up, s']:.2f} s")
    for method in options.methods:
        figures[method] = one_method(options, folder, isthmus, method)
    return figures


def one_method(options: argparse.Namespace, folder: Path, isthmus: list[str], method: str) -> dict[str, object]:
    file = recipe(folder, method, options.dtype)
    ours, theirs = folder / f"ours-{method}", folder / f"theirs-{method}"
    runs = []
    for _ in range(options.repeats):
        shutil.rmtree(ours, ignore_errors=True)
        runs.append(watched([*isthmus, "merge", "--config", str(file), "--output", str(ours), "--threads", "2"]))
    seconds = statistics.median(run[0] for run in runs)
    result: dict[str, object] = {"ours, s": seconds, "ours, anonymous MB": max(run[1] for run in runs)}
    result["ours, mapped MB"] = max(run[2] for run in runs)
    result["ours, processor s"] = statistics.median(run[3] for run in runs)
    line = f"{method:10} ours {seconds:6.1f} s ({result['ours, processor s']:.1f} of a processor), "
    line += f"{result['ours, anonymous MB']:.0f} MB anonymous"
    if options.mergekit:
        shutil.rmtree(theirs, ignore_errors=True)
        command = [options.mergekit, str(file), str(theirs), "--no-copy-tokenizer", "--no-cuda"]
        their_seconds, their_memory, their_mapped, their_used = watched(command)
        result |= {"theirs, s": their_seconds, "theirs, anonymous MB": their_memory, "theirs, mapped MB": their_mapped}
        result |= {"theirs, processor s": their_used, "ratio": their_seconds / seconds}
        line += f"; theirs {their_seconds:6.1f} s ({their_used:.1f}), {their_memory:.0f} MB; "
        line += f"{result['ratio']:.1f} times faster"
        line += f" (target {TARGETS.get(method, '–')})"
        if not method.startswith("dare"):  # random masks differ by design
            inputs = [folder / part for part in "xy"] + ([folder / "b"] if method not in ("linear", "slerp") else [])
            result["agreement"] = compare(ours, theirs, inputs, 0.5 if method == "ties" else None)
            line += f"; {result['agreement']}"
    print(line, flush=True)
    return result


if __name__ == "__main__":
    main()
