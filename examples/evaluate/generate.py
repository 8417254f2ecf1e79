"""Make the meshes that evaluate.py judges: `python generate.py DIR [--set tuning] [--preset draft]`.

One `magic3d generate` a prompt; finished ones are kept. Anything after `--` goes to magic3d.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from pictures import mesh_path
from prompts import REPORT, TUNING


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=("tuning", "report"), default="report")
    parser.add_argument("--preset", default="draft")
    parser.add_argument("rest", nargs="*")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for prompt in TUNING if args.set == "tuning" else REPORT:
        out = mesh_path(args.folder, prompt)
        if out.exists():
            continue
        begun = time.time()
        command = [sys.executable, "-m", "magic3d_cli", "generate", prompt, "-o", str(out), "--preset", args.preset]
        done = subprocess.run([*command, "--quiet", "--json", *args.rest], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{prompt}: exit {done.returncode}: {done.stderr.strip()}", flush=True)
        else:
            print(f"{prompt}: {time.time() - begun:.0f} s {json.loads(done.stdout)['seconds']}", flush=True)


if __name__ == "__main__":
    main()
