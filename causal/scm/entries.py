"""The experiment of this folder, as the plugin names it."""

from __future__ import annotations

from engram.backbone.contract import Entry

SCM = Entry(
    target="engram.causal.scm.experiment:Scm",
    options="engram.causal.scm.configs:ScmConfig",
    summary="Hold a network's answers against P(y | do(x)) of pictures whose causes are known",
)
