"""Mergers written a second time from their papers' equations, in float64 with NumPy, one tensor after the other."""

import numpy as np


def numbers(weights):
    """The floating tensors as float64 arrays."""
    return {name: tensor.double().numpy() for name, tensor in weights.items() if tensor.is_floating_point()}


def statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))


def changes(solutions, base):
    """Task vectors of everything that is no running statistic."""
    origin = numbers(base)
    return [{n: numbers(s)[n] - origin[n] for n in origin if not statistic(n)} for s in solutions]


def with_statistics(merged, solutions):
    """Running statistics are averaged by every merger of task vectors."""
    found = [numbers(solution) for solution in solutions]
    return merged | {n: np.mean([f[n] for f in found], 0) for n in found[0] if statistic(n)}


def projected(solutions, base, share, scale):
    """Tang et al. (2501.09522): λₜ·ΔWₜ = λₜ₋₁·ΔWₜ₋₁ + P(τₜ), λ such that the length is the mean of those so far."""

    def length(vector):
        return np.sqrt(sum((part**2).sum() for part in vector.values()))

    vectors = changes(solutions, base)
    total, factor, lengths = vectors[0], 1.0, [length(vectors[0])]
    for vector in vectors[1:]:
        summed = {}
        for name, part in vector.items():
            before = total[name].reshape(len(part), -1) if part.ndim else total[name].reshape(1, 1)
            left, values, right = np.linalg.svd(before)
            inside = left.T @ part.reshape(before.shape) @ right.T
            held = int((values > 1e-12 * values[0]).sum())
            rank = next(r for r in range(1, len(values) + 1) if values[:r].sum() >= share * values.sum() - 1e-12)
            inside[: min(rank, held), : min(rank, held)] = 0
            for place in range(held):
                inside[place, place] = 0
            summed[name] = factor * total[name] + (left @ inside @ right).reshape(part.shape)
        lengths.append(length(vector))
        factor = length(summed) / np.mean(lengths)
        total = {name: part / factor for name, part in summed.items()}
    origin = numbers(base)
    return with_statistics({n: origin[n] + scale * part for n, part in total.items()}, solutions)


def trimmed(values, density):
    """The share of largest entries, of equal ones the first; the others zero."""
    flat = values.ravel()
    kept = np.argsort(-np.abs(flat), kind="stable")[: max(1, int(density * flat.size))] if flat.size else []
    mask = np.zeros(flat.size)
    mask[kept] = 1
    return (flat * mask).reshape(values.shape)


def elected(vectors, weights):
    """Yadav et al. (2306.01708): the weighted mean of what has the sign of the weighted sum."""
    weighted = [vector * weight for vector, weight in zip(vectors, weights, strict=True)]
    sign = np.where(sum(weighted) >= 0, 1, -1)
    agrees = [vector * sign > 0 for vector in weighted]
    divisor = sum(a * w for a, w in zip(agrees, weights, strict=True))
    return sum(v * a for v, a in zip(weighted, agrees, strict=True)) / np.where(divisor == 0, 1, divisor)


def knotted(solutions, base, *, density, elect, scale, weights, ranks):
    """Stoica et al. (2410.19735) with so many singular directions of each matrix as it has by construction."""

    def mixed(parts):
        parts = [trimmed(part, density) for part in parts] if density < 1 else parts
        return elected(parts, weights) if elect else sum(p * w for p, w in zip(parts, weights, strict=True))

    origin, merged, vectors = numbers(base), {}, changes(solutions, base)
    for name in vectors[0]:
        parts = [vector[name] for vector in vectors]
        if parts[0].ndim < 2:
            merged[name] = origin[name] + scale * mixed(parts)
            continue
        flat = [part.reshape(len(part), -1) for part in parts]
        left, values, right = np.linalg.svd(np.concatenate(flat, 1), full_matrices=False)
        kept = slice(ranks.get(name, len(values)))
        own = np.split(values[kept, None] * right[kept], len(flat), axis=1)
        merged[name] = origin[name] + scale * (left[:, kept] @ mixed(own)).reshape(parts[0].shape)
    return with_statistics(merged, solutions)


def protected(solutions, base, *, share, scale, weights, importances):
    """The entries of largest Fᵢ·τᵢ² of each solution taken whole, all others from the weighted mean change."""
    found = [numbers(solution) for solution in solutions]
    origin = numbers(base) if base is not None else {n: np.mean([f[n] for f in found], 0) for n in found[0]}
    names = [n for n in origin if not statistic(n) and (importances is None or n in importances[0])]
    claims = []
    for place, own in enumerate(found):
        known = {n: 1.0 if importances is None else importances[place][n].double().numpy() for n in names}
        saliency = [(known[n] * (own[n] - origin[n]) ** 2).ravel() for n in names]
        flat = trimmed(np.concatenate(saliency), share) if share else 0 * np.concatenate(saliency)
        cut = np.split(flat, np.cumsum([part.size for part in saliency])[:-1])
        claims.append({n: part.reshape(origin[n].shape) for n, part in zip(names, cut, strict=True)})
    merged = {}
    for name in origin:
        moved = [own[name] - origin[name] for own in found]
        merged[name] = origin[name] + scale * sum(w * m for w, m in zip(weights, moved, strict=True)) / sum(weights)
        if name in names:
            total = sum(claim[name] for claim in claims)
            own = sum(c[name] * m for c, m in zip(claims, moved, strict=True)) / np.where(total > 0, total, 1)
            merged[name] = np.where(total > 0, origin[name] + own, merged[name])
    return with_statistics(merged, solutions)
