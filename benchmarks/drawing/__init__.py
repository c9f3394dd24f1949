"""Tables and figures as text and SVG."""
