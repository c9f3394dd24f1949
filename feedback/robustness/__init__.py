"""Whether feedback pays: a network, itself at one step, and feed-forward controls, on the same spoiled pictures."""
