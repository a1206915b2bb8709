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
    """

    name = "radiomics"

    def __init__(
        self,
        *,
        size: int | None = 256,
        image_types: dict[str, dict[str, Any]] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.size, self.image_types = size, image_types or IMAGE_TYPES
        self.settings = {**SETTINGS, **(settings or {})}
        self.columns: tuple[str, ...] | None = None
        self._extractor: Any = None

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
        if self._extractor is None:
            self._extractor = _extractor(_package(), self.image_types, self.settings)
        return np.stack([self._features(film) for film in pixels])

    def _features(self, film: np.ndarray) -> np.ndarray:
        import SimpleITK
        from PIL import Image

        grey = films.to_grey(film)
        if self.size is not None and grey.shape != (self.size, self.size):
            grey = np.asarray(Image.fromarray(grey).resize((self.size, self.size), Image.Resampling.BILINEAR))
        # One slice of a volume, as `force2D` expects; a mask without one corner, since pyradiomics refuses a full one.
        mask = np.ones((1, *grey.shape), np.uint8)
        mask[0, 0, 0] = 0
        volume = SimpleITK.GetImageFromArray(grey[None].astype(np.float32))
        found = self._extractor.execute(volume, SimpleITK.GetImageFromArray(mask))
        values = {key: float(value) for key, value in found.items() if not key.startswith("diagnostics_")}
        self.columns = tuple(values)
        return np.array(list(values.values()))


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
