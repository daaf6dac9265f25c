"""``python -m wm``, as torchrun starts it."""

from wm.cli import main

main()
