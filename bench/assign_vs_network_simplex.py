#!/usr/bin/env python3
"""Cold exact assignments against LEMON's network simplex on the same costs, one thread, one CPU.

    launch/bench assign_vs_network_simplex

Runs bench_assign_vs_lemon (built where LEMON is installed), which prints one JSON line a shape.
"""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(ROOT, "build/release/bench/bench_assign_vs_lemon")

if not os.path.exists(PROGRAM):
    sys.exit("bench_assign_vs_lemon is not built: install LEMON (liblemon-dev) and run launch/bench again")
os.sched_setaffinity(0, {0})
sys.exit(subprocess.run([PROGRAM, *sys.argv[1:]], check=False).returncode)
