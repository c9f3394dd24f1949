"""Speed, as ratios: every script measures us against a peer or a floor on the same work, interleaved, in one run."""
