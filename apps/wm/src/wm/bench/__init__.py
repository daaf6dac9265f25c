"""`wm bench`: the whole protocol over games and seeds."""
