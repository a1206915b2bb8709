"""CheXGenBench: the published numbers, its CSV files, its published tables, and none of its defects."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import tiny

from synthchex.data import images, shards, sources, tables
from synthchex.data.records import LABELS
from synthchex.maths import alignment, frechet, kernel
from synthchex.models import encoders, store
from synthchex.models.views import View
from synthchex.scores import chexgenbench, groups, sets
from synthchex.scores.chexgenbench import REGULAR, Group, Pair

# (real, synthetic) rows: FID, KID with subset_size = min after torch.manual_seed(42), of torchmetrics 1.9.0 with the
# features below; precision, recall, density, coverage of prdc 0.2.
RECORDED: dict[tuple[int, int], tuple[float, ...]] = {
    (90, 90): (
        4.150626182556152,
        0.17492084205150604,
        0.8333333333333334,
        0.8888888888888888,
        0.86,
        0.9666666666666667,
    ),
    (90, 70): (4.101357460021973, 0.13221606612205505, 0.8285714285714286, 0.9, 0.8971428571428572, 0.9555555555555556),
    (20, 15): (15.934226989746094, 0.1745905727148056, 0.8, 0.9, 1.2000000000000002, 0.95),
}
NUMBERS = ("FID (RadDino)", "KID (RadDino)", "Precision", "Recall", "Density", "Coverage")


def features(rows: int, seed: int, width: int = 24) -> np.ndarray:
    """Rows of a Gaussian whose mean depends on the seed, float32."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, width)) * np.linspace(1.5, 0.3, width) + 0.2 * seed).astype(np.float32)


def everything(real: int, synthetic: int) -> dict[str, Group]:
    return {REGULAR: Group(np.ones(real, bool), np.ones(synthetic, bool))}


def states(rows: int, **present: list[float]) -> np.ndarray:
    """Label states (rows, 14), NaN but for the named labels."""
    found = np.full((rows, len(LABELS)), np.nan, np.float32)
    for label, values in present.items():
        found[:, LABELS.index(label.replace("_", " "))] = values
    return found


@pytest.mark.parametrize(("real", "synthetic"), list(RECORDED))
def test_numbers_are_those_of_torchmetrics_and_prdc(real: int, synthetic: int) -> None:
    pair = Pair(features(real, 0), features(synthetic, 1))
    [row] = chexgenbench.image_rows(pair, pair, everything(real, synthetic))
    assert [row[name] for name in NUMBERS] == pytest.approx(RECORDED[real, synthetic], rel=1e-6)
    assert (row["FID"], row["KID"]) == (row["FID (RadDino)"], row["KID (RadDino)"])
    assert (row["n_real"], row["n_synthetic"], row["Inception Score"]) == (real, synthetic, None)


def test_torchmetrics_itself_where_it_is_installed() -> None:
    pytest.importorskip("torchmetrics")
    torch = pytest.importorskip("torch")
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Given(torch.nn.Module):  # type: ignore[name-defined, misc]
        num_features = 48

        def forward(self, rows: Any) -> Any:
            return rows

    for real, fake in ((features(300, 0, 48), features(300, 1, 48)), (features(300, 0, 48), features(260, 1, 48))):
        peers = FrechetInceptionDistance(Given()), KernelInceptionDistance(Given(), subset_size=len(fake))
        for peer in peers:
            peer.update(torch.from_numpy(real), real=True)
            peer.update(torch.from_numpy(fake), real=False)
        torch.manual_seed(7)
        expected = peers[0].compute().item(), peers[1].compute()[0].item()
        [row] = chexgenbench.image_rows(None, Pair(real, fake), everything(300, len(fake)), seed=7)
        assert (row["FID (RadDino)"], row["KID (RadDino)"]) == pytest.approx(expected, rel=1e-5)


def test_groups_are_those_of_their_pandas_steps() -> None:
    import pandas as pd

    rng = np.random.default_rng(3)
    prompts = [f"prompt {i}" for i in rng.integers(0, 40, 120)]
    labels = rng.choice([1.0, 0.0, -1.0, np.nan], (120, 14)).astype(np.float32)
    synthetic = [f"prompt {i}" for i in rng.integers(0, 60, 70)]
    found = chexgenbench.groups(prompts, labels, synthetic, rows=(120, 70))
    assert list(found) == [REGULAR, *sorted(LABELS)]
    frame = pd.DataFrame(labels, columns=list(LABELS)).assign(prompt=prompts, row=range(120))
    frame = frame.drop_duplicates(subset=["prompt"]).fillna(0)
    assert np.flatnonzero(found[REGULAR].real).tolist() == frame["row"].tolist()
    assert found[REGULAR].synthetic.all()
    for label in LABELS:
        chosen = frame[frame[label] == 1]
        assert np.flatnonzero(found[label].real).tolist() == chosen["row"].tolist()
        assert found[label].synthetic.tolist() == pd.Series(synthetic).isin(chosen["prompt"]).tolist()
    assert set(chexgenbench.groups(None, labels, synthetic, rows=(120, 70))) == {REGULAR}
    unworded = chexgenbench.groups(["", "a"], states(2, Edema=[1, 1]), ["", "a"], rows=(2, 2))
    assert unworded["Edema"].synthetic.tolist() == [False, True]


def test_a_condition_is_the_same_as_its_rows_alone() -> None:
    real, fake = features(60, 0), features(50, 1)
    edema = Group(np.arange(60) % 3 == 0, np.arange(50) % 2 == 0)
    rows = chexgenbench.image_rows(Pair(real, fake), Pair(real, fake), everything(60, 50) | {"Edema": edema})
    alone = Pair(real[edema.real], fake[edema.synthetic])
    [expected] = chexgenbench.image_rows(alone, alone, everything(20, 25))
    assert rows[1]["Pathology"] == "Edema"
    assert {**rows[1], "Pathology": REGULAR} == expected
    assert rows[0] != rows[1]


def test_what_is_no_quantity_is_empty_and_says_why() -> None:
    [row] = chexgenbench.image_rows(None, Pair(features(30, 0), features(30, 1)), everything(30, 30))
    assert [row[name] for name in ("FID", "KID", "Inception Score")] == [None] * 3
    assert any("softmax over 2048 pooled activations" in note for note in row["notes"])
    assert "FID and KID: no Inception features were given; left empty" in row["notes"]
    with pytest.raises(ValueError, match="rad_dino: expected features of 30 real and 31 synthetic films, as in the gr"):
        chexgenbench.image_rows(None, Pair(features(30, 0), features(30, 1)), everything(30, 31))


def test_alignment_is_the_mean_of_rounded_cosines() -> None:
    grouped = everything(2, 3) | {"Edema": Group(np.ones(2, bool), np.array([True, False, True]))}
    grouped["Fracture"] = Group(np.zeros(2, bool), np.zeros(3, bool))
    rows = chexgenbench.alignment_rows(np.array([0.1004, 0.2006, 0.30049]), grouped)
    assert [row["Alignment_score"] for row in rows] == pytest.approx([(0.1 + 0.201 + 0.3) / 3, 0.2, None])
    assert [row["n_synthetic"] for row in rows] == [3, 2, 0]
    assert rows[2]["notes"] == ["Alignment_score: no synthetic film has a prompt of this group"]


def image_row(label: str, value: float | None) -> dict[str, Any]:
    numbers = dict.fromkeys(chexgenbench.IMAGE_COLUMNS[:-2], value)
    return {"Pathology": label, "n_real": 3, "n_synthetic": 3, "notes": ["x"], **numbers, "Inception Score": None}


def test_csv_files_are_theirs_column_for_column(tmp_path: Path) -> None:
    rows = [image_row(REGULAR, 54.22549), image_row("Edema", 12.0), image_row("Pneumonia", None)]
    for name in ("Sana", 'mine, "new"'):
        written = chexgenbench.write_image_csv(tmp_path / "Results", rows, extra_info=name, caption_type="prompt")
    assert [path.name for path in written] == [
        "image_generation_metrics.csv", "conditional_image_generation_metrics.csv",
    ]  # fmt: skip
    head = (
        "FID,FID (RadDino),Inception Score,KID,KID (RadDino),Precision,Recall,Density,Coverage,Extra Info,Caption Type"
    )
    assert written[0].read_text().splitlines() == [
        head,
        "54.225,54.225,,54.225,54.225,54.225,54.225,54.225,54.225,Sana,prompt",
        '54.225,54.225,,54.225,54.225,54.225,54.225,54.225,54.225,"mine, ""new""",prompt',
    ]
    conditional = written[1].read_text().splitlines()
    assert conditional[0] == f"{head},Pathology"
    assert conditional[1:3] == [
        "12.0,12.0,,12.0,12.0,12.0,12.0,12.0,12.0,Sana,prompt,Edema",
        f"{',' * 9}Sana,prompt,Pneumonia",
    ]
    assert len(conditional) == 5


def test_alignment_csv_files_are_theirs(tmp_path: Path) -> None:
    rows = [{"Pathology": label, "Alignment_score": 0.69549} for label in (REGULAR, "Edema")]
    written = chexgenbench.write_alignment_csv(tmp_path, rows, extra_info="Sana")
    assert {path.name: path.read_text() for path in written} == {
        "img_text_alignment.csv": "Alignment_score,Extra Info\n0.695,Sana\n",
        "conditional_img_text_alignment.csv": "Alignment_score,Extra Info,Pathology\n0.695,Sana,Edema\n",
    }
    assert chexgenbench.write_alignment_csv(tmp_path / "one", rows[:1], extra_info="Sana") == [
        tmp_path / "one" / "img_text_alignment.csv"
    ]


def test_a_file_with_other_columns_is_left_alone(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "img_text_alignment.csv"
    path.write_text("Alignment_score,Extra Info,FRD\n0.1,x,2\n")
    with pytest.raises(ValueError, match=r"expected the columns \['Alignment_score', 'Extra Info'\] in .*, got \["):
        chexgenbench.write_alignment_csv(tmp_path, [{"Pathology": REGULAR, "Alignment_score": 0.5}], extra_info="y")
    assert path.read_text() == "Alignment_score,Extra Info,FRD\n0.1,x,2\n"
    pd.DataFrame({"Alignment_score": [0.1], "Extra Info": ["x"]}).to_csv(path, index=False)
    path.write_text(path.read_text().rstrip("\n"))
    chexgenbench.write_alignment_csv(tmp_path, [{"Pathology": REGULAR, "Alignment_score": 0.5}], extra_info="y")
    assert path.read_text() == "Alignment_score,Extra Info\n0.1,x\n0.5,y\n"


def test_processes_append_whole_lines_under_one_header(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from synthchex.scores import chexgenbench as c\n"
        "row = lambda label, value: {'Pathology': label, 'Alignment_score': value}\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for i in range(40): c.write_alignment_csv(\n"
        "    Path(sys.argv[1]), [row('regular', i / 8), row('Edema', None)], extra_info=sys.argv[2] + 'x' * 3000)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    # All are loaded before any begins, so that all meet at the empty file.
    assert [process.stdout.readline() for process in running if process.stdout] == ["ready\n"] * 4
    for process in running:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        process.communicate(timeout=120)
    assert [process.returncode for process in running] == [0] * 4
    for name, width in (("img_text_alignment.csv", 2), ("conditional_img_text_alignment.csv", 3)):
        with open(tmp_path / name, newline="") as handle:
            header, *rows = csv.reader(handle)
        assert header[:2] == ["Alignment_score", "Extra Info"]
        assert len(rows) == 160
        assert {len(row) for row in rows} == {width}
        for number in range(4):
            mine = [row[0] for row in rows if row[1] == f"{number}{'x' * 3000}"]
            assert mine == ([str(i / 8) for i in range(40)] if width == 2 else [""] * 40)


def test_the_published_tables_have_their_source_and_their_doubts() -> None:
    fidelity, privacy, conditional = (chexgenbench.published(table) for table in chexgenbench.TABLES)
    assert [len(rows) for rows in (fidelity, privacy, conditional)] == [11, 11, 11]
    models = [row["model"] for row in fidelity]
    assert models == [row["model"] for row in privacy] == [row["model"] for row in conditional]
    sana = next(row for row in fidelity if row["model"] == "Sana")
    assert (sana["FID (RadDino)"], sana["KID (RadDino)"], sana["Coverage"]) == (54.225, 0.016, 0.548)
    assert min(fidelity, key=lambda row: row["FID (RadDino)"]) is sana
    assert {row["protocol"] for row in fidelity} == {"published, other protocol"}
    assert {row["source"] for row in conditional} == {"Dutt et al. 2025, CheXGenBench, arXiv:2505.10496"}
    assert set(conditional[0]) > set(LABELS)
    doubtful = {row["model"] for row in conditional if "not to be used" in row["note"]}
    repeating = {row["model"] for row in conditional if len({row[label] for label in LABELS}) < len(LABELS)}
    assert doubtful == repeating == {"SD V1-5", "SD V2"}
    figures = chexgenbench.published_file()
    assert figures["source"]["commit"].startswith("9a201c1")
    assert "Read by eye" in figures["caveat"]
    with pytest.raises(ValueError, match=r"table must be one of \['fidelity', 'privacy', 'conditional'\], got 'frd'"):
        chexgenbench.published("frd")


def test_defect_01_the_command_needs_no_environment_and_names_a_stray_argument(
    synthchex: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    said = synthchex("evaluate", "--help", env={"PATH": "/usr/bin:/bin"})
    assert said.returncode == 0, said.stderr
    assert {"--real", "--synthetic", "--out"} <= set(said.stdout.replace("[", " ").split())
    stray = synthchex("evaluate", "--real", "r", "--synthetic", "s", "--out", "o", " ")
    assert stray.returncode == 2
    assert "unrecognized arguments" in stray.stderr


def test_defect_02_alignment_runs_in_batches_without_a_gpu_and_does_not_round(
    tmp_path: Path, films: np.ndarray
) -> None:
    encoder = encoders.load_image_text(str(tiny.clip(tmp_path / "clip")), device="cpu")
    prompts = [f"film {index}" for index in range(8)]
    one = encoder.encode_images(list(films), batch_size=1), encoder.encode_texts(prompts, batch_size=1)
    many = encoder.encode_images(list(films), batch_size=8), encoder.encode_texts(prompts, batch_size=8)
    found = alignment.cosines(*many)
    np.testing.assert_allclose(found, alignment.cosines(*one), atol=1e-5)
    assert (np.abs(found - found.round(3)) > 1e-6).any()


def test_defect_03_wrapped_pixel_distances_are_published_as_invalid_only() -> None:
    for row in chexgenbench.published("privacy"):
        assert "Avg. Pixel Distance" not in row
        assert "wrap at 0" in row["invalid"]["Avg. Pixel Distance"]["reason"]
        assert 143 < row["invalid"]["Avg. Pixel Distance"]["value"] < 163


def test_defect_04_names_lose_their_suffix_alone_and_shards_never_share_a_file(tmp_path: Path) -> None:
    assert [tables.film_stem(name) for name in ("gpj.jpg", "p10.jp.png", "jpg", ".jpg")] == [
        "gpj",
        "p10.jp",
        "jpg",
        ".jpg",
    ]
    found = sources.ImageSet("memory", ["gpj.jpg", "g.png"], str)
    assert [found.row(index)["filename"] for index in range(2)] == ["gpj.png", "g.png"]
    assert len({shards.shard_path(tmp_path, shard, 7) for shard in range(7)}) == 7
    with pytest.raises(ValueError, match="expected one of"):
        encoders.load_encoder("flux")


def test_defect_05_shards_merge_to_the_distance_of_the_whole() -> None:
    real, fake = features(400, 0), features(400, 1)
    whole = frechet.frechet_distance(real, fake)
    parts = [[frechet.moments(part) for part in np.array_split(side, 4)] for side in (real, fake)]
    assert frechet.frechet_distance(*(frechet.merge(side) for side in parts)) == pytest.approx(whole, rel=1e-9)
    averaged = np.mean([frechet.frechet_distance(one, two) for one, two in zip(*parts, strict=True)])
    assert averaged > 1.1 * whole


def test_defect_06_kid_subsets_are_not_all_the_same_set() -> None:
    real, fake = features(60, 0), features(60, 1)
    assert kernel.kernel_distance(real, fake).standard_error > 1e-3
    assert kernel.subset_distances(real, fake, subsets=10, subset_size=30).std() > 1e-3
    theirs = kernel.subset_distances(real, fake, subsets=10, subset_size=60)
    assert theirs.std() < 1e-6
    assert chexgenbench.subset_kernel_distance(real, fake) == pytest.approx(theirs.mean(), abs=1e-6)


def test_defect_07_films_are_squashed_to_299_in_the_protocol_alone() -> None:
    wide = Image.new("RGB", (640, 480))
    assert View().picture(wide, None).size == (640, 480)
    assert View(protocol="chexgenbench").picture(wide, None).size == (299, 299)


def test_defect_08_unreadable_films_are_counted_and_never_black(tmp_path: Path, films: np.ndarray) -> None:
    encoder = encoders.load_encoder(str(tiny.vit_classifier(tmp_path / "vit", list(LABELS))), device="cpu")
    given = [images.to_png(films[0]), b"junk", images.to_png(films[1])]
    found = store.encode(sources.ImageSet("memory", ["a", "b", "c"], given.__getitem__), [encoder], None, quiet=True)
    assert found.skipped == {"not-an-image": 1}
    assert found.kept.tolist() == [0, 2]
    np.testing.assert_allclose(found.features[0], encoder.encode([films[0], films[1]]), atol=1e-5)


def test_defect_09_radiomic_features_leave_no_copy_of_a_film(
    tmp_path: Path, films: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthchex.models import radiomics

    extractor = types.SimpleNamespace(execute=lambda volume, mask: {"a_mean": volume.mean(), "a_size": volume.shape[1]})
    monkeypatch.setitem(sys.modules, "SimpleITK", types.SimpleNamespace(GetImageFromArray=np.asarray))
    monkeypatch.setattr(radiomics, "_package", lambda: None)
    monkeypatch.setattr(radiomics, "_extractor", lambda *settings: extractor)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = radiomics.RadiomicsEncoder().encode([films[0], np.kron(films[1], np.ones((2, 3), np.uint8))])
    assert found[:, 1].tolist() == [256, 256], "films of two sizes must be measured at one resolution"
    assert list(tmp_path.rglob("*")) == []


def test_defect_10_uncertain_rows_are_set_apart_and_small_classes_are_a_state() -> None:
    labels = states(4, Edema=[1, -1, 0, np.nan])
    edema = groups.members(labels)["Edema"]
    assert (edema.present.tolist(), edema.absent.tolist()) == ([True, False, False, False], [False, False, True, True])
    assert groups.states(labels)["Edema"] == {"present": 1, "absent": 1, "uncertain": 1, "not mentioned": 1}
    few = {
        "Edema": Group(np.arange(30) < 4, np.arange(30) < 9),
        "Fracture": Group(np.arange(30) < 1, np.arange(30) < 9),
    }
    pair = Pair(features(30, 0), features(30, 1))
    _, small, single = chexgenbench.image_rows(None, pair, everything(30, 30) | few)
    assert small["Precision"] is None
    assert small["FID (RadDino)"] > 0
    assert "FID (RadDino): 4 films for 24 features: it measures the sample size" in small["notes"]
    assert any("Coverage: insufficient n: 4 films on a side, 6 are needed" in note for note in small["notes"])
    assert [single[name] for name in NUMBERS] == [None] * 6
    assert "FID and KID: insufficient n: 1 films on a side, 2 are needed" in single["notes"]
    real, synthetic = (
        sources.ImageSet("memory", ids, str, prompts=["clear"] * 2, has_ids=True) for ids in (["a", "b"], ["b", "a"])
    )
    joined = sources.join(real, synthetic)
    assert joined is not None
    assert joined.pairs.tolist() == [[1, 0], [0, 1]], "one report may stand for two films; ids tell them apart"


def test_defect_11_real_films_are_split_by_patient() -> None:
    patients = [f"p{index // 3}" for index in range(60)]
    first, second = sets.halves(patients, 60, 30, seed=0)
    assert len(first) > 20
    assert not {patients[row] for row in first} & {patients[row] for row in second}


def test_defect_12_the_current_stack_meets_the_requirements() -> None:
    needed = [Requirement(text) for text in metadata.requires("synthchex") or [] if "extra ==" not in text]
    assert {"datasets", "transformers", "torch"} <= {requirement.name for requirement in needed}
    for requirement in needed:
        assert requirement.specifier.contains(metadata.version(requirement.name), prereleases=True), str(requirement)
        assert "==" not in str(requirement.specifier)
