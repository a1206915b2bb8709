"""What does the privacy gate catch? Copies of real films, planted among candidates, and films of other patients.

    python benchmarks/gate.py --images films/ --table films.csv --image-column image_id --patient-column patient_id \\
        --encoder phantom

Prints one line per kind of copy: the share that is caught, its exact binomial interval, and the shares that looks and
the encoder catch alone; then the share of real films that are wrongly called copies, and the CPU seconds of all of it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from synthchex.commands.publish import kinds
from synthchex.data import sources
from synthchex.gate import calibration, copies, report
from synthchex.models import encoders
from synthchex.options import BAD_INPUT


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
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
