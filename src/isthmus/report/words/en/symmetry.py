"""English: the words of symmetries."""

TEXTS = {
    "symmetry.title": "Units that may be exchanged",
    "symmetry.text": "{groups} groups of exchangeable units; {copies} networks compute the same function.",
    "symmetry.proof": "Proved numerically: {draws} random draws in {dtype}, largest relative change of the output {error}.",
    "symmetry.groups": "Groups",
    "symmetry.group": "Group",
    "symmetry.units": "Units",
    "symmetry.inside": "Nested in",
    "symmetry.tensors": "Tensors",
    "symmetry.obstacles": "What was pinned, and why",
    "symmetry.obstacle.operation": "Operation",
    "symmetry.obstacle.reason": "Reason",
    "symmetry.obstacle.tensors": "Tensors",
    "symmetry.obstacle.where": "Where",
    "symmetry.map": "Which layers share which group",
    "symmetry.map.caption": "Each column is a group, each row a layer in the network's order. A thread joins the layers "
    "that must be permuted together. Groups inside units (channels of a head) share a column with their peers.",
    "symmetry.map.description": "{groups} groups over {layers} layers; the widest group reaches {most} layers.",
    "symmetry.map.layer": "Layer",
    "symmetry.map.copies": "Groups in this column",
    "symmetry.map.part": "In this layer",
    "symmetry.map.writes": "along the first axis: makes or scales the units",
    "symmetry.map.reads": "along a later axis: reads or embeds them",
    "symmetry.map.both": "along both",
    "symmetry.map.carries": "statistics that move along",
}
