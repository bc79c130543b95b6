"""Japanese: the words of merging."""

TEXTS = {
    "merging.title": "マージで得たもの・失ったもの",
    "merging.text": "値はすべて {examples} 個の例の平均です。アンサンブルは構成数だけ計算が必要です。",
    "merging.merged": "マージ",
    "merging.ensemble": "アンサンブル",
    "merging.smaller": "小さいほど良い。",
    "merging.prediction": "各モデルが失うと予想されるもの",
    "merging.prediction.text": "ラベルを使わない点数です。大きいほど、学んだものが多く失われると予想されます。並び順：{score}。各点数が実際の損失をどれほど正しく順位付けるかは isthmus continual が測ります。",
    "merging.prediction.table": "すべての点数",
    "merging.prediction.model": "モデル",
    "merging.prediction.headline": "学んだものを最も失うと予想されるモデル：{name}（{score}）。",
}
