"""Variational posteriors against those of Pyro, another program.

Its models are written as Pyro's are, with sites and plates; its guide, its bound and
its optimiser are its own. Where it is not installed, this is said, and nothing tested.
"""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from cryoinfer.inference.variational import GaussianGuide, VariationalConfig, fit_guides

pyro = pytest.importorskip(
    "pyro", reason="pyro-ppl is not installed: no agreement is tested"
)
dist = pyro.distributions

BOX = 64
AXIS = torch.arange(BOX, dtype=torch.float64) - BOX // 2


def sited(name: str, prior: torch.distributions.Distribution, n: int) -> Tensor:
    """Sample n unknowns one by one: their posteriors are independent."""
    with pyro.plate(f"{name} of images", n):
        unknown: Tensor = pyro.sample(name, prior)
    return unknown


def posterior_of_pyro(
    model: Callable[[], None], start: dict[str, Tensor], widths: dict[str, float]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the mean and sd that Pyro fits to every site, beginning at the start."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    steps, positive = 600, dist.constraints.positive

    def guide() -> None:
        for name, mean in start.items():
            n = len(mean)
            centre = pyro.param(f"{name} centre", torch.zeros(n, dtype=torch.float64))
            spread = pyro.param(
                f"{name} spread", torch.ones(n, dtype=torch.float64), positive
            )
            width = widths[name]
            sited(name, dist.Normal(mean + width * centre, width * spread), n)

    schedule = pyro.optim.ExponentialLR(
        {
            "optimizer": torch.optim.Adam,
            "optim_args": {"lr": 0.1},
            "gamma": 0.01 ** (1 / steps),
        }
    )
    inference = pyro.infer.SVI(
        model, guide, schedule, pyro.infer.Trace_ELBO(num_particles=4)
    )
    for _ in range(steps):
        inference.step()
        schedule.step()
    store = pyro.get_param_store()
    return {
        name: (
            mean + widths[name] * store[f"{name} centre"].detach(),
            widths[name] * store[f"{name} spread"].detach(),
        )
        for name, mean in start.items()
    }


def ours(
    log_joint: Callable[[Tensor], Tensor], start: Tensor, width: float
) -> GaussianGuide:
    n, d = start.shape
    factor = width * torch.eye(d, dtype=start.dtype).expand(n, d, d)
    generator = torch.Generator().manual_seed(1)
    config = VariationalConfig(steps=150, samples=4)
    return fit_guides(log_joint, GaussianGuide(start, factor), config, generator)


def test_pyro_finds_the_conjugate_posterior() -> None:
    measured = torch.tensor([8.0, 9.0], dtype=torch.float64)

    def model() -> None:
        mean = sited("mean", dist.Normal(1.0, math.sqrt(5)), 1)
        with pyro.plate("measurements", 2):
            pyro.sample("measured", dist.Normal(mean, math.sqrt(2)), obs=measured)

    start = {"mean": torch.ones(1, dtype=torch.float64)}
    mean, sd = posterior_of_pyro(model, start, {"mean": math.sqrt(5)})["mean"]

    def joint(unknowns: Tensor) -> Tensor:
        prior = dist.Normal(1.0, math.sqrt(5)).log_prob(unknowns[..., 0])
        return prior + dist.Normal(unknowns, math.sqrt(2)).log_prob(measured).sum(-1)

    guide = ours(joint, torch.ones(1, 1, dtype=torch.float64), math.sqrt(5))
    # Pyro's gradient stays noisy where the posterior is reached: 0.03 of 0.913.
    assert abs(float(mean) - 7.25) < 0.05
    assert abs(float(sd) - 0.9129) < 0.05
    assert abs(float(guide.mean - mean)) < 0.05
    assert abs(float(guide.standard_deviation - sd)) < 0.05


@pytest.mark.parametrize(
    ("noise", "quoted"),
    [pytest.param(0.1, 0.188, marks=pytest.mark.slow), (0.2, 0.371)],
)
def test_pyro_finds_the_shift_of_a_blob(noise: float, quoted: float) -> None:
    def blob(shift: Tensor) -> Tensor:
        return torch.exp(-(AXIS - shift[..., None]).square() / (2 * 10))

    truth = torch.ones(10, dtype=torch.float64)
    images = blob(truth)
    # The first stays free of noise: its posterior has the width that is quoted.
    generator = torch.Generator().manual_seed(3)
    images[1:] += noise * torch.randn(9, BOX, generator=generator, dtype=torch.float64)

    def model() -> None:
        shift = sited("shift", dist.Normal(0.0, 2.0), 10)
        with pyro.plate("images", 10):
            # One event an image: another plate of pixels would count it again.
            pyro.sample(
                "image", dist.Normal(blob(shift), noise).to_event(1), obs=images
            )

    mean, sd = posterior_of_pyro(model, {"shift": truth}, {"shift": 0.5})["shift"]

    def joint(unknowns: Tensor) -> Tensor:
        shift = unknowns[..., 0]
        prior = dist.Normal(0.0, 2.0).log_prob(shift)
        return prior + dist.Normal(blob(shift), noise).log_prob(images).sum(-1)

    guide = ours(joint, truth[:, None], 0.5)
    # Its gradient's noise leaves 2 to 3 % of the sd in both.
    assert abs(float(sd[0]) - quoted) < 0.06 * quoted
    assert torch.allclose(guide.standard_deviation[:, 0], sd, rtol=0.1)
    assert float(((guide.mean[:, 0] - mean) / sd).abs().max()) < 0.1


def pseudo_atoms() -> Tensor:
    """Return the (x, y) of ten pseudo-atoms, in pixels."""
    generator = torch.Generator().manual_seed(10)
    inside = 2 * torch.rand(10, 2, generator=generator) - 1
    return inside.double() * BOX / 3


def project(atoms: Tensor) -> Tensor:
    blobs = torch.exp(-(AXIS - atoms[..., None]).square() / (2 * 3.5**2))
    return blobs[..., 1, :].mT @ blobs[..., 0, :]


def rate_of_shift(x: Tensor, y: Tensor) -> Tensor:
    shift = torch.stack([x, y], -1)
    return 0.05 * project(pseudo_atoms() - shift[..., None, :]) + 0.01


def rate_of_defocus(defocus: Tensor) -> Tensor:
    along = torch.fft.fftfreq(BOX, dtype=torch.float64)
    phase = defocus[..., None, None] * (along[:, None].square() + along.square())
    image = torch.fft.ifft2(torch.fft.fft2(project(pseudo_atoms())) * phase.sin()).real
    return 100.0 * (image + 1.0) + 10.0  # no defocus under the prior is darker than -1


def joint_of_counts(
    rate: Callable[..., Tensor],
    priors: list[torch.distributions.Normal],
    counts: Tensor,
    unknowns: Tensor,
) -> Tensor:
    each = unknowns.unbind(-1)
    prior = sum(p.log_prob(x) for p, x in zip(priors, each, strict=True))
    return prior + dist.Poisson(rate(*each)).log_prob(counts).sum((-2, -1))


def assert_agreement_on_counts(
    rate: Callable[..., Tensor],
    priors: dict[str, torch.distributions.Normal],
    truth: Tensor,
    width: float,
) -> None:
    generator = torch.Generator().manual_seed(2)
    counts = torch.poisson(rate(*truth.unbind(-1)), generator=generator)

    def model() -> None:
        each = [sited(name, prior, len(truth)) for name, prior in priors.items()]
        with pyro.plate("images", len(truth)):
            pyro.sample("counts", dist.Poisson(rate(*each)).to_event(2), obs=counts)

    start = {name: truth[:, i] for i, name in enumerate(priors)}
    theirs = posterior_of_pyro(model, start, dict.fromkeys(priors, width))
    joint = partial(joint_of_counts, rate, list(priors.values()), counts)
    guide = ours(joint, truth, width)
    # Pyro's guide holds x and y independent: its sds are those at a given other one.
    precision = torch.linalg.inv(guide.factor @ guide.factor.mT)
    given_others = precision.diagonal(dim1=1, dim2=2).rsqrt()
    for i, name in enumerate(priors):
        mean, sd = theirs[name]
        # Noise of Pyro's last gradients: 3 % of a sd, three times that at worst.
        assert float(((guide.mean[:, i] - mean) / sd).abs().max()) < 0.15
        assert float((given_others[:, i] / sd - 1).abs().mean()) < 0.05
        assert torch.allclose(given_others[:, i], sd, rtol=0.15)


@pytest.mark.slow
def test_pyro_finds_shifts_in_the_plane() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = 5 * torch.randn(20, 2, generator=generator, dtype=torch.float64)
    priors = {"x": dist.Normal(0.0, 10.0), "y": dist.Normal(0.0, 10.0)}
    assert_agreement_on_counts(rate_of_shift, priors, truth, 1.0)


@pytest.mark.slow
def test_pyro_finds_defocus() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = 100 + 30 * torch.randn(10, 1, generator=generator, dtype=torch.float64)
    priors = {"defocus": dist.Normal(100.0, 30.0)}
    assert_agreement_on_counts(rate_of_defocus, priors, truth, 2.0)
