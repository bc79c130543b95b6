"""Japanese: the words of every page."""

TEXTS = {
    "page.guidance": "次にすること",
    "page.contents": "目次",
    "page.reproduce": "再現方法",
    "page.command": "このページは次のコマンドで作成しました。",
    "page.settings": "設定・バージョン・実行環境",
    "page.definitions": "用語の定義",
    "page.collected": "{n} 件の結果を、測定したとおりに示します。",
    "page.footer": "isthmus が作成しました。このファイルだけで完結しており、通信は一切行いません。",
    "table.convention": "定義",
    "table.value": "値",
    "table.interval": "ペア平均［ネットワーク単位の信頼区間］",
    "page.scale": "ありうる判定（良い順）",
    "page.enlarge": "拡大",
    "page.hint": "図に触れると値が表示されます。ドラッグで移動、Shift を押しながらホイールで拡大・縮小、ダブルクリックで元に戻ります。",
    "page.save.svg": "SVG で保存",
    "page.save.csv": "データを CSV で保存",
}
