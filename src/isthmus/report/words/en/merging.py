"""English: the words of merging."""

TEXTS = {
    "merging.title": "What the merge gained or lost",
    "merging.text": "Every value is a mean over {examples} examples. The ensemble costs as many evaluations as it has members.",
    "merging.merged": "merged",
    "merging.ensemble": "ensemble",
    "merging.smaller": "Smaller is better.",
}
