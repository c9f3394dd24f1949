"""Files of other tools: NIR graphs and lava-dl's netx networks, read, written and run."""
