"""Values that options and functions of the package know by name, and defaults that they share."""

DTYPES = ("float32", "float16", "bfloat16")  # of recorded values
DEFAULT_TOKENS = 200_000  # to record
# Importance of neurons (importance.py); the defaults first.
IMPORTANCE_TYPES = ("feature-change", "feature-grad")
IMPORTANCE_LEVELS = ("sample", "total")
IMPORTANCE_KERNELS = ("l1", "plain", "l2")
