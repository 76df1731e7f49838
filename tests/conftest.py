"""Before any test: one thread for each of the two processes, or they wait for each other on tiny products."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")   # transformers is only compared with, never downloads
