"""All benchmarks, one after the other: `python -m benchmarks` writes benchmarks/results/ anew, in a quarter of an hour."""

import subprocess
import sys

for name in ("compare", "overhead", "scaling", "startup"):
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
