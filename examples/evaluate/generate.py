"""Make the meshes that evaluate.py judges: `python generate.py DIR [--set tuning] [--preset draft]`.

One `magic3d generate` a prompt; finished ones are kept. Anything after `--` goes to magic3d.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pictures import mesh_path
from prompts import REPORT, TUNING


def make(prompt: str, out: Path, options: list[str], threads: int) -> bool:
    """One mesh, in a process of its own; whether it was made."""
    begun = time.time()
    command = [sys.executable, "-m", "magic3d_cli", "generate", prompt, "-o", str(out), "--quiet", "--json", *options]
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | limits)
    if done.returncode:
        print(f"{prompt}: exit {done.returncode}: {done.stderr.strip()}", flush=True)
    else:
        print(f"{prompt}: {time.time() - begun:.0f} s {json.loads(done.stdout)['seconds']}", flush=True)
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=("tuning", "report"), default="report")
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--workers", type=int, default=1, help="meshes made at a time; the cores are shared out")
    parser.add_argument("rest", nargs="*")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    options = ["--preset", args.preset, *args.rest]
    threads = max((os.cpu_count() or 1) // args.workers, 1)
    prompts = TUNING if args.set == "tuning" else REPORT
    with ThreadPoolExecutor(args.workers) as workers:
        # Every second first: an unfinished set is a fair one too.
        missing = [p for p in [*prompts[::2], *prompts[1::2]] if not mesh_path(args.folder, p).exists()]
        done = list(workers.map(lambda p: make(p, mesh_path(args.folder, p), options, threads), missing))
    sys.exit(0 if all(done) else 1)


if __name__ == "__main__":
    main()
