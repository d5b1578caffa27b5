import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    from scipy.special import log_softmax, softmax

    from course import (
        Bars,
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

    PIXELS, NOISE = 32, 0.5
    STEPS = (0, 30, 100, 300, 1000, 3000)  # of training, at which networks are kept
    WIDTHS = (2, 4, 8, 32)  # numbers between the layers


@app.cell
def _():
    opening("amortization")
    return


@app.cell
def _():
    mo.md(r"""
    ## Asking the same question a million times

    To find the pose of an image, a search compares it with the map in every pose. It does the same for the next image, and for the next, and remembers nothing. Yet the answer is a function
    of the image. Could that function be learned once, and then only be evaluated?

    Here is the smallest case. A signal of 32 pixels, two bumps of heights 1 and 0.8 that lie opposite each other on a circle, was moved around it by $x = 0, \dots, 31$ pixels, all equally
    likely. Noise of 0.5 was added. The posterior of $x$ is

    $$p(x \mid y) \propto \exp\left(-\frac{\|y - S_x A\|^2}{2\sigma^2}\right) \propto
    \exp\left(\frac{y \cdot S_x A}{\sigma^2}\right),$$

    as $\|y\|$ and $\|S_x A\|$ do not depend on $x$. The bumps lie opposite each other and are nearly equal, so the posterior nearly always has two tops.

    Look at the last formula: 32 sums of products of the image with fixed numbers, then $e^{(\cdot)}$, normalised. That is a network of one layer, whose weights are the signal in all its
    places. It is exact and needs no training. It is also wide: for a map in three dimensions the places are a million poses times shifts.

    An **encoder** is a network with less in it. It looks at the image once and returns $q(x \mid y)$. To learn, draw $x$, simulate $y$, and make

    $$\text{loss} = E_{x, y}\left[-\log q(x \mid y)\right] = E_y\left[ H(y) +
    \mathrm{KL}\left(p(x \mid y) \,\|\, q(x \mid y)\right) \right]$$

    small. The equality follows if one averages over $x$ first, given $y$; $H$ is the entropy of the exact posterior. So the loss is lowest where $q$ is the posterior, although no posterior
    was ever shown: pairs of truth and image are enough. What is left of the divergence is the **amortization gap**.
    """)
    return


@app.function
def signal():
    """Return two bumps on a circle of 32 pixels."""
    x = np.arange(PIXELS)
    return np.exp(-0.5 * ((x - 8) / 2.0) ** 2) + 0.8 * np.exp(
        -0.5 * ((x - 24) / 2.0) ** 2
    )


@app.function
def templates():
    """Return the signal at all places, one a row."""
    return signal()[(np.arange(PIXELS) - np.arange(PIXELS)[:, None]) % PIXELS]


@app.function
def simulated(count, noise, rng):
    """Return images (count, 32) and their places."""
    place = rng.integers(0, PIXELS, count)
    return templates()[place] + rng.normal(0.0, noise, (count, PIXELS)), place


@app.function
def searched(images, noise=NOISE):
    """Return the exact log posterior of every place."""
    return log_softmax(images @ templates().T / noise**2, axis=1)


@app.function
def encoded(network, images):
    """Return a network's log probabilities of every place, in one pass."""
    into, bias, out, last = network
    return log_softmax(np.maximum(images @ into + bias, 0.0) @ out + last, axis=1)


@app.function
def loss_and_slopes(network, images, place):
    """Return the mean of -log q at the true places, and its slopes in all weights."""
    into, bias, out, _ = network
    hidden = np.maximum(images @ into + bias, 0.0)
    log_q = encoded(network, images)
    error = np.exp(log_q)
    error[np.arange(len(place)), place] -= 1.0
    error /= len(place)
    back = (error @ out.T) * (hidden > 0)
    slopes = [images.T @ back, back.sum(0), hidden.T @ error, error.sum(0)]
    return -log_q[np.arange(len(place)), place].mean(), slopes


@app.function
def trained(width, seed=0, batch=128, rate=0.01):
    """Return the network after each of STEPS steps of Adam, the rate falling to 0."""
    rng = np.random.default_rng(seed)
    shapes = ((PIXELS, width), (width,), (width, PIXELS), (PIXELS,))
    network = [rng.normal(0.0, 0.3 if len(one) == 2 else 0.0, one) for one in shapes]
    first, second = ([np.zeros(one) for one in shapes] for _ in range(2))
    kept = {0: [one.copy() for one in network]}
    for step in range(1, STEPS[-1] + 1):
        _, slopes = loss_and_slopes(network, *simulated(batch, NOISE, rng))
        size = rate * 0.5 * (1.0 + np.cos(np.pi * step / STEPS[-1]))
        for one, m, v, slope in zip(network, first, second, slopes, strict=True):
            m += 0.1 * (slope - m)
            v += 0.001 * (slope**2 - v)
            one -= size * m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        if step in STEPS:
            kept[step] = [one.copy() for one in network]
    return kept


@app.function
def divergence(exact, approximate):
    """Return KL(exact || approximate) of every image, in nats."""
    return (np.exp(exact) * (exact - approximate)).sum(1)


@app.cell
def _():
    networks = {width: trained(width) for width in WIDTHS}
    return (networks,)


@app.cell
def _(networks):
    _images, _place = simulated(12, NOISE, np.random.default_rng(5))

    def one_image(number, steps, width):
        image = _images[number : number + 1]
        exact, found = searched(image), encoded(networks[width][steps], image)
        x, clean = np.arange(PIXELS), templates()[_place[number]]
        still = Line(x, clean, "without noise", dashed=True)
        left = (Line(x, image[0], "the image"), still)
        right = (
            Bars(x, np.exp(exact[0]), "search, exact"),
            Line(x, np.exp(found[0]), "encoder"),
            Points([_place[number]], [0.0], "the truth"),
        )
        where, chance = "Where is it?", "probability"
        return Plot(
            (
                Panel(left, "An image", "place (pixel)", "signal", None, (-1.6, 2.4)),
                Panel(right, where, "shift (pixel)", chance, None, (0, 1)),
            ),
            f"Divergence of the encoder from the exact posterior: {divergence(exact, found)[0]:.3f} nats.",
        )

    explore(
        one_image,
        number=Slider("image", range(8), 0),
        steps=Slider("steps of training", STEPS, 0),
        width=Slider("width of the encoder", WIDTHS, 32),
    )
    return


@app.cell
def _():
    mo.md(r"""
    At step 0 the encoder knows nothing. Then it learns where the bumps are, and later which of the two tops is the larger, and by how much. It was never given these images.

    ## How good, how small, and for what noise

    Now over 2,000 fresh images. The gap falls with training, and ends higher for a narrow encoder: two numbers cannot hold where on a circle something is, and which of two tops is the
    larger. A narrow one can still be useful. Take its best $k$ places and compute the exact likelihood only there. This is **semi-amortized** inference: the encoder proposes, the likelihood
    decides. The right panel gives the share of the exact posterior that the $k$ places hold.

    Then change the noise of the images, but not the encoder. At 0.25 it is too unsure, at 0.9 too sure of itself, and the gap grows. An encoder knows the world that it was trained on.
    """)
    return


@app.cell
def _(networks):
    def quality(width, noise, steps):
        images, _ = simulated(2000, noise, np.random.default_rng(6))
        exact = searched(images, noise)
        each = [encoded(networks[width][one], images) for one in STEPS]
        gaps = [divergence(exact, one).mean() for one in each]
        found = encoded(networks[width][steps], images)
        order = np.argsort(-found, axis=1)
        held = np.take_along_axis(np.exp(exact), order, 1).cumsum(1).mean(0)
        best = np.sort(np.exp(exact), axis=1)[:, ::-1].cumsum(1).mean(0)
        k, here = np.arange(1, PIXELS + 1), gaps[STEPS.index(steps)]
        shown = np.array(STEPS) + 10.0
        dots = (Line(shown, gaps), Points([steps + 10.0], [here], "here"))
        title, x, y = "Amortization gap", "steps of training + 10", "nats an image"
        gap = Panel(dots, title, x, y, None, (0.003, 10.0), log_x=True, log_y=True)
        asked = Line(k, best, "search's best k", dashed=True)
        right = (Line(k, held, "encoder's best k"), asked)
        share = "share of the posterior"
        return Plot(
            (gap, Panel(right, "Held by k places", "k", share, None, (0, 1.02))),
            f"Gap {here:.3f} nats; the best 4 places of the encoder hold {held[3]:.1%} of the posterior, those of the search {best[3]:.1%}.",
        )

    explore(
        quality,
        width=Slider("width of the encoder", WIDTHS, 8),
        noise=Slider("noise of the images", (0.25, 0.5, 0.9), 0.5),
        steps=Slider("steps of training", STEPS, 3000),
    )
    return


@app.cell
def _():
    source(searched, encoded, loss_and_slopes, trained)
    return


@app.cell
def _():
    mo.md(r"""
    ## When it pays

    Training costs $T$ seconds, once. If a search does $r_s$ images a second and an encoder $r_e$, the encoder is the faster way to do $n$ images if $T + n / r_e < n / r_s$, thus from

    $$n^{*} = \frac{T}{1/r_s - 1/r_e}$$

    on. Against a slow search that is soon. Against a search that was made fast it is late: programs have gone back from encoders to searches for this reason. What remains is the next image.
    An encoder answers for particles that have just come off the microscope in a millisecond each, with their uncertainty.
    """)
    return


@app.function
def break_even(training, search_rate, encoder_rate):
    """Return from how many images on an encoder takes less time."""
    return training / (1.0 / search_rate - 1.0 / encoder_rate)


@app.cell
def _():
    def costs(training, search_rate, encoder_rate):
        n = np.geomspace(1e3, 1e7, 60)
        start = break_even(training, search_rate, encoder_rate)
        marks = (
            Line(n, n / search_rate, "search"),
            Line(n, training + n / encoder_rate, "training and encoder"),
            Line([start, start], [1.0, 1e6], dashed=True),
        )
        ranges = {"x_range": (1e3, 1e7), "y_range": (1.0, 1e6)}
        return Plot(
            (
                Panel(
                    marks, "Time", "images", "seconds", **ranges, log_x=True, log_y=True
                ),
            ),
            f"The encoder is faster from {start:,.0f} images on.",
        )

    explore(
        costs,
        training=Slider("training (s)", (100, 400, 1600, 6400), 400),
        search_rate=Slider("search (images a second)", (1, 10, 100, 500), 100),
        encoder_rate=Slider("encoder (images a second)", (1000, 5000, 20000), 5000),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"It works on simulated particles and not on mine."* Mine have another contrast, another noise or neighbours in the box. Train with the spread that the data have, and test with images
      whose answer a search has given.
    - *"All images get the same pose."* If the encoder returns one pose, and is trained by the squared error of poses, two equal tops give their mean, which is neither. Let it return a
      distribution.
    - *"The error bars of the encoder are wrong."* Only the likelihood of the image itself corrects them: a few steps of refinement, or weights of draws by the exact posterior.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Training takes 400 s. The search does 200 images a second, the encoder 5,000. From how many thousand images on is the encoder faster?",
        break_even(400.0, 200.0, 5000.0) / 1000.0,
        tolerance=1.0,
        unit="thousand",
        hint="An image costs 5 ms by search, 0.2 ms by the encoder.",
        explanation="400 s over 4.8 ms: 83,000.",
    )
    return


@app.cell
def _():
    exercise(
        "An untrained encoder gives each of the 32 places the same probability. What is its loss, in nats?",
        np.log(PIXELS),
        tolerance=0.02,
        hint=r"$-\log q$ of one place in 32.",
        explanation=r"$\ln 32 = 3.47$. Whatever is less was learned from images.",
    )
    return


@app.cell
def _():
    choose(
        "The exact posterior has two equal tops, at shifts 4 and 20. An encoder that may return one number only is trained on the squared error. What does it return?",
        ("4 or 20, at random.", "About 12.", "Nothing sensible can be said."),
        1,
        hint="Which number has the least mean squared distance from 4 and 20?",
        explanation="The mean, 12, where the signal surely is not. (On a circle it depends on where the circle is cut, too.)",
    )
    return


@app.function
def test_search_is_a_layer():
    """Bayes' rule with squares, and the layer of products: equal to rounding."""
    images, _ = simulated(5, NOISE, np.random.default_rng(1))
    squares = ((images[:, None] - templates()) ** 2).sum(2)
    exact = softmax(-0.5 * squares / NOISE**2, axis=1)
    assert np.allclose(np.exp(searched(images)), exact, atol=1e-12)
    # As a network: relu(a) - relu(-a) = a, so 64 hidden numbers do it.
    weights = templates().T / NOISE**2
    both, eye = np.concatenate([weights, -weights], 1), np.eye(PIXELS)
    network = [both, np.zeros(64), np.concatenate([eye, -eye]), np.zeros(PIXELS)]
    assert np.allclose(encoded(network, images), searched(images), atol=1e-9)


@app.function
def test_slopes():
    """Slopes against differences (step 1e-6 in double precision: 1e-7)."""
    rng = np.random.default_rng(2)
    network = [rng.normal(0.0, 0.3, one) for one in ((32, 4), (4,), (4, 32), (32,))]
    images, place = simulated(50, NOISE, rng)
    before, slopes = loss_and_slopes(network, images, place)
    for number, at in ((0, (3, 2)), (1, (1,)), (2, (0, 7)), (3, (9,))):
        network[number][at] += 1e-6
        after, _ = loss_and_slopes(network, images, place)
        network[number][at] -= 1e-6
        assert abs((after - before) / 1e-6 - slopes[number][at]) < 1e-5


@app.function
def test_an_encoder_learns_the_posterior():
    """The gap is small after training; the loss is entropy plus gap, to 1 / sqrt(20,000)."""
    network = trained(32)[STEPS[-1]]
    images, place = simulated(20_000, NOISE, np.random.default_rng(3))
    exact, found = searched(images), encoded(network, images)
    gap = divergence(exact, found)
    assert gap.min() > -1e-9
    assert gap.mean() < 0.1
    entropy = -(np.exp(exact) * exact).sum(1).mean()
    loss, _ = loss_and_slopes(network, images, place)
    assert abs(loss - entropy - gap.mean()) < 0.03


@app.cell
def _():
    closing(
        "amortization",
        library=[
            "cryoinfer.workflows.train",
            "cryoinfer.workflows.infer",
        ],
        sources=[
            "G. Papamakarios and I. Murray 2016, Fast epsilon-free inference of simulation models with Bayesian conditional density estimation, NIPS.",
            "A. Levy and others 2022, CryoAI: amortized inference of poses for ab initio reconstruction of 3D molecular volumes from real cryo-EM images, ECCV.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
