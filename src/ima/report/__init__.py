"""Tables, figures and pages as pure functions of results: no model, no GPU and no torch.

`tables` is plain Python; `figures` loads matplotlib, so it is imported where a picture is drawn:
`from ima.report import figures`.
"""

from ima.report.cells import Average, Cell, Table
from ima.report.summary import tables_of
from ima.report.tables import to_csv, to_latex, to_markdown, to_text
from ima.report.words import distances_told, epoch_told, told_cases, white_told

__all__ = [
    "Average",
    "Cell",
    "Table",
    "distances_told",
    "epoch_told",
    "tables_of",
    "to_csv",
    "to_latex",
    "to_markdown",
    "to_text",
    "told_cases",
    "white_told",
]
