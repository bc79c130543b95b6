"""English: the words of merging."""

TEXTS = {
    "merging.title": "What the merge gained or lost",
    "merging.text": "Every value is a mean over {examples} examples. The ensemble costs as many evaluations as it has members.",
    "merging.merged": "merged",
    "merging.ensemble": "ensemble",
    "merging.smaller": "Smaller is better.",
    "merging.prediction": "What each model is expected to lose",
    "merging.prediction.text": "Scores made without any label; larger means that more of what a model learned is expected to be lost. Ordered by: {score}. How well each score ranks real losses is measured by isthmus continual.",
    "merging.prediction.table": "All scores",
    "merging.prediction.model": "Model",
    "merging.prediction.headline": "Expected to lose most of what it learned: {name}, by the {score}.",
}
