"""Measurements of a run: scores, predictions, what tokens keep of the state, how long a dream stays true."""
