"""Japanese: the words of merging."""

TEXTS = {
    "merging.title": "併合で得たもの・失ったもの",
    "merging.text": "値はすべて {examples} 個の例の平均です。アンサンブルは構成数だけ計算が必要です。",
    "merging.merged": "併合",
    "merging.ensemble": "アンサンブル",
    "merging.smaller": "小さいほど良い。",
}
