"""One thread for each test process: several run side by side, and work this small is quickest so."""

import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"

# Tests press Ctrl-C. A shell starts what it runs in the background with that ignored, which would hold here.
signal.signal(signal.SIGINT, signal.default_int_handler)
