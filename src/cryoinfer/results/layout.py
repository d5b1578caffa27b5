"""What the files in the folder of a run are called."""

RECORD = "run.json"
LOG, CHECKPOINT = "log.txt", "checkpoint.pt"
PARTICLES, POSTERIORS, FSC, REPORT = (
    "particles.star",
    "posteriors.npz",
    "fsc.star",
    "report.html",
)
MAP, HALF1, HALF2, MASK = "map.mrc", "half1.mrc", "half2.mrc", "mask.mrc"
NOISE, EVALUATION, ERRORS = "noise.star", "evaluation.json", "evaluation.npz"
ENCODER, WATCH = "encoder.pt", "watch.pt"
POPULATIONS = "populations.csv"
MEAN, COMPONENT = "mean.mrc", "component_{}.mrc"
MOST_COMPONENTS = 20
CLASS_FILE = "class_{}{}"
CLASS_KINDS = (".mrc", "_half1.mrc", "_half2.mrc", "_mask.mrc", "_fsc.star")
"""Ends of the names of the files of a class: map, half-maps, mask and FSC."""

MOST_CLASSES = 20
LATENTS, MODES, SCRIPT = "latents.parquet", "modes.nmd", "view.cxc"
ENSEMBLE, CENTRES, REST = "mode{}.cif", "centres.cif", "rest.cif"
_MOST_ENSEMBLES = 20
RESULTS = (
    *(PARTICLES, POSTERIORS, FSC, REPORT),
    *(MAP, HALF1, HALF2, MASK, NOISE, EVALUATION, ERRORS, ENCODER, WATCH),
    *(LATENTS, MODES, SCRIPT, CENTRES, REST),
    *(MEAN, POPULATIONS),
    *(COMPONENT.format(number + 1) for number in range(MOST_COMPONENTS)),
    *(
        CLASS_FILE.format(number + 1, kind)
        for number in range(MOST_CLASSES)
        for kind in CLASS_KINDS
    ),
    *(ENSEMBLE.format(number + 1) for number in range(_MOST_ENSEMBLES)),
)
"""What a run and its evaluation leave, besides record, log and checkpoint."""
