"""One self-contained HTML file about a sweep or a trial: inline SVG, nothing fetched, one script that sorts tables."""

from engram.benchmarks.report.write import write_report as write_report
