"""What a check says in sentences: the verdict, why, what to do, what would change it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.report.page import Mood
from isthmus.report.words import Words

WAYS = ("naive", "weights", "activations", "repair")
MOODS: Mapping[str, Mood] = {"as_they_are": "good", "permutation": "good", "repair": "mixed", "apart": "bad"}


# A threshold so many times as high is no way to read the verdict: at 2 % it would let one answer in five go wrong.
_FAR = 10


def verdict_line(values: Mapping[str, Any], words: Words) -> str:
    """The answer in plain words."""
    said = words(f"check.verdict.{values['verdict']}")
    if values["verdict"] != "apart" and not values["compatible"]:
        said = words("check.verdict.unsound")
    if not values["established"]:
        said = f"{said} {words('check.verdict.open')}"
    return said


def reason_lines(values: Mapping[str, Any], words: Words) -> list[str]:
    """Why: the deciding pair by every way, agreement, what is lost, what fails."""
    pair = deciding(values)
    lines = [words("check.reason.pair", pair=pair_name(values, pair), threshold=f"{rule(values):.1%}")]
    for way in WAYS:
        if way in pair["crossings"]:
            crossing = pair["crossings"][way]
            said = {"way": words(f"check.way.{way}"), "barrier": share(crossing["error_barrier"])}
            lines.append(words("check.reason.way", **said, accuracy=f"{crossing['accuracy']:.1%}"))
    agreed = {"share": f"{pair['agreement']:.1%}", "chance": f"{pair['chance_agreement']:.1%}"}
    lines.append(words("check.reason.agreement", pair=pair_name(values, pair), **agreed))
    known = [c for c in pair["retention"]["capabilities"] if c["kept"]["estimate"] is not None]
    if known:
        least = min(known, key=lambda c: c["kept"]["estimate"])
        said = "retention" if least["kept"]["estimate"] > 0 else "lost"  # below chance there is no share to tell
        kept, way = share(least["kept"]), words(f"check.way.{pair['best']}")
        lines.append(words(f"check.reason.{said}", way=way, name=least["name"], kept=kept))
    for item in values["items"]:
        if item["point"] == "chance" and not item["passed"]:
            lines.append(words("check.reason.chance", names=", ".join(item["models"])))
        if item["point"] == "floors" and not item["passed"] and values["thresholds"]["floors"]:
            lines.append(words("check.reason.floors", names=", ".join(item["models"])))
    return lines


def doubt_lines(values: Mapping[str, Any], words: Words) -> list[str]:
    """How far the data that decide can be trusted; nothing for results that were written before this was looked at."""
    found = values.get("doubt")
    if not found:
        return []
    if found["label_share"] is None:
        lines = [words("check.doubt.seen", share=f"{found['disagreement']:.1%}")]
    else:
        said = {"share": f"{found['label_share']:.1%}", "contradicted": f"{found['disagreement']:.1%}"}
        lines = [words("check.doubt.labels", **said)]
        if found["label_share"] > rule(values):
            lines.append(words("check.doubt.hidden", threshold=f"{rule(values):.1%}"))
    if found["suspects"]:
        lines.append(words("check.doubt.suspects", examples=", ".join(str(n) for n in found["suspects"])))
    return lines


def guidance_lines(values: Mapping[str, Any], words: Words) -> list[str]:
    """What to do, for who does not know the field."""
    key = values["verdict"] if values["compatible"] or values["verdict"] == "apart" else "unsound"
    return [words(f"check.guidance.{key}"), words("check.guidance.same")]


def change_lines(values: Mapping[str, Any], words: Words) -> list[str]:
    """What would change the verdict."""
    lines = []
    for change in values["changes"]:
        if change["what"] == "threshold" and change["value"] > _FAR * rule(values):
            continue
        shown = {
            "threshold": lambda v: f"{v:.2%}",
            "stricter": lambda v: f"{v:.2%}",
            "examples": lambda v: f"{v:,.0f}",
            "without": lambda v: names(values)[int(v)],
        }[change["what"]](change["value"])
        short = words(f"check.short.{change['verdict']}")
        lines.append(words(f"check.change.{change['what']}", value=shown, verdict=short))
    return lines


def names(values: Mapping[str, Any]) -> list[str]:
    """What the models are called."""
    return [model["name"] for model in values["models"]]


def pair_name(values: Mapping[str, Any], pair: Mapping[str, Any]) -> str:
    """What a pair is called."""
    called = names(values)
    return f"{called[pair['first']]} – {called[pair['second']]}"


def deciding(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pair that is hardest to connect: of the last verdict, with the highest barrier."""
    order = list(MOODS)

    def hardness(pair: Mapping[str, Any]) -> tuple[int, float]:
        height = pair["crossings"][pair["best"]]["error_barrier"]["estimate"]
        return order.index(pair["verdict"]), float("inf") if height is None else height

    return max(values["pairs"], key=hardness)


def rule(values: Mapping[str, Any]) -> float:
    """The largest error barrier of a connected pair."""
    return values["thresholds"]["barrier"]


def share(interval: Mapping[str, Any]) -> str:
    """An interval of a share, in per cent."""
    if interval["estimate"] is None:
        return "–"
    if interval["low"] is None:
        return f"{interval['estimate']:.1%}"
    return f"{interval['estimate']:.1%} [{interval['low']:.1%}, {interval['high']:.1%}]"
