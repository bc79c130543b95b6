"""Results as one offline HTML page: sections, figures and the words around them."""

from isthmus.report.page import Figure, Page, Section, Table, render, write_page
from isthmus.report.section import section

__all__ = ["Figure", "Page", "Section", "Table", "render", "section", "write_page"]
