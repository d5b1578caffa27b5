import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import dataclasses
    import itertools

    import marimo as mo
    import numpy as np
    import torch
    from scipy.ndimage import rotate
    from scipy.special import logsumexp

    from course import (
        Heat,
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
    from cryoinfer.physics.ctf import evaluate_ctf
    from cryoinfer.records import Optics

    SIDE, PIXEL = 25, 5.0  # pixels of an image, and angstrom of a pixel
    ANGLES = np.arange(0, 360, 15)  # in-plane angles tried, in degrees
    DEFOCI = (10000.0, 15000.0, 20000.0)  # of the images, in angstrom
    PLANE = np.meshgrid(np.fft.fftfreq(SIDE, PIXEL), np.fft.fftfreq(SIDE, PIXEL))
    BLOBS = {  # x, y and width in pixels, from the centre
        "long": ((-7, 0, 1.6), (-2, 0, 1.6), (3, 0, 1.6), (7, 2, 1.6)),
        "bent": ((-5, -3, 1.6), (0, -3, 1.6), (4, 0, 1.6), (3, 5, 1.6)),
        "round": ((4, 0, 1.6), (-2, 3.5, 1.6), (-2, -3.5, 1.6), (0, 0, 1.2)),
    }


@app.cell
def _():
    opening("classes_2d")
    return


@app.cell
def _():
    mo.md(r"""
    ## A heap of images

    A micrograph has hundreds of particles, and each lies as it fell. Some show the molecule from the side, some from the top, some are something else. One image alone shows little. To see
    what is in the heap, average those that show the same thing. But which are these, and by what angle is each turned?

    Here the heap has 240 images of 25 pixels of 5 Å, of three views: "long", "bent" and "round". Each is turned by an unknown angle in its plane. (Unknown shifts are found in the same way;
    the chapter before did only these.) The microscope multiplies the Fourier transform by the CTF of one of three defoci, and noise is added:

    $$y = C \ast R_\theta A_c + \text{noise} .$$

    $A_c$ is the view of class $c$, $R_\theta$ turns it by $\theta$, and $C \ast$ is the filter of the CTF. The power of the noise is ten times that of the signal. Four of the images are in
    the second figure; nobody would sort them by hand.

    ## Weights over classes and angles

    The unknowns of an image are its class and its angle. As in one dimension, try all pairs. With $K$ classes and 24 angles there are $24 K$ of them, and the responsibility of a pair is

    $$\gamma_{c\theta} \propto \pi_c \exp\left(-\frac{1}{2\sigma^2}
    \|y - C \ast R_\theta A_c\|^2\right),$$

    where $\pi_c$ is the share of the class among all images. By Parseval's theorem the sum of squares may be taken in Fourier space instead, where the CTF is a product and a shift by $t$ is
    a phase $e^{-2\pi i k t}$. Programs work there.

    ## Averages that know the CTF

    Hold the weights and look for the best $A_c$. (From here $\sigma^2$ is the power of the noise in one coefficient of the transform.) A CTF that depends on $|k|$ alone is not changed by a
    rotation. So turn each transform back, $\hat x = R_\theta^{-1} \hat y$, and the sum of squares falls apart into one sum for each frequency $k$:

    $$\sum_{i,\theta} \frac{\gamma_{ic\theta}}{\sigma^2}
    \left|\hat x_{i\theta}(k) - C_i(k) \hat A_c(k)\right|^2 +
    \frac{1}{\tau^2} |\hat A_c(k)|^2 .$$

    The last term says that amplitudes are expected to be of size $\tau$. Set the derivative to zero:

    $$\hat A_c(k) = \frac{\sum_{i,\theta} \gamma_{ic\theta}\, C_i(k)\, \hat x_{i\theta}(k)}
    {\sum_{i,\theta} \gamma_{ic\theta}\, C_i(k)^2 + \sigma^2 / \tau^2} .$$

    This is the **Wiener average**. Where one image has a zero of its CTF, another defocus fills in: the sum of the squares in the denominator is small only where all images are blind. Then
    the prior takes over, and the average tends to zero instead of dividing noise by nothing.

    How much of an amplitude comes through? With $n$ images at each of some defoci the Wiener average holds the fraction $\sum C^2 / (\sum C^2 + \sigma^2/\tau^2)$ of it. With one defocus the
    fraction has a gap at each zero of the CTF. More images make the gap narrower and never close it. A second defocus does. At the lowest frequencies all CTFs are about 0.1, so large shapes
    come last, and only with many images.
    """)
    return


@app.function
def drawn(view, degrees=0.0):
    """Return a view, turned counter-clockwise, as an image: a sum of Gaussians."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    angle = np.radians(degrees)
    image = np.zeros((SIDE, SIDE))
    for at_x, at_y, width in BLOBS[view]:
        dx = x - at_x * np.cos(angle) + at_y * np.sin(angle)
        dy = y - at_x * np.sin(angle) - at_y * np.cos(angle)
        image += np.exp(-0.5 * (dx**2 + dy**2) / width**2)
    return image


@app.function
def transfer(defocus_angstrom, x, y):
    """Return the program's CTF (300 kV, Cs 2.7 mm, 10 % amplitude contrast) at 1 / angstrom."""
    one = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}
    one |= {f"defocus_{axis}_angstrom": defocus_angstrom for axis in "uv"}
    values = {name: torch.tensor([value]).double() for name, value in one.items()}
    optics = dataclasses.replace(Optics.without_ctf(1, PIXEL), **values)
    flat = (torch.as_tensor(np.ravel(axis)) for axis in (x, y))
    return evaluate_ctf(optics, *flat).numpy().reshape(np.shape(x))


@app.function
def filtered(images, ctf):
    """Return images multiplied by a CTF in Fourier space."""
    return np.fft.ifft2(np.fft.fft2(images) * ctf).real


@app.function
def heap(noise, images=240, seed=3):
    """Return images, the number of each one's view, its angle and that of its defocus."""
    rng = np.random.default_rng(seed)
    view = rng.integers(0, 3, images)
    angle = rng.uniform(0.0, 360.0, images)
    defocus = rng.integers(0, 3, images)
    names, ctfs = list(BLOBS), [transfer(one, *PLANE) for one in DEFOCI]
    clean = np.stack(
        [
            filtered(drawn(names[v], a), ctfs[d])
            for v, a, d in zip(view, angle, defocus, strict=True)
        ]
    )
    return clean + rng.normal(0.0, noise, clean.shape), view, angle, defocus


@app.function
def turned(images, degrees):
    """Return images (..., 25, 25) turned counter-clockwise about the central pixel."""
    return rotate(images, -degrees, (-1, -2), reshape=False, order=1)


@app.function
def responsibilities(data, defocus, views, share, noise):
    """Return gamma (images, classes, angles) and the log-likelihood of all images."""
    every = np.stack([turned(views, one) for one in ANGLES], 1)
    flat, score = data.reshape(len(data), -1), np.empty((len(data), *every.shape[:2]))
    for which, one in enumerate(DEFOCI):
        rows = np.flatnonzero(defocus == which)
        seen = filtered(every, transfer(one, *PLANE)).reshape(*every.shape[:2], -1)
        product = np.tensordot(flat[rows], seen, (1, 2))
        score[rows] = product - 0.5 * (seen**2).sum(2)
    score = score / noise**2 + np.log(share / len(ANGLES))[:, None]
    total = logsumexp(score, axis=(1, 2))
    constant = -0.5 * (flat**2).sum() / noise**2 - flat.size * np.log(noise)
    return np.exp(score - total[:, None, None]), total.sum() + constant


@app.function
def averaged(data, defocus, weight, noise, amplitude=1.0):
    """Return the Wiener average of every class; tau is amplitude * SIDE."""
    top, below = 0.0, (noise / amplitude) ** 2
    for which, one in enumerate(DEFOCI):
        rows, ctf = np.flatnonzero(defocus == which), transfer(one, *PLANE)
        by_angle = np.tensordot(weight[rows], data[rows], (0, 0))
        back = sum(turned(by_angle[:, n], -one) for n, one in enumerate(ANGLES))
        top = top + np.fft.fft2(back) * ctf
        below = below + weight[rows].sum((0, 2))[:, None, None] * ctf**2
    return np.fft.ifft2(top / below).real


@app.function
def sorted_out(data, defocus, classes, noise, seed, rounds=12):
    """Return views, share, weight and log-likelihood of every round, from random weights."""
    rng = np.random.default_rng(seed)
    weight = rng.dirichlet(np.full(classes, 0.5), len(data))[:, :, None]
    weight = np.repeat(weight, len(ANGLES), 2) / len(ANGLES)
    told = []
    for _ in range(rounds + 1):
        views = averaged(data, defocus, weight, noise)
        share = np.maximum(weight.sum((0, 2)) / len(data), 1e-6)
        weight, value = responsibilities(data, defocus, views, share, noise)
        told.append((views, share, weight, value))
    return told


@app.function
def held(frequencies, defoci, images, ratio):
    """Return the fraction of amplitudes in a Wiener average; ratio is sigma^2 / tau^2."""
    squares = [transfer(one, frequencies, 0 * frequencies) ** 2 for one in defoci]
    power = np.sum(squares, axis=0) * images
    return power / (power + ratio)


@app.cell
def _():
    def wiener(defoci, images, ratio):
        s = np.linspace(0.0, 0.1, 201)
        kept = held(s, DEFOCI[:defoci], images, ratio)
        marks = [Line(s, kept, "held by the average")]
        marks += [
            Line(s, abs(transfer(one, s, 0 * s)), f"|CTF|, {one:.0f} Å", dashed=True)
            for one in DEFOCI[:defoci]
        ]
        title = "What comes through"
        x = "frequency (1/Å)"
        return Plot(
            (Panel(tuple(marks), title, x, "fraction", None, (0, 1.05)),),
            f"{(kept > 0.9).mean():.0%} of the frequencies up to 1/10 Å are held by more than nine tenths; least beyond 1/50 Å: {kept[s > 0.02].min():.2f}.",
        )

    explore(
        wiener,
        defoci=Slider("number of defoci", (1, 2, 3), 1),
        images=Slider("images at each defocus", (1, 3, 10, 30, 100, 300), 30),
        ratio=Slider("noise over signal, in power", (1, 3, 10, 30), 10),
    )
    return


@app.cell
def _():
    source(transfer, responsibilities, averaged, sorted_out)
    return


@app.cell
def _():
    mo.md(r"""
    ## Sorting

    Start with random weights: each average is then a round smear of everything. Take turns of weights and averages. Move the slider of rounds and watch the first differences between the
    smears grow into views.

    Then ask for two classes: two views must share one. Ask for four: one class is split, or starves. The algorithm does not tell the number. Try all starts: the top that is reached, and its
    log-likelihood, depend on them.
    """)
    return


@app.cell
def _():
    _noise = 0.3
    _data, _view, _, _defocus = heap(_noise)
    _starts = {
        (seed, k): sorted_out(_data, _defocus, k, _noise, seed)
        for seed, k in itertools.product(range(4), (2, 3, 4))
    }

    def _tiled(four):
        return np.block([[four[0], four[1]], [four[2], four[3]]])

    _seen = Panel((Heat(_tiled(_data), signed=True),), "Four images", equal=True)

    def sorting(number, classes, seed):
        told = _starts[seed, classes]
        views, share, weight, _ = told[number]
        most, nothing = abs(views).max(), np.full((SIDE, SIDE), np.nan)
        tiles = _tiled([*views, *[nothing] * (4 - classes)])
        label = weight.sum(2).argmax(1)
        table = [[(label == k) & (_view == v) for v in range(3)] for k in set(label)]
        counts = np.sum(table, axis=2)
        values = np.array([one[3] for one in told]) / len(_data)
        right = counts.max(1).sum() / len(_data)
        curve = (Line(range(len(told)), values), Points([number], [values[number]]))
        shown = Heat(tiles, signed=True, limits=(-most, most))
        return Plot(
            (
                _seen,
                Panel((shown,), "The averages", equal=True),
                Panel(curve, "Log-likelihood", "round", "nats an image"),
            ),
            f"Round {number}: {values[number]:.2f} nats an image; shares {', '.join(f'{one:.2f}' for one in share)}; {right:.0%} of the images are in "
            "a class most of whose images show the same view.",
        )

    explore(
        sorting,
        number=Slider("round", (0, 1, 2, 3, 4, 6, 8, 12), 0),
        classes=Slider("classes asked for", (2, 3, 4), 3),
        seed=Slider("start", range(4), 0),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"Two of my classes are the same view, turned by 180 degrees."* Or one average shows a view and its half turn on top of each other. Both are tops of the likelihood that a start can
      fall into. More images do not help, another start does.
    - *"One class has most of the images and is blurred."* A blurred average fits everything a little, a sharp one only its own. In strong noise images prefer the average of most images, and
      it grows. Fewer angles and low resolution at first reduce this.
    - *"All averages have a dark ring around the particle."* They were not corrected for the CTF, or all images have one defocus, and the ring is what its gaps leave.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"All images have one defocus, 15,000 Å. At $s = 1/50$ Å its CTF is 0.46. In how many images is half of the amplitude there held, if $\sigma^2/\tau^2 = 30$?",
        30.0 / transfer(DEFOCI[1], np.array([0.02]), np.array([0.0]))[0] ** 2,
        tolerance=3.0,
        hint="Set the fraction to 1/2: then the sum of the squares is the ratio.",
        explanation=r"$n C^2 = 30$ gives $n = 30 / 0.46^2$, about 141.",
    )
    return


@app.cell
def _():
    exercise(
        "A search tries 50 classes, 72 angles and 121 shifts for each of 100,000 images. How many billions of comparisons is one round?",
        50 * 72 * 121 * 100_000 / 1e9,
        tolerance=0.5,
        unit="billion",
        hint="Multiply.",
        explanation="43.6 billion. Programs therefore try few angles and shifts first, at low resolution, and finer ones only where the weight is.",
    )
    return


@app.cell
def _():
    choose(
        "All images were taken at exactly one defocus. What do ten times as many images do to the average at the zero of the CTF?",
        ("They fill it in.", "Nothing.", "They make the noise there larger."),
        1,
        hint=r"What is $\sum C^2$ there?",
        explanation="Zero times ten is zero: the prior alone speaks there. Another defocus brings what is missing.",
    )
    return


@app.function
def test_average_by_hand():
    """One angle, one view: the Wiener formula, coefficient by coefficient (rounding)."""
    data, _, _, defocus = heap(0.3, 9)
    weight = np.eye(len(ANGLES))[np.zeros((9, 1), int)]
    ctf = np.stack([transfer(DEFOCI[d], *PLANE) for d in defocus])
    top = (np.fft.fft2(data) * ctf).sum(0)
    expected = np.fft.ifft2(top / ((ctf**2).sum(0) + 0.3**2)).real
    found = averaged(data, defocus, weight, 0.3)
    assert np.allclose(found[0], expected, atol=1e-12)


@app.function
def test_turned():
    """Against turned Gaussians; linear numbers are off by up to f'' / 8 = 0.09 of 1 a side."""
    for degrees in (15, 105, 270):
        found = turned(drawn("bent"), degrees)
        assert abs(found - drawn("bent", degrees)).max() < 0.1


@app.function
def test_views_are_found():
    """Three views at a tenth of the noise's power: nine images of ten in their class."""
    data, view, _, defocus = heap(0.3)
    label = sorted_out(data, defocus, 3, 0.3, 0)[-1][2].sum(2).argmax(1)
    counts = [[((label == k) & (view == v)).sum() for v in range(3)] for k in range(3)]
    assert np.max(counts, axis=1).sum() / len(view) > 0.9
    # Power of signal over noise, as the text says: 0.0085 / 0.09.
    assert 0.08 < heap(0.0)[0].var() / 0.09 < 0.12


@app.cell
def _():
    closing(
        "classes_2d",
        library=[
            "cryoinfer.physics.ctf.evaluate_ctf",
            "cryoinfer.inference.class_maps.ClassMaps",
            "cryoinfer heterogeneity",
        ],
        sources=[
            "S. H. W. Scheres and others 2005, Maximum-likelihood multi-reference refinement for electron microscopy images, Journal of Molecular Biology.",
            "learn_cryoem_math (Woollard), 2d_class, 2d_class_fourier and cryoMaxLik2D.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
