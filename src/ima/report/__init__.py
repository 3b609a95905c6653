"""Tables, figures and pages as pure functions of results: no model, no GPU and no torch.

`tables` is plain Python; `figures` loads matplotlib, so it is imported where a picture is drawn:
`from ima.report import figures`.
"""

from ima.report.tables import Cell, Measure, Table, to_csv, to_latex, to_markdown, to_text

__all__ = ["Cell", "Measure", "Table", "to_csv", "to_latex", "to_markdown", "to_text"]
