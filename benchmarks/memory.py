"""Peak memory of training and evaluation, ours and pythae's, each in fresh processes."""

import statistics

from benchmarks import pythae_peer
from benchmarks.probe import peak
from benchmarks.report import Section, at_most, table
from benchmarks.settings import BenchmarkSettings
from benchmarks.timing import spread


def measure(settings: BenchmarkSettings) -> Section:
    """Some processes for each row, in turns."""
    k, batch, steps = settings.pick((50, 100, 30), (5, 20, 2))
    processes = settings.pick(3, 1)
    few, many = settings.pick((500, 50_000), (50, 100))
    images, step = 100, {"k": k, "batch": batch, "steps": steps}
    jobs = {
        ("training step", "ours, exact gradient"): ("train", step),
        ("training step", "ours, DReG, 1 draw of k backward"): ("train", step | {"resample": 1}),
        ("training step", "pythae IWAE"): ("pythae train", step),
    }
    for n in (few, many):
        what = f"NLL, k = {n:,}"
        jobs[what, "ours, `evaluate`"] = "evaluate", {"k": n, "images": images}
        jobs[what, "ours, NLL alone"] = "nll", {"k": n, "images": images}
        jobs[what, "pythae `get_nll`"] = "pythae nll", {"k": n, "images": 1}
    if not pythae_peer.INSTALLED:
        jobs = {name: job for name, job in jobs.items() if not job[0].startswith("pythae")}
    found = {name: [] for name in jobs}
    for _ in range(processes):
        for name, (job, arguments) in jobs.items():
            found[name].append(peak(job, settings.threads, **arguments))
    rows = [
        (*name, f"{statistics.median(each.baseline for each in peaks):.0f}", spread([each.own for each in peaks]))
        for name, peaks in found.items()
    ]
    body = f"""Peak resident memory of a fresh process above its baseline after imports, data and weights (digits,
28×28), median of {processes}. A training step has k = {k}, batch {batch}. Ours evaluates {images} images at once;
pythae one at a time, 100 draws at once, under `no_grad`.

{table(("job", "by", "baseline, MiB", "above it, MiB"), rows)}"""
    small, large = (
        statistics.median(each.own for each in found[f"NLL, k = {n:,}", "ours, `evaluate`"]) for n in (few, many)
    )
    flat = at_most(f"memory of `evaluate` above the baseline, k = {many:,} to k = {few:,}", large / small, 1.1)
    return Section(body, (flat,))
