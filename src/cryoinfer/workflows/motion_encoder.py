"""An encoder of motions: taught, climbed from, and put to the test."""

from dataclasses import dataclass, replace

import torch

from cryoinfer.inference.amortized import PoseEncoder, SemiAmortized
from cryoinfer.inference.climbs import Climbs
from cryoinfer.inference.encoder_inputs import picture_radius
from cryoinfer.inference.pose_network import PoseNetwork
from cryoinfer.inference.posteriors import PoseMixture
from cryoinfer.inference.training import Training, train
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.inference.widths import fitted_widening
from cryoinfer.interfaces import Monitor
from cryoinfer.workflows.motion_inference import FromEncoder, MotionInference
from cryoinfer.workflows.motion_problem import MotionProblem
from cryoinfer.workflows.moving_noise import Imaged
from cryoinfer.workflows.train import OF_ONE_GROUP, climb_radii, templates_of
from cryoinfer.workflows.trial import CLIMBED, ENCODER, Trial

_MODES = 4  # of the encoder, that are climbed
_FEWEST_TRIED, _MOST_TRIED = 100, 500


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
        cls, problem: MotionProblem, imaged: Imaged, monitor: Monitor
    ) -> "MotionEncoder":
        """Teach an encoder by images simulated through the particles' CTFs."""
        config = problem.config
        generator = torch.Generator().manual_seed(config.seed)
        radius = picture_radius(config.network.side)
        lent = templates_of(
            problem.particles, problem.grid, radius, imaged.noise_power, generator
        )
        images = TrainingImages(problem.subject(imaged), lent, problem.prior)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            network = PoseNetwork(config.network, problem.prior)
        alone = torch.eye(3, dtype=torch.float64)[None]
        done = train(network, images, config.training, alone, generator, monitor)
        encoder = PoseEncoder(done.network, problem.grid, imaged.noise_power, alone)
        return cls(problem, encoder, done)

    def inference(self, imaged: Imaged) -> MotionInference:
        """Return the climbs from what the encoder names, as far off as it errs."""
        problem = self.problem
        last = problem.grid.box // 2 - 1
        degrees = self.training.checks[-1].median_degrees
        first = climb_radii(degrees, self.encoder.radius, last)[0]
        climbs = Climbs(
            problem.subject(imaged),
            problem.prior,
            problem.radii(first),
            problem.grid.length_angstrom / 4,
            self.encoder.symmetry,
            _MODES,
            problem.config.draws,
        )
        encoder = replace(self.encoder, noise_power=imaged.noise_power)
        semi = SemiAmortized(encoder, climbs)
        return MotionInference.of(problem, FromEncoder(semi), imaged)

    def tried(
        self, inference: MotionInference, monitor: Monitor
    ) -> tuple[MotionInference, dict[str, Trial]]:
        """Fit the widths of posteriors to simulated images, and try them on others.

        The curvature of a top tells the width of a posterior too small where an image
        says little.

        Returns
        -------
        inference : MotionInference
            With fitted widths, unless posteriors have their own moments.
        trials : dict of str to Trial
            Of images that no width was fitted to.
        """
        # As many as there are particles: a trial is not to take longer than they do.
        count = len(self.problem.particles)
        count = min(max(count, _FEWEST_TRIED), _MOST_TRIED) // OF_ONE_GROUP
        source = self._simulated(inference)
        seed = self.problem.config.seed
        generator = torch.Generator().manual_seed(seed + 1)
        monitor.stage("calibration", count if inference.polishes else 2 * count)
        drawn = [source.draw(OF_ONE_GROUP, generator) for _ in range(count)]
        if not inference.polishes:
            others = [source.draw(OF_ONE_GROUP, generator) for _ in range(count)]
            found = [_infer(inference, images, monitor) for images, _ in others]
            truths = [truth for _, truth in others]
            inference = replace(inference, widening=fitted_widening(found, truths))
        climbed = [_infer(inference, images, monitor) for images, _ in drawn]
        encoded = [self.encoder.infer_whitened(images) for images, _ in drawn]
        trials = {}
        for name, posteriors in ((ENCODER, encoded), (CLIMBED, climbed)):
            draws = torch.Generator().manual_seed(seed + 2)
            trials[name] = Trial.of(
                posteriors, [truth for _, truth in drawn], self.encoder.symmetry, draws
            )
        return inference, trials

    def _simulated(self, inference: MotionInference) -> TrainingImages:
        problem = self.problem
        generator = torch.Generator().manual_seed(problem.config.seed + 1)
        lent = templates_of(
            problem.particles,
            problem.grid,
            problem.grid.box // 2 - 1,
            inference.imaged.noise_power,
            generator,
            2 * _MOST_TRIED,
        )
        return TrainingImages(inference.finder.subject, lent, problem.prior)


def _infer(
    inference: MotionInference, images: WhitenedImages, monitor: Monitor
) -> PoseMixture:
    found = inference.posterior(images, torch.arange(len(images)))
    monitor.advance()
    return found
