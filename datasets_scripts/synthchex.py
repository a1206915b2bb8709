"""The dataset loading script of SynthCheX-style data, for what `load_dataset` alone does not read: the zip and table in
which SynthCheX-75K was published.

With any version of `datasets` from 3.6 on, in Python:

    from synthchex.data.builder import SynthCheX

    films = SynthCheX(config_name="default", data_dir="SynthCheX-75K")   # or "high_quality", "all"
    films.download_and_prepare(num_proc=4)
    films.as_dataset(split="train")
    SynthCheX(data_dir="SynthCheX-75K").as_streaming_dataset(split="train")

With datasets 3.6, the last that runs scripts, also:

    load_dataset("datasets_scripts/synthchex.py", data_dir="SynthCheX-75K", trust_remote_code=True)

`synthchex convert` turns such a set into Parquet that `load_dataset` reads everywhere; that is the better way.
"""

from __future__ import annotations

from synthchex.data.builder import SynthCheX

__all__ = ["SynthCheX"]
