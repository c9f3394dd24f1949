"""One self-contained HTML file about a sweep or a trial: inline SVG, no script, nothing fetched."""

from engram.benchmarks.report.write import write_report as write_report
