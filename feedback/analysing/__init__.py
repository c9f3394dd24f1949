"""Looking inside a network with feedback, through taps alone: the experiment ``feedback.analyse``.

`looking` is the way in; `ablation`, `alignment`, `convergence` and `decoding` are a question each; `maps` are pictures.
"""
