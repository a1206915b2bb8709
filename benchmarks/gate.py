"""What does the privacy gate catch? Copies of real films, planted among candidates, and films of other patients.

    python benchmarks/gate.py --images films/ --table films.csv --image-column image_id --patient-column patient_id \\
        --encoder phantom

Prints one line per kind of copy: the share that is caught, its exact binomial interval, and the shares that looks and
the encoder catch alone; then the share of real films that are wrongly called copies, and the CPU seconds of all of it.
Then films that the gate has never seen: thresholds on half the patients, the films of the other half judged by them.
Last, how the time of one candidate grows with the number of real films.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synthchex.commands.publish import kinds
from synthchex.data import sources
from synthchex.gate import calibration, copies, report
from synthchex.maths import limits
from synthchex.models import encoders
from synthchex.options import BAD_INPUT

HALVES = 5  # ways to halve the patients
GROWTH, CANDIDATES = (250, 2500, 25_000), 32


def held_out(seen: copies.Seen, patients: Sequence[str], false_alarms: float, seed: int) -> limits.Share:
    """Films of half the patients that are called copies by thresholds and films of the other half."""
    names, hits = np.array(patients)[seen.kept], []
    for place in range(HALVES):
        people = np.random.default_rng([seed, place]).permutation(np.unique(names))
        ours = np.isin(names, people[: len(people) // 2])
        known = copies.reference(part(seen, ours), names[ours])
        own = copies.nearness(known.films, known, owners=known.owners)
        passed = calibration.thresholds(own, known.owners, false_alarms)
        near = copies.nearness(part(seen, ~ours), known)
        hits.append(calibration.any_of(calibration.found(near, passed)))
    return limits.share(np.concatenate(hits))


def part(seen: copies.Seen, chosen: np.ndarray) -> copies.Seen:
    """Some films of a set."""
    rows = np.flatnonzero(chosen)
    contents = [seen.contents[int(row)] for row in rows]
    return copies.Seen(np.arange(len(rows)), contents, seen.signatures[rows], seen.features[rows])


def seconds_per_candidate(seen: copies.Seen, count: int) -> float:
    """CPU seconds to look for one candidate among `count` real films, which are the same few over and over."""
    many = np.resize(np.arange(len(seen)), count)
    real = copies.Seen(many, [seen.contents[int(row)] for row in many], seen.signatures[many], seen.features[many])
    known, some = copies.reference(real, None), part(seen, np.arange(len(seen)) < CANDIDATES)
    began = time.process_time()
    copies.nearness(some, known)
    return (time.process_time() - began) / len(some)


def main() -> int:
    """Calibrate on the films of a table, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--image-column", default="image_id")
    parser.add_argument("--patient-column", default="patient_id")
    parser.add_argument("--encoder", default="phantom")
    parser.add_argument("--autoencoder", help="diffusers pipeline for the round trip (default: the embedded one)")
    parser.add_argument("--copies", type=int, default=10**6, help="films to plant copies of (default: all)")
    parser.add_argument("--false-alarms", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-workers", type=int, default=2)
    options = parser.parse_args()
    if not options.images.is_dir():
        print(f"expected a folder of films, got {options.images}")
        return BAD_INPUT
    columns = {"image": options.image_column, "patient": options.patient_column}
    real = sources.open_images(options.table, columns=columns, image_dir=options.images)
    encoder = encoders.load_encoder(options.encoder)
    pipeline = options.autoencoder or str(encoders.ASSETS / "phantom" / "generator")
    changes, not_planted = kinds(pipeline, options.encoder, None)
    began = time.process_time()
    seen = copies.see(real, encoder, None, num_workers=options.num_workers)
    measured = calibration.calibrate(
        real,
        copies.reference(seen, real.patients),
        encoder,
        calibration.Trial(options.false_alarms, copied=options.copies, seed=options.seed),
        changes=changes,
        not_planted=not_planted,
        num_workers=options.num_workers,
    )
    print("\n".join(report.calibration_lines(measured, options.encoder)))
    print(f"  thresholds {measured.thresholds}, {time.process_time() - began:.0f} CPU seconds")
    never = held_out(seen, real.patients or real.ids, options.false_alarms, options.seed)
    said = f"{never.hits} of {never.trials} films called copies, {never.value:.3f}"
    print(f"  other half of the patients: {said}, in {HALVES} halvings")
    for count in GROWTH:
        print(f"  {count:>7,} real films: {seconds_per_candidate(seen, count):.3f} CPU seconds per candidate")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
