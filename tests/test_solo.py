"""Metrics of one side: several processes, forms of groups, examples in docstrings of their maths."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import synthchex
from synthchex.measure import solo

PROCESS = """
import sys
import evaluate
import numpy as np
from torch import distributed

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
rng = np.random.default_rng(0)
rows, films = rng.normal(size=(50, 6)), rng.integers(0, 256, (10, 24, 24), np.uint8)
parts = {"vendi": (rows, {}), "ms_ssim": (films, {"scales": 2})}
for name, (given, options) in parts.items():
    folder, cut = f"{sys.argv[3]}/{name}", len(given) // 3
    own = slice(0, cut) if rank == 0 else slice(cut, None)
    mask = np.arange(len(given)) % 2 == 0
    module = evaluate.load(folder, num_process=2, process_id=rank)
    for references in (None, given[own]):
        groups = mask[own] if references is None else (mask[own], mask[own])
        found = module.compute(predictions=given[own], references=references, groups={"a": groups}, **options)
        if rank == 0:
            whole, pair = (None, mask) if references is None else (given, (mask, mask))
            alone = evaluate.load(folder).compute(predictions=given, references=whole, groups={"a": pair}, **options)
            assert found == alone, (found, alone)
        else:
            assert found is None
distributed.barrier()
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "meeting"), str(synthchex.room("metrics"))]
    ranks = [subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), *arguments]) for rank in range(2)]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]


def test_more_processes_than_a_group_are_refused() -> None:
    module = synthchex.load("vendi", num_process=2, process_id=0, experiment_id="alone")
    with pytest.raises(ValueError, match="expected a process group for num_process > 1, got none; create accelerate"):
        module.compute(predictions=np.eye(4))


def test_groups_of_one_side() -> None:
    mask = np.array([True, False, True])
    for form in (mask, (mask, None), (mask, mask[:0])):
        one, none = solo.one_sided_groups({"a": form}, 3, None)["a"]
        assert one.tolist() == mask.tolist()
        assert none.size == 0
    assert solo.one_sided_groups(None, 3, None) == {}
    both = solo.one_sided_groups({"a": (mask, mask[:2])}, 3, 2)["a"]
    assert both[1].tolist() == [True, False]
    with pytest.raises(ValueError, match=r"groups\['a'\]: expected a pair of masks, got 3 of them"):
        solo.one_sided_groups({"a": mask}, 3, 2)
    with pytest.raises(
        ValueError, match=r"groups: expected labels of shape \(N, 14\) for predictions, or a name per row, got \(3,\)"
    ):
        solo.one_sided_groups(mask, 3, None)


@pytest.mark.parametrize("name", ["cmmd", "vendi", "inception", "ssim", "radiomics"])
def test_examples_in_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"synthchex.maths.{name}"))
    assert (found.failed, found.attempted > 0) == (0, True)
