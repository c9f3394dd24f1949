"""Networks that papers on feedback used."""
