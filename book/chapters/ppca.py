import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch

    from course import (
        Choice,
        Line,
        Panel,
        Plot,
        Points,
        Slider,
        choose,
        closing,
        exercise,
        explore,
        opening,
        source,
    )
    from cryoinfer.inference.linear_conformation import ConformationLikelihood


@app.cell
def _():
    opening("ppca")
    return


@app.cell
def _():
    mo.md(r"""
    ## Maps and coordinates at once

    If we knew how much of each change every particle has, the maps would follow by least
    squares. If we knew the maps, least squares would give the coordinates. We know
    neither. So we say how images come about and let *Expectation and maximisation* work.

    A particle has a few coordinates $z$, drawn from a normal distribution of mean 0 and
    unit variance. Its map is a mean and a sum of $q$ **principal volumes**, the columns
    of $U$, and its image shows a slice of that:

    $$y = C P_R\,(\mu + U z) + \text{noise of power } \sigma^2 .$$

    This is **probabilistic PCA** (Tipping and Bishop), seen through slices. Let
    $A = C P_R U$ be the slices of the principal volumes and $r = y - C P_R\, \mu$ what the
    mean does not explain.

    *E-step.* The log of prior times likelihood is a parabola in $z$,
    $-\tfrac12 \lVert z \rVert^2 - \tfrac{1}{2 \sigma^2} \lVert r - A z \rVert^2$, so the
    posterior is normal. Set the derivative to zero, and read the curvature off:

    $$\operatorname{Cov} = \left(I + A^\mathsf{T} A / \sigma^2\right)^{-1}, \qquad
    \langle z \rangle = \operatorname{Cov}\, A^\mathsf{T} r / \sigma^2 .$$

    *M-step.* Call $a = (1, z)$. Least squares for mean and volumes together gives, at
    every coefficient of Fourier space by itself, a small system of $q + 1$ equations:

    $$\left( \sum_i C_i^2\, \langle a a^\mathsf{T} \rangle_i \right) (\mu, U)^\mathsf{T} =
    \sum_i C_i\, y_i\, \langle a \rangle_i , \qquad
    \langle z z^\mathsf{T} \rangle =
    \langle z \rangle \langle z \rangle^\mathsf{T} + \operatorname{Cov} .$$

    The last term matters. Without it, noise in $\langle z \rangle$ would pass for
    variation.
    """)
    return


@app.function
def posteriors(seen, images, volumes, noise_power):
    """Return means and covariances of z, and log-likelihoods, of n images.

    Parameters: the CTF (n, d); images (n, d); mean and volumes (1 + q, d); noise.
    """
    left = images - seen * volumes[0]
    slices = seen[:, None] * volumes[1:]
    precision = (
        np.eye(len(volumes) - 1) + slices @ slices.transpose(0, 2, 1) / noise_power
    )
    covariance = np.linalg.inv(precision)
    slope = (slices @ left[..., None])[..., 0] / noise_power
    mean = (covariance @ slope[..., None])[..., 0]
    power = (left**2).sum(1) / noise_power - (slope * mean).sum(1)
    volume = np.linalg.slogdet(precision)[1]
    constant = images.shape[1] * np.log(2.0 * np.pi * noise_power)
    return mean, covariance, -0.5 * (power + volume + constant)


@app.function
def em_step(seen, images, volumes, noise_power):
    """Return volumes, noise power, and the log-likelihood before the step."""
    z, covariance, likelihood = posteriors(seen, images, volumes, noise_power)
    first = np.concatenate([np.ones((len(z), 1)), z], 1)
    second = first[:, :, None] * first[:, None]
    second[:, 1:, 1:] += covariance
    left = np.einsum("nd,nkl->dkl", seen**2, second)
    right = np.einsum("nd,nk->dk", seen * images, first)
    found = np.linalg.solve(left, right[..., None])[..., 0].T
    unexplained = (images - seen * (first @ found)) ** 2
    unsure = seen**2 * np.einsum("kd,nkl,ld->nd", found[1:], covariance, found[1:])
    return found, float((unexplained + unsure).mean()), float(likelihood.sum())


@app.cell
def _():
    source(posteriors, em_step)
    return


@app.function
def moving_profiles(count, noise, share_seen, seed):
    """Return what is seen, images and true z of profiles of 32 numbers."""
    rng = np.random.default_rng(seed)
    at = np.arange(32.0)
    bell = np.exp(-((at - 22.0) ** 2) / 18.0)
    ways = np.stack([bell * (at - 22.0) / 3.0, np.exp(-((at - 9.0) ** 2) / 8.0)])
    mean = np.exp(-((at - 9.0) ** 2) / 8.0) + bell
    z = rng.standard_normal((count, 2))
    seen = (rng.random((count, 32)) < share_seen).astype(float)
    images = seen * (mean + z @ (ways * [[1.0], [0.6]]))
    return seen, images + noise * rng.standard_normal(images.shape), z


@app.function
def em_history(share_seen, seed, steps, noise=0.5):
    """Return volumes, noise power and log-likelihood before each step of EM."""
    seen, images, _ = moving_profiles(300, noise, share_seen, seed=0)
    start = np.random.default_rng(seed).standard_normal((3, 32)) * 0.1
    history, volumes, power = [], start, 1.0
    for _ in range(steps):
        after, power_after, likelihood = em_step(seen, images, volumes, power)
        history.append((volumes, power, likelihood))
        volumes, power = after, power_after
    return history


@app.function
def best_log_likelihood(images, components):
    """Return the largest log-likelihood of probabilistic PCA, and the noise there."""
    n, d = images.shape
    values = np.linalg.eigvalsh(np.cov(images.T, bias=True))[::-1]
    noise_power = values[components:].mean()
    logs = np.log(values[:components]).sum() + (d - components) * np.log(noise_power)
    return -0.5 * n * (d * np.log(2.0 * np.pi) + logs + d), noise_power


@app.cell
def _():
    mo.md(r"""
    ## Watch it climb

    The log-likelihood of an image is that of a normal vector with the covariance
    $A A^\mathsf{T} + \sigma^2 I$. A step of EM never lowers it. Where every image shows
    every coefficient, the top of the hill is known: of the covariance of the images with
    eigenvalues $\lambda_1 \ge \lambda_2 \ge \dots$ and eigenvectors $v_k$, the best volumes
    are $u_k = v_k \sqrt{\lambda_k - \sigma^2}$, and the best $\sigma^2$ is the mean of the
    eigenvalues that are left out.

    Move the step: EM climbs to that height. Then let images show half of the coefficients:
    there is no closed form any more, and EM climbs as before. Coordinates line up.
    """)
    return


@app.cell
def _():
    _steps = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 40, 60)
    _shares = {"all coefficients": 1.0, "half of them": 0.5}
    _runs = {
        (name, seed): em_history(share, seed, 61)
        for name, share in _shares.items()
        for seed in (1, 2)
    }
    _top, _ = best_log_likelihood(moving_profiles(300, 0.5, 1.0, 0)[1], 2)

    def climbing(step, shows, seed):
        history = _runs[shows, seed]
        volumes, power, likelihood = history[step]
        seen, images, truth = moving_profiles(300, 0.5, _shares[shows], seed=0)
        z, _, _ = posteriors(seen, images, volumes, power)
        # The first true coordinate, along the direction in z that tells it best.
        along = np.linalg.lstsq(z - z.mean(0), truth[:, 0], rcond=None)[0]
        told = (z - z.mean(0)) @ along
        curve = np.array([one[2] for one in history]) / 1000.0
        marks = [
            Line(np.arange(61), curve, "EM"),
            Points([step], [likelihood / 1000.0], "now"),
        ]
        if shows == "all coefficients":
            marks.append(
                Line(
                    [0, 60], [_top / 1000.0, _top / 1000.0], "closed form", dashed=True
                )
            )
        like = np.corrcoef(told, truth[:, 0])[0, 1]
        height = (-13, -6) if shows == "all coefficients" else None
        dots = (Points(truth[:, 0], told), Line([-3, 3], [-3, 3], dashed=True))
        wide, unit = (-3.5, 3.5), "1,000 nats"
        return Plot(
            (
                Panel(tuple(marks), "Log-likelihood", "step", unit, None, height),
                Panel(dots, "A coordinate", "true z", "found z", wide, wide),
            ),
            says=f"Log-likelihood of 300 images {likelihood:,.1f} nats; noise power "
            f"{power:.3f} (true 0.25). Correlation of z with the truth {like:.3f}.",
        )

    explore(
        climbing,
        step=Slider("step", _steps, 0),
        shows=Choice("an image shows", tuple(_shares)),
        seed=Slider("start", (1, 2), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Coordinates have no names

    Turn the volumes, $U \to U Q$ with a rotation $Q$, and the coordinates with them,
    $z \to Q^\mathsf{T} z$. The map $\mu + U z$ of every particle stays the same, and so does
    the prior of $z$: no image can tell $U$ from $U Q$. Programs print the axes that make
    volumes orthogonal, the largest first. That is a convention. What is real is the plane
    that they span, and the cloud of particles in it.

    ## A view that says little

    Some images say little of a motion: it goes along the line of sight, or the defocus is
    unlucky. Let $A$ be one slice of size $\lVert A \rVert = s$. Then

    $$\langle z \rangle = \frac{s^2}{s^2 + \sigma^2} \left( z + \frac{\sigma}{s}\, \epsilon
    \right), \qquad \text{sd} = \frac{\sigma}{\sqrt{s^2 + \sigma^2}} ,$$

    with $\epsilon$ normal: where $s$ is small, the estimate stays near 0 and its error bar is
    that of the prior, 1. Leave the prior out, as in the limit of small noise, and the
    estimate is $A^\mathsf{T} r / s^2$, with an error of $\sigma / s$: images that say least
    get the largest coordinates. Below, they say less from right to left. Raise the noise.
    """)
    return


@app.function
def estimates(strength, z, noise, rng):
    """Return z with the prior, its error bar, and z without the prior."""
    told = strength * z + noise * rng.standard_normal(len(z))
    with_prior = strength * told / (strength**2 + noise**2)
    return with_prior, noise / np.hypot(strength, noise), told / strength


@app.cell
def _():
    def weak_views(noise, weakest):
        strength = np.geomspace(1.0, weakest, 120)
        rng = np.random.default_rng(4)
        z = rng.standard_normal(120)
        found, sd, bare = estimates(strength, z, noise, rng)
        rms = [np.sqrt(np.mean((one - z) ** 2)) for one in (found, bare)]
        inside = np.mean(np.abs(found - z) < sd)
        marks = (
            Points(strength, bare - z, "without prior"),
            Points(strength, found - z, "with prior"),
            Line(strength, sd, "its error bar"),
            Line(strength, -sd),
        )
        across, high = "size s of the slice", "estimate - truth"
        return Plot(
            (Panel(marks, "Error of z", across, high, None, (-6.0, 6.0), log_x=True),),
            says=f"Root mean square error {rms[0]:.2f} with the prior and {rms[1]:.2f} "
            f"without; {100 * inside:.0f} % of the truths are within the error bar.",
        )

    explore(
        weak_views,
        noise=Slider(
            "noise (standard deviation)", (0.05, 0.1, 0.2, 0.3, 0.5, 0.8), 0.3
        ),
        weakest=Slider("weakest view", (0.05, 0.1, 0.2, 0.5), 0.1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *The spread of coordinates depends on the direction of view.* Without a prior, views
      that say little scatter most. Look at error bars, not at the cloud alone.
    - *Volumes are zero and stay so.* At $U = 0$ every $\langle z \rangle$ is 0.
    - *More components always fit better.* So they do, also where they fit noise. The
      likelihood of images that were not used rises with real components alone.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"A slice of the component has the size $s = 1$ in an image of noise $\sigma = 0.5$. "
        "What is the standard deviation of the posterior of z?",
        estimates(np.ones(1), np.zeros(1), 0.5, np.random.default_rng(0))[1][0],
        tolerance=0.01,
        hint=r"$\sigma / \sqrt{s^2 + \sigma^2}$.",
        explanation="0.447: prior precision 1 and 4 from the image add up to 5.",
    )
    return


@app.cell
def _():
    exercise(
        "The covariance of images has the eigenvalues 5, 3, 1, 1, 1 and 1. Two components are "
        "kept. What is the squared length of the first principal volume?",
        5.0 - np.mean([1.0, 1.0, 1.0, 1.0]),
        tolerance=0.01,
        hint=r"$\lambda_1 - \sigma^2$, where $\sigma^2$ is the mean of what is left out.",
        explanation="4: of the variance 5 along the first component 1 is noise.",
    )
    return


@app.cell
def _():
    choose(
        "Two runs from other starts find volumes that look different, and the same "
        "log-likelihood to six digits. What would you compare?",
        (
            "The first volumes of both: one run must have failed.",
            "The planes that the volumes span, or the maps of single particles.",
            "Nothing: the model is not identifiable.",
        ),
        1,
        hint=r"What does $U \to U Q$ change?",
        explanation="Only axes differ. The plane and each particle's map do not.",
    )
    return


@app.function
def test_em_climbs_to_the_closed_form():
    """It never falls but by rounding (1e-8), and reaches the top (Tipping and Bishop)."""
    curve = np.array([one[2] for one in em_history(0.5, 3, 60)])
    assert np.diff(curve).min() > -1e-8
    history = em_history(1.0, 3, 300)
    curve = np.array([one[2] for one in history])
    top, noise_power = best_log_likelihood(moving_profiles(300, 0.5, 1.0, 0)[1], 2)
    assert np.diff(curve).min() > -1e-8
    # 300 steps, each of which leaves a share of the way: 1e-4 nats of thousands.
    assert abs(curve[-1] - top) < 1e-4
    assert abs(history[-1][1] - noise_power) < 1e-6


@app.function
def test_posteriors_are_the_librarys():
    """The same formulas, to rounding; the library's evidence lacks a constant."""
    seen, images, _ = moving_profiles(8, 0.5, 0.7, seed=1)
    volumes = np.random.default_rng(0).standard_normal((3, 32))
    mean, covariance, likelihood = posteriors(seen, images, volumes, 0.3)
    left, slices = images - seen * volumes[0], seen[:, None] * volumes[1:]
    of_images = (
        slices @ slices.transpose(0, 2, 1) / 0.3,
        (slices @ left[..., None])[..., 0] / 0.3,
        (left**2).sum(1) / 0.6,
    )
    whole = ConformationLikelihood(*(torch.from_numpy(one) for one in of_images))
    found = whole.posterior(torch.ones(2, dtype=torch.float64))
    assert np.allclose(found.mean.numpy(), mean, atol=1e-10)
    assert np.allclose(found.covariance.numpy(), covariance, atol=1e-10)
    constant = -16.0 * np.log(2.0 * np.pi * 0.3)
    assert np.allclose(found.log_evidence.numpy() + constant, likelihood, atol=1e-8)


@app.cell
def _():
    closing(
        "ppca",
        library=[
            "cryoinfer.inference.linear_conformation.ConformationLikelihood",
            "cryoinfer.reconstruction.coupled.solve_coupled",
            "cryoinfer heterogeneity",
        ],
        sources=[
            "M. E. Tipping and C. M. Bishop 1999, J. R. Statistical Society B 61, 611.",
            "A. Punjani and D. J. Fleet 2021, 3D variability analysis, J. Struct. Biol.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
