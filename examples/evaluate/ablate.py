"""What each choice of the presets is worth: `python ablate.py DATA RECOGNISER OUT`, on the tuning prompts.

Every variant makes a mesh of every prompt with `--preset`, judged as evaluate.py judges. Finished meshes are kept, so
it can be stopped and started again. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pictures
from evaluate import composition, likeness, recognised, summary
from prompts import TUNING
from recogniser import load_recogniser

from magic3d_cli import job, pipeline, presets
from magic3d_cli.errors import Magic3DError
from magic3d_cli.guidance.builtin.vocabulary import Caption, Vocabulary
from magic3d_cli.guidance.conditioning import Conditioning, condition, read_prompt
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.guidance.priors import STAGES, WeightedPrior, choose_priors
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.run.observer import Observer
from magic3d_cli.settings import GuidanceSettings, Settings, TimestepSchedule, ViewSampling


def guided(chosen: Settings, change: Callable[[GuidanceSettings], GuidanceSettings]) -> Settings:
    """The settings with the guidance of both stages changed."""
    coarse, fine = chosen.coarse, chosen.fine
    return replace(
        chosen,
        coarse=replace(coarse, guidance=change(coarse.guidance)),
        fine=replace(fine, guidance=change(fine.guidance)),
    )


def scaled(factor: float) -> Callable[[Settings], Settings]:
    return lambda s: guided(s, lambda g: replace(g, scale=(g.scale[0] * factor, g.scale[1] * factor)))


def timed(start: tuple[float, float], end: tuple[float, float]) -> Callable[[Settings], Settings]:
    return lambda s: guided(s, lambda g: replace(g, times=TimestepSchedule(start, end, g.times.anneal)))


def stepped(factor: float) -> Callable[[Settings], Settings]:
    return lambda s: replace(
        s,
        coarse=replace(s.coarse, steps=round(s.coarse.steps * factor)),
        fine=replace(s.fine, steps=round(s.fine.steps * factor)),
    )


def without_textureless(s: Settings) -> Settings:
    sampling = ViewSampling(shading=(0.6, 0.4, 0.0))
    return replace(s, coarse=replace(s.coarse, sampling=sampling), fine=replace(s.fine, sampling=sampling))


class Styleless(PriorGuide):
    """Told the noun without one of its models: each view may expect another one."""

    def _condition(self, prior: DiffusersPrior) -> Conditioning:
        caption = read_prompt(prior, self.prompt, self.seed)
        return condition(prior, replace(caption, style=None) if isinstance(caption, Caption) else caption)


STYLELESS = "no style token"
VARIANTS: dict[str, Callable[[Settings], Settings]] = {
    "as shipped": lambda s: s,
    "times not annealed (0.4 to 0.98)": timed((0.4, 0.98), (0.4, 0.98)),
    "times of DreamFusion (0.02 to 0.98)": timed((0.02, 0.98), (0.02, 0.98)),
    "no textureless shading": without_textureless,
    "full resolution from the start": lambda s: replace(s, coarse=replace(s.coarse, warmup=0.0)),
    "half the guidance scale": scaled(0.5),
    "three times the guidance scale": scaled(3.0),
    "half the steps": stepped(0.5),
    STYLELESS: lambda s: s,
    "no fine stage to speak of": lambda s: replace(s, fine=replace(s.fine, steps=1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("recogniser", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", default="draft")
    parser.add_argument("--prompts", type=int, default=len(TUNING), help="only the first so many")
    parser.add_argument("--workers", type=int, default=1, help="meshes made at a time; the cores are shared out")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    args = parser.parse_args()
    network, nouns = load_recogniser(args.recogniser)
    vocabulary = Vocabulary.load(BUILTIN / "vocabulary.json")
    captions = {prompt: vocabulary.parse(prompt) for prompt in TUNING[: args.prompts]}
    seconds = generate(args.only, list(captions), args.preset, args.out, args.workers)
    real = recognised(network, nouns, lambda p, t: pictures.of_model(args.data, captions[p], t), captions)
    table = []
    for name in args.only:
        folder = folder_of(args.out, name)
        made = {p: c for p, c in captions.items() if pictures.mesh_path(folder, p).exists()}

        def source(prompt: str, textured: bool, folder: Path = folder):
            return pictures.of_mesh(pictures.mesh_path(folder, prompt), textured)

        entry = summary(recognised(network, nouns, source, made), real) | composition(source, made, args.data)
        entry |= likeness(source, made, args.data)
        table.append((name, len(made), seconds[name], entry))
    keys = ["textured @1", "textured probability", "untextured @1", "untextured probability", "colour", "material"]
    keys += ["silhouettes", "colour error", "shading error"]
    print("| variant | meshes | s each |", " | ".join(keys), "|")
    print("| --- " * (3 + len(keys)) + "|")
    for name, count, each, entry in table:
        print(f"| {name} | {count} | {each:.0f} |", " | ".join(f"{entry[key]:.3g}" for key in keys), "|", flush=True)


def folder_of(out: Path, variant: str) -> Path:
    return out / variant.replace(" ", "-")


def generate(variants: list[str], prompts: list[str], preset: str, out: Path, workers: int) -> dict[str, float]:
    """Make every mesh that is not there yet; mean seconds of a mesh by variant."""
    threads = max((os.cpu_count() or 1) // workers, 1)
    os.environ |= {name: str(threads) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}  # read by the workers
    jobs = [(prompt, name, preset, folder_of(out, name)) for prompt in prompts for name in variants]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        taken = list(pool.map(make, *zip(*jobs, strict=True)))
    return {name: sum(taken[i :: len(variants)]) / len(prompts) for i, name in enumerate(variants)}


def make(prompt: str, variant: str, preset: str, folder: Path) -> float:
    """Generate the mesh unless it is there; seconds it took."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = VARIANTS[variant](presets.preset(preset))
    out = pictures.mesh_path(folder, prompt)
    report = out.with_suffix(".json")
    if not report.exists():
        begun = time.time()
        try:
            names = {stage: [WeightedPrior("builtin")] for stage in STAGES}
            priors = choose_priors(names, prompt, chosen.seed, "cpu", print)
            guide = (Styleless if variant == STYLELESS else PriorGuide)(priors, prompt, chosen.seed, "cpu")
            with job.opened(prompt, chosen, out, guide, "cpu", Observer(), Interrupts()) as opened:
                pipeline.generate(opened, fresh=True)
        except Magic3DError as error:
            print(f"{prompt}: {error.what}", flush=True)
        report.write_text(json.dumps({"seconds": time.time() - begun}))
    return json.loads(report.read_text())["seconds"]


if __name__ == "__main__":
    main()
