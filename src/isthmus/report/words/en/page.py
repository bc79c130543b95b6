"""English: the words of every page."""

TEXTS = {
    "page.guidance": "What to do",
    "page.contents": "Contents",
    "page.reproduce": "How to reproduce this",
    "page.command": "This page was made by:",
    "page.settings": "Settings, versions and machine",
    "page.definitions": "What the terms mean",
    "page.collected": "Results on this page: {n}, drawn as they were measured.",
    "page.footer": "Made by isthmus. This file is complete: it loads nothing and sends nothing.",
    "table.convention": "Convention",
    "table.value": "Value",
    "table.interval": "Mean over pairs [interval over networks]",
    "page.scale": "The possible answers, the best first",
    "page.enlarge": "Enlarge",
    "page.hint": "Point at a figure to read its values. Drag to move it; hold Shift and turn the wheel to zoom; double-click to go back.",
    "page.save.svg": "Save as SVG",
    "page.save.csv": "Save the data as CSV",
}
