"""Films to radiomic features by pyradiomics, an optional package. Knows neither metrics nor datasets.

The settings are those of FRD version 1 (Konz, Osuala et al. 2026): original, Laplacian-of-Gaussian and wavelet images;
first-order, co-occurrence, run-length, size-zone and neighbouring-tone features; the whole film as the region.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from synthchex.data import images as films
from synthchex.data import records

IMAGE_TYPES: dict[str, dict[str, Any]] = {"Original": {}, "LoG": {"sigma": [2.0, 3.0, 4.0, 5.0]}, "Wavelet": {}}
GLCM = [
    "Autocorrelation",
    "JointAverage",
    "ClusterProminence",
    "ClusterShade",
    "ClusterTendency",
    "Contrast",
    "Correlation",
    "DifferenceAverage",
    "DifferenceEntropy",
    "DifferenceVariance",
    "JointEnergy",
    "JointEntropy",
    "Imc1",
    "Imc2",
    "Idm",
    "Idmn",
    "Id",
    "Idn",
    "InverseVariance",
    "MaximumProbability",
    "SumEntropy",
    "SumSquares",
]
CLASSES: dict[str, list[str]] = {"firstorder": [], "glcm": GLCM, "glrlm": [], "glszm": [], "ngtdm": []}
SETTINGS: dict[str, Any] = {
    "normalize": True,
    "normalizeScale": 100,
    "voxelArrayShift": 300,
    "binWidth": 5,
    "interpolator": "sitkBSpline",
    "resampledPixelSpacing": [2, 2, 0],
    "padDistance": 10,
    "preCrop": True,
    "force2D": True,
    "force2Ddimension": 0,
    "label": 1,
}
HINT = (
    "this needs pyradiomics, which is not installed: pip install git+https://github.com/AIM-Harvard/pyradiomics "
    "(or conda install -c conda-forge pyradiomics), or pass a table of features"
)


class RadiomicsEncoder:
    """An encoder whose features are radiomic; pyradiomics is asked for when the first film comes.

    Args:
        size: films are resized to size x size first, antialiased; None leaves them, at a minute each for large ones.
        image_types: instead of those of FRD version 1.
        settings: changes to those of FRD version 1.
        num_workers: processes that extract; below 2 all is done in this one. pyradiomics holds Python's lock, so
            threads would not help. Scripts that ask for processes need the usual `if __name__ == "__main__":`.
    """

    name = "radiomics"

    def __init__(
        self,
        *,
        size: int | None = 256,
        image_types: dict[str, dict[str, Any]] | None = None,
        settings: dict[str, Any] | None = None,
        num_workers: int = 0,
    ) -> None:
        self.size, self.image_types = size, image_types or IMAGE_TYPES
        self.settings = {**SETTINGS, **(settings or {})}
        self.num_workers = num_workers
        self.columns: tuple[str, ...] | None = None
        self._extractor: Any = None
        self._pool: Any = None

    @property
    def key(self) -> str:
        """Hash of settings and version: tables with different keys are never compared.

        Raises:
            ImportError: pyradiomics is missing; one line that says how to get it.
        """
        version = str(getattr(_package(), "__version__", "unknown"))
        return records.fingerprint(["radiomics", self.size, self.image_types, self.settings, CLASSES, version])

    def encode(self, pixels: Sequence[np.ndarray], *, batch_size: int = 32) -> np.ndarray:
        """Radiomic features of uint8 films, float64 (N, features); their names are in `columns` afterwards.

        Raises:
            ImportError: pyradiomics is missing; one line that says how to get it.
        """
        if self.num_workers > 1:
            found = list(self._workers().map(_extracted, pixels))
        else:
            self._extractor = self._extractor or _extractor(_package(), self.image_types, self.settings)
            found = [_features(self._extractor, film, self.size) for film in pixels]
        self.columns = tuple(found[0])
        return np.stack([np.array(list(values.values())) for values in found])

    def _workers(self) -> Any:
        """Processes that live as long as this encoder."""
        if self._pool is None:
            import multiprocessing
            import weakref
            from concurrent.futures import ProcessPoolExecutor

            _package()
            self._pool = ProcessPoolExecutor(
                self.num_workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(self.image_types, self.settings, self.size),
            )
            weakref.finalize(self, self._pool.shutdown)
        return self._pool


_WORKER: dict[str, Any] = {}  # of a worker process: its extractor and size


def _start(image_types: dict[str, dict[str, Any]], settings: dict[str, Any], size: int | None) -> None:
    _WORKER.update(extractor=_extractor(_package(), image_types, settings), size=size)


def _extracted(film: np.ndarray) -> dict[str, float]:
    return _features(_WORKER["extractor"], film, _WORKER["size"])


def _features(extractor: Any, film: np.ndarray, size: int | None) -> dict[str, float]:
    """Radiomic features of one film by name."""
    import SimpleITK
    from PIL import Image

    grey = films.to_grey(film)
    if size is not None and grey.shape != (size, size):
        grey = np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR))
    # One slice of a volume, as `force2D` expects; a mask without one corner, since pyradiomics refuses a full one.
    mask = np.ones((1, *grey.shape), np.uint8)
    mask[0, 0, 0] = 0
    volume = SimpleITK.GetImageFromArray(grey[None].astype(np.float32))
    found = extractor.execute(volume, SimpleITK.GetImageFromArray(mask))
    return {key: float(value) for key, value in found.items() if not key.startswith("diagnostics_")}


def _package() -> Any:
    try:
        import radiomics
        import radiomics.featureextractor
    except ImportError as error:
        raise ImportError(HINT) from error
    return radiomics


def _extractor(package: Any, image_types: dict[str, dict[str, Any]], settings: dict[str, Any]) -> Any:
    logging.getLogger("radiomics").setLevel(logging.ERROR)  # it warns about every film that is not a volume
    extractor = package.featureextractor.RadiomicsFeatureExtractor(**settings)
    extractor.disableAllImageTypes()
    extractor.disableAllFeatures()
    for kind, options in image_types.items():
        extractor.enableImageTypeByName(kind, customArgs=options)
    for kind, names in CLASSES.items():
        if names:
            extractor.enableFeaturesByName(**{kind: names})
        else:
            extractor.enableFeatureClassByName(kind)
    return extractor
