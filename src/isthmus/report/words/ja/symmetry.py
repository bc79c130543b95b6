"""Japanese: the words of symmetries."""

TEXTS = {
    "symmetry.title": "入れ替え可能なユニット",
    "symmetry.text": "入れ替え可能なユニットのグループは {groups} 個。同じ関数を計算するネットワークは {copies} 個あります。",
    "symmetry.proof": "数値的に検証済み：{dtype} で {draws} 回の無作為試行、出力の相対変化は最大 {error}。",
    "symmetry.groups": "グループ",
    "symmetry.group": "グループ",
    "symmetry.units": "ユニット数",
    "symmetry.inside": "親グループ",
    "symmetry.tensors": "テンソル",
    "symmetry.obstacles": "固定された箇所とその理由",
    "symmetry.obstacle.operation": "演算",
    "symmetry.obstacle.reason": "理由",
    "symmetry.obstacle.tensors": "テンソル",
    "symmetry.obstacle.where": "場所",
    "symmetry.map": "どの層がどのグループを共有するか",
    "symmetry.map.caption": "列はグループ、行はネットワークの順に並べた層。線は一緒に並べ替える必要のある層を結びます。"
    "ユニットの内側のグループ（ヘッド内のチャネルなど）は同種のものと一つの列にまとめています。",
    "symmetry.map.description": "{layers} 層にわたる {groups} 個のグループ。最も広いグループは {most} 層に及びます。",
    "symmetry.map.layer": "層",
    "symmetry.map.copies": "この列のグループ数",
    "symmetry.map.part": "この層での役割",
    "symmetry.map.writes": "最初の軸：ユニットを作る、または尺度を与える",
    "symmetry.map.reads": "後の軸：ユニットを読む（埋め込みでは作る）",
    "symmetry.map.both": "両方",
    "symmetry.map.carries": "一緒に動く統計量",
}
