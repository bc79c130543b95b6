"""What a notebook shows of a result: its section as a piece of HTML with still pictures, which needs no script."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from isthmus.core.record import Record
from isthmus.core.symmetry import Symmetry
from isthmus.report.page import Section
from isthmus.report.plain import plain_section
from isthmus.report.redundancy import summary
from isthmus.report.section import SECTIONS, section

_TEMPLATE = """<div class="isthmus">
<p><strong>{{ part.title }}</strong></p>
{% for line in part.text %}<p>{{ line }}</p>{% endfor %}
<div style="display:flex;flex-wrap:wrap;gap:1rem">
{% for title, picture in pictures %}<figure style="margin:0">
<figcaption>{{ title }}</figcaption>{{ picture | safe }}</figure>
{% endfor %}</div>
{% for table in part.tables %}<table><caption style="text-align:left">{{ table.title }}</caption>
{% if table.columns | select | list %}<thead><tr>
{% for name in table.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
{% endif %}<tbody>{% for row in table.rows %}<tr>{% for value in row %}<td>{{ cell(value) }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{% endfor %}</div>"""


def html(result: Record | Symmetry) -> str:
    """A result, or a symmetry, as HTML; what :class:`isthmus.core.record.Record` finds under ``isthmus.renderers``.

    Names of checkpoints and tensors come from outside and are escaped.
    """
    import vl_convert

    part = section_of(result)
    pictures = [(figure.title, vl_convert.vegalite_to_svg(json.dumps(figure.spec))) for figure in part.figures]
    return _template().render(part=part, pictures=pictures, cell=_cell)


def section_of(result: Record | Symmetry | Mapping[str, Any], *, language: str = "en") -> Section:
    """The section of a result's kind, or, where there is none, one that is read off its fields."""
    values = (
        summary(result) if isinstance(result, Symmetry) else result.to_dict() if isinstance(result, Record) else result
    )
    if values.get("kind") in SECTIONS:
        return section(values, language=language)
    return plain_section(values)


@functools.cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_TEMPLATE)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
