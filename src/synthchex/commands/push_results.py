"""Scores of an evaluation on a model's page of the Hub: `.eval_results/<benchmark>.yaml`.

Sets as wholes only: metric, value, interval, counts. No film, id, prompt or label row leaves the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthchex.commands import push_metrics


def entries(results: Mapping[str, Any], benchmark: str) -> list[dict[str, Any]]:
    """Overall scores as the Hub reads them.

    Args:
        results: content of results.json.
        benchmark: dataset id that the scores belong to, org/name.

    Raises:
        ValueError: not a dataset id.
    """
    if benchmark.count("/") != 1 or not all(benchmark.split("/")):
        raise ValueError(f"benchmark must be a dataset id, org/name, got {benchmark!r}")
    found = []
    for row in results["overall"]:
        if row["value"] is None:
            continue
        ends = "" if row["interval"] is None else f", interval {row['interval'][0]:.4g} to {row['interval'][1]:.4g}"
        floor = "" if row["floor"] is None else f", real vs real {row['floor']:.4g}"
        found.append(
            {
                "dataset": {"id": benchmark, "task_id": f"{row['metric']}-{_slug(row['encoder'])}"},
                "value": float(f"{row['value']:.6g}"),
                "date": str(results["created"])[:10],
                "notes": f"{row['label']}, {_slug(row['encoder'])} features, {row['n_synthetic']} synthetic and "
                f"{row['n_real']} real films{ends}{floor}, protocol {results['protocol']}",
            }
        )
    return found


def push(results: Mapping[str, Any], model: str, benchmark: str) -> str:
    """Commit the scores to a model repository that is there; the address of the file.

    Raises:
        ValueError: no token that may write there, no such repository, or the Hub refused.
    """
    import yaml
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    content = yaml.safe_dump(entries(results, benchmark), sort_keys=False).encode()
    push_metrics.check_access(model.partition("/")[0])
    try:
        return str(
            HfApi().upload_file(
                path_or_fileobj=content,
                path_in_repo=f".eval_results/{benchmark.partition('/')[2]}.yaml",
                repo_id=model,
                commit_message="Scores by synthchex",
            )
        )
    except RepositoryNotFoundError as error:
        raise ValueError(f"expected the model {model} on the Hub, got none; create it first") from error
    except push_metrics.http_error() as error:
        raise ValueError(f"{model} could not be pushed to ({push_metrics.first_line(error)})") from error


def _slug(name: str | None) -> str:
    """The last part of a name or path: a folder's place on this machine is nobody's business."""
    return (name or "pixels").rstrip("/").rpartition("/")[2]
