"""The vendi module as its users call it: one side is enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import synthchex
from synthchex.maths import intervals
from synthchex.maths import vendi as maths


@pytest.fixture(scope="module")
def vendi() -> Any:
    return synthchex.load("vendi")


@pytest.fixture
def rows() -> np.ndarray:
    """(90, 12) float32."""
    return np.random.default_rng(0).normal(size=(90, 12)).astype(np.float32) + 0.4


def test_predictions_alone(vendi: Any, rows: np.ndarray) -> None:
    result = vendi.compute(predictions=rows, orders=[1, 2, "inf", 0.5])
    keys = ["vendi", "vendi_q2", "vendi_qinf", "vendi_q0.5"]
    assert [result[key] for key in keys] == maths.vendi_scores(rows, orders=[1, 2, np.inf, 0.5])
    assert (result["n_predictions"], result["n_references"], result["encoder"]) == (90, 0, "unnamed")
    assert "vendi_references" not in result
    assert any("near the largest possible value: 12 for 90 rows of 12 features" in text for text in result["warnings"])
    vendi.add_batch(predictions=rows[:40])
    vendi.add(prediction=rows[40])
    vendi.add_batch(predictions=rows[41:])
    assert len(vendi) == 90
    assert vendi.compute()["vendi"] == pytest.approx(result["vendi"], rel=1e-6)
    with pytest.raises(ValueError, match="expected predictions, got no predictions; add them first"):
        vendi.compute(references=rows)


def test_references_are_scored_beside_at_equal_numbers_when_asked(vendi: Any, rows: np.ndarray) -> None:
    result = vendi.compute(predictions=rows[:50], references=rows)
    assert result["vendi_references"] == maths.vendi_score(rows)
    assert "counts differ: pass matched=50 to compare the two sides" in result["warnings"]
    matched = [vendi.compute(predictions=rows[:50], references=rows, matched=50, seed=seed) for seed in (1, 1, 2)]
    assert matched[0] == matched[1]
    assert matched[0]["vendi"] == result["vendi"]
    assert matched[0]["vendi_references"] != matched[2]["vendi_references"]
    assert not any("counts differ" in text for text in matched[0]["warnings"])
    with pytest.raises(ValueError, match="matched must be at least 1 and at most the rows of each side, got 60 for 50"):
        vendi.compute(predictions=rows[:50], references=rows, matched=60)
    with pytest.raises(ValueError, match="one width, got 12 for predictions and 5 for references"):
        vendi.compute(predictions=rows, references=rows[:, :5])


def test_labels_in_every_form(vendi: Any, rows: np.ndarray) -> None:
    from synthchex.data.records import LABELS, labels_dict

    mask = np.arange(90) < 30
    table = np.zeros((90, 14))
    table[mask, LABELS.index("Edema")] = 1
    dicts = [labels_dict({"Edema": 1} if row else {}) for row in mask]
    expected = maths.vendi_score(rows[:30])
    for groups in ({"Edema": mask}, {"Edema": (mask, None)}, table, dicts, (table, None)):
        labels = vendi.compute(predictions=rows, groups=groups)["labels"]
        assert labels["Edema"]["vendi"] == expected
        assert (labels["Edema"]["n_predictions"], labels["Edema"]["n_references"]) == (30, 0)
    assert labels["Fracture"]["vendi"] is None
    assert labels["Fracture"]["warnings"] == ["insufficient n: expected at least 1 rows, got 0 predictions"]
    both = vendi.compute(predictions=rows, references=rows, groups={"Edema": (mask, ~mask)})["labels"]["Edema"]
    assert (both["vendi"], both["vendi_references"]) == (expected, maths.vendi_score(rows[30:]))
    with pytest.raises(ValueError, match=r"groups\['Edema'\]: expected 90 true or false values for predictions"):
        vendi.compute(predictions=rows, groups={"Edema": mask[:5]})


def test_images_and_statistics(vendi: Any, rows: np.ndarray, films: np.ndarray, tmp_path: Any) -> None:
    class Grey:
        name, key = "grey", "grey-1"

        def encode(self, pictures: Any, *, batch_size: int = 32) -> np.ndarray:
            return np.array([picture.reshape(8, 4, -1).mean((1, 2)) for picture in pictures], np.float32)

    result = vendi.compute(predictions=films, encoder=Grey())
    assert (result["n_predictions"], result["encoder"]) == (8, "grey")
    np.savez(tmp_path / "s.npz", mu=np.zeros(12), sigma=np.eye(12))
    with pytest.raises(ValueError, match="predictions: expected images or features, got statistics; vendi needs every"):
        vendi.compute(predictions=tmp_path / "s.npz")


def test_interval_leaves_out_whole_patients(vendi: Any, rows: np.ndarray) -> None:
    ids = np.repeat(np.arange(30), 3)
    options = {"predictions": rows, "orders": [1, "inf"], "confidence_level": 0.9, "seed": 4}
    result = vendi.compute(**options, patients=(ids.tolist(), None), n_resamples=10)
    blocks = intervals.assign_blocks(90, ids, blocks=10, seed=4, name="rows")
    expected = maths.vendi_intervals(
        rows, blocks, [result["vendi"], result["vendi_qinf"]], orders=[1, np.inf], confidence=0.9
    )
    for name, ends in zip(("vendi", "vendi_qinf"), expected, strict=True):
        assert tuple(result[f"{name}_{end}"] for end in ("low", "high", "standard_error")) == ends
        assert 1 <= ends.low < result[name] < ends.high
    assert vendi.compute(**options)["vendi_low"] != result["vendi_low"]
    drawn = vendi.compute(**options, matched=60, patients=(ids, None))
    assert drawn["vendi_low"] < drawn["vendi"] < drawn["vendi_high"]
    with pytest.raises(ValueError, match="predictions: expected at least 5 clusters to leave out in turn, got 3"):
        vendi.compute(**options, patients=(np.arange(90) // 30, None))


def test_combined_with_another_metric(rows: np.ndarray) -> None:
    import evaluate

    both = evaluate.combine([synthchex.load("vendi"), synthchex.load("kid")])
    result = both.compute(predictions=rows[:40], references=rows)
    assert {"vendi", "vendi_references", "kid"} <= set(result)
