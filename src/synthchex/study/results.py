"""The analysis of a whole study as one dictionary, and its answers in the form of the iMRMC software."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthchex.study import answers, authenticity, design, ratings
from synthchex.study.authenticity import Answer, Truth

ID_COLUMNS = ("id", "filename", "row")


def analyse(
    study: str | Path,
    *,
    exclude: Mapping[str, str] | None = None,
    samples: str | Path | None = None,
    model: str | None = None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Everything that the answers of a study say.

    Args:
        study: folder of the study.
        exclude: readers who are left out, and why; each reason stands in the results.
        samples: `samples.parquet` of `synthchex evaluate`, to set metrics of films against readers' opinions of them.
        model: the synthetic set that `samples` is of, where films of several sets have the same ids.
        confidence: of all intervals.

    Returns:
        {"study": what was registered; "answers": counts; one entry for each task that has answers; "correlations"}.

    Raises:
        ValueError: no answers, a reader who is not of the study, or a study that was changed.
    """
    manifest, given, truth = design.load(study), answers.table(study), answers.truth(study)
    left_out = dict(exclude or {})
    if unknown := sorted(set(left_out) - set(manifest["readers"])):
        raise ValueError(f"expected readers among {manifest['readers']}, got {unknown}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}; 0.95 is usual")
    counted = [row for row in given if not row["practice"] and row["reader"] not in left_out]
    if not counted:
        raise ValueError(
            f"expected answers in {study}, got {len(given)} of which none counts; see `synthchex study run`"
        )
    by_task = {task: list[Answer](row for row in counted if row["task"] == task) for task in manifest["tasks"]}
    ways: dict[str, Callable[[list[Answer]], Any]] = {
        "authenticity": lambda rows: authenticity.analyse(
            rows,
            truth,
            margin=manifest["design"]["margin"],
            alpha=manifest["design"]["alpha"],
            confidence=confidence,
        ),
        "quality": lambda rows: ratings.quality(rows, truth, confidence=confidence),
        "diagnosis": lambda rows: ratings.diagnosis(rows, truth, confidence=confidence),
        "preference": lambda rows: ratings.preference(rows, truth, confidence=confidence),
    }
    found: dict[str, Any] = {task: ways[task](rows) for task, rows in by_task.items() if rows}
    registered = {key: manifest[key] for key in ("sha256", "title", "design", "arms", "strata", "hypotheses")}
    return {
        "study": registered | {"exclusions": manifest["exclusions"], "screened": manifest["screened"]},
        "answers": _counts(given, manifest, left_out),
        "confidence_level": confidence,
        **found,
        "correlations": _correlations(by_task, truth, Path(samples), model, confidence) if samples else None,
    }


def _counts(given: Sequence[Answer], manifest: Mapping[str, Any], left_out: Mapping[str, str]) -> dict[str, Any]:
    rows = []
    for reader in manifest["readers"]:
        own = [row for row in given if row["reader"] == reader]
        rows.append(
            {
                "reader": reader,
                "answers": sum(not row["practice"] and not row["repeat"] for row in own),
                "repeats": sum(bool(row["repeat"]) for row in own),
                "practice": sum(bool(row["practice"]) for row in own),
                "excluded": left_out.get(reader),
            }
        )
    return {"readers": rows, "excluded": dict(left_out)}


def opinions(
    by_task: Mapping[str, Sequence[Answer]], truth: Truth, model: str | None = None
) -> dict[str, dict[str, float]]:
    """Mean opinion of readers on each synthetic film, by its id in its set: share who called it synthetic, ratings.

    Args:
        by_task: answers of each task.
        truth: of each case.
        model: only films of this set.

    Raises:
        ValueError: no such set, or films of several sets have the same id.
    """
    truth = {
        case: one for case, one in truth.items() if one["arm"] == design.SYNTHETIC and model in (None, one["model"])
    }
    ids = Counter(str(one["source_id"]) for one in truth.values())
    if not ids or max(ids.values()) > 1:
        raise ValueError(
            f"expected synthetic films that an id tells apart, got {sum(ids.values())} films with {len(ids)} ids for "
            f"the set {model or 'that was not named'}; write --samples MODEL=FILE with a synthetic set of the study"
        )
    given: dict[str, dict[str, list[float]]] = {}
    for row in [*by_task.get("authenticity", ()), *by_task.get("quality", ())]:
        if row["repeat"] or row["case"] not in truth:
            continue
        said = row["answer"]
        values = (
            {"called synthetic": float(said["call"] == design.SYNTHETIC)}
            if "call" in said
            else {aspect: float(said[aspect]) for aspect in ratings.ASPECTS}
        )
        for name, value in values.items():
            given.setdefault(name, {}).setdefault(str(truth[row["case"]]["source_id"]), []).append(value)
    return {name: {film: float(np.mean(some)) for film, some in films.items()} for name, films in given.items()}


def _correlations(
    by_task: Mapping[str, Sequence[Answer]], truth: Truth, samples: Path, model: str | None, confidence: float
) -> list[dict[str, Any]]:
    """Every numeric column of an evaluation's synthetic samples against every opinion.

    Raises:
        FileNotFoundError: no samples there.
        ValueError: no column that names films, or none of the study's films.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not samples.is_file():
        raise FileNotFoundError(f"expected samples.parquet of `synthchex evaluate`, got no file at {samples}")
    table = pq.read_table(samples)
    if "set" in table.column_names:  # a real film may have the id of the one that was made from its report
        table = table.filter(pc.equal(table["set"], design.SYNTHETIC))
    named = next((name for name in ID_COLUMNS if name in table.column_names), None)
    if named is None:
        raise ValueError(f"expected a column {' or '.join(ID_COLUMNS)} in {samples}, got {table.column_names}")
    films = [str(value) for value in table.column(named).to_pylist()]
    numeric = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    metrics = {
        name: {
            film: value for film, value in zip(films, table.column(name).to_pylist(), strict=True) if value is not None
        }
        for name in numeric
    }
    held = opinions(by_task, truth, model)
    known = set(films)
    if not any(film in known for one in held.values() for film in one):
        raise ValueError(f"expected films of the study in {samples}, got none of them; it is of another synthetic set")
    return [
        {"opinion": name, **row}
        for name, opinion in held.items()
        for row in ratings.correlations(opinion, metrics, confidence=confidence)
    ]


def imrmc(given: Sequence[Answer], truth: Truth, title: str) -> str:
    """Authenticity answers in the input format of iMRMC (FDA): truth rows, then scores of each reader.

    The score is the confidence, negative where the film was called real; the one modality is this study.
    """
    first = [row for row in given if row["task"] == "authenticity" and not row["practice"] and not row["repeat"]]
    cases = sorted({str(row["case"]) for row in first})
    synthetic = sum(truth[case]["arm"] == design.SYNTHETIC for case in cases)
    text = io.StringIO()
    text.write(f"{' '.join(title.split())}\n\nN0:{len(cases) - synthetic}\nN1:{synthetic}\n")
    text.write(f"NR:{len({row['reader'] for row in first})}\nNM:1\n\nBEGIN DATA:\n")
    rows = csv.writer(text, lineterminator="\n")
    for case in cases:
        rows.writerow([-1, case, 0, int(truth[case]["arm"] == design.SYNTHETIC)])
    for row in first:
        sign = 1 if row["answer"]["call"] == design.SYNTHETIC else -1
        rows.writerow([row["reader"], row["case"], "study", sign * row["answer"]["confidence"]])
    return text.getvalue()


def comma_separated(given: Sequence[Answer], truth: Truth) -> str:
    """Every answer as a row, with what was true: for any other software. Names no film and no reader.

    Of a pair, `model` is that of the left and that of the right film.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        ["reader", "task", "case", "arm", "model", "stratum", "position", "repeat", "practice", "seconds", "answer"]
    )
    for row in given:
        sides = [truth[row["answer"][side]] for side in ("left", "right") if side in row["answer"]]
        facts: Mapping[str, Any] = (
            {**sides[0], "model": "/".join(str(one["model"]) for one in sides)} if sides else truth[row["case"]]
        )
        said = ";".join(f"{key}={value}" for key, value in row["answer"].items())
        where = [facts.get(key, "") for key in ("arm", "model", "stratum")]
        when = [row["position"], int(row["repeat"]), int(row["practice"]), round(row["seconds"], 3)]
        rows.writerow([row["reader"], row["task"], row["case"], *where, *when, said])
    return text.getvalue()
