#!/usr/bin/env bash
# Every embedded phantom model from nothing, in order: about two hours of one CPU core. Stop it at any time and run it again.
#     PYTHON=.venv/bin/python bash embedded/train_all.sh
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
assets=src/synthchex/assets/phantom
export OMP_NUM_THREADS=1
"$python" embedded/train_encoder.py --out $assets/encoder --seed 0 --steps 1500
"$python" embedded/train_encoder.py --out referee --seed 77 --widths 40 80 128 192 --depths 1 1 2 1 --steps 800
"$python" embedded/train_generator.py text --out $assets/generator --steps 1200 --batch 128
"$python" embedded/train_generator.py vae --out $assets/generator --steps 2400 --batch 16 --peak 2e-3
"$python" embedded/train_generator.py unet --out $assets/generator --steps 6300 --every 50
"$python" embedded/train_image_text.py --out $assets/image_text --seed 0
"$python" embedded/failures.py --out $assets/generator
"$python" embedded/train_judge.py --out $assets/judge --seed 0
"$python" embedded/measure.py --assets $assets --referee referee
