"""cryoDRGN's dialect: units and signs of its poses and CTFs.

Its rotation is RELION's Euler matrix A, reference to image, and that of this library.
Its translation is RELION's origin as a fraction of the box: it moves the image onto the
reference, so that the particle is displaced by its negative. Its CTF has RELION's
parameters and the opposite sign: it turns the contrast of images round when it reads
them, unless it is told otherwise. Its stacks are white on black, as RELION's.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from cryoinfer.errors import InputError
from cryoinfer.io.conventions.table import ParticleTable
from cryoinfer.io.cryodrgn import CryodrgnPoses
from cryoinfer.records import Pose


def pose_of(poses: CryodrgnPoses, box_angstrom: NDArray[np.float64]) -> Pose:
    """Return poses in the library's terms.

    Parameters
    ----------
    poses : CryodrgnPoses, of n particles
    box_angstrom : array, shape (n,)
        Side of each particle's image.
    """
    # 0 - translation instead of -translation: no negative zeros.
    shift = 0.0 - poses.translation * box_angstrom[:, None]
    return Pose(torch.from_numpy(poses.rotation), torch.from_numpy(shift))


def with_ctf(table: ParticleTable, parameters: NDArray[np.float64]) -> ParticleTable:
    """Return particles with CTFs, and the pixel size that goes with them.

    Where images have another size than the parameters say, they are the same area in
    other pixels, as cryoDRGN takes them.

    Parameters
    ----------
    table : ParticleTable
        Of n particles without CTFs whose image sizes are known.
    parameters : array, shape (n, 9)
        As :func:`cryoinfer.io.cryodrgn.read_ctf` returns them.

    Raises
    ------
    InputError
        If one has no size.
    """
    column = torch.from_numpy(np.ascontiguousarray(parameters.T))
    side, pixel_size = column[0], column[1]
    if not bool(((side > 0) & (pixel_size > 0)).all()):
        raise InputError(
            "The CTF parameters must begin with an image size and a pixel size above 0"
        )
    optics = replace(
        table.optics,
        pixel_size_angstrom=side * pixel_size / table.box,
        defocus_u_angstrom=column[2],
        defocus_v_angstrom=column[3],
        defocus_angle_radian=torch.deg2rad(column[4]),
        voltage_kv=column[5],
        cs_mm=column[6],
        amplitude_contrast=column[7],
        phase_shift_radian=torch.deg2rad(column[8]),
    )
    return replace(table, optics=optics, has_ctf=True)
