"""An encoder of motions: trained, and refined from."""

from dataclasses import dataclass, replace

import torch

from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.amortized import PoseEncoder
from cryoinfer.inference.encoder_inputs import picture_radius
from cryoinfer.inference.pose_network import PoseNetwork
from cryoinfer.inference.training import Training, train
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.interfaces import Monitor
from cryoinfer.workflows.motion_inference import MotionInference
from cryoinfer.workflows.motion_problem import MotionProblem
from cryoinfer.workflows.noise_and_scale import NoiseAndScale
from cryoinfer.workflows.simulated_images import templates_of
from cryoinfer.workflows.trained_encoder import refinement_radii

_MODES = 4  # of the encoder, that are refined


@dataclass(frozen=True)
class MotionEncoder:
    """An encoder that has learned images of a model that moves.

    Attributes
    ----------
    problem : MotionProblem
    encoder : PoseEncoder
    training : Training
        How it learned.
    """

    problem: MotionProblem
    encoder: PoseEncoder
    training: Training

    @classmethod
    def taught(
        cls, problem: MotionProblem, measured: NoiseAndScale, monitor: Monitor
    ) -> "MotionEncoder":
        """Teach an encoder by images simulated through the particles' CTFs."""
        config = problem.config
        generator = torch.Generator().manual_seed(config.seed)
        radius = picture_radius(config.network.side)
        lent = templates_of(
            problem.particles, problem.grid, radius, measured.noise_power, generator
        )
        images = TrainingImages(problem.projector(measured), lent, problem.prior)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            network = PoseNetwork(config.network, problem.prior)
        alone = symmetry_rotations("C1")
        done = train(network, images, config.training, alone, generator, monitor)
        encoder = PoseEncoder(done.network, problem.grid, measured.noise_power, alone)
        return cls(problem, encoder, done)

    def inference(self, measured: NoiseAndScale) -> MotionInference:
        """Return the refinement of what the encoder proposes, as far off as it errs."""
        problem = self.problem
        last = problem.last_radius
        degrees = self.training.checks[-1].median_degrees
        first = refinement_radii(degrees, self.encoder.radius, last)[0]
        encoder = replace(self.encoder, noise_power=measured.noise_power)
        refinement = problem.refinement(encoder, first, last, _MODES)
        return MotionInference.of(problem, refinement, measured)
