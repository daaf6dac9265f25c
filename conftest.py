"""One thread for each test process: several run side by side, and work this small is quickest so."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
