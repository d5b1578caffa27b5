"""What the files in the folder of a run are called."""

from dataclasses import astuple, dataclass

RECORD = "run.json"
LOG, CHECKPOINT = "log.txt", "checkpoint.pt"
PARTICLES, POSTERIORS, FSC, REPORT = (
    "particles.star",
    "posteriors.npz",
    "fsc.star",
    "report.html",
)
MAP, HALF1, HALF2, MASK = "map.mrc", "half1.mrc", "half2.mrc", "mask.mrc"


@dataclass(frozen=True)
class MapNames:
    """The names of the files of one reconstruction.

    Attributes
    ----------
    density, half1, half2, mask, fsc : str
    """

    density: str
    half1: str
    half2: str
    mask: str
    fsc: str

    @classmethod
    def after(cls, stem: str) -> "MapNames":
        """Return the names that begin alike, such as ``class_1``."""
        ends = (".mrc", "_half1.mrc", "_half2.mrc", "_mask.mrc", "_fsc.star")
        return cls(*(f"{stem}{end}" for end in ends))


OF_RUN = MapNames(MAP, HALF1, HALF2, MASK, FSC)


def of_class(number: int) -> MapNames:
    """Return the names of the files of a class, from 1."""
    return MapNames.after(f"class_{number}")


NOISE, EVALUATION, ERRORS = "noise.star", "evaluation.json", "evaluation.npz"
GALLERY = "gallery.npz"
ENCODER, WATCH, FIELD = "encoder.pt", "watch.pt", "field.pt"
POPULATIONS = "populations.csv"
MEAN, COMPONENT = "mean.mrc", "component_{}.mrc"
MOST_COMPONENTS = 20
MOST_CLASSES = 20
LATENTS, MODES, SCRIPT = "latents.parquet", "modes.nmd", "view.cxc"
ENSEMBLE, CENTRES, REST = "mode{}.cif", "centres.cif", "rest.cif"
_MOST_ENSEMBLES = 20
RESULTS = (
    *(PARTICLES, POSTERIORS, FSC, REPORT),
    *(MAP, HALF1, HALF2, MASK, NOISE, EVALUATION, ERRORS, ENCODER, WATCH),
    *(LATENTS, MODES, SCRIPT, CENTRES, REST),
    *(MEAN, POPULATIONS, FIELD, GALLERY),
    *(COMPONENT.format(number + 1) for number in range(MOST_COMPONENTS)),
    *(name for k in range(MOST_CLASSES) for name in astuple(of_class(k + 1))),
    *(ENSEMBLE.format(number + 1) for number in range(_MOST_ENSEMBLES)),
)
"""What a run and its evaluation leave, besides record, log and checkpoint."""
