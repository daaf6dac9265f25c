"""The wm app."""
