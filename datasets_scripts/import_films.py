"""A published chest X-ray set, or films of your own, as the record that every other command reads.

synthchex import nih --source ChestX-ray14 --out nih
synthchex import mimic-cxr-jpg --source mimic-cxr-jpg/2.0.0 --reports mimic_cxr_sectioned.csv --out mimic
(several at once work on the same --out, and the same command goes on with one that was interrupted)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import synthchex
from synthchex.data import film, shards, tables
from synthchex.data.importers import known, policies, summary, write
from synthchex.data.importers.listing import Given, Unlisted
from synthchex.options import Parser, run

POLICY_NOTES = {
    "open": "The films may be shown to anyone under these terms.",
    "credentialed": "Films, reports, per-film scores and nearest neighbours stay with those who signed for them.",
    "unknown": "Until its terms are known it is treated as credentialed.",
}


def parser() -> Parser:
    """The options of `synthchex import`."""
    options = Parser(
        command="import",
        description="A published chest X-ray set, or films of your own, as the record that every other command reads.",
        examples=(
            "synthchex import nih --source ChestX-ray14 --out nih",
            "synthchex import mimic-cxr-jpg --source mimic-cxr-jpg/2.0.0 --reports mimic_cxr_sectioned.csv --out mimic",
            "synthchex import table --source films.csv --columns image=scan prompt=findings --out own",
        ),
    )
    options.add_argument("set", choices=list(known.IMPORTERS), help="which published layout, or folder, or table")
    where = options.add_argument_group("where it is")
    where.add_argument("--source", required=True, type=Path, help="folder of the set; a table's file; a saved dataset")
    where.add_argument("--out", required=True, type=Path, help="folder to write")
    where.add_argument("--tables", type=Path, help="folder of its CSV files (default --source)")
    where.add_argument("--image-dir", type=Path, help="folder that film names are relative to (default --source)")
    where.add_argument("--annotations", type=Path, help="LLaVA-Rad's annotations, your own credentialed copy")
    where.add_argument("--reports", type=Path, help="MIMIC-CXR's reports: folder, or mimic_cxr_sectioned.csv")
    where.add_argument("--columns", nargs="+", default=[], metavar="ROLE=NAME", help="columns of a table of your own")
    what = options.add_argument_group("what to keep")
    what.add_argument("--text", choices=get_args(write.Text), default=write.How.text, help="prompt (default both)")
    what.add_argument("--labels", help="label table where a set has several, e.g. negbio; none for no labels")
    what.add_argument("--labeller", help="labels from the prompts instead: chexbert, or module:function")
    what.add_argument(
        "--unlisted",
        choices=get_args(Unlisted),
        default=Given.unlisted,
        help="what it means that a set of positive findings does not list one (default blank: not mentioned)",
    )
    what.add_argument("--splits", nargs="+", default=[], help="only films of these splits")
    what.add_argument("--views", nargs="+", default=[], help="only films of these views, e.g. PA AP")
    what.add_argument("--reference-only", action="store_true", help="keep paths of films instead of their bytes")
    what.add_argument("--unchecked", action="store_true", help="do not decode films to see whether they can be read")
    what.add_argument(
        "--deep-films",
        choices=film.DEEP,
        help="keep films of more than 8 bits, DICOM or not, as 8-bit PNG by this policy (default: DICOM only, minmax)",
    )
    what.add_argument("--source-policy", choices=policies.POLICIES, help="where the set's own terms leave it open")
    options.add_common()
    return options


def asked(options: Any) -> tuple[Given, write.How]:
    """The options as what importers and the writer take.

    Raises:
        ValueError: an option or a label table that the set has no use for, or a column that is not ROLE=NAME.
    """
    takes = known.IMPORTERS[options.set].takes
    for name in ("annotations", "reports", "columns", "unlisted"):
        if name not in takes and getattr(options, name) not in (None, [], Given.unlisted):
            users = [other for other, importer in known.IMPORTERS.items() if name in importer.takes]
            raise ValueError(f"--{name} is read for {', '.join(users)}, got it for {options.set}; leave it out")
    tables_of = (*known.IMPORTERS[options.set].labels, "none")
    if options.labels is not None and options.labels not in tables_of:
        raise ValueError(f"--labels of {options.set} must be among {list(tables_of)}, got {options.labels!r}")
    pairs = dict(pair.partition("=")[::2] for pair in options.columns)
    if any(role not in tables.ALIASES or not name for role, name in pairs.items()):
        raise ValueError(f"--columns must be ROLE=NAME with roles {list(tables.ALIASES)}, got {options.columns}")
    places = ("source", "tables", "image_dir", "annotations", "reports", "labels", "unlisted")
    given = Given(options.set, columns=pairs, **{name: getattr(options, name) for name in places})
    kept = ("text", "reference_only", "unchecked", "labeller", "deep_films")
    chosen = {name: getattr(options, name) for name in kept}
    how = write.How(**chosen, splits=tuple(options.splits), views=tuple(options.views))
    return given, how


def bring_in(given: Given, how: write.How, out: Path, policy: str, *, quiet: bool) -> dict[str, Any]:
    """Read the set's tables, write its shards and its summary; return the summary."""
    importer = known.IMPORTERS[given.name]
    listing = importer.read(given)
    chosen = write.choose(listing, given.image_dir or given.source, how)
    plan = write.plan(given.name, policy, importer.terms, listing, chosen, how, given.unlisted)
    write.fill(out, plan, chosen, how, quiet=quiet)
    counted = {
        "importer": given.name,
        "source_policy": policy,
        "labels_from": plan.recipe["labels_from"],
        "prompts_from": write.prompts(chosen.columns, how.text)[1],
        "left_out": dict(chosen.left_out),
        "missing_examples": list(chosen.missing[:5]),
        "findings": {} if how.labeller else dict(listing.findings),
        "remarks": list(listing.remarks),
        **summary.count(out),
    }
    summary.write(out, counted)
    shards.write_whole(out / "README.md", card(counted, how).encode())
    return counted


def card(counted: Mapping[str, Any], how: write.How) -> str:
    """A card that says what the folder is, with the configuration and types that `load_dataset` reads."""
    from datasets import DatasetInfo
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, DatasetCardData

    policy = str(counted["source_policy"])
    terms = known.IMPORTERS[counted["importer"]].terms
    data = DatasetCardData(license="other", license_name=terms, tags=["medical", "chest-x-ray"], source_policy=policy)
    DatasetInfosDict({"default": DatasetInfo(features=write.features())}).to_dataset_card_data(data)
    files = {"default": {"data_files": [{"split": "train", "path": "data/train-*"}]}}
    MetadataConfigs(files).to_dataset_card_data(data)
    return str(
        DatasetCard.from_template(
            data,
            template_path=str(synthchex.room("datasets_scripts") / "import_card.md"),
            importer=counted["importer"],
            films=counted["films"],
            patients=counted["patients"] or "unknown",
            policy=policy,
            terms=terms,
            policy_note=POLICY_NOTES[policy],
            labels_from=counted["labels_from"] or "none",
            prompts_from=", ".join(f"{name} ({number})" for name, number in counted["prompts_from"].items()),
            kept_as="paths on the machine that imported them" if how.reference_only else "bytes of their files",
        )
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Import a set and print what is in it."""
    options = parser().parse_args(argv)
    given, how = asked(options)
    policy = known.policy(options.set, options.source, options.source_policy)
    counted = bring_in(given, how, options.out, policy, quiet=options.quiet)
    if options.json:
        print(json.dumps({**counted, "out": str(options.out)}))
    elif not options.quiet:
        print("\n".join([*summary.lines(counted), f"written to {options.out}"]))


if __name__ == "__main__":
    sys.exit(run(main))
