"""The ``wm`` script, and ``python -m wm``, as torchrun starts it."""

import os
import signal


def main() -> None:
    """Run the command. Ctrl-C while it is still being imported ends it without a traceback."""
    heard = signal.getsignal(signal.SIGINT)
    if heard is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from wm.cli import main as command

    signal.signal(signal.SIGINT, heard)
    command()


if __name__ == "__main__":
    main()
