"""Starts a program of its own when it is imported, and fails."""

import subprocess
import sys

subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
raise RuntimeError("the other one runs")
