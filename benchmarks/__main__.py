"""All benchmarks, one after the other: `python -m benchmarks` writes the figures in benchmarks/results/ anew."""

import subprocess
import sys

for name in ("compare", "compiled", "overhead", "scaling", "startup"):
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
