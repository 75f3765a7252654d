"""Networks, recipes, data sets and shards: what a run trains, and on what.

`recipe`, `shards`, `text`, `images` and `evaluation` import no torch; `task` and the networks do.
"""
